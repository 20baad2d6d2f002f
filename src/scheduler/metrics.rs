//! Counts what the scheduler does since the start of the process, for readers such as `/metrics`.
//!
//! A step takes the lock for a moment after its commit, and allocates nothing per run. A reader copies the counts. Their
//! size is bounded: by the number of pools, and by [`JOBS_MAX`] for jobs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::executor::Deliveries;
pub use crate::executor::DeliveryCounts;
use crate::job::{Job, JobId};
use crate::run::{Cause, HookEvent, Outcome, Run, RunState, SkipReason};
use crate::store::StoreError;

/// The most jobs whose runs are counted one by one. The runs of other jobs are counted together.
pub const JOBS_MAX: usize = 200;

/// Bounds of the buckets for how late runs start and how long they wait, in microseconds.
const WAIT_BOUNDS: &[u64] = &[
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    3_600_000_000,
];
/// Bounds of the buckets for how long runs take, in microseconds.
const DURATION_BOUNDS: &[u64] = &[
    1_000,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    900_000_000,
    3_600_000_000,
    21_600_000_000,
];
/// Bounds of the buckets for how long commits take, in microseconds.
const COMMIT_BOUNDS: &[u64] = &[
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 5_000_000, 10_000_000,
];
/// Bounds of the buckets for how many changes commits have.
const CHANGES_BOUNDS: &[u64] = &[1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000];

/// How many values were at most as large as each of some bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    /// In ascending order. Values above the last one are in a bucket of their own.
    bounds: &'static [u64],
    counts: Vec<u64>,
    sum: u64,
}

impl Histogram {
    pub fn new(bounds: &'static [u64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0 }
    }

    pub fn observe(&mut self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum = self.sum.saturating_add(value);
    }

    /// Each bound with the number of values up to it, as `/metrics` shows them.
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut total = 0;
        self.bounds.iter().zip(&self.counts).map(move |(bound, count)| {
            total += count;
            (*bound, total)
        })
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub fn sum(&self) -> u64 {
        self.sum
    }
}

/// How many runs ended in each way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutcomeCounts {
    succeeded: u64,
    failed: u64,
    timed_out: u64,
    cancelled: u64,
    lost: u64,
}

impl OutcomeCounts {
    fn add(&mut self, outcome: &Outcome) {
        *match outcome {
            Outcome::Succeeded { .. } => &mut self.succeeded,
            Outcome::Failed { .. } => &mut self.failed,
            Outcome::TimedOut { .. } => &mut self.timed_out,
            Outcome::Cancelled { .. } => &mut self.cancelled,
            Outcome::Lost { .. } => &mut self.lost,
        } += 1;
    }

    /// Each count with the word of its outcome.
    pub fn by_outcome(&self) -> [(&'static str, u64); 5] {
        [
            ("succeeded", self.succeeded),
            ("failed", self.failed),
            ("timed_out", self.timed_out),
            ("cancelled", self.cancelled),
            ("lost", self.lost),
        ]
    }
}

/// What happened in one pool.
#[derive(Debug, Clone)]
pub struct PoolCounts {
    pub ended: OutcomeCounts,
    /// Attempts that failed and were followed by another one.
    pub retried: u64,
    /// From when a run was due to its start, in microseconds.
    pub lateness: Histogram,
    /// From when a run was due and its row was in the ledger to its start, in microseconds.
    pub queue_wait: Histogram,
    /// From start to end, in microseconds.
    pub duration: Histogram,
}

impl Default for PoolCounts {
    fn default() -> Self {
        Self {
            ended: OutcomeCounts::default(),
            retried: 0,
            lateness: Histogram::new(WAIT_BOUNDS),
            queue_wait: Histogram::new(WAIT_BOUNDS),
            duration: Histogram::new(DURATION_BOUNDS),
        }
    }
}

/// How the runs of one job ended, without those of its hooks.
#[derive(Debug, Clone, Default)]
pub struct JobCounts {
    pub ended: OutcomeCounts,
    pub last_success: Option<Timestamp>,
    /// When a run last failed, timed out or was lost.
    pub last_failure: Option<Timestamp>,
}

/// What this process has done since its start.
#[derive(Debug, Clone)]
pub struct Counts {
    pub pools: BTreeMap<String, PoolCounts>,
    pub jobs: BTreeMap<JobId, JobCounts>,
    /// The runs of the jobs that are not in `jobs`.
    pub other_jobs: OutcomeCounts,
    pub hooks: BTreeMap<HookEvent, OutcomeCounts>,
    /// Skipped occurrences by the word of their reason.
    pub skipped: SkipCounts,
    /// How long commits took, in microseconds.
    pub commit_time: Histogram,
    pub commit_changes: Histogram,
    /// Steps that were not committed, by the word of the reason.
    pub failed_steps: BTreeMap<&'static str, u64>,
    /// Nodes that were silent for too long, so that this one took over what they held.
    pub expired_nodes: u64,
    /// How often other nodes took over what this one held.
    pub lost_leases: u64,
}

/// Numbers of skipped occurrences by the word of their reason.
pub type SkipCounts = BTreeMap<&'static str, u64>;

impl Default for Counts {
    fn default() -> Self {
        Self {
            pools: BTreeMap::new(),
            jobs: BTreeMap::new(),
            other_jobs: OutcomeCounts::default(),
            hooks: HookEvent::ALL.iter().map(|event| (*event, OutcomeCounts::default())).collect(),
            skipped: SkipReason::WORDS.iter().map(|word| (*word, 0)).collect(),
            commit_time: Histogram::new(COMMIT_BOUNDS),
            commit_changes: Histogram::new(CHANGES_BOUNDS),
            failed_steps: StoreError::WORDS.iter().map(|word| (*word, 0)).collect(),
            expired_nodes: 0,
            lost_leases: 0,
        }
    }
}

impl Counts {
    fn in_pool(&mut self, name: &str, count: impl FnOnce(&mut PoolCounts)) {
        match self.pools.get_mut(name) {
            Some(pool) => count(pool),
            None => count(self.pools.entry(name.to_owned()).or_default()),
        }
    }

