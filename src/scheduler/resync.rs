//! Making memory what the ledger says, whenever a write may or may not have happened.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::recovery::is_of;
use super::state::capacity::{Capacity, WaitingRun};
use super::step::fire::assignment;
use super::step::notify;
use super::{Phase, Scheduler, hooks};
use crate::clock::Timestamp;
use crate::executor::Executor;
use crate::job::{Job, JobId};
use crate::output::Output;
use crate::run::{Cause, Cost, Execution, Outcome, Run, RunId, RunState, SkipReason};
use crate::store::{Change, Holder, Store, StoreError};

/// What a run in flight needs to go on.
#[derive(Debug)]
struct Needed {
    jobs: BTreeMap<JobId, Arc<Job>>,
    /// The runs that others tell of.
    subjects: BTreeMap<RunId, Run>,
    /// What those have written.
    outputs: BTreeMap<RunId, Output>,
}

impl<S: Store, X: Executor> Scheduler<S, X> {
    /// Makes memory what the ledger says, if there is doubt.
    pub(super) async fn resync_if_stale(&mut self, now: Timestamp) -> Result<(), StoreError> {
        if !self.is_stale {
            return Ok(());
        }
        if !self.is_shared {
            self.prove_writable(now).await?;
            self.paused_since = self.store.paused_since().await?;
        }
        let me = Arc::clone(&self.identity.node);
        let mut runs = self.store.runs_in_flight(Holder::Node(&me)).await?;
        let needed = self.needed_by(&runs).await?;
        runs.sort_by_key(|run| run.due_at);
        let mut capacity = Capacity::new(&self.rules, self.is_shared);
        let mut changes = Vec::new();
        let mut unstarted = Vec::new();
        let mut executing = BTreeMap::new();
        for mut run in runs {
            let waiting = self.waiting(&run, &needed);
            match (&run.state, waiting) {
                (RunState::Running { .. }, waiting)
                    if self.executing.contains_key(&run.execution()) =>
                {
                    capacity.restore_started(&run, waiting.as_ref());
                    executing.insert(run.execution(), Arc::new(run));
                }
                // Nothing is started any more: the end of the stop decides about it.
                (RunState::Running { .. }, Some(_)) if self.phase == Phase::Draining => {}
                (RunState::Running { .. }, Some(waiting)) => {
                    capacity.restore_started(&run, Some(&waiting));
                    unstarted.push(waiting);
                }
                (RunState::Running { started_at }, None) => {
                    let started_at = *started_at;
                    let lost = Outcome::Lost { error: "its job is gone".to_owned() };
                    run.end(started_at, now, lost, Cost::default());
                    changes.push(self.own_change(run));
                }
                // Its row was not understood: it ends as what it was read as.
                (RunState::Ended { .. } | RunState::Skipped { .. }, _) => {
                    changes.push(self.own_change(run));
                }
                (RunState::Pending, Some(waiting)) => capacity.wait(waiting, now),
                (RunState::Pending, None) => {
                    run.skip(now, SkipReason::Removed);
                    changes.push(self.own_change(run));
                }
            }
        }
        if !changes.is_empty() {
            self.store.commit(changes).await?;
        }
        self.abandon(&executing, &mut capacity);
        self.executing = executing;
        for WaitingRun { run, job, event, .. } in unstarted {
            // Marked as running by a write whose answer was lost: certainly not started, so it is started now.
            self.executor.start(&run.executor, assignment(&run, &job, event, &self.rules));
            self.executing.insert(run.execution(), run);
        }
        self.capacity = capacity;
        self.due_cache.clear();
        self.overlap_rows.clear();
        self.is_stale = false;
        Ok(())
    }

    async fn needed_by(&self, runs: &[Run]) -> Result<Needed, StoreError> {
        let subjects = runs.iter().filter_map(|run| match &run.cause {
            Cause::Event { subject, .. } => Some(subject.clone()),
            Cause::Schedule | Cause::Manual => None,
        });
        let subjects: Vec<RunId> = subjects.collect();
        let subjects =
            if subjects.is_empty() { Vec::new() } else { self.store.load_runs(&subjects).await? };
        let mut outputs = BTreeMap::new();
        for run in &subjects {
            if let Some(output) = self.store.load_output(&run.id, run.attempt).await? {
                outputs.insert(run.id.clone(), output);
            }
        }
        let subjects = subjects.into_iter().map(|run| (run.id.clone(), run)).collect();
        Ok(Needed { jobs: self.jobs_of(runs).await?, subjects, outputs })
    }

    /// A run with what it needs to go on; none if that is not there any more.
    fn waiting(&self, run: &Run, needed: &Needed) -> Option<WaitingRun> {
        let job = needed.jobs.get(&run.job_id).filter(|job| is_of(job, run))?;
        if !self.rules.executors.contains_key(&run.executor) {
            return None;
        }
        let event = match &run.cause {
            Cause::Event { event, subject } => {
                hooks::task(job, *event)?;
                let output = needed.outputs.get(subject);
                let subject = needed.subjects.get(subject)?;
                let output = output.map(notify::output_tail).unwrap_or_default();
                Some(Arc::new(notify::hook_event(job, *event, subject, &output)))
            }
            Cause::Schedule | Cause::Manual => None,
        };
        let (run, job) = (Arc::new(run.clone()), Arc::clone(job));
        Some(WaitingRun { run, job, needs_cluster_check: self.is_shared, event })
    }

    /// Writes something, if the last step failed: a full disk can be read. On a shared store a sign of life does that.
    async fn prove_writable(&self, now: Timestamp) -> Result<(), StoreError> {
        if self.status.borrow().store_error.is_none() {
            return Ok(());
        }
        let identity = &self.identity;
        let meeting = self.store.heartbeat(&identity.node, identity.started_at, now).await?;
        self.store.remove_nodes(&meeting.nodes).await
    }

    fn own_change(&self, run: Run) -> Change {
        Change::UpdateRun { run: Arc::new(run), held_by: Arc::clone(&self.identity.node) }
    }

    /// Lets go of runs that this process executes and no longer holds. They keep their workers until they end.
    fn abandon(&mut self, held: &BTreeMap<Execution, Arc<Run>>, capacity: &mut Capacity) {
        for (execution, run) in std::mem::take(&mut self.executing) {
            // One whose end is known here has ended: its record was written, and only the answer was lost.
            if held.contains_key(&execution) || self.unrecorded.contains_key(&execution) {
                continue;
            }
            tracing::warn!(job = %run.job_id, run = %run.id, "another node has taken the run over; here it is ended");
            self.executor.cancel(&run.id, "another node has taken it over");
            self.abandoned.insert(execution, run);
        }
        self.abandoned.values().for_each(|run| capacity.add_abandoned(run));
    }
}
