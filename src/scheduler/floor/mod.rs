//! What is in flight: how many workers each pool has busy, which runs wait for one, and how many
//! runs each job has. Everything here can be rebuilt from the ledger; it is kept so that the
//! scheduler need not ask.

mod instances;
mod slots;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::TimeDelta;
use serde_json::Value;

use super::admission::Rules;
use crate::clock::Timestamp;
use crate::job::{Job, JobId, Overlap};
use crate::run::{Execution, Run, RunId};
use crate::store::InFlight;
pub(super) use instances::Known;
use instances::{Instances, is_instance};
use slots::Slots;
pub(super) use slots::Waiting;

/// Runs of one job that wait in memory for an earlier one to end, so that one slow job does not fill its pool's queue.
const QUEUE_LIMIT_PER_JOB: u32 = 100;

/// Due jobs of a pool that one step takes up, at least and at most; the next step follows at once. It keeps a
/// transaction short.
const DUE_PER_STEP_LEAST: usize = 64;
const DUE_PER_STEP_MOST: usize = 500;

/// A run that was started.
#[derive(Debug)]
struct Place {
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
pub(super) struct Freed {
    /// Its job as it is, unless that is gone.
    pub(super) job: Option<Arc<Job>>,
    /// What it reports, if it is a hook run.
    pub(super) event: Option<Arc<Value>>,
}

/// How a pool is used.
#[derive(Debug)]
pub(super) struct Usage<'a> {
    pub(super) name: &'a str,
    /// Workers that run something.
    pub(super) busy: usize,
    pub(super) max_workers: usize,
    /// Runs that wait for a worker.
    pub(super) waiting: usize,
    /// Runs that wait for their next attempt.
    pub(super) retrying: usize,
    /// When the earliest of those that wait was due, if no worker is free.
    pub(super) waiting_since: Option<Timestamp>,
}

/// The pools' places and the jobs' instances.
#[derive(Debug, Default)]
pub(super) struct Floor {
    pools: BTreeMap<String, Slots>,
    is_shared: bool,
    instances: Instances,
    running: BTreeMap<RunId, Place>,
    /// Deaths of the daemon after which a run is lost.
    max_crashes: u32,
    /// Suspects that are running. This is at most one, except for runs that became suspects while they ran.
    suspects: usize,
    /// Runs that only take a worker, and their pools.
    abandoned: BTreeMap<Execution, String>,
    /// Whether a run's time has come since runs were last started.
    woke: bool,
}

impl Floor {
    /// An empty floor with these pools. Where nodes share the work, no more of it waits here than soon gets a worker.
    pub(super) fn new(rules: &Rules, is_shared: bool) -> Self {
        let mut floor = Self { is_shared, ..Self::default() };
        floor.adapt(rules);
        floor
    }

    /// Adapts the pools to these rules. One that is gone has its place for as long as something runs in it.
    pub(super) fn adapt(&mut self, rules: &Rules) {
        self.max_crashes = rules.max_crashes;
        for (name, settings) in &rules.executors {
            match self.pools.get_mut(name) {
                Some(slots) => slots.resize(settings.max_workers),
                None => {
                    self.pools.insert(name.clone(), Slots::new(settings, self.is_shared));
                }
            }
        }
    }

    /// Due jobs of a pool to take up in one step: as many as can start, and some to wait. Fewer mean that the first of
    /// many starts sooner.
    pub(super) fn due_per_step(&self, pool: &str) -> usize {
        let free = self.pools.get(pool).map_or(0, Slots::free);
        free.clamp(DUE_PER_STEP_LEAST, DUE_PER_STEP_MOST)
    }

