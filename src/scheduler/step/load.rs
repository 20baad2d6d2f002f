//! What a step must know before it decides: how the other nodes stand, what is in flight, whether
//! the scheduler is paused, and the jobs that are spoken of.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::executor::Executor;
use crate::job::{Job, JobId};
use crate::run::{Execution, Run, RunId};
use crate::scheduler::request::{PendingRequest, Request};
use crate::scheduler::step::Step;
use crate::scheduler::{Scheduler, not_of_input};
use crate::store::{ScheduledJob, Store, StoreError};

impl<S: Store, X: Executor> Scheduler<S, X> {
    /// Brings memory up to date, and a step with the jobs that the commands speak of; and the jobs to look at, if the
    /// clock was corrected.
    pub(crate) async fn load(
        &mut self,
        now: Timestamp,
        commands: &[PendingRequest],
        executions: &[Execution],
    ) -> Result<(Step, Option<Vec<ScheduledJob>>), StoreError> {
        self.renew_lease_if_due(now).await.map_err(not_of_input)?;
        self.resync_if_stale(now).await.map_err(not_of_input)?;
        if commands.iter().any(|command| command.request.pauses_scheduler()) {
            // Another node may have paused or resumed since the last meeting.
            self.paused_since = self.store.paused_since().await?;
        }
        let known = (self.load_jobs(commands).await?, self.load_runs(commands).await?);
        let page = self.watch_clock(now).await?;
        let mut step = Step::new(now, Arc::clone(&self.identity.node), known, self.paused_since);
        step.dated_back = self.clock.dated_back();
        let ended = executions.iter().filter_map(|(run_id, _)| self.capacity.job_of(run_id));
        let jobs: Vec<Arc<Job>> = ended.cloned().collect();
        self.learn_failing(&mut step, jobs.iter()).await.map_err(not_of_input)?;
        Ok((step, page))
    }

    /// Reads those of the jobs whose hooks depend on whether they fail, as the store has them.
    async fn learn_failing(
        &self,
        step: &mut Step,
        jobs: impl Iterator<Item = &Arc<Job>>,
    ) -> Result<(), StoreError> {
        let jobs = jobs.filter(|job| job.policy.hooks.need_last_end());
        let ids: BTreeSet<&JobId> = jobs.map(|job| &job.id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let ids: Vec<JobId> = ids.into_iter().cloned().collect();
        for job in self.store.load_jobs(&ids).await? {
            step.learn(&Arc::new(job));
        }
        Ok(())
    }

    /// The runs that the commands speak of.
    async fn load_runs(&self, commands: &[PendingRequest]) -> Result<Vec<Run>, StoreError> {
        let ids = commands.iter().filter_map(|command| command.request.run());
        let ids: BTreeSet<RunId> = ids.cloned().collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<RunId> = ids.into_iter().collect();
        self.store.load_runs(&ids).await
    }

    /// The jobs that the commands speak of.
    async fn load_jobs(&self, commands: &[PendingRequest]) -> Result<Vec<Job>, StoreError> {
        let requests = commands.iter().map(|command| &command.request);
        let ids: BTreeSet<JobId> = requests.flat_map(Request::jobs).cloned().collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<JobId> = ids.into_iter().collect();
        self.store.load_jobs(&ids).await
    }
}
