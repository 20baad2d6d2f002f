//! A store whose calls are marked in the [`Pulse`] of the loop that makes them.

use std::future::Future;
use std::sync::Arc;

use super::pulse::Pulse;
use crate::clock::Timestamp;
use crate::job::{Job, JobId};
use crate::output::Output;
use crate::run::{Run, RunId, SkipReason};
use crate::store::{
    Change, Claim, ClusterView, Holder, InFlightCount, Node, ScheduledJob, Store, StoreError,
};

/// A store, and where its calls are marked.
#[derive(Debug)]
pub(super) struct WatchedStore<S> {
    pub(super) store: S,
    pub(super) pulse: Pulse,
}

impl<S: Store> Store for WatchedStore<S> {
    fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    fn load_jobs(
        &self,
        ids: &[JobId],
    ) -> impl Future<Output = Result<Vec<Job>, StoreError>> + Send {
        self.pulse.store_call(self.store.load_jobs(ids))
    }

    fn claim_jobs(
        &self,
        claim: Claim<'_>,
    ) -> impl Future<Output = Result<Vec<Job>, StoreError>> + Send {
        self.pulse.store_call(self.store.claim_jobs(claim))
    }

    fn release_jobs(
        &self,
        node: &str,
        executor: &str,
        until: Timestamp,
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        self.pulse.store_call(self.store.release_jobs(node, executor, until))
    }

    fn runs_in_flight(
        &self,
        holder: Holder<'_>,
    ) -> impl Future<Output = Result<Vec<Run>, StoreError>> + Send {
        self.pulse.store_call(self.store.runs_in_flight(holder))
    }

    fn load_runs(
        &self,
        ids: &[RunId],
    ) -> impl Future<Output = Result<Vec<Run>, StoreError>> + Send {
        self.pulse.store_call(self.store.load_runs(ids))
    }

    fn latest_skips(
        &self,
        jobs: &[Arc<Job>],
        reason: SkipReason,
    ) -> impl Future<Output = Result<Vec<Run>, StoreError>> + Send {
        self.pulse.store_call(self.store.latest_skips(jobs, reason))
    }

    fn load_output(
        &self,
        run_id: &RunId,
        attempt: u32,
    ) -> impl Future<Output = Result<Option<Output>, StoreError>> + Send {
        self.pulse.store_call(self.store.load_output(run_id, attempt))
    }

    fn count_in_flight_elsewhere(
        &self,
        node: &str,
    ) -> impl Future<Output = Result<Vec<(JobId, InFlightCount)>, StoreError>> + Send {
        self.pulse.store_call(self.store.count_in_flight_elsewhere(node))
    }

    fn heartbeat(
        &self,
        node: &str,
        started_at: Timestamp,
        now: Timestamp,
    ) -> impl Future<Output = Result<ClusterView, StoreError>> + Send {
        self.pulse.store_call(self.store.heartbeat(node, started_at, now))
    }

    fn remove_nodes(&self, dead: &[Node]) -> impl Future<Output = Result<(), StoreError>> + Send {
        self.pulse.store_call(self.store.remove_nodes(dead))
    }

    fn paused_since(&self) -> impl Future<Output = Result<Option<Timestamp>, StoreError>> + Send {
        self.pulse.store_call(self.store.paused_since())
    }

    fn recorded_time(&self) -> impl Future<Output = Result<Option<Timestamp>, StoreError>> + Send {
        self.pulse.store_call(self.store.recorded_time())
    }

    fn newest_run(&self) -> impl Future<Output = Result<Option<Run>, StoreError>> + Send {
        self.pulse.store_call(self.store.newest_run())
    }

    fn scheduled_jobs(
        &self,
        after: Option<&JobId>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<ScheduledJob>, StoreError>> + Send {
        self.pulse.store_call(self.store.scheduled_jobs(after, limit))
    }

    /// The loop does not wait for this one: others do.
    fn wait_for_hint(&self) -> impl Future<Output = Result<(), StoreError>> + Send {
        self.store.wait_for_hint()
    }

    fn commit(&self, changes: Vec<Change>) -> impl Future<Output = Result<(), StoreError>> + Send {
        self.pulse.store_call(self.store.commit(changes))
    }
}
