//! The store keeps jobs and the ledger of their runs: the seam between the scheduler and a database.
//!
//! The scheduler decides, a store remembers. [`Store::commit`] takes every [`Change`] that one step of the scheduler has
//! decided and writes them in one transaction, so that a job never moves on in its schedule without its row in the ledger.
//! Every change says what it is based on: the revision of a job, the node that holds a run. So the same scheduler is right
//! alone on a file and with other nodes on a server.
//!
//! [`Store`] is for the scheduler and sees what was committed last. [`Archive`] is for everybody else and never waits for
//! the connection that writes.

pub mod sql;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::filter::{FinishedJobs, JobConditions, JobFilter, Prunable, RunFilter};
use crate::job::{Job, JobId, Pause};
use crate::output::Output;
use crate::run::{Attempt, Run, RunId, SkipReason};

/// Why a store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be used now: full, locked, gone. Trying again may help.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// Someone else changed what this write was based on; nothing was written.
    #[error("{0} was changed by someone else meanwhile")]
    Conflict(String),
    /// The database refuses a value of this write, or of this question, and would refuse it again; nothing was written.
    #[error("the database refuses a value: {0}")]
    Rejected(String),
    /// The file or a row of it cannot be used as it is.
    #[error("the store cannot be used: {0}")]
    Unusable(String),
    /// The database refuses this program as it is set up, and would refuse it again: its user, its rights, its
    /// certificate, the version of the schema. Somebody has to change something first.
    #[error("the store cannot be used: {0}")]
    Refused(String),
}

impl StoreError {
    /// The words of all kinds.
    pub const WORDS: [&'static str; 5] =
        ["unavailable", "conflict", "rejected", "unusable", "refused"];

    /// The word of its kind.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Conflict(_) => "conflict",
            Self::Rejected(_) => "rejected",
            Self::Unusable(_) => "unusable",
            Self::Refused(_) => "refused",
        }
    }
}

/// One write. A transaction is a list of them.
#[derive(Debug, Clone)]
pub enum Change {
    /// A new job of revision 1; its id must be free.
    InsertJob(Arc<Job>),
    /// The new state of a job, if its stored revision is the one before, and it was added at the same instant: a job that
    /// was removed and added again counts its revisions from 1.
    UpdateJob(Arc<Job>),
    /// The same where only its place in the schedule has changed: state, next occurrence, count of runs, owner.
    AdvanceJob(Arc<Job>),
    /// Deletes a job, if its revision is still this; its ledger stays.
    DeleteJob {
        id: JobId,
        /// The revision that was read.
        revision: i64,
        /// When it was added.
        created_at: Timestamp,
    },
    /// A new row of the ledger; its occurrence must have none yet.
    InsertRun(Arc<Run>),
    /// The new state of a run, if it has not ended and is still held by this node.
    UpdateRun {
        run: Arc<Run>,
        /// The node that has held it until now.
        held_by: Arc<str>,
    },
    /// A row of skipped occurrences is extended to the occurrences that follow it, if its last occurrence is still
    /// `former_last`.
    ExtendSkipped {
        /// The new state of the row.
        run: Arc<Run>,
        /// Its last occurrence until now.
        former_last: Timestamp,
    },
    /// An attempt that was not the last one of its run; it must have no row yet.
    InsertAttempt(Arc<Attempt>),
    /// The output of an attempt that has ended.
    PutOutput { run_id: RunId, attempt: u32, output: Arc<Output> },
    /// The output of a running attempt so far. Nothing is written if this node does not run it any more.
    SavePartialOutput {
        run_id: RunId,
        attempt: u32,
        output: Arc<Output>,
        /// The node that runs it.
        held_by: Arc<str>,
    },
    /// Asks the other nodes to cancel their running runs of a job. They learn it with the next renewal of their leases.
    CancelJobRuns {
        job_id: JobId,
        reason: String,
        /// The node whose runs are not cancelled.
        except_node: Arc<str>,
    },
    /// Asks the node that holds a run to cancel it. It learns that with the next renewal of its lease.
    CancelRun { run_id: RunId, reason: String },
    /// The pause of the scheduler; none if it goes on.
    SetPause(Option<Arc<Pause>>),
    /// The scheduler goes on, because this pause is over; it must still be the one that is stored.
    EndPause(Arc<Pause>),
    /// A step was written at this instant, by the clock of its node.
    RecordTime(Timestamp),
    /// Deletes a run that has ended, or a part of it. A run that has not ended is left alone.
    Prune { run_id: RunId, part: RunPart },
}

/// A part of what is kept of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunPart {
    /// The outputs of its attempts.
    Outputs,
    /// The attempts before its last one.
    Attempts,
    /// Its row in the ledger. The other parts must be deleted before it.
    Row,
}

impl RunPart {
    /// All parts, in the order in which they are deleted.
    pub const ALL: [Self; 3] = [Self::Outputs, Self::Attempts, Self::Row];
}

