//! What is in flight: how many workers each pool has busy, which runs wait for one, and how many
//! runs each job has. Everything here can be rebuilt from the ledger; it is kept so that the
//! scheduler need not ask.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use chrono::TimeDelta;

use crate::executor::{AHEAD_MAX, ExecutorKind, PoolSettings};
use crate::job::{Job, JobId, OnCrash, Overlap};
use crate::run::{Execution, Run, RunId};
use crate::store::InFlight;

/// Runs that wait in memory for a worker of one pool. What falls due beyond that waits in the store.
pub(super) const QUEUE_LIMIT: usize = 1000;

/// Runs of one job that wait in memory for an earlier one to end, so that one slow job does not fill its pool's queue.
const QUEUE_LIMIT_PER_JOB: u32 = 100;

/// Due jobs of a pool that one step takes up, at least and at most; the next step follows at once. It keeps a
/// transaction short.
const DUE_PER_STEP_LEAST: usize = 64;
const DUE_PER_STEP_MOST: usize = 500;

/// How long a run that was handed over may have to wait for its worker, in microseconds, if runs take as long as usual.
const AHEAD_MICROS: u64 = 5000;

/// A run that waits for a worker, or for an earlier run of its job to end.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub(super) run: Arc<Run>,
    pub(super) job: Arc<Job>,
    /// Whether another node may start a run of its job before it: because it was made beyond `max_instances`, or has
    /// waited since an earlier step. Then it may start only when it is known, of all nodes, that it may.
    pub(super) is_contested: bool,
}

/// Whether what runs on other nodes has been asked for in this step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// Of this node alone.
    Here,
    /// Of all nodes.
    Everywhere,
}

#[derive(Debug)]
struct Slots {
    max_workers: usize,
    busy: usize,
    queue: VecDeque<Waiting>,
    /// Due runs that the queue takes from the schedule.
    queue_limit: usize,
    /// Whether runs can be handed over before a worker is free.
    takes_ahead: bool,
    /// How long runs took lately, in microseconds.
    usual_micros: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    running: u32,
    waiting: u32,
}

impl Slots {
    fn new(settings: &PoolSettings, is_shared: bool) -> Self {
        Self {
            max_workers: settings.max_workers,
            busy: 0,
            queue: VecDeque::new(),
            queue_limit: if is_shared { settings.max_workers } else { QUEUE_LIMIT },
            takes_ahead: settings.kind == ExecutorKind::ThreadPool,
            // Until it is known, a run is taken to be long.
            usual_micros: AHEAD_MICROS,
        }
    }

    /// Runs that may be handed over beyond the workers: as many as are done in a moment. Were it none, workers whose
    /// runs are short would wait for the disk most of the time.
    fn ahead(&self) -> usize {
        let per_worker = AHEAD_MICROS / self.usual_micros.max(1);
        let ahead = usize::try_from(per_worker).unwrap_or(usize::MAX).saturating_sub(1);
        if self.takes_ahead { ahead.saturating_mul(self.max_workers).min(AHEAD_MAX) } else { 0 }
    }

    /// Whether the queue takes another run from the schedule.
    fn has_room(&self) -> bool {
        self.queue.len() < self.queue_limit
    }

    /// Places for runs that can be handed over now.
    fn free(&self) -> usize {
        (self.max_workers + self.ahead()).saturating_sub(self.busy)
    }

    /// A run has taken so long.
    fn note(&mut self, took: TimeDelta) {
        let micros = u64::try_from(took.num_microseconds().unwrap_or(i64::MAX)).unwrap_or(0);
        // A long one counts at once, short ones have to be many.
        self.usual_micros = micros.max((7 * self.usual_micros.min(AHEAD_MICROS) + micros) / 8);
    }

