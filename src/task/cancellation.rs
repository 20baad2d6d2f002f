//! The request that a run ends: made once from outside, and followed by the code that executes the run, in a thread that
//! blocks or a task that awaits.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Why a run is to end before it ends by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Someone wants it: who or what, and why, in words.
    Cancelled(String),
    /// It has taken as long as it may.
    TimedOut(Duration),
}

/// Whether a run is to end, and why.
#[derive(Debug, Default)]
pub struct Cancellation {
    ending: Mutex<Option<Ending>>,
    /// Wakes threads.
    changed: Condvar,
    /// Wakes tasks.
    token: CancellationToken,
}

impl Cancellation {
    /// Asks the run to end. Of several reasons the first one counts.
    pub fn cancel(&self, ending: Ending) {
        self.lock().get_or_insert(ending);
        self.changed.notify_all();
        self.token.cancel();
    }

    /// Why the run is to end, if it is.
    pub fn ending(&self) -> Option<Ending> {
        self.lock().clone()
    }

    /// Waits until the run is to end, and says why.
    pub async fn cancelled(&self) -> Ending {
        self.token.cancelled().await;
        self.ending().unwrap_or_else(|| Ending::Cancelled(String::new()))
    }

    /// Whether the run is to end.
    pub fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Blocks this thread for `limit`, or until the run is to end: then it answers true.
    pub fn wait(&self, limit: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), limit, |ending| ending.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Ending>> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
