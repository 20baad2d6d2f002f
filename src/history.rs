//! Reads jobs and the ledger for clients: pages, single rows, outputs, explanations, and waiting for a run to end.
//!
//! Readers never block the scheduler's writes. A client that waits for a run is woken by the scheduler's steps, and then
//! queries the store again.

mod failed_queries;
mod follow;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::executor::LiveRuns;
use crate::explain::{ExplainInputs, Explanation, explain};
use crate::filter::{JobConditions, JobFilter, PAGE_LIMIT, RunFilter};
use crate::job::{Job, JobId};
use crate::output::Output;
use crate::run::{Attempt, Cause, Run, RunId};
use crate::scheduler::handle::Handle;
pub use crate::store::PoolRuns;
use crate::store::{Archive, Rows};

pub use failed_queries::HistoryError;
use failed_queries::{ArchiveQuery, FailedQueries};
pub use follow::{FOLLOWERS_MAX, FollowEvent, RunFollower, TooManyFollowers};

/// The number of rows of a page if no limit is given.
pub const PAGE_DEFAULT: usize = 100;

/// The most clients that wait for runs at the same time. It is below the number of connections, so that some are left for
/// short requests.
pub const WAITERS_MAX: usize = 256;

/// The most pages in memory at the same time. Further requests wait for their turn, which is short.
const PAGES_MAX: usize = 4;

/// The most runs that are found by each end of a part of an id.
const NAMED_RUNS_MAX: usize = 6;

/// How long to wait for the output of an attempt that has just ended to be stored, before its log is shown instead.
const RECORDED_WITHIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct HistoryPage<T> {
    pub rows: Vec<T>,
    /// Whether another page follows.
    pub has_more: bool,
    _slot: PageSlot,
}

/// The number of jobs in each state.
pub type JobStateCounts = Vec<(String, u64)>;

/// It is held until the page has become an answer, so that few pages are in memory as rows.
type PageSlot = Option<OwnedSemaphorePermit>;

/// There is no slot for another waiting client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{WAITERS_MAX} clients are waiting for runs already, which is the limit")]
pub struct TooManyWaiters;

/// A client's slot to wait for a run.
#[derive(Debug)]
pub struct RunWaiter<'a> {
    history: &'a History,
    _slot: OwnedSemaphorePermit,
}

#[derive(Debug, Clone)]
pub struct History {
    archive: Arc<dyn Archive>,
    handle: Handle,
    live: LiveRuns,
    /// Limits the clients that follow a run.
    followers: Arc<Semaphore>,
    /// Limits the clients that wait for a run to end.
    waiters: Arc<Semaphore>,
    pages: Arc<Semaphore>,
    failed_queries: FailedQueries,
    latest_counts: Arc<Mutex<Option<JobStateCounts>>>,
}

impl History {
    /// `live` are the runs that this process executes, whose outputs are read while they are written.
    pub fn new(archive: Arc<dyn Archive>, handle: Handle, live: LiveRuns) -> Self {
        let followers = Arc::new(Semaphore::new(FOLLOWERS_MAX));
        let waiters = Arc::new(Semaphore::new(WAITERS_MAX));
        let pages = Arc::new(Semaphore::new(PAGES_MAX));
        Self {
            archive,
            handle,
            live,
            followers,
            waiters,
            pages,
            failed_queries: FailedQueries::default(),
            latest_counts: Arc::default(),
        }
    }

    /// Why the store cannot be read, if it cannot: repeats the queries that have failed before, and a trivial one.
    pub async fn read_error(&self) -> Option<String> {
        self.failed_queries.retry(self.archive.as_ref()).await
    }

    pub async fn job(&self, id: &str) -> Result<Option<Job>, HistoryError> {
        self.failed_queries.note(self.archive.job(id).await, || ArchiveQuery::Job(id.to_owned()))
    }

    async fn page_slot(&self) -> PageSlot {
        // The semaphore is never closed.
        Arc::clone(&self.pages).acquire_owned().await.ok()
    }

