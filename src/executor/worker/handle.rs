//! The daemon's handle of a worker process: starts it, sends it calls, and ends it.

use std::borrow::Cow;
use std::io;
use std::pin::Pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Child;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::call::{CallState, unexpected};
use super::connection::WorkerConnection;
use super::error::WorkerError;
use super::program::{WorkerProgram, WorkerTimes};
use super::protocol::message::{
    BuiltinCall, CallId, DaemonMessage, HelloMessage, VERSION, WorkerMessage,
};
use super::spawn::WorkerSpawner;
use crate::clock::Clock;
use crate::executor::assignment::Assignment;
use crate::executor::children;
use crate::executor::run::{RunEnd, failure};
use crate::job::Builtin;
use crate::output::Stream;
use crate::run::Outcome;
use crate::task::context::Context;
use crate::task::log::Log;

/// How long a worker may take to end after its socket was closed.
const END_GRACE: Duration = Duration::from_secs(1);

/// A worker process. Dropping the handle kills it.
#[derive(Debug)]
pub(super) struct WorkerHandle {
    child: Child,
    pid: Option<Pid>,
    connection: WorkerConnection,
    /// Fires at the next deadline or earlier. To set it for each call would cost more than to check why it fired.
    timer: Pin<Box<Sleep>>,
    times: WorkerTimes,
}

/// How a worker has ended.
#[derive(Debug)]
pub(super) struct WorkerExit {
    pub(super) status: io::Result<ExitStatus>,
    /// Whether it has certainly not read everything that it was sent.
    pub(super) left_unread: bool,
}

impl WorkerHandle {
    pub(super) async fn spawn(spawner: &WorkerSpawner, times: WorkerTimes) -> io::Result<Self> {
        let (connection, child) = WorkerConnection::new(spawner.spawn().await?);
        let silence = Box::pin(sleep_until(Instant::now() + times.silence));
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Ok(Self { child, pid, connection, timer: silence, times })
    }

    /// Sends the hello, and waits until the worker is ready. What it prints goes to `log`.
    pub(super) async fn greet(
        &mut self,
        program: &WorkerProgram,
        log: &Log,
        clock: &Arc<dyn Clock>,
    ) -> Result<(), WorkerError> {
        let hello = HelloMessage {
            version: VERSION,
            daemon: std::process::id(),
            keep_alive_millis: u64::try_from(self.times.keep_alive.as_millis()).unwrap_or(u64::MAX),
            settings: Cow::Borrowed(&program.hello),
        };
        let sink = |stream: Stream, bytes: &[u8]| log.write(clock.now(), stream, bytes);
        let greeting = async {
            self.connection.send(&DaemonMessage::Hello(hello)).await?;
            self.connection.receive(sink).await
        };
        let answer = timeout(self.times.start, greeting).await;
        // Otherwise it would become output of the first run.
        self.connection.drain_outputs(sink);
        match answer.map_err(|_| WorkerError::Silent(self.times.start))?? {
            WorkerMessage::Ready { version: VERSION } => Ok(()),
            WorkerMessage::Ready { version } => Err(WorkerError::Protocol(format!(
                "it speaks version {version}, and this daemon version {VERSION}"
            ))),
            other => Err(unexpected(&other)),
        }
    }

