//! Why a run exists, or why an occurrence was skipped.

use super::RunId;

/// An event of a job for which a hook can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HookEvent {
    /// A run has succeeded.
    Success,
    /// A run has failed, timed out or was lost, and there is no further attempt.
    Failure,
    /// A run has succeeded after one that has failed.
    Recovery,
    /// Occurrences were too late to run.
    Missed,
}

impl HookEvent {
    pub const ALL: [Self; 4] = [Self::Success, Self::Failure, Self::Recovery, Self::Missed];

    /// The word that the store uses and that the hook's task is given.
    pub fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Recovery => "recovery",
            Self::Missed => "missed",
        }
    }

    /// The key of the hook in a job's definition.
    pub fn hook(self) -> &'static str {
        match self {
            Self::Success => "on_success",
            Self::Failure => "on_failure",
            Self::Recovery => "on_recovery",
            Self::Missed => "on_missed",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.word() == word)
    }
}

/// Why a run exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// Its occurrence fell due.
    Schedule,
    /// A client requested it.
    Manual,
    /// It is a hook run, for an event of the run `subject`.
    Event { event: HookEvent, subject: RunId },
}

impl Cause {
    /// The word that the API shows.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Manual => "manual",
            Self::Event { event, .. } => event.hook(),
        }
    }
}

/// Why an occurrence was skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipReason {
    /// It was later than `misfire_grace_time` allows.
    Missed,
    /// Another occurrence that was due at the same time was run in its place.
    Coalesced,
    /// As many runs of the job as `max_instances` allows were in flight.
    Overlap,
    /// The job was paused.
    Paused,
    /// The job was broken.
    Broken,
    /// It was planned while the clock was ahead, and the schedule continues from an earlier time.
    ClockSet,
    /// The job got another trigger, or another `next_run_time`, before it ran.
    Redefined,
    /// The job was removed before it ran.
    Removed,
    /// The queue of its pool was full.
    ExecutorFull,
}

impl SkipReason {
    /// The word that the store and the API use.
    pub fn word(self) -> &'static str {
        match self {
            Self::Missed => "missed",
            Self::Coalesced => "coalesced",
            Self::Overlap => "overlap",
            Self::Paused => "paused",
            Self::Broken => "broken",
            Self::ClockSet => "clock_set",
            Self::Redefined => "redefined",
            Self::Removed => "removed",
            Self::ExecutorFull => "executor_full",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        [
            Self::Missed,
            Self::Coalesced,
            Self::Overlap,
            Self::Paused,
            Self::Broken,
            Self::ClockSet,
            Self::Redefined,
            Self::Removed,
            Self::ExecutorFull,
        ]
        .into_iter()
        .find(|reason| reason.word() == word)
    }
}
