//! What is kept of the ledger, as configured in `[retention]`.

use std::time::Duration;

use chrono::TimeDelta;

/// What is kept of ended runs and finished jobs. Within the budget, the last success and the last failure of each
/// existing job are always kept, with their outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// Runs that succeeded or were cancelled.
    pub runs: KeepRuns,
    /// Runs that failed, timed out or were lost.
    pub errors: KeepRuns,
    /// Runs of hooks. They have the age of `runs`.
    pub hooks: KeepRuns,
    /// Rows of skipped occurrences. They have the age of `runs`.
    pub skipped: KeepRuns,
    /// Age at which outputs are removed; `None` keeps them as long as their runs.
    pub output_age: Option<TimeDelta>,
    /// Finished jobs whose `on_finish` says nothing else.
    pub finished: KeepFinished,
    pub budget: Budget,
    /// Time between two sweeps.
    pub interval: Duration,
}

/// How many runs of one kind are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepRuns {
    /// Runs that ended longer ago are removed.
    pub age: TimeDelta,
    /// Number of runs that are kept per job, the newest ones.
    pub per_job: usize,
}

/// How many finished jobs are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepFinished {
    /// Jobs that finished longer ago are removed.
    pub age: TimeDelta,
    /// Number of jobs that are kept, the newest ones.
    pub jobs: usize,
}

/// The limits of the whole history: what the ended runs of all jobs may take together, with attempts and outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Rows of the ledger.
    pub runs: u64,
    /// Bytes, as estimated by the store.
    pub bytes: u64,
}

impl Budget {
    /// Deducts one run of this many bytes. Returns false if the budget has no room for it.
    pub(super) fn take(&mut self, bytes: u64) -> bool {
        let rest = self.runs.checked_sub(1).zip(self.bytes.checked_sub(bytes));
        let Some((runs, bytes)) = rest else { return false };
        *self = Self { runs, bytes };
        true
    }
}
