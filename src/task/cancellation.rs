//! The wish that a run ends: made once from outside, heeded by whoever executes the run, be it a
//! thread that blocks or a task that awaits.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Whether a run is to end, and why.
#[derive(Debug, Default)]
pub struct Cancellation {
    reason: Mutex<Option<String>>,
    /// Wakes threads.
    changed: Condvar,
    /// Wakes tasks.
    token: CancellationToken,
}

impl Cancellation {
    /// Asks the run to end. Of several reasons the first one counts.
    pub fn cancel(&self, reason: &str) {
        self.lock().get_or_insert_with(|| reason.to_owned());
        self.changed.notify_all();
        self.token.cancel();
    }

    /// Why the run is to end, if it is.
    pub fn reason(&self) -> Option<String> {
        self.lock().clone()
    }

    /// Waits until the run is to end, and says why.
    pub async fn cancelled(&self) -> String {
        self.token.cancelled().await;
        self.reason().unwrap_or_default()
    }

    /// Whether the run is to end.
    pub fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Blocks this thread for `limit`, or until the run is to end: then it answers true.
    pub fn wait(&self, limit: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), limit, |reason| reason.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
