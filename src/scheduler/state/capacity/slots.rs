//! One pool: its workers, the queue of runs that wait for one, and the retries that wait for their time.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use chrono::TimeDelta;

use crate::clock::Timestamp;
use crate::executor::{AHEAD_MAX, ExecutorKind, PoolSettings};
use crate::job::{Job, OnCrash};
use crate::run::Run;
use crate::scheduler::hooks;
use crate::scheduler::status::PoolStatus;

/// Most runs of one pool that wait in memory for a worker. Jobs that are due beyond that wait in the store.
const QUEUE_LIMIT: usize = 1000;

/// Bytes of the definitions of the jobs whose runs wait in one pool. With more, the pool takes no due job.
const QUEUE_BYTES: usize = 32 * 1024 * 1024;

/// Runs of one pool that wait for their next attempt. While there are this many, the pool takes no due job.
const RETRIES_LIMIT: usize = 10_000;

/// How long a run that was handed to the executor early may wait for a worker, in microseconds, if runs take as long as
/// usual.
const AHEAD_MICROS: u64 = 5000;

/// A run that waits for a worker, or for an earlier run of its job to end.
#[derive(Debug, Clone)]
pub(crate) struct WaitingRun {
    pub(crate) run: Arc<Run>,
    pub(crate) job: Arc<Job>,
    /// Whether another node may start a run of the job first, so that this run may start only after a look at all nodes: it
    /// was created beyond `max_instances`, or has waited since an earlier step.
    pub(crate) needs_cluster_check: bool,
    /// What a hook run reports.
    pub(crate) event: Option<Arc<serde_json::Value>>,
}

/// The order in which runs get a worker: by priority, then by when they are due, then as they came.
type Rank = (Reverse<i32>, Timestamp, u64);

#[derive(Debug)]
pub(crate) struct PoolSlots {
    max_workers: usize,
    /// Runs that were handed to the executor.
    busy: usize,
    queue: BTreeMap<Rank, WaitingRun>,
    /// Runs that wait for their next attempt, by when it is due.
    retries: BTreeMap<(Timestamp, u64), WaitingRun>,
    /// Bytes of the definitions of the jobs of all runs that wait.
    bytes: usize,
    /// Counts the runs that arrived.
    arrivals: u64,
    /// When due retries were last moved into the queue.
    checked_at: Option<Timestamp>,
    /// The queue takes due runs while it is shorter than this.
    queue_limit: usize,
    is_shared: bool,
    /// Whether runs can be handed over before a worker is free: threads take them from a queue of their own.
    takes_ahead: bool,
    /// Moving average of how long runs take, in microseconds.
    usual_micros: u64,
}

impl PoolSlots {
    pub(crate) fn new(settings: &PoolSettings, is_shared: bool) -> Self {
        let mut slots = Self {
            max_workers: 0,
            busy: 0,
            queue: BTreeMap::new(),
            retries: BTreeMap::new(),
            bytes: 0,
            arrivals: 0,
            checked_at: None,
            queue_limit: QUEUE_LIMIT,
            is_shared,
            takes_ahead: settings.kind == ExecutorKind::ThreadPool,
            // Until the average is known, runs count as long.
            usual_micros: AHEAD_MICROS,
        };
        slots.resize(settings.max_workers);
        slots
    }

    pub(crate) fn resize(&mut self, max_workers: usize) {
        self.max_workers = max_workers;
        if self.is_shared {
            self.queue_limit = max_workers;
        }
    }

    /// How many runs may be handed over beyond the number of workers: as many as are done in [`AHEAD_MICROS`]. Otherwise,
    /// workers whose runs are short would wait for the disk most of the time.
    fn ahead(&self) -> usize {
        let per_worker = AHEAD_MICROS / self.usual_micros.max(1);
        let ahead = usize::try_from(per_worker).unwrap_or(usize::MAX).saturating_sub(1);
        if self.takes_ahead { ahead.saturating_mul(self.max_workers).min(AHEAD_MAX) } else { 0 }
    }

