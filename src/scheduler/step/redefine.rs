//! Redefines and removes jobs. Occurrences that were due and have no ledger row yet are accounted for before a schedule
//! ends.

use std::sync::Arc;

use super::complete::withdraw;
use super::context::{StepContext, recomputed_due, state_from};
use crate::clock::Timestamp;
use crate::job::{Due, Former, Job, JobId, JobState, Origin};
use crate::run::SkipReason;
use crate::scheduler::log::Note;
use crate::scheduler::plan::{self, Skipped};
use crate::scheduler::request::RequestError;
use crate::trigger::Span;

/// Whether a job is finished and no file declares it: its id is free for a new job, and it can be removed. Runs of it that
/// are still in flight go on, and count as instances of a new job of the id.
pub(crate) fn is_replaceable(known: &Job) -> bool {
    known.state == JobState::Finished && known.origin == Origin::Socket
}

/// The refusal to change a job that a file declares.
pub(crate) fn declared_in_file(context: &StepContext<'_>, job: &Job) -> RequestError {
    let file = job.source.as_ref().unwrap_or(&context.rules.source);
    RequestError::DeclaredInFile { id: job.id.clone(), file: Arc::clone(file) }
}

/// What follows from the replacement of a definition.
#[derive(Debug)]
pub(crate) struct Replacement {
    pub(crate) job: Job,
    /// The first of the occurrences to record as skipped, and why.
    skipped: Option<(Timestamp, SkipReason)>,
}

/// Decides what follows from the replacement of a definition. If the schedule begins again, former occurrences that were
/// due and have no row yet live on under the new trigger, if it fires at the same instants; otherwise they are skipped.
pub(crate) fn plan_replacement(known: &Job, mut redefined: Job, now: Timestamp) -> Replacement {
    let mut skipped = None;
    if known.anchor == redefined.anchor {
        if matches!(known.state, JobState::Broken { .. }) {
            let (state, first) = state_after_repair(&redefined, now);
            redefined.state = state;
            skipped = first.map(|first| (first, SkipReason::Broken));
        }
    } else if let Some((first, reason)) = held_back(known, SkipReason::Redefined, now) {
        if reason == SkipReason::Redefined && goes_on(known, &redefined, first, now) {
            let next = Due::new(&redefined.id, &redefined.trigger, first);
            redefined.state = JobState::Active { next };
        } else {
            skipped = Some((first, reason));
        }
    }
    Replacement { job: redefined, skipped }
}

/// Replaces the definition of a job.
pub(crate) fn replace(context: &mut StepContext<'_>, known: &Job, redefined: Job) -> Arc<Job> {
    let Replacement { job, skipped } = plan_replacement(known, redefined, context.step.now);
    if let Some((first, reason)) = skipped {
        let of = if known.anchor == job.anchor { &job } else { known };
        skip_since(context, of, first, reason);
    }
    if matches!(known.state, JobState::Broken { .. }) {
        context.step.notes.push(Note::Repaired { job: job.id.clone() });
    }
    context.put(job)
}

/// Removes a job. Its waiting runs and its occurrences that were due are recorded as skipped.
pub(crate) fn delete(context: &mut StepContext<'_>, id: &JobId) {
    if let Some(job) = context.step.job(id).cloned()
        && let Some((first, reason)) = held_back(&job, SkipReason::Removed, context.step.now)
    {
        skip_since(context, &job, first, reason);
    }
    for waiting in context.capacity.take_waiting(id) {
        withdraw(context, waiting, SkipReason::Removed);
    }
    context.capacity.forget_job(id);
    context.step.delete(id);
}

/// Records the occurrences from `from` up to now, which were held back, as skipped.
pub(crate) fn skip_since(
    context: &mut StepContext<'_>,
    job: &Job,
    from: Timestamp,
    reason: SkipReason,
) {
    let end = plan::after(context.step.now);
    skip_before(context, job, from, end, reason);
}

