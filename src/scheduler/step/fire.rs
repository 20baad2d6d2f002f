//! Turns occurrences that are due into runs that wait for a worker, or into ledger rows that say why they are skipped.
//!
//! Where as many runs of a job as `max_instances` are in flight, `overlap` decides. With `"skip"` (and beyond the limit of
//! `"queue"`) the occurrences are skipped; those that follow each other share one row, so that a job that hangs for a day
//! leaves one row. With `"replace"` older runs give way: waiting ones are skipped, running ones are cancelled, and the new
//! run waits for their end.

use std::sync::Arc;

use super::Step;
use super::complete;
use super::context::StepContext;
use super::pause::end_pause;
use crate::job::admission::Rules;
use crate::job::{Job, JobState, Overlap};
use crate::run::{Cause, HookEvent, Run, RunState, SkipReason};
use crate::scheduler::log::Note;
use crate::scheduler::plan::{self, InstanceLimit, Plan, Skipped};
use crate::scheduler::state::capacity::WaitingRun;
use crate::scheduler::state::{Phase, SchedulerState};
use crate::store::Change;

/// Why a run was cancelled, in the ledger, if a newer run has replaced it.
const REPLACED: &str = "replaced by a newer run of the job";

/// Fires the jobs that are due, and lets those go on whose pause is over: they fire in the next step, if they are due.
pub(crate) fn fire_due(step: &mut Step, state: &mut SchedulerState, rules: &mut Rules) {
    if state.phase != Phase::Firing || step.pause().is_some() {
        return;
    }
    let due = state.due_jobs(&step.open_pools, step.now).take(state.bisection.fire_most());
    for job in due.cloned().collect::<Vec<_>>() {
        // A job that this step has changed already waits for the next step.
        if step.writes(&job.id) {
            continue;
        }
        if matches!(job.state, JobState::Paused { .. }) {
            end_pause(step, state, rules, &job);
            step.fired.push(job.id.clone());
        } else if state.capacity.accepts_due_run(&job.executor) {
            fire(step, state, rules, &job);
            step.fired.push(job.id.clone());
        }
    }
}

fn fire(step: &mut Step, state: &mut SchedulerState, rules: &mut Rules, job: &Arc<Job>) {
    step.add_loaded(job);
    let refused = state.bisection.refused_job(&job.id);
    let cannot = rules.can_run(job).err().map(|invalid| invalid.to_string());
    if let Some(reason) = cannot.or(refused) {
        step.notes.push(Note::Broken { job: job.id.clone(), reason: reason.clone() });
        let state = job.state.broken(reason);
        step.put(Job { state, updated_at: step.now, ..(**job).clone() });
        return;
    }
    let has_free_instance = state.capacity.has_free_instance(job);
    let limit = if state.capacity.accepts_instance(job) {
        InstanceLimit::Open
    } else {
        InstanceLimit::Reached
    };
    let Plan { runs, skipped, next } = plan::plan(job, step.now, limit);
    let context = &mut StepContext::new(step, state, rules);
    replace_older_runs(context, job, runs.len());
    for skipped in skipped {
        if let Some(run) = skip(context, job, skipped)
            && skipped.reason == SkipReason::Missed
        {
            complete::create_hook_run(context, job, HookEvent::Missed, &run, None);
        }
    }
    let run_count = job.run_count.saturating_add(u64::try_from(runs.len()).unwrap_or(0));
    let needs_cluster_check = context.is_shared && (!has_free_instance || runs.len() > 1);
    for due in runs {
        let run = context.pending_run(job, Cause::Schedule, Some(due.scheduled_at), due.due_at);
        let (run, job) = (Arc::new(run), Arc::clone(job));
        context.step.insert_run(Arc::clone(&run));
        let waiting = WaitingRun { run, job, needs_cluster_check, event: None };
        context.capacity.wait(waiting, context.step.now);
    }
    let (state, updated_at) = match next {
        Some(next) => (JobState::Active { next }, job.updated_at),
        None => (JobState::Finished, step.now),
    };
    step.advance(Job { state, run_count, updated_at, ..(**job).clone() });
}

/// Records skipped occurrences. Returns the ledger row if it is a new one.
fn skip(context: &mut StepContext<'_>, job: &Job, skipped: Skipped) -> Option<Arc<Run>> {
    let is_overlap = skipped.reason == SkipReason::Overlap;
    if is_overlap
        && let Some(row) = context.overlap_rows.of(job).filter(|row| precedes(row, job, skipped))
        && let Some(row) = context.step.extend_skipped(row, skipped.span)
    {
        context.overlap_rows.remember(row);
        return None;
    }
    let (reason, count) = (skipped.reason, skipped.span.count);
    context.step.notes.push(Note::Skipped { job: job.id.clone(), reason, count });
    let row = context.add_skipped(job, skipped);
    if is_overlap {
        context.overlap_rows.remember(Arc::clone(&row));
    }
    Some(row)
}

/// Whether no occurrence of the job lies between a row and the occurrences that are skipped now.
fn precedes(row: &Run, job: &Job, skipped: Skipped) -> bool {
    let RunState::Skipped { last_scheduled_at, .. } = row.state else { return false };
    job.trigger.next_after(last_scheduled_at) == Some(skipped.span.first)
}

/// With `overlap = "replace"`, lets older runs of the job give way to this many new ones.
pub(crate) fn replace_older_runs(context: &mut StepContext<'_>, job: &Job, incoming: usize) {
    let replaces = job.policy.overlap == Overlap::Replace;
    if !replaces || incoming == 0 || context.capacity.has_free_instance(job) {
        return;
    }
    for waiting in context.capacity.take_waiting(&job.id) {
        complete::withdraw(context, waiting, SkipReason::Overlap);
    }
    let (here, all) = context.capacity.running_of(job);
    let allowed = usize::try_from(job.policy.max_instances).unwrap_or(usize::MAX);
    let surplus = all.saturating_add(incoming).saturating_sub(allowed);
    for run_id in here.iter().take(surplus) {
        context.step.cancels.push((run_id.clone(), REPLACED.to_owned()));
    }
    if surplus > here.len() {
        let (job_id, reason) = (job.id.clone(), REPLACED.to_owned());
        let except_node = context.node();
        context.step.push(Change::CancelJobRuns { job_id, reason, except_node });
    }
}
