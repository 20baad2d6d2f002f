//! Where jobs and the ledger are kept: the seam between the core and a database.
//!
//! The core decides, a store remembers. [`Store::commit`] takes everything that one step of the
//! scheduler decided and writes it in one transaction, so that a job is never advanced without
//! its ledger row. Every write says what it is based on: a job's revision, the node that holds a
//! run. So the same core is right alone on a file and with other nodes on a server.
//! [`Archive`] is for readers and never waits for the writer.

pub mod sql;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::filter::{FinishedJobs, JobFilter, Prunable, RunFilter};
use crate::job::{Job, JobId};
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

/// One write. A transaction is a list of them.
#[derive(Debug, Clone)]
pub enum Change {
    /// A new job of revision 1; its id must be free.
    InsertJob(Arc<Job>),
    /// A job as it is from now on, if its stored revision is the one before, and it was added at the same time: a job
    /// that was removed and added again begins to count again.
    UpdateJob(Arc<Job>),
    /// The same where only its place in the schedule is another: state, next occurrence, count of runs, owner.
    AdvanceJob(Arc<Job>),
    /// A job goes, if its revision is still this; its ledger stays.
    DeleteJob {
        /// Which one.
        id: JobId,
        /// The revision that was read.
        revision: i64,
        /// When it was added.
        created_at: Timestamp,
    },
    /// A new row of the ledger; its occurrence must have none yet.
    InsertRun(Arc<Run>),
    /// A row of the ledger as it is from now on, if it has not ended and is held by a node of this name.
    UpdateRun {
        /// The row.
        run: Arc<Run>,
        /// The node that holds it until now.
        held_by: Arc<str>,
    },
    /// A row of skipped occurrences takes in the occurrences that follow it, if the last one that it stands for is still
    /// `former_last`.
    ExtendSkipped {
        /// The row as it is from now on.
        run: Arc<Run>,
        /// The last occurrence that it has stood for until now.
        former_last: Timestamp,
    },
    /// An attempt that was not the last one of its run; it must have no row yet.
    InsertAttempt(Arc<Attempt>),
    /// What an attempt has written.
    PutOutput {
        /// The run.
        run_id: RunId,
        /// Which of its attempts.
        attempt: u32,
        /// What is kept of it.
        output: Arc<Output>,
    },
    /// What an attempt has written so far. Nothing is written if this node does not run it any more.
    SavePartialOutput {
        /// The run.
        run_id: RunId,
        /// Which of its attempts.
        attempt: u32,
        /// What is kept of it so far.
        output: Arc<Output>,
        /// The node that runs it.
        held_by: Arc<str>,
    },
    /// Runs of a job that were started on other nodes are to end; those find out when they meet.
    CancelJobRuns {
        /// Of which job.
        job_id: JobId,
        /// Why.
        reason: String,
        /// The node whose runs are not meant.
        except_node: Arc<str>,
    },
    /// A run that is in flight is to end; a node that holds it finds out when it meets the others.
    CancelRun {
        /// Which one.
        run_id: RunId,
        /// Why.
        reason: String,
    },
    /// Since when the scheduler is paused; none if it is not.
    SetPaused(Option<Timestamp>),
    /// A step was written at this instant, by the clock of its node.
    RecordTime(Timestamp),
    /// A run that has ended is no longer kept, or a part of it. One that is gone already, or has not ended, stays as
    /// it is.
    Prune {
        /// Which one.
        run_id: RunId,
        /// What of it.
        part: RunPart,
    },
}

/// What is kept of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunPart {
    /// What its attempts have written.
    Outputs,
    /// The attempts before its last one.
    Attempts,
    /// Its row. The other parts go before it.
    Row,
}

impl RunPart {
    /// All of them, in the order in which they go.
    pub const ALL: [Self; 3] = [Self::Outputs, Self::Attempts, Self::Row];
}

