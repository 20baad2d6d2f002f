//! What is in flight: how many workers each pool has busy, which runs wait for one, and how many
//! runs each job has. Everything here can be rebuilt from the ledger; it is kept so that the
//! scheduler need not ask.

mod instances;
mod slots;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::TimeDelta;
use serde_json::Value;

use crate::clock::Timestamp;
use crate::job::{Job, JobId, Overlap};
use crate::run::{Execution, Run, RunId};
use crate::scheduler::admission::Rules;
use crate::store::InFlightCount;
pub(crate) use instances::InstanceView;
use instances::{Instances, is_instance};
use slots::PoolSlots;
pub(crate) use slots::WaitingRun;

/// Runs of one job that wait in memory for an earlier one to end, so that one slow job does not fill its pool's queue.
const WAITING_PER_JOB_MAX: u32 = 100;

/// Due jobs of a pool that one step takes up, at least and at most; the next step follows at once. It keeps a
/// transaction short.
const DUE_PER_STEP_LEAST: usize = 64;
const DUE_PER_STEP_MOST: usize = 500;

/// A run that was started.
#[derive(Debug)]
struct StartedRun {
    pool: String,
    job_id: JobId,
    is_instance: bool,
    is_suspect: bool,
    /// By what it is tried again if it fails; nothing if its job is gone.
    job: Option<Arc<Job>>,
    /// What it reports, if it is a hook run: its next attempt reports it again.
    event: Option<Arc<Value>>,
}

/// What is known of a run that has ended.
#[derive(Debug, Default)]
pub(crate) struct FreedRun {
    /// Its job as it is, unless that is gone.
    pub(crate) job: Option<Arc<Job>>,
    /// What it reports, if it is a hook run.
    pub(crate) event: Option<Arc<Value>>,
}

/// How a pool is used.
#[derive(Debug)]
pub(crate) struct PoolUsage<'a> {
    pub(crate) name: &'a str,
    /// Workers that run something.
    pub(crate) busy: usize,
    pub(crate) max_workers: usize,
    /// Runs that wait for a worker.
    pub(crate) waiting: usize,
    /// Runs that wait for their next attempt.
    pub(crate) retrying: usize,
    /// When the earliest of those that wait was due, if no worker is free.
    pub(crate) waiting_since: Option<Timestamp>,
}

/// The pools' places and the jobs' instances.
#[derive(Debug, Default)]
pub(crate) struct Capacity {
    pools: BTreeMap<String, PoolSlots>,
    is_shared: bool,
    instances: Instances,
    running: BTreeMap<RunId, StartedRun>,
    /// Deaths of the daemon after which a run is lost.
    max_crashes: u32,
    /// Bisection that are running. This is at most one, except for runs that became suspects while they ran.
    suspects: usize,
    /// Runs that only take a worker, and their pools.
    abandoned: BTreeMap<Execution, String>,
    /// Whether a run's time has come since runs were last started.
    has_new_due: bool,
}

impl Capacity {
    /// An empty capacity with these pools. Where nodes share the work, no more of it waits here than soon gets a worker.
    pub(crate) fn new(rules: &Rules, is_shared: bool) -> Self {
        let mut capacity = Self { is_shared, ..Self::default() };
        capacity.adapt(rules);
        capacity
    }

    /// Adapts the pools to these rules. One that is gone has its place for as long as something runs in it.
    pub(crate) fn adapt(&mut self, rules: &Rules) {
        self.max_crashes = rules.max_crashes;
        for (name, settings) in &rules.executors {
            match self.pools.get_mut(name) {
                Some(slots) => slots.resize(settings.max_workers),
                None => {
                    self.pools.insert(name.clone(), PoolSlots::new(settings, self.is_shared));
                }
            }
        }
    }

    /// Due jobs of a pool to take up in one step: as many as can start, and some to wait. Fewer mean that the first of
    /// many starts sooner.
    pub(crate) fn due_per_step(&self, pool: &str) -> usize {
        let free = self.pools.get(pool).map_or(0, PoolSlots::free);
        free.clamp(DUE_PER_STEP_LEAST, DUE_PER_STEP_MOST)
    }

