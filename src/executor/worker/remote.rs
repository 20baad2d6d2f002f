//! A worker process, seen from the daemon: started, called, and ended.

use std::borrow::Cow;
use std::pin::Pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Child;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::line::{Broken, Line};
use super::message::{Answer, Answered, Call, Cancel, Done, Hello, Request, VERSION};
use super::spawner::Spawner;
use super::{WorkerProgram, WorkerTimes};
use crate::clock::Clock;
use crate::executor::Assignment;
use crate::executor::children;
use crate::executor::report::{Ended, failed, failed_for_good};
use crate::job::Task;
use crate::output::Stream;
use crate::run::{Cost, Outcome};
use crate::task::cancellation::Ending;
use crate::task::context::Context;
use crate::task::log::Log;

/// How long a worker whose socket has been closed may take to end.
const END_GRACE: Duration = Duration::from_secs(1);

/// A worker process. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
    pid: Option<Pid>,
    line: Line,
    /// Fires not later than there is something to do. It is not set again for each call, which would cost more.
    timer: Pin<Box<Sleep>>,
    times: WorkerTimes,
}

/// How a worker has ended.
#[derive(Debug)]
pub(super) struct Death {
    pub(super) status: std::io::Result<ExitStatus>,
    /// Something that it was sent has certainly not been read to its end.
    pub(super) left_unread: bool,
}

/// What a call has come to so far.
#[derive(Debug)]
struct Calling {
    /// Why the run is to end, once its worker has been told.
    ending: Option<Ending>,
    /// Until when the worker has to say something.
    until: Instant,
}

impl Worker {
    /// Starts a process.
    pub(super) async fn spawn(spawner: &Spawner, times: WorkerTimes) -> std::io::Result<Self> {
        let (line, child) = Line::new(spawner.spawn().await?);
        let first = Instant::now() + times.silence;
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Ok(Self { child, pid, line, timer: Box::pin(sleep_until(first)), times })
    }

    /// Tells the worker what it needs to know, and waits until it is ready. What it prints goes to `log`.
    pub(super) async fn greet(
        &mut self,
        program: &WorkerProgram,
        log: &Log,
        clock: &Arc<dyn Clock>,
    ) -> Result<(), Broken> {
        let hello = Hello {
            version: VERSION,
            daemon: std::process::id(),
            beat_millis: u64::try_from(self.times.beat.as_millis()).unwrap_or(u64::MAX),
            settings: Cow::Borrowed(&program.hello),
        };
        let print = |stream: Stream, bytes: &[u8]| log.write(clock.now(), stream, bytes);
        let greeting = async {
            self.line.say(&Request::Hello(hello)).await?;
            self.line.hear(print).await
        };
        let answer = timeout(self.times.start, greeting).await;
        // It would be the first run's.
        self.line.take_printed(print);
        match answer.map_err(|_| Broken::Silent(self.times.start))?? {
            Answer::Ready { version: VERSION } => Ok(()),
            Answer::Ready { version } => Err(Broken::Protocol(format!(
                "it speaks version {version}, and this daemon version {VERSION}"
            ))),
            answer @ (Answer::Beat | Answer::Done(_)) => Err(unexpected(&answer)),
        }
    }

