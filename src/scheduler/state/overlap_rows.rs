//! The latest ledger row of skipped overlaps of each job, so that the next overlap extends the row instead of adding one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::job::{Job, JobId};
use crate::run::{Run, RunId};

/// Most rows that are remembered. A row that is not remembered is read from the store when it is needed.
const REMEMBERED_MAX: usize = 10_000;

/// Rows as the store had them or as they were written. If another node has changed a row since, extending it is a
/// conflict, and then all rows are forgotten.
#[derive(Debug, Default)]
pub(crate) struct OverlapRows {
    rows: BTreeMap<JobId, Arc<Run>>,
}

impl OverlapRows {
    pub(crate) fn remember(&mut self, row: Arc<Run>) {
        if self.rows.len() >= REMEMBERED_MAX {
            self.rows.clear();
        }
        self.rows.insert(row.job_id.clone(), row);
    }

    /// The row that an overlap of this job may extend.
    pub(crate) fn of(&self, job: &Job) -> Option<&Arc<Run>> {
        self.rows.get(&job.id).filter(|row| row.anchor == job.anchor)
    }

    pub(crate) fn clear(&mut self) {
        self.rows.clear();
    }

    /// Forgets rows that are deleted from the ledger.
    pub(crate) fn forget(&mut self, deleted: &[RunId]) {
        let deleted: BTreeSet<&RunId> = deleted.iter().collect();
        self.rows.retain(|_, row| !deleted.contains(&row.id));
    }
}
