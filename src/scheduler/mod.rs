//! The scheduler: [`Scheduler::tick`] takes the time and what has arrived, decides, writes everything in one transaction,
//! acts on it, and returns when it wants to be called again.
//!
//! It has no clock, no timer and no lock: the caller of `tick` (the daemon's loop, a test, a simulation) brings the time.
//!
//! - [`request`] and [`handle`] say what can be requested, [`status`] what is published;
//! - `step/` has a file for each phase of a step: load, complete, apply requests, fire, start, act;
//! - `state/` is what stays in memory between steps; `recovery.rs` and `resync.rs` rebuild what the store knows;
//! - `cluster/` is what a node does for other nodes on the same store. A single-node store never enters it;
//! - `plan.rs`, `retry.rs` and `hooks.rs` are pure decisions;
//! - [`serve`] and `drain.rs` are the loop around `tick`; [`declare`] and [`slices`] cut large requests into small steps.
//!
//! What must hold: a step is decided, committed, acted on and answered in this order, and every write is guarded by what it
//! is based on.

mod alarm;
mod backoff;
mod cluster;
pub mod declare;
mod drain;
#[cfg(test)]
mod fixtures;
pub mod handle;
mod hooks;
mod inputs;
mod log;
pub mod metrics;
mod plan;
mod publisher;
pub mod pulse;
mod recovery;
pub mod request;
mod resync;
mod retry;
pub mod serve;
pub mod slices;
mod state;
pub mod status;
mod step;
mod watched_store;

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::executor::{Completion, Executor, Saving};
use crate::job::Job;
use crate::job::admission::Rules;
use crate::run::Execution;
use crate::store::{Holder, ScheduledJob, Store, StoreError};
use cluster::{Cluster, lease, view};
use metrics::Metrics;
use publisher::{Publisher, next_wake};
use pulse::Pulse;
use recovery::{ConflictRetries, Recovered};
use request::PendingRequest;
pub use state::NodeIdentity;
use state::bisection::StepInputs;
use state::capacity::InstanceView;
use state::{Phase, SchedulerState};
use status::Status;
use step::act::{self, CONFLICTS_MAX};
use step::apply::apply_requests;
use step::context::StepContext;
use step::load::not_of_input;
use step::{Step, StepFailure, StepReply, complete, correct, fire, load, start};
use watched_store::WatchedStore;

/// Why a run is lost, in the ledger, if its node was silent for too long and it is not run again.
const NODE_GONE: &str = "its node was gone while it ran";
/// Why a run was interrupted, in the ledger, if the daemon stopped.
const NOT_WAITED_FOR: &str = "the daemon stopped before it ended";

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StepKind {
    Full,
    /// Nothing fires or starts: the step only processes its inputs.
    InputsOnly,
}

/// Decides what runs when.
#[derive(Debug)]
pub struct Scheduler<S, X> {
    store: WatchedStore<S>,
    executor: X,
    rules: Rules,
    state: SchedulerState,
    /// On a shared store.
    cluster: Option<Cluster>,
    publisher: Publisher,
}

impl<S: Store, X: Executor> Scheduler<S, X> {
    /// Creates a scheduler that has not read its store yet.
    pub fn new(store: S, executor: X, rules: Rules, identity: NodeIdentity) -> Self {
        let is_shared = store.is_shared();
        let cluster = is_shared.then(|| Cluster::new(identity.lease));
        let mut state = SchedulerState::new(identity, &rules, is_shared);
        state.metrics = Metrics::new(rules.executors.keys(), executor.deliveries());
        let publisher = Publisher::default();
        let store = WatchedStore { store, pulse: publisher.pulse.clone() };
        Self { store, executor, rules, state, cluster, publisher }
    }

