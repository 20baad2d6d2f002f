//! From due to started: which jobs fall due in a step, which runs they make, and which of those
//! get a worker.

use std::sync::Arc;

use serde_json::Value;

use super::command::{Command, Request};
use super::floor::{Known, Waiting};
use super::hook;
use super::horizon::{Asked, HORIZON_JOBS};
use super::plan::{self, Room};
use super::report::Note;
use super::step::Step;
use super::telling::TELLING_LIMIT;
use super::{Phase, Rules, Scheduler};
use crate::clock::Timestamp;
use crate::executor::{Assignment, Executor, Signal};
use crate::job::{Job, JobState};
use crate::run::{Cause, Event, Run, SkipReason};
use crate::store::{Claim, Store, StoreError};
use chrono::TimeDelta;

/// How far ahead a node takes jobs of a shared store: long enough that it is there in time, and short enough that
/// the nodes share what is due.
const CLAIM_AHEAD: TimeDelta = TimeDelta::seconds(5);
/// Jobs of a pool that a node takes from a shared store at once, and beyond that four for each worker.
const CLAIM_JOBS: usize = 256;

impl<S: Store, X: Executor> Scheduler<S, X> {
    /// Makes sure that what is due is in memory.
    pub(super) async fn fill_horizon(
        &mut self,
        step: &mut Step,
        commands: &[Command],
    ) -> Result<(), StoreError> {
        self.open_pools = self.floor.open_pools();
        if !self.will_fire(step, commands) {
            return Ok(());
        }
        for pool in self.open_pools.clone() {
            if !self.horizon.needs_filling(&pool, step.now) {
                continue;
            }
            let asked = self.asked_of(&pool, step.now);
            let claim = Claim {
                node: &self.identity.node,
                until: asked.until.unwrap_or(Timestamp::MAX_UTC),
                executors: std::slice::from_ref(&pool),
                limit: asked.limit,
                live: &self.peers.live(),
            };
            let jobs = self.store.claim(claim).await?;
            for job in &jobs {
                self.executor.learn(job);
            }
            for job in self.horizon.fill(&pool, asked, jobs) {
                break_down(step, job);
            }
        }
        Ok(())
    }

    /// How much of a pool's jobs to take into memory.
    fn asked_of(&self, pool: &str, now: Timestamp) -> Asked {
        if !self.is_shared {
            return Asked { until: None, limit: HORIZON_JOBS };
        }
        let workers = self.rules.executors.get(pool).map_or(0, |pool| pool.max_workers);
        Asked {
            until: now.checked_add_signed(CLAIM_AHEAD),
            limit: workers.saturating_mul(4).clamp(CLAIM_JOBS, HORIZON_JOBS),
        }
    }

    /// Who holds a job from now on, on a store that nodes share: this node, if it has it in memory.
    pub(super) fn owner_of(&self, job: &Job) -> Option<Arc<str>> {
        let due_at = job.next().filter(|_| self.is_shared)?.due_at;
        let holds = self.horizon.reaches(&job.executor, due_at);
        holds.then(|| Arc::clone(&self.identity.node))
    }

    fn may_fire(&self, step: &Step) -> bool {
        self.phase == Phase::Firing && step.paused_since().is_none()
    }

    /// Whether jobs may fire once these commands are applied.
    pub(super) fn will_fire(&self, step: &Step, commands: &[Command]) -> bool {
        let mut requests = commands.iter().map(|command| &command.request);
        let ends_pause = requests.any(|request| matches!(request, Request::ResumeAll));
        self.phase == Phase::Firing && (step.paused_since().is_none() || ends_pause)
    }

    /// The jobs in memory that are due, where there is room for their runs.
    pub(super) fn due_jobs(&self, step: &Step) -> impl Iterator<Item = &Arc<Job>> {
        let now = step.now;
        self.open_pools.iter().flat_map(move |pool| {
            self.horizon.due_at(pool, now).take(self.floor.due_per_step(pool))
        })
    }

    /// Plans the jobs that are due.
    pub(super) fn fire_due(&mut self, step: &mut Step) {
        if !self.may_fire(step) {
            return;
        }
        let due = self.due_jobs(step).take(self.suspects.fire_most());
        for job in due.cloned().collect::<Vec<_>>() {
            // What this step has changed already is looked at again in the next one.
            if !step.writes(&job.id) && self.floor.has_room(&job.executor) {
                self.fire(step, &job);
                step.fired.push(job.id.clone());
            }
        }
    }

