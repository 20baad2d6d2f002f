//! A row of the ledger: the execution of an occurrence, or the reason why it was skipped.
//!
//! Every legal transition is a function here; nothing else changes a run's state:
//! `pending → running → succeeded | failed | cancelled | lost`, `running → running` as the next
//! attempt after a crash, `pending → skipped | cancelled`.

use std::fmt;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::clock::{Timestamp, rfc3339};
use crate::job::JobId;

/// A run's id: a UUID of version 7, so that ids sort by time. It stays the same over all attempts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunId(pub Arc<str>);

impl fmt::Display for RunId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Makes run ids: rising within a process, and reproducible from a seed.
#[derive(Debug)]
pub struct RunIds {
    random: u64,
    counter: u32,
}

impl RunIds {
    /// Ids that differ from those of any other seed.
    pub fn new(seed: u64) -> Self {
        Self { random: seed, counter: 0 }
    }

    /// The next id, made at `now`.
    pub fn next(&mut self, now: Timestamp) -> RunId {
        self.counter = self.counter.wrapping_add(1);
        // splitmix64: enough to keep the ids of several nodes apart.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        // The version takes 4 bits of the first byte and the variant 2 bits of the third: the counter
        // of 26 bits goes around them.
        let mut bytes = [0; 10];
        let counter =
            u64::from((self.counter >> 14) & 0x0fff) << 16 | u64::from(self.counter & 0x3fff);
        let parts = counter.to_be_bytes().into_iter().skip(4).chain(mixed.to_be_bytes());
        bytes.iter_mut().zip(parts).for_each(|(byte, part)| *byte = part);
        let millis = u64::try_from(now.timestamp_millis()).unwrap_or(0);
        let id = uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid();
        RunId(id.to_string().into())
    }
}

/// The end of what a run wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The text.
    pub tail: String,
    /// Bytes that were written in all.
    pub bytes: u64,
}

/// Why a run exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Its occurrence fell due.
    Schedule,
    /// Someone asked for it.
    Manual,
}

impl Cause {
    /// The word that the store keeps and the contract shows.
    pub fn word(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Manual => "manual",
        }
    }
}

/// Why an occurrence was not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipReason {
    /// It was later than `misfire_grace_time` allows.
    Missed,
    /// Another occurrence that fell due with it was run for it.
    Coalesced,
    /// `max_instances` runs of the job were in flight.
    Overlap,
    /// The job was paused.
    Paused,
    /// The job was broken.
    Broken,
    /// The job was removed before its queued run started.
    Removed,
}

impl SkipReason {
    /// The word that the store keeps and the contract shows.
    pub fn word(self) -> &'static str {
        match self {
            Self::Missed => "missed",
            Self::Coalesced => "coalesced",
            Self::Overlap => "overlap",
            Self::Paused => "paused",
            Self::Broken => "broken",
            Self::Removed => "removed",
        }
    }

    /// The reason of that word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Missed, Self::Coalesced, Self::Overlap, Self::Paused, Self::Broken, Self::Removed]
            .into_iter()
            .find(|reason| reason.word() == word)
    }
}

/// How an execution ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It did its work.
    Succeeded {
        /// What a builtin answered.
        result: Option<Value>,
        /// A command's exit code: 0.
        exit_code: Option<i32>,
    },
    /// It failed.
    Failed {
        /// What went wrong.
        error: String,
        /// A command's exit code, unless a signal ended it.
        exit_code: Option<i32>,
        /// Whether the task said that trying again cannot help.
        permanent: bool,
    },
    /// Someone ended it before it ended by itself.
    Cancelled {
        /// Who or what, and why, in words.
        reason: String,
    },
    /// Nobody knows: its daemon died, or stopped waiting, while it ran.
    Lost {
        /// When that was found, in words.
        error: String,
    },
}

impl Outcome {
    /// The state's word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Succeeded { .. } => "succeeded",
            Self::Failed { .. } => "failed",
            Self::Cancelled { .. } => "cancelled",
            Self::Lost { .. } => "lost",
        }
    }
}

/// Where a run stands.
#[derive(Debug, Clone, PartialEq)]
pub enum RunState {
    /// It waits for a place in its executor, or for an earlier run of its job.
    Pending,
    /// It was started.
    Running {
        /// When.
        started_at: Timestamp,
    },
    /// It has ended.
    Ended {
        /// When its last attempt was started.
        started_at: Timestamp,
        /// When it ended.
        finished_at: Timestamp,
        /// How.
        outcome: Outcome,
    },
    /// It was not run.
    Skipped {
        /// Why.
        reason: SkipReason,
        /// The last occurrence that this row stands for.
        last_scheduled_at: Timestamp,
        /// How many occurrences it stands for.
        count: u64,
    },
}

impl RunState {
    /// The state's word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running { .. } => "running",
            Self::Ended { outcome, .. } => outcome.word(),
            Self::Skipped { .. } => "skipped",
        }
    }

    /// Whether nothing more will come.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Ended { .. } | Self::Skipped { .. })
    }
}

