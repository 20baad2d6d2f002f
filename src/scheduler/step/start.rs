//! Gives waiting runs the free workers.

use std::sync::Arc;

use serde_json::Value;

use super::Step;
use super::complete;
use super::context::StepContext;
use crate::executor::{Assignment, HeartbeatEvent};
use crate::job::Job;
use crate::job::admission::Rules;
use crate::run::{Cause, HookEvent, Run, SkipReason};
use crate::scheduler::hooks::{self, HOOK_TIMEOUT};
use crate::scheduler::plan;
use crate::scheduler::state::capacity::{InstanceView, WaitingRun};
use crate::scheduler::state::{Phase, SchedulerState};

/// Starts waiting runs, as many as there are workers. A run that has waited too long is skipped instead.
pub(crate) fn start_waiting(
    step: &mut Step,
    state: &mut SchedulerState,
    rules: &mut Rules,
    view: InstanceView,
) {
    if state.phase != Phase::Firing {
        return;
    }
    loop {
        let startable = state.capacity.take_startable(view);
        if startable.is_empty() {
            break;
        }
        for waiting in startable {
            if let Some(run) = start(&mut StepContext::new(step, state, rules), waiting) {
                state.executions.started.insert(run.execution(), run);
            }
        }
    }
    if state.is_shared {
        state.capacity.require_cluster_check();
    }
}

/// Starts a run, and returns it; `None` if it is too late for it.
fn start(context: &mut StepContext<'_>, waiting: WaitingRun) -> Option<Arc<Run>> {
    let WaitingRun { mut run, job, needs_cluster_check, event } = waiting;
    let now = context.step.now;
    // A run that had begun when its node died is not missed: it is run again.
    let is_first = run.scheduled_at.is_some() && run.attempt == 1;
    if is_first && plan::is_missed(&job, run.due_at, now) {
        context.capacity.free(&run.id, None);
        Arc::make_mut(&mut run).skip(now, SkipReason::Missed);
        context.step.update_run(Arc::clone(&run));
        complete::create_hook_run(context, &job, HookEvent::Missed, &run, None);
        return None;
    }
    // A hook run is no instance of its job. The job may be removed by now, and must not come back.
    if needs_cluster_check && event.is_none() && !context.step.writes(&job.id) {
        // If two nodes start a run of the same job at the same time, both change its revision, and one of them fails.
        let fresh = context.step.job(&job.id).unwrap_or(&job).as_ref().clone();
        context.step.advance(fresh);
    }
    if run.attempt == 1 {
        complete::send_heartbeat(context, &job, &run, HeartbeatEvent::Start, String::new());
    }
    Arc::make_mut(&mut run).start(now);
    context.step.update_run(Arc::clone(&run));
    let assignment = assignment(&run, &job, event, context.rules);
    context.step.starts.push((run.executor.clone(), assignment));
    Some(run)
}

/// What the executor needs to know of a run. `event` is what a hook run reports.
pub(crate) fn assignment(
    run: &Run,
    job: &Job,
    event: Option<Arc<Value>>,
    rules: &Rules,
) -> Assignment {
    let (task, timeout) = match &run.cause {
        Cause::Event { event, .. } => (hooks::task(job, *event), Some(HOOK_TIMEOUT)),
        Cause::Schedule | Cause::Manual => {
            (None, job.policy.timeout.and_then(|timeout| timeout.to_std().ok()))
        }
    };
    let task = task.unwrap_or(&job.task);
    let checked = rules.check_secrets(job, task).map_err(|invalid| invalid.within("task"));
    Assignment {
        forbidden: checked.err().map(|invalid| invalid.to_string()),
        run_id: run.id.clone(),
        job_id: run.job_id.clone(),
        attempt: run.attempt,
        scheduled_at: run.scheduled_at,
        task: Arc::clone(task),
        timeout,
        event,
    }
}
