//! Finding the way back after a crash, of this node or of another one.
//!
//! A run that the ledger calls `pending` was certainly not started, because a run is marked
//! `running` before it is. One that it calls `running` may have been, unless this process knows
//! that it never handed it over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::log::{self, Note};
use super::step::Step;
use super::{CONFLICTS_MAX, Scheduler};
use crate::clock::Timestamp;
use crate::executor::Executor;
use crate::job::{Job, JobId, OnCrash};
use crate::output::Output;
use crate::run::{Cost, Execution, Outcome, Run, RunState};
use crate::store::{Change, Holder, Store, StoreError};

/// Attempts of a run after which it is not taken over again from a node of another machine. Such a node may only have been
/// cut off; but if the run kills the nodes that execute it, there must be an end.
const TAKEOVERS_MAX: u32 = 10;

/// Whether a run belongs to this job, and not to one of the same id that was there before.
pub(super) fn is_of(job: &Job, run: &Run) -> bool {
    // A job that was added while the clock was ahead is not younger than its runs of after that. They have its anchor.
    run.anchor == job.anchor || run.created_at >= job.created_at
}

/// The run as one of which nobody knows how it ended.
fn lost(mut run: Run, started_at: Timestamp, now: Timestamp, error: String) -> Run {
    run.end(started_at, now, Outcome::Lost { error }, Cost::default());
    run
}

/// Why a run is recorded as running although no daemon executes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interruption {
    /// This node has stopped.
    Stop,
    /// Its daemon has died. On a store that nodes share, this is known of those of this machine only.
    Death,
    /// Its node on another machine is gone: it has died, or was only cut off.
    Loss,
}

impl Interruption {
    /// How many deaths of the daemon this is.
    fn crashes(self) -> u32 {
        match self {
            Self::Death => 1,
            Self::Stop | Self::Loss => 0,
        }
    }
}

/// Whether a run is executed again; if not because there were too many interruptions, what the ledger says.
#[derive(Debug)]
enum Rerun {
    Yes,
    No(Option<String>),
}

/// The machine of a node, which is the first part of a daemon's name; none if the name has another form.
fn machine(node: &str) -> Option<&str> {
    node.rsplitn(3, ':').nth(2)
}

/// What became of runs that were in flight when their node ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Runs that wait again, as their next attempt.
    pub rerun: usize,
    /// Runs that are recorded as lost.
    pub lost: usize,
}

impl Recovered {
    /// Counts a run that was decided about.
    fn count(&mut self, run: &Run) {
        if run.state.is_final() {
            self.lost += 1;
        } else {
            self.rerun += 1;
        }
    }
}

/// How often other nodes were faster with what this one tries to do.
#[derive(Debug, Default)]
pub(super) struct ConflictRetries(u32);

impl ConflictRetries {
    /// Whether it is worth trying again: another node was faster, and not for too many times.
    pub(super) fn go_on<T>(&mut self, result: &Result<T, StoreError>) -> bool {
        self.0 += 1;
        matches!(result, Err(StoreError::Conflict(_))) && self.0 <= CONFLICTS_MAX
    }
}

impl<S: Store, X: Executor> Scheduler<S, X> {
    /// Looks at the store for the first time: takes up what a crash, or a node that is gone, has left in flight.
    /// `why` is what the ledger will say of a lost run.
    pub async fn recover(&mut self, now: Timestamp, why: &str) -> Result<Recovered, StoreError> {
        let mut tries = ConflictRetries::default();
        loop {
            // Nodes that start at the same time take up the same; what another one was faster with is gone now.
            let result = self.first_recovery(now, why).await;
            if !tries.go_on(&result) {
                return result;
            }
        }
    }

    async fn first_recovery(&mut self, now: Timestamp, why: &str) -> Result<Recovered, StoreError> {
        if self.is_shared {
            self.renew_lease(now).await?;
        } else {
            self.paused_since = self.store.paused_since().await?;
        }
        self.learn_recorded().await?;
        let recovered = match self.take_over_runs(now, why).await {
            // A node that started at the same moment was faster. What it has left is taken at the next meeting.
            Err(StoreError::Conflict(_)) if self.is_shared => Recovered::default(),
            recovered => recovered?,
        };
        self.is_stale = true;
        Ok(recovered)
    }

    /// Decides about the runs of this node that were interrupted, at its end.
    pub async fn recover_own(
        &mut self,
        now: Timestamp,
        why: &str,
    ) -> Result<Recovered, StoreError> {
        let me = Arc::clone(&self.identity.node);
        let mut tries = ConflictRetries::default();
        let recovered = loop {
            // Another node may take a run over meanwhile: the others are still to be decided about.
            let result = self.recover_from(now, Holder::Node(&me), why).await;
            if !tries.go_on(&result) {
                break result?;
            }
        };
        self.executing.clear();
        self.unrecorded.clear();
        Ok(recovered)
    }

