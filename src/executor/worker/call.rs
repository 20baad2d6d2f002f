//! The daemon's view of a call in progress: what a message, a cancel or the timer means for it. Decisions only, without
//! I/O: the [`handle`](super::handle) reads, writes and waits.

use tokio::time::Instant;

use super::error::WorkerError;
use super::program::WorkerTimes;
use super::protocol::message::{CallEnd, CallOutcome, WorkerMessage};
use crate::executor::builtin_call::NOT_CANCELLED;
use crate::executor::run::{RunEnd, failed, failure};
use crate::run::{Cost, Outcome};
use crate::task::context::Ending;

/// A call that the worker has been sent and has not answered.
#[derive(Debug)]
pub(super) struct CallState {
    times: WorkerTimes,
    /// Why the call was cancelled, if it was.
    ending: Option<Ending>,
    /// Until when the worker must send something; after a cancel, until when it must end the call.
    deadline: Instant,
}

impl CallState {
    pub(super) fn new(times: WorkerTimes, now: Instant) -> Self {
        Self { times, ending: None, deadline: now + times.silence }
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.ending.is_some()
    }

    /// A message came. The answer is how the call ended, if it did.
    pub(super) fn message(
        &mut self,
        message: WorkerMessage,
        now: Instant,
    ) -> Result<Option<RunEnd>, WorkerError> {
        match message {
            WorkerMessage::Done(end) => Ok(Some(self.end(end))),
            WorkerMessage::KeepAlive => {
                // A cancelled call has its grace time, and no more.
                if self.ending.is_none() {
                    self.deadline = now + self.times.silence;
                }
                Ok(None)
            }
            WorkerMessage::Ready { .. } => Err(self.fail(unexpected(&message))),
        }
    }

    /// The run was cancelled. From now on the worker has its grace time to end the call.
    pub(super) fn cancel(&mut self, ending: Ending, now: Instant) {
        self.ending = Some(ending);
        self.deadline = now + self.times.grace;
    }

    /// The timer fired, perhaps early.
    pub(super) fn check_deadline(&self, now: Instant) -> Result<(), WorkerError> {
        if now < self.deadline {
            return Ok(());
        }
        Err(self.fail(WorkerError::Silent(self.times.silence)))
    }

    /// The error of the call. A cancelled run counts as cancelled, whatever happens to its worker.
    pub(super) fn fail(&self, error: WorkerError) -> WorkerError {
        self.ending.clone().map_or(error, WorkerError::Cancelled)
    }

    fn end(&self, end: CallEnd) -> RunEnd {
        let cost = Cost { cpu_micros: end.cpu_micros, peak_memory: end.peak_memory };
        let outcome = match (end.outcome, &self.ending) {
            (CallOutcome::Succeeded { result }, _) => {
                Outcome::Succeeded { result: Some(result), exit_code: None }
            }
            (CallOutcome::Failed { error, permanent }, _) => failure(error, permanent),
            (CallOutcome::Cancelled, Some(ending)) => ending.clone().into(),
            (CallOutcome::Cancelled, None) => failed(NOT_CANCELLED),
        };
        RunEnd { outcome, cost }
    }
}

