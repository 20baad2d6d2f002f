//! A store that marks its calls in the [`Pulse`] of the loop, because a wait for the store is not a hang.

use std::sync::Arc;

use super::pulse::Pulse;
use crate::clock::Timestamp;
use crate::job::{Job, JobId, Pause};
use crate::output::Output;
use crate::run::{Run, RunId, SkipReason};
use crate::store::{
    Change, Claim, ClusterView, Holder, InFlightCount, Node, ScheduledJob, Store, StoreError,
};

#[derive(Debug)]
pub(super) struct WatchedStore<S> {
    pub(super) store: S,
    pub(super) pulse: Pulse,
}

impl<S: Store> Store for WatchedStore<S> {
    fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    async fn load_jobs(&self, ids: &[JobId]) -> Result<Vec<Job>, StoreError> {
        self.pulse.store_call(self.store.load_jobs(ids)).await
    }

    async fn claim_jobs(&self, claim: Claim<'_>) -> Result<Vec<Job>, StoreError> {
        self.pulse.store_call(self.store.claim_jobs(claim)).await
    }

    async fn release_jobs(
        &self,
        node: &str,
        pool: &str,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        self.pulse.store_call(self.store.release_jobs(node, pool, until)).await
    }

    async fn runs_in_flight(&self, holder: Holder<'_>) -> Result<Vec<Run>, StoreError> {
        self.pulse.store_call(self.store.runs_in_flight(holder)).await
    }

    async fn load_runs(&self, ids: &[RunId]) -> Result<Vec<Run>, StoreError> {
        self.pulse.store_call(self.store.load_runs(ids)).await
    }

    async fn latest_skips(
        &self,
        jobs: &[Arc<Job>],
        reason: SkipReason,
    ) -> Result<Vec<Run>, StoreError> {
        self.pulse.store_call(self.store.latest_skips(jobs, reason)).await
    }

    async fn load_output(&self, run: &RunId, attempt: u32) -> Result<Option<Output>, StoreError> {
        self.pulse.store_call(self.store.load_output(run, attempt)).await
    }

    async fn count_in_flight_elsewhere(
        &self,
        node: &str,
    ) -> Result<Vec<(JobId, InFlightCount)>, StoreError> {
        self.pulse.store_call(self.store.count_in_flight_elsewhere(node)).await
    }

    async fn renew_lease(
        &self,
        node: &str,
        started_at: Timestamp,
        now: Timestamp,
    ) -> Result<ClusterView, StoreError> {
        self.pulse.store_call(self.store.renew_lease(node, started_at, now)).await
    }

    async fn remove_nodes(&self, dead: &[Node]) -> Result<(), StoreError> {
        self.pulse.store_call(self.store.remove_nodes(dead)).await
    }

    async fn pause(&self) -> Result<Option<Pause>, StoreError> {
        self.pulse.store_call(self.store.pause()).await
    }

    async fn recorded_time(&self) -> Result<Option<Timestamp>, StoreError> {
        self.pulse.store_call(self.store.recorded_time()).await
    }

    async fn newest_run(&self) -> Result<Option<Run>, StoreError> {
        self.pulse.store_call(self.store.newest_run()).await
    }

    async fn scheduled_jobs(
        &self,
        after: Option<&JobId>,
        limit: usize,
    ) -> Result<Vec<ScheduledJob>, StoreError> {
        self.pulse.store_call(self.store.scheduled_jobs(after, limit)).await
    }

    /// Not marked, because the loop does not wait for it.
    async fn wait_for_hint(&self) -> Result<(), StoreError> {
        self.store.wait_for_hint().await
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        self.pulse.store_call(self.store.commit(changes)).await
    }
}
