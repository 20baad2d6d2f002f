//! Whether another run can be taken: the runs in flight of each pool and of each job.
//!
//! A pool has worker slots and a queue of runs that wait for one. A job has up to `max_instances` instances, on all nodes
//! together. Everything here can be rebuilt from the ledger; it is kept so that the scheduler need not ask.

mod instances;
mod slots;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::TimeDelta;
use serde_json::Value;

use crate::clock::Timestamp;
use crate::executor::PoolSettings;
use crate::job::{Job, JobId, Overlap};
use crate::run::{Execution, Run, RunId};
use crate::scheduler::status::PoolStatus;
use crate::store::InFlightCount;
use instances::Instances;
pub(crate) use instances::{InstanceView, is_instance};
use slots::PoolSlots;
pub(crate) use slots::WaitingRun;

/// Most runs of one job that wait for an earlier one to end, so that one slow job does not fill its pool's queue.
const WAITING_PER_JOB_MAX: u32 = 100;

/// Due jobs of a pool that one step takes, at least and at most. The next step follows at once. The limit keeps a
/// transaction short.
const DUE_PER_STEP_LEAST: usize = 64;
const DUE_PER_STEP_MOST: usize = 500;

/// A run that was started and has not ended.
#[derive(Debug)]
struct StartedRun {
    pool: String,
    job_id: JobId,
    is_instance: bool,
    is_suspect: bool,
    /// The job whose policy decides about another attempt; `None` if it was removed.
    job: Option<Arc<Job>>,
    /// What a hook run reports: its next attempt reports it again.
    event: Option<Arc<Value>>,
}

/// What is known of a run that has ended.
#[derive(Debug, Default)]
pub(crate) struct FreedRun {
    /// The job as it is now; `None` if it was removed.
    pub(crate) job: Option<Arc<Job>>,
    /// What it reports, if it is a hook run.
    pub(crate) event: Option<Arc<Value>>,
}

#[derive(Debug, Default)]
pub(crate) struct Capacity {
    pools: BTreeMap<String, PoolSlots>,
    is_shared: bool,
    instances: Instances,
    running: BTreeMap<RunId, StartedRun>,
    /// Deaths of the daemon after which a run is lost.
    max_crashes: u32,
    /// How many crash suspects run: at most one, except for runs that became suspects while they ran.
    suspects: usize,
    /// Attempts that take a worker although their runs belong to another node, with their pools.
    abandoned: BTreeMap<Execution, String>,
    /// Whether a retry became due since runs were last started.
    has_new_due: bool,
}

impl Capacity {
    /// Nothing is in flight in these pools. On a shared store no more runs wait here than soon get a worker, so that the
    /// nodes share the work.
    pub(crate) fn new(
        pools: &BTreeMap<String, PoolSettings>,
        max_crashes: u32,
        is_shared: bool,
    ) -> Self {
        let mut capacity = Self { is_shared, ..Self::default() };
        capacity.adapt(pools, max_crashes);
        capacity
    }

    /// Adapts to new settings. A pool that is gone keeps its slots as long as something runs in it.
    pub(crate) fn adapt(&mut self, pools: &BTreeMap<String, PoolSettings>, max_crashes: u32) {
        self.max_crashes = max_crashes;
        for (name, settings) in pools {
            match self.pools.get_mut(name) {
                Some(slots) => slots.resize(settings.max_workers),
                None => {
                    self.pools.insert(name.clone(), PoolSlots::new(settings, self.is_shared));
                }
            }
        }
    }

    /// How many due jobs of a pool one step takes: as many as can start, and some to wait. With fewer, the first of many
    /// starts sooner.
    pub(crate) fn due_per_step(&self, pool: &str) -> usize {
        let free = self.pools.get(pool).map_or(0, PoolSlots::free);
        free.clamp(DUE_PER_STEP_LEAST, DUE_PER_STEP_MOST)
    }

    /// The names of the pools whose queues take another due run.
    pub(crate) fn open_pools(&self) -> Vec<String> {
        let open = self.pools.iter().filter(|(_, slots)| slots.accepts_due_run());
        open.map(|(name, _)| name.clone()).collect()
    }

    /// The names of the other pools.
    pub(crate) fn closed_pools(&self) -> Vec<String> {
        let closed = self.pools.iter().filter(|(_, slots)| !slots.accepts_due_run());
        closed.map(|(name, _)| name.clone()).collect()
    }

    /// Whether the pool's queue takes another run from the schedule.
    pub(crate) fn accepts_due_run(&self, pool: &str) -> bool {
        self.pools.get(pool).is_some_and(PoolSlots::accepts_due_run)
    }

