//! Which rows of the ledger need not be kept, for the store in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Tables;
use punctual::clock::Timestamp;
use punctual::filter::{FinishedJobs, Prunable, RetentionClass};
use punctual::job::{Job, JobState};
use punctual::run::{Cause, Outcome, Run, RunId, RunState};
use punctual::store::{ATTEMPT_BYTES, RUN_BYTES, RunPart};

impl Tables {
    /// A part of a run goes, if the run has ended.
    pub(super) fn prune(&mut self, run_id: &RunId, part: RunPart) {
        if self.runs.get(run_id).is_none_or(|run| !run.state.is_final()) {
            return;
        }
        match part {
            RunPart::Outputs => self.outputs.retain(|(id, _), _| id != run_id),
            RunPart::Attempts => self.attempts.retain(|(id, _), _| id != run_id),
            RunPart::Row => drop(self.runs.remove(run_id)),
        }
    }

    /// The runs that need not be kept, the oldest first.
    pub(super) fn prunable(&self, which: Prunable<'_>) -> Vec<RunId> {
        let ended_at = |run: &Run| match &run.state {
            RunState::Ended { finished_at, .. } => Some(*finished_at),
            RunState::Skipped { .. } => Some(run.created_at),
            RunState::Pending | RunState::Running { .. } => None,
        };
        let wanted = |run: &Run| match which {
            Prunable::Ended { kind, before, after, .. } => {
                is_of(run, kind)
                    && self.may_go(run)
                    && ended_at(run).is_some_and(|at| at < before)
                    && &*run.id.0 > after
            }
            Prunable::WithOutput { before, after, .. } => {
                ended_at(run).is_some_and(|at| at < before)
                    && &*run.id.0 > after
                    && self.may_go(run)
                    && self.outputs.keys().any(|(id, _)| *id == run.id)
            }
            Prunable::Oldest { last } => ended_at(run).is_some() && &*run.id.0 <= last,
            Prunable::FirstBeyond { job_id, kind, .. } => {
                run.job_id.as_str() == job_id && is_of(run, kind)
            }
            Prunable::UpTo { job_id, kind, last } => {
                run.job_id.as_str() == job_id
                    && is_of(run, kind)
                    && self.may_go(run)
                    && &*run.id.0 <= last
            }
        };
        let ids = self.runs.values().filter(|run| wanted(run)).map(|run| run.id.clone());
        match which {
            Prunable::FirstBeyond { keep, .. } => ids.rev().skip(keep).take(1).collect(),
            Prunable::Ended { .. }
            | Prunable::WithOutput { .. }
            | Prunable::Oldest { .. }
            | Prunable::UpTo { .. } => ids.collect(),
        }
    }

    /// The bytes that a run takes, by the estimate of [`punctual::store::Archive::run_sizes`].
    fn size(&self, run: &Run) -> u64 {
        let texts = match &run.state {
            RunState::Ended { outcome, .. } => outcome_bytes(outcome),
            RunState::Pending | RunState::Running { .. } | RunState::Skipped { .. } => 0,
        };
        let outputs = self.outputs.iter().filter(|((id, _), _)| *id == run.id);
        let outputs = outputs.map(|(_, output)| ATTEMPT_BYTES + bytes(output.to_json().len()));
        let attempts = self.attempts.values().filter(|attempt| attempt.run_id == run.id);
        let attempts = attempts.map(|attempt| ATTEMPT_BYTES + outcome_bytes(&attempt.outcome));
        RUN_BYTES
            + bytes(run.job_id.as_str().len())
            + texts
            + outputs.sum::<u64>()
            + attempts.sum::<u64>()
    }

    /// The ended runs before this one, the newest first, with their sizes.
    pub(super) fn run_sizes(&self, before: Option<&str>, limit: usize) -> Vec<(RunId, u64)> {
        let ended =
            self.runs.values().rev().filter(|run| {
                run.state.is_final() && before.is_none_or(|before| &*run.id.0 < before)
            });
        ended.take(limit).map(|run| (run.id.clone(), self.size(run))).collect()
    }

    /// A page of finished jobs.
    pub(super) fn finished_jobs(&self, page: &FinishedJobs<'_>) -> Vec<Job> {
        let mut jobs: Vec<&Arc<Job>> = self.jobs.values().collect();
        jobs.retain(|job| {
            job.state == JobState::Finished
                && job.updated_at < page.before
                && (job.updated_at, job.id.as_str()) > page.after
                && !self.in_flight().any(|run| run.job_id == job.id)
        });
        jobs.sort_by_key(|job| (job.updated_at, job.id.clone()));
        jobs.into_iter().take(page.limit).map(|job| (**job).clone()).collect()
    }

    /// When the newest job finished that is not among this many newest ones.
    pub(super) fn finished_beyond(&self, keep: usize) -> Option<Timestamp> {
        let finished = self.jobs.values().filter(|job| job.state == JobState::Finished);
        let mut instants: Vec<Timestamp> = finished.map(|job| job.updated_at).collect();
        instants.sort_unstable_by(|first, second| second.cmp(first));
        instants.get(keep).copied()
    }

    /// Whether a run is not the last success, or the last failure, of a job that exists.
    fn may_go(&self, run: &Run) -> bool {
        if is_of_hook(run) || !self.jobs.contains_key(&run.job_id) {
            return true;
        }
        let word = run.state.word();
        let Some(kept) = RetentionClass::ALL
            .into_iter()
            .map(RetentionClass::always_kept)
            .find(|kept| kept.contains(&word))
        else {
            return true;
        };
        let is_newer = |other: &&Arc<Run>| {
            other.job_id == run.job_id && !is_of_hook(other) && kept.contains(&other.state.word())
        };
        self.runs.values().rev().take_while(|other| other.id > run.id).any(|other| is_newer(&other))
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

fn bytes(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// The bytes of an outcome's texts.
fn outcome_bytes(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Succeeded { result, .. } => {
            bytes(result.as_ref().map_or(0, |result| result.to_string().len()))
        }
        Outcome::Failed { error, .. }
        | Outcome::TimedOut { error }
        | Outcome::Cancelled { reason: error }
        | Outcome::Lost { error } => bytes(error.len()),
    }
}

fn is_of_hook(run: &Run) -> bool {
    matches!(run.cause, Cause::Event { .. })
}

fn is_of(run: &Run, kind: RetentionClass) -> bool {
    kind.states().contains(&run.state.word()) && is_of_hook(run) == kind.is_of_hooks()
}
