//! Occurrences that fall due while `max_instances` runs of their job are in flight.
//!
//! With `overlap = "skip"` (and beyond the limit of `"queue"`) they are skipped: those that follow each other are one
//! row, which grows in place, so that a job that hangs for a day leaves one row and not one for each occurrence. With
//! `"replace"` the newest runs of a job count: what waits is skipped, what runs is asked to end, and the new run waits
//! for that. It never starts beside more than `max_instances` allow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::apply::Desk;
use super::command::Command;
use super::plan::Skipped;
use super::report::Note;
use super::step::Step;
use super::{Scheduler, floor::Floor};
use crate::executor::Executor;
use crate::job::{Job, JobId, Overlap};
use crate::run::{Run, RunId, RunState, SkipReason};
use crate::store::{Change, Store, StoreError};

/// What the ledger says of a run that was ended for a newer one.
const REPLACED: &str = "replaced by a newer run of the job";

/// Rows that are remembered at most. One that is not is read from the store when it is needed.
const REMEMBERED_MAX: usize = 10_000;

/// For each job that is blocked by its own runs: the row of its latest overlaps. It is what the store said, or what was
/// written; a row that another node has changed meanwhile is a conflict, and then everything is forgotten.
#[derive(Debug, Default)]
pub(super) struct Overlaps {
    rows: BTreeMap<JobId, Arc<Run>>,
}

impl Overlaps {
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
    pub(super) fn clear(&mut self) {
        self.rows.clear();
    }

    /// Forgets rows that are no longer kept.
    pub(super) fn forget(&mut self, gone: &[RunId]) {
        let gone: BTreeSet<&RunId> = gone.iter().collect();
        self.rows.retain(|_, row| !gone.contains(&row.id));
    }

    /// The jobs that are due, would overlap, and have no row here.
    fn unknown<'a>(&self, due: impl Iterator<Item = &'a Arc<Job>>, floor: &Floor) -> Vec<Arc<Job>> {
        let is_unknown = |job: &&Arc<Job>| {
            !job.trigger.is_one_shot() && !floor.admits(job) && self.of(job).is_none()
        };
        due.filter(is_unknown).cloned().collect()
    }
}

impl<S: Store, X: Executor> Scheduler<S, X> {
    /// Reads the rows that overlaps of this step may join.
    pub(super) async fn look_at_overlaps(
        &mut self,
        step: &Step,
        commands: &[Command],
    ) -> Result<(), StoreError> {
        if !self.will_fire(step, commands) {
            return Ok(());
        }
        let unknown = self.overlaps.unknown(self.due_jobs(step), &self.floor);
        if !unknown.is_empty() {
            let rows = self.store.latest_skips(&unknown, SkipReason::Overlap).await?;
            for row in rows {
                self.overlaps.remember(Arc::new(row));
            }
        }
        Ok(())
    }
}

impl Desk<'_> {
    /// Records occurrences of a due job that are skipped, and gives back the row if it is a new one.
    pub(super) fn skip(&mut self, job: &Job, skipped: Skipped) -> Option<Arc<Run>> {
        let is_overlap = skipped.reason == SkipReason::Overlap;
        if is_overlap
            && let Some(row) = self.overlaps.of(job).filter(|row| precedes(row, job, skipped))
            && let Some(row) = self.step.extend_skipped(row, skipped.span)
        {
            self.overlaps.remember(row);
            return None;
        }
        let (reason, count) = (skipped.reason, skipped.span.count);
        self.step.notes.push(Note::Skipped { job: job.id.clone(), reason, count });
        let row = Arc::new(self.skipped_run(job, skipped));
        self.step.insert_run(Arc::clone(&row));
        if is_overlap {
            self.overlaps.remember(Arc::clone(&row));
        }
        Some(row)
    }

    /// Makes room for this many new runs of a job, if its newest ones count.
    pub(super) fn make_room(&mut self, job: &Job, incoming: usize) {
        if job.policy.overlap != Overlap::Replace || incoming == 0 || self.floor.is_free(job) {
            return;
        }
        for waiting in self.floor.take_waiting(&job.id) {
            self.withdraw(waiting, SkipReason::Overlap);
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

/// Whether no occurrence of the job lies between those of a row and those that are skipped now.
fn precedes(row: &Run, job: &Job, skipped: Skipped) -> bool {
    let RunState::Skipped { last_scheduled_at, .. } = row.state else { return false };
    job.trigger.next_after(last_scheduled_at) == Some(skipped.span.first)
}