    /// Decides about each run in flight that nobody executes any more: it is this node's from now on, or lost.
    pub(super) async fn recover_from(
        &mut self,
        now: Timestamp,
        holder: Holder<'_>,
        why: &str,
    ) -> Result<Recovered, StoreError> {
        let runs = self.store.runs_in_flight(holder).await?;
        // Where there are other nodes, one of them may have the pool that this one lacks.
        let is_mine =
            |run: &Run| !self.is_shared || self.rules.executors.contains_key(&run.executor);
        let runs: Vec<Run> = runs.into_iter().filter(is_mine).collect();
        let jobs = self.jobs_of(&runs).await?;
        let begun = runs.iter().filter(|run| matches!(run.state, RunState::Running { .. }));
        let begun: Vec<Execution> = begun.map(Run::execution).collect();
        if !begun.is_empty() {
            self.executor.end_leftovers(&begun);
        }
        let mut recovered = Recovered::default();
        let mut step = Step::new(now, Arc::clone(&self.identity.node), Default::default(), None);
        for job in jobs.values() {
            step.learn(job);
        }
        for mut run in runs {
            let (held_by, job) = (Arc::clone(&run.node), jobs.get(&run.job_id));
            match run.state {
                RunState::Running { started_at } => {
                    let interruption = self.interruption(holder, &run);
                    run =
                        self.decide(&mut step, job, (run, started_at), (interruption, why)).await?;
                    recovered.count(&run);
                }
                RunState::Pending if run.node == self.identity.node => continue,
                RunState::Pending => {}
                // Its row was not understood: it ends as what it was read as.
                RunState::Ended { .. } | RunState::Skipped { .. } => recovered.lost += 1,
            }
            if !run.state.is_final() {
                run.node = Arc::clone(&self.identity.node);
            }
            let run = Arc::new(run);
            if run.state.is_final() {
                step.ended.push(Arc::clone(&run));
            }
            step.note(Change::UpdateRun { run, held_by });
        }
        let changes = step.changes(|_| None);
        if !changes.is_empty() {
            // Also where the answer is lost, these runs may be this node's from now on.
            self.is_stale = true;
            self.store.commit(changes).await?;
        }
        step.notes.iter().for_each(Note::log);
        step.ended.iter().for_each(|run| log::ended(run));
        step.beats.into_iter().for_each(|beat| self.executor.send_heartbeat(beat));
        Ok(recovered)
    }

    /// Has a run that was interrupted wait again, or records it as lost.
    async fn decide(
        &mut self,
        step: &mut Step,
        job: Option<&Arc<Job>>,
        (mut run, started_at): (Run, Timestamp),
        (interruption, why): (Interruption, &str),
    ) -> Result<Run, StoreError> {
        run.crashes = run.crashes.saturating_add(interruption.crashes());
        let limit = match self.may_rerun(job, &run, interruption) {
            Rerun::Yes => {
                step.end_attempt(&lost(run.clone(), started_at, step.now, why.to_owned()));
                run.retry_after_crash();
                return Ok(run);
            }
            Rerun::No(limit) => limit,
        };
        let run = lost(run, started_at, step.now, limit.unwrap_or_else(|| why.to_owned()));
        self.create_loss_hooks(step, job, &run).await?;
        Ok(run)
    }

    /// Creates the hook runs that report a lost run, with the output that it had written until its daemon died.
    async fn create_loss_hooks(
        &mut self,
        step: &mut Step,
        job: Option<&Arc<Job>>,
        lost: &Run,
    ) -> Result<(), StoreError> {
        let Some(job) = job.filter(|job| is_of(job, lost)) else { return Ok(()) };
        let is_told = job.policy.hooks.on_failure.is_some() || job.policy.heartbeat.is_some();
        let output = if is_told {
            self.store.load_output(&lost.id, lost.attempt).await?.unwrap_or_default()
        } else {
            Output::default()
        };
        let mut context = self.context(step);
        context.create_end_hooks(job, lost, &output);
        context.send_end_heartbeat(job, lost, &output);
        Ok(())
    }

    fn interruption(&self, holder: Holder<'_>, run: &Run) -> Interruption {
        let machine_of_run = machine(&run.node);
        let is_here = machine_of_run.is_some() && machine_of_run == machine(&self.identity.node);
        match holder {
            Holder::Node(_) => Interruption::Stop,
            Holder::Gone { .. } if is_here || !self.is_shared => Interruption::Death,
            Holder::Gone { .. } => Interruption::Loss,
        }
    }

    /// Judges a run whose count of crashes has this interruption in it.
    fn may_rerun(&self, job: Option<&Arc<Job>>, run: &Run, interruption: Interruption) -> Rerun {
        let job = job.filter(|job| job.policy.on_crash == OnCrash::Rerun && is_of(job, run));
        let Some(job) = job.filter(|_| self.rules.executors.contains_key(&run.executor)) else {
            return Rerun::No(None);
        };
        let tried = job.policy.retry.map_or(0, |retry| retry.max_attempts);
        match interruption {
            Interruption::Death if run.crashes >= self.rules.max_crashes => {
                let times = run.crashes;
                let several = || format!("the daemon died {times} times while it ran");
                Rerun::No((times > 1).then(several))
            }
            Interruption::Loss if run.attempt >= TAKEOVERS_MAX.max(tried) => {
                let attempts = run.attempt;
                Rerun::No(Some(format!(
                    "its node was gone while it ran, after {attempts} attempts"
                )))
            }
            Interruption::Stop | Interruption::Death | Interruption::Loss => Rerun::Yes,
        }
    }

    pub(super) async fn jobs_of(
        &self,
        runs: &[Run],
    ) -> Result<BTreeMap<JobId, Arc<Job>>, StoreError> {
        let ids: BTreeSet<&JobId> = runs.iter().map(|run| &run.job_id).collect();
        let ids: Vec<JobId> = ids.into_iter().cloned().collect();
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        let jobs = self.store.load_jobs(&ids).await?;
        Ok(jobs.into_iter().map(|job| (job.id.clone(), Arc::new(job))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_of_a_node_is_what_stands_before_process_and_number() {
        let names = ["host:12:0a1b", "a:b:12:0a1b", ":12:0a1b", "12:0a1b", "node", ""];
        let machines = [Some("host"), Some("a:b"), Some(""), None, None, None];
        assert_eq!(names.map(machine), machines);
    }
}
