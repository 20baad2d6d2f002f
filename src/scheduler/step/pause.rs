//! Pauses: of a job, and of the scheduler as a whole. A pause lasts until a request ends it, or until an instant; then it
//! ends by itself in the first step that can fire, and counts as ended at that instant.

use std::sync::Arc;

use super::Step;
use super::context::{StepContext, recomputed_due, state_from, wrong_state};
use super::redefine::skip_before;
use crate::clock::Timestamp;
use crate::job::admission::Rules;
use crate::job::{Due, Job, JobId, JobState, Pause, PauseTerms};
use crate::run::SkipReason;
use crate::scheduler::log::Note;
use crate::scheduler::plan;
use crate::scheduler::request::{RequestError, Response};
use crate::scheduler::state::SchedulerState;

/// Pauses a job. A job that is paused already gets the new terms.
pub(super) fn pause(
    context: &mut StepContext<'_>,
    id: &JobId,
    terms: PauseTerms,
) -> Result<Response, RequestError> {
    let now = context.step.now;
    let job = context.find(id)?;
    let (next, pause) = match &job.state {
        JobState::Active { next } => (*next, Some(Pause::new(now, terms))),
        JobState::Paused { next } => {
            let unsaid = || Arc::new(Pause::new(job.updated_at, PauseTerms::default()));
            (*next, job.pause.clone().unwrap_or_else(unsaid).changed(terms))
        }
        JobState::Finished | JobState::Broken { .. } => return Err(wrong_state(&job)),
    };
    let Some(pause) = pause.map(Arc::new) else { return Ok(Response::Job(job)) };
    let state = JobState::Paused { next };
    let paused = Job { state, pause: Some(pause), updated_at: now, ..(*job).clone() };
    Ok(Response::Job(context.put(paused)))
}

/// Resumes a job: what was due up to now was held back.
pub(super) fn resume(context: &mut StepContext<'_>, id: &JobId) -> Result<Response, RequestError> {
    let now = context.step.now;
    let job = context.find(id)?;
    let held = match &job.state {
        JobState::Paused { next } => *next,
        JobState::Active { .. } => return Ok(Response::Job(job)),
        JobState::Finished | JobState::Broken { .. } => return Err(wrong_state(&job)),
    };
    // The job may have become unfit to run during the pause.
    if let Err(invalid) = context.rules.check(&job) {
        return Err(RequestError::WrongState {
            id: job.id.clone(),
            state: format!("not fit to run: {invalid}"),
        });
    }
    Ok(go_on(context, &job, held, plan::after(now)))
}

/// Lets a job go on whose pause is over: what was due before its end was held back.
pub(super) fn end_pause(
    step: &mut Step,
    state: &mut SchedulerState,
    rules: &mut Rules,
    job: &Arc<Job>,
) {
    let (JobState::Paused { next: held }, Some(until)) = (&job.state, job.wakes_at()) else {
        return;
    };
    step.add_loaded(job);
    if let Err(invalid) = rules.check(job) {
        let reason = invalid.to_string();
        step.notes.push(Note::Broken { job: job.id.clone(), reason: reason.clone() });
        let state = job.state.broken(reason);
        step.put(Job { state, updated_at: step.now, ..(**job).clone() });
        return;
    }
    step.notes.push(Note::PauseEnded { job: Some(job.id.clone()), until });
    go_on(&mut StepContext::new(step, state, rules), job, *held, until);
}

/// Makes a paused job active. The occurrences before `from` were held back, and are recorded as skipped.
fn go_on(context: &mut StepContext<'_>, job: &Job, held: Due, from: Timestamp) -> Response {
    let next = recomputed_due(job, held.scheduled_at);
    let state = if next.due_at >= from || job.trigger.is_one_shot() {
        // A one-shot whose time passed in the pause is late: its misfire grace time decides.
        JobState::Active { next }
    } else {
        skip_before(context, job, next.scheduled_at, from, SkipReason::Paused);
        state_from(job, job.trigger.next_from(from))
    };
    let updated_at = context.step.now;
    Response::Job(context.put(Job { state, pause: None, updated_at, ..job.clone() }))
}

/// Pauses the scheduler as a whole. A scheduler that is paused already gets the new terms.
pub(super) fn pause_scheduler(context: &mut StepContext<'_>, terms: PauseTerms) -> Response {
    let pause = match context.step.pause() {
        Some(known) => known.changed(terms),
        None => Some(Pause::new(context.step.now, terms)),
    };
    if let Some(pause) = pause {
        context.step.set_pause(Some(Arc::new(pause)));
    }
    Response::Paused(context.step.pause().cloned())
}

/// Resumes the scheduler as a whole.
pub(super) fn resume_scheduler(context: &mut StepContext<'_>) -> Response {
    context.step.set_pause(None);
    Response::Paused(None)
}
