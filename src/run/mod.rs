//! Runs: the rows of the ledger. A row is the run of an occurrence, or the reason why occurrences were skipped.
//!
//! Every legal transition is a function of [`Run`], and nothing else changes a run's state:
//! `pending → running → succeeded | failed | timed_out | cancelled | lost`, `running → pending` as
//! the next attempt after a failure or a crash, `pending → skipped | cancelled`.

mod cause;
mod id;
mod outcome;
mod signal;
mod trace;
mod view;

pub use cause::{Cause, HookEvent, SkipReason};
pub use id::{Execution, RunId, RunIds};
pub use outcome::{Attempt, Cost, Outcome};
pub use signal::describe_signal;
pub use trace::traceparent;

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::job::JobId;

#[derive(Debug, Clone, PartialEq)]
pub enum RunState {
    /// It waits for a worker of its pool, or for an earlier run of its job.
    Pending,
    Running {
        started_at: Timestamp,
    },
    Ended {
        /// The start of the last attempt.
        started_at: Timestamp,
        finished_at: Timestamp,
        outcome: Outcome,
        /// The cost of the last attempt.
        cost: Cost,
    },
    /// It was not run.
    Skipped {
        reason: SkipReason,
        /// The last occurrence that this row stands for.
        last_scheduled_at: Timestamp,
        /// The number of occurrences that this row stands for.
        count: u64,
    },
}

impl RunState {
    /// The words of all states and outcomes.
    pub const WORDS: [&'static str; 8] =
        ["pending", "running", "succeeded", "failed", "timed_out", "cancelled", "lost", "skipped"];

    /// The word that the store and the API use.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running { .. } => "running",
            Self::Ended { outcome, .. } => outcome.word(),
            Self::Skipped { .. } => "skipped",
        }
    }

    /// Whether the state is final.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Ended { .. } | Self::Skipped { .. })
    }
}

/// A row of the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    pub id: RunId,
    pub job_id: JobId,
    /// The job's anchor when the run was created.
    pub anchor: Timestamp,
    pub cause: Cause,
    /// The occurrence; `None` for a manual run.
    pub scheduled_at: Option<Timestamp>,
    /// When it should start: the occurrence with its jitter, the instant of a manual request, or the end of the delay of a
    /// retry.
    pub due_at: Timestamp,
    /// The number of the current attempt, from 1.
    pub attempt: u32,
    /// How often the daemon has crashed while it was running.
    pub crashes: u32,
    /// The name of its pool.
    pub executor: String,
    /// The node on which it waits, runs or has ended.
    pub node: Arc<str>,
    pub created_at: Timestamp,
    pub state: RunState,
}

impl Run {
    /// The current attempt.
    pub fn execution(&self) -> Execution {
        (self.id.clone(), self.attempt)
    }

    /// Starts a pending run.
    pub fn start(&mut self, now: Timestamp) {
        debug_assert_eq!(self.state, RunState::Pending, "only a pending run is started");
        self.state = RunState::Running { started_at: now };
    }

    pub fn end(
        &mut self,
        started_at: Timestamp,
        finished_at: Timestamp,
        outcome: Outcome,
        cost: Cost,
    ) {
        // If the clock has been set back, a run must not end before it began.
        let finished_at = finished_at.max(started_at);
        self.state = RunState::Ended { started_at, finished_at, outcome, cost };
    }

    /// Cancels a pending run. It ends without having started.
    pub fn cancel_pending(&mut self, now: Timestamp, reason: String) {
        debug_assert_eq!(self.state, RunState::Pending, "a run that was started ends by itself");
        self.end(now, now, Outcome::Cancelled { reason }, Cost::default());
    }

    /// Skips a pending run. A run that had an earlier attempt is cancelled instead, because it was not skipped.
    pub fn skip(&mut self, now: Timestamp, reason: SkipReason) {
        if self.attempt > 1 {
            let reason = format!("not tried again: {}", reason.word());
            return self.cancel_pending(now, reason);
        }
        let last_scheduled_at = self.scheduled_at.unwrap_or(self.due_at);
        self.state = RunState::Skipped { reason, last_scheduled_at, count: 1 };
    }

    /// Makes a run that was in flight during a crash pending again. If it was running, this is the next attempt, and it
    /// need not wait for anything: what was due before it started is due now, also if the clock was set back since.
    pub fn retry_after_crash(&mut self, now: Timestamp) {
        if matches!(self.state, RunState::Running { .. }) {
            self.attempt = self.attempt.saturating_add(1);
            self.due_at = self.due_at.min(now);
        }
        self.state = RunState::Pending;
    }

    /// Makes a run whose attempt has ended pending again, for the next attempt at `due_at`.
    pub fn retry(&mut self, due_at: Timestamp) {
        self.attempt = self.attempt.saturating_add(1);
        self.due_at = due_at;
        self.state = RunState::Pending;
    }

    /// The attempt in which the run has ended.
    pub fn last_attempt(&self) -> Option<Attempt> {
        let RunState::Ended { started_at, finished_at, outcome, cost } = &self.state else {
            return None;
        };
        Some(Attempt {
            run_id: self.id.clone(),
            number: self.attempt,
            node: Arc::clone(&self.node),
            started_at: *started_at,
            finished_at: *finished_at,
            outcome: outcome.clone(),
            cost: *cost,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::rfc3339;
    use serde_json::Value;

    #[test]
    fn a_cancelled_run_shows_its_reason_and_when_it_ended() {
        let instant = |seconds: i64| Timestamp::from_timestamp(1_800_000_000 + seconds, 0).unwrap();
        let run = Run {
            id: RunId("run".into()),
            job_id: JobId::parse("job").unwrap(),
            anchor: instant(0),
            cause: Cause::Manual,
            scheduled_at: None,
            due_at: instant(0),
            attempt: 1,
            crashes: 0,
            executor: "default".to_owned(),
            node: "here".into(),
            created_at: instant(0),
            state: RunState::Pending,
        };
        let (mut waiting, mut running) = (run.clone(), run);
        waiting.cancel_pending(instant(2), "by hand".to_owned());
        running.start(instant(1));
        let outcome = Outcome::Cancelled { reason: "by hand".to_owned() };
        running.end(instant(1), instant(2), outcome, Cost::default());
        for (run, started_at) in [(waiting, instant(2)), (running, instant(1))] {
            assert!(run.state.is_final());
            let value = run.to_value();
            assert_eq!(
                (&value["state"], &value["error"]),
                (&"cancelled".into(), &"by hand".into())
            );
            let times = [&value["started_at"], &value["finished_at"]];
            assert_eq!(times, [&Value::from(rfc3339(started_at)), &rfc3339(instant(2)).into()]);
        }
    }
}