    fn job_ended(&mut self, id: &JobId, outcome: &Outcome, finished_at: Timestamp) {
        let Some(job) = self.jobs.get_mut(id) else { return self.other_jobs.add(outcome) };
        job.ended.add(outcome);
        match outcome {
            Outcome::Succeeded { .. } => job.last_success = Some(finished_at),
            Outcome::Failed { .. } | Outcome::TimedOut { .. } | Outcome::Lost { .. } => {
                job.last_failure = Some(finished_at);
            }
            Outcome::Cancelled { .. } => {}
        }
    }
}

/// Counts what one scheduler does. Clones share the counts.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    counts: Arc<Mutex<Counts>>,
    deliveries: Deliveries,
}

impl Metrics {
    /// Nothing was counted in these pools yet.
    pub(super) fn new<'a>(pools: impl Iterator<Item = &'a String>, deliveries: Deliveries) -> Self {
        let metrics = Self { deliveries, ..Self::default() };
        metrics.add_pools(pools);
        metrics
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counts as they are now.
    pub fn read(&self) -> (Counts, DeliveryCounts) {
        (self.lock().clone(), self.deliveries.read())
    }

    /// Shows these pools from now on, even if nothing runs in them.
    pub(super) fn add_pools<'a>(&self, pools: impl Iterator<Item = &'a String>) {
        let mut counts = self.lock();
        pools.for_each(|name| counts.in_pool(name, |_| {}));
    }

    /// A job was written. It is counted by itself from its first occurrence on, if there is another one to come and not too
    /// many jobs are: so jobs that run once, which may be any number, take no place.
    pub(super) fn job_written(&self, job: &Job) {
        if job.run_count == 0 || job.next().is_none() {
            return;
        }
        let mut counts = self.lock();
        if counts.jobs.len() < JOBS_MAX && !counts.jobs.contains_key(&job.id) {
            counts.jobs.insert(job.id.clone(), JobCounts::default());
        }
    }

    /// A job was removed, and gives its place to another one.
    pub(super) fn job_removed(&self, id: &JobId) {
        self.lock().jobs.remove(id);
    }

    /// A run has ended.
    pub(super) fn run_ended(&self, run: &Run) {
        let RunState::Ended { finished_at, outcome, .. } = &run.state else { return };
        let counts = &mut *self.lock();
        counts.in_pool(&run.executor, |pool| {
            pool.ended.add(outcome);
            observe_attempt(pool, run);
        });
        match &run.cause {
            Cause::Event { event, .. } => counts.hooks.entry(*event).or_default().add(outcome),
            Cause::Schedule | Cause::Manual => counts.job_ended(&run.job_id, outcome, *finished_at),
        }
    }

    /// An attempt of a run has failed, and another one follows.
    pub(super) fn attempt_failed(&self, run: &Run) {
        self.lock().in_pool(&run.executor, |pool| {
            pool.retried += 1;
            observe_attempt(pool, run);
        });
    }

    /// Occurrences were skipped.
    pub(super) fn skipped(&self, skipped: &SkipCounts) {
        if skipped.is_empty() {
            return;
        }
        let mut counts = self.lock();
        for (reason, count) in skipped {
            *counts.skipped.entry(*reason).or_default() += count;
        }
    }

    /// A step was committed.
    pub(super) fn committed(&self, changes: usize, took: Duration) {
        let mut counts = self.lock();
        counts.commit_time.observe(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        counts.commit_changes.observe(u64::try_from(changes).unwrap_or(u64::MAX));
    }

    /// A step was not committed.
    pub(super) fn step_failed(&self, error: &StoreError) {
        *self.lock().failed_steps.entry(error.word()).or_default() += 1;
    }

    /// Other nodes were silent for too long, and this one has taken over what they held.
    pub(super) fn nodes_expired(&self, nodes: usize) {
        self.lock().expired_nodes += u64::try_from(nodes).unwrap_or(0);
    }

    /// Other nodes have taken over what this one held.
    pub(super) fn lease_lost(&self) {
        self.lock().lost_leases += 1;
    }
}

