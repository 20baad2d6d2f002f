//! The scheduler: [`Scheduler::tick`] takes the time and what has arrived, decides, writes it all
//! in one transaction, acts on it, and says when it wants to be called again.
//!
//! It has no clock, no timer and no lock: whoever calls `tick` (the daemon's loop, a test, a
//! simulation) brings the time. Its own state can be rebuilt from the store at any moment, and is,
//! whenever a write may or may not have happened.

pub mod admission;
mod alarm;
mod apply;
pub mod command;
mod floor;
pub mod handle;
mod horizon;
mod plan;
mod recovery;
mod report;
pub mod serve;
mod step;

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::watch;

use crate::clock::Timestamp;
use crate::executor::{Assignment, Completion, Executor};
use crate::job::{Job, JobId, JobState};
use crate::run::{Cause, Run, RunId, RunIds, SkipReason};
use crate::store::{Store, StoreError};
use admission::Rules;
use apply::Desk;
use command::{Command, Refusal, Request};
use floor::{Floor, Waiting};
use handle::Status;
use horizon::{HORIZON_JOBS, Horizon, Next};
use plan::Room;
use step::{Reply, Step};

/// Due jobs that one tick takes up; the next tick follows at once. It keeps a transaction short.
const DUE_PER_TICK: usize = 500;

/// Whether runs are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Firing,
    Draining,
}

/// Decides what runs when.
#[derive(Debug)]
pub struct Scheduler<S, X> {
    store: S,
    executor: X,
    rules: Rules,
    ids: RunIds,
    node: String,
    floor: Floor,
    /// Runs that this process has started and not yet recorded the end of.
    executing: BTreeMap<RunId, Run>,
    /// Completions that are not yet in the ledger.
    unrecorded: Vec<Completion>,
    horizon: Horizon,
    /// The pools that had room when the horizon was filled.
    open_pools: Vec<String>,
    /// Whether a write failed, so that what is held in memory may be wrong.
    stale: bool,
    phase: Phase,
    /// Since when no job fires, if someone paused the scheduler.
    paused_since: Option<Timestamp>,
    status: watch::Sender<Status>,
}

impl<S: Store, X: Executor> Scheduler<S, X> {
    /// A scheduler that has not looked at its store yet. `seed` keeps its run ids apart from those of others.
    pub fn new(store: S, executor: X, rules: Rules, node: String, seed: u64) -> Self {
        let floor = Floor::new(&rules.executors);
        Self {
            store,
            executor,
            rules,
            ids: RunIds::new(seed),
            node,
            floor,
            executing: BTreeMap::new(),
            unrecorded: Vec::new(),
            horizon: Horizon::default(),
            open_pools: Vec::new(),
            stale: false,
            phase: Phase::Firing,
            paused_since: None,
            status: watch::Sender::new(Status::default()),
        }
    }

    /// Where the scheduler tells, after every step, how it stands.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// What runs are executed with.
    pub fn executor(&mut self) -> &mut X {
        &mut self.executor
    }

    /// From now on nothing is started; what runs may end.
    pub fn drain(&mut self) {
        self.phase = Phase::Draining;
    }

    /// Runs that were started and whose end is not recorded.
    pub fn running(&self) -> usize {
        self.floor.running()
    }

    /// One step: records what has ended, does what was asked, fires what is due, starts what has a place. All of it
    /// is written in one transaction before anything is started or answered. Returns when to call again.
    pub async fn tick(
        &mut self,
        now: Timestamp,
        commands: Vec<Command>,
        completions: Vec<Completion>,
    ) -> Result<Option<Timestamp>, StoreError> {
        let result = self.step(now, commands, completions).await;
        if let Err(error) = &result {
            self.status.send_modify(|status| status.store_error = Some(error.to_string()));
        }
        result
    }

