//! Records what has ended. The end of an attempt leads to another attempt, or to the end of its run with the job's hooks
//! and heartbeat. Requests to cancel a run are here too.
//!
//! A hook is a run of its own in the ledger, created in the transaction that records the end which it reports. So a crash
//! can neither lose nor double it.

use std::sync::Arc;

use super::context::StepContext;
use super::{Step, is_run_of};
use crate::executor::{Completion, Executor, Heartbeat, HeartbeatEvent};
use crate::job::Job;
use crate::job::admission::Rules;
use crate::output::Output;
use crate::run::{Cause, Execution, HookEvent, Outcome, Run, RunId, RunState, SkipReason};
use crate::scheduler::log::Note;
use crate::scheduler::request::{RequestError, Response};
use crate::scheduler::state::SchedulerState;
use crate::scheduler::state::capacity::{FreedRun, WaitingRun, is_instance};
use crate::scheduler::{hooks, retry};
use crate::store::Change;

/// Why a run was cancelled, in the ledger, if the request gives no reason.
const CANCELLED: &str = "cancelled on request";
/// Lines from the end of an output that a heartbeat contains.
const HEARTBEAT_LINES: usize = 50;

/// Records the ends of these attempts.
pub(crate) fn record_ends(
    step: &mut Step,
    state: &mut SchedulerState,
    rules: &mut Rules,
    executions: &[Execution],
) {
    let mut known = std::mem::take(&mut state.executions);
    let mut context = StepContext::new(step, state, rules);
    for execution in executions {
        let Some(completion) = known.completions.get(execution) else { continue };
        if let Some(run) = known.started.get(execution) {
            let took = completion.finished_at - completion.started_at;
            let freed = context.capacity.free(&run.id, Some(took));
            end_attempt(&mut context, run, freed, completion);
        } else if known.abandoned.remove(execution).is_some() {
            context.capacity.remove_abandoned(execution);
        }
    }
    state.executions = known;
}

/// Cancels runs that other nodes have asked this one to cancel.
pub(crate) fn cancel_for_others(
    step: &mut Step,
    state: &mut SchedulerState,
    rules: &mut Rules,
    asked: Vec<(RunId, String)>,
) {
    let context = &mut StepContext::new(step, state, rules);
    for (run_id, reason) in asked {
        // A running attempt is asked again at each renewal of the lease until it has ended; nobody waits for the answer.
        if context.capacity.is_running(&run_id) {
            context.step.cancels.push((run_id, reason));
        } else {
            drop(cancel(context, &run_id, Some(reason)));
        }
    }
}

/// Saves what running attempts have written so far, if it is time, so that a crash of the daemon does not lose it. The
/// store leaves out an attempt that another node has taken over, so this never makes a step fail.
pub(crate) fn save_outputs<X: Executor>(
    step: &mut Step,
    state: &mut SchedulerState,
    executor: &mut X,
) {
    let Some(saving) = state.to_save.take() else { return };
    for (execution, output) in executor.unsaved_outputs(step.now, saving) {
        // An attempt that has ended saves its output with its end.
        let goes_on = state.executions.started.contains_key(&execution)
            && !state.executions.completions.contains_key(&execution);
        if goes_on && state.bisection.may_save(&execution) {
            let (run_id, attempt) = execution.clone();
            let held_by = Arc::clone(state.node());
            let change =
                Change::SavePartialOutput { run_id, attempt, output: Arc::clone(&output), held_by };
            step.push(change);
            step.saved.push((execution, output));
        }
    }
}

