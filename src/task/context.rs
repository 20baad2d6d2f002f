//! What the code that executes a run shares with the code that watches it: the cancel and the output of the run.
//!
//! A run is cancelled once, from outside. The code that executes it must end it then: a thread blocks in
//! [`Cancellation::wait`] or asks [`Cancellation::is_cancelled`], a task awaits [`Cancellation::cancelled`].

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::log::Log;

/// An attempt of a run while it is executed.
#[derive(Debug, Default)]
pub struct Context {
    pub cancellation: Cancellation,
    /// Its output.
    pub log: Log,
}

/// Why a run has to end early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// It was cancelled; the text says who or what cancelled it, and why.
    Cancelled(String),
    /// Its timeout, which is this long, is over.
    TimedOut(Duration),
}

/// Whether a run has to end early, and why.
#[derive(Debug, Default)]
pub struct Cancellation {
    ending: Mutex<Option<Ending>>,
    /// Wakes threads.
    changed: Condvar,
    /// Wakes tasks.
    token: CancellationToken,
}

impl Cancellation {
    /// Cancels the run. The first of several reasons counts.
    pub fn cancel(&self, ending: Ending) {
        self.lock().get_or_insert(ending);
        self.changed.notify_all();
        self.token.cancel();
    }

    /// Why the run has to end; `None` if it has not been cancelled.
    pub fn ending(&self) -> Option<Ending> {
        self.lock().clone()
    }

    /// Waits until the run is cancelled. Cancel-safe.
    pub async fn cancelled(&self) -> Ending {
        self.token.cancelled().await;
        self.ending().unwrap_or_else(|| Ending::Cancelled(String::new()))
    }

    pub fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Blocks this thread for `limit`, or until the run is cancelled: then the answer is true.
    pub fn wait(&self, limit: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), limit, |ending| ending.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Ending>> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