    /// Whether the pool's queue takes another run that is not from the schedule: a manual run or a hook run.
    pub(crate) fn accepts_extra_run(&self, pool: &str) -> bool {
        self.pools.get(pool).is_some_and(PoolSlots::accepts_extra_run)
    }

    /// Whether another run of the job stays within its `max_instances`, on all nodes together.
    pub(crate) fn has_free_instance(&self, job: &Job) -> bool {
        self.instances.has_free_instance(job)
    }

    /// Whether another run of the job may be created now: it has a free instance, or may wait for one.
    pub(crate) fn accepts_instance(&self, job: &Job) -> bool {
        self.has_free_instance(job)
            || match job.policy.overlap {
                Overlap::Skip => false,
                Overlap::Queue => self.instances.here(&job.id).waiting < WAITING_PER_JOB_MAX,
                Overlap::Replace => true,
            }
    }

    /// Sets what is in flight on other nodes.
    pub(crate) fn set_other_nodes(&mut self, in_flight: Vec<(JobId, InFlightCount)>) {
        self.instances.set_other_nodes(in_flight);
    }

    /// The runs of a job that were started here, the oldest first, and their number on all nodes.
    pub(crate) fn running_of(&self, job: &Job) -> (Vec<RunId>, usize) {
        let is_of = |run: &StartedRun| run.is_instance && run.job_id == job.id;
        let here = self.running.iter().filter(|(_, run)| is_of(run));
        let here: Vec<RunId> = here.map(|(run_id, _)| run_id.clone()).collect();
        let elsewhere = self.instances.running_elsewhere(&job.id);
        let all = here.len().saturating_add(usize::try_from(elsewhere).unwrap_or(usize::MAX));
        (here, all)
    }

    /// Whether a run or a hook run of the job is in flight.
    pub(crate) fn has_in_flight(&self, id: &JobId) -> bool {
        self.instances.has_in_flight(id)
    }

    /// Whether a run was started here and has not ended.
    pub(crate) fn is_running(&self, run_id: &RunId) -> bool {
        self.running.contains_key(run_id)
    }