fn end_attempt(
    context: &mut StepContext<'_>,
    run: &Run,
    FreedRun { job, event }: FreedRun,
    completion: &Completion,
) {
    let mut run = run.clone();
    let step = &mut *context.step;
    step.recorded.push(run.execution());
    let Completion { started_at, finished_at, outcome, cost, .. } = completion;
    run.end(*started_at, *finished_at, outcome.clone(), *cost);
    if !completion.output.is_empty() {
        let (run_id, output) = (run.id.clone(), Arc::clone(&completion.output));
        step.push(Change::PutOutput { run_id, attempt: run.attempt, output });
    }
    let now = step.now;
    let retry_at = job.as_ref().and_then(|job| retry::next_attempt(job, &run, now));
    if let (Some(job), Some(due_at)) = (&job, retry_at) {
        step.notes.push(Note::Retried { run: Box::new(run.clone()), at: due_at });
        step.end_attempt(&run);
        run.retry(due_at);
        let run = Arc::new(run);
        step.update_run(Arc::clone(&run));
        let (job, needs_cluster_check) = (Arc::clone(job), context.is_shared);
        context.capacity.wait(WaitingRun { run, job, needs_cluster_check, event }, now);
        return;
    }
    let run = Arc::new(run);
    step.update_run(Arc::clone(&run));
    step.ended.push(Arc::clone(&run));
    if let Some(job) = job {
        report_end(context, &job, &run, &completion.output);
    }
}

/// Creates the hook runs and the heartbeat for the end of a run.
pub(crate) fn report_end(
    context: &mut StepContext<'_>,
    job: &Arc<Job>,
    run: &Run,
    output: &Output,
) {
    create_end_hooks(context, job, run, output);
    send_end_heartbeat(context, job, run, output);
}

/// Skips a waiting run that will not be started any more.
pub(crate) fn withdraw(context: &mut StepContext<'_>, waiting: WaitingRun, reason: SkipReason) {
    let WaitingRun { mut run, job, .. } = waiting;
    Arc::make_mut(&mut run).skip(context.step.now, reason);
    context.step.update_run(Arc::clone(&run));
    if run.attempt > 1 {
        // It was not skipped, since it had begun.
        context.step.ended.push(Arc::clone(&run));
    }
    send_withdrawn_heartbeat(context, &job, &run);
}

/// Cancels a run: at once if it waits, otherwise by asking its executor, which may be on another node.
pub(crate) fn cancel(
    context: &mut StepContext<'_>,
    id: &RunId,
    reason: Option<String>,
) -> Result<Response, RequestError> {
    let reason = reason.unwrap_or_else(|| CANCELLED.to_owned());
    if let Some(WaitingRun { mut run, job, .. }) = context.capacity.take_run(id) {
        Arc::make_mut(&mut run).cancel_pending(context.step.now, reason);
        context.step.update_run(Arc::clone(&run));
        context.step.ended.push(Arc::clone(&run));
        send_withdrawn_heartbeat(context, &job, &run);
        return Ok(Response::Run(run));
    }
    let step = &mut *context.step;
    let ended = step.ended.iter().find(|run| run.id == *id).or(step.run(id));
    let run = ended.cloned().ok_or_else(|| RequestError::NoRun(id.to_string()))?;
    if run.state.is_final() {
        let state = run.state.word();
        return Err(RequestError::RunEnded { id: id.to_string(), state });
    }
    if context.capacity.is_running(id) {
        step.cancels.push((id.clone(), reason));
    } else {
        step.push(Change::CancelRun { run_id: id.clone(), reason });
    }
    Ok(Response::Run(run))
}

fn create_end_hooks(context: &mut StepContext<'_>, job: &Arc<Job>, run: &Run, output: &Output) {
    // A hook run triggers no hooks, or they could go on forever.
    if !is_instance(run) {
        return;
    }
    let RunState::Ended { outcome, .. } = &run.state else { return };
    let event = match outcome {
        Outcome::Succeeded { .. } => HookEvent::Success,
        Outcome::Failed { .. } | Outcome::TimedOut { .. } | Outcome::Lost { .. } => {
            HookEvent::Failure
        }
        Outcome::Cancelled { .. } => return,
    };
    let policy = &job.policy;
    let was_failing =
        policy.needs_last_outcome() && update_is_failing(context, run, event == HookEvent::Failure);
    if event == HookEvent::Failure && policy.on_failure_once && was_failing {
        return;
    }
    create_hook_run(context, job, event, run, Some(output));
    if event == HookEvent::Success && was_failing {
        create_hook_run(context, job, HookEvent::Recovery, run, Some(output));
    }
}

