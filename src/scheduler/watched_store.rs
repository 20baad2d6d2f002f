//! A store whose calls are marked in the [`Pulse`] of the loop that makes them.

use std::future::Future;
use std::sync::Arc;

use super::pulse::Pulse;
use crate::clock::Timestamp;
use crate::job::{Job, JobId};
use crate::output::Output;
use crate::run::{Run, RunId, SkipReason};
use crate::store::{Change, Claim, Holder, InFlight, Meeting, Node, Scheduled, Store, StoreError};

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

    fn load(&self, ids: &[JobId]) -> impl Future<Output = Result<Vec<Job>, StoreError>> + Send {
        self.pulse.store_call(self.store.load(ids))
    }

    fn claim(&self, claim: Claim<'_>) -> impl Future<Output = Result<Vec<Job>, StoreError>> + Send {
        self.pulse.store_call(self.store.claim(claim))
    }

    fn release(
        &self,
        node: &str,
        executor: &str,
        until: Timestamp,
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        self.pulse.store_call(self.store.release(node, executor, until))
    }

    fn in_flight(
        &self,
        holder: Holder<'_>,
    ) -> impl Future<Output = Result<Vec<Run>, StoreError>> + Send {
        self.pulse.store_call(self.store.in_flight(holder))
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

    fn in_flight_elsewhere(
        &self,
        node: &str,
    ) -> impl Future<Output = Result<Vec<(JobId, InFlight)>, StoreError>> + Send {
        self.pulse.store_call(self.store.in_flight_elsewhere(node))
    }

    fn meet(
        &self,
        node: &str,
        started_at: Timestamp,
        now: Timestamp,
    ) -> impl Future<Output = Result<Meeting, StoreError>> + Send {
        self.pulse.store_call(self.store.meet(node, started_at, now))
    }

    fn bury(&self, dead: &[Node]) -> impl Future<Output = Result<(), StoreError>> + Send {
        self.pulse.store_call(self.store.bury(dead))
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
    ) -> impl Future<Output = Result<Vec<Scheduled>, StoreError>> + Send {
        self.pulse.store_call(self.store.scheduled_jobs(after, limit))
    }

    /// The loop does not wait for this one: others do.
    fn hinted(&self) -> impl Future<Output = Result<(), StoreError>> + Send {
        self.store.hinted()
    }

    fn commit(&self, changes: Vec<Change>) -> impl Future<Output = Result<(), StoreError>> + Send {
        self.pulse.store_call(self.store.commit(changes))
    }
}
