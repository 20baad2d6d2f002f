//! Changes the definition of a job. A patch is applied to the job as it is in the step, so that two patches of different
//! options both count, whatever came in between.

use std::sync::Arc;

use super::context::StepContext;
use super::correct::by_this_clock;
use super::redefine::{declared_in_file, plan_replacement, replace, skip_since, state_after_pause};
use crate::job::{Job, JobState, Origin, Task};
use crate::run::SkipReason;
use crate::scheduler::request::{Modification, Modified, RequestError, Response};

pub(crate) fn modify(
    context: &mut StepContext<'_>,
    modification: Modification,
) -> Result<Response, RequestError> {
    let before = context.find(&modification.base.id)?;
    modification.precondition.check(&before)?;
    if before.origin == Origin::File {
        return Err(declared_in_file(context, &before));
    }
    if let Some(fault) = &before.unreadable {
        // What could not be read would be replaced by a default.
        let state = format!("broken, and has to be defined as a whole: {fault}");
        return Err(RequestError::WrongState { id: before.id.clone(), state });
    }
    let Modification { resumes, dry_run, .. } = modification;
    let patch = Arc::clone(&modification.patch);
    let new = new_definition(context, &before, modification)?;
    let new = by_this_clock(context, new);
    let (mut job, mut held_back) = (before.modified(new, &patch), None);
    if let JobState::Paused { next } = job.state
        && resumes
    {
        (job.state, held_back) = state_after_pause(&job, next, context.step.now);
        job.pause = None;
    }
    if is_unchanged(&before, &job) {
        let after = Arc::clone(&before);
        return Ok(answer(dry_run, Modified { before, after }));
    }
    if dry_run {
        let job = plan_replacement(&before, job, context.step.now).job;
        return Ok(answer(dry_run, Modified { before, after: Arc::new(job) }));
    }
    if let Some(first) = held_back {
        skip_since(context, &job, first, SkipReason::Paused);
    }
    let after = replace(context, &before, job);
    Ok(answer(dry_run, Modified { before, after }))
}

fn answer(dry_run: bool, modified: Modified) -> Response {
    if dry_run { Response::WouldModify(modified) } else { Response::Modified(modified) }
}

/// The job with its new definition. The one that was checked before counts if the patch was applied to the definition that
/// the job still has. Otherwise it is applied again, and the result is checked.
fn new_definition(
    context: &StepContext<'_>,
    job: &Job,
    modification: Modification,
) -> Result<Job, RequestError> {
    let Modification { patch, base, checked, .. } = modification;
    if job.same_definition(&base) {
        return Ok(*checked);
    }
    let new = context.rules.modify(job, &patch, context.step.now);
    let new = new.map_err(RequestError::Invalid)?;
    // Whether a client may have a task run is not checked here: looking up users may take long.
    // A builtin needs no rights.
    let same_tasks = (matches!(*new.task, Task::Builtin(_)) || new.task == checked.task)
        && new.policy.hooks().eq(checked.policy.hooks())
        && new.policy.heartbeat == checked.policy.heartbeat;
    if context.rules.rights.is_some() && !same_tasks {
        return Err(RequestError::Outpaced(job.id.clone()));
    }
    Ok(Job { requester: checked.requester, ..new })
}

/// Whether a change leaves a job as it is, so that nothing has to be written.
fn is_unchanged(before: &Job, after: &Job) -> bool {
    let is_broken = matches!(before.state, JobState::Broken { .. });
    !is_broken
        && before.state == after.state
        && before.anchor == after.anchor
        && before.same_definition(after)
}