    /// The first waiting run that may start, if there is a place for it.
    fn take_startable(&mut self, may_start: impl Fn(&Waiting) -> bool) -> Option<Waiting> {
        if self.free() == 0 {
            return None;
        }
        // Before a worker is free only what may be run again: else a crash would lose what had not begun.
        let is_ahead = self.busy >= self.max_workers;
        let may_start = |waiting: &Waiting| {
            may_start(waiting) && (!is_ahead || waiting.job.policy.on_crash == OnCrash::Rerun)
        };
        let position = self.queue.iter().position(may_start)?;
        self.busy += 1;
        self.queue.remove(position)
    }
}

/// The runs in flight of each job.
#[derive(Debug, Default)]
struct Instances {
    here: BTreeMap<JobId, Count>,
    /// On other nodes, as far as is known.
    elsewhere: BTreeMap<JobId, InFlight>,
}

impl Instances {
    fn here(&self, id: &JobId) -> Count {
        self.here.get(id).copied().unwrap_or_default()
    }

    /// Whether another run of the job is within its `max_instances`, over all nodes.
    fn is_free(&self, job: &Job) -> bool {
        let Count { running, waiting } = self.here(&job.id);
        let elsewhere = self.elsewhere.get(&job.id).copied().unwrap_or_default();
        let all = [running, waiting, elsewhere.running, elsewhere.waiting];
        all.into_iter().fold(0, u32::saturating_add) < job.policy.max_instances
    }

    fn may_start(&self, waiting: &Waiting, known: Known) -> bool {
        let job = &waiting.job;
        let there = self.elsewhere.get(&job.id).map_or(0, |count| count.running);
        let running = self.here(&job.id).running.saturating_add(there);
        let is_known = !waiting.is_contested || known == Known::Everywhere;
        is_known && running < job.policy.max_instances
    }
}

/// The pools' places and the jobs' instances.
#[derive(Debug, Default)]
pub(super) struct Floor {
    pools: BTreeMap<String, Slots>,
    instances: Instances,
    running: BTreeMap<RunId, (JobId, String)>,
    /// Runs that only take a worker, and their pools.
    abandoned: BTreeMap<Execution, String>,
}

impl Floor {
    /// An empty floor with these pools. Where nodes share the work, no more of it waits here than soon gets a worker.
    pub(super) fn new(pools: &BTreeMap<String, PoolSettings>, is_shared: bool) -> Self {
        let slots = |(name, settings): (&String, &PoolSettings)| {
            (name.clone(), Slots::new(settings, is_shared))
        };
        Self { pools: pools.iter().map(slots).collect(), ..Self::default() }
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
        self.pools.get(pool).is_some_and(|slots| slots.queue.len() < QUEUE_LIMIT)
    }

    /// Takes up what is in flight on other nodes.
    pub(super) fn set_elsewhere(&mut self, in_flight: Vec<(JobId, InFlight)>) {
        self.instances.elsewhere = in_flight.into_iter().collect();
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
        let here = self.running.iter().filter(|(_, (job_id, _))| *job_id == job.id);
        let here: Vec<RunId> = here.map(|(run_id, _)| run_id.clone()).collect();
        let elsewhere = self.instances.elsewhere.get(&job.id).map_or(0, |count| count.running);
        let all = here.len().saturating_add(usize::try_from(elsewhere).unwrap_or(usize::MAX));
        (here, all)
    }

    /// The jobs of the runs that wait.
    pub(super) fn waiting_jobs(&self) -> BTreeSet<JobId> {
        let waiting = self.pools.values().flat_map(|slots| slots.queue.iter());
        waiting.map(|waiting| waiting.job.id.clone()).collect()
    }

    /// Whether a run waits that may start only when it is known, of all nodes, that it may.
    pub(super) fn has_contested(&self) -> bool {
        let mut waiting = self.pools.values().flat_map(|slots| slots.queue.iter());
        waiting.any(|waiting| waiting.is_contested)
    }