/// The error of a worker that sent a message which has no place here.
pub(super) fn unexpected(message: &WorkerMessage) -> WorkerError {
    let word = match message {
        WorkerMessage::Ready { .. } => "ready",
        WorkerMessage::KeepAlive => "beat",
        WorkerMessage::Done(_) => "done",
    };
    WorkerError::Protocol(format!("it sent \"{word}\" at the wrong time"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    enum CallEvent {
        Message(WorkerMessage),
        Cancel(Ending),
        /// The timer fires.
        Timer,
        /// The socket ends.
        Eof,
    }

    fn done(outcome: CallOutcome) -> CallEvent {
        CallEvent::Message(WorkerMessage::Done(CallEnd {
            outcome,
            cpu_micros: None,
            peak_memory: None,
        }))
    }

    fn ok() -> CallEvent {
        done(CallOutcome::Succeeded { result: "ok".into() })
    }

    fn cancelled() -> CallEvent {
        done(CallOutcome::Cancelled)
    }

    fn alive() -> CallEvent {
        CallEvent::Message(WorkerMessage::KeepAlive)
    }

    fn cancel() -> CallEvent {
        CallEvent::Cancel(Ending::Cancelled("enough".to_owned()))
    }

    /// What the events, each at a second after the start of the call, lead to.
    fn end_of(events: Vec<(u64, CallEvent)>) -> String {
        let start = Instant::now();
        let mut call = CallState::new(WorkerTimes::default(), start);
        for (second, event) in events {
            let now = start + Duration::from_secs(second);
            let result = match event {
                CallEvent::Message(message) => call.message(message, now),
                CallEvent::Cancel(ending) => {
                    call.cancel(ending, now);
                    Ok(None)
                }
                CallEvent::Timer => call.check_deadline(now).map(|()| None),
                CallEvent::Eof => Err(call.fail(WorkerError::Ended)),
            };
            match result {
                Ok(None) => {}
                Ok(Some(RunEnd { outcome, .. })) => return format!("{second}: {outcome:?}"),
                Err(error) => return format!("{second}: {error:?}"),
            }
        }
        "goes on".to_owned()
    }

    #[test]
    fn a_call_ends_as_its_messages_its_cancel_and_the_time_say() {
        let timeout = || CallEvent::Cancel(Ending::TimedOut(Duration::from_secs(1)));
        let ready = || CallEvent::Message(WorkerMessage::Ready { version: 1 });
        let cases = [
            (vec![(1, ok())], "1: Succeeded"),
            // A worker that sends nothing is given up after 10 s, and each keep-alive restarts the 10 s.
            (vec![(9, CallEvent::Timer)], "goes on"),
            (vec![(10, CallEvent::Timer)], "10: Silent(10s)"),
            (vec![(9, alive()), (18, CallEvent::Timer)], "goes on"),
            (vec![(9, alive()), (19, CallEvent::Timer)], "19: Silent(10s)"),
            // A cancel leaves the builtin 5 s, however many keep-alives come.
            (vec![(1, cancel()), (5, CallEvent::Timer)], "goes on"),
            (vec![(1, cancel()), (6, CallEvent::Timer)], "6: Cancelled(Cancelled(\"enough\"))"),
            (vec![(1, cancel()), (5, alive()), (6, CallEvent::Timer)], "6: Cancelled"),
            (vec![(0, cancel()), (5, CallEvent::Timer)], "5: Cancelled"),
            (vec![(8, alive()), (9, cancel()), (13, CallEvent::Timer)], "goes on"),
            (vec![(8, alive()), (9, cancel()), (14, CallEvent::Timer)], "14: Cancelled"),
            // What the builtin answers counts, also after a cancel.
            (vec![(1, cancel()), (2, cancelled())], "2: Cancelled { reason: \"enough\" }"),
            (vec![(1, timeout()), (2, cancelled())], "2: TimedOut"),
            (vec![(1, cancel()), (2, ok())], "2: Succeeded"),
            (vec![(1, cancelled())], "1: Failed"),
            // A worker that ends takes its run with it, which is cancelled if it was to be cancelled.
            (vec![(1, CallEvent::Eof)], "1: Ended"),
            (vec![(1, cancel()), (2, CallEvent::Eof)], "2: Cancelled"),
            (vec![(1, timeout()), (2, CallEvent::Eof)], "2: Cancelled(TimedOut"),
            // A message at the wrong time.
            (vec![(1, ready())], "1: Protocol(\"it sent \\\"ready\\\" at the wrong time\")"),
            (vec![(1, cancel()), (2, ready())], "2: Cancelled"),
        ];
        for (number, (events, expected)) in cases.into_iter().enumerate() {
            let end = end_of(events);
            assert!(end.starts_with(expected), "case {number}: {end} and not {expected}");
        }
    }
}