    /// Whether the queue takes another run from the schedule.
    pub(crate) fn accepts_due_run(&self) -> bool {
        self.queue.len() < self.queue_limit
            && self.retries.len() < RETRIES_LIMIT
            && self.bytes < QUEUE_BYTES
    }

    /// Whether the queue takes a manual run or a hook run.
    pub(crate) fn accepts_extra_run(&self) -> bool {
        self.queue.len() < QUEUE_LIMIT && self.bytes < QUEUE_BYTES
    }

    /// How many runs can be handed over now.
    pub(crate) fn free(&self) -> usize {
        (self.max_workers + self.ahead()).saturating_sub(self.busy)
    }

    /// Counts a run that is executing already.
    pub(crate) fn occupy(&mut self) {
        self.busy += 1;
    }

    /// Frees the worker of a run that took this long, if it was executed at all.
    pub(crate) fn free_worker(&mut self, took: Option<TimeDelta>) {
        self.busy = self.busy.saturating_sub(1);
        let Some(took) = took else { return };
        let micros = u64::try_from(took.num_microseconds().unwrap_or(i64::MAX)).unwrap_or(0);
        // A long run counts at once; short runs have to be many.
        self.usual_micros = micros.max((7 * self.usual_micros.min(AHEAD_MICROS) + micros) / 8);
    }

    /// Adds a waiting run. A retry waits for its time first.
    pub(crate) fn wait(&mut self, waiting: WaitingRun, now: Timestamp) {
        self.arrivals += 1;
        self.bytes = self.bytes.saturating_add(waiting.job.bytes);
        if is_early(&waiting, now) {
            self.retries.insert((waiting.run.due_at, self.arrivals), waiting);
        } else {
            self.enqueue(waiting, self.arrivals);
        }
    }

    fn enqueue(&mut self, waiting: WaitingRun, came: u64) {
        let rank = (Reverse(waiting.job.policy.priority), waiting.run.due_at, came);
        self.queue.insert(rank, waiting);
    }

    /// Moves retries that are due into the queue. Returns whether there were any.
    pub(crate) fn queue_due_retries(&mut self, now: Timestamp) -> bool {
        let mut has_moved = false;
        if self.checked_at.replace(now).is_some_and(|before| now < before) {
            // The clock was set back: retries that would wait much longer than planned are due.
            let retries = self.retries.extract_if(.., |_, waiting| !is_early(waiting, now));
            for ((_, came), waiting) in retries.collect::<Vec<_>>() {
                self.enqueue(waiting, came);
                has_moved = true;
            }
        }
        while let Some(first) = self.retries.first_entry().filter(|first| first.key().0 <= now) {
            let ((_, came), waiting) = first.remove_entry();
            self.enqueue(waiting, came);
            has_moved = true;
        }
        has_moved
    }

    pub(crate) fn next_retry(&self) -> Option<Timestamp> {
        self.retries.keys().next().map(|(due_at, _)| *due_at)
    }

    pub(crate) fn status(&self, name: &str) -> PoolStatus {
        let busy = self.busy.min(self.max_workers);
        PoolStatus {
            name: name.to_owned(),
            busy,
            max_workers: self.max_workers,
            waiting: self.queue.len() + self.busy - busy,
            retrying: self.retries.len(),
            waiting_since: self.waiting_since(),
            queue_limit: self.queue_limit,
        }
    }

    /// When the earliest of the waiting runs was due, if no worker is free. While one is free, runs wait for something else,
    /// such as an earlier run of their job.
    fn waiting_since(&self) -> Option<Timestamp> {
        if self.busy < self.max_workers {
            return None;
        }
        // The first run of each priority is its earliest.
        let first_after = |rank: Option<Rank>| {
            let after = rank.map_or(Bound::Unbounded, |(priority, _, _)| {
                Bound::Excluded((priority, Timestamp::MAX_UTC, u64::MAX))
            });
            self.queue.range((after, Bound::Unbounded)).next().map(|(rank, _)| *rank)
        };
        let firsts = std::iter::successors(first_after(None), |rank| first_after(Some(*rank)));
        firsts.map(|(_, due_at, _)| due_at).min()
    }

