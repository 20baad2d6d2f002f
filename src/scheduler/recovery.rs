//! Finding the way back: after a crash, and whenever a write may or may not have happened.
//!
//! A run that the ledger calls `pending` was certainly not started, because a run is marked
//! `running` before it is. One that it calls `running` may have been, unless this process knows
//! that it never handed it over.

use std::collections::{BTreeMap, BTreeSet};

use super::floor::{Floor, Waiting};
use super::{Scheduler, assignment};
use crate::clock::Timestamp;
use crate::executor::Executor;
use crate::job::{Job, JobId, OnCrash};
use crate::run::{Outcome, Run, RunState, SkipReason};
use crate::store::{Change, Store, StoreError};

/// What became of runs that were in flight when their daemon ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Runs that wait again, as their next attempt.
    pub rerun: usize,
    /// Runs that are recorded as lost.
    pub lost: usize,
}

impl<S: Store, X: Executor> Scheduler<S, X> {
    /// Decides about each run that the ledger calls running and that nobody executes any more: at the start, and at
    /// the end for those that did not finish in time. `why` is what the ledger will say of a lost one.
    pub async fn recover(&mut self, now: Timestamp, why: &str) -> Result<Recovered, StoreError> {
        let runs = self.store.in_flight().await?;
        let jobs = self.jobs_of(&runs).await?;
        let mut recovered = Recovered::default();
        let mut changes = Vec::new();
        for mut run in runs {
            let RunState::Running { started_at } = run.state else { continue };
            if self.may_rerun(jobs.get(&run.job_id), &run) {
                run.retry_after_crash();
                recovered.rerun += 1;
            } else {
                run.end(started_at, now, Outcome::Lost { error: why.to_owned() });
                recovered.lost += 1;
            }
            changes.push(Change::UpdateRun(Box::new(run)));
        }
        if !changes.is_empty() {
            self.store.commit(&changes).await?;
        }
        self.paused_since = self.store.paused_since().await?;
        self.executing.clear();
        self.unrecorded.clear();
        self.stale = true;
        Ok(recovered)
    }

    fn may_rerun(&self, job: Option<&Job>, run: &Run) -> bool {
        job.is_some_and(|job| job.policy.on_crash == OnCrash::Rerun)
            && self.rules.executors.contains_key(&run.executor)
    }

    async fn jobs_of(&self, runs: &[Run]) -> Result<BTreeMap<JobId, Job>, StoreError> {
        let ids: BTreeSet<&JobId> = runs.iter().map(|run| &run.job_id).collect();
        let ids: Vec<JobId> = ids.into_iter().cloned().collect();
        let jobs = self.store.load(&ids).await?;
        Ok(jobs.into_iter().map(|job| (job.id.clone(), job)).collect())
    }

    /// Makes memory what the ledger says, if there is doubt.
    pub(super) async fn resync_if_stale(&mut self, now: Timestamp) -> Result<(), StoreError> {
        if !self.stale {
            return Ok(());
        }
        self.paused_since = self.store.paused_since().await?;
        let mut runs = self.store.in_flight().await?;
        let mut jobs = self.jobs_of(&runs).await?;
        runs.sort_by_key(|run| run.due_at);
        let mut floor = Floor::new(&self.rules.executors);
        let mut changes = Vec::new();
        let mut unstarted = Vec::new();
        for mut run in runs {
            let job =
                jobs.get(&run.job_id).filter(|_| self.rules.executors.contains_key(&run.executor));
            match (&run.state, job) {
                (RunState::Running { .. }, _) if self.executing.contains_key(&run.id) => {
                    floor.occupy(&run);
                }
                (RunState::Running { .. }, Some(_)) => {
                    floor.occupy(&run);
                    unstarted.push(run);
                }
                (RunState::Running { started_at }, None) => {
                    let started_at = *started_at;
                    run.end(started_at, now, Outcome::Lost { error: "its job is gone".to_owned() });
                    changes.push(Change::UpdateRun(Box::new(run)));
                }
                (_, Some(job)) => floor.wait(Waiting { job: job.clone(), run }),
                (_, None) => {
                    run.skip(SkipReason::Removed);
                    changes.push(Change::UpdateRun(Box::new(run)));
                }
            }
        }
        if !changes.is_empty() {
            self.store.commit(&changes).await?;
        }
        for run in unstarted {
            // Marked as running by a write whose answer was lost: certainly not started, so it is started now.
            if let Some(job) = jobs.remove(&run.job_id) {
                self.executor.start(&run.executor, assignment(&run, job.clone()));
                jobs.insert(run.job_id.clone(), job);
                self.executing.insert(run.id.clone(), run);
            }
        }
        self.floor = floor;
        self.horizon.clear();
        self.stale = false;
        Ok(())
    }
}