    /// Names of the pools that have room for another due run.
    pub(crate) fn open_pools(&self) -> Vec<String> {
        self.pools
            .iter()
            .filter(|(_, slots)| slots.accepts_due_run())
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Names of the other pools.
    pub(crate) fn closed_pools(&self) -> Vec<String> {
        let closed = self.pools.iter().filter(|(_, slots)| !slots.accepts_due_run());
        closed.map(|(name, _)| name.clone()).collect()
    }

    /// Whether the pool's queue takes another run from the schedule.
    pub(crate) fn accepts_due_run(&self, pool: &str) -> bool {
        self.pools.get(pool).is_some_and(PoolSlots::accepts_due_run)
    }

    /// Whether the pool's queue takes another run that someone asks for.
    pub(crate) fn accepts_extra_run(&self, pool: &str) -> bool {
        self.pools.get(pool).is_some_and(PoolSlots::accepts_extra_run)
    }

    /// Takes up what is in flight on other nodes.
    pub(crate) fn set_other_nodes(&mut self, in_flight: Vec<(JobId, InFlightCount)>) {
        self.instances.set_other_nodes(in_flight);
    }

    /// Whether another run of the job is within its `max_instances`, over all nodes.
    pub(crate) fn has_free_instance(&self, job: &Job) -> bool {
        self.instances.has_free_instance(job)
    }

    /// Whether another run of the job may be made now: it has an instance free, or may wait for one.
    pub(crate) fn accepts_instance(&self, job: &Job) -> bool {
        let may_wait = self.instances.here(&job.id).waiting < WAITING_PER_JOB_MAX;
        self.has_free_instance(job)
            || match job.policy.overlap {
                Overlap::Skip => false,
                Overlap::Queue => may_wait,
                Overlap::Replace => true,
            }
    }

    /// The runs of a job that were started here, the oldest first, and how many there are on all nodes.
    pub(crate) fn running_of(&self, job: &Job) -> (Vec<RunId>, usize) {
        let is_of = |place: &StartedRun| place.is_instance && place.job_id == job.id;
        let here = self.running.iter().filter(|(_, place)| is_of(place));
        let here: Vec<RunId> = here.map(|(run_id, _)| run_id.clone()).collect();
        let elsewhere = self.instances.running_elsewhere(&job.id);
        let all = here.len().saturating_add(usize::try_from(elsewhere).unwrap_or(usize::MAX));
        (here, all)
    }

    /// Whether a run of the job is in flight, a hook run included.
    pub(crate) fn has_in_flight(&self, id: &JobId) -> bool {
        self.instances.has_in_flight(id)
    }

    /// Whether a run was started here and has not ended.
    pub(crate) fn is_running(&self, run_id: &RunId) -> bool {
        self.running.contains_key(run_id)
    }

    /// The jobs of the runs that wait.
    pub(crate) fn waiting_jobs(&self) -> BTreeSet<JobId> {
        let waiting = self.pools.values().flat_map(PoolSlots::waiting);
        waiting.map(|waiting| waiting.job.id.clone()).collect()
    }

    /// Whether a run that may start only when it is known, of all nodes, that it may, waits for a worker, and its time
    /// has just come.
    pub(crate) fn newly_needs_cluster_check(&self) -> bool {
        self.has_new_due && self.needs_cluster_check()
    }

    /// Whether a run waits that may start only when it is known, of all nodes, that it may.
    pub(crate) fn needs_cluster_check(&self) -> bool {
        self.pools.values().any(PoolSlots::needs_cluster_check)
    }

    /// Runs that were started and have not ended.
    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }

    /// How each pool is used.
    pub(crate) fn usage(&self) -> impl Iterator<Item = PoolUsage<'_>> {
        self.pools.iter().map(|(name, slots)| {
            let busy = slots.busy.min(slots.max_workers);
            let (waiting, retrying) = slots.counts();
            PoolUsage {
                name,
                busy,
                max_workers: slots.max_workers,
                waiting: waiting + slots.busy - busy,
                retrying,
                waiting_since: slots.waiting_since(),
            }
        })
    }

    /// Has a run wait in its pool: for a worker, or for its time if it is tried again.
    pub(crate) fn wait(&mut self, waiting: WaitingRun, now: Timestamp) {
        let Some(slots) = self.pools.get_mut(&waiting.run.executor) else { return };
        self.instances.wait(&waiting.run);
        slots.wait(waiting, now);
    }

    /// Lets the runs queue whose time has come.
    pub(crate) fn queue_due_retries(&mut self, now: Timestamp) {
        for slots in self.pools.values_mut() {
            self.has_new_due |= slots.queue_due_retries(now);
        }
    }

    /// When the first run that waits for its time is due.
    pub(crate) fn next_retry(&self) -> Option<Timestamp> {
        self.pools.values().filter_map(PoolSlots::next_retry).min()
    }

    /// Takes from the queues what can start: the first of each pool whose job may have another run.
    pub(crate) fn take_startable(&mut self, known: InstanceView) -> Vec<WaitingRun> {
        let mut startable = Vec::new();
        self.has_new_due = false;
        for (name, slots) in &mut self.pools {
            while let Some(waiting) = slots.take_startable(start_check(
                (&self.instances, known),
                (self.max_crashes, self.suspects),
            )) {
                let is_suspect = is_suspect(&waiting.run, self.max_crashes);
                self.suspects += usize::from(is_suspect);
                self.instances.end_waiting(&waiting.run);
                self.instances.start(&waiting.run);
                let place = StartedRun {
                    pool: name.clone(),
                    job_id: waiting.job.id.clone(),
                    is_instance: is_instance(&waiting.run),
                    is_suspect,
                    job: Some(Arc::clone(&waiting.job)),
                    event: waiting.event.clone(),
                };
                self.running.insert(waiting.run.id.clone(), place);
                startable.push(waiting);
            }
        }
        startable
    }

    /// From now on, what waits has to look at the other nodes before it starts.
    pub(crate) fn require_cluster_check(&mut self) {
        self.pools.values_mut().for_each(PoolSlots::require_cluster_check);
    }

    /// Counts a run that takes a worker and is no instance of its job any more.
    pub(crate) fn add_abandoned(&mut self, run: &Run) {
        if let Some(slots) = self.pools.get_mut(&run.executor) {
            slots.busy += 1;
        }
        self.abandoned.insert(run.execution(), run.executor.clone());
    }

    /// Frees the worker of such a run.
    pub(crate) fn remove_abandoned(&mut self, execution: &Execution) {
        if let Some(pool) = self.abandoned.remove(execution)
            && let Some(slots) = self.pools.get_mut(&pool)
        {
            slots.busy = slots.busy.saturating_sub(1);
        }
    }

    /// Counts a run that is running already; `waiting` is none if its job is gone.
    pub(crate) fn restore_started(&mut self, run: &Run, waiting: Option<&WaitingRun>) {
        if let Some(slots) = self.pools.get_mut(&run.executor) {
            slots.busy += 1;
        }
        self.instances.start(run);
        let is_suspect = is_suspect(run, self.max_crashes);
        self.suspects += usize::from(is_suspect);
        let place = StartedRun {
            pool: run.executor.clone(),
            job_id: run.job_id.clone(),
            is_instance: is_instance(run),
            is_suspect,
            job: waiting.map(|waiting| Arc::clone(&waiting.job)),
            event: waiting.and_then(|waiting| waiting.event.clone()),
        };
        self.running.insert(run.id.clone(), place);
    }

    /// Frees the places of a run that has ended after so long, or that was taken from the queue and not started after
    /// all.
    pub(crate) fn free(&mut self, run_id: &RunId, took: Option<TimeDelta>) -> FreedRun {
        let Some(place) = self.running.remove(run_id) else { return FreedRun::default() };
        let StartedRun { pool, job_id, is_instance, is_suspect, job, event } = place;
        self.suspects = self.suspects.saturating_sub(usize::from(is_suspect));
        if let Some(slots) = self.pools.get_mut(&pool) {
            slots.busy = slots.busy.saturating_sub(1);
            if let Some(took) = took {
                slots.note(took);
            }
        }
        self.instances.end(&job_id, is_instance);
        FreedRun { job, event }
    }

    /// The job of a run that was started, unless it is gone.
    pub(crate) fn job_of(&self, run_id: &RunId) -> Option<&Arc<Job>> {
        self.running.get(run_id)?.job.as_ref()
    }

    /// Has runs of a job follow its new definition: those that wait, and those that may be tried again.
    pub(crate) fn redefine(&mut self, job: &Arc<Job>) {
        let count = self.instances.here(&job.id);
        if count.waiting > 0 {
            self.pools.values_mut().for_each(|slots| slots.redefine(job));
        }
        if count.running > 0 {
            let places = self.running.values_mut().filter(|place| place.job_id == job.id);
            places
                .filter_map(|place| place.job.as_mut())
                .for_each(|known| *known = Arc::clone(job));
        }
    }

    /// A job is gone: what runs of it is not tried again.
    pub(crate) fn forget_job(&mut self, job_id: &JobId) {
        if self.instances.here(job_id).running > 0 {
            let places = self.running.values_mut().filter(|place| place.job_id == *job_id);
            places.for_each(|place| place.job = None);
        }
    }

    /// Takes a run out that waits.
    pub(crate) fn take_run(&mut self, run_id: &RunId) -> Option<WaitingRun> {
        let mut pools = self.pools.values_mut();
        let waiting =
            pools.find_map(|slots| slots.take(|waiting| waiting.run.id == *run_id).pop())?;
        self.instances.end_waiting(&waiting.run);
        Some(waiting)
    }

    /// Takes the waiting runs of a job out of the queues.
    pub(crate) fn take_waiting(&mut self, job_id: &JobId) -> Vec<WaitingRun> {
        if self.instances.here(job_id).waiting == 0 {
            return Vec::new();
        }
        let is_wanted =
            |waiting: &WaitingRun| waiting.job.id == *job_id && is_instance(&waiting.run);
        let pools = self.pools.values_mut();
        let taken: Vec<WaitingRun> = pools.flat_map(|slots| slots.take(is_wanted)).collect();
        for waiting in &taken {
            self.instances.end_waiting(&waiting.run);
        }
        taken
    }
}

/// Says of a run that waits whether it may start.
fn start_check(
    (instances, known): (&Instances, InstanceView),
    (max_crashes, suspects): (u32, usize),
) -> impl Fn(&WaitingRun) -> bool {
    move |waiting| {
        let is_alone = suspects == 0 || !is_suspect(&waiting.run, max_crashes);
        is_alone && instances.may_start(waiting, known)
    }
}

/// Whether a run is lost with the next death of the daemon: a suspect. It is started only while no other suspect runs, so
/// that the run that kills the daemon does not take the others with it once more.
fn is_suspect(run: &Run, max_crashes: u32) -> bool {
    run.crashes > 0 && run.crashes.saturating_add(1) >= max_crashes
}