/// The jobs that a node wants to hold. It gets those that no other living node holds.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    pub node: &'a str,
    /// Active jobs that are due at or before this instant.
    pub until: Timestamp,
    /// Only jobs of these executors.
    pub executors: &'a [String],
    /// The maximum number of jobs; the earliest come first.
    pub limit: usize,
    /// The nodes that are alive.
    pub live: &'a [String],
}

/// Selects runs in flight by the node that holds them.
#[derive(Debug, Clone, Copy)]
pub enum Holder<'a> {
    /// This node.
    Node(&'a str),
    /// Nodes that the store does not know any more, or, on a store of one node, any other node. This is decided when the
    /// runs are read: a node that has joined meanwhile is known before it holds a run.
    Gone {
        /// The node that asks, whose own runs are not selected.
        but: &'a str,
    },
}

/// How many runs of one job are in flight on other nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InFlightCount {
    pub running: u32,
    pub waiting: u32,
}

/// How many runs of one pool are in flight on one node, hook runs included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolRuns {
    pub executor: String,
    pub node: String,
    pub running: u64,
    pub waiting: u64,
}

/// A node, as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    /// Counts its renewals. Other nodes judge by whether this changes, not by its clock.
    pub beat: i64,
    /// When it started, by its own clock.
    pub started_at: Timestamp,
    /// Its last renewal, by its own clock.
    pub seen_at: Timestamp,
}

/// What a node learns when it renews its lease.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterView {
    /// True if the store did not know this node, since it has just started or other nodes have removed it.
    pub is_new: bool,
    /// All nodes, including this one.
    pub nodes: Vec<Node>,
    /// The pause of the scheduler, if it is paused.
    pub pause: Option<Pause>,
    /// The instant of the last [`Change::RecordTime`].
    pub recorded_time: Option<Timestamp>,
    /// Runs on this node that another node wants to be cancelled, with the reasons.
    pub cancel_requests: Vec<(RunId, String)>,
}

/// A job with its place in the ledger.
#[derive(Debug, Clone)]
pub struct ScheduledJob {
    pub job: Job,
    /// The last of its occurrences since its anchor that has a row in the ledger.
    pub last: Option<Timestamp>,
}