/// A row of the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// The job that it belongs to.
    pub job_id: JobId,
    /// The job's anchor when it was made.
    pub anchor: Timestamp,
    /// Why it exists.
    pub cause: Cause,
    /// The occurrence; none for a manual run.
    pub scheduled_at: Option<Timestamp>,
    /// When it was to start: the occurrence with its jitter, or when it was asked for.
    pub due_at: Timestamp,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// The pool in which it runs.
    pub executor: String,
    /// The node that holds it: it waits there, runs there, or ended there.
    pub node: Arc<str>,
    /// When this row was made.
    pub created_at: Timestamp,
    /// Where it stands.
    pub state: RunState,
}

/// An attempt of a run.
pub type Execution = (RunId, u32);

impl Run {
    /// The attempt that it is in.
    pub fn execution(&self) -> Execution {
        (self.id.clone(), self.attempt)
    }

    /// Whether this row stands for the occurrence at `at`.
    pub fn covers(&self, at: Timestamp) -> bool {
        let last = match &self.state {
            RunState::Skipped { last_scheduled_at, .. } => Some(*last_scheduled_at),
            RunState::Pending | RunState::Running { .. } | RunState::Ended { .. } => {
                self.scheduled_at
            }
        };
        self.scheduled_at.zip(last).is_some_and(|(first, last)| first <= at && at <= last)
    }

    /// Starts a waiting run.
    pub fn start(&mut self, now: Timestamp) {
        debug_assert_eq!(self.state, RunState::Pending, "only a waiting run is started");
        self.state = RunState::Running { started_at: now };
    }

    /// Ends a run.
    pub fn end(&mut self, started_at: Timestamp, finished_at: Timestamp, outcome: Outcome) {
        // A clock that was set back must not make a run end before it began.
        self.state =
            RunState::Ended { started_at, finished_at: finished_at.max(started_at), outcome };
    }

    /// Cancels a waiting run: it ends without having begun.
    pub fn cancel_pending(&mut self, now: Timestamp, reason: String) {
        debug_assert_eq!(self.state, RunState::Pending, "a run that was started ends by itself");
        self.end(now, now, Outcome::Cancelled { reason });
    }

    /// Skips a waiting run.
    pub fn skip(&mut self, reason: SkipReason) {
        let last_scheduled_at = self.scheduled_at.unwrap_or(self.due_at);
        self.state = RunState::Skipped { reason, last_scheduled_at, count: 1 };
    }

    /// Puts a run that was in flight at a crash back into the queue, as the next attempt.
    pub fn retry_after_crash(&mut self) {
        if matches!(self.state, RunState::Running { .. }) {
            self.attempt = self.attempt.saturating_add(1);
        }
        self.state = RunState::Pending;
    }

    /// The run as the contract shows it.
    pub fn to_value(&self) -> Value {
        let mut value = json!({
            "id": &*self.id.0,
            "job_id": self.job_id,
            "state": self.state.word(),
            "cause": self.cause.word(),
            "attempt": self.attempt,
            "scheduled_at": self.scheduled_at.map(rfc3339),
            "due_at": rfc3339(self.due_at),
            "started_at": null,
            "finished_at": null,
            "executor": self.executor,
            "node": &*self.node,
            "exit_code": null,
            "error": null,
            "result": null,
            "reason": null,
            "last_scheduled_at": null,
            "count": 1,
        });
        let Value::Object(map) = &mut value else { return value };
        let mut set = |key: &str, value: Value| map.insert(key.to_owned(), value);
        match &self.state {
            RunState::Pending => {}
            RunState::Running { started_at } => {
                set("started_at", rfc3339(*started_at).into());
            }
            RunState::Ended { started_at, finished_at, outcome } => {
                set("started_at", rfc3339(*started_at).into());
                set("finished_at", rfc3339(*finished_at).into());
                match outcome {
                    Outcome::Succeeded { result, exit_code } => {
                        set("result", result.clone().unwrap_or_default());
                        set("exit_code", json!(exit_code));
                    }
                    Outcome::Failed { error, exit_code, permanent } => {
                        set("error", error.as_str().into());
                        set("exit_code", json!(exit_code));
                        set("reason", json!(permanent.then_some("permanent")));
                    }
                    Outcome::Cancelled { reason: error } | Outcome::Lost { error } => {
                        set("error", error.as_str().into());
                    }
                }
            }
            RunState::Skipped { reason, last_scheduled_at, count } => {
                set("reason", reason.word().into());
                set("last_scheduled_at", rfc3339(*last_scheduled_at).into());
                set("count", json!(count));
            }
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_ids_rise_and_are_of_version_7() {
        let mut ids = RunIds::new(1);
        let now = Timestamp::from_timestamp_micros(1_800_000_000_000_000).unwrap();
        let made: Vec<RunId> = (0..40_000).map(|_| ids.next(now)).collect();
        assert!(made.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(uuid::Uuid::parse_str(&made[0].0).unwrap().get_version_num(), 7);
        assert_ne!(RunIds::new(2).next(now), made[0]);
    }

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
            executor: "default".to_owned(),
            node: "here".into(),
            created_at: instant(0),
            state: RunState::Pending,
        };
        let (mut waiting, mut running) = (run.clone(), run);
        waiting.cancel_pending(instant(2), "by hand".to_owned());
        running.start(instant(1));
        running.end(instant(1), instant(2), Outcome::Cancelled { reason: "by hand".to_owned() });
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