    fn fire(&mut self, step: &mut Step, job: &Arc<Job>) {
        step.learn(job);
        let refused = self.suspects.reason_against(&job.id);
        let cannot = self.rules.can_run(job).err().map(|invalid| invalid.to_string());
        if let Some(reason) = cannot.or(refused) {
            step.notes.push(Note::Broken { job: job.id.clone(), reason: reason.clone() });
            let state = job.state.broken(reason);
            step.put(Job { state, updated_at: step.now, ..(**job).clone() });
            return;
        }
        let (is_free, admits) = (self.floor.is_free(job), self.floor.admits(job));
        let room = if admits { Room::Free } else { Room::Taken };
        let plan = plan::plan(job, step.now, room);
        let mut desk = self.desk(step);
        desk.make_room(job, plan.runs.len());
        for skipped in plan.skipped {
            if let Some(run) = desk.skip(job, skipped)
                && skipped.reason == SkipReason::Missed
            {
                desk.tell(job, Event::Missed, &run, None);
            }
        }
        let planned = plan.runs.len();
        let run_count = job.run_count.saturating_add(u64::try_from(planned).unwrap_or(0));
        let is_contested = desk.is_shared && (!is_free || planned > 1);
        for due in plan.runs {
            let run = desk.pending_run(job, Cause::Schedule, Some(due.scheduled_at), due.due_at);
            let run = Arc::new(run);
            desk.step.insert_run(Arc::clone(&run));
            let waiting = Waiting { run, job: Arc::clone(job), is_contested, event: None };
            desk.floor.wait(waiting, desk.step.now);
        }
        let (state, updated_at) = match plan.next {
            Some(next) => (JobState::Active { next }, job.updated_at),
            None => (JobState::Finished, step.now),
        };
        step.advance(Job { state, run_count, updated_at, ..(**job).clone() });
    }

    /// Gives waiting runs the free workers; a run that has waited too long is skipped instead.
    pub(super) fn start_waiting(&mut self, step: &mut Step, known: Known) {
        if self.phase != Phase::Firing {
            return;
        }
        loop {
            let startable = self.floor.take_startable(known);
            if startable.is_empty() {
                break;
            }
            for waiting in startable {
                self.start(step, waiting);
            }
        }
        if self.is_shared {
            self.floor.contest();
        }
    }

    fn start(&mut self, step: &mut Step, waiting: Waiting) {
        let Waiting { mut run, job, is_contested, event } = waiting;
        let now = step.now;
        // What had begun when its node died is not missed: it is run again.
        let is_first = run.scheduled_at.is_some() && run.attempt == 1;
        let too_late = is_first && plan::is_missed(&job, run.due_at, now);
        if too_late {
            self.floor.free(&run.id, None);
            Arc::make_mut(&mut run).skip(now, SkipReason::Missed);
            step.update_run(Arc::clone(&run));
            self.desk(step).tell(&job, Event::Missed, &run, None);
            return;
        }
        // What tells of another run is no instance; its job may be gone by now, and must not come back.
        if is_contested && event.is_none() && !step.writes(&job.id) {
            // Two nodes that start a run of the same job at the same time change its revision, and one of them fails.
            let fresh = step.job(&job.id).unwrap_or(&job).as_ref().clone();
            step.advance(fresh);
        }
        if run.attempt == 1 {
            self.desk(step).beat(&job, &run, Signal::Start, String::new());
        }
        Arc::make_mut(&mut run).start(now);
        step.update_run(Arc::clone(&run));
        step.starts.push((run.executor.clone(), assignment(&run, &job, event, &self.rules)));
        self.executing.insert(run.execution(), run);
    }
}

/// A job that was found unreadable is broken from now on; it is kept.
fn break_down(step: &mut Step, job: Job) {
    if step.writes(&job.id) {
        return;
    }
    if let JobState::Broken { reason, .. } = &job.state {
        let note = Note::Broken { job: job.id.clone(), reason: reason.clone() };
        step.notes.push(note);
        step.learn(&Arc::new(job.clone()));
        // What was not understood stays in the store as it is.
        step.advance(Job { updated_at: step.now, ..job });
    }
}

/// A run as its executor gets it. `event` is what a hook run reports.
pub(super) fn assignment(
    run: &Run,
    job: &Job,
    event: Option<Arc<Value>>,
    rules: &Rules,
) -> Assignment {
    let (task, timeout) = match &run.cause {
        Cause::Event { event, .. } => (hook::task(job, *event), Some(TELLING_LIMIT)),
        Cause::Schedule | Cause::Manual => {
            (None, job.policy.timeout.and_then(|timeout| timeout.to_std().ok()))
        }
    };
    let task = task.unwrap_or(&job.task);
    let checked = rules.check_secrets(job, task).map_err(|invalid| invalid.within("task"));
    Assignment {
        forbidden: checked.err().map(|invalid| invalid.to_string()),
        run_id: run.id.clone(),
        job_id: run.job_id.clone(),
        attempt: run.attempt,
        scheduled_at: run.scheduled_at,
        task: Arc::clone(task),
        timeout,
        event,
    }
}