    /// How many runs were started here and have not ended.
    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }

    /// The job of a run that was started here, unless it was removed.
    pub(crate) fn job_of(&self, run_id: &RunId) -> Option<&Arc<Job>> {
        self.running.get(run_id)?.job.as_ref()
    }

    /// The jobs of all waiting runs.
    pub(crate) fn waiting_jobs(&self) -> BTreeSet<JobId> {
        let waiting = self.pools.values().flat_map(PoolSlots::waiting);
        waiting.map(|waiting| waiting.job.id.clone()).collect()
    }

    /// Whether a run waits that may start only after a look at the other nodes.
    pub(crate) fn needs_cluster_check(&self) -> bool {
        self.pools.values().any(PoolSlots::needs_cluster_check)
    }

    /// The same, if a retry has just become due.
    pub(crate) fn newly_needs_cluster_check(&self) -> bool {
        self.has_new_due && self.needs_cluster_check()
    }

    /// Makes all waiting runs look at the other nodes before they start.
    pub(crate) fn require_cluster_check(&mut self) {
        self.pools.values_mut().for_each(PoolSlots::require_cluster_check);
    }

    pub(crate) fn usage(&self) -> impl Iterator<Item = PoolStatus> {
        self.pools.iter().map(|(name, slots)| slots.status(name))
    }

    /// Adds a waiting run to its pool. A retry waits for its time first.
    pub(crate) fn wait(&mut self, waiting: WaitingRun, now: Timestamp) {
        let Some(slots) = self.pools.get_mut(&waiting.run.executor) else { return };
        self.instances.wait(&waiting.run);
        slots.wait(waiting, now);
    }

    /// Moves retries that are due into the queues.
    pub(crate) fn queue_due_retries(&mut self, now: Timestamp) {
        for slots in self.pools.values_mut() {
            self.has_new_due |= slots.queue_due_retries(now);
        }
    }

    /// When the first retry is due.
    pub(crate) fn next_retry(&self) -> Option<Timestamp> {
        self.pools.values().filter_map(PoolSlots::next_retry).min()
    }

    /// Takes from the queues the runs that can start. They take a worker from now on.
    pub(crate) fn take_startable(&mut self, view: InstanceView) -> Vec<WaitingRun> {
        let mut startable = Vec::new();
        self.has_new_due = false;
        for slots in self.pools.values_mut() {
            loop {
                let may_start = |waiting: &WaitingRun| {
                    let is_alone =
                        self.suspects == 0 || !is_suspect(&waiting.run, self.max_crashes);
                    is_alone && self.instances.may_start(waiting, view)
                };
                let Some(waiting) = slots.take_startable(may_start) else { break };
                self.instances.end_waiting(&waiting.run);
                self.instances.start(&waiting.run);
                let started = started(&waiting.run, Some(&waiting), self.max_crashes);
                self.suspects += usize::from(started.is_suspect);
                self.running.insert(waiting.run.id.clone(), started);
                startable.push(waiting);
            }
        }
        startable
    }

    /// Counts a run that was started before memory was rebuilt; `waiting` is `None` if its job is gone.
    pub(crate) fn restore_started(&mut self, run: &Run, waiting: Option<&WaitingRun>) {
        if let Some(slots) = self.pools.get_mut(&run.executor) {
            slots.occupy();
        }
        self.instances.start(run);
        let started = started(run, waiting, self.max_crashes);
        self.suspects += usize::from(started.is_suspect);
        self.running.insert(run.id.clone(), started);
    }

    /// Counts an attempt that takes a worker although its run belongs to another node.
    pub(crate) fn add_abandoned(&mut self, run: &Run) {
        if let Some(slots) = self.pools.get_mut(&run.executor) {
            slots.occupy();
        }
        self.abandoned.insert(run.execution(), run.executor.clone());
    }

    /// Frees the worker of such an attempt.
    pub(crate) fn remove_abandoned(&mut self, execution: &Execution) {
        if let Some(pool) = self.abandoned.remove(execution)
            && let Some(slots) = self.pools.get_mut(&pool)
        {
            slots.free_worker(None);
        }
    }

    /// Frees the worker and the instance of a run that has ended after `took`, or that was taken from the queue and not
    /// started.
    pub(crate) fn free(&mut self, run_id: &RunId, took: Option<TimeDelta>) -> FreedRun {
        let Some(started) = self.running.remove(run_id) else { return FreedRun::default() };
        let StartedRun { pool, job_id, is_instance, is_suspect, job, event } = started;
        self.suspects = self.suspects.saturating_sub(usize::from(is_suspect));
        if let Some(slots) = self.pools.get_mut(&pool) {
            slots.free_worker(took);
        }
        self.instances.end(&job_id, is_instance);
        FreedRun { job, event }
    }

    /// Makes runs of a job follow its new definition: those that wait, and those that may be retried.
    pub(crate) fn redefine(&mut self, job: &Arc<Job>) {
        let count = self.instances.here(&job.id);
        if count.waiting > 0 {
            self.pools.values_mut().for_each(|slots| slots.redefine(job));
        }
        if count.running > 0 {
            let runs = self.running.values_mut().filter(|run| run.job_id == job.id);
            runs.filter_map(|run| run.job.as_mut()).for_each(|known| *known = Arc::clone(job));
        }
    }

    /// A job was removed: its running attempts are not retried.
    pub(crate) fn forget_job(&mut self, job_id: &JobId) {
        if self.instances.here(job_id).running > 0 {
            let runs = self.running.values_mut().filter(|run| run.job_id == *job_id);
            runs.for_each(|run| run.job = None);
        }
    }

    /// Takes a waiting run out of its queue.
    pub(crate) fn take_run(&mut self, run_id: &RunId) -> Option<WaitingRun> {
        let mut pools = self.pools.values_mut();
        let waiting =
            pools.find_map(|slots| slots.take(|waiting| waiting.run.id == *run_id).pop())?;
        self.instances.end_waiting(&waiting.run);
        Some(waiting)
    }

    /// Takes the waiting runs of a job out of the queues, but not its hook runs.
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

fn started(run: &Run, waiting: Option<&WaitingRun>, max_crashes: u32) -> StartedRun {
    StartedRun {
        pool: run.executor.clone(),
        job_id: run.job_id.clone(),
        is_instance: is_instance(run),
        is_suspect: is_suspect(run, max_crashes),
        job: waiting.map(|waiting| Arc::clone(&waiting.job)),
        event: waiting.and_then(|waiting| waiting.event.clone()),
    }
}

