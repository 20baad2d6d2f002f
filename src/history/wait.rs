//! Waiting for a run to end. The number of waiting clients is bounded, below the number of connections, so that they
//! leave room for short requests.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::{History, HistoryError};
use crate::run::Run;

/// Clients that wait at the same time.
pub const WAITERS_MAX: usize = 256;

/// There is no place for another waiting client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{WAITERS_MAX} clients are waiting for runs already, which is the limit")]
pub struct TooManyWaiters;

/// A client's place to wait.
#[derive(Debug)]
pub struct Waiter<'a> {
    history: &'a History,
    _place: OwnedSemaphorePermit,
}

impl History {
    /// A place to wait, until it is dropped.
    pub fn waiter(&self) -> Result<Waiter<'_>, TooManyWaiters> {
        let place = Arc::clone(&self.waiters).try_acquire_owned();
        Ok(Waiter { history: self, _place: place.map_err(|_| TooManyWaiters)? })
    }
}

impl Waiter<'_> {
    /// A run, once it has ended, or as it is after `limit`.
    pub async fn wait(&self, id: &str, limit: Duration) -> Result<Option<Run>, HistoryError> {
        let deadline = tokio::time::Instant::now() + limit;
        let mut steps = self.history.handle.steps();
        loop {
            steps.mark_unchanged();
            let run = self.history.run(id).await?;
            if run.as_ref().is_none_or(|run| run.state.is_final()) {
                return Ok(run);
            }
            match tokio::time::timeout_at(deadline, steps.changed()).await {
                Ok(Ok(())) => {}
                // Time is up, or the scheduler has stopped: the run is as it is.
                Ok(Err(_)) | Err(_) => return Ok(run),
            }
        }
    }
}