    /// The queue and the retries.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &WaitingRun> {
        self.queue.values().chain(self.retries.values())
    }

    /// Whether a run in the queue may start only after a look at all nodes.
    pub(crate) fn needs_cluster_check(&self) -> bool {
        self.queue.values().any(|waiting| waiting.needs_cluster_check)
    }

    pub(crate) fn require_cluster_check(&mut self) {
        let all = self.queue.values_mut().chain(self.retries.values_mut());
        all.for_each(|waiting| waiting.needs_cluster_check = true);
    }

    /// Takes the first run in the queue that may start, if a worker is free for it.
    pub(crate) fn take_startable(
        &mut self,
        may_start: impl Fn(&WaitingRun) -> bool,
    ) -> Option<WaitingRun> {
        if self.free() == 0 {
            return None;
        }
        // While no worker is free, only runs that may be repeated are handed over: after a crash, any other run would be lost
        // although it had not begun.
        let is_ahead = self.busy >= self.max_workers;
        let may_start = |waiting: &&WaitingRun| {
            may_start(waiting) && (!is_ahead || waiting.job.policy.on_crash == OnCrash::Rerun)
        };
        let rank = *self.queue.iter().find(|(_, waiting)| may_start(waiting))?.0;
        self.busy += 1;
        let taken = self.queue.remove(&rank);
        self.bytes = self.bytes.saturating_sub(taken.as_ref().map_or(0, |taken| taken.job.bytes));
        taken
    }

    pub(crate) fn take(&mut self, is_wanted: impl Fn(&WaitingRun) -> bool) -> Vec<WaitingRun> {
        let queued = self.queue.extract_if(.., |_, waiting| is_wanted(waiting));
        let mut taken: Vec<WaitingRun> = queued.map(|(_, waiting)| waiting).collect();
        let retries = self.retries.extract_if(.., |_, waiting| is_wanted(waiting));
        taken.extend(retries.map(|(_, waiting)| waiting));
        let bytes: usize = taken.iter().map(|waiting| waiting.job.bytes).sum();
        self.bytes = self.bytes.saturating_sub(bytes);
        taken
    }

    /// Makes waiting runs of a job follow its new definition.
    pub(crate) fn redefine(&mut self, job: &Arc<Job>) {
        // A task of another executor cannot run in the pool in which the run waits. A hook run reports as it was defined
        // when its subject ended.
        let follows = |waiting: &WaitingRun| {
            let is_of_job = waiting.job.id == job.id && waiting.run.executor == job.executor;
            is_of_job && waiting.event.is_none()
        };
        let queued = self.queue.extract_if(.., |_, waiting| follows(waiting));
        for ((_, _, came), waiting) in queued.collect::<Vec<_>>() {
            self.enqueue(WaitingRun { job: Arc::clone(job), ..waiting }, came);
        }
        let retries = self.retries.values_mut().filter(|waiting| follows(waiting));
        retries.for_each(|waiting| waiting.job = Arc::clone(job));
        self.bytes = self.waiting().map(|waiting| waiting.job.bytes).sum();
    }
}

