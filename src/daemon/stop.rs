//! Phase 4 of a daemon's life: the stop. No new run starts; runs in flight may end within the drain limit; what is left is
//! recorded. Then the sockets and the store are closed, each within a limit.
//!
//! Meanwhile the service manager is asked for the time that this may take, and a second signal ends the wait for runs.

use std::time::Duration;

use tokio::time::Instant;

use super::context::DaemonContext;
use super::scheduler_thread::{RunningScheduler, SchedulerEnd};
use super::service_manager;
use super::signals::{SignalRequest, Signals};
use super::startup_error::refused;
use crate::cli::CliError;
use crate::control::socket_watch::SocketGuard;
use crate::scheduler::serve::{Drain, STOP_MAX};
use crate::store::sql::SqlStore;

/// How much more time each request to the service manager asks for.
const EXTENSION: Duration = Duration::from_secs(15);
/// Time between two of these requests.
const RENEWAL: Duration = Duration::from_secs(5);
/// Maximum time for the servers and the other tasks to end. It is longer than the time that servers give their clients.
const HELPERS_LIMIT: Duration = Duration::from_secs(12);
/// Maximum time for closing the store: a database server that hangs must not delay the end.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Stops the daemon. `ended` is how the scheduler ended, if it did so by itself. Returns the first error.
pub(super) async fn stop(
    context: DaemonContext,
    store: SqlStore,
    scheduler: RunningScheduler,
    ended: Option<SchedulerEnd>,
    socket_file: SocketGuard,
    signals: &mut Signals,
) -> Result<(), CliError> {
    service_manager::stopping("waiting for runs to end");
    tracing::info!("stopping: no new run starts, runs in flight may end");
    context.stop_scheduler.cancel();
    let RunningScheduler { ended: ending, drain } = scheduler;
    let end = async {
        let ended = if let Some(ended) = ended { ended } else { ending.await };
        // The socket file is removed first: a client that connects now finds no socket, instead of being refused.
        drop(socket_file);
        context.pulse.while_waiting(close(&context, &store, ended)).await
    };
    oversee(end, signals, &drain).await
}

/// Awaits the end of the daemon. As long as it takes no longer than its phases may, the service manager is kept from
/// killing the daemon. A second request to stop ends the wait for runs.
async fn oversee<T>(end: impl Future<Output = T>, signals: &mut Signals, drain: &Drain) -> T {
    let mut end = std::pin::pin!(end);
    let until = Instant::now() + drain.limit + STOP_MAX + HELPERS_LIMIT + CLOSE_LIMIT;
    let mut renewal = tokio::time::interval(RENEWAL);
    loop {
        tokio::select! {
            biased;
            ended = &mut end => return ended,
            request = signals.next() => {
                if request == SignalRequest::Stop && !drain.hurry.is_cancelled() {
                    tracing::info!("asked to stop again: runs in flight are ended now");
                    drain.hurry.cancel();
                }
            }
            now = renewal.tick() => {
                let left = until.saturating_duration_since(now);
                if !left.is_zero() {
                    service_manager::extend_timeout(EXTENSION.min(left));
                }
            }
        }
    }
}

/// Closes the servers, waits until every task that uses the store has ended, and closes the store.
async fn close(
    context: &DaemonContext,
    store: &SqlStore,
    ended: SchedulerEnd,
) -> Result<(), CliError> {
    let tracker = &context.tracker;
    context.stop_servers.cancel();
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
    let drained = ended.map_err(|error| refused(&error))?;
    let drained = drained.map_err(|error| refused(&format!("the timer failed: {error}")))?;
    closed.map_err(|error| refused(&error))?;
    let (interrupted, unrecorded) = (drained.interrupted, drained.unrecorded);
    tracing::info!(interrupted, unrecorded, "stopped");
    Ok(())
}
