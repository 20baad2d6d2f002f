//! Why a run exists, or why an occurrence was skipped.

use super::RunId;
use crate::words::words;

words! {
    /// An event of a job for which a hook can run.
    #[derive(PartialOrd, Ord)]
    pub enum HookEvent {
        /// A run has succeeded.
        Success = "success",
        /// A run has failed, timed out or was lost, and there is no further attempt.
        Failure = "failure",
        /// A run has succeeded after one that has failed.
        Recovery = "recovery",
        /// Occurrences were too late to run.
        Missed = "missed",
    }
}

impl HookEvent {
    /// The key of the hook in a job's definition.
    pub fn hook(self) -> &'static str {
        match self {
            Self::Success => "on_success",
            Self::Failure => "on_failure",
            Self::Recovery => "on_recovery",
            Self::Missed => "on_missed",
        }
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

words! {
    /// Why an occurrence was skipped.
    pub enum SkipReason {
        /// It was later than `misfire_grace_time` allows.
        Missed = "missed",
        /// Another occurrence that was due at the same time was run in its place.
        Coalesced = "coalesced",
        /// As many runs of the job as `max_instances` allows were in flight.
        Overlap = "overlap",
        /// The job was paused.
        Paused = "paused",
        /// The job was broken.
        Broken = "broken",
        /// It was planned while the clock was ahead, and the schedule continues from an earlier time.
        ClockSet = "clock_set",
        /// The job got another trigger, or another `next_run_time`, before it ran.
        Redefined = "redefined",
        /// The job was removed before it ran.
        Removed = "removed",
        /// The queue of its pool was full.
        ExecutorFull = "executor_full",
    }
}
