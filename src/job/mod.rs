//! A job: what is to be done, when, and under which policies.
//!
//! Plain data. A job's state carries what belongs to it: only an active job has a next due
//! instant, only a broken one has a reason.

pub mod admission;
mod definition;
mod due;
mod equivalence;
mod json;
mod policy;
mod pool;
mod retry;
mod seconds;
mod task;
mod view;

pub use definition::{Definition, new_id};
pub use due::{Due, stable_hash};
pub use json::Json;
pub use policy::{Coalesce, OnCrash, OnFinish, Overlap, Policy, PolicyInput};
pub use pool::{ExecutorKind, PoolSettings};
pub use retry::Retry;
pub use task::{
    Builtin, CORES_PERIOD, Command, HttpBody, HttpCall, Mail, MemorySize, Program, RUN_VARIABLES,
    ReportForm, ResourceLimits, Task, TaskType, mailbox, parse_url,
};
pub use view::JobView;

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::invalid::Invalid;
use crate::trigger::Trigger;

/// Longest id, in bytes: it fits into an indexed column of every database.
pub const JOB_ID_BYTES: usize = 255;

/// A job's name for the world: 1–255 bytes of printable text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobId(Arc<str>);

impl Serialize for JobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl JobId {
    /// Checks an id.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let refuse = |why: String| Err(Invalid::new("id", why));
        match text {
            "" => refuse("an id has at least 1 byte".to_owned()),
            _ if text.len() > JOB_ID_BYTES => refuse(format!(
                "an id has at most {JOB_ID_BYTES} bytes, this one has {}",
                text.len()
            )),
            _ if text.chars().any(char::is_control) => {
                refuse("an id has no control characters".to_owned())
            }
            _ => Ok(Self(text.into())),
        }
    }

    /// An id that is in the store already: whether it would be taken today does not matter any more.
    pub fn stored(text: String) -> Self {
        Self(text.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Where a job was declared, and so who may change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// In `jobs.toml`: the file is the truth.
    File,
    /// Over the control socket.
    Socket,
}

/// Whether and when a job fires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    /// It fires next at `next`.
    Active {
        /// The next occurrence.
        next: Due,
    },
    /// It does not fire until it is resumed.
    Paused {
        /// The first occurrence that the pause holds back.
        next: Due,
    },
    /// Its trigger has no further occurrence, or `max_runs` was reached.
    Finished,
    /// It cannot fire, and says why. It is kept.
    Broken {
        /// What has to be mended.
        reason: String,
        /// The first occurrence that this holds back, if there is one.
        since: Option<Timestamp>,
        /// What it was before, which it becomes again once it is mended.
        former: Former,
    },
}

/// What a broken job was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Former {
    /// It fired; or it is new and was never in order.
    Active,
    /// It was paused.
    Paused,
    /// It was finished.
    Finished,
}

impl JobState {
    /// The state of a job in this one that becomes broken for this reason.
    #[must_use]
    pub fn broken(&self, reason: String) -> Self {
        let (since, former) = match self {
            Self::Active { next } => (Some(next.scheduled_at), Former::Active),
            Self::Paused { next } => (Some(next.scheduled_at), Former::Paused),
            Self::Finished => (None, Former::Finished),
            Self::Broken { since, former, .. } => (*since, *former),
        };
        Self::Broken { reason, since, former }
    }

    /// The state before the job was broken. A state that is not broken, or for which nothing was there before, is the
    /// answer itself.
    #[must_use]
    pub fn unbroken(&self) -> Self {
        let Self::Broken { since, former, .. } = self else { return self.clone() };
        let next = since.map(|at| Due { scheduled_at: at, due_at: at });
        match (former, next) {
            (Former::Finished, _) => Self::Finished,
            (Former::Active, Some(next)) => Self::Active { next },
            (Former::Paused, Some(next)) => Self::Paused { next },
            (Former::Active | Former::Paused, None) => self.clone(),
        }
    }

    /// The state's word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Active { .. } => "active",
            Self::Paused { .. } => "paused",
            Self::Finished => "finished",
            Self::Broken { .. } => "broken",
        }
    }
}

/// A job.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// A name for people; the id unless one was given.
    pub name: String,
    /// When it is due.
    pub trigger: Arc<Trigger>,
    /// What it does.
    pub task: Arc<Task>,
    /// The pool in which it runs.
    pub executor: String,
    /// How it behaves when late, busy or interrupted.
    pub policy: Policy,
    /// Labels for selecting jobs.
    pub tags: Vec<String>,
    /// Free text.
    pub description: String,
    /// Bytes of its definition, as JSON: what it takes in memory, too.
    pub bytes: usize,
    /// Where it was declared.
    pub origin: Origin,
    /// The source of the file that declares it; none if it came over the socket, or if it was stored before sources
    /// were, and then it is the job of whichever file is loaded next.
    pub source: Option<Arc<str>>,
    /// The number of the user whose client defined it, on the machine of the daemon that accepted it; none if a file
    /// declares it, or if it was stored before this was recorded.
    pub requester: Option<u32>,
    /// Whether it fires, and when.
    pub state: JobState,
    /// When its trigger was defined. An occurrence is unique by (job, anchor, scheduled instant), so a job that
    /// is removed and added again, or gets another trigger, starts a ledger of its own.
    pub anchor: Timestamp,
    /// Occurrences for which a run was made so far, for `max_runs`.
    pub run_count: u64,
    /// Whether the last of its runs that ended has failed. It is kept up only while a hook depends on it.
    pub is_failing: bool,
    /// The node that holds it, on a store that nodes share.
    pub owner: Option<Arc<str>>,
    /// Counts the writes to this job: 1 when it is added.
    pub revision: i64,
    /// When it was added.
    pub created_at: Timestamp,
    /// When it was last defined, paused, resumed or finished.
    pub updated_at: Timestamp,
    /// What of its stored row was not understood, so that something else stands in its place here: such a job stays
    /// broken until it is defined again.
    pub unreadable: Option<String>,
}

