//! The stop of the daemon: it asks the service manager for the time that the stop may take, and a second signal shortens
//! it. It waits for the tasks that use the store, up to a limit, and then closes the store.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::core::Stopped;
use super::notify;
use super::signals::{Asked, Signals};
use crate::cli::CliError;
use crate::scheduler::serve::{Drain, STOP_MAX};
use crate::store::sql::SqlStore;

/// How much more time the service manager is asked for, again and again.
const EXTENSION: Duration = Duration::from_secs(15);
/// Time between two of these requests.
const RENEWAL: Duration = Duration::from_secs(5);
/// How long the doors, and what else runs beside the scheduler, may take to end: longer than they give their clients.
const HELPERS_LIMIT: Duration = Duration::from_secs(12);
/// How long closing the store may take: a server that hangs must not hold up the end.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Has the scheduler stop.
pub(super) fn begin(core: &CancellationToken) {
    notify::stopping("waiting for runs to end");
    tracing::info!("stopping: nothing more is started, runs in flight may end");
    core.cancel();
}

/// Awaits the end of the daemon. Meanwhile the service manager is kept from killing it, as long as the end takes no
/// longer than its parts may; and a second request to stop
/// ends the waiting for runs.
pub(super) async fn oversee<T>(
    end: impl Future<Output = T>,
    signals: &mut Signals,
    drain: &Drain,
) -> T {
    let mut end = std::pin::pin!(end);
    let until = Instant::now() + drain.limit + STOP_MAX + HELPERS_LIMIT + CLOSE_LIMIT;
    let mut renewal = tokio::time::interval(RENEWAL);
    loop {
        tokio::select! {
            biased;
            ended = &mut end => return ended,
            asked = signals.next() => {
                if asked == Asked::Stop && !drain.hurry.is_cancelled() {
                    tracing::info!("asked to stop again: what still runs is ended now");
                    drain.hurry.cancel();
                }
            }
            now = renewal.tick() => {
                let left = until.saturating_duration_since(now);
                if !left.is_zero() {
                    notify::extend(EXTENSION.min(left));
                }
            }
        }
    }
}

/// Closes the doors, waits until everything that used the store has ended, and closes it. The first fault of the end is
/// its result.
pub(super) async fn close(
    store: &SqlStore,
    (tracker, doors): (TaskTracker, CancellationToken),
    drained: Stopped,
) -> Result<(), CliError> {
    doors.cancel();
    tracker.close();
    if tokio::time::timeout(HELPERS_LIMIT, tracker.wait()).await.is_err() {
        tracing::warn!(
            still_running = tracker.len(),
            "some tasks of the daemon did not end in time"
        );
    }
    let closed = tokio::time::timeout(CLOSE_LIMIT, store.close()).await.unwrap_or_else(|_| {
        tracing::warn!("the store did not answer when it was closed");
        Ok(())
    });
    let refused = |error: String| CliError::Refused(error);
    let drained = drained.map_err(|error| refused(error.to_string()))?;
    let drained = drained.map_err(|error| refused(format!("the timer failed: {error}")))?;
    closed.map_err(|error| refused(error.to_string()))?;
    let (interrupted, unrecorded) = (drained.interrupted, drained.unrecorded);
    tracing::info!(interrupted, unrecorded, "stopped");
    Ok(())
}