/// Which jobs a node wants to hold: what nobody else holds.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// Who.
    pub node: &'a str,
    /// Active jobs that are due at or before this.
    pub until: Timestamp,
    /// Of these executors.
    pub executors: &'a [String],
    /// At most this many, the earliest first.
    pub limit: usize,
    /// The nodes that are alive: what one of the others holds is not free.
    pub live: &'a [String],
}

/// Runs in flight, by the node that holds them.
#[derive(Debug, Clone, Copy)]
pub enum Holder<'a> {
    /// This node.
    Node(&'a str),
    /// A node that the store does not know any more, or on a store of one node any other; this one is not meant. That
    /// is judged when the runs are read: who has come meanwhile is known before it holds any.
    Gone {
        /// Who asks.
        but: &'a str,
    },
}

/// Runs of one job that are in flight on other nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InFlightCount {
    /// Those that were started.
    pub running: u32,
    /// Those that wait.
    pub waiting: u32,
}

/// A node, as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Counts its signs of life. Others judge by whether this changes, not by its clock.
    pub beat: i64,
    /// When it started, by its own clock.
    pub started_at: Timestamp,
    /// Its last sign of life, by its own clock.
    pub seen_at: Timestamp,
}

/// What a node finds when it gives a sign of life.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterView {
    /// Whether the others had given this node up, or did not know it yet.
    pub is_new: bool,
    /// All nodes, this one among them.
    pub nodes: Vec<Node>,
    /// Since when the scheduler is paused.
    pub paused_since: Option<Timestamp>,
    /// The instant of the last [`Change::RecordTime`].
    pub recorded_time: Option<Timestamp>,
    /// Runs on this node that another one has asked to end, and why.
    pub cancel_requests: Vec<(RunId, String)>,
}

/// A job with its place in the ledger.
#[derive(Debug, Clone)]
pub struct ScheduledJob {
    /// The job.
    pub job: Job,
    /// The last of its occurrences that has a row under its anchor.
    pub last: Option<Timestamp>,
}

/// What the scheduler needs of a store.
pub trait Store: std::fmt::Debug + Send + Sync + 'static {
    /// Whether other nodes may work on it at the same time.
    fn is_shared(&self) -> bool;

    /// The jobs of these ids that exist.
    fn load_jobs(&self, ids: &[JobId])
    -> impl Future<Output = Result<Vec<Job>, StoreError>> + Send;

    /// Takes jobs that are due, earliest first, up to [`CLAIM_BYTES`]. On a store of one node that is only a reading.
    fn claim_jobs(
        &self,
        claim: Claim<'_>,
    ) -> impl Future<Output = Result<Vec<Job>, StoreError>> + Send;

    /// Gives jobs of this executor that are due at or before an instant to any node that wants them.
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

    /// For each of these jobs the row of its latest occurrence under its anchor, where that row is a skip of this reason.
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

    /// How many runs of each job are in flight on nodes other than this; those that tell of others do not count.
    fn count_in_flight_elsewhere(
        &self,
        node: &str,
    ) -> impl Future<Output = Result<Vec<(JobId, InFlightCount)>, StoreError>> + Send;

    /// A sign of life: the node is known from now on.
    fn heartbeat(
        &self,
        node: &str,
        started_at: Timestamp,
        now: Timestamp,
    ) -> impl Future<Output = Result<ClusterView, StoreError>> + Send;

    /// Forgets nodes whose beat is still this: those that are dead, and the node itself when it leaves.
    fn remove_nodes(&self, dead: &[Node]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Since when the scheduler is paused, if it is.
    fn paused_since(&self) -> impl Future<Output = Result<Option<Timestamp>, StoreError>> + Send;

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

    /// Returns when there may be something to see: another node has said so, or the store is no longer the one that was
    /// opened. That it does not return says nothing.
    fn wait_for_hint(&self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Writes all changes, or none.
    fn commit(&self, changes: Vec<Change>) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// An estimate of the bytes that a run takes beside its texts, with its entries in the indexes.
pub const RUN_BYTES: u64 = 500;
/// The same of an attempt or an output.
pub const ATTEMPT_BYTES: u64 = 200;

/// Bytes of definitions at which a claim ends: the job with which they are reached is its last one. So jobs that are
/// few and large take no more memory than many small ones.
pub const CLAIM_BYTES: usize = 8 * 1024 * 1024;

/// Rows of a page.
#[derive(Debug, Clone, Default)]
pub struct Rows<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Whether the page ended before its limit, because it reached [`PAGE_BYTES`](crate::filter::PAGE_BYTES).
    pub is_cut: bool,
}

/// A job that a start or a reload looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReviewedJob {
    /// The job.
    pub id: JobId,
    /// Whether a file declares it.
    pub is_declared: bool,
    /// The source of that file, if it is known.
    pub source: Option<String>,
}

