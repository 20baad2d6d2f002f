//! What a step must know before it decides: how the other nodes stand, what is in flight, whether
//! the scheduler is paused, and the jobs that are spoken of.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Scheduler;
use super::command::{Command, Request};
use super::step::Step;
use crate::clock::Timestamp;
use crate::executor::Executor;
use crate::job::{Job, JobId};
use crate::store::{Store, StoreError};

impl<S: Store, X: Executor> Scheduler<S, X> {
    /// Brings memory up to date, and a step with the jobs that the commands speak of.
    pub(super) async fn prepare(
        &mut self,
        now: Timestamp,
        commands: &[Command],
    ) -> Result<Step, StoreError> {
        self.meet_if_due(now).await?;
        self.resync_if_stale(now).await?;
        if commands.iter().any(|command| command.request.is_of_all()) {
            // Another node may have paused or resumed since the last meeting.
            self.paused_since = self.store.paused_since().await?;
        }
        let jobs = self.load(now, commands).await?;
        Ok(Step::new(now, Arc::clone(&self.identity.node), jobs, self.paused_since))
    }

    /// The jobs that the commands speak of.
    async fn load(&self, now: Timestamp, commands: &[Command]) -> Result<Vec<Job>, StoreError> {
        let mut ids: BTreeSet<&JobId> = BTreeSet::new();
        let mut review = None;
        for command in commands {
            match &command.request {
                Request::Add(addition) => {
                    ids.insert(&addition.job.id);
                }
                Request::AddAll(additions) => {
                    ids.extend(additions.iter().map(|addition| &addition.job.id));
                }
                Request::Remove(id)
                | Request::Pause(id)
                | Request::Resume(id)
                | Request::Run(id) => {
                    ids.insert(id);
                }
                Request::PauseAll | Request::ResumeAll => {}
                Request::Reload { rules, jobs } => {
                    ids.extend(jobs.iter().map(|job| &job.id));
                    review = Some(rules.executors.keys().cloned().collect::<Vec<_>>());
                }
            }
        }
        let ids: Vec<JobId> = ids.into_iter().cloned().collect();
        let mut jobs = if ids.is_empty() { Vec::new() } else { self.store.load(&ids).await? };
        if let Some(executors) = review {
            tracing::debug!(%now, "reviewing the stored jobs");
            jobs.extend(self.store.to_review(&executors).await?);
        }
        Ok(jobs)
    }
}