/// What the scheduler needs of a store.
pub trait Store: std::fmt::Debug + Send + Sync + 'static {
    /// Whether other nodes may work on it at the same time.
    fn is_shared(&self) -> bool;

    /// The jobs of these ids that exist.
    fn load_jobs(&self, ids: &[JobId])
    -> impl Future<Output = Result<Vec<Job>, StoreError>> + Send;

    /// Takes jobs that are due, the earliest first, up to [`CLAIM_BYTES`]. On a store of one node this only reads.
    fn claim_jobs(
        &self,
        claim: Claim<'_>,
    ) -> impl Future<Output = Result<Vec<Job>, StoreError>> + Send;

    /// Releases the jobs of a node and an executor that are due at or before an instant, so that any node can claim them.
    fn release_jobs(
        &self,
        node: &str,
        executor: &str,
        until: Timestamp,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Runs that are pending or running, oldest first.
    fn runs_in_flight(
        &self,
        holder: Holder<'_>,
    ) -> impl Future<Output = Result<Vec<Run>, StoreError>> + Send;

    /// The runs of these ids that exist.
    fn load_runs(&self, ids: &[RunId])
    -> impl Future<Output = Result<Vec<Run>, StoreError>> + Send;

    /// For each of these jobs the row of its latest occurrence since its anchor, if that row is a skip of this reason.
    fn latest_skips(
        &self,
        jobs: &[Arc<Job>],
        reason: SkipReason,
    ) -> impl Future<Output = Result<Vec<Run>, StoreError>> + Send;

    /// The output of an attempt of a run, if it is kept.
    fn load_output(
        &self,
        run_id: &RunId,
        attempt: u32,
    ) -> impl Future<Output = Result<Option<Output>, StoreError>> + Send;

    /// How many runs of each job are in flight on other nodes than this. Runs of hooks do not count.
    fn count_in_flight_elsewhere(
        &self,
        node: &str,
    ) -> impl Future<Output = Result<Vec<(JobId, InFlightCount)>, StoreError>> + Send;

    /// Renews the lease of a node, which the store knows from then on.
    fn renew_lease(
        &self,
        node: &str,
        started_at: Timestamp,
        now: Timestamp,
    ) -> impl Future<Output = Result<ClusterView, StoreError>> + Send;

    /// Removes nodes whose count of renewals has not changed since it was read: dead nodes, and the node itself when it leaves.
    fn remove_nodes(&self, dead: &[Node]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The pause of the scheduler, if it is paused.
    fn pause(&self) -> impl Future<Output = Result<Option<Pause>, StoreError>> + Send;

    /// The instant of the last [`Change::RecordTime`], if there was one.
    fn recorded_time(&self) -> impl Future<Output = Result<Option<Timestamp>, StoreError>> + Send;

    /// The run with the greatest id.
    fn newest_run(&self) -> impl Future<Output = Result<Option<Run>, StoreError>> + Send;

    /// A page of all jobs in the order of their ids, after one of them.
    fn scheduled_jobs(
        &self,
        after: Option<&JobId>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<ScheduledJob>, StoreError>> + Send;

    /// Returns when another node has sent a hint that something has changed, or when the store is no longer the one that
    /// was opened. Hints may be lost, so silence means nothing.
    fn wait_for_hint(&self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Writes all changes, or none.
    fn commit(&self, changes: Vec<Change>) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// An estimate of the bytes that a run takes without its texts, with its entries in the indexes.
pub const RUN_BYTES: u64 = 500;
/// The same estimate for an attempt or an output.
pub const ATTEMPT_BYTES: u64 = 200;

/// A claim ends with the job with which the definitions reach this many bytes. So a few large jobs take no more memory
/// than many small ones.
pub const CLAIM_BYTES: usize = 8 * 1024 * 1024;

/// A page of rows.
#[derive(Debug, Clone, Default)]
pub struct Rows<T> {
    pub rows: Vec<T>,
    /// Whether the page ended before its limit, because it reached [`PAGE_BYTES`](crate::filter::PAGE_BYTES).
    pub is_cut: bool,
}

/// A job that is reviewed at a start or a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReviewedJob {
    pub id: JobId,
    /// Whether a file declares it.
    pub is_declared: bool,
    /// The source of that file, if it is known.
    pub source: Option<String>,
}

impl ReviewedJob {
    /// Whether a file with another source than this declares it.
    pub fn is_declared_elsewhere(&self, source: &str) -> bool {
        self.is_declared && self.source.as_deref().is_some_and(|own| own != source)
    }
}

/// The future of a read.
pub type ReadFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// What readers need of a store.
pub trait Archive: std::fmt::Debug + Send + Sync + 'static {
    /// One job.
    fn job<'a>(&'a self, id: &'a str) -> ReadFuture<'a, Option<Job>>;

    /// A page of jobs.
    fn jobs<'a>(&'a self, filter: &'a JobFilter) -> ReadFuture<'a, Rows<Job>>;

    /// The ids of jobs that meet these conditions. A page in their order, after this id.
    fn job_ids<'a>(
        &'a self,
        conditions: &'a JobConditions,
        after: &'a str,
        limit: usize,
    ) -> ReadFuture<'a, Vec<JobId>>;

    /// One run.
    fn run<'a>(&'a self, id: &'a str) -> ReadFuture<'a, Option<Run>>;

    /// The ids of the runs that begin or end with this part of an id, at most `limit` of each.
    fn run_ids<'a>(&'a self, part: &'a str, limit: usize) -> ReadFuture<'a, Vec<RunId>>;

    /// A page of the ledger.
    fn runs<'a>(&'a self, filter: &'a RunFilter) -> ReadFuture<'a, Rows<Run>>;

    /// The attempts of a run before its last one.
    fn attempts<'a>(&'a self, run_id: &'a str) -> ReadFuture<'a, Vec<Attempt>>;

    /// The output of an attempt of a run, if it wrote any.
    fn output<'a>(&'a self, run_id: &'a str, attempt: u32) -> ReadFuture<'a, Option<Output>>;

    /// The jobs that are reviewed at a start or a reload: those that a file declares, those that are broken, and those whose
    /// executor is none of these. A page in the order of their ids, after this id.
    fn jobs_to_review<'a>(
        &'a self,
        executors: &'a [String],
        after: &'a str,
        limit: usize,
    ) -> ReadFuture<'a, Vec<ReviewedJob>>;

    /// A page of runs that need not be kept.
    fn prunable<'a>(&'a self, which: Prunable<'a>, limit: usize) -> ReadFuture<'a, Vec<RunId>>;

    /// Jobs with more rows in the ledger than this, in the order of their ids, after this id.
    fn crowded_jobs<'a>(
        &'a self,
        rows: usize,
        after: &'a str,
        limit: usize,
    ) -> ReadFuture<'a, Vec<String>>;

    /// The ended runs older than this one, the newest first, each with the bytes that it takes with its attempts and
    /// outputs. The number is an estimate: the bytes of its texts, and a constant for each row.
    fn run_sizes<'a>(
        &'a self,
        before: Option<&'a str>,
        limit: usize,
    ) -> ReadFuture<'a, Vec<(RunId, u64)>>;

    /// A page of finished jobs.
    fn finished_jobs<'a>(&'a self, page: FinishedJobs<'a>) -> ReadFuture<'a, Vec<Job>>;

    /// When the newest finished job beyond this many finished; none if there are not more finished jobs than that.
    fn finished_beyond(&self, keep: usize) -> ReadFuture<'_, Option<Timestamp>>;

    /// How many runs are in flight in each pool on each node.
    fn in_flight(&self) -> ReadFuture<'_, Vec<PoolRuns>>;

    /// How many jobs are in each state.
    fn job_counts(&self) -> ReadFuture<'_, Vec<(String, u64)>>;
}
