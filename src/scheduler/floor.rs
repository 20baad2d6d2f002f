//! What is in flight: how many workers each pool has busy, which runs wait for one, and how many
//! runs each job has. Everything here can be rebuilt from the ledger; it is kept so that the
//! scheduler need not ask.

use std::collections::{BTreeMap, VecDeque};

use crate::executor::PoolSettings;
use crate::job::{Job, JobId, Overlap};
use crate::run::{Run, RunId};

/// Runs that wait in memory for a worker of one pool. What falls due beyond that waits in the store.
pub(super) const QUEUE_LIMIT: usize = 1000;

/// Runs of one job that wait in memory for an earlier one to end, so that one slow job does not fill its pool's queue.
const QUEUE_LIMIT_PER_JOB: u32 = 100;

/// A run that waits for a worker, or for an earlier run of its job to end.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub(super) run: Run,
    pub(super) job: Job,
}

#[derive(Debug)]
struct Slots {
    max_workers: usize,
    busy: usize,
    queue: VecDeque<Waiting>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    running: u32,
    waiting: u32,
}

impl Slots {
    /// The first waiting run whose job may have another one, if a worker is free for it.
    fn take_startable(&mut self, jobs: &BTreeMap<JobId, Count>) -> Option<Waiting> {
        if self.busy >= self.max_workers {
            return None;
        }
        let running = |id: &JobId| jobs.get(id).map_or(0, |count| count.running);
        let may_start =
            |waiting: &Waiting| running(&waiting.job.id) < waiting.job.policy.max_instances;
        let position = self.queue.iter().position(may_start)?;
        self.busy += 1;
        self.queue.remove(position)
    }
}

/// The pools' places and the jobs' instances.
#[derive(Debug, Default)]
pub(super) struct Floor {
    pools: BTreeMap<String, Slots>,
    jobs: BTreeMap<JobId, Count>,
    running: BTreeMap<RunId, (JobId, String)>,
}

impl Floor {
    /// An empty floor with these pools.
    pub(super) fn new(pools: &BTreeMap<String, PoolSettings>) -> Self {
        let slots = |settings: &PoolSettings| Slots {
            max_workers: settings.max_workers,
            busy: 0,
            queue: VecDeque::new(),
        };
        let pools = pools.iter().map(|(name, settings)| (name.clone(), slots(settings))).collect();
        Self { pools, ..Self::default() }
    }

    /// Names of the pools that have room for another due run.
    pub(super) fn open_pools(&self) -> Vec<String> {
        self.pools
            .iter()
            .filter(|(_, slots)| slots.queue.len() < QUEUE_LIMIT)
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Whether the pool's queue takes another run.
    pub(super) fn has_room(&self, pool: &str) -> bool {
        self.pools.get(pool).is_some_and(|slots| slots.queue.len() < QUEUE_LIMIT)
    }

    /// Whether another run of the job may be made now: it has an instance free, or may wait for one.
    pub(super) fn admits(&self, job: &Job) -> bool {
        let Count { running, waiting } = self.jobs.get(&job.id).copied().unwrap_or_default();
        let is_free = running.saturating_add(waiting) < job.policy.max_instances;
        is_free || (job.policy.overlap == Overlap::Queue && waiting < QUEUE_LIMIT_PER_JOB)
    }

    /// Runs that were started and have not ended.
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    /// Busy workers, workers and waiting runs of each pool.
    pub(super) fn usage(&self) -> impl Iterator<Item = (&str, usize, usize, usize)> {
        self.pools
            .iter()
            .map(|(name, slots)| (name.as_str(), slots.busy, slots.max_workers, slots.queue.len()))
    }

    /// Puts a run at the end of its pool's queue.
    pub(super) fn wait(&mut self, waiting: Waiting) {
        let Some(slots) = self.pools.get_mut(&waiting.run.executor) else { return };
        self.jobs.entry(waiting.job.id.clone()).or_default().waiting += 1;
        slots.queue.push_back(waiting);
    }

    /// Takes from the queues what can start: the first of each pool whose job may have another run.
    pub(super) fn take_startable(&mut self) -> Vec<Waiting> {
        let mut startable = Vec::new();
        for (name, slots) in &mut self.pools {
            while let Some(waiting) = slots.take_startable(&self.jobs) {
                let count = self.jobs.entry(waiting.job.id.clone()).or_default();
                count.waiting = count.waiting.saturating_sub(1);
                count.running += 1;
                self.running.insert(waiting.run.id.clone(), (waiting.job.id.clone(), name.clone()));
                startable.push(waiting);
            }
        }
        startable
    }

    /// Counts a run that is running already.
    pub(super) fn occupy(&mut self, run: &Run) {
        if let Some(slots) = self.pools.get_mut(&run.executor) {
            slots.busy += 1;
        }
        self.jobs.entry(run.job_id.clone()).or_default().running += 1;
        self.running.insert(run.id.clone(), (run.job_id.clone(), run.executor.clone()));
    }

    /// Frees the places of a run that has ended, or that was taken from the queue and not started after all.
    pub(super) fn free(&mut self, run_id: &RunId) {
        let Some((job_id, pool)) = self.running.remove(run_id) else { return };
        if let Some(slots) = self.pools.get_mut(&pool) {
            slots.busy = slots.busy.saturating_sub(1);
        }
        if let Some(count) = self.jobs.get_mut(&job_id) {
            count.running = count.running.saturating_sub(1);
            if count.running == 0 && count.waiting == 0 {
                self.jobs.remove(&job_id);
            }
        }
    }

    /// Has waiting runs of a job follow its new definition.
    pub(super) fn redefine(&mut self, job: &Job) {
        if self.jobs.get(&job.id).is_some_and(|count| count.waiting > 0) {
            let waiting = self.pools.values_mut().flat_map(|slots| slots.queue.iter_mut());
            waiting
                .filter(|waiting| waiting.job.id == job.id)
                .for_each(|waiting| waiting.job = job.clone());
        }
    }

    /// Takes the waiting runs of a job out of the queues.
    pub(super) fn take_waiting(&mut self, job_id: &JobId) -> Vec<Run> {
        let mut taken = Vec::new();
        if self.jobs.get(job_id).is_none_or(|count| count.waiting == 0) {
            return taken;
        }
        for slots in self.pools.values_mut() {
            let (of_job, others) =
                slots.queue.drain(..).partition(|waiting| waiting.job.id == *job_id);
            slots.queue = others;
            taken.extend(VecDeque::into_iter(of_job).map(|waiting| waiting.run));
        }
        if let Some(count) = self.jobs.get_mut(job_id) {
            count.waiting = 0;
        }
        taken
    }
}
