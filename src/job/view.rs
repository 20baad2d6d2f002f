//! The view of a job: the JSON that answers show. It is serialized from borrowed fields without building a value first,
//! because thousands of answers a second are jobs.

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::{Job, JobId, JobState, Origin, Pause, Policy, Task};
use crate::clock::{Timestamp, rfc3339};

/// The part of a job that its definition decides.
#[derive(Debug, Serialize)]
pub struct DefinitionView<'a> {
    id: &'a JobId,
    name: &'a str,
    trigger: &'a Value,
    task: &'a Task,
    executor: &'a str,
    #[serde(flatten)]
    policy: &'a Policy,
    tags: &'a [String],
    description: &'a str,
}

/// A whole job: its definition and its state.
#[derive(Debug, Serialize)]
pub struct JobView<'a> {
    #[serde(flatten)]
    defined: DefinitionView<'a>,
    state: &'static str,
    reason: Option<&'a str>,
    pause: Option<PauseView<'a>>,
    next_run_time: Option<Instant>,
    run_count: u64,
    origin: Origin,
    source: Option<&'a str>,
    revision: i64,
    created_at: Instant,
    updated_at: Instant,
}

/// A pause, of a job or of the scheduler.
#[derive(Debug, Serialize)]
pub struct PauseView<'a> {
    since: Instant,
    until: Option<Instant>,
    by: Option<&'a str>,
    reason: Option<&'a str>,
}

impl Pause {
    /// The view of the pause.
    pub fn shown(&self) -> PauseView<'_> {
        PauseView {
            since: Instant(self.since),
            until: self.until.map(Instant),
            by: self.by.as_deref(),
            reason: self.reason.as_deref(),
        }
    }
}

/// An instant as the contract shows it: RFC 3339 in UTC, with microseconds.
#[derive(Debug)]
struct Instant(Timestamp);

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&rfc3339(self.0))
    }
}

/// A writer that only counts bytes.
struct ByteCounter(usize);

impl std::io::Write for ByteCounter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Job {
    /// The view of the part that a definition decides.
    pub fn defined(&self) -> DefinitionView<'_> {
        DefinitionView {
            id: &self.id,
            name: &self.name,
            trigger: self.trigger.spec(),
            task: &self.task,
            executor: &self.executor,
            policy: &self.policy,
            tags: &self.tags,
            description: &self.description,
        }
    }

    /// The bytes of the definition as JSON.
    pub fn definition_bytes(&self) -> usize {
        let mut bytes = ByteCounter(0);
        serde_json::to_writer(&mut bytes, &self.defined()).map_or(usize::MAX, |()| bytes.0)
    }

    /// The view of the whole job.
    pub fn shown(&self) -> JobView<'_> {
        let reason = match &self.state {
            JobState::Broken { reason, .. } => Some(reason.as_str()),
            JobState::Active { .. } | JobState::Paused { .. } | JobState::Finished => None,
        };
        let is_paused = matches!(self.state, JobState::Paused { .. });
        JobView {
            defined: self.defined(),
            state: self.state.word(),
            reason,
            pause: self.pause.as_deref().filter(|_| is_paused).map(Pause::shown),
            next_run_time: self.next().map(|next| Instant(next.due_at)),
            run_count: self.run_count,
            origin: self.origin,
            source: self.source.as_deref(),
            revision: self.revision,
            created_at: Instant(self.created_at),
            updated_at: Instant(self.updated_at),
        }
    }

    /// The view as a JSON value.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self.shown()).unwrap_or_default()
    }
}
