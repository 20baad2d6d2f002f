//! Readings that failed. One that fails counts against the daemon's readiness until it succeeds:
//! a store that can be read in one place may be damaged in another.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::HistoryError;
use crate::filter::{JobFilter, RunFilter};
use crate::store::{Archive, StoreError};

/// How long a reading may take that finds out whether the store can be read.
const READ_WITHIN: Duration = Duration::from_secs(5);
/// Failed readings that are remembered, the latest ones.
const FAILURES_MAX: usize = 8;

/// A reading that can be done again.
#[derive(Debug, Clone)]
pub(super) enum Read {
    Job(String),
    Jobs(JobFilter),
    Run(String),
    Runs(RunFilter),
    Attempts(String),
    Output(String, u32),
    Counts,
}

impl Read {
    async fn again(&self, archive: &dyn Archive) -> Result<(), StoreError> {
        match self {
            Self::Job(id) => archive.job(id).await.map(drop),
            Self::Jobs(filter) => archive.jobs(filter).await.map(drop),
            Self::Run(id) => archive.run(id).await.map(drop),
            Self::Runs(filter) => archive.runs(filter).await.map(drop),
            Self::Attempts(id) => archive.attempts(id).await.map(drop),
            Self::Output(id, attempt) => archive.output(id, *attempt).await.map(drop),
            Self::Counts => archive.job_counts().await.map(drop),
        }
    }

    /// What is wrong with the store, if this cannot be read now.
    async fn error(&self, archive: &dyn Archive) -> Option<String> {
        match tokio::time::timeout(READ_WITHIN, self.again(archive)).await {
            Ok(Err(error @ (StoreError::Unavailable(_) | StoreError::Refused(_)))) => {
                Some(error.to_string())
            }
            // What is wrong with one row, or with one question, says nothing about the store.
            Ok(Ok(()) | Err(_)) => None,
            Err(_) => Some(format!("the store does not answer within {READ_WITHIN:?}")),
        }
    }
}

/// The readings that failed lately.
#[derive(Debug, Clone, Default)]
pub(super) struct Failures(Arc<Mutex<Vec<Arc<Read>>>>);

impl Failures {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Read>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers the reading if it failed because the store could not be read.
    pub(super) fn note<T>(
        &self,
        result: Result<T, StoreError>,
        read: impl FnOnce() -> Read,
    ) -> Result<T, HistoryError> {
        if let Err(StoreError::Unavailable(_) | StoreError::Refused(_)) = &result {
            let mut failed = self.lock();
            if failed.len() == FAILURES_MAX {
                failed.remove(0);
            }
            failed.push(Arc::new(read()));
        }
        Ok(result?)
    }

    fn latest(&self) -> Option<Arc<Read>> {
        self.lock().last().cloned()
    }

    /// Does the failed readings again, and one that reads next to nothing; says what is wrong if one fails.
    pub(super) async fn find(&self, archive: &dyn Archive) -> Option<String> {
        while let Some(read) = self.latest() {
            if let Some(error) = read.error(archive).await {
                return Some(error);
            }
            self.lock().retain(|known| !Arc::ptr_eq(known, &read));
        }
        // No job has this id.
        Read::Job(String::new()).error(archive).await
    }
}
