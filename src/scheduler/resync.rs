//! Rebuilds memory from the ledger after a write may or may not have happened, or another node was faster.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::hooks;
use super::recovery::jobs_of;
use super::state::capacity::{Capacity, WaitingRun};
use super::state::{Phase, SchedulerState};
use super::step::is_run_of;
use super::step::start::assignment;
use crate::clock::Timestamp;
use crate::executor::Executor;
use crate::job::admission::Rules;
use crate::job::{Job, JobId};
use crate::output::Output;
use crate::run::{Cause, Cost, Execution, Outcome, Run, RunId, RunState, SkipReason};
use crate::store::{Change, Holder, Store, StoreError};

/// What runs in flight need to go on.
#[derive(Debug)]
struct Needed {
    jobs: BTreeMap<JobId, Arc<Job>>,
    /// The runs that hook runs report, and their outputs.
    subjects: BTreeMap<RunId, Run>,
    outputs: BTreeMap<RunId, Output>,
}

/// Rebuilds what is in flight, and empties the caches.
pub(super) async fn resync<S: Store, X: Executor>(
    store: &S,
    executor: &mut X,
    rules: &Rules,
    state: &mut SchedulerState,
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut runs = store.runs_in_flight(Holder::Node(state.node())).await?;
    let needed = load_needed(store, &runs).await?;
    runs.sort_by_key(|run| run.due_at);
    let mut capacity = Capacity::new(&rules.executors, rules.max_crashes, state.is_shared);
    let mut changes = Vec::new();
    let mut unstarted = Vec::new();
    let mut started = BTreeMap::new();
    let own_change = |run: Run| Change::UpdateRun {
        held_by: Arc::clone(&state.identity.node),
        run: Arc::new(run),
    };
    for mut run in runs {
        let waiting = waiting(&run, &needed, rules, state.is_shared);
        match (&run.state, waiting) {
            (RunState::Running { .. }, waiting)
                if state.executions.started.contains_key(&run.execution()) =>
            {
                capacity.restore_started(&run, waiting.as_ref());
                started.insert(run.execution(), Arc::new(run));
            }
            // Nothing is started any more: the end of the stop decides about it.
            (RunState::Running { .. }, Some(_)) if state.phase == Phase::Draining => {}
            (RunState::Running { .. }, Some(waiting)) => {
                capacity.restore_started(&run, Some(&waiting));
                unstarted.push(waiting);
            }
            (RunState::Running { started_at }, None) => {
                let started_at = *started_at;
                let lost = Outcome::Lost { error: "its job is gone".to_owned() };
                run.end(started_at, now, lost, Cost::default());
                changes.push(own_change(run));
            }
            // Its row was not understood: it ends as what it was read as.
            (RunState::Ended { .. } | RunState::Skipped { .. }, _) => {
                changes.push(own_change(run));
            }
            (RunState::Pending, Some(waiting)) => capacity.wait(waiting, now),
            (RunState::Pending, None) => {
                run.skip(now, SkipReason::Removed);
                changes.push(own_change(run));
            }
        }
    }
    if !changes.is_empty() {
        store.commit(changes).await?;
    }
    abandon(executor, state, &started, &mut capacity);
    state.executions.started = started;
    for WaitingRun { run, job, event, .. } in unstarted {
        // It was marked as running by a write whose answer was lost, so it was certainly not started.
        executor.start(&run.executor, assignment(&run, &job, event, rules));
        state.executions.started.insert(run.execution(), run);
    }
    state.capacity = capacity;
    state.due_cache.clear();
    state.overlap_rows.clear();
    state.is_stale = false;
    Ok(())
}

/// On a single-node store, reads whether the scheduler is paused. If the last step failed, it proves first that the store
/// can be written, because a full disk can be read. On a shared store the renewal of the lease does both.
pub(super) async fn check_single_node<S: Store>(
    store: &S,
    state: &mut SchedulerState,
    has_failed: bool,
    now: Timestamp,
) -> Result<(), StoreError> {
    if has_failed {
        let view = store.renew_lease(state.node(), state.identity.started_at, now).await?;
        store.remove_nodes(&view.nodes).await?;
    }
    state.pause = store.pause().await?.map(Arc::new);
    Ok(())
}

async fn load_needed<S: Store>(store: &S, runs: &[Run]) -> Result<Needed, StoreError> {
    let subjects = runs.iter().filter_map(|run| match &run.cause {
        Cause::Event { subject, .. } => Some(subject.clone()),
        Cause::Schedule | Cause::Manual => None,
    });
    let subjects: Vec<RunId> = subjects.collect();
    let subjects =
        if subjects.is_empty() { Vec::new() } else { store.load_runs(&subjects).await? };
    let mut outputs = BTreeMap::new();
    for run in &subjects {
        if let Some(output) = store.load_output(&run.id, run.attempt).await? {
            outputs.insert(run.id.clone(), output);
        }
    }
    let subjects = subjects.into_iter().map(|run| (run.id.clone(), run)).collect();
    Ok(Needed { jobs: jobs_of(store, runs).await?, subjects, outputs })
}

/// A run with what it needs to go on; `None` if that does not exist any more.
fn waiting(run: &Run, needed: &Needed, rules: &Rules, is_shared: bool) -> Option<WaitingRun> {
    let job = needed.jobs.get(&run.job_id).filter(|job| is_run_of(job, run))?;
    if !rules.executors.contains_key(&run.executor) {
        return None;
    }
    let event = match &run.cause {
        Cause::Event { event, subject } => {
            hooks::task(job, *event)?;
            let output = needed.outputs.get(subject);
            let subject = needed.subjects.get(subject)?;
            let output = output.map(hooks::output_tail).unwrap_or_default();
            Some(Arc::new(hooks::event(job, *event, subject, &output)))
        }
        Cause::Schedule | Cause::Manual => None,
    };
    let (run, job) = (Arc::new(run.clone()), Arc::clone(job));
    Some(WaitingRun { run, job, needs_cluster_check: is_shared, event })
}

/// Cancels runs that this process executes and no longer holds. They keep their workers until they end.
fn abandon<X: Executor>(
    executor: &mut X,
    state: &mut SchedulerState,
    held: &BTreeMap<Execution, Arc<Run>>,
    capacity: &mut Capacity,
) {
    let executions = &mut state.executions;
    for (execution, run) in std::mem::take(&mut executions.started) {
        // A run whose completion is here was recorded: only the answer of that write was lost.
        if held.contains_key(&execution) || executions.completions.contains_key(&execution) {
            continue;
        }
        tracing::warn!(job = %run.job_id, run = %run.id, "another node has taken the run over; it is cancelled here");
        executor.cancel(&run.id, "another node has taken it over");
        executions.abandoned.insert(execution, run);
    }
    executions.abandoned.values().for_each(|run| capacity.add_abandoned(run));
}
