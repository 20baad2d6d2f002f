//! Reading what is and what was: pages of jobs and of the ledger. Readers never disturb the
//! writer; who waits for a run to end is woken by the scheduler's steps and looks for himself.

mod failures;
mod follow;
mod wait;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::executor::Live;
use crate::explain::{Explanation, Facts, explain};
use crate::filter::{JobFilter, PAGE_LIMIT, RunFilter};
use crate::job::Job;
use crate::output::Output;
use crate::run::{Attempt, Cause, Run, RunId};
use crate::scheduler::handle::Handle;
use crate::store::{Archive, Rows, StoreError};

use failures::{Failures, Read};
pub use follow::{FOLLOWERS_MAX, Following, Told, TooManyFollowers};
pub use wait::{TooManyWaiters, WAITERS_MAX, Waiter};

/// Rows of a page for which no limit was given.
pub const PAGE_DEFAULT: usize = 100;

/// Pages that are read, or become an answer, at the same time. Others wait for their turn, which is short.
const PAGES: usize = 4;

/// How long what has ended may take to be recorded before it is shown as far as it is known.
const RECORDED_WITHIN: Duration = Duration::from_secs(1);

/// The store could not be read.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct HistoryError(#[from] StoreError);

impl HistoryError {
    /// Whether the database refuses the question, for a value in it.
    pub fn is_rejected(&self) -> bool {
        matches!(self.0, StoreError::Rejected(_))
    }
}

/// A page, and where the next one begins.
#[derive(Debug)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// What to ask for next; none if this was the last page.
    pub next_cursor: Option<String>,
    _place: PagePlace,
}

/// A place for a page. It is kept until the page has become an answer, so that few pages are in memory as rows.
type PagePlace = Option<OwnedSemaphorePermit>;

/// A reader of jobs and ledger.
#[derive(Debug, Clone)]
pub struct History {
    archive: Arc<dyn Archive>,
    handle: Handle,
    live: Live,
    /// Places for those who follow a run.
    followers: Arc<Semaphore>,
    /// Places for clients that wait for a run to end.
    waiters: Arc<Semaphore>,
    /// Places for pages.
    pages: Arc<Semaphore>,
    failures: Failures,
}

impl History {
    /// A reader of this archive, woken by the steps of this scheduler, that sees what these runs are writing.
    pub fn new(archive: Arc<dyn Archive>, handle: Handle, live: Live) -> Self {
        let followers = Arc::new(Semaphore::new(FOLLOWERS_MAX));
        let waiters = Arc::new(Semaphore::new(WAITERS_MAX));
        let pages = Arc::new(Semaphore::new(PAGES));
        Self { archive, handle, live, followers, waiters, pages, failures: Failures::default() }
    }

    /// Why the store cannot be read, if a reading that failed fails again, or next to nothing can be read.
    pub async fn read_error(&self) -> Option<String> {
        self.failures.find(self.archive.as_ref()).await
    }

    /// One job.
    pub async fn job(&self, id: &str) -> Result<Option<Job>, HistoryError> {
        self.failures.note(self.archive.job(id).await, || Read::Job(id.to_owned()))
    }

    async fn page_place(&self) -> PagePlace {
        // The semaphore is never closed.
        Arc::clone(&self.pages).acquire_owned().await.ok()
    }

    /// A page of jobs, which may end before its limit if the jobs are large.
    pub async fn jobs(&self, mut filter: JobFilter) -> Result<Page<Job>, HistoryError> {
        let place = self.page_place().await;
        let limit = filter.limit.clamp(1, PAGE_LIMIT);
        // One row more tells whether there is another page.
        filter.limit = limit + 1;
        let rows =
            self.failures.note(self.archive.jobs(&filter).await, || Read::Jobs(filter.clone()))?;
        Ok(page((rows, place), limit, |job| job.id.to_string()))
    }

    /// One run.
    pub async fn run(&self, id: &str) -> Result<Option<Run>, HistoryError> {
        self.failures.note(self.archive.run(id).await, || Read::Run(id.to_owned()))
    }

