//! The phases after the decision. When the step is committed, its runs are started and its lines are logged; when it could
//! not be committed, what it changed in memory is undone.

use tokio::sync::oneshot;

use super::redefine::is_replaceable;
use super::{Step, StepFailure, StepReply};
use crate::executor::Executor;
use crate::job::admission::Rules;
use crate::job::{JobId, OnFinish};
use crate::run::Execution;
use crate::scheduler::log::{self, Note};
use crate::scheduler::publisher::Publisher;
use crate::scheduler::request::{PendingRequest, Request, RequestError};
use crate::scheduler::state::SchedulerState;
use crate::scheduler::status::WriteCounts;
use crate::store::StoreError;

/// Steps in a row that may fail because other nodes were faster. Each of those nodes has made progress, so more failures
/// than this are a fault, and are treated as one.
pub(crate) const CONFLICTS_MAX: u32 = 10;
/// Finished jobs that one step removes, so that it stays short.
const REMOVALS_PER_STEP: usize = 500;

/// Updates memory after the commit of a step that has recorded the ends of these attempts.
pub(crate) fn remember(
    step: &mut Step,
    state: &mut SchedulerState,
    written: WriteCounts,
    has_time: bool,
    executions: &[Execution],
) {
    state.written = written;
    let page = step.corrected.take();
    state.clock.committed(step.now, page, step.dated_back, has_time);
    for execution in executions {
        state.executions.completions.remove(execution);
    }
    state.bisection.recorded(executions);
    state.conflicts = 0;
}

/// Carries out a committed step. Returns the answers to send.
pub(crate) fn act<X: Executor>(
    mut step: Step,
    state: &mut SchedulerState,
    rules: &Rules,
    executor: &mut X,
) -> Vec<StepReply> {
    state.pause = step.pause().cloned();
    for execution in &step.recorded {
        state.executions.started.remove(execution);
    }
    for (execution, output) in &step.saved {
        executor.output_saved(execution, output, step.now);
    }
    step.notes.iter().for_each(Note::log);
    step.notes
        .iter()
        .filter_map(Note::retried_run)
        .for_each(|run| state.metrics.attempt_failed(run));
    for run in &step.ended {
        log::run_ended(run);
        state.metrics.run_ended(run);
    }
    state.metrics.skipped(&step.skipped);
    if step.former_rules.is_some() {
        executor.resize(&rules.executors);
        state.metrics.add_pools(rules.executors.keys());
    }
    for (id, job) in step.take_written() {
        let Some(job) = job else {
            state.due_cache.remove(&id);
            state.metrics.job_removed(&id);
            continue;
        };
        executor.note_secrets(&job);
        state.metrics.job_written(&job);
        if is_replaceable(&job) && job.policy.on_finish == Some(OnFinish::Remove) {
            state.finished.insert(id);
        }
        state.due_cache.put(job);
    }
    request_removals(state);
    for (pool, assignment) in step.starts {
        executor.start(&pool, assignment);
    }
    step.heartbeats.into_iter().for_each(|heartbeat| executor.send_heartbeat(heartbeat));
    for (run_id, reason) in step.cancels {
        executor.cancel(&run_id, &reason);
    }
    step.replies
}

/// Removes the finished jobs whose last run has ended. This is a request of the next step, which reads the jobs as the
/// store has them.
fn request_removals(state: &mut SchedulerState) {
    let capacity = &state.capacity;
    let over = state.finished.extract_if(.., |id| !capacity.has_in_flight(id));
    let over: Vec<JobId> = over.take(REMOVALS_PER_STEP).collect();
    if !over.is_empty() {
        let (reply, _) = oneshot::channel();
        state.deferred.push(PendingRequest::new(Request::RemoveFinished(over), reply));
    }
}

/// Gives up a step that could not be committed. Memory is stale from now on. The requests are made again if another node
/// was faster or the database refuses a value, and are answered with the error otherwise.
pub(crate) fn abort(
    step: Step,
    state: &mut SchedulerState,
    rules: &mut Rules,
    publisher: &Publisher,
    error: StoreError,
) -> StepFailure {
    state.is_stale = true;
    if let Some(former) = step.former_rules {
        *rules = former;
    }
    for (_, assignment) in &step.starts {
        state.executions.started.remove(&assignment.execution());
    }
    let requests = step.requests.into_iter().zip(step.replies);
    let requests = if may_be_retried(state, &error) {
        requests.map(|(request, reply)| PendingRequest::new(request, reply.to)).collect()
    } else {
        publisher.publish_error(&error);
        for (request, StepReply { to, answer }) in requests {
            state.keep_removals(&request);
            let unavailable = RequestError::Unavailable(error.to_string());
            drop(to.send(answer.and(Err(unavailable))));
        }
        Vec::new()
    };
    let saved = step.saved.into_iter().map(|(execution, _)| execution).collect();
    StepFailure { error, requests, fired: step.fired, saved }
}

/// Gives up requests whose step could not be decided.
pub(crate) fn refuse(
    requests: Vec<PendingRequest>,
    state: &mut SchedulerState,
    publisher: &Publisher,
    error: StoreError,
) -> StepFailure {
    let (fired, saved) = (Vec::new(), Vec::new());
    if may_be_retried(state, &error) {
        return StepFailure { error, requests, fired, saved };
    }
    publisher.publish_error(&error);
    for PendingRequest { request, reply } in requests {
        state.keep_removals(&request);
        drop(reply.send(Err(RequestError::Unavailable(error.to_string()))));
    }
    StepFailure { error, requests: Vec::new(), fired, saved }
}

/// Whether requests are made again at once: another node was faster, or the database refuses a value.
fn may_be_retried(state: &SchedulerState, error: &StoreError) -> bool {
    match error {
        StoreError::Conflict(_) => state.is_shared && state.conflicts < CONFLICTS_MAX,
        StoreError::Rejected(_) => true,
        StoreError::Unavailable(_) | StoreError::Unusable(_) | StoreError::Refused(_) => false,
    }
}
