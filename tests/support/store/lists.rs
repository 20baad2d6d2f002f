//! Pages of jobs and of runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use punctual::filter::{JobConditions, JobFilter, JobOrder, PAGE_BYTES, RunFilter, RunOrder};
use punctual::job::Job;
use punctual::run::{Cause, Outcome, Run, RunState};
use punctual::store::{PoolRuns, Rows};

use super::{Tables, up_to};
use crate::occurrences::covers;

fn page<'a, T: Clone + 'a>(
    wanted: impl Iterator<Item = &'a Arc<T>>,
    bytes: impl Fn(&T) -> usize,
) -> Rows<T> {
    let rows: Vec<T> =
        up_to(PAGE_BYTES, wanted, |row| bytes(row)).map(|row| (**row).clone()).collect();
    let is_cut = rows.iter().map(&bytes).sum::<usize>() >= PAGE_BYTES;
    Rows { rows, is_cut }
}

/// Bytes of what a run answered, the only part of its row that may be large.
fn result_bytes(run: &Run) -> usize {
    let RunState::Ended { outcome: Outcome::Succeeded { result, .. }, .. } = &run.state else {
        return 0;
    };
    result.as_ref().map_or(0, |result| result.to_string().len())
}

impl Tables {
    pub(super) fn list_jobs(&self, filter: &JobFilter) -> Rows<Job> {
        let due_at = |job: &Job| job.next().map(|next| next.due_at);
        let is_in_range = |job: &Job| {
            let is_late_enough = |since| due_at(job).is_some_and(|at| at >= since);
            let is_early_enough = |until| due_at(job).is_some_and(|at| at < until);
            filter.since.is_none_or(is_late_enough) && filter.until.is_none_or(is_early_enough)
        };
        let mut wanted: Vec<&Arc<Job>> = self.jobs.values().collect();
        wanted.retain(|job| filter.conditions.are_met_by(job) && is_in_range(job));
        let by_time = filter.order == JobOrder::NextRunTime;
        // In a list by id, everything is due at the same time.
        let place = |job: &Job| (due_at(job).filter(|_| by_time), job.id.to_string());
        wanted.retain(|job| !by_time || due_at(job).is_some());
        wanted.sort_by_key(|job| place(job));
        if let Some(after) = &filter.after {
            let last = (after.due_at.filter(|_| by_time), after.id.clone());
            wanted.retain(|job| place(job) > last);
        }
        page(wanted.into_iter().take(filter.limit), |job| job.bytes)
    }

    pub(super) fn pool_runs(&self) -> Vec<PoolRuns> {
        let mut found: BTreeMap<(String, String), PoolRuns> = BTreeMap::new();
        for run in self.in_flight() {
            let (executor, node) = (run.executor.clone(), run.node.to_string());
            let new = || PoolRuns {
                executor: executor.clone(),
                node: node.clone(),
                running: 0,
                waiting: 0,
            };
            let pool = found.entry((executor.clone(), node.clone())).or_insert_with(new);
            match run.state {
                RunState::Running { .. } => pool.running += 1,
                RunState::Pending | RunState::Ended { .. } | RunState::Skipped { .. } => {
                    pool.waiting += 1;
                }
            }
        }
        found.into_values().collect()
    }

    pub(super) fn list_runs(&self, filter: &RunFilter) -> Rows<Run> {
        let JobConditions { states, tag, prefix, executor, trigger_type } = &filter.conditions;
        let of_job = JobConditions {
            tag: tag.clone(),
            trigger_type: trigger_type.clone(),
            ..JobConditions::default()
        };
        let is_of_job = |run: &Run| {
            of_job.is_empty()
                || self.jobs.get(&run.job_id).is_some_and(|job| of_job.are_met_by(job))
        };
        let follows = |run: &Run, after: &str| match filter.order {
            RunOrder::Newest => &*run.id.0 < after,
            RunOrder::Oldest => &*run.id.0 > after,
        };
        let mut wanted: Vec<&Arc<Run>> = self.runs.values().collect();
        wanted.retain(|run| {
            filter.job_id.as_deref().is_none_or(|id| run.job_id.as_str() == id)
                && (states.is_empty() || states.contains(&run.state.word()))
                && prefix.as_deref().is_none_or(|start| run.job_id.as_str().starts_with(start))
                && executor.as_ref().is_none_or(|executor| run.executor == *executor)
                && is_of_job(run)
                && !(filter.without_hooks && matches!(run.cause, Cause::Event { .. }))
                && filter.occurrence.is_none_or(|at| covers(run, at))
                && filter.since.is_none_or(|since| run.created_at >= since)
                && filter.until.is_none_or(|until| run.created_at < until)
                && filter.after.as_deref().is_none_or(|after| follows(run, after))
        });
        if filter.order == RunOrder::Newest {
            wanted.reverse();
        }
        page(wanted.into_iter().take(filter.limit), result_bytes)
    }
}