    /// A page of the ledger, which may end before its limit if the rows are large.
    pub async fn runs(&self, mut filter: RunFilter) -> Result<Page<Run>, HistoryError> {
        let place = self.page_place().await;
        let limit = filter.limit.clamp(1, PAGE_LIMIT);
        filter.limit = limit + 1;
        let rows =
            self.failures.note(self.archive.runs(&filter).await, || Read::Runs(filter.clone()))?;
        Ok(page((rows, place), limit, |run| run.id.to_string()))
    }

    /// Why a job ran or did not at an instant, and when it runs next.
    pub async fn explain(
        &self,
        job: &Job,
        asked: Timestamp,
        now: Timestamp,
    ) -> Result<Explanation, HistoryError> {
        // A row at that very instant says more than the trigger, which may have been another one then.
        let at_asked = self
            .row_of(job, asked)
            .await?
            .filter(|row| row.scheduled_at == Some(asked) || job.trigger.matches(asked));
        let (occurrence, row) = match at_asked {
            Some(row) => (Some(asked), Some(row)),
            None => match job.trigger.last_until(asked) {
                Some(at) => (Some(at), self.row_of(job, at).await?),
                None => (None, None),
            },
        };
        let by_hand = self.newest_of(job).await?.filter(|run| {
            let is_after = occurrence.is_none_or(|at| run.created_at > at);
            run.cause == Cause::Manual && is_after && run.created_at <= asked
        });
        let paused_since = self.handle.status().paused_since;
        Ok(explain(Facts { job, asked, occurrence, row, by_hand, paused_since, now }))
    }

    /// The newest row of a job's own runs.
    async fn newest_of(&self, job: &Job) -> Result<Option<Run>, HistoryError> {
        self.first_row(RunFilter {
            job_id: Some(job.id.to_string()),
            without_hooks: true,
            ..RunFilter::default()
        })
        .await
    }

    /// The newest row that stands for an occurrence.
    async fn row_of(&self, job: &Job, occurrence: Timestamp) -> Result<Option<Run>, HistoryError> {
        self.first_row(RunFilter {
            job_id: Some(job.id.to_string()),
            occurrence: Some(occurrence),
            ..RunFilter::default()
        })
        .await
    }

    async fn first_row(&self, filter: RunFilter) -> Result<Option<Run>, HistoryError> {
        let filter = RunFilter { limit: 1, ..filter };
        Ok(self
            .failures
            .note(self.archive.runs(&filter).await, || Read::Runs(filter.clone()))?
            .rows
            .pop())
    }

    /// The attempts of a run before its last one.
    pub async fn attempts(&self, run_id: &str) -> Result<Vec<Attempt>, HistoryError> {
        self.failures
            .note(self.archive.attempts(run_id).await, || Read::Attempts(run_id.to_owned()))
    }

    /// The output of an attempt of a run, as far as it is written.
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
            let stored = self.failures.note(self.archive.output(&id.0, attempt).await, || {
                Read::Output(id.to_string(), attempt)
            })?;
            // While a run goes on, what it has written is saved from time to time.
            let stored_bytes = stored.as_ref().map_or(0, |stored| stored.bytes);
            if stored_bytes >= so_far.bytes {
                return Ok(stored.unwrap_or_default());
            }
            // It has just ended, and is about to be recorded.
            if !matches!(tokio::time::timeout_at(deadline, steps.changed()).await, Ok(Ok(()))) {
                let has_lines = so_far.kept_bytes() > 0;
                return Ok(stored.filter(|_| !has_lines).unwrap_or(so_far));
            }
        }
    }

    /// How many jobs are in each state.
    pub async fn job_counts(&self) -> Result<Vec<(String, u64)>, HistoryError> {
        self.failures.note(self.archive.job_counts().await, || Read::Counts)
    }
}

fn page<T>(
    (Rows { mut rows, is_cut }, place): (Rows<T>, PagePlace),
    limit: usize,
    cursor: impl Fn(&T) -> String,
) -> Page<T> {
    let more = rows.len() > limit || is_cut;
    rows.truncate(limit);
    let next_cursor = rows.last().filter(|_| more).map(cursor);
    Page { rows, next_cursor, _place: place }
}
