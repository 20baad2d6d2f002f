//! Removes ended runs and their outputs.

use chrono::TimeDelta;

use super::pace::{CALM, FAST, PAGE, Pace, SweepError};
use super::policy::{Budget, KeepRuns, RetentionPolicy};
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::filter::{Prunable, RetentionClass, RunFilter};
use crate::run::{Run, RunId};
use crate::scheduler::handle::Handle;
use crate::scheduler::request::RequestError;
use crate::store::{Archive, RunPart, StoreError};

/// How many rows a sweep has removed.
#[derive(Debug, Default)]
pub(super) struct Removed {
    pub(super) runs: usize,
    pub(super) outputs: usize,
    pub(super) jobs: usize,
}

/// Finds runs through the store's readers, and removes them through the scheduler.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunRemover<'a> {
    pub(super) archive: &'a dyn Archive,
    pub(super) handle: &'a Handle,
}

impl RunRemover<'_> {
    /// Removes the runs and outputs that are too old, and the runs beyond the limits of their jobs.
    pub(super) async fn apply_limits(
        self,
        policy: &RetentionPolicy,
        now: Timestamp,
        removed: &mut Removed,
    ) -> Result<(), SweepError> {
        let limits = RetentionClass::ALL.map(|kind| (kind, limits(policy, kind)));
        for (kind, keep) in limits {
            let Some(before) = now.checked_sub_signed(keep.age) else { continue };
            removed.runs += self.remove_older(Some(kind), before).await?;
        }
        if let Some(before) = policy.output_age.and_then(|age| now.checked_sub_signed(age)) {
            removed.outputs += self.remove_older(None, before).await?;
        }
        let fewest = limits.map(|(_, keep)| keep.per_job).into_iter().min().unwrap_or(usize::MAX);
        let mut after = String::new();
        loop {
            let jobs = CALM.run(self.archive.crowded_jobs(fewest, &after, PAGE)).await?;
            let kinds = |job_id| limits.map(|(kind, keep)| (job_id, kind, keep.per_job));
            for (job_id, kind, keep) in jobs.iter().flat_map(kinds) {
                removed.runs += self.remove_surplus(job_id, kind, keep).await?;
            }
            match jobs.last() {
                Some(last) if jobs.len() == PAGE => after.clone_from(last),
                _ => return Ok(()),
            }
        }
    }

    /// Removes the oldest runs of all jobs that are beyond the budget, and returns their number. The budget takes
    /// precedence over every other limit, so that no number of jobs can fill the disk.
    pub(super) async fn keep_budget(self, budget: Budget) -> Result<usize, SweepError> {
        let Some(last) = self.newest_beyond(budget).await? else { return Ok(0) };
        let oldest = Prunable::Oldest { last: &last.0 };
        self.remove_all(oldest, FAST, || format!("runs up to {last}")).await
    }

    /// The newest run that the budget has no room for, counting from the newest run to older ones.
    async fn newest_beyond(self, mut budget: Budget) -> Result<Option<RunId>, SweepError> {
        let mut before: Option<RunId> = None;
        loop {
            let page = self.archive.run_sizes(before.as_ref().map(|id| &*id.0), PAGE);
            let sizes = CALM.run(page).await?;
            let is_last = sizes.len() < PAGE;
            before = sizes.last().map(|(id, _)| id.clone());
            let beyond = sizes.into_iter().find(|(_, bytes)| !budget.take(*bytes));
            if beyond.is_some() || is_last {
                return Ok(beyond.map(|(id, _)| id));
            }
        }
    }

    /// Removes the runs of a kind that ended before an instant; without a kind, the outputs of all such runs.
    async fn remove_older(
        self,
        kind: Option<RetentionClass>,
        before: Timestamp,
    ) -> Result<usize, SweepError> {
        let parts: &[RunPart] = if kind.is_some() { &RunPart::ALL } else { &[RunPart::Outputs] };
        let (mut after, mut count) = (String::new(), 0);
        let ids_tell_time = self.ids_tell_time().await?;
        loop {
            let after_id = after.as_str();
            let page = match kind {
                Some(kind) => Prunable::Ended { ids_tell_time, kind, before, after: after_id },
                None => Prunable::WithOutput { ids_tell_time, before, after: after_id },
            };
            let runs = CALM.run(self.archive.prunable(page, PAGE)).await?;
            let last = runs.last().map(ToString::to_string);
            let is_last = runs.len() < PAGE;
            count += runs.len();
            self.remove(&runs, parts, CALM).await?;
            match last {
                Some(last) if !is_last => after = last,
                _ => return Ok(count),
            }
        }
    }

    /// True unless the newest run was created while the clock was ahead. Ids never go back, so until then they do not
    /// tell when their runs were created.
    async fn ids_tell_time(self) -> Result<bool, StoreError> {
        let newest = self.archive.runs(&RunFilter { limit: 1, ..RunFilter::default() }).await?;
        // A sweep can take longer than an hour, so the time of its start would not do.
        let soon = SystemClock.now().checked_add_signed(TimeDelta::hours(1));
        let is_ahead = |run: &Run| soon.is_some_and(|soon| run.id > RunId::first_at(soon));
        Ok(!newest.rows.iter().any(is_ahead))
    }

    /// Removes the runs of a job that are not among the newest `keep` of their kind.
    async fn remove_surplus(
        self,
        job_id: &str,
        kind: RetentionClass,
        keep: usize,
    ) -> Result<usize, SweepError> {
        let first = Prunable::FirstBeyond { job_id, kind, keep };
        let Some(first) = CALM.run(self.archive.prunable(first, 1)).await?.pop() else {
            return Ok(0);
        };
        let surplus = Prunable::UpTo { job_id, kind, last: &first.0 };
        self.remove_all(surplus, CALM, || format!("runs of job \"{job_id}\"")).await
    }

    /// Removes runs page by page until the query finds none, and returns their number. `what` names them in an error.
    async fn remove_all(
        self,
        which: Prunable<'_>,
        pace: Pace,
        what: impl FnOnce() -> String,
    ) -> Result<usize, SweepError> {
        let (mut count, mut former) = (0, Vec::new());
        loop {
            let runs = pace.run(self.archive.prunable(which, PAGE)).await?;
            // The query returns what is left. If it returns the same page again, nothing was removed, and this loop
            // would never end.
            if !runs.is_empty() && runs == former {
                return Err(SweepError::StillThere(what()));
            }
            count += runs.len();
            self.remove(&runs, &RunPart::ALL, pace).await?;
            if runs.len() < PAGE {
                return Ok(count);
            }
            former = runs;
        }
    }

    /// Removes runs, or some of their parts, batch by batch.
    async fn remove(
        self,
        runs: &[RunId],
        parts: &'static [RunPart],
        pace: Pace,
    ) -> Result<(), RequestError> {
        for batch in runs.chunks(pace.batch) {
            pace.run(self.handle.prune(batch.to_vec(), parts)).await?;
        }
        Ok(())
    }
}

fn limits(policy: &RetentionPolicy, kind: RetentionClass) -> KeepRuns {
    match kind {
        RetentionClass::Runs => policy.runs,
        RetentionClass::Errors => policy.errors,
        RetentionClass::Hooks => policy.hooks,
        RetentionClass::Skipped => policy.skipped,
    }
}