    /// Watches a worker that has nothing to do: returns when it is of no more use, or at that instant. It is
    /// cancel-safe.
    pub(super) async fn idle(&mut self, until: Option<Instant>) -> Option<Broken> {
        let print = |stream: Stream, bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            tracing::info!(?stream, text = text.trim_end(), "a worker process printed by itself");
        };
        if let Some(until) = until {
            self.wake_by(until);
        }
        loop {
            tokio::select! {
                biased;
                answer = self.line.hear(print) => {
                    return Some(answer.map_or_else(|broken| broken, |answer| unexpected(&answer)));
                }
                () = &mut self.timer, if until.is_some() => {}
            }
            let until = until.filter(|until| Instant::now() < *until)?;
            self.timer.as_mut().reset(until);
        }
    }

    /// Has the worker run a builtin. An error means that the worker is of no more use.
    pub(super) async fn call(
        &mut self,
        assignment: &Assignment,
        context: &Context,
        clock: &Arc<dyn Clock>,
    ) -> Result<Ended, Broken> {
        if let Some(refused) = self.send(assignment, context).await? {
            return Ok(refused.into());
        }
        let print = |stream: Stream, bytes: &[u8]| context.log.write(clock.now(), stream, bytes);
        let mut calling = Calling { ending: None, until: Instant::now() + self.times.silence };
        self.wake_by(calling.until);
        loop {
            let heard = tokio::select! {
                biased;
                answer = self.line.hear(print) => Some(answer),
                ending = context.cancellation.cancelled(), if calling.ending.is_none() => {
                    self.ask_to_end(assignment, &mut calling, ending).await?;
                    None
                }
                () = &mut self.timer => None,
            };
            match heard {
                Some(Ok(Answer::Done(done))) => {
                    self.line.take_printed(print);
                    return Ok(ended(done, calling.ending));
                }
                Some(Ok(Answer::Beat)) => calling.go_on(self.times.silence),
                Some(Ok(answer @ Answer::Ready { .. })) => {
                    return Err(calling.broken(unexpected(&answer)));
                }
                Some(Err(broken)) => return Err(calling.broken(broken)),
                None if Instant::now() < calling.until => {
                    self.timer.as_mut().reset(calling.until);
                }
                None => return Err(calling.broken(Broken::Silent(self.times.silence))),
            }
        }
    }

    /// Has the timer fire at this instant at the latest. One that fires too early is set again then, which is cheaper than to
    /// set it each time.
    fn wake_by(&mut self, instant: Instant) {
        if self.timer.deadline() > instant {
            self.timer.as_mut().reset(instant);
        }
    }

    /// Sends a call. What cannot be sent to any worker has its outcome at once.
    async fn send(
        &mut self,
        assignment: &Assignment,
        context: &Context,
    ) -> Result<Option<Outcome>, Broken> {
        let Task::Builtin { name, args } = &*assignment.task else {
            return Ok(Some(failed("a worker process runs builtin tasks only")));
        };
        let call = Call {
            run_id: Cow::Borrowed(&assignment.run_id.0),
            job_id: Cow::Borrowed(assignment.job_id.as_str()),
            attempt: assignment.attempt,
            scheduled_at: assignment.scheduled_at.map(|at| at.timestamp_micros()),
            name: Cow::Borrowed(name),
            args: Cow::Borrowed(args),
            event: assignment.event.as_deref().map(Cow::Borrowed),
        };
        match self.line.begin_to_say(&Request::Call(call)) {
            Ok(true) => return Ok(None),
            Ok(false) => {}
            Err(error) => {
                let error = format!("the call cannot be sent to a worker process: {error}");
                return Ok(Some(failed_for_good(error)));
            }
        }
        let sending = timeout(self.times.silence, self.line.say_rest());
        tokio::select! {
            biased;
            said = sending => said.map_err(|_| Broken::Silent(self.times.silence))??,
            // A part of a call cannot be taken back.
            ending = context.cancellation.cancelled() => return Err(Broken::Asked(ending)),
        }
        Ok(None)
    }

    async fn ask_to_end(
        &mut self,
        assignment: &Assignment,
        calling: &mut Calling,
        ending: Ending,
    ) -> Result<(), Broken> {
        let run_id = Cow::Borrowed(&*assignment.run_id.0);
        let cancel = Request::Cancel(Cancel { run_id, attempt: assignment.attempt });
        calling.until = Instant::now() + self.times.grace;
        self.wake_by(calling.until);
        let said = timeout(self.times.grace, self.line.say(&cancel)).await;
        calling.ending = Some(ending);
        match said {
            // What it said before it ended is still to be heard, and then its end.
            Ok(Ok(()) | Err(Broken::EndedUnread)) => Ok(()),
            Ok(Err(broken)) => Err(calling.broken(broken)),
            // It may have got a part of the wish, and cannot be told anything more.
            Err(_) => Err(calling.broken(Broken::Silent(self.times.grace))),
        }
    }

    /// Lets a worker end that has nothing to do.
    pub(super) async fn dismiss(mut self) {
        self.line.hang_up();
        if timeout(END_GRACE, self.child.wait()).await.is_err() {
            tracing::warn!("a worker process did not end when its socket did; it is killed");
        }
        drop(self.end(|_, _| ()).await);
    }

    /// Ends a worker that is of no more use, and all that it has started. What it has printed goes to `sink`.
    pub(super) async fn end(mut self, sink: impl Fn(Stream, &[u8])) -> Death {
        // One that is ending already keeps its exit code.
        if let Some(group) = self.pid.filter(|_| self.child.id().is_some())
            && let Err(error) = kill_process_group(group, Signal::KILL)
        {
            tracing::debug!(%error, "a worker process was gone before it was killed");
        }
        let status = self.child.wait().await;
        self.line.take_printed(sink);
        Death { status, left_unread: self.line.was_left_unread() }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.pid.into_iter().for_each(children::forget);
    }
}

impl Calling {
    /// The worker lives, and may take its time unless it was asked to end.
    fn go_on(&mut self, silence: Duration) {
        if self.ending.is_none() {
            self.until = Instant::now() + silence;
        }
    }

    /// A run that was asked to end has ended as that, whatever became of its worker.
    fn broken(&self, broken: Broken) -> Broken {
        self.ending.clone().map_or(broken, Broken::Asked)
    }
}

fn unexpected(answer: &Answer) -> Broken {
    let word = match answer {
        Answer::Ready { .. } => "ready",
        Answer::Beat => "alive",
        Answer::Done(_) => "done",
    };
    Broken::Protocol(format!("it said \"{word}\" when that was not asked"))
}

/// A call's end, as its worker tells it.
fn ended(done: Done, ending: Option<Ending>) -> Ended {
    let cost = Cost { cpu_micros: done.cpu_micros, peak_memory: done.peak_memory };
    let outcome = match (done.outcome, ending) {
        (Answered::Succeeded { result }, _) => {
            Outcome::Succeeded { result: Some(result), exit_code: None }
        }
        (Answered::Failed { error, permanent }, _) => {
            Outcome::Failed { error, exit_code: None, signal: None, permanent }
        }
        (Answered::Cancelled, Some(ending)) => ending.into(),
        (Answered::Cancelled, None) => failed("the builtin ended as cancelled, which it was not"),
    };
    Ended { outcome, cost }
}
