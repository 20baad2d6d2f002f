//! The places of one pool: its workers, the runs that wait for one, and those that wait for their time.

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

/// Runs that wait in memory for a worker of one pool. What falls due beyond that waits in the store.
const QUEUE_LIMIT: usize = 1000;

/// Bytes of the definitions of the jobs whose runs wait in one pool. With more, the pool takes up nothing that is due.
const QUEUE_BYTES: usize = 32 * 1024 * 1024;

/// Runs of one pool that wait for their next attempt. While there are this many, the pool takes up nothing that is due.
const RETRIES_LIMIT: usize = 10_000;

/// How long a run that was handed over may have to wait for its worker, in microseconds, if runs take as long as usual.
const AHEAD_MICROS: u64 = 5000;

/// A run that waits for a worker, or for an earlier run of its job to end.
#[derive(Debug, Clone)]
pub(crate) struct WaitingRun {
    pub(crate) run: Arc<Run>,
    pub(crate) job: Arc<Job>,
    /// Whether another node may start a run of its job before it: because it was made beyond `max_instances`, or has
    /// waited since an earlier step. Then it may start only when it is known, of all nodes, that it may.
    pub(crate) needs_cluster_check: bool,
    /// What it tells of, if it tells of another run.
    pub(crate) event: Option<Arc<serde_json::Value>>,
}

/// The order in which runs get a worker: by priority, then by when they are due, then as they came.
type Rank = (Reverse<i32>, Timestamp, u64);

