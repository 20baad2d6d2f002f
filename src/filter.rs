//! Which rows a reader wants: jobs, or rows of the ledger, page by page; and which of these nobody has to keep.

use crate::clock::Timestamp;

/// Rows of one page, at most.
pub const PAGE_LIMIT: usize = 1000;

/// Bytes at which a page ends: the row with which they are reached is its last one.
pub const PAGE_BYTES: usize = 1024 * 1024;

/// Which jobs to list, in the order of their ids.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Only in this state.
    pub state: Option<String>,
    /// Only with this tag.
    pub tag: Option<String>,
    /// Only ids that begin so.
    pub prefix: Option<String>,
    /// Only ids after this one.
    pub after: Option<String>,
    /// Rows of the page.
    pub limit: usize,
}

/// Which runs to list, the newest first.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    /// Only of this job.
    pub job_id: Option<String>,
    /// Only in this state.
    pub state: Option<String>,
    /// Not those of hooks, which tell of another run.
    pub without_hooks: bool,
    /// Only of this occurrence, or of a span that it is in.
    pub occurrence: Option<Timestamp>,
    /// Only made at or after this instant.
    pub since: Option<Timestamp>,
    /// Only ids before this one.
    pub before: Option<String>,
    /// Rows of the page.
    pub limit: usize,
}

/// A page of finished jobs that have no run in flight, in the order in which they finished.
#[derive(Debug, Clone, Copy)]
pub struct FinishedJobs<'a> {
    /// Only jobs that finished before this.
    pub before: Timestamp,
    /// Only jobs after the one that finished then and has this id.
    pub after: (Timestamp, &'a str),
    /// Rows of the page.
    pub limit: usize,
}

/// A kind of rows of the ledger. Each is counted by itself, so that many rows of one kind never push out the few of
/// another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetentionClass {
    /// Runs of a job that succeeded or were cancelled.
    Runs,
    /// Runs of a job that failed, timed out or were lost.
    Errors,
    /// Runs of hooks, however they ended.
    Hooks,
    /// Occurrences that were skipped.
    Skipped,
}

impl RetentionClass {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Runs, Self::Errors, Self::Hooks, Self::Skipped];

    /// The states of its rows, all of which are final.
    pub fn states(self) -> &'static [&'static str] {
        match self {
            Self::Runs => &["succeeded", "cancelled"],
            Self::Errors => &["failed", "timed_out", "lost"],
            Self::Hooks => &["succeeded", "cancelled", "failed", "timed_out", "lost", "skipped"],
            Self::Skipped => &["skipped"],
        }
    }

    /// Whether its rows are runs of hooks; otherwise none of them is.
    pub fn is_of_hooks(self) -> bool {
        self == Self::Hooks
    }

    /// The states of which a job's newest run is always kept: its last success, or its last failure.
    pub fn always_kept(self) -> &'static [&'static str] {
        match self {
            Self::Runs => &["succeeded"],
            Self::Errors => self.states(),
            Self::Hooks | Self::Skipped => &[],
        }
    }
}

/// Which rows of the ledger need not be kept. Only those are meant to which nothing more will happen, and never the last
/// success and the last failure of a job that exists.
#[derive(Debug, Clone, Copy)]
pub enum Prunable<'a> {
    /// Runs of a kind that ended before an instant, in the order of their ids.
    Ended {
        /// Whether ids tell when their runs were made. They do not for as long as the newest id is of a time that has not
        /// come, because the clock was ahead.
        ids_tell_time: bool,
        /// Of this kind.
        kind: RetentionClass,
        /// Before this.
        before: Timestamp,
        /// Only ids after this one.
        after: &'a str,
    },
    /// Runs that ended before an instant and whose output is kept, in the order of their ids.
    WithOutput {
        /// Whether ids tell when their runs were made.
        ids_tell_time: bool,
        /// Before this.
        before: Timestamp,
        /// Only ids after this one.
        after: &'a str,
    },
    /// The newest run of a job that is not among this many newest ones of its kind.
    FirstBeyond {
        /// Of this job.
        job_id: &'a str,
        /// Of this kind.
        kind: RetentionClass,
        /// How many are kept.
        keep: usize,
    },
    /// Runs of all jobs and kinds that are not newer than this one, in the order of their ids.
    Oldest {
        /// The newest of them.
        last: &'a str,
    },
    /// Runs of a job and a kind that are not newer than this one, in any order.
    UpTo {
        /// Of this job.
        job_id: &'a str,
        /// Of this kind.
        kind: RetentionClass,
        /// The newest of them.
        last: &'a str,
    },
}