    /// A page of jobs. It may have fewer rows than its limit if the jobs are large.
    pub async fn jobs(&self, mut filter: JobFilter) -> Result<HistoryPage<Job>, HistoryError> {
        let slot = self.page_slot().await;
        let limit = filter.limit.clamp(1, PAGE_LIMIT);
        // One more row shows whether there is another page.
        filter.limit = limit + 1;
        let rows = self
            .failed_queries
            .note(self.archive.jobs(&filter).await, || ArchiveQuery::Jobs(filter.clone()))?;
        Ok(page((rows, slot), limit))
    }

    /// The ids of jobs that meet these conditions. A page in their order, after this id.
    pub async fn job_ids(
        &self,
        conditions: &JobConditions,
        after: &str,
        limit: usize,
    ) -> Result<Vec<JobId>, HistoryError> {
        let ids = self.archive.job_ids(conditions, after, limit).await;
        let conditions = conditions.clone();
        let query = || JobFilter { conditions, limit: 1, ..JobFilter::default() };
        self.failed_queries.note(ids, || ArchiveQuery::Jobs(query()))
    }

    pub async fn run(&self, id: &str) -> Result<Option<Run>, HistoryError> {
        self.failed_queries.note(self.archive.run(id).await, || ArchiveQuery::Run(id.to_owned()))
    }

    /// The ids of runs that begin or end with this part of an id, some of them if there are many.
    pub async fn run_ids(&self, part: &str) -> Result<Vec<RunId>, HistoryError> {
        let ids = self.archive.run_ids(part, NAMED_RUNS_MAX).await;
        self.failed_queries.note(ids, || ArchiveQuery::RunIds(part.to_owned()))
    }

    /// A page of the ledger. It may have fewer rows than its limit if they are large.
    pub async fn runs(&self, mut filter: RunFilter) -> Result<HistoryPage<Run>, HistoryError> {
        let slot = self.page_slot().await;
        let limit = filter.limit.clamp(1, PAGE_LIMIT);
        filter.limit = limit + 1;
        let rows = self
            .failed_queries
            .note(self.archive.runs(&filter).await, || ArchiveQuery::Runs(filter.clone()))?;
        Ok(page((rows, slot), limit))
    }

    /// Why a job ran or did not run at an instant, and when it runs next.
    pub async fn explain(
        &self,
        job: &Job,
        asked: Timestamp,
        now: Timestamp,
    ) -> Result<Explanation, HistoryError> {
        // A row at exactly that instant says more than the trigger, which may have been another one then.
        let row_of =
            |at| self.newest_row(job, RunFilter { occurrence: Some(at), ..RunFilter::default() });
        let at_asked = row_of(asked)
            .await?
            .filter(|row| row.scheduled_at == Some(asked) || job.trigger.matches(asked));
        let (occurrence, row) = match at_asked {
            Some(row) => (Some(asked), Some(row)),
            None => match job.trigger.last_until(asked) {
                Some(at) => (Some(at), row_of(at).await?),
                None => (None, None),
            },
        };
        let own_runs = RunFilter { without_hooks: true, ..RunFilter::default() };
        let manual_run = self.newest_row(job, own_runs).await?.filter(|run| {
            let is_after = occurrence.is_none_or(|at| run.created_at > at);
            run.cause == Cause::Manual && is_after && run.created_at <= asked
        });
        let pause = self.handle.status().pause;
        let scheduler_pause = pause.as_deref();
        let facts = ExplainInputs { job, asked, occurrence, row, manual_run, scheduler_pause, now };
        Ok(explain(facts))
    }

    async fn newest_row(&self, job: &Job, filter: RunFilter) -> Result<Option<Run>, HistoryError> {
        let filter = RunFilter { job_id: Some(job.id.to_string()), limit: 1, ..filter };
        let rows = self.archive.runs(&filter).await;
        Ok(self.failed_queries.note(rows, || ArchiveQuery::Runs(filter.clone()))?.rows.pop())
    }