/// The places of one pool.
#[derive(Debug)]
pub(crate) struct PoolSlots {
    pub(crate) max_workers: usize,
    pub(crate) busy: usize,
    queue: BTreeMap<Rank, WaitingRun>,
    /// Runs that are tried again, by when.
    retries: BTreeMap<(Timestamp, u64), WaitingRun>,
    /// Bytes of the definitions of the jobs of all runs that wait.
    bytes: usize,
    /// Counts the runs that came.
    came: u64,
    /// When it was last looked whose time has come.
    woken_at: Option<Timestamp>,
    /// Due runs that the queue takes from the schedule.
    queue_limit: usize,
    is_shared: bool,
    /// Whether runs can be handed over before a worker is free.
    takes_ahead: bool,
    /// How long runs took lately, in microseconds.
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
            came: 0,
            woken_at: None,
            queue_limit: QUEUE_LIMIT,
            is_shared,
            takes_ahead: settings.kind == ExecutorKind::ThreadPool,
            // Until it is known, a run is taken to be long.
            usual_micros: AHEAD_MICROS,
        };
        slots.resize(settings.max_workers);
        slots
    }

    /// From now on there are this many workers.
    pub(crate) fn resize(&mut self, max_workers: usize) {
        self.max_workers = max_workers;
        if self.is_shared {
            self.queue_limit = max_workers;
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
    pub(crate) fn accepts_due_run(&self) -> bool {
        self.queue.len() < self.queue_limit
            && self.retries.len() < RETRIES_LIMIT
            && self.bytes < QUEUE_BYTES
    }

    /// Whether the queue takes another run that someone asks for.
    pub(crate) fn accepts_extra_run(&self) -> bool {
        self.queue.len() < QUEUE_LIMIT && self.bytes < QUEUE_BYTES
    }

    /// Places for runs that can be handed over now.
    pub(crate) fn free(&self) -> usize {
        (self.max_workers + self.ahead()).saturating_sub(self.busy)
    }

    /// A run has taken so long.
    pub(crate) fn note(&mut self, took: TimeDelta) {
        let micros = u64::try_from(took.num_microseconds().unwrap_or(i64::MAX)).unwrap_or(0);
        // A long one counts at once, short ones have to be many.
        self.usual_micros = micros.max((7 * self.usual_micros.min(AHEAD_MICROS) + micros) / 8);
    }

    /// Takes in a run. One that is tried again waits for its time first.
    pub(crate) fn wait(&mut self, waiting: WaitingRun, now: Timestamp) {
        self.came += 1;
        self.bytes = self.bytes.saturating_add(waiting.job.bytes);
        if is_early(&waiting, now) {
            self.retries.insert((waiting.run.due_at, self.came), waiting);
        } else {
            self.enqueue(waiting, self.came);
        }
    }

    fn enqueue(&mut self, waiting: WaitingRun, came: u64) {
        let rank = (Reverse(waiting.job.policy.priority), waiting.run.due_at, came);
        self.queue.insert(rank, waiting);
    }

    /// Lets the runs queue whose time has come, and says whether there were any.
    pub(crate) fn queue_due_retries(&mut self, now: Timestamp) -> bool {
        let mut has_new_due = false;
        if self.woken_at.replace(now).is_some_and(|before| now < before) {
            // The clock was set back: what would have to wait until it is there again has waited long enough.
            let retries = self.retries.extract_if(.., |_, waiting| !is_early(waiting, now));
            for ((_, came), waiting) in retries.collect::<Vec<_>>() {
                self.enqueue(waiting, came);
                has_new_due = true;
            }
        }
        while let Some(first) = self.retries.first_entry().filter(|first| first.key().0 <= now) {
            let ((_, came), waiting) = first.remove_entry();
            self.enqueue(waiting, came);
            has_new_due = true;
        }
        has_new_due
    }

    /// When the first of those that wait for their time is due.
    pub(crate) fn next_retry(&self) -> Option<Timestamp> {
        self.retries.keys().next().map(|(due_at, _)| *due_at)
    }

    /// Runs that wait for a worker, and runs that wait for their time.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.queue.len(), self.retries.len())
    }

    /// When the earliest of the runs that wait for a worker was due, if no worker is free. With a free one, what waits
    /// waits for something else, such as an earlier run of its job.
    pub(crate) fn waiting_since(&self) -> Option<Timestamp> {
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

    /// All runs that wait.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &WaitingRun> {
        self.queue.values().chain(self.retries.values())
    }

    /// Whether a run waits for a worker that may start only when it is known, of all nodes, that it may.
    pub(crate) fn needs_cluster_check(&self) -> bool {
        self.queue.values().any(|waiting| waiting.needs_cluster_check)
    }

    /// From now on, what waits has to look at the other nodes before it starts.
    pub(crate) fn require_cluster_check(&mut self) {
        let all = self.queue.values_mut().chain(self.retries.values_mut());
        all.for_each(|waiting| waiting.needs_cluster_check = true);
    }

    /// The first waiting run that may start, if there is a place for it.
    pub(crate) fn take_startable(
        &mut self,
        may_start: impl Fn(&WaitingRun) -> bool,
    ) -> Option<WaitingRun> {
        if self.free() == 0 {
            return None;
        }
        // Before a worker is free only what may be run again: else a crash would lose what had not begun.
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

    /// Takes out the waiting runs that are wanted.
    pub(crate) fn take(&mut self, is_wanted: impl Fn(&WaitingRun) -> bool) -> Vec<WaitingRun> {
        let queued = self.queue.extract_if(.., |_, waiting| is_wanted(waiting));
        let mut taken: Vec<WaitingRun> = queued.map(|(_, waiting)| waiting).collect();
        let retries = self.retries.extract_if(.., |_, waiting| is_wanted(waiting));
        taken.extend(retries.map(|(_, waiting)| waiting));
        let bytes: usize = taken.iter().map(|waiting| waiting.job.bytes).sum();
        self.bytes = self.bytes.saturating_sub(bytes);
        taken
    }

    /// Has waiting runs of a job follow its new definition.
    pub(crate) fn redefine(&mut self, job: &Arc<Job>) {
        // A task of another executor could not run in the pool in which this one waits; and what tells of another run
        // tells it as it was to be told then.
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

/// Whether a run that is tried again has to wait for its time. One that would have to wait for longer than any delay
/// of its job was put off before the clock was set back, or by another definition.
fn is_early(waiting: &WaitingRun, now: Timestamp) -> bool {
    let WaitingRun { run, job, .. } = waiting;
    let left = run.due_at.signed_duration_since(now);
    let longest = hooks::retry(job, run).map_or(TimeDelta::zero(), |retry| retry.longest());
    run.attempt > 1 && left > TimeDelta::zero() && left <= longest
}
