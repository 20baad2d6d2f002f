//! The worker process. Its main thread reads a call, runs the builtin and answers, so that a short call costs one read and
//! one write. During a longer call the [`watchdog`] thread uses the socket.

mod daemon_socket;
mod inbox;
mod memory;
mod watchdog;

use std::io::{Error, Write};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde_json::Value;
use tokio::time::Instant;

use self::daemon_socket::DaemonSocket;
use self::inbox::Inbox;
use self::memory::PeakMemory;
use self::watchdog::{CallWatchdog, RunningCall};
use super::protocol::message::{
    BuiltinCall, CallEnd, CallId, CallOutcome, HelloMessage, VERSION, WorkerMessage,
};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::executor::builtin_call::run_builtin;
use crate::executor::run::bounded;
use crate::output::Line;
use crate::run::Outcome;
use crate::task::builtin::{Call, Registry};
use crate::task::context::Context;
use crate::task::log::Log;

/// Writes a line of a builtin to stdout, in its place between what the builtin prints. The daemon has the line before the
/// builtin goes on, which may end the process.
fn print_line(line: &Line) {
    let end = if line.is_open { "" } else { "\n" };
    // The pipe may be gone with the daemon.
    drop(write!(std::io::stdout().lock(), "{}{end}", line.text));
}

/// The main function of a worker process: builds the registry from the settings in the hello, then runs builtins until
/// the daemon closes the socket.
pub fn serve<E: From<Error>>(build: impl FnOnce(Value) -> Result<Registry, E>) -> Result<(), E> {
    // A worker that is stopped would not see that its socket has ended.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(Error::from)?;
    let socket = Arc::new(DaemonSocket::from_stdin()?);
    let Some(hello) = socket.receive(Inbox::hello)? else { return Ok(()) };
    let HelloMessage { version, daemon, keep_alive_millis, settings } = hello;
    let parent = rustix::process::getppid().map(Pid::as_raw_nonzero);
    if parent.map(|pid| pid.get().unsigned_abs()) != Some(daemon) {
        // The daemon died before this process asked for the signal.
        return Err(Error::other("the daemon is not its parent process").into());
    }
    if version != VERSION {
        socket.send(&WorkerMessage::Ready { version: VERSION })?;
        return Ok(());
    }
    let registry = build(settings.into_owned())?;
    let keep_alive = Duration::from_millis(keep_alive_millis);
    let watchdog = CallWatchdog::start(Arc::clone(&socket), keep_alive)?;
    socket.send(&WorkerMessage::Ready { version: VERSION })?;
    let clock = Arc::new(SystemClock);
    let mut runner = CallRunner { registry, watchdog, memory: PeakMemory::new(), clock };
    while let Some(call) = socket.receive(Inbox::next_call)? {
        socket.send(&WorkerMessage::Done(runner.run(call)))?;
    }
    Ok(())
}

struct CallRunner {
    registry: Registry,
    watchdog: Arc<CallWatchdog>,
    memory: PeakMemory,
    clock: Arc<dyn Clock>,
}

impl CallRunner {
    fn run(&mut self, message: BuiltinCall<'static>) -> CallEnd {
        let scheduled_at = message.scheduled_at.map(Timestamp::from_timestamp_micros);
        if scheduled_at == Some(None) {
            let error = "scheduled_at is not an instant".to_owned();
            let outcome = CallOutcome::Failed { error, permanent: true };
            return CallEnd { outcome, cpu_micros: None, peak_memory: None };
        }
        let context = Context { log: Log::passing_on(print_line), ..Context::default() };
        let (context, begun) = (Arc::new(context), Instant::now());
        let call = Call {
            run_id: message.run_id.into_owned(),
            job_id: message.job_id.into_owned(),
            attempt: message.attempt,
            scheduled_at: scheduled_at.flatten(),
            args: message.args.to_map(),
            event: message.event.map(|event| Arc::new(event.into_owned())),
            context: Arc::clone(&context),
            clock: Arc::clone(&self.clock),
        };
        let id = CallId { run_id: call.run_id.clone().into(), attempt: call.attempt };
        self.watchdog.begin(RunningCall { id, context: Arc::clone(&context) });
        let end = run_builtin(&self.registry, &message.name, &call);
        self.watchdog.end();
        // Otherwise an unfinished line would become output of the next run.
        drop(std::io::stdout().flush());
        let outcome = match bounded(end.outcome, &context) {
            Outcome::Succeeded { result, .. } => {
                CallOutcome::Succeeded { result: result.unwrap_or_default() }
            }
            Outcome::Failed { error, permanent, .. } => CallOutcome::Failed { error, permanent },
            Outcome::Cancelled { .. } | Outcome::TimedOut { .. } | Outcome::Lost { .. } => {
                CallOutcome::Cancelled
            }
        };
        let peak_memory = self.memory.peak_of(begun.elapsed());
        CallEnd { outcome, cpu_micros: end.cost.cpu_micros, peak_memory }
    }
}
