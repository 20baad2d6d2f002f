//! Why a run exists, or why an occurrence has none.

use super::RunId;

/// What may happen to a job's runs that other tasks can be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// A run has succeeded.
    Success,
    /// A run has failed, timed out, or was lost, and is not tried again.
    Failure,
    /// A run has succeeded after one that failed.
    Recovery,
    /// An occurrence was too late to run.
    Missed,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Success, Self::Failure, Self::Recovery, Self::Missed];

    /// The word that the store keeps and that the task is told.
    pub fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Recovery => "recovery",
            Self::Missed => "missed",
        }
    }

    /// The key of the hook that is run for it.
    pub fn hook(self) -> &'static str {
        match self {
            Self::Success => "on_success",
            Self::Failure => "on_failure",
            Self::Recovery => "on_recovery",
            Self::Missed => "on_missed",
        }
    }

    /// The event of that word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.word() == word)
    }
}

/// Why a run exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// Its occurrence fell due.
    Schedule,
    /// Someone asked for it.
    Manual,
    /// Something happened to another run of the job, and this one tells of it.
    Event {
        /// What.
        event: Event,
        /// To which run.
        subject: RunId,
    },
}

impl Cause {
    /// The word that the contract shows.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Manual => "manual",
            Self::Event { event, .. } => event.hook(),
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
    /// It was planned by a clock that was ahead, and the schedule continues from an earlier time.
    ClockSet,
    /// The job got another trigger, or another `next_run_time`, before it ran.
    Redefined,
    /// The job was removed before it ran.
    Removed,
    /// As many runs waited in its pool as may.
    ExecutorFull,
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
            Self::ClockSet => "clock_set",
            Self::Redefined => "redefined",
            Self::Removed => "removed",
            Self::ExecutorFull => "executor_full",
        }
    }

    /// The reason of that word.
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
