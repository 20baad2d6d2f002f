//! A job: what is done, when, and how it behaves; and everything that a client may write about one.
//!
//! A [`Definition`] is what a client or `jobs.toml` writes. [`admission`] makes a [`Job`] from it, with the job defaults
//! and the checks; [`Policy`] describes every option once, and `task/` has a file for each type of task. [`JobView`] is
//! the JSON that answers show. A job is plain data, and its state carries what belongs to it: only an active job has a
//! next due instant, only a broken one has a reason.

pub mod admission;
mod definition;
mod due;
mod equivalence;
mod json;
mod patch;
mod pause;
mod policy;
mod pool;
mod retry;
mod seconds;
mod task;
mod upcoming;
mod version;
mod view;

pub use definition::{Definition, new_id};
pub use due::{Due, stable_hash};
pub use json::Json;
pub use patch::JobPatch;
pub use pause::{Pause, PauseTerms};
pub use policy::{Coalesce, OnCrash, OnFinish, Overlap, Policy, PolicyInput};
pub use pool::{ExecutorKind, PoolSettings};
pub use retry::Retry;
pub use task::{
    Builtin, CORES_PERIOD, Command, HttpBody, HttpCall, Mail, MemorySize, Program, RUN_VARIABLES,
    ReportForm, ResourceLimits, Task, TaskType, mailbox, parse_url,
};
pub use version::JobVersion;
pub use view::{JobView, PauseView};

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::invalid::Invalid;
use crate::trigger::Trigger;
use crate::words::words;

/// The most bytes of an id: it fits into an indexed column of every database.
pub const JOB_ID_BYTES: usize = 255;

/// The id by which clients name a job: 1–255 bytes of printable text.
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

    /// An id that comes from the store. It is not checked, because rules may have been stricter since.
    pub fn stored(text: String) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

words! {
    /// Where a job was defined, which decides who may change it.
    pub enum Origin {
        /// In `jobs.toml`. Only a reload changes it.
        File = "file",
        /// Over the control socket.
        Socket = "socket",
    }
}

/// Whether and when a job fires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    /// It fires next at `next`.
    Active { next: Due },
    /// It does not fire until it is resumed.
    Paused {
        /// The first occurrence that did not run because of the pause.
        next: Due,
    },
    /// Its trigger has no further occurrence, or `max_runs` was reached.
    Finished,
    /// It cannot fire, for a reason that it names. It is kept.
    Broken {
        /// What is wrong.
        reason: String,
        /// The first occurrence that did not run because of this, if there is one.
        since: Option<Timestamp>,
        /// What it was before, and becomes again once it is repaired.
        former: Former,
    },
}

/// What a broken job was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Former {
    /// It fired; or it is new and was never valid.
    Active,
    Paused,
    Finished,
}

impl JobState {
    /// The words of all states.
    pub const WORDS: [&'static str; 4] = ["active", "paused", "finished", "broken"];

    /// The state of a job that becomes broken for this reason.
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

    /// The state before the job was broken. A state that is not broken, or that has no former state, is returned as it is.
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

    pub fn word(&self) -> &'static str {
        match self {
            Self::Active { .. } => "active",
            Self::Paused { .. } => "paused",
            Self::Finished => "finished",
            Self::Broken { .. } => "broken",
        }
    }
}

/// A job, as the store keeps it.
#[derive(Debug, Clone)]
pub struct Job {
    pub id: JobId,
    /// A name for people. It is the id where none was given.
    pub name: String,
    pub trigger: Arc<Trigger>,
    pub task: Arc<Task>,
    /// The name of the pool that runs it.
    pub executor: String,
    pub policy: Policy,
    /// Labels for selecting jobs.
    pub tags: Vec<String>,
    /// Free text.
    pub description: String,
    /// The bytes of its definition as JSON, which is about what it takes in memory.
    pub bytes: usize,
    pub origin: Origin,
    /// The source of the file that declares it. None: it came over the socket, or was stored before sources existed; then
    /// it belongs to the file that is loaded next.
    pub source: Option<Arc<str>>,
    /// The uid of the client that defined it, on the machine of the daemon that accepted it. None: a file declares it, or
    /// it was stored before this was recorded.
    pub requester: Option<u32>,
    pub state: JobState,
    /// Since when and until when it is paused, if it is, or was when it broke. None: nobody said so, since it was defined
    /// paused in a file, or paused before this was recorded.
    pub pause: Option<Arc<Pause>>,
    /// When its trigger was defined. An occurrence is unique by (job, anchor, scheduled instant), so a job that
    /// is removed and added again, or gets another trigger, starts a ledger of its own.
    pub anchor: Timestamp,
    /// The number of occurrences that became runs so far, for `max_runs`.
    pub run_count: u64,
    /// Whether its last run that ended has failed. It is updated only while a hook depends on it.
    pub is_failing: bool,
    /// The node that has claimed it, on a store that nodes share.
    pub owner: Option<Arc<str>>,
    /// The number of writes to this job: 1 when it is added.
    pub revision: i64,
    pub created_at: Timestamp,
    /// When it was last defined, paused, resumed or finished.
    pub updated_at: Timestamp,
    /// What of its stored row could not be read, so that a default stands in its place here. Such a job stays broken until
    /// it is defined again.
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