    /// Watches an idle worker: returns an error when it can no longer be used, and `None` at the instant `until`.
    /// Cancel-safe.
    pub(super) async fn idle(&mut self, until: Option<Instant>) -> Option<WorkerError> {
        let sink = |stream: Stream, bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            tracing::info!(
                ?stream,
                text = text.trim_end(),
                "an idle worker process printed something"
            );
        };
        if let Some(until) = until {
            self.wake_by(until);
        }
        loop {
            tokio::select! {
                biased;
                message = self.connection.receive(sink) => {
                    return Some(message.map_or_else(|error| error, |message| unexpected(&message)));
                }
                () = &mut self.timer, if until.is_some() => {}
            }
            let until = until.filter(|until| Instant::now() < *until)?;
            self.timer.as_mut().reset(until);
        }
    }

    /// Has the worker run a builtin. After an error the worker can no longer be used.
    pub(super) async fn call(
        &mut self,
        builtin: &Builtin,
        assignment: &Assignment,
        context: &Context,
        clock: &Arc<dyn Clock>,
    ) -> Result<RunEnd, WorkerError> {
        if let Some(refused) = self.send_call(builtin, assignment, context).await? {
            return Ok(refused.into());
        }
        let sink = |stream: Stream, bytes: &[u8]| context.log.write(clock.now(), stream, bytes);
        let mut call = CallState::new(self.times, Instant::now());
        self.wake_by(call.deadline());
        loop {
            tokio::select! {
                biased;
                message = self.connection.receive(sink) => {
                    let message = message.map_err(|error| call.fail(error))?;
                    if let Some(end) = call.message(message, Instant::now())? {
                        self.connection.drain_outputs(sink);
                        return Ok(end);
                    }
                }
                ending = context.cancellation.cancelled(), if !call.is_cancelled() => {
                    call.cancel(ending, Instant::now());
                    self.wake_by(call.deadline());
                    self.send_cancel(assignment).await.map_err(|error| call.fail(error))?;
                }
                () = &mut self.timer => {
                    call.check_deadline(Instant::now())?;
                    self.timer.as_mut().reset(call.deadline());
                }
            }
        }
    }

    /// Makes the timer fire at this instant or earlier.
    fn wake_by(&mut self, instant: Instant) {
        if self.timer.deadline() > instant {
            self.timer.as_mut().reset(instant);
        }
    }

    /// Sends a call. A call that cannot be sent to any worker has its outcome at once.
    async fn send_call(
        &mut self,
        builtin: &Builtin,
        assignment: &Assignment,
        context: &Context,
    ) -> Result<Option<Outcome>, WorkerError> {
        let call = BuiltinCall {
            run_id: Cow::Borrowed(&assignment.run_id.0),
            job_id: Cow::Borrowed(assignment.job_id.as_str()),
            attempt: assignment.attempt,
            scheduled_at: assignment.scheduled_at.map(|at| at.timestamp_micros()),
            name: Cow::Borrowed(&builtin.name),
            args: Cow::Borrowed(&builtin.args),
            event: assignment.event.as_deref().map(Cow::Borrowed),
        };
        match self.connection.try_send(&DaemonMessage::Call(call)) {
            Ok(true) => return Ok(None),
            Ok(false) => {}
            Err(error) => {
                let error = format!("the call cannot be sent to a worker process: {error}");
                return Ok(Some(failure(error, true)));
            }
        }
        let sending = timeout(self.times.silence, self.connection.send_rest());
        tokio::select! {
            biased;
            sent = sending => sent.map_err(|_| WorkerError::Silent(self.times.silence))??,
            // The part of the call that has been sent cannot be taken back.
            ending = context.cancellation.cancelled() => return Err(WorkerError::Cancelled(ending)),
        }
        Ok(None)
    }

    async fn send_cancel(&mut self, assignment: &Assignment) -> Result<(), WorkerError> {
        let run_id = Cow::Borrowed(&*assignment.run_id.0);
        let cancel = DaemonMessage::Cancel(CallId { run_id, attempt: assignment.attempt });
        match timeout(self.times.grace, self.connection.send(&cancel)).await {
            // A worker that has ended may have answered before; its messages and then its end are read next.
            Ok(Ok(()) | Err(WorkerError::EndedUnread)) => Ok(()),
            Ok(Err(error)) => Err(error),
            // A part of the cancel may have been sent, so nothing else can be.
            Err(_) => Err(WorkerError::Silent(self.times.grace)),
        }
    }

    /// Lets an idle worker end.
    pub(super) async fn dismiss(mut self) {
        self.connection.close_writing();
        if timeout(END_GRACE, self.child.wait()).await.is_err() {
            tracing::warn!("a worker process did not end when its socket was closed; it is killed");
        }
        drop(self.end(|_, _| ()).await);
    }

    /// Kills a worker that can no longer be used, and all processes that it has started. What it has printed goes to
    /// `sink`.
    pub(super) async fn end(mut self, sink: impl Fn(Stream, &[u8])) -> WorkerExit {
        // A worker that is ending already keeps its exit code.
        if let Some(group) = self.pid.filter(|_| self.child.id().is_some())
            && let Err(error) = kill_process_group(group, Signal::KILL)
        {
            tracing::debug!(%error, "a worker process was gone before it was killed");
        }
        let status = self.child.wait().await;
        self.connection.drain_outputs(sink);
        WorkerExit { status, left_unread: self.connection.was_left_unread() }
    }
}

impl Drop for WorkerHandle {
    fn drop(&mut self) {
        self.pid.into_iter().for_each(children::forget);
    }
}