    /// Names of the pools that have room for another due run.
    pub(super) fn open_pools(&self) -> Vec<String> {
        self.pools
            .iter()
            .filter(|(_, slots)| slots.has_room())
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Names of the other pools.
    pub(super) fn closed_pools(&self) -> Vec<String> {
        let closed = self.pools.iter().filter(|(_, slots)| !slots.has_room());
        closed.map(|(name, _)| name.clone()).collect()
    }

    /// Whether the pool's queue takes another run from the schedule.
    pub(super) fn has_room(&self, pool: &str) -> bool {
        self.pools.get(pool).is_some_and(Slots::has_room)
    }

    /// Whether the pool's queue takes another run that someone asks for.
    pub(super) fn has_place(&self, pool: &str) -> bool {
        self.pools.get(pool).is_some_and(Slots::has_place)
    }

    /// Takes up what is in flight on other nodes.
    pub(super) fn set_elsewhere(&mut self, in_flight: Vec<(JobId, InFlight)>) {
        self.instances.set_elsewhere(in_flight);
    }

    /// Whether another run of the job is within its `max_instances`, over all nodes.
    pub(super) fn is_free(&self, job: &Job) -> bool {
        self.instances.is_free(job)
    }

    /// Whether another run of the job may be made now: it has an instance free, or may wait for one.
    pub(super) fn admits(&self, job: &Job) -> bool {
        let may_wait = self.instances.here(&job.id).waiting < QUEUE_LIMIT_PER_JOB;
        self.is_free(job)
            || match job.policy.overlap {
                Overlap::Skip => false,
                Overlap::Queue => may_wait,
                Overlap::Replace => true,
            }
    }

    /// The runs of a job that were started here, the oldest first, and how many there are on all nodes.
    pub(super) fn running_of(&self, job: &Job) -> (Vec<RunId>, usize) {
        let is_of = |place: &Place| place.is_instance && place.job_id == job.id;
        let here = self.running.iter().filter(|(_, place)| is_of(place));
        let here: Vec<RunId> = here.map(|(run_id, _)| run_id.clone()).collect();
        let elsewhere = self.instances.running_elsewhere(&job.id);
        let all = here.len().saturating_add(usize::try_from(elsewhere).unwrap_or(usize::MAX));
        (here, all)
    }

    /// Whether a run of the job is in flight, a hook run included.
    pub(super) fn has_in_flight(&self, id: &JobId) -> bool {
        self.instances.has_in_flight(id)
    }

    /// Whether a run was started here and has not ended.
    pub(super) fn is_running(&self, run_id: &RunId) -> bool {
        self.running.contains_key(run_id)
    }

    /// The jobs of the runs that wait.
    pub(super) fn waiting_jobs(&self) -> BTreeSet<JobId> {
        let waiting = self.pools.values().flat_map(Slots::waiting);
        waiting.map(|waiting| waiting.job.id.clone()).collect()
    }

    /// Whether a run that may start only when it is known, of all nodes, that it may, waits for a worker, and its time
    /// has just come.
    pub(super) fn has_woken_contested(&self) -> bool {
        self.woke && self.has_contested()
    }

    /// Whether a run waits that may start only when it is known, of all nodes, that it may.
    pub(super) fn has_contested(&self) -> bool {
        self.pools.values().any(Slots::has_contested)
    }

    /// Runs that were started and have not ended.
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    /// How each pool is used.
    pub(super) fn usage(&self) -> impl Iterator<Item = Usage<'_>> {
        self.pools.iter().map(|(name, slots)| {
            let busy = slots.busy.min(slots.max_workers);
            let (waiting, retrying) = slots.counts();
            Usage {
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
    pub(super) fn wait(&mut self, waiting: Waiting, now: Timestamp) {
        let Some(slots) = self.pools.get_mut(&waiting.run.executor) else { return };
        self.instances.wait(&waiting.run);
        slots.wait(waiting, now);
    }

    /// Lets the runs queue whose time has come.
    pub(super) fn wake(&mut self, now: Timestamp) {
        for slots in self.pools.values_mut() {
            self.woke |= slots.wake(now);
        }
    }

    /// When the first run that waits for its time is due.
    pub(super) fn next_retry(&self) -> Option<Timestamp> {
        self.pools.values().filter_map(Slots::next_retry).min()
    }

    /// Takes from the queues what can start: the first of each pool whose job may have another run.
    pub(super) fn take_startable(&mut self, known: Known) -> Vec<Waiting> {
        let mut startable = Vec::new();
        self.woke = false;
        for (name, slots) in &mut self.pools {
            while let Some(waiting) = slots.take_startable(starter(
                (&self.instances, known),
                (self.max_crashes, self.suspects),
            )) {
                let is_suspect = is_suspect(&waiting.run, self.max_crashes);
                self.suspects += usize::from(is_suspect);
                self.instances.end_waiting(&waiting.run);
                self.instances.start(&waiting.run);
                let place = Place {
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
    pub(super) fn contest(&mut self) {
        self.pools.values_mut().for_each(Slots::contest);
    }

    /// Counts a run that takes a worker and is no instance of its job any more.
    pub(super) fn occupy_worker(&mut self, run: &Run) {
        if let Some(slots) = self.pools.get_mut(&run.executor) {
            slots.busy += 1;
        }
        self.abandoned.insert(run.execution(), run.executor.clone());
    }

    /// Frees the worker of such a run.
    pub(super) fn free_worker(&mut self, execution: &Execution) {
        if let Some(pool) = self.abandoned.remove(execution)
            && let Some(slots) = self.pools.get_mut(&pool)
        {
            slots.busy = slots.busy.saturating_sub(1);
        }
    }

    /// Counts a run that is running already; `waiting` is none if its job is gone.
    pub(super) fn occupy(&mut self, run: &Run, waiting: Option<&Waiting>) {
        if let Some(slots) = self.pools.get_mut(&run.executor) {
            slots.busy += 1;
        }
        self.instances.start(run);
        let is_suspect = is_suspect(run, self.max_crashes);
        self.suspects += usize::from(is_suspect);
        let place = Place {
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
    pub(super) fn free(&mut self, run_id: &RunId, took: Option<TimeDelta>) -> Freed {
        let Some(place) = self.running.remove(run_id) else { return Freed::default() };
        let Place { pool, job_id, is_instance, is_suspect, job, event } = place;
        self.suspects = self.suspects.saturating_sub(usize::from(is_suspect));
        if let Some(slots) = self.pools.get_mut(&pool) {
            slots.busy = slots.busy.saturating_sub(1);
            if let Some(took) = took {
                slots.note(took);
            }
        }
        self.instances.end(&job_id, is_instance);
        Freed { job, event }
    }

    /// The job of a run that was started, unless it is gone.
    pub(super) fn job_of(&self, run_id: &RunId) -> Option<&Arc<Job>> {
        self.running.get(run_id)?.job.as_ref()
    }

    /// Has runs of a job follow its new definition: those that wait, and those that may be tried again.
    pub(super) fn redefine(&mut self, job: &Arc<Job>) {
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
    pub(super) fn orphan(&mut self, job_id: &JobId) {
        if self.instances.here(job_id).running > 0 {
            let places = self.running.values_mut().filter(|place| place.job_id == *job_id);
            places.for_each(|place| place.job = None);
        }
    }

    /// Takes a run out that waits.
    pub(super) fn take_run(&mut self, run_id: &RunId) -> Option<Waiting> {
        let mut pools = self.pools.values_mut();
        let waiting =
            pools.find_map(|slots| slots.take(|waiting| waiting.run.id == *run_id).pop())?;
        self.instances.end_waiting(&waiting.run);
        Some(waiting)
    }

    /// Takes the waiting runs of a job out of the queues.
    pub(super) fn take_waiting(&mut self, job_id: &JobId) -> Vec<Waiting> {
        if self.instances.here(job_id).waiting == 0 {
            return Vec::new();
        }
        let is_wanted = |waiting: &Waiting| waiting.job.id == *job_id && is_instance(&waiting.run);
        let pools = self.pools.values_mut();
        let taken: Vec<Waiting> = pools.flat_map(|slots| slots.take(is_wanted)).collect();
        for waiting in &taken {
            self.instances.end_waiting(&waiting.run);
        }
        taken
    }
}

/// Says of a run that waits whether it may start.
fn starter(
    (instances, known): (&Instances, Known),
    (max_crashes, suspects): (u32, usize),
) -> impl Fn(&Waiting) -> bool {
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
