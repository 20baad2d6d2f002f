//! From due to started: which jobs fall due in a step, which runs they make, and which of those
//! get a worker.

use std::sync::Arc;

use serde_json::Value;

use crate::clock::Timestamp;
use crate::executor::{Assignment, Executor, HeartbeatEvent};
use crate::job::{Job, JobState};
use crate::run::{Cause, Event, Run, SkipReason};
use crate::scheduler::hooks;
use crate::scheduler::log::Note;
use crate::scheduler::plan::{self, InstanceLimit};
use crate::scheduler::request::{PendingRequest, Request};
use crate::scheduler::state::capacity::{InstanceView, WaitingRun};
use crate::scheduler::state::due_cache::{CACHED_JOBS, FetchWindow};
use crate::scheduler::step::Step;
use crate::scheduler::step::notify::HOOK_TIMEOUT;
use crate::scheduler::{Phase, Rules, Scheduler};
use crate::store::{Claim, Store, StoreError};
use chrono::TimeDelta;

/// How far ahead a node takes jobs of a shared store: long enough that it is there in time, and short enough that
/// the nodes share what is due.
const CLAIM_AHEAD: TimeDelta = TimeDelta::seconds(5);
/// Jobs of a pool that a node takes from a shared store at once, and beyond that four for each worker.
const CLAIM_JOBS: usize = 256;

impl<S: Store, X: Executor> Scheduler<S, X> {
    /// Makes sure that what is due is in memory.
    pub(crate) async fn fill_due_cache(
        &mut self,
        step: &mut Step,
        commands: &[PendingRequest],
    ) -> Result<(), StoreError> {
        self.open_pools = self.capacity.open_pools();
        if !self.will_fire(step, commands) {
            return Ok(());
        }
        for pool in self.open_pools.clone() {
            if !self.due_cache.needs_fetch(&pool, step.now) {
                continue;
            }
            let asked = self.fetch_window(&pool, step.now);
            let claim = Claim {
                node: &self.identity.node,
                until: asked.until.unwrap_or(Timestamp::MAX_UTC),
                executors: std::slice::from_ref(&pool),
                limit: asked.limit,
                live: &self.peers.live(),
            };
            let jobs = self.store.claim_jobs(claim).await?;
            for job in &jobs {
                self.executor.note_secrets(job);
            }
            for job in self.due_cache.fill(&pool, asked, jobs) {
                mark_broken(step, job);
            }
        }
        Ok(())
    }

    /// How much of a pool's jobs to take into memory.
    fn fetch_window(&self, pool: &str, now: Timestamp) -> FetchWindow {
        if !self.is_shared {
            return FetchWindow { until: None, limit: CACHED_JOBS };
        }
        let workers = self.rules.executors.get(pool).map_or(0, |pool| pool.max_workers);
        FetchWindow {
            until: now.checked_add_signed(CLAIM_AHEAD),
            limit: workers.saturating_mul(4).clamp(CLAIM_JOBS, CACHED_JOBS),
        }
    }

    /// Who holds a job from now on, on a store that nodes share: this node, if it has it in memory.
    pub(crate) fn owner_of(&self, job: &Job) -> Option<Arc<str>> {
        let due_at = job.next().filter(|_| self.is_shared)?.due_at;
        let holds = self.due_cache.reaches(&job.executor, due_at);
        holds.then(|| Arc::clone(&self.identity.node))
    }

    fn may_fire(&self, step: &Step) -> bool {
        self.phase == Phase::Firing && step.paused_since().is_none()
    }

    /// Whether jobs may fire once these commands are applied.
    pub(crate) fn will_fire(&self, step: &Step, commands: &[PendingRequest]) -> bool {
        let mut requests = commands.iter().map(|command| &command.request);
        let ends_pause = requests.any(|request| matches!(request, Request::ResumeAll));
        self.phase == Phase::Firing && (step.paused_since().is_none() || ends_pause)
    }

    /// The jobs in memory that are due, where there is room for their runs.
    pub(crate) fn due_jobs(&self, step: &Step) -> impl Iterator<Item = &Arc<Job>> {
        let now = step.now;
        self.open_pools.iter().flat_map(move |pool| {
            self.due_cache.due_at(pool, now).take(self.capacity.due_per_step(pool))
        })
    }

    /// Plans the jobs that are due.
    pub(crate) fn fire_due(&mut self, step: &mut Step) {
        if !self.may_fire(step) {
            return;
        }
        let due = self.due_jobs(step).take(self.bisection.fire_most());
        for job in due.cloned().collect::<Vec<_>>() {
            // What this step has changed already is looked at again in the next one.
            if !step.writes(&job.id) && self.capacity.accepts_due_run(&job.executor) {
                self.fire(step, &job);
                step.fired.push(job.id.clone());
            }
        }
    }

