//! What becomes of a job that is given another definition, or is removed. Its occurrences that have come and were
//! neither run nor skipped yet are accounted for before its schedule ends.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::job::{Former, Job, JobId, JobState};
use crate::run::SkipReason;
use crate::scheduler::log::Note;
use crate::scheduler::plan;
use crate::scheduler::request::Response;
use crate::scheduler::step::apply::StepContext;
use crate::trigger::Span;

impl StepContext<'_> {
    /// Puts a job in the place of its former self. Where its schedule begins again, occurrences of the former one that were
    /// due and have no row yet go on under the new trigger, if that fires at the same instants; else they become one row.
    pub(crate) fn replace(&mut self, known: &Job, mut redefined: Job) -> Response {
        let held_back = held_back(known, SkipReason::Redefined, self.step.now);
        if let Some((first, reason)) = held_back.filter(|_| known.anchor != redefined.anchor) {
            if reason == SkipReason::Redefined && goes_on(known, &redefined, first, self.step.now) {
                let next = plan::due(&redefined.id, &redefined.trigger, first);
                redefined.state = JobState::Active { next };
            } else {
                self.skip_since(known, first, reason);
            }
        }
        let was_broken = matches!(known.state, JobState::Broken { .. });
        if was_broken && known.anchor == redefined.anchor {
            redefined.state = self.repaired_state(&redefined);
        }
        if was_broken {
            self.step.notes.push(Note::Repaired { job: redefined.id.clone() });
        }
        self.put(redefined)
    }

    /// Removes a job. Its runs that wait, and its occurrences that have come, are recorded as skipped.
    pub(crate) fn delete(&mut self, id: &JobId) {
        if let Some(job) = self.step.job(id).cloned()
            && let Some((first, reason)) = held_back(&job, SkipReason::Removed, self.step.now)
        {
            self.skip_since(&job, first, reason);
        }
        for waiting in self.capacity.take_waiting(id) {
            self.withdraw(waiting, SkipReason::Removed);
        }
        self.capacity.forget_job(id);
        self.step.delete(id);
    }

    /// Accounts for the occurrences since `from` that were held back.
    pub(crate) fn skip_since(&mut self, job: &Job, from: Timestamp, reason: SkipReason) {
        // What `next_run_time` named is no occurrence of the trigger, and accounted for by itself.
        let named = (!job.trigger.matches(from)).then(|| Span::one(from));
        let occurrences = job.trigger.occurrences(from, self.step.now);
        for span in named.into_iter().chain(occurrences) {
            let run = self.skipped_run(job, plan::Skipped { reason, span });
            self.step.insert_run(Arc::new(run));
        }
    }
}

/// The first occurrence of a job that has come and has no row yet, and why it has none. `of_active` is the reason where
/// the job is active, and the occurrence waits for its jitter, for its pool, or for the scheduler to be resumed.
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

/// Whether a new definition fires at exactly those instants that have come since `first` under the former one. It does
/// not if it says itself when it fires next.
fn goes_on(known: &Job, redefined: &Job, first: Timestamp, now: Timestamp) -> bool {
    let Some(next) = redefined.next() else { return false };
    let is_named = redefined.trigger.next_from(redefined.anchor) != Some(next.scheduled_at);
    let owed = known.trigger.occurrences(first, now).filter(|span| span.first == first);
    !is_named && owed.is_some() && owed == redefined.trigger.occurrences(first, now)
}