/// Records the occurrences from `from` on and before `end`, which were held back, as skipped.
pub(super) fn skip_before(
    context: &mut StepContext<'_>,
    job: &Job,
    from: Timestamp,
    end: Timestamp,
    reason: SkipReason,
) {
    // A time set by `next_run_time` may be no occurrence of the trigger, and then gets a row of its own.
    let named = (!job.trigger.matches(from)).then(|| Span::one(from));
    let occurrences = job.trigger.occurrences(from, plan::before(end));
    for span in named.into_iter().chain(occurrences) {
        context.add_skipped(job, Skipped { reason, span });
    }
}

/// The state of a job that is no longer broken; `job` is in the state that it had before. The occurrences that it missed are
/// recorded.
pub(crate) fn repaired_state(context: &mut StepContext<'_>, job: &Job) -> JobState {
    let (state, skipped) = state_after_repair(job, context.step.now);
    if let Some(first) = skipped {
        skip_since(context, job, first, SkipReason::Broken);
    }
    state
}

/// The state of a job that is no longer broken, and the first of the occurrences that it missed; `job` is in the state
/// that it had before.
fn state_after_repair(job: &Job, now: Timestamp) -> (JobState, Option<Timestamp>) {
    let state = match &job.state {
        JobState::Active { next } => return state_after_hold(job, next.scheduled_at, now),
        JobState::Broken { .. } if job.trigger.is_one_shot() => {
            state_from(job, job.trigger.first())
        }
        JobState::Broken { .. } => state_from(job, job.trigger.next_after(now)),
        JobState::Paused { .. } | JobState::Finished => job.state.clone(),
    };
    (state, None)
}

/// The state of a job that fires again after it was held back from the occurrence at `held` on, and the first of the
/// occurrences that it missed. A one-shot is late, not missed. `held` is in the future if the clock was set back.
fn state_after_hold(job: &Job, held: Timestamp, now: Timestamp) -> (JobState, Option<Timestamp>) {
    if job.trigger.is_one_shot() || held > now {
        return (JobState::Active { next: recomputed_due(job, held) }, None);
    }
    (state_from(job, job.trigger.next_after(now)), Some(held))
}

/// The state of a paused job that is resumed, and the first of the occurrences that its pause has held back.
pub(crate) fn state_after_pause(
    job: &Job,
    next: Due,
    now: Timestamp,
) -> (JobState, Option<Timestamp>) {
    let next = recomputed_due(job, next.scheduled_at);
    if next.due_at > now || job.trigger.is_one_shot() {
        // A one-shot whose time passed in the pause is late: its misfire grace time decides.
        return (JobState::Active { next }, None);
    }
    (state_from(job, job.trigger.next_after(now)), Some(next.scheduled_at))
}

/// The first occurrence of a job that was due and has no row yet, and why. `of_active` is the reason if the job is active:
/// the occurrence waits for its jitter, for its pool, or for the end of a pause of the scheduler.
fn held_back(job: &Job, of_active: SkipReason, now: Timestamp) -> Option<(Timestamp, SkipReason)> {
    let (first, reason) = match &job.state {
        JobState::Active { next } => (next.scheduled_at, of_active),
        JobState::Paused { next } => (next.scheduled_at, SkipReason::Paused),
        JobState::Broken { since, former: Former::Paused, .. } => ((*since)?, SkipReason::Paused),
        JobState::Broken { since, .. } => ((*since)?, SkipReason::Broken),
        JobState::Finished => return None,
    };
    (first <= now).then_some((first, reason))
}

/// Whether the new definition fires at exactly those instants since `first` at which the former one was due. A definition
/// with a `next_run_time` does not.
fn goes_on(known: &Job, redefined: &Job, first: Timestamp, now: Timestamp) -> bool {
    let Some(next) = redefined.next() else { return false };
    let is_named = redefined.trigger.next_from(redefined.anchor) != Some(next.scheduled_at);
    let owed = known.trigger.occurrences(first, now).filter(|span| span.first == first);
    !is_named && owed.is_some() && owed == redefined.trigger.occurrences(first, now)
}