/// Observes the times of an attempt that has ended, unless it never started or its end is not known.
fn observe_attempt(pool: &mut PoolCounts, run: &Run) {
    let RunState::Ended { started_at, finished_at, outcome, .. } = &run.state else { return };
    let has_times = match outcome {
        Outcome::Succeeded { .. } | Outcome::Failed { .. } | Outcome::TimedOut { .. } => true,
        // A run that is cancelled while it waits ends at the instant at which it started.
        Outcome::Cancelled { .. } => started_at != finished_at,
        Outcome::Lost { .. } => false,
    };
    if !has_times {
        return;
    }
    pool.lateness.observe(micros(run.due_at, *started_at));
    pool.queue_wait.observe(micros(run.due_at.max(run.created_at), *started_at));
    pool.duration.observe(micros(*started_at, *finished_at));
}

/// The microseconds from one instant to another; 0 if the clock was set back in between.
fn micros(from: Timestamp, to: Timestamp) -> u64 {
    let span = to.signed_duration_since(from).num_microseconds().unwrap_or(i64::MAX);
    u64::try_from(span).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use serde_json::json;

    use super::*;
    use crate::job::JobState;
    use crate::run::{Cost, RunId};
    use crate::scheduler::fixtures::{at, due_job, job, run};

    fn metrics() -> Metrics {
        Metrics::new(["default".to_owned()].iter(), Deliveries::default())
    }

    fn failed() -> Outcome {
        let error = "no".to_owned();
        Outcome::Failed { error, exit_code: None, signal: None, permanent: false }
    }

    fn succeeded() -> Outcome {
        Outcome::Succeeded { result: None, exit_code: None }
    }

    /// A run of a job that was due at second 10, was seen 1 s later, started 2 s later and took 3 s.
    fn ended(job: &Job, outcome: Outcome) -> Run {
        let mut run = Run { created_at: at(11), ..run("1", job, 10) };
        run.end(at(12), at(15), outcome, Cost::default());
        run
    }

    fn counted(counts: &OutcomeCounts) -> Vec<(&'static str, u64)> {
        counts.by_outcome().into_iter().filter(|(_, count)| *count > 0).collect()
    }

    #[test]
    fn a_value_is_in_the_bucket_of_the_first_bound_that_is_not_below_it() {
        let mut histogram = Histogram::new(&[1, 10]);
        for value in [0, 1, 2, 10, 11, u64::MAX] {
            histogram.observe(value);
        }
        assert_eq!(histogram.cumulative().collect::<Vec<_>>(), [(1, 2), (10, 4)]);
        assert_eq!((histogram.count(), histogram.sum()), (6, u64::MAX));
    }

    #[test]
    fn the_words_of_outcomes_are_those_of_the_ledger() {
        let error = String::new;
        let outcomes = [
            succeeded(),
            failed(),
            Outcome::TimedOut { error: error() },
            Outcome::Cancelled { reason: error() },
            Outcome::Lost { error: error() },
        ];
        for outcome in outcomes {
            let mut counts = OutcomeCounts::default();
            counts.add(&outcome);
            assert_eq!(counted(&counts), [(outcome.word(), 1)]);
        }
    }

    #[test]
    fn a_run_is_counted_in_its_pool_with_its_times() {
        let (metrics, job) = (metrics(), job("a", json!({})));
        metrics.attempt_failed(&ended(&job, failed()));
        metrics.run_ended(&ended(&job, succeeded()));
        let (counts, _) = metrics.read();
        let pool = &counts.pools["default"];
        assert_eq!((counted(&pool.ended), pool.retried), (vec![("succeeded", 1)], 1));
        let sums = [&pool.lateness, &pool.queue_wait, &pool.duration].map(Histogram::sum);
        assert_eq!(sums, [4_000_000, 2_000_000, 6_000_000]);
    }

    #[test]
    fn what_never_started_or_has_no_known_end_has_no_times() {
        let (metrics, job) = (metrics(), job("a", json!({})));
        let mut waiting = run("1", &job, 10);
        waiting.cancel_pending(at(20), "no".to_owned());
        metrics.run_ended(&waiting);
        metrics.run_ended(&ended(&job, Outcome::Lost { error: "gone".to_owned() }));
        let (counts, _) = metrics.read();
        let pool = &counts.pools["default"];
        assert_eq!(counted(&pool.ended), [("cancelled", 1), ("lost", 1)]);
        assert_eq!(pool.duration.count(), 0);
        // A clock that was set back makes no run negative.
        let mut early = run("1", &job, 10);
        early.end(at(9), at(9), failed(), Cost::default());
        metrics.run_ended(&early);
        assert_eq!(metrics.read().0.pools["default"].lateness.sum(), 0);
    }

    #[test]
    fn a_job_that_goes_on_is_counted_by_itself_and_others_together() {
        let metrics = metrics();
        let again = |id: &str| Job { run_count: 1, ..due_job(id, 100) };
        metrics.job_written(&due_job("new", 100));
        metrics.job_written(&again("often"));
        metrics.job_written(&again("often"));
        metrics.job_written(&Job { state: JobState::Finished, ..again("once") });
        let often = again("often");
        metrics.run_ended(&ended(&often, failed()));
        metrics.run_ended(&ended(&due_job("new", 100), failed()));
        let hook = Cause::Event { event: HookEvent::Failure, subject: RunId("1".into()) };
        metrics.run_ended(&Run { cause: hook, ..ended(&often, succeeded()) });
        let (counts, _) = metrics.read();
        let of_job = &counts.jobs[&often.id];
        assert_eq!(counted(&of_job.ended), [("failed", 1)], "the hook's run is not the job's");
        assert_eq!((of_job.last_success, of_job.last_failure), (None, Some(at(15))));
        assert_eq!(counted(&counts.other_jobs), [("failed", 1)]);
        assert_eq!(counted(&counts.hooks[&HookEvent::Failure]), [("succeeded", 1)]);
    }

    #[test]
    fn the_number_of_jobs_that_are_counted_by_themselves_has_a_limit() {
        let metrics = metrics();
        let again = |number: usize| Job { run_count: 1, ..due_job(&number.to_string(), 100) };
        (0..=JOBS_MAX).for_each(|number| metrics.job_written(&again(number)));
        assert_eq!(metrics.read().0.jobs.len(), JOBS_MAX);
        let last = again(JOBS_MAX);
        metrics.run_ended(&ended(&last, succeeded()));
        assert_eq!(counted(&metrics.read().0.other_jobs), [("succeeded", 1)]);
        metrics.job_removed(&again(0).id);
        metrics.job_written(&last);
        metrics.run_ended(&ended(&last, succeeded()));
        assert_eq!(counted(&metrics.read().0.jobs[&last.id].ended), [("succeeded", 1)]);
    }

    #[test]
    fn steps_skips_and_nodes_are_counted() {
        let metrics = metrics();
        metrics.committed(7, Duration::from_micros(300));
        metrics.step_failed(&StoreError::Conflict("a".to_owned()));
        metrics.skipped(&[("missed", 2)].into());
        metrics.skipped(&[("missed", 1)].into());
        metrics.nodes_expired(2);
        metrics.lease_lost();
        let (counts, _) = metrics.read();
        assert_eq!((counts.commit_time.sum(), counts.commit_changes.sum()), (300, 7));
        assert_eq!((counts.failed_steps["conflict"], counts.failed_steps["unavailable"]), (1, 0));
        assert_eq!((counts.skipped["missed"], counts.skipped["overlap"]), (3, 0));
        assert_eq!((counts.expired_nodes, counts.lost_leases), (2, 1));
        assert_eq!(micros(at(0), at(0) + TimeDelta::microseconds(5)), 5);
    }
}