    /// Runs that were started and have not ended.
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    /// Busy workers, workers and waiting runs of each pool.
    pub(super) fn usage(&self) -> impl Iterator<Item = (&str, usize, usize, usize)> {
        self.pools.iter().map(|(name, slots)| {
            let busy = slots.busy.min(slots.max_workers);
            (name.as_str(), busy, slots.max_workers, slots.queue.len() + slots.busy - busy)
        })
    }

    /// Puts a run at the end of its pool's queue.
    pub(super) fn wait(&mut self, waiting: Waiting) {
        let Some(slots) = self.pools.get_mut(&waiting.run.executor) else { return };
        self.instances.here.entry(waiting.job.id.clone()).or_default().waiting += 1;
        slots.queue.push_back(waiting);
    }

    /// Takes from the queues what can start: the first of each pool whose job may have another run.
    pub(super) fn take_startable(&mut self, known: Known) -> Vec<Waiting> {
        let mut startable = Vec::new();
        for (name, slots) in &mut self.pools {
            while let Some(waiting) =
                slots.take_startable(|waiting| self.instances.may_start(waiting, known))
            {
                let count = self.instances.here.entry(waiting.job.id.clone()).or_default();
                count.waiting = count.waiting.saturating_sub(1);
                count.running += 1;
                self.running.insert(waiting.run.id.clone(), (waiting.job.id.clone(), name.clone()));
                startable.push(waiting);
            }
        }
        startable
    }

    /// From now on, what waits has to look at the other nodes before it starts.
    pub(super) fn contest(&mut self) {
        let waiting = self.pools.values_mut().flat_map(|slots| slots.queue.iter_mut());
        waiting.for_each(|waiting| waiting.is_contested = true);
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

    /// Counts a run that is running already.
    pub(super) fn occupy(&mut self, run: &Run) {
        if let Some(slots) = self.pools.get_mut(&run.executor) {
            slots.busy += 1;
        }
        self.instances.here.entry(run.job_id.clone()).or_default().running += 1;
        self.running.insert(run.id.clone(), (run.job_id.clone(), run.executor.clone()));
    }

    /// Frees the places of a run that has ended after so long, or that was taken from the queue and not started after all.
    pub(super) fn free(&mut self, run_id: &RunId, took: Option<TimeDelta>) {
        let Some((job_id, pool)) = self.running.remove(run_id) else { return };
        if let Some(slots) = self.pools.get_mut(&pool) {
            slots.busy = slots.busy.saturating_sub(1);
            if let Some(took) = took {
                slots.note(took);
            }
        }
        if let Some(count) = self.instances.here.get_mut(&job_id) {
            count.running = count.running.saturating_sub(1);
            if count.running == 0 && count.waiting == 0 {
                self.instances.here.remove(&job_id);
            }
        }
    }

    /// Has waiting runs of a job follow its new definition.
    pub(super) fn redefine(&mut self, job: &Arc<Job>) {
        if self.instances.here.get(&job.id).is_some_and(|count| count.waiting > 0) {
            let waiting = self.pools.values_mut().flat_map(|slots| slots.queue.iter_mut());
            waiting
                // A task of another executor could not run in the pool in which this one waits.
                .filter(|waiting| waiting.job.id == job.id && waiting.run.executor == job.executor)
                .for_each(|waiting| waiting.job = Arc::clone(job));
        }
    }

    /// Takes the waiting runs of a job out of the queues.
    pub(super) fn take_waiting(&mut self, job_id: &JobId) -> Vec<Arc<Run>> {
        let mut taken = Vec::new();
        if self.instances.here.get(job_id).is_none_or(|count| count.waiting == 0) {
            return taken;
        }
        for slots in self.pools.values_mut() {
            let (of_job, others) =
                slots.queue.drain(..).partition(|waiting| waiting.job.id == *job_id);
            slots.queue = others;
            taken.extend(VecDeque::into_iter(of_job).map(|waiting| waiting.run));
        }
        if let Some(count) = self.instances.here.get_mut(job_id) {
            count.waiting = 0;
        }
        taken
    }
}
