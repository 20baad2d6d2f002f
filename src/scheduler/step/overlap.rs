//! Occurrences that fall due while `max_instances` runs of their job are in flight.
//!
//! With `overlap = "skip"` (and beyond the limit of `"queue"`) they are skipped: those that follow each other are one
//! row, which grows in place, so that a job that hangs for a day leaves one row and not one for each occurrence. With
//! `"replace"` the newest runs of a job count: what waits is skipped, what runs is asked to end, and the new run waits
//! for that. It never starts beside more than `max_instances` allow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::executor::Executor;
use crate::job::{Job, JobId, Overlap};
use crate::run::{Run, RunId, RunState, SkipReason};
use crate::scheduler::Scheduler;
use crate::scheduler::log::Note;
use crate::scheduler::plan::Skipped;
use crate::scheduler::request::PendingRequest;
use crate::scheduler::state::capacity::Capacity;
use crate::scheduler::step::Step;
use crate::scheduler::step::apply::StepContext;
use crate::store::{Change, Store, StoreError};

/// What the ledger says of a run that was ended for a newer one.
const REPLACED: &str = "replaced by a newer run of the job";

/// Rows that are remembered at most. One that is not is read from the store when it is needed.
const REMEMBERED_MAX: usize = 10_000;

/// For each job that is blocked by its own runs: the row of its latest overlaps. It is what the store said, or what was
/// written; a row that another node has changed meanwhile is a conflict, and then everything is forgotten.
#[derive(Debug, Default)]
pub(crate) struct OverlapRows {
    rows: BTreeMap<JobId, Arc<Run>>,
}

impl OverlapRows {
    /// Remembers a row.
    fn remember(&mut self, row: Arc<Run>) {
        if self.rows.len() >= REMEMBERED_MAX {
            self.rows.clear();
        }
        self.rows.insert(row.job_id.clone(), row);
    }

    /// The row that an overlap of this job may join.
    fn of(&self, job: &Job) -> Option<&Arc<Run>> {
        self.rows.get(&job.id).filter(|row| row.anchor == job.anchor)
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.rows.clear();
    }

    /// Forgets rows that are no longer kept.
    pub(crate) fn forget(&mut self, gone: &[RunId]) {
        let gone: BTreeSet<&RunId> = gone.iter().collect();
        self.rows.retain(|_, row| !gone.contains(&row.id));
    }

    /// The jobs that are due, would overlap, and have no row here.
    fn unknown<'a>(
        &self,
        due: impl Iterator<Item = &'a Arc<Job>>,
        capacity: &Capacity,
    ) -> Vec<Arc<Job>> {
        let is_unknown = |job: &&Arc<Job>| {
            !job.trigger.is_one_shot() && !capacity.accepts_instance(job) && self.of(job).is_none()
        };
        due.filter(is_unknown).cloned().collect()
    }
}

impl<S: Store, X: Executor> Scheduler<S, X> {
    /// Reads the rows that overlaps of this step may join.
    pub(crate) async fn load_overlap_rows(
        &mut self,
        step: &Step,
        commands: &[PendingRequest],
    ) -> Result<(), StoreError> {
        if !self.will_fire(step, commands) {
            return Ok(());
        }
        let unknown = self.overlap_rows.unknown(self.due_jobs(step), &self.capacity);
        if !unknown.is_empty() {
            let rows = self.store.latest_skips(&unknown, SkipReason::Overlap).await?;
            for row in rows {
                self.overlap_rows.remember(Arc::new(row));
            }
        }
        Ok(())
    }
}

impl StepContext<'_> {
    /// Records occurrences of a due job that are skipped, and gives back the row if it is a new one.
    pub(crate) fn skip(&mut self, job: &Job, skipped: Skipped) -> Option<Arc<Run>> {
        let is_overlap = skipped.reason == SkipReason::Overlap;
        if is_overlap
            && let Some(row) = self.overlap_rows.of(job).filter(|row| precedes(row, job, skipped))
            && let Some(row) = self.step.extend_skipped(row, skipped.span)
        {
            self.overlap_rows.remember(row);
            return None;
        }
        let (reason, count) = (skipped.reason, skipped.span.count);
        self.step.notes.push(Note::Skipped { job: job.id.clone(), reason, count });
        let row = Arc::new(self.skipped_run(job, skipped));
        self.step.insert_run(Arc::clone(&row));
        if is_overlap {
            self.overlap_rows.remember(Arc::clone(&row));
        }
        Some(row)
    }

    /// Makes room for this many new runs of a job, if its newest ones count.
    pub(crate) fn replace_older_runs(&mut self, job: &Job, incoming: usize) {
        if job.policy.overlap != Overlap::Replace
            || incoming == 0
            || self.capacity.has_free_instance(job)
        {
            return;
        }
        for waiting in self.capacity.take_waiting(&job.id) {
            self.withdraw(waiting, SkipReason::Overlap);
        }
        let (here, all) = self.capacity.running_of(job);
        let allowed = usize::try_from(job.policy.max_instances).unwrap_or(usize::MAX);
        let surplus = all.saturating_add(incoming).saturating_sub(allowed);
        for run_id in here.iter().take(surplus) {
            self.step.cancels.push((run_id.clone(), REPLACED.to_owned()));
        }
        if surplus > here.len() {
            let except_node = Arc::clone(self.node);
            let (job_id, reason) = (job.id.clone(), REPLACED.to_owned());
            self.step.note(Change::CancelJobRuns { job_id, reason, except_node });
        }
    }
}

/// Whether no occurrence of the job lies between those of a row and those that are skipped now.
fn precedes(row: &Run, job: &Job, skipped: Skipped) -> bool {
    let RunState::Skipped { last_scheduled_at, .. } = row.state else { return false };
    job.trigger.next_after(last_scheduled_at) == Some(skipped.span.first)
}
