//! Where jobs and the ledger are kept: the seam between the core and a database.
//!
//! The core decides, a store remembers. [`Store::commit`] takes everything that one step of the
//! scheduler decided and writes it in one transaction, so that a job is never advanced without
//! its ledger row. [`Archive`] is for readers and never waits for the writer.

pub mod memory;
pub mod sql;

use std::future::Future;
use std::pin::Pin;

use crate::clock::Timestamp;
use crate::filter::{JobFilter, RunFilter};
use crate::job::{Job, JobId};
use crate::run::{Output, Run, RunId};

/// Why a store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be used now: full, locked, gone. Trying again may help.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// Someone else changed what this write was based on; nothing was written.
    #[error("{0} was changed by someone else meanwhile")]
    Conflict(String),
    /// The database was written by a newer version, or is not one of ours.
    #[error("the store cannot be used: {0}")]
    Unusable(String),
}

/// One write. A transaction is a list of them.
#[derive(Debug, Clone)]
pub enum Change {
    /// A new job; its id must be free.
    InsertJob(Box<Job>),
    /// A job as it is from now on. Its revision is the one that was read; the store counts it up.
    UpdateJob(Box<Job>),
    /// A job goes; its ledger stays.
    DeleteJob(JobId),
    /// A new row of the ledger; its occurrence must have none yet.
    InsertRun(Box<Run>),
    /// A row of the ledger as it is from now on.
    UpdateRun(Box<Run>),
    /// The tail of a run's output, and how many bytes it had in all.
    PutOutput {
        /// Whose output.
        run_id: RunId,
        /// Its end.
        tail: String,
        /// Its length.
        bytes: u64,
    },
    /// Since when the scheduler is paused; none if it is not.
    SetPaused(Option<Timestamp>),
}

/// What the scheduler needs of a store.
pub trait Store: std::fmt::Debug + Send + Sync + 'static {
    /// The jobs of these ids that exist.
    fn load(&self, ids: &[JobId]) -> impl Future<Output = Result<Vec<Job>, StoreError>> + Send;

    /// Active jobs of these executors that are due at or before an instant, earliest first, at most `limit`.
    fn due(
        &self,
        until: Timestamp,
        executors: &[String],
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Job>, StoreError>> + Send;

    /// Jobs that a start or a reload looks at: those that the file declared, those that are broken, and those whose
    /// executor is none of these.
    fn to_review(
        &self,
        executors: &[String],
    ) -> impl Future<Output = Result<Vec<Job>, StoreError>> + Send;

    /// Runs that are pending or running, oldest first.
    fn in_flight(&self) -> impl Future<Output = Result<Vec<Run>, StoreError>> + Send;

    /// Since when the scheduler is paused, if it is.
    fn paused_since(&self) -> impl Future<Output = Result<Option<Timestamp>, StoreError>> + Send;

    /// Writes all changes, or none.
    fn commit(&self, changes: &[Change]) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// A future of a reading.
pub type Reading<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// What readers need of a store.
pub trait Archive: std::fmt::Debug + Send + Sync + 'static {
    /// One job.
    fn job<'a>(&'a self, id: &'a str) -> Reading<'a, Option<Job>>;

    /// A page of jobs.
    fn jobs<'a>(&'a self, filter: &'a JobFilter) -> Reading<'a, Vec<Job>>;

    /// One run.
    fn run<'a>(&'a self, id: &'a str) -> Reading<'a, Option<Run>>;

    /// A page of the ledger.
    fn runs<'a>(&'a self, filter: &'a RunFilter) -> Reading<'a, Vec<Run>>;

    /// The output of a run, if it wrote any.
    fn output<'a>(&'a self, run_id: &'a str) -> Reading<'a, Option<Output>>;

    /// How many jobs are in each state.
    fn job_counts(&self) -> Reading<'_, Vec<(String, u64)>>;
}