/// Stores in the job whether its last run has failed, if a hook depends on it. Returns whether the run before had failed.
/// On a shared store the job is written in any case: if another node has ended a run of it meanwhile, the revision differs
/// and the step is decided again.
fn update_is_failing(context: &mut StepContext<'_>, run: &Run, fails: bool) -> bool {
    let Some(job) = context.step.job(&run.job_id) else { return false };
    // A job that was not understood stays in the store as it is.
    let is_writable = is_run_of(job, run) && job.unreadable.is_none();
    if !is_writable || !job.policy.needs_last_outcome() {
        return false;
    }
    let job = Arc::clone(job);
    if job.is_failing != fails || context.is_shared {
        context.step.advance(Job { is_failing: fails, ..(*job).clone() });
    }
    job.is_failing
}

/// Creates the hook run that reports `subject`, if the job has a hook for the event.
pub(crate) fn create_hook_run(
    context: &mut StepContext<'_>,
    job: &Arc<Job>,
    event: HookEvent,
    subject: &Run,
    output: Option<&Output>,
) {
    let Some(task) = hooks::task(job, event) else { return };
    let executor = match context.rules.executor_for(None, task) {
        Ok(executor) => executor,
        Err(invalid) => {
            let (job, why, subject) = (job.id.clone(), invalid.to_string(), subject.id.clone());
            context.step.notes.push(Note::NoPoolForHook { job, event, subject, why });
            return;
        }
    };
    let cause = Cause::Event { event, subject: subject.id.clone() };
    let now = context.step.now;
    let run = Run { executor, ..context.pending_run(job, cause, None, now) };
    if !context.capacity.accepts_extra_run(&run.executor) {
        let reason = SkipReason::ExecutorFull;
        let state = RunState::Skipped { reason, last_scheduled_at: now, count: 1 };
        context.step.insert_run(Arc::new(Run { state, ..run }));
        return;
    }
    let run = Arc::new(run);
    context.step.insert_run(Arc::clone(&run));
    let output = output.map(hooks::output_tail).unwrap_or_default();
    let event = Some(Arc::new(hooks::event(job, event, subject, &output)));
    let job = Arc::clone(job);
    context.capacity.wait(WaitingRun { run, job, needs_cluster_check: false, event }, now);
}

/// Sends a heartbeat for a run of the job itself, if the job has a heartbeat URL.
pub(crate) fn send_heartbeat(
    context: &mut StepContext<'_>,
    job: &Job,
    run: &Run,
    event: HeartbeatEvent,
    body: String,
) {
    let Some(url) = &job.policy.heartbeat else { return };
    if is_instance(run) && context.rules.may_beat(job, url) {
        let (job_id, run_id) = (job.id.clone(), run.id.clone());
        context.step.heartbeats.push(Heartbeat { job_id, url: url.clone(), event, run_id, body });
    }
}

/// The heartbeat of a failure contains the error and the end of the output.
fn send_end_heartbeat(context: &mut StepContext<'_>, job: &Job, run: &Run, output: &Output) {
    let RunState::Ended { outcome, .. } = &run.state else { return };
    let (event, body) = match outcome {
        Outcome::Succeeded { .. } => (HeartbeatEvent::Success, String::new()),
        Outcome::Failed { error, .. } | Outcome::TimedOut { error } | Outcome::Lost { error } => {
            let last = output.last_lines(HEARTBEAT_LINES);
            let last = last.iter().map(|line| line.text.as_str());
            let body: Vec<&str> = std::iter::once(error.as_str()).chain(last).collect();
            (HeartbeatEvent::Failure, body.join("\n"))
        }
        // Its work was not done, and a monitor that saw its start expects an end.
        Outcome::Cancelled { reason } => (HeartbeatEvent::Failure, format!("cancelled: {reason}")),
    };
    send_heartbeat(context, job, run, event, body);
}

/// Sends the end of a run that waited for another attempt: its heartbeat has seen the start.
fn send_withdrawn_heartbeat(context: &mut StepContext<'_>, job: &Job, run: &Run) {
    if run.attempt > 1 {
        send_end_heartbeat(context, job, run, &Output::default());
    }
}