/// Whether a run is a crash suspect: it is lost with the next death of the daemon. A suspect is started only while no other
/// one runs, so that the run that kills the daemon does not take the others with it.
fn is_suspect(run: &Run, max_crashes: u32) -> bool {
    run.crashes > 0 && run.crashes.saturating_add(1) >= max_crashes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::executor::ExecutorKind;
    use crate::scheduler::fixtures::{at, job, pool, run, shared};

    /// The pool `default` with this many workers, and runs that are lost with their third crash.
    fn capacity(max_workers: usize) -> Capacity {
        let pools = [("default".to_owned(), pool(ExecutorKind::ProcessPool, max_workers))];
        Capacity::new(&pools.into(), 3, false)
    }

    fn wait(capacity: &mut Capacity, run: Run, job: &Job) {
        let (run, job) = (Arc::new(run), shared(job));
        capacity.wait(WaitingRun { run, job, needs_cluster_check: false, event: None }, at(0));
    }

    fn started(capacity: &mut Capacity) -> Vec<String> {
        let started = capacity.take_startable(InstanceView::ThisNode);
        started.iter().map(|waiting| waiting.run.id.to_string()).collect()
    }

    fn id(text: &str) -> RunId {
        RunId(text.into())
    }

    #[test]
    fn a_run_waits_for_a_worker_and_for_an_instance_of_its_job() {
        let (alone, many) = (job("alone", json!({})), job("many", json!({"max_instances": 9})));
        let mut capacity = capacity(3);
        for (id, job) in
            [("a1", &alone), ("a2", &alone), ("m1", &many), ("m2", &many), ("m3", &many)]
        {
            wait(&mut capacity, run(id, job, 0), job);
        }
        assert_eq!(started(&mut capacity), ["a1", "m1", "m2"]);
        assert_eq!(capacity.free(&id("m1"), None).job.unwrap().id, many.id);
        assert_eq!(started(&mut capacity), ["m3"], "the second one of its job still waits");
        capacity.free(&id("a1"), None);
        assert_eq!(started(&mut capacity), ["a2"]);
        assert!(capacity.free(&id("a1"), None).job.is_none(), "it has ended already");
    }

    #[test]
    fn one_crash_suspect_runs_at_a_time() {
        let job = job("a", json!({"max_instances": 9}));
        let mut capacity = capacity(9);
        for (id, crashes) in [("1", 2), ("2", 2), ("3", 1), ("4", 0)] {
            wait(&mut capacity, Run { crashes, ..run(id, &job, 0) }, &job);
        }
        assert_eq!(started(&mut capacity), ["1", "3", "4"]);
        capacity.free(&id("3"), None);
        assert!(started(&mut capacity).is_empty());
        capacity.free(&id("1"), None);
        assert_eq!(started(&mut capacity), ["2"]);
    }

    #[test]
    fn an_attempt_whose_run_belongs_to_another_node_takes_a_worker_and_no_instance() {
        let job = job("a", json!({}));
        let lost = run("lost", &job, 0);
        let mut capacity = capacity(1);
        capacity.add_abandoned(&lost);
        wait(&mut capacity, run("next", &job, 0), &job);
        assert!(started(&mut capacity).is_empty());
        capacity.remove_abandoned(&lost.execution());
        capacity.remove_abandoned(&lost.execution());
        assert_eq!(started(&mut capacity), ["next"]);
    }

    #[test]
    fn the_overlap_rule_decides_about_runs_beyond_max_instances() {
        for (overlap, accepts) in [("skip", false), ("queue", true), ("replace", true)] {
            let job = job("a", json!({"overlap": overlap}));
            let mut capacity = capacity(1);
            assert!(capacity.accepts_instance(&job));
            wait(&mut capacity, run("1", &job, 0), &job);
            started(&mut capacity);
            assert_eq!(capacity.accepts_instance(&job), accepts, "{overlap}");
        }
        let job = job("a", json!({"overlap": "queue"}));
        let mut capacity = capacity(1);
        for number in 0..WAITING_PER_JOB_MAX {
            assert!(capacity.accepts_instance(&job), "{number}");
            wait(&mut capacity, run(&number.to_string(), &job, 0), &job);
        }
        assert!(!capacity.accepts_instance(&job), "one slow job does not fill the queue");
    }

    #[test]
    fn a_running_attempt_is_judged_by_its_job_as_it_is_now() {
        let old = job("a", json!({}));
        let mut capacity = capacity(1);
        wait(&mut capacity, run("1", &old, 0), &old);
        started(&mut capacity);
        capacity.redefine(&Arc::new(job("a", json!({"name": "new"}))));
        assert_eq!(capacity.job_of(&id("1")).unwrap().name, "new");
        capacity.forget_job(&old.id);
        assert!(capacity.job_of(&id("1")).is_none() && capacity.is_running(&id("1")));
    }

    #[test]
    fn runs_that_are_taken_from_a_queue_are_in_flight_no_more() {
        let job = job("a", json!({}));
        let mut capacity = capacity(1);
        for id in ["1", "2", "3"] {
            wait(&mut capacity, run(id, &job, 0), &job);
        }
        assert_eq!(capacity.take_run(&id("2")).unwrap().run.id, id("2"));
        assert!(capacity.take_run(&id("2")).is_none());
        assert_eq!(capacity.waiting_jobs(), BTreeSet::from([job.id.clone()]));
        assert_eq!(capacity.take_waiting(&job.id).len(), 2);
        assert!(!capacity.has_in_flight(&job.id) && capacity.take_waiting(&job.id).is_empty());
    }
}
