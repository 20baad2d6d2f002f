//! Corrects the schedule after the clock was wrong: recurring jobs whose next occurrence was planned while the clock was
//! ahead continue from now, because otherwise they would wait for years. One-shots keep their time, and so does a time
//! that was set by `next_run_time`. `state/clock.rs` detects the correction.

use std::sync::Arc;

use chrono::TimeDelta;

use super::context::StepContext;
use crate::clock::Timestamp;
use crate::job::{Due, Job, JobState};
use crate::run::SkipReason;
use crate::scheduler::plan::Skipped;
use crate::scheduler::state::clock::{CorrectedPage, is_behind};
use crate::store::{Change, ScheduledJob};
use crate::trigger::{Span, Trigger};
use crate::zone::Zone;

/// The distance between the anchor of a corrected job and its former one: too little to be noticed in the grid of an
/// interval.
const ANCHOR_STEP: TimeDelta = TimeDelta::microseconds(1);

/// A new definition by the clock of this step: it may have been admitted just before the clock was set.
pub(crate) fn by_this_clock(context: &mut StepContext<'_>, job: Job) -> Job {
    let now = context.step.now;
    if !is_behind(now, job.anchor) {
        return job;
    }
    continued(&job, None, now, || context.step.date_back()).unwrap_or(job)
}

/// Lets the recurring jobs of a page continue from now.
pub(crate) fn continue_from_now(context: &mut StepContext<'_>, page: Vec<ScheduledJob>) {
    let now = context.step.now;
    let mut corrected = CorrectedPage {
        // A page may lack jobs that cannot be read, so only an empty one is the last.
        is_last: page.is_empty(),
        last: page.last().map(|scheduled| scheduled.job.id.clone()),
        moved: 0,
    };
    for ScheduledJob { job, last } in page {
        let date_back = || context.step.date_back();
        let Some(continued) = continued(&job, last, now, date_back) else { continue };
        let (known, next) = (Arc::new(job), next_occurrence(&continued));
        context.step.add_loaded(&known);
        if let Some(dropped) = next_occurrence(&known).filter(|former| Some(*former) != next) {
            let span = Span::one(dropped);
            context.add_skipped(&known, Skipped { reason: SkipReason::ClockSet, span });
        }
        corrected.moved += u64::from(next.is_some());
        context.put(continued);
    }
    if corrected.is_last {
        context.step.push(Change::RecordTime(now));
    }
    context.step.corrected = Some(corrected);
}

/// The next occurrence of a job, whether it will fire or is held back.
fn next_occurrence(job: &Job) -> Option<Timestamp> {
    match &job.state {
        JobState::Active { next } | JobState::Paused { next } => Some(next.scheduled_at),
        JobState::Broken { since, .. } => *since,
        JobState::Finished => None,
    }
}

/// A job that continues from now, if a clock that was ahead has carried it along. `last` is the last occurrence with a
/// ledger row. The job gets a new anchor, since its occurrences until the wrong time may have rows already. `date_back`
/// gives the anchor of a job that was defined while the clock was ahead.
fn continued(
    job: &Job,
    last: Option<Timestamp>,
    now: Timestamp,
    date_back: impl FnOnce() -> Timestamp,
) -> Option<Job> {
    // Writing the job would replace the part of the row that was not understood.
    if job.unreadable.is_some() {
        return None;
    }
    if job.trigger.is_one_shot() {
        // It keeps its time, but retention counts from when it ended.
        let is_ahead = job.state == JobState::Finished && job.updated_at > now;
        return is_ahead.then(|| Job { updated_at: now, ..job.clone() });
    }
    let later = job.anchor.checked_add_signed(ANCHOR_STEP).filter(|later| *later <= now);
    let anchor = later.unwrap_or_else(date_back);
    let trigger = Trigger::compile_stored(job.trigger.spec(), &Zone::utc(), anchor).ok()?;
    let next = Due::new(&job.id, &trigger, trigger.next_after(now)?);
    let is_wrong = |held: Timestamp| {
        held.signed_duration_since(next.scheduled_at) > ANCHOR_STEP
            && was_planned_ahead(job, held, last, now)
    };
    let state = match &job.state {
        JobState::Active { next: held } if is_wrong(held.scheduled_at) => JobState::Active { next },
        JobState::Paused { next: held } if is_wrong(held.scheduled_at) => JobState::Paused { next },
        JobState::Broken { reason, since: Some(held), former } if is_wrong(*held) => {
            let (reason, former) = (reason.clone(), *former);
            JobState::Broken { reason, since: Some(next.scheduled_at), former }
        }
        // It is finished only because the clock that was ahead passed its end.
        JobState::Finished if job.policy.max_runs.is_none_or(|most| job.run_count < most) => {
            JobState::Active { next }
        }
        JobState::Active { .. }
        | JobState::Paused { .. }
        | JobState::Broken { .. }
        | JobState::Finished => return None,
    };
    Some(Job { state, anchor, trigger: Arc::new(trigger), updated_at: now, ..job.clone() })
}

/// Whether `held` was planned from an instant that is still to come: from the last occurrence with a row, from the
/// definition of the trigger, or from the time when the job was resumed. A time set by `next_run_time` was not.
fn was_planned_ahead(job: &Job, held: Timestamp, last: Option<Timestamp>, now: Timestamp) -> bool {
    let after = |at: Timestamp| at > now && job.trigger.next_after(at) == Some(held);
    // An occurrence of the former definition that has not run yet is kept. It is earlier than the first occurrence of the
    // new definition.
    let is_first = job.anchor > now
        && job.trigger.matches(held)
        && job.trigger.next_from(job.anchor).is_none_or(|first| held <= first);
    is_first || last.is_some_and(after) || after(job.updated_at)
}
