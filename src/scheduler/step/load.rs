//! First phase: reads from the store what a step must know before it decides. These are the jobs and runs that requests
//! name, the jobs that are due, and the ledger rows that overlaps may extend.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Step;
use crate::clock::Timestamp;
use crate::executor::Executor;
use crate::job::admission::Rules;
use crate::job::{Job, JobId, JobState};
use crate::run::{Execution, RunId, SkipReason};
use crate::scheduler::cluster::{Cluster, fetch_window};
use crate::scheduler::log::Note;
use crate::scheduler::request::PendingRequest;
use crate::scheduler::state::due_cache::FetchWindow;
use crate::scheduler::state::{Phase, SchedulerState};
use crate::store::{Claim, ScheduledJob, Store, StoreError};

/// Jobs that one step looks at after a correction of the clock: a few milliseconds of its time.
const CORRECTED_PER_STEP: usize = 200;

/// Turns a rejection into an outage for a query that contains no value of an input, so that no input is searched for the
/// value that was refused.
pub(crate) fn not_of_input(error: StoreError) -> StoreError {
    match error {
        StoreError::Rejected(why) => StoreError::Unavailable(why),
        error => error,
    }
}

/// Starts a step with the jobs and runs that its requests name, and with the jobs whose hooks depend on how their last
/// run ended.
pub(crate) async fn start_step<S: Store>(
    store: &S,
    state: &mut SchedulerState,
    now: Timestamp,
    requests: &[PendingRequest],
) -> Result<Step, StoreError> {
    let is_over = state.phase == Phase::Firing
        && state.pause.as_ref().is_some_and(|pause| pause.is_over(now));
    if is_over || requests.iter().any(|pending| pending.request.pauses_scheduler()) {
        // Another node may have paused or resumed the scheduler since the lease was renewed.
        state.pause = store.pause().await?.map(Arc::new);
    }
    let mut step = Step::new(now, Arc::clone(state.node()), state.pause.clone());
    let ids: BTreeSet<JobId> =
        requests.iter().flat_map(|pending| pending.request.jobs()).cloned().collect();
    add_jobs(store, &mut step, ids).await?;
    let ids: BTreeSet<RunId> =
        requests.iter().filter_map(|pending| pending.request.run()).cloned().collect();
    if !ids.is_empty() {
        let ids: Vec<RunId> = ids.into_iter().collect();
        step.add_loaded_runs(store.load_runs(&ids).await?);
    }
    step.dated_back = state.clock.dated_back;
    Ok(step)
}

async fn add_jobs<S: Store>(
    store: &S,
    step: &mut Step,
    ids: BTreeSet<JobId>,
) -> Result<(), StoreError> {
    if ids.is_empty() {
        return Ok(());
    }
    let ids: Vec<JobId> = ids.into_iter().collect();
    for job in store.load_jobs(&ids).await? {
        step.add_loaded(&Arc::new(job));
    }
    Ok(())
}

/// Adds the jobs of ended attempts whose hooks depend on whether the run before has failed.
pub(crate) async fn load_failing<S: Store>(
    store: &S,
    state: &SchedulerState,
    step: &mut Step,
    executions: &[Execution],
) -> Result<(), StoreError> {
    let jobs = executions.iter().filter_map(|(run_id, _)| state.capacity.job_of(run_id));
    let jobs = jobs.filter(|job| job.policy.needs_last_outcome());
    add_jobs(store, step, jobs.map(|job| job.id.clone()).collect()).await
}

/// The next jobs to look at, if the clock was corrected.
pub(crate) async fn load_corrected<S: Store>(
    store: &S,
    state: &mut SchedulerState,
    cluster: Option<&Cluster>,
    now: Timestamp,
) -> Result<Option<Vec<ScheduledJob>>, StoreError> {
    let nodes = cluster.map_or(&[][..], |cluster| cluster.peers.nodes());
    state.clock.observe(now, &state.identity.node, nodes);
    if !state.clock.is_under_way() || state.phase == Phase::Draining {
        return Ok(None);
    }
    store.scheduled_jobs(state.clock.looked_at.as_ref(), CORRECTED_PER_STEP).await.map(Some)
}

/// Fills the cache with the jobs that are due, for each pool whose queue takes more runs.
pub(crate) async fn load_due<S: Store, X: Executor>(
    store: &S,
    executor: &mut X,
    rules: &Rules,
    state: &mut SchedulerState,
    cluster: Option<&Cluster>,
    step: &mut Step,
    requests: &[PendingRequest],
) -> Result<(), StoreError> {
    step.open_pools = state.capacity.open_pools();
    if !state.will_fire(step.pause().is_some(), requests) {
        return Ok(());
    }
    for pool in &step.open_pools.clone() {
        if !state.due_cache.needs_fetch(pool, step.now) {
            continue;
        }
        let window = match cluster {
            Some(_) => fetch_window(rules, pool, step.now),
            None => FetchWindow::default(),
        };
        let claim = Claim {
            node: state.node(),
            until: window.until.unwrap_or(Timestamp::MAX_UTC),
            executors: std::slice::from_ref(pool),
            limit: window.limit,
            live: &cluster.map(Cluster::live).unwrap_or_default(),
        };
        let jobs = store.claim_jobs(claim).await?;
        for job in &jobs {
            executor.note_secrets(job);
        }
        for job in state.due_cache.fill(pool, window, jobs) {
            mark_broken(step, job);
        }
    }
    Ok(())
}

/// Marks a job that cannot be read as broken.
fn mark_broken(step: &mut Step, job: Job) {
    if step.writes(&job.id) {
        return;
    }
    if let JobState::Broken { reason, .. } = &job.state {
        step.notes.push(Note::Broken { job: job.id.clone(), reason: reason.clone() });
        step.add_loaded(&Arc::new(job.clone()));
        // Advancing a job leaves the part of its row that was not understood as it is.
        step.advance(Job { updated_at: step.now, ..job });
    }
}

/// Reads the ledger rows that overlaps of this step may extend.
pub(crate) async fn load_overlap_rows<S: Store>(
    store: &S,
    state: &mut SchedulerState,
    step: &Step,
    requests: &[PendingRequest],
) -> Result<(), StoreError> {
    if !state.will_fire(step.pause().is_some(), requests) {
        return Ok(());
    }
    let is_unknown = |job: &&Arc<Job>| {
        !job.trigger.is_one_shot()
            && !state.capacity.accepts_instance(job)
            && state.overlap_rows.of(job).is_none()
    };
    let due = state.due_jobs(&step.open_pools, step.now);
    let unknown: Vec<Arc<Job>> = due.filter(is_unknown).cloned().collect();
    if !unknown.is_empty() {
        for row in store.latest_skips(&unknown, SkipReason::Overlap).await? {
            state.overlap_rows.remember(Arc::new(row));
        }
    }
    Ok(())
}