    /// The attempts of a run before its present one.
    pub async fn attempts(&self, run_id: &str) -> Result<Vec<Attempt>, HistoryError> {
        self.failed_queries
            .note(self.archive.attempts(run_id).await, || ArchiveQuery::Attempts(run_id.to_owned()))
    }

    /// The output of an attempt, as far as it has been written.
    pub async fn output(&self, id: &RunId, attempt: u32) -> Result<Output, HistoryError> {
        let deadline = Instant::now() + RECORDED_WITHIN;
        let mut steps = self.handle.steps();
        loop {
            steps.mark_unchanged();
            let executing = self.live.get(id).filter(|(number, _)| *number == attempt);
            let log = executing.as_ref().map(|(_, context)| &context.log);
            let so_far = log.map(crate::task::log::Log::so_far).unwrap_or_default();
            if log.is_some_and(|log| !log.is_closed()) {
                return Ok(so_far);
            }
            let stored =
                self.failed_queries.note(self.archive.output(&id.0, attempt).await, || {
                    ArchiveQuery::Output(id.to_string(), attempt)
                })?;
            // The store can be behind the log: the output of a run in progress is saved from time to time.
            let stored_bytes = stored.as_ref().map_or(0, |stored| stored.bytes);
            if stored_bytes >= so_far.bytes {
                return Ok(stored.unwrap_or_default());
            }
            // The attempt has just ended, and its output is about to be stored.
            if !matches!(tokio::time::timeout_at(deadline, steps.changed()).await, Ok(Ok(()))) {
                let has_lines = so_far.kept_bytes() > 0;
                return Ok(stored.filter(|_| !has_lines).unwrap_or(so_far));
            }
        }
    }

    /// How many runs are in flight in each pool on each node.
    pub async fn in_flight(&self) -> Result<Vec<PoolRuns>, HistoryError> {
        self.failed_queries.note(self.archive.in_flight().await, || ArchiveQuery::InFlight)
    }

    /// How many jobs are in each state.
    pub async fn job_counts(&self) -> Result<JobStateCounts, HistoryError> {
        let counts = self.archive.job_counts().await;
        let counts = self.failed_queries.note(counts, || ArchiveQuery::Counts);
        let latest = counts.as_ref().ok().cloned();
        *self.latest_counts.lock().unwrap_or_else(PoisonError::into_inner) = latest;
        counts
    }

    /// The same as it was last read, without a query; none if the store could not be read then, or was not yet.
    pub fn latest_job_counts(&self) -> Option<JobStateCounts> {
        self.latest_counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A slot to wait for a run, until it is dropped.
    pub fn waiter(&self) -> Result<RunWaiter<'_>, TooManyWaiters> {
        let slot = Arc::clone(&self.waiters).try_acquire_owned();
        Ok(RunWaiter { history: self, _slot: slot.map_err(|_| TooManyWaiters)? })
    }
}

impl RunWaiter<'_> {
    /// Returns a run once it has ended, or as it is after `limit`.
    pub async fn wait(&self, id: &str, limit: Duration) -> Result<Option<Run>, HistoryError> {
        let deadline = Instant::now() + limit;
        let mut steps = self.history.handle.steps();
        loop {
            steps.mark_unchanged();
            let run = self.history.run(id).await?;
            if run.as_ref().is_none_or(|run| run.state.is_final()) {
                return Ok(run);
            }
            match tokio::time::timeout_at(deadline, steps.changed()).await {
                Ok(Ok(())) => {}
                // Time is up, or the scheduler has stopped.
                Ok(Err(_)) | Err(_) => return Ok(run),
            }
        }
    }
}

fn page<T>((Rows { mut rows, is_cut }, slot): (Rows<T>, PageSlot), limit: usize) -> HistoryPage<T> {
    let has_more = rows.len() > limit || is_cut;
    rows.truncate(limit);
    HistoryPage { rows, has_more, _slot: slot }
}