    async fn step(
        &mut self,
        now: Timestamp,
        commands: Vec<Command>,
        completions: Vec<Completion>,
    ) -> Result<Option<Timestamp>, StoreError> {
        self.unrecorded.extend(completions);
        if let Err(error) = self.resync_if_stale(now).await {
            refuse_all(commands, &error);
            return Err(error);
        }
        let mut step = match self.load(now, &commands).await {
            Ok(jobs) => Step::new(now, jobs, self.paused_since),
            Err(error) => {
                refuse_all(commands, &error);
                return Err(error);
            }
        };
        self.record_completions(&mut step);
        self.apply_commands(&mut step, commands);
        if let Err(error) = self.fire_due(&mut step).await {
            return Err(self.give_up(step, error));
        }
        self.start_waiting(&mut step);
        let changes = step.changes();
        if !changes.is_empty()
            && let Err(error) = self.store.commit(&changes).await
        {
            return Err(self.give_up(step, error));
        }
        self.unrecorded.clear();
        self.act(step);
        let next = self.next_wake(now);
        self.publish(next);
        Ok(next)
    }

    /// The jobs that the commands speak of.
    async fn load(&self, now: Timestamp, commands: &[Command]) -> Result<Vec<Job>, StoreError> {
        let mut ids: BTreeSet<&JobId> = BTreeSet::new();
        let mut review = None;
        for command in commands {
            match &command.request {
                Request::Add { job, .. } => {
                    ids.insert(&job.id);
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

    fn record_completions(&mut self, step: &mut Step) {
        for completion in &self.unrecorded {
            let Some(run) = self.executing.get(&completion.run_id) else { continue };
            self.floor.free(&run.id);
            step.end_run(run.clone(), completion);
        }
    }

    fn desk<'a>(&'a mut self, step: &'a mut Step) -> Desk<'a> {
        Desk {
            step,
            floor: &mut self.floor,
            rules: &mut self.rules,
            ids: &mut self.ids,
            node: &self.node,
        }
    }

    fn apply_commands(&mut self, step: &mut Step, commands: Vec<Command>) {
        for Command { request, reply } in commands {
            let answer = match self.phase {
                Phase::Firing => self.desk(step).apply(request),
                Phase::Draining => Err(Refusal::Stopping),
            };
            step.replies.push(Reply { to: reply, answer });
        }
    }

    /// Plans the jobs that are due.
    async fn fire_due(&mut self, step: &mut Step) -> Result<(), StoreError> {
        let open = self.floor.open_pools();
        if open != self.open_pools {
            self.horizon.clear();
            self.open_pools.clone_from(&open);
        }
        if self.phase == Phase::Draining || step.paused_since().is_some() || open.is_empty() {
            return Ok(());
        }
        if self.horizon.needs_filling(step.now) {
            let jobs = self.store.due(Timestamp::MAX_UTC, &open, HORIZON_JOBS).await?;
            for job in self.horizon.fill(jobs) {
                self.fire(step, job);
            }
        }
        let due: Vec<Job> = self.horizon.due_at(step.now).take(DUE_PER_TICK).cloned().collect();
        for job in due {
            self.fire(step, job);
        }
        Ok(())
    }

    fn fire(&mut self, step: &mut Step, job: Job) {
        // What a command of this step has changed is looked at again in the next one.
        if step.knows(&job.id) {
            return;
        }
        if let JobState::Broken { reason, .. } = &job.state {
            tracing::warn!(job = %job.id, %reason, "the job is broken; it is kept, and does not fire");
            step.learn(job.clone());
            step.put(Job { updated_at: step.now, ..job });
            return;
        }
        if !self.floor.has_room(&job.executor) {
            return;
        }
        step.learn(job.clone());
        let room = if self.floor.admits(&job) { Room::Free } else { Room::Taken };
        let plan = plan::plan(&job, step.now, room);
        let mut desk = self.desk(step);
        for skipped in plan.skipped {
            let run = desk.skipped_run(&job, skipped);
            tracing::info!(job = %job.id, reason = skipped.reason.word(), count = skipped.span.count, "skipped");
            desk.step.insert_run(run);
        }
        let run_count = job.run_count.saturating_add(u64::try_from(plan.runs.len()).unwrap_or(0));
        for due in plan.runs {
            let run = desk.pending_run(&job, Cause::Schedule, Some(due.scheduled_at), due.due_at);
            desk.step.insert_run(run.clone());
            desk.floor.wait(Waiting { run, job: job.clone() });
        }
        let state = plan.next.map_or(JobState::Finished, |next| JobState::Active { next });
        step.put(Job { state, run_count, ..job });
    }

    /// Gives waiting runs the free workers; a run that has waited too long is skipped instead.
    fn start_waiting(&mut self, step: &mut Step) {
        if self.phase == Phase::Draining {
            return;
        }
        loop {
            let startable = self.floor.take_startable();
            if startable.is_empty() {
                return;
            }
            for waiting in startable {
                self.start(step, waiting);
            }
        }
    }

    fn start(&mut self, step: &mut Step, Waiting { mut run, job }: Waiting) {
        let too_late = run.scheduled_at.is_some() && plan::is_missed(&job, run.due_at, step.now);
        if too_late {
            self.floor.free(&run.id);
            run.skip(SkipReason::Missed);
            step.update_run(run);
            return;
        }
        run.start(step.now);
        run.node.clone_from(&self.node);
        step.update_run(run.clone());
        step.starts.push((run.executor.clone(), assignment(&run, job)));
        self.executing.insert(run.id.clone(), run);
    }

    /// The step is written: starts what it starts and answers whom it answers.
    fn act(&mut self, mut step: Step) {
        self.paused_since = step.paused_since();
        for run in &step.ended {
            self.executing.remove(&run.id);
            report::ended(run);
        }
        for (id, job) in step.written() {
            match job {
                Some(job) if self.open_pools.contains(&job.executor) => self.horizon.put(job),
                Some(_) | None => self.horizon.remove(&id),
            }
        }
        for (pool, assignment) in step.starts {
            self.executor.start(&pool, assignment);
        }
        for Reply { to, answer } in step.replies {
            // Nobody may be waiting any more; what was asked is done all the same.
            drop(to.send(answer));
        }
    }

    /// The step could not be written: nobody gets what he asked for, and memory is no longer trusted.
    fn give_up(&mut self, step: Step, error: StoreError) -> StoreError {
        self.stale = true;
        for (_, assignment) in &step.starts {
            self.executing.remove(&assignment.run_id);
        }
        for Reply { to, answer } in step.replies {
            let answer = answer.and_then(|_| Err(Refusal::Unavailable(error.to_string())));
            drop(to.send(answer));
        }
        error
    }

    /// When to be called again, if nothing arrives before.
    fn next_wake(&self, now: Timestamp) -> Option<Timestamp> {
        match (self.phase, self.horizon.next()) {
            (Phase::Draining, _) => None,
            // Without a pool that has room a completion is what to wait for, in a pause its end.
            (Phase::Firing, _) if self.open_pools.is_empty() || self.paused_since.is_some() => None,
            (Phase::Firing, Next::Unknown) => Some(now),
            (Phase::Firing, Next::At(at)) => at,
        }
    }

    fn publish(&self, next_wake: Option<Timestamp>) {
        self.status.send_modify(|status| {
            status.steps = status.steps.wrapping_add(1);
            status.next_wake = next_wake;
            status.running = self.floor.running();
            status.paused_since = self.paused_since;
            status.store_error = None;
            status.draining = self.phase == Phase::Draining;
            status.pools.clear();
            status.pools.extend(self.floor.usage().map(handle::PoolStatus::from));
        });
    }
}

fn assignment(run: &Run, job: Job) -> Assignment {
    Assignment {
        run_id: run.id.clone(),
        job_id: job.id,
        attempt: run.attempt,
        scheduled_at: run.scheduled_at,
        task: job.task,
    }
}

fn refuse_all(commands: Vec<Command>, error: &StoreError) {
    for command in commands {
        drop(command.reply.send(Err(Refusal::Unavailable(error.to_string()))));
    }
}
