//! `overlap = "replace"`: the newest runs of a job count. What waits is skipped, what runs is asked to
//! end, and the new run waits for that: it never starts beside more than `max_instances` allow.

use std::sync::Arc;

use super::apply::Desk;
use super::plan::{Plan, Skipped};
use crate::job::{Job, Overlap};
use crate::run::SkipReason;
use crate::store::Change;
use crate::trigger::Span;

/// What the ledger says of a run that was ended for a newer one.
const REPLACED: &str = "replaced by a newer run of the job";

impl Desk<'_> {
    /// Makes room for so many new runs of a job, if its newest ones count.
    pub(super) fn make_room(&mut self, job: &Job, incoming: usize) {
        if job.policy.overlap != Overlap::Replace || incoming == 0 || self.floor.is_free(job) {
            return;
        }
        for mut run in self.floor.take_waiting(&job.id) {
            Arc::make_mut(&mut run).skip(SkipReason::Overlap);
            self.step.update_run(run);
        }
        let (here, all) = self.floor.running_of(job);
        let allowed = usize::try_from(job.policy.max_instances).unwrap_or(usize::MAX);
        let surplus = all.saturating_add(incoming).saturating_sub(allowed);
        for run_id in here.iter().take(surplus) {
            self.step.cancels.push((run_id.clone(), REPLACED.to_owned()));
        }
        if surplus > here.len() {
            let except_node = Arc::clone(self.node);
            let (job_id, reason) = (job.id.clone(), REPLACED.to_owned());
            self.step.note(Change::AskToEnd { job_id, reason, except_node });
        }
    }
}

/// Of the runs that one plan makes for such a job, only the newest would be left: the others are not made.
pub(super) fn keep_newest(plan: &mut Plan, job: &Job) {
    let allowed = usize::try_from(job.policy.max_instances).unwrap_or(usize::MAX);
    let Some(excess) = plan.runs.len().checked_sub(allowed).filter(|excess| *excess > 0) else {
        return;
    };
    if job.policy.overlap != Overlap::Replace {
        return;
    }
    let newest = plan.runs.split_off(excess);
    let earlier = std::mem::replace(&mut plan.runs, newest);
    if let Some((first, last)) = earlier.first().zip(earlier.last()) {
        let count = u64::try_from(earlier.len()).unwrap_or(u64::MAX);
        let span = Span { first: first.scheduled_at, last: last.scheduled_at, count };
        plan.skipped.push(Skipped { reason: SkipReason::Overlap, span });
    }
}