    fn fire(&mut self, step: &mut Step, job: &Arc<Job>) {
        step.learn(job);
        let refused = self.bisection.reason_against(&job.id);
        let cannot = self.rules.can_run(job).err().map(|invalid| invalid.to_string());
        if let Some(reason) = cannot.or(refused) {
            step.notes.push(Note::Broken { job: job.id.clone(), reason: reason.clone() });
            let state = job.state.broken(reason);
            step.put(Job { state, updated_at: step.now, ..(**job).clone() });
            return;
        }
        let (has_free_instance, accepts_instance) =
            (self.capacity.has_free_instance(job), self.capacity.accepts_instance(job));
        let room = if accepts_instance { InstanceLimit::Open } else { InstanceLimit::Reached };
        let plan = plan::plan(job, step.now, room);
        let mut context = self.context(step);
        context.replace_older_runs(job, plan.runs.len());
        for skipped in plan.skipped {
            if let Some(run) = context.skip(job, skipped)
                && skipped.reason == SkipReason::Missed
            {
                context.create_hook_run(job, Event::Missed, &run, None);
            }
        }
        let planned = plan.runs.len();
        let run_count = job.run_count.saturating_add(u64::try_from(planned).unwrap_or(0));
        let needs_cluster_check = context.is_shared && (!has_free_instance || planned > 1);
        for due in plan.runs {
            let run = context.pending_run(job, Cause::Schedule, Some(due.scheduled_at), due.due_at);
            let run = Arc::new(run);
            context.step.insert_run(Arc::clone(&run));
            let waiting =
                WaitingRun { run, job: Arc::clone(job), needs_cluster_check, event: None };
            context.capacity.wait(waiting, context.step.now);
        }
        let (state, updated_at) = match plan.next {
            Some(next) => (JobState::Active { next }, job.updated_at),
            None => (JobState::Finished, step.now),
        };
        step.advance(Job { state, run_count, updated_at, ..(**job).clone() });
    }

    /// Gives waiting runs the free workers; a run that has waited too long is skipped instead.
    pub(crate) fn start_waiting(&mut self, step: &mut Step, known: InstanceView) {
        if self.phase != Phase::Firing {
            return;
        }
        loop {
            let startable = self.capacity.take_startable(known);
            if startable.is_empty() {
                break;
            }
            for waiting in startable {
                self.start(step, waiting);
            }
        }
        if self.is_shared {
            self.capacity.require_cluster_check();
        }
    }

    fn start(&mut self, step: &mut Step, waiting: WaitingRun) {
        let WaitingRun { mut run, job, needs_cluster_check, event } = waiting;
        let now = step.now;
        // What had begun when its node died is not missed: it is run again.
        let is_first = run.scheduled_at.is_some() && run.attempt == 1;
        let too_late = is_first && plan::is_missed(&job, run.due_at, now);
        if too_late {
            self.capacity.free(&run.id, None);
            Arc::make_mut(&mut run).skip(now, SkipReason::Missed);
            step.update_run(Arc::clone(&run));
            self.context(step).create_hook_run(&job, Event::Missed, &run, None);
            return;
        }
        // What tells of another run is no instance; its job may be gone by now, and must not come back.
        if needs_cluster_check && event.is_none() && !step.writes(&job.id) {
            // Two nodes that start a run of the same job at the same time change its revision, and one of them fails.
            let fresh = step.job(&job.id).unwrap_or(&job).as_ref().clone();
            step.advance(fresh);
        }
        if run.attempt == 1 {
            self.context(step).send_heartbeat(&job, &run, HeartbeatEvent::Start, String::new());
        }
        Arc::make_mut(&mut run).start(now);
        step.update_run(Arc::clone(&run));
        step.starts.push((run.executor.clone(), assignment(&run, &job, event, &self.rules)));
        self.executing.insert(run.execution(), run);
    }
}

/// A job that was found unreadable is broken from now on; it is kept.
fn mark_broken(step: &mut Step, job: Job) {
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
pub(crate) fn assignment(
    run: &Run,
    job: &Job,
    event: Option<Arc<Value>>,
    rules: &Rules,
) -> Assignment {
    let (task, timeout) = match &run.cause {
        Cause::Event { event, .. } => (hooks::task(job, *event), Some(HOOK_TIMEOUT)),
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
