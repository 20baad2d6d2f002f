//! Retention: removes the runs, outputs and finished jobs that the policy does not keep.
//!
//! The [`Pruner`] sweeps the ledger at intervals, and early when it has grown much. A sweep finds rows through the
//! store's readers, page by page, and asks the scheduler to remove them in small batches, so that no step takes long and
//! the removal is written by the one writer of the store. A sweep that fails changes nothing else: the next one finds
//! what is left.

mod finished;
mod pace;
mod policy;
mod runs;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::{Clock, SystemClock};
use crate::scheduler::handle::{Handle, WriteCounts};
use crate::store::Archive;
use pace::SweepError;
use runs::{Removed, RunRemover};

pub use policy::{Budget, KeepFinished, KeepRuns, RetentionPolicy};

/// A sweep starts early when the ledger has grown by this fraction of its budget since the last one.
const GROWTH_DIVISOR: u64 = 10;
/// Minimum time between two checks of that growth.
const GROWTH_PAUSE: Duration = Duration::from_secs(5);
/// Maximum time from the start of the daemon to the first sweep. It is not 0, because a start has enough to do.
const FIRST_AFTER: Duration = Duration::from_mins(1);

/// Removes what the policy does not keep.
#[derive(Debug)]
pub struct Pruner {
    archive: Arc<dyn Archive>,
    handle: Handle,
    /// Each sweep uses the latest policy.
    policy: watch::Receiver<RetentionPolicy>,
}

impl Pruner {
    pub fn new(
        archive: Arc<dyn Archive>,
        handle: Handle,
        policy: watch::Receiver<RetentionPolicy>,
    ) -> Self {
        Self { archive, handle, policy }
    }

    /// Sweeps again and again, until it is dropped.
    pub async fn run(mut self) {
        let first_after = self.policy.borrow().interval.min(FIRST_AFTER);
        let mut written = WriteCounts::default();
        self.wait(first_after, written).await;
        let mut is_first = true;
        loop {
            let policy = *self.policy.borrow_and_update();
            written = self.handle.status().written;
            let mut removed = Removed::default();
            match self.sweep(policy, is_first, &mut removed).await {
                Ok(()) => is_first = false,
                Err(error) => {
                    tracing::warn!(%error, "not all old runs and finished jobs could be removed");
                }
            }
            let Removed { runs, outputs, jobs } = removed;
            if runs + outputs + jobs > 0 {
                tracing::info!(runs, outputs, jobs, "removed old runs, outputs and finished jobs");
            }
            self.wait(policy.interval, written).await;
        }
    }

    /// Waits until `interval` has passed, the policy has changed, or the ledger has grown much.
    async fn wait(&mut self, interval: Duration, before: WriteCounts) {
        let mut changed = self.policy.clone();
        let grown = pin!(self.grown(before));
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = grown => {}
            // Without a sender the policy cannot change any more.
            Ok(()) = changed.changed() => {}
        }
    }

    /// Resolves when this process has added more than a fraction of the budget to the ledger.
    async fn grown(&self, before: WriteCounts) {
        let mut steps = self.handle.steps();
        loop {
            if steps.changed().await.is_err() {
                // The scheduler has ended, so the ledger no longer grows.
                return std::future::pending().await;
            }
            tokio::time::sleep(GROWTH_PAUSE).await;
            let (budget, now) = (self.policy.borrow().budget, steps.borrow_and_update().written);
            if now.runs - before.runs >= budget.runs / GROWTH_DIVISOR
                || now.bytes - before.bytes >= budget.bytes / GROWTH_DIVISOR
            {
                return;
            }
        }
    }

    /// Removes everything that need not be kept now. The first sweep also removes finished jobs that a daemon which died
    /// has left.
    async fn sweep(
        &self,
        policy: RetentionPolicy,
        is_first: bool,
        removed: &mut Removed,
    ) -> Result<(), SweepError> {
        let archive = self.archive.as_ref();
        let old_runs = RunRemover { archive, handle: &self.handle };
        old_runs.apply_limits(&policy, SystemClock.now(), removed).await?;
        // Concurrently, so that neither waits for the other while limits are exceeded.
        let now = SystemClock.now();
        let (runs, jobs) = tokio::join!(
            old_runs.keep_budget(policy.budget),
            finished::remove(archive, &self.handle, policy.finished, is_first, now)
        );
        removed.runs += runs?;
        removed.jobs += jobs?;
        Ok(())
    }
}