    /// Follows the status, which changes with every step.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.publisher.status.subscribe()
    }

    /// Counts what it does.
    pub fn metrics(&self) -> Metrics {
        self.state.metrics.clone()
    }

    /// Marks the progress of the scheduler in this pulse.
    #[must_use]
    pub fn with_pulse(mut self, pulse: Pulse) -> Self {
        self.publisher.pulse = pulse.clone();
        self.store.pulse = pulse;
        self
    }

    pub fn pulse(&self) -> Pulse {
        self.store.pulse.clone()
    }

    pub fn executor(&mut self) -> &mut X {
        &mut self.executor
    }

    /// Fires and starts nothing until [`request::Request::Begin`].
    pub fn hold(&mut self) {
        self.state.phase = Phase::Held;
    }

    /// Starts nothing from now on. Running attempts go on.
    pub fn drain(&mut self) {
        self.state.phase = Phase::Draining;
    }

    /// The store has sent a hint: another node has changed something, or the store of this single node may be lost.
    pub fn hint(&mut self) {
        match &mut self.cluster {
            Some(cluster) => cluster.peers.hint(),
            None => self.state.is_stale = true,
        }
    }

    /// Saves outputs of running attempts in the next step.
    pub fn save_outputs(&mut self, saving: Saving) {
        self.state.to_save = Some(saving);
    }

    /// How many runs were started and have no recorded end.
    pub fn running(&self) -> usize {
        self.state.capacity.running()
    }

    /// Makes one step: records what has ended, does what was requested, fires what is due, and starts waiting runs. All of
    /// it is written in one transaction before anything is started or answered. Returns when to call again.
    pub async fn tick(
        &mut self,
        now: Timestamp,
        requests: Vec<PendingRequest>,
        completions: Vec<Completion>,
    ) -> Result<Option<Timestamp>, StoreError> {
        self.state.executions.add_completions(completions);
        let mut all = std::mem::take(&mut self.state.deferred);
        all.extend(requests);
        let SchedulerState { bisection, executions, .. } = &mut self.state;
        if bisection.has_groups() {
            bisection.add(all, executions.completions.keys());
            return self.try_group(now).await;
        }
        let executions = executions.completions.keys().cloned().collect();
        self.try_all(now, StepInputs { requests: all, executions }).await
    }

    /// Makes a full step. If the database refuses a value, the inputs are tried in parts from now on.
    async fn try_all(
        &mut self,
        now: Timestamp,
        inputs: StepInputs,
    ) -> Result<Option<Timestamp>, StoreError> {
        let StepInputs { requests, executions } = inputs;
        let failure = match self.step(now, requests, &executions, StepKind::Full).await {
            Ok(next) => return Ok(next),
            Err(failure) => failure,
        };
        let StepFailure { error, requests, fired, saved } = failure;
        self.state.metrics.step_failed(&error);
        let StoreError::Rejected(why) = error else {
            self.state.deferred.extend(requests);
            return self.after_failure(error).map(|()| Some(now));
        };
        self.state.is_stale = true;
        if !saved.is_empty() {
            self.state.deferred.extend(requests);
            self.state.bisection.stop_saving(saved, &why);
        } else if requests.is_empty() && executions.is_empty() {
            let suspected = self.state.bisection.suspect_firing(&fired, why);
            suspected.or_else(|error| self.after_failure(error))?;
        } else {
            self.state.bisection.groups.push_back(StepInputs { requests, executions });
        }
        Ok(Some(now))
    }

    /// Makes a step of the next group of inputs alone, and then fires the jobs that are due.
    async fn try_group(&mut self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let Some(StepInputs { requests, executions: tried }) =
            self.state.bisection.groups.pop_front()
        else {
            return Ok(Some(now));
        };
        if let Err(failure) = self.step(now, requests, &tried, StepKind::InputsOnly).await {
            let StepFailure { error, requests, .. } = failure;
            self.state.metrics.step_failed(&error);
            let group = StepInputs { requests, executions: tried };
            let SchedulerState { bisection, executions, .. } = &mut self.state;
            if let StoreError::Rejected(why) = error {
                bisection.divide(group, &why, &mut executions.completions);
                self.state.is_stale = true;
            } else {
                bisection.groups.push_front(group);
                if let Err(error) = self.after_failure(error) {
                    self.state.bisection.refuse_requests(&error);
                    return Err(error);
                }
                return Ok(Some(now));
            }
        }
        self.try_all(now, StepInputs::default()).await
    }

    /// Finds out what a failed step means. `Ok` means that another node was faster and the step is made again at once.
    fn after_failure(&mut self, error: StoreError) -> Result<(), StoreError> {
        if let StoreError::Conflict(what) = &error
            && self.state.conflicts < CONFLICTS_MAX
        {
            self.state.conflicts += 1;
            tracing::debug!(%what, "another node was faster; trying again");
            return Ok(());
        }
        // The next step has to find out whether the store can be read and written, even if it has nothing else to do.
        self.doubt_memory();
        self.publisher.publish_error(&error);
        Err(error)
    }

    fn doubt_memory(&mut self) {
        self.state.is_stale = true;
        if let Some(cluster) = &mut self.cluster {
            cluster.peers.hint();
        }
    }

    /// Decides, commits, acts and answers.
    async fn step(
        &mut self,
        now: Timestamp,
        requests: Vec<PendingRequest>,
        executions: &[Execution],
        kind: StepKind,
    ) -> Result<Option<Timestamp>, StepFailure> {
        let (mut step, corrected) = match self.load(now, &requests, executions).await {
            Ok(loaded) => loaded,
            Err(error) => return Err(self.refuse(requests, error)),
        };
        complete::record_ends(&mut step, &mut self.state, &mut self.rules, executions);
        if kind == StepKind::Full {
            complete::save_outputs(&mut step, &mut self.state, &mut self.executor);
        }
        if let Some(cluster) = &mut self.cluster {
            let asked = cluster.take_cancel_requests();
            complete::cancel_for_others(&mut step, &mut self.state, &mut self.rules, asked);
        }
        self.state.capacity.queue_due_retries(now);
        if self.state.phase == Phase::Firing {
            step.end_pause();
        }
        let view = match self.load_due(&mut step, &requests).await {
            Ok(view) => view,
            Err(error) => {
                let StepFailure { error, requests, .. } =
                    self.refuse(requests, not_of_input(error));
                return Err(StepFailure { requests, ..self.abort(step, error) });
            }
        };
        if let Some(page) = corrected {
            let context = &mut StepContext::new(&mut step, &mut self.state, &mut self.rules);
            correct::continue_from_now(context, page);
        }
        apply_requests(&mut step, &mut self.state, &mut self.rules, requests);
        if kind == StepKind::Full {
            fire::fire_due(&mut step, &mut self.state, &mut self.rules);
            start::start_waiting(&mut step, &mut self.state, &mut self.rules, view);
        }
        let owner =
            |job: &Job| self.cluster.as_ref().and_then(|_| cluster::owner(&self.state, job));
        let mut changes = step.take_changes(owner);
        let has_time = self.state.clock.record(now, &mut changes);
        let mut written = self.state.written;
        written.count(&changes);
        if !changes.is_empty() {
            let (count, began) = (changes.len(), Instant::now());
            if let Err(error) = self.store.commit(changes).await {
                return Err(self.abort(step, error));
            }
            self.state.metrics.committed(count, began.elapsed());
        }
        act::remember(&mut step, &mut self.state, written, has_time, executions);
        if kind == StepKind::Full {
            self.state.bisection.fired(&step.fired);
        }
        let replies = act::act(step, &mut self.state, &self.rules, &mut self.executor);
        let next = next_wake(&self.state, self.cluster.as_ref(), now);
        // A client that is answered may read the status, and has to find what its answer says.
        self.publisher.publish(&self.state, self.cluster.as_ref(), now, next);
        if kind == StepKind::Full {
            self.publisher.pulse.step_ends();
        }
        for StepReply { to, answer } in replies {
            // It does not matter if the client no longer waits: its request is done.
            drop(to.send(answer));
        }
        Ok(next)
    }

    /// Brings memory up to date, and starts a step with what its inputs name. Also returns the jobs to look at if the clock
    /// was corrected.
    async fn load(
        &mut self,
        now: Timestamp,
        requests: &[PendingRequest],
        executions: &[Execution],
    ) -> Result<(Step, Option<Vec<ScheduledJob>>), StoreError> {
        if self.cluster.as_ref().is_some_and(|cluster| cluster.peers.is_due(now)) {
            self.renew_lease(now).await.map_err(not_of_input)?;
            self.recover_gone(now, NODE_GONE).await.map_err(not_of_input)?;
        }
        if self.state.is_stale {
            self.resync(now).await.map_err(not_of_input)?;
        }
        let Self { store, state, cluster, .. } = self;
        let mut step = load::start_step(store, state, now, requests).await?;
        let corrected = load::load_corrected(store, state, cluster.as_ref(), now).await?;
        load::load_failing(store, state, &mut step, executions).await.map_err(not_of_input)?;
        Ok((step, corrected))
    }

    async fn renew_lease(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let Self { store, rules, state, cluster, .. } = self;
        match cluster {
            Some(cluster) => lease::renew(cluster, store, rules, state, now).await,
            None => Ok(()),
        }
    }

    async fn resync(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let Self { store, executor, rules, state, cluster, publisher } = self;
        if cluster.is_none() {
            resync::check_single_node(store, state, publisher.has_error(), now).await?;
        }
        resync::resync(store, executor, rules, state, now).await
    }

    /// Reads what is due, and what other nodes run.
    async fn load_due(
        &mut self,
        step: &mut Step,
        requests: &[PendingRequest],
    ) -> Result<InstanceView, StoreError> {
        let Self { store, executor, rules, state, cluster, .. } = self;
        load::load_due(store, executor, rules, state, cluster.as_ref(), step, requests).await?;
        let view = match cluster {
            Some(cluster) => view::refresh(cluster, store, state, rules, step, requests).await?,
            None => InstanceView::AllNodes,
        };
        load::load_overlap_rows(store, state, step, requests).await?;
        Ok(view)
    }

    fn refuse(&mut self, requests: Vec<PendingRequest>, error: StoreError) -> StepFailure {
        act::refuse(requests, &mut self.state, &self.publisher, error)
    }

    fn abort(&mut self, step: Step, error: StoreError) -> StepFailure {
        act::abort(step, &mut self.state, &mut self.rules, &self.publisher, error)
    }

    /// Reads the store for the first time, and decides about the runs that a crash or an expired node has left in flight.
    /// `why` is the text in the ledger for a lost run.
    pub async fn recover(&mut self, now: Timestamp, why: &str) -> Result<Recovered, StoreError> {
        let mut retries = ConflictRetries::default();
        loop {
            // Nodes that start at the same time decide about the same runs. The next try finds what is left.
            let result = self.recover_first(now, why).await;
            if !retries.go_on(&result) {
                return result;
            }
        }
    }

    async fn recover_first(&mut self, now: Timestamp, why: &str) -> Result<Recovered, StoreError> {
        if self.cluster.is_some() {
            self.renew_lease(now).await?;
        } else {
            self.state.pause = self.store.pause().await?.map(Arc::new);
        }
        recovery::learn_recorded(&self.store, &mut self.state).await?;
        let recovered = match self.recover_gone(now, why).await {
            // A node that started at the same moment was faster. The next renewal of the lease decides about the rest.
            Err(StoreError::Conflict(_)) if self.cluster.is_some() => Recovered::default(),
            recovered => recovered?,
        };
        self.state.is_stale = true;
        Ok(recovered)
    }

    /// Decides about the runs in flight that no live node holds.
    async fn recover_gone(&mut self, now: Timestamp, why: &str) -> Result<Recovered, StoreError> {
        let me = Arc::clone(self.state.node());
        let Self { store, executor, rules, state, .. } = self;
        recovery::recover(store, executor, rules, state, now, Holder::Gone { but: &me }, why).await
    }

    /// Gives up the lease of this node, so that the other nodes need not wait for its end.
    pub async fn leave(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let Self { store, rules, state, cluster, .. } = self;
        let Some(cluster) = cluster else { return Ok(()) };
        let mut retries = ConflictRetries::default();
        loop {
            // Another node may remove an expired node at the same moment.
            let result = lease::give_up(cluster, store, rules, state, now).await;
            if retries.go_on(&result) {
                continue;
            }
            return match result {
                // Then the others notice when the lease ends.
                Err(StoreError::Conflict(_)) => Ok(()),
                result => result,
            };
        }
    }

    /// Makes the last writes of a scheduler whose executor is stopped: it records what has ended and what was interrupted,
    /// and gives up the lease. It can be called again after an error.
    pub async fn finish(
        &mut self,
        now: Timestamp,
        completions: Vec<Completion>,
    ) -> Result<Recovered, StoreError> {
        self.save_outputs(Saving::All);
        self.tick(now, Vec::new(), completions).await?;
        while self.state.bisection.has_groups() {
            self.tick(now, Vec::new(), Vec::new()).await?;
        }
        let recovered = self.recover_own(now).await?;
        self.leave(now).await?;
        Ok(recovered)
    }

    /// Decides about the runs of this node that its stop has interrupted.
    async fn recover_own(&mut self, now: Timestamp) -> Result<Recovered, StoreError> {
        let me = Arc::clone(self.state.node());
        let (holder, why) = (Holder::Node(&me), NOT_WAITED_FOR);
        let Self { store, executor, rules, state, .. } = self;
        let mut retries = ConflictRetries::default();
        let recovered = loop {
            // Another node may take a run over meanwhile; the others are still to be decided about.
            let result = recovery::recover(store, executor, rules, state, now, holder, why).await;
            if !retries.go_on(&result) {
                break result?;
            }
        };
        state.executions.started.clear();
        state.executions.completions.clear();
        Ok(recovered)
    }

    /// A step was dropped before it ended, so it is unknown whether it was written.
    pub fn forget_step(&mut self) {
        self.doubt_memory();
        self.publisher.set_next_wake(None);
        self.publisher.pulse.step_ends();
    }
}