/// Whether a retry has to wait for its time. A retry that would wait longer than any delay of its job was planned before the
/// clock was set back, or by another definition, and need not.
fn is_early(waiting: &WaitingRun, now: Timestamp) -> bool {
    let WaitingRun { run, job, .. } = waiting;
    let left = run.due_at.signed_duration_since(now);
    let longest = hooks::retry_policy(job, run).map_or(TimeDelta::zero(), |retry| retry.longest());
    run.attempt > 1 && left > TimeDelta::zero() && left <= longest
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::scheduler::fixtures::{at, hook_run, job, pool, run, shared};

    fn processes(max_workers: usize) -> PoolSlots {
        PoolSlots::new(&pool(ExecutorKind::ProcessPool, max_workers), false)
    }

    fn waiting(run: Run, job: &Job) -> WaitingRun {
        WaitingRun { run: Arc::new(run), job: shared(job), needs_cluster_check: false, event: None }
    }

    /// The ids of the runs that get a worker now, in order.
    fn started(slots: &mut PoolSlots) -> Vec<String> {
        let started = std::iter::from_fn(|| slots.take_startable(|_| true));
        started.map(|waiting| waiting.run.id.to_string()).collect()
    }

    #[test]
    fn workers_go_to_the_highest_priority_then_to_what_is_due_first_then_to_what_came_first() {
        let (low, high) = (job("low", json!({})), job("high", json!({"priority": 5})));
        let mut slots = processes(9);
        for (id, job, second) in
            [("a", &low, 20), ("b", &low, 10), ("c", &high, 30), ("d", &low, 10)]
        {
            slots.wait(waiting(run(id, job, second), job), at(40));
        }
        assert_eq!(started(&mut slots), ["c", "b", "d", "a"]);
    }

    #[test]
    fn a_process_pool_starts_as_many_runs_as_it_has_workers() {
        let job = job("a", json!({}));
        let mut slots = processes(2);
        for id in ["1", "2", "3"] {
            slots.wait(waiting(run(id, &job, 0), &job), at(0));
        }
        assert_eq!(started(&mut slots), ["1", "2"]);
        let status = slots.status("default");
        assert_eq!((status.busy, status.waiting, slots.free()), (2, 1, 0));
        // Short runs change nothing: a process takes no run ahead.
        slots.free_worker(Some(TimeDelta::zero()));
        assert_eq!(started(&mut slots), ["3"]);
        slots.resize(4);
        assert_eq!(slots.free(), 2);
    }

    #[test]
    fn threads_take_runs_ahead_once_runs_are_short_and_only_those_that_may_run_twice() {
        let mut slots = PoolSlots::new(&pool(ExecutorKind::ThreadPool, 1), false);
        assert_eq!(slots.free(), 1, "nothing is known of how long runs take");
        for _ in 0..100 {
            slots.occupy();
            slots.free_worker(Some(TimeDelta::microseconds(10)));
        }
        assert!(slots.free() > 10 && slots.free() <= 1 + AHEAD_MAX, "{}", slots.free());
        let (once, again) = (job("once", json!({"on_crash": "lose"})), job("again", json!({})));
        for (id, job) in [("1", &once), ("2", &once), ("3", &again)] {
            slots.wait(waiting(run(id, job, 0), job), at(0));
        }
        assert_eq!(started(&mut slots), ["1", "3"], "a crash would lose the second one unbegun");
        assert_eq!(slots.status("default").waiting, 2, "what is taken ahead still waits");
        slots.free_worker(Some(TimeDelta::seconds(1)));
        assert_eq!(slots.free(), 0, "one long run counts at once");
    }

    #[test]
    fn a_retry_waits_for_its_time() {
        let job = job("a", json!({"retry": {"max_attempts": 3, "delay": 60}}));
        let mut slots = processes(1);
        let retry = Run { attempt: 2, ..run("retry", &job, 60) };
        slots.wait(waiting(retry.clone(), &job), at(0));
        assert_eq!((slots.next_retry(), slots.status("default").retrying), (Some(at(60)), 1));
        assert!(!slots.queue_due_retries(at(59)));
        assert!(started(&mut slots).is_empty());
        assert!(slots.queue_due_retries(at(60)));
        assert_eq!((started(&mut slots), slots.next_retry()), (vec!["retry".to_owned()], None));
        // One that is due already does not wait.
        slots.free_worker(None);
        slots.wait(waiting(retry, &job), at(60));
        assert_eq!(started(&mut slots), ["retry"]);
    }

    #[test]
    fn a_retry_does_not_wait_for_hours_that_a_clock_was_set_back() {
        let retry = json!({"max_attempts": 3, "delay": 60, "max_delay": 60});
        let job = job("a", json!({"retry": retry}));
        let mut slots = processes(1);
        slots.wait(waiting(Run { attempt: 2, ..run("retry", &job, 7260) }, &job), at(7200));
        assert!(!slots.queue_due_retries(at(7201)));
        assert!(slots.queue_due_retries(at(0)), "two hours are longer than any delay of the job");
        assert_eq!(started(&mut slots), ["retry"]);
    }

    #[test]
    fn a_full_queue_takes_no_due_run() {
        let small = job("a", json!({}));
        let mut slots = processes(1);
        for number in 0..QUEUE_LIMIT {
            assert!(slots.accepts_due_run() && slots.accepts_extra_run(), "{number}");
            slots.wait(waiting(run(&number.to_string(), &small, 0), &small), at(0));
        }
        assert!(!slots.accepts_due_run() && !slots.accepts_extra_run());
        assert_eq!(slots.take(|_| true).len(), QUEUE_LIMIT);
        let large = Job { bytes: QUEUE_BYTES, ..small };
        slots.wait(waiting(run("large", &large, 0), &large), at(0));
        assert!(!slots.accepts_due_run() && !slots.accepts_extra_run(), "a few large jobs fill it");
        assert_eq!(started(&mut slots), ["large"]);
        assert!(slots.accepts_due_run(), "what runs is not in the queue");
    }

    #[test]
    fn on_a_shared_store_no_more_due_runs_wait_than_soon_get_a_worker() {
        let job = job("a", json!({}));
        let mut slots = PoolSlots::new(&pool(ExecutorKind::ProcessPool, 2), true);
        for id in ["1", "2"] {
            assert!(slots.accepts_due_run());
            slots.wait(waiting(run(id, &job, 0), &job), at(0));
        }
        assert!(!slots.accepts_due_run(), "another node may have a free worker");
        assert!(slots.accepts_extra_run(), "what was asked of this node waits here");
    }

    #[test]
    fn waiting_runs_follow_a_new_definition_but_hook_runs_and_runs_of_another_pool_do_not() {
        let old = job("a", json!({}));
        let elsewhere = Job { executor: "other".to_owned(), ..old.clone() };
        let mut slots = processes(9);
        let event = Some(Arc::new(json!("a report")));
        slots.wait(waiting(run("run", &old, 0), &old), at(0));
        slots.wait(waiting(run("stays", &elsewhere, 0), &elsewhere), at(0));
        let hook = waiting(hook_run("hook", &old, 0), &old);
        slots.wait(WaitingRun { event, ..hook }, at(0));
        slots.redefine(&Arc::new(job("a", json!({"priority": 5, "name": "new"}))));
        let taken = std::iter::from_fn(|| slots.take_startable(|_| true));
        let names: Vec<_> =
            taken.map(|waiting| (waiting.run.id.to_string(), waiting.job.name.clone())).collect();
        let expected = [("run", "new"), ("stays", "a"), ("hook", "a")];
        assert_eq!(names, expected.map(|(id, name)| (id.to_owned(), name.to_owned())));
    }

    #[test]
    fn a_pool_with_a_free_worker_keeps_nobody_waiting() {
        let (low, high) = (job("low", json!({})), job("high", json!({"priority": 5})));
        let mut slots = processes(1);
        slots.wait(waiting(run("1", &high, 20), &high), at(30));
        slots.wait(waiting(run("2", &low, 10), &low), at(30));
        assert_eq!(slots.status("default").waiting_since, None);
        slots.occupy();
        assert_eq!(slots.status("default").waiting_since, Some(at(10)), "of any priority");
    }
}
