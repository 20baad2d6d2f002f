//! Filters for pages of jobs and runs, and for the rows that retention removes.

use crate::clock::Timestamp;
use crate::job::Job;
use crate::words::words;

/// The largest number of rows on a page.
pub const PAGE_LIMIT: usize = 1000;

/// A page ends with the row that reaches this number of bytes.
pub const PAGE_BYTES: usize = 1024 * 1024;

/// Conditions on jobs, or on runs and their jobs. Those that are empty do not apply.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobConditions {
    /// The words of the states of which the job or the run has one.
    pub states: Vec<&'static str>,
    /// A tag of the job. The runs of a removed job have none.
    pub tag: Option<String>,
    /// The beginning of the job's id.
    pub prefix: Option<String>,
    pub executor: Option<String>,
    /// The type of the job's outermost trigger. The runs of a removed job have none.
    pub trigger_type: Option<String>,
}

impl JobConditions {
    /// Whether no condition applies, so that every job meets them.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a job meets all of them.
    pub fn are_met_by(&self, job: &Job) -> bool {
        let Self { states, tag, prefix, executor, trigger_type } = self;
        (states.is_empty() || states.contains(&job.state.word()))
            && tag.as_ref().is_none_or(|tag| job.tags.contains(tag))
            && prefix.as_ref().is_none_or(|prefix| job.id.as_str().starts_with(prefix))
            && executor.as_ref().is_none_or(|executor| job.executor == *executor)
            && trigger_type.as_ref().is_none_or(|given| job.trigger.type_name() == Some(given))
    }
}

words! {
    /// The order of a list of jobs.
    #[derive(Default)]
    pub enum JobOrder {
        /// By id.
        #[default]
        Id = "id",
        /// By next run time, the soonest first. Only jobs that have one are listed.
        NextRunTime = "next_run_time",
    }
}

/// The place of a job in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobPosition {
    /// When it is due, in a list by next run time.
    pub due_at: Option<Timestamp>,
    pub id: String,
}

/// Selects jobs. Conditions that are `None` do not apply.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    pub conditions: JobConditions,
    /// The earliest next run time.
    pub since: Option<Timestamp>,
    /// The next run time is before this instant.
    pub until: Option<Timestamp>,
    pub order: JobOrder,
    /// The last job of the page before.
    pub after: Option<JobPosition>,
    pub limit: usize,
}

words! {
    /// The order of a list of runs, in which they were created.
    #[derive(Default)]
    pub enum RunOrder {
        #[default]
        Newest = "newest",
        Oldest = "oldest",
    }
}

/// Selects runs. Conditions that are `None` or empty do not apply.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    pub job_id: Option<String>,
    pub conditions: JobConditions,
    /// Whether to leave out hook runs.
    pub without_hooks: bool,
    /// An occurrence that the run is for, or that is in the span of a skipped row.
    pub occurrence: Option<Timestamp>,
    /// The earliest instant of the run's creation.
    pub since: Option<Timestamp>,
    /// The run was created before this instant.
    pub until: Option<Timestamp>,
    pub order: RunOrder,
    /// The id of the last run of the page before.
    pub after: Option<String>,
    pub limit: usize,
}

/// Selects finished jobs without runs in flight, in the order in which they finished.
#[derive(Debug, Clone, Copy)]
pub struct FinishedJobs<'a> {
    /// Jobs that finished before this instant.
    pub before: Timestamp,
    /// Jobs after the one that finished at this instant and has this id.
    pub after: (Timestamp, &'a str),
    pub limit: usize,
}

/// A class of rows of the ledger for retention. Each class is counted separately, so that many rows of one class never
/// displace the few rows of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetentionClass {
    /// Runs of a job that succeeded or were cancelled.
    Runs,
    /// Runs of a job that failed, timed out or were lost.
    Errors,
    /// Hook runs, however they ended.
    Hooks,
    /// Occurrences that were skipped.
    Skipped,
}

impl RetentionClass {
    pub const ALL: [Self; 4] = [Self::Runs, Self::Errors, Self::Hooks, Self::Skipped];

    /// The states of its rows. All of them are final.
    pub fn states(self) -> &'static [&'static str] {
        match self {
            Self::Runs => &["succeeded", "cancelled"],
            Self::Errors => &["failed", "timed_out", "lost"],
            Self::Hooks => &["succeeded", "cancelled", "failed", "timed_out", "lost", "skipped"],
            Self::Skipped => &["skipped"],
        }
    }

    /// Whether its rows are hook runs. No other class has hook runs.
    pub fn is_of_hooks(self) -> bool {
        self == Self::Hooks
    }

    /// The newest run of a job in one of these states is always kept: its last success, or its last failure.
    pub fn always_kept(self) -> &'static [&'static str] {
        match self {
            Self::Runs => &["succeeded"],
            Self::Errors => self.states(),
            Self::Hooks | Self::Skipped => &[],
        }
    }
}

/// Selects rows of the ledger that retention may remove. They are always final, and never the last success or the last
/// failure of an existing job.
#[derive(Debug, Clone, Copy)]
pub enum Prunable<'a> {
    /// Runs of a class that ended before an instant, in the order of their ids.
    Ended {
        /// Whether ids show when their runs were created. They do not while the newest id is from the future, because the
        /// clock was ahead.
        ids_tell_time: bool,
        kind: RetentionClass,
        before: Timestamp,
        /// The last id of the page before.
        after: &'a str,
    },
    /// Runs that ended before an instant and still have an output, in the order of their ids.
    WithOutput {
        ids_tell_time: bool,
        before: Timestamp,
        /// The last id of the page before.
        after: &'a str,
    },
    /// The newest run of a job after the `keep` newest ones of its class.
    FirstBeyond { job_id: &'a str, kind: RetentionClass, keep: usize },
    /// Runs of all jobs and classes that are not newer than `last`, in the order of their ids.
    Oldest { last: &'a str },
    /// Runs of a job and a class that are not newer than `last`, in any order.
    UpTo { job_id: &'a str, kind: RetentionClass, last: &'a str },
}
