//! A worker process, seen from within. Its main thread reads a call, runs the builtin and answers, so that a short call
//! costs one read and one write; while a call takes longer, another thread looks after the socket ([`Watch`]).

use std::fs::File;
use std::io::{Error, Read, Result as IoResult, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde_json::Value;
use tokio::time::Instant;

use super::frame::{Frames, encode};
use super::memory::Memory;
use super::message::{Answer, Answered, Call, Done, Hello, Request, VERSION};
use super::watch::{Running, Watch};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::executor::report::{Ended, bounded};
use crate::executor::{Assignment, thread};
use crate::job::{JobId, Task};
use crate::output::Line;
use crate::run::{Outcome, RunId};
use crate::task::builtin::Registry;
use crate::task::context::Context;
use crate::task::log::Log;

/// The worker's end of its socket. It is read by one thread at a time.
#[derive(Debug)]
pub(super) struct Link {
    socket: UnixStream,
    frames: Mutex<Frames>,
}

impl Link {
    /// Takes the socket from the standard input, which is empty from then on: a process that a builtin starts must
    /// neither read from it nor hold it open.
    fn from_stdin() -> IoResult<Self> {
        let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        Ok(Self { socket: socket.into(), frames: Mutex::default() })
    }

    /// Another handle of the socket for a thread that awaits. It blocks no thread from then on, until it is taken back.
    pub(super) fn lend(&self) -> IoResult<tokio::net::UnixStream> {
        let socket = self.socket.try_clone()?;
        socket.set_nonblocking(true)?;
        tokio::net::UnixStream::from_std(socket)
    }

    /// The socket blocks the thread that uses it again.
    pub(super) fn take_back(&self) -> IoResult<()> {
        self.socket.set_nonblocking(false)
    }

    pub(super) fn frames(&self) -> MutexGuard<'_, Frames> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a message.
    fn send(&self, answer: &Answer) -> IoResult<()> {
        (&self.socket).write_all(&encoded(answer)?)
    }

    /// Waits for the next message; none if the daemon is gone.
    fn receive(&self) -> IoResult<Option<Request<'static>>> {
        let mut frames = self.frames();
        loop {
            if let Some(request) = frames.next().map_err(Error::other)? {
                return Ok(Some(request));
            }
            match (&self.socket).read(frames.space()) {
                Ok(0) => return Ok(None),
                Ok(count) => frames.fill(count),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A message as it is sent.
pub(super) fn encoded(answer: &Answer) -> IoResult<Vec<u8>> {
    let mut sending = Vec::new();
    encode(answer, &mut sending).map_err(Error::other)?;
    Ok(sending)
}

/// What a builtin says stands between what it prints, and is with the daemon before the builtin goes on, which may end
/// the process. No more can be done than to try.
fn pass_on(line: &Line) {
    let end = if line.is_open { "" } else { "\n" };
    drop(write!(std::io::stdout().lock(), "{}{end}", line.text));
}

/// The worker's life: it builds the registry from what it is told first, then runs builtins until the daemon is gone.
pub fn serve<E: From<Error>>(build: impl FnOnce(Value) -> Result<Registry, E>) -> Result<(), E> {
    // Also when it is stopped, and cannot see that its socket has ended.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(Error::from)?;
    let link = Arc::new(Link::from_stdin()?);
    let Some(request) = link.receive()? else { return Ok(()) };
    let Request::Hello(Hello { version, daemon, beat_millis, settings }) = request else {
        return Err(Error::other("the first message is no hello").into());
    };
    let parent = rustix::process::getppid().map(Pid::as_raw_nonzero);
    if parent.map(|pid| pid.get().unsigned_abs()) != Some(daemon) {
        // It died before its death was a signal.
        return Err(Error::other("the daemon is not its parent process").into());
    }
    if version != VERSION {
        link.send(&Answer::Ready { version: VERSION })?;
        return Ok(());
    }
    let registry = build(settings.into_owned())?;
    let watch = Watch::start(Arc::clone(&link), Duration::from_millis(beat_millis))?;
    link.send(&Answer::Ready { version: VERSION })?;
    let mut desk = Desk { registry, watch, memory: Memory::new(), clock: Arc::new(SystemClock) };
    while let Some(request) = link.receive()? {
        match request {
            Request::Call(call) => link.send(&desk.answer(call))?,
            // It came too late.
            Request::Cancel(_) => {}
            Request::Hello(_) => return Err(Error::other("there was a second hello").into()),
        }
    }
    Ok(())
}

/// What a call needs.
struct Desk {
    registry: Registry,
    watch: Arc<Watch>,
    memory: Memory,
    clock: Arc<dyn Clock>,
}

impl Desk {
    /// Runs a builtin, and says what it came to.
    fn answer(&mut self, call: Call<'static>) -> Answer {
        let assignment = match assignment(call) {
            Ok(assignment) => assignment,
            Err(error) => return refused(error),
        };
        let context = Context { log: Log::passing_on(pass_on), ..Context::default() };
        let (context, begun) = (Arc::new(context), Instant::now());
        let running = Running { execution: assignment.execution(), context: Arc::clone(&context) };
        self.watch.begin(running);
        let ended = thread::call(&self.registry, &assignment, &context, &self.clock);
        self.watch.end();
        // What has no line break yet would be the next run's.
        drop(std::io::stdout().flush());
        let outcome = bounded(ended.outcome, &context);
        let peak_memory = self.memory.peak_of(begun.elapsed());
        done(Ended { outcome, cost: ended.cost }, peak_memory)
    }
}

fn assignment(call: Call<'static>) -> Result<Assignment, String> {
    let instant =
        |micros| Timestamp::from_timestamp_micros(micros).ok_or("scheduled_at is no instant");
    Ok(Assignment {
        run_id: RunId(call.run_id.into()),
        job_id: JobId::parse(&call.job_id).map_err(|invalid| invalid.to_string())?,
        attempt: call.attempt,
        scheduled_at: call.scheduled_at.map(instant).transpose()?,
        task: Arc::new(Task::Builtin {
            name: call.name.into_owned(),
            args: call.args.into_owned(),
        }),
        timeout: None,
        event: call.event.map(|event| Arc::new(event.into_owned())),
        forbidden: None,
    })
}

fn refused(error: String) -> Answer {
    let outcome = Answered::Failed { error, permanent: true };
    Answer::Done(Done { outcome, cpu_micros: None, peak_memory: None })
}

fn done(ended: Ended, peak_memory: Option<u64>) -> Answer {
    let outcome = match ended.outcome {
        Outcome::Succeeded { result, .. } => {
            Answered::Succeeded { result: result.unwrap_or_default() }
        }
        Outcome::Failed { error, permanent, .. } => Answered::Failed { error, permanent },
        Outcome::Cancelled { .. } | Outcome::TimedOut { .. } | Outcome::Lost { .. } => {
            Answered::Cancelled
        }
    };
    Answer::Done(Done { outcome, cpu_micros: ended.cost.cpu_micros, peak_memory })
}