    /// When the scheduler has to look at it next: when it is due, or when its pause ends.
    pub fn wakes_at(&self) -> Option<Timestamp> {
        match &self.state {
            JobState::Active { next } => Some(next.due_at),
            JobState::Paused { .. } => self.pause.as_ref()?.until,
            JobState::Finished | JobState::Broken { .. } => None,
        }
    }

    /// A job of the file whose declaration is faulty and that was never valid before.
    pub fn undefined(id: JobId, reason: String, now: Timestamp) -> Self {
        let state = JobState::Broken { reason, since: None, former: Former::Active };
        let name = id.to_string();
        // The trigger and the task of the file may hold what must not be shown.
        let (trigger, task) = (Trigger::unreadable(Value::Null), Task::Unreadable(Value::Null));
        Self { name, ..Self::new(id, trigger, task, Origin::File, state, now) }
    }

    /// A job to which nothing has happened yet, and of which nothing else is known.
    fn new(
        id: JobId,
        trigger: Trigger,
        task: Task,
        origin: Origin,
        state: JobState,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            name: String::new(),
            trigger: Arc::new(trigger),
            task: Arc::new(task),
            executor: String::new(),
            policy: Policy::default(),
            tags: Vec::new(),
            description: String::new(),
            bytes: 0,
            origin,
            source: None,
            requester: None,
            state,
            pause: None,
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

    /// Whether a file of another source declares it.
    pub fn is_declared_elsewhere(&self, source: &str) -> bool {
        self.origin == Origin::File && self.source.as_deref().is_some_and(|own| own != source)
    }

    /// This job with the definition of `new`. If the trigger is the same, the schedule goes on: next occurrence, pause, and
    /// the count of runs. A broken job becomes what it was before; the caller handles the occurrences that did not run.
    #[must_use]
    pub fn redefined(&self, new: Self) -> Self {
        let is_readable = self.unreadable.is_none();
        let former = if is_readable { self.state.unbroken() } else { self.state.clone() };
        // A trigger without a date fires "now", which is another instant each time that it is given.
        let is_given = !Arc::ptr_eq(&self.trigger, &new.trigger);
        let is_now =
            is_given && self.trigger.is_one_shot() && self.trigger.spec().get("run_date").is_none();
        let same_trigger = self.trigger.has_same_occurrences(&new.trigger)
            && !(is_now && former == JobState::Finished);
        // A job that reached `max_runs` goes on if the new definition allows more.
        let goes_on = same_trigger
            && former == JobState::Finished
            && !self.trigger.is_one_shot()
            && new.policy.max_runs.is_none_or(|max_runs| max_runs > self.run_count);
        let is_failing = self.still_fails(&new);
        let keeps_schedule = same_trigger && !goes_on && !matches!(former, JobState::Broken { .. });
        let stays_paused = keeps_schedule && matches!(former, JobState::Paused { .. });
        let pause = if stays_paused { self.pause.clone() } else { new.pause };
        let (state, anchor, run_count, trigger) = if keeps_schedule {
            let state = match (&former, &new.state) {
                // A definition can pause a job; one that does not say so leaves a pause alone.
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
            pause,
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

    /// This job with the definition of `new`, which is that of this job with a patch. A patch without a trigger leaves the
    /// schedule alone, and no patch ends a pause.
    #[must_use]
    pub fn modified(&self, new: Self, patch: &JobPatch) -> Self {
        let modified = if patch.has_next_run_time() {
            self.rescheduled(new)
        } else if patch.has_trigger() {
            self.redefined(new)
        } else {
            self.redefined(Self { trigger: Arc::clone(&self.trigger), ..new })
        };
        match (self.state.unbroken(), modified.state.clone()) {
            (JobState::Paused { .. }, JobState::Active { next }) => {
                Self { state: JobState::Paused { next }, pause: self.pause.clone(), ..modified }
            }
            _ => modified,
        }
    }

    /// The value of `is_failing` under the definition of `new`. It is false if no hook of `new` depends on it.
    pub fn still_fails(&self, new: &Self) -> bool {
        self.is_failing && new.policy.needs_last_outcome()
    }

    /// Whether `new` has the same definition as this job, word for word.
    pub fn same_definition(&self, new: &Self) -> bool {
        self.definition() == new.definition()
    }

    /// The part of the job that its definition decides, with the defaults filled in.
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
