//! Remembers queries that failed. A failed query counts against the daemon's readiness until it succeeds: a store that can be
//! read in one place may be damaged in another.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::filter::{JobFilter, RunFilter};
use crate::store::{Archive, StoreError};

/// Time limit of a repeated query.
const RETRY_LIMIT: Duration = Duration::from_secs(5);
/// The most failed queries that are remembered; older ones are dropped.
const FAILED_MAX: usize = 8;

/// The store could not be read.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct HistoryError(#[from] StoreError);

impl HistoryError {
    /// Whether the database refused the query because of a value in it.
    pub fn is_rejected(&self) -> bool {
        matches!(self.0, StoreError::Rejected(_))
    }
}

/// A query that can be repeated.
#[derive(Debug, Clone)]
pub(super) enum ArchiveQuery {
    Job(String),
    Jobs(JobFilter),
    Run(String),
    RunIds(String),
    Runs(RunFilter),
    Attempts(String),
    Output(String, u32),
    InFlight,
    Counts,
}

impl ArchiveQuery {
    async fn run(&self, archive: &dyn Archive) -> Result<(), StoreError> {
        match self {
            Self::Job(id) => archive.job(id).await.map(drop),
            Self::Jobs(filter) => archive.jobs(filter).await.map(drop),
            Self::Run(id) => archive.run(id).await.map(drop),
            Self::RunIds(part) => archive.run_ids(part, 1).await.map(drop),
            Self::Runs(filter) => archive.runs(filter).await.map(drop),
            Self::Attempts(id) => archive.attempts(id).await.map(drop),
            Self::Output(id, attempt) => archive.output(id, *attempt).await.map(drop),
            Self::InFlight => archive.in_flight().await.map(drop),
            Self::Counts => archive.job_counts().await.map(drop),
        }
    }

    /// Repeats the query, and returns what is wrong with the store, if anything.
    async fn error(&self, archive: &dyn Archive) -> Option<String> {
        match tokio::time::timeout(RETRY_LIMIT, self.run(archive)).await {
            Ok(Err(error @ (StoreError::Unavailable(_) | StoreError::Refused(_)))) => {
                Some(error.to_string())
            }
            // An error of one row or of one query says nothing about the store.
            Ok(Ok(()) | Err(_)) => None,
            Err(_) => Some(format!("the store does not answer within {RETRY_LIMIT:?}")),
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct FailedQueries(Arc<Mutex<Vec<Arc<ArchiveQuery>>>>);

impl FailedQueries {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<ArchiveQuery>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a query if it failed because the store could not be read.
    pub(super) fn note<T>(
        &self,
        result: Result<T, StoreError>,
        query: impl FnOnce() -> ArchiveQuery,
    ) -> Result<T, HistoryError> {
        if let Err(StoreError::Unavailable(_) | StoreError::Refused(_)) = &result {
            let mut failed = self.lock();
            if failed.len() == FAILED_MAX {
                failed.remove(0);
            }
            failed.push(Arc::new(query()));
        }
        Ok(result?)
    }

    fn latest(&self) -> Option<Arc<ArchiveQuery>> {
        self.lock().last().cloned()
    }

    /// Repeats the failed queries and a trivial one, and returns the error of the first that fails.
    pub(super) async fn retry(&self, archive: &dyn Archive) -> Option<String> {
        while let Some(query) = self.latest() {
            if let Some(error) = query.error(archive).await {
                return Some(error);
            }
            self.lock().retain(|known| !Arc::ptr_eq(known, &query));
        }
        // No job has this id.
        ArchiveQuery::Job(String::new()).error(archive).await
    }
}
