//! `overlap = "replace"`: the newest runs of a job count. What waits is skipped, what runs is asked to
//! end, and the new run waits for that: it never starts beside more than `max_instances` allow.

use std::sync::Arc;

use super::apply::Desk;
use crate::job::{Job, Overlap};
use crate::run::SkipReason;
use crate::store::Change;

/// What the ledger says of a run that was ended for a newer one.
const REPLACED: &str = "replaced by a newer run of the job";

impl Desk<'_> {
    /// Makes room for so many new runs of a job, if its newest ones count.
    pub(super) fn make_room(&mut self, job: &Job, incoming: usize) {
        if job.policy.overlap != Overlap::Replace || incoming == 0 || self.floor.is_free(job) {
            return;
        }
        for mut run in self.floor.take_waiting(&job.id) {
            Arc::make_mut(&mut run).skip(self.step.now, SkipReason::Overlap);
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