impl Job {
    /// The variables of the daemon's environment that it names as secrets.
    pub fn secret_variables(&self) -> Vec<&str> {
        let hooks = self.policy.hooks().map(|(_, task)| task);
        let tasks = std::iter::once(&self.task).chain(hooks);
        let heartbeat = self.policy.heartbeat.as_ref().and_then(crate::secret::Text::variable);
        tasks.flat_map(|task| task.secret_variables()).chain(heartbeat).collect()
    }

    /// The next due occurrence, if it is active.
    pub fn next(&self) -> Option<Due> {
        match &self.state {
            JobState::Active { next } => Some(*next),
            JobState::Paused { .. } | JobState::Finished | JobState::Broken { .. } => None,
        }
    }

    /// A job of the file whose declaration is faulty and that was never in order before: its id, and the reason.
    pub fn undefined(id: JobId, reason: String, now: Timestamp) -> Self {
        let state = JobState::Broken { reason, since: None, former: Former::Active };
        Self {
            name: id.to_string(),
            id,
            // What the file has there may hold what must not be shown.
            trigger: Arc::new(Trigger::unreadable(Value::Null)),
            task: Arc::new(Task::Unreadable(Value::Null)),
            executor: String::new(),
            policy: Policy::default(),
            tags: Vec::new(),
            description: String::new(),
            bytes: 0,
            origin: Origin::File,
            source: None,
            requester: None,
            state,
            anchor: now,
            run_count: 0,
            is_failing: false,
            owner: None,
            revision: 0,
            created_at: now,
            updated_at: now,
            unreadable: None,
        }
    }

    /// Whether a file with another source than this declares it.
    pub fn is_declared_beside(&self, source: &str) -> bool {
        self.origin == Origin::File && self.source.as_deref().is_some_and(|own| own != source)
    }

    /// This job with the definition of `new`. Where the trigger is the same, the schedule goes on as it was:
    /// next occurrence, pause, and the count of runs. A broken job is what it was before it was broken; what that has
    /// held back is left to the caller.
    #[must_use]
    pub fn redefined(&self, new: Self) -> Self {
        let is_readable = self.unreadable.is_none();
        let former = if is_readable { self.state.unbroken() } else { self.state.clone() };
        // "Now" is another instant each time.
        let is_now = self.trigger.is_one_shot() && self.trigger.spec().get("run_date").is_none();
        let same_trigger = self.trigger.has_same_occurrences(&new.trigger)
            && !(is_now && former == JobState::Finished);
        // A job that `max_runs` has ended goes on if the new definition lets it.
        let goes_on = same_trigger
            && former == JobState::Finished
            && !self.trigger.is_one_shot()
            && new.policy.max_runs.is_none_or(|max_runs| max_runs > self.run_count);
        let is_failing = self.still_fails(&new);
        let keeps_schedule = same_trigger && !goes_on && !matches!(former, JobState::Broken { .. });
        let (state, anchor, run_count, trigger) = if keeps_schedule {
            let state = match (&former, &new.state) {
                // A definition that says so pauses; one that does not say it leaves a pause alone.
                (JobState::Active { next }, JobState::Paused { .. }) => {
                    JobState::Paused { next: *next }
                }
                (state, _) => state.clone(),
            };
            let trigger = new.trigger.with_anchor(&self.trigger, self.anchor);
            (state, self.anchor, self.run_count, trigger)
        } else if goes_on {
            (new.state, new.anchor, self.run_count, new.trigger)
        } else {
            (new.state, new.anchor, 0, new.trigger)
        };
        Self {
            state,
            anchor,
            run_count,
            trigger,
            is_failing,
            revision: self.revision,
            created_at: self.created_at,
            ..new
        }
    }

    /// This job with the definition of `new`, which also says when it fires next.
    #[must_use]
    pub fn rescheduled(&self, new: Self) -> Self {
        let same_trigger = self.trigger.has_same_occurrences(&new.trigger);
        let run_count = if same_trigger { self.run_count } else { 0 };
        let (is_failing, revision) = (self.still_fails(&new), self.revision);
        Self { run_count, is_failing, revision, created_at: self.created_at, ..new }
    }

    /// Whether this job fails and goes on to do so with the definition of `new`. A definition without a hook that depends
    /// on it does not learn of the end of the outage.
    pub fn still_fails(&self, new: &Self) -> bool {
        self.is_failing && new.policy.needs_last_outcome()
    }

    /// Whether `new` defines the same job as this one, in the same words.
    pub fn same_definition(&self, new: &Self) -> bool {
        self.definition() == new.definition()
    }

    /// What was given, with defaults filled in: the part of a job that a definition decides.
    pub fn definition(&self) -> Map<String, Value> {
        match serde_json::to_value(self.defined()) {
            Ok(Value::Object(map)) => map,
            Ok(_) | Err(_) => Map::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_short_and_printable() {
        for good in ["a", "order:42:expire", "备份", "with space", &"x".repeat(255)] {
            assert!(JobId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a\nb", "\u{7f}", "a\0", &"x".repeat(256), &"é".repeat(128)] {
            assert!(JobId::parse(bad).is_err(), "{bad}");
        }
    }
}