impl ReviewedJob {
    /// Whether a file with another source than this declares it.
    pub fn is_declared_beside(&self, source: &str) -> bool {
        self.is_declared && self.source.as_deref().is_some_and(|own| own != source)
    }
}

/// A future of a reading.
pub type ReadFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// What readers need of a store.
pub trait Archive: std::fmt::Debug + Send + Sync + 'static {
    /// One job.
    fn job<'a>(&'a self, id: &'a str) -> ReadFuture<'a, Option<Job>>;

    /// A page of jobs.
    fn jobs<'a>(&'a self, filter: &'a JobFilter) -> ReadFuture<'a, Rows<Job>>;

    /// One run.
    fn run<'a>(&'a self, id: &'a str) -> ReadFuture<'a, Option<Run>>;

    /// A page of the ledger.
    fn runs<'a>(&'a self, filter: &'a RunFilter) -> ReadFuture<'a, Rows<Run>>;

    /// The attempts of a run before its last one.
    fn attempts<'a>(&'a self, run_id: &'a str) -> ReadFuture<'a, Vec<Attempt>>;

    /// The output of an attempt of a run, if it wrote any.
    fn output<'a>(&'a self, run_id: &'a str, attempt: u32) -> ReadFuture<'a, Option<Output>>;

    /// The jobs that a start or a reload looks at: those that a file declared, those that are broken, and those whose
    /// executor is none of these; a page in the order of their ids, after one of them.
    fn jobs_to_review<'a>(
        &'a self,
        executors: &'a [String],
        after: &'a str,
        limit: usize,
    ) -> ReadFuture<'a, Vec<ReviewedJob>>;

    /// A page of runs that need not be kept.
    fn prunable<'a>(&'a self, which: Prunable<'a>, limit: usize) -> ReadFuture<'a, Vec<RunId>>;

    /// Jobs with more rows in the ledger than this, in the order of their ids, after one of them.
    fn crowded_jobs<'a>(
        &'a self,
        rows: usize,
        after: &'a str,
        limit: usize,
    ) -> ReadFuture<'a, Vec<String>>;

    /// The ended runs older than this one, the newest first, each with the bytes that it takes with its attempts and
    /// outputs. The number is an estimate: what its texts take, and a constant for each row.
    fn run_sizes<'a>(
        &'a self,
        before: Option<&'a str>,
        limit: usize,
    ) -> ReadFuture<'a, Vec<(RunId, u64)>>;

    /// A page of finished jobs.
    fn finished_jobs<'a>(&'a self, page: FinishedJobs<'a>) -> ReadFuture<'a, Vec<Job>>;

    /// When the newest job finished that is not among this many newest finished ones; none if there is no such job.
    fn finished_beyond(&self, keep: usize) -> ReadFuture<'_, Option<Timestamp>>;

    /// How many jobs are in each state.
    fn job_counts(&self) -> ReadFuture<'_, Vec<(String, u64)>>;
}
