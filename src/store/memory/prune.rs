//! What of the ledger need not be kept, in memory.

use std::collections::BTreeMap;

use super::Tables;
use crate::filter::Prunable;
use crate::run::{Run, RunId, RunState};
use crate::store::Part;

impl Tables {
    /// A part of a run goes, if the run has ended.
    pub(super) fn prune(&mut self, run_id: &RunId, part: Part) {
        if self.runs.get(run_id).is_none_or(|run| !run.state.is_final()) {
            return;
        }
        match part {
            Part::Outputs => self.outputs.retain(|(id, _), _| id != run_id),
            Part::Attempts => self.attempts.retain(|(id, _), _| id != run_id),
            Part::Row => drop(self.runs.remove(run_id)),
        }
    }

    /// The runs that need not be kept, the oldest first.
    pub(super) fn prunable(&self, which: Prunable<'_>) -> Vec<RunId> {
        let is_of = |run: &Run, states: [&str; 3]| states.contains(&run.state.word());
        let ended_at = |run: &Run| match &run.state {
            RunState::Ended { finished_at, .. } => Some(*finished_at),
            RunState::Skipped { .. } => Some(run.created_at),
            RunState::Pending | RunState::Running { .. } => None,
        };
        let wanted = |run: &Run| match which {
            Prunable::Ended { kind, before, after } => {
                is_of(run, kind.states())
                    && ended_at(run).is_some_and(|at| at < before)
                    && &*run.id.0 > after
            }
            Prunable::WithOutput { before, after } => {
                ended_at(run).is_some_and(|at| at < before)
                    && &*run.id.0 > after
                    && self.outputs.keys().any(|(id, _)| *id == run.id)
            }
            Prunable::FirstBeyond { job_id, kind, .. } => {
                run.job_id.as_str() == job_id && is_of(run, kind.states())
            }
            Prunable::UpTo { job_id, kind, last } => {
                run.job_id.as_str() == job_id && is_of(run, kind.states()) && &*run.id.0 <= last
            }
        };
        let ids = self.runs.values().filter(|run| wanted(run)).map(|run| run.id.clone());
        match which {
            Prunable::FirstBeyond { keep, .. } => ids.rev().skip(keep).take(1).collect(),
            Prunable::Ended { .. } | Prunable::WithOutput { .. } | Prunable::UpTo { .. } => {
                ids.collect()
            }
        }
    }

    /// Jobs with more rows than this, after one of them.
    pub(super) fn crowded_jobs(&self, rows: usize, after: &str, limit: usize) -> Vec<String> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for run in self.runs.values() {
            *counts.entry(run.job_id.as_str()).or_default() += 1;
        }
        let crowded = counts.into_iter().filter(|(id, count)| *count > rows && *id > after);
        crowded.take(limit).map(|(id, _)| id.to_owned()).collect()
    }
}
