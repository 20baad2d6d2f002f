//! What this process keeps in memory between two steps. Whenever a write may or may not have happened (`is_stale`),
//! `resync.rs` rebuilds capacity, started attempts, due cache and overlap rows from the store; the rest exists only here.
//!
//! - [`capacity`]: what is in flight, per pool and per job, and so whether another run can be taken;
//! - [`due_cache`]: the jobs that are due next;
//! - [`Executions`]: the attempts that this process executes, and completions that are not recorded yet;
//! - [`OverlapRows`], [`clock`], [`bisection`]: what skipped overlaps, a corrected clock and a refused value need.

pub(crate) mod bisection;
pub(crate) mod capacity;
pub(crate) mod clock;
pub(crate) mod due_cache;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::TimeDelta;

use super::metrics::Metrics;
use super::request::{PendingRequest, Request};
use super::status::WriteCounts;
use crate::clock::Timestamp;
use crate::executor::{Completion, Saving};
use crate::job::admission::Rules;
use crate::job::{Job, JobId, Pause};
use crate::run::{Execution, Run, RunId, RunIds};
use bisection::Bisection;
use capacity::Capacity;
use clock::ClockWatch;
use due_cache::DueCache;

/// Most rows that are remembered. A row that is not remembered is read from the store when it is needed.
const REMEMBERED_MAX: usize = 10_000;

/// Which node of a store this scheduler is.
#[derive(Debug, Clone)]
pub struct NodeIdentity {
    /// The node's name, which no other node has or had before. A daemon's name is `MACHINE:PROCESS:NUMBER`; by it, a
    /// daemon recognises earlier daemons of its machine.
    pub node: Arc<str>,
    /// When this process started.
    pub started_at: Timestamp,
    /// A number that no other node has. It keeps the ids of new runs apart.
    pub seed: u64,
    /// How long a node of a shared store may be silent before others take over its runs and jobs.
    pub lease: TimeDelta,
}

/// Whether jobs fire and runs start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing fires or starts before the jobs of the file are declared.
    Held,
    Firing,
    /// The daemon stops: nothing fires or starts any more.
    Draining,
}

/// What a scheduler remembers between two steps.
#[derive(Debug)]
pub(crate) struct SchedulerState {
    pub(crate) identity: NodeIdentity,
    /// Whether other nodes may use the same store.
    pub(crate) is_shared: bool,
    pub(crate) ids: RunIds,
    pub(crate) phase: Phase,
    /// The pause of the scheduler as a whole: no job fires.
    pub(crate) pause: Option<Arc<Pause>>,
    /// Whether memory has to be rebuilt from the store: a write failed, or another node was faster.
    pub(crate) is_stale: bool,
    /// How many steps in a row failed because another node was faster.
    pub(crate) conflicts: u32,
    pub(crate) capacity: Capacity,
    pub(crate) due_cache: DueCache,
    pub(crate) executions: Executions,
    pub(crate) overlap_rows: OverlapRows,
    pub(crate) clock: ClockWatch,
    pub(crate) bisection: Bisection,
    /// Requests for the next step: those of a failed step, and the scheduler's own.
    pub(crate) deferred: Vec<PendingRequest>,
    /// Finished jobs to remove once none of their runs is in flight.
    pub(crate) finished: BTreeSet<JobId>,
    pub(crate) written: WriteCounts,
    pub(crate) metrics: Metrics,
    /// Which outputs of running attempts the next step saves, if any.
    pub(crate) to_save: Option<Saving>,
}

impl SchedulerState {
    pub(crate) fn new(identity: NodeIdentity, rules: &Rules, is_shared: bool) -> Self {
        Self {
            ids: RunIds::new(identity.seed),
            identity,
            is_shared,
            phase: Phase::Firing,
            pause: None,
            is_stale: false,
            conflicts: 0,
            capacity: Capacity::new(&rules.executors, rules.max_crashes, is_shared),
            due_cache: DueCache::default(),
            executions: Executions::default(),
            overlap_rows: OverlapRows::default(),
            clock: ClockWatch::default(),
            bisection: Bisection::default(),
            deferred: Vec::new(),
            finished: BTreeSet::new(),
            written: WriteCounts::default(),
            metrics: Metrics::default(),
            to_save: None,
        }
    }

    pub(crate) fn node(&self) -> &Arc<str> {
        &self.identity.node
    }

    /// Whether jobs may fire after these requests, in a step of a scheduler that is paused or not.
    pub(crate) fn will_fire(&self, is_paused: bool, requests: &[PendingRequest]) -> bool {
        let ends_pause = |pending: &PendingRequest| matches!(pending.request, Request::ResumeAll);
        self.phase == Phase::Firing && (!is_paused || requests.iter().any(ends_pause))
    }

    /// The cached jobs of these pools that are due, as many of each pool as one step takes.
    pub(crate) fn due_jobs(
        &self,
        pools: &[String],
        now: Timestamp,
    ) -> impl Iterator<Item = &Arc<Job>> {
        pools.iter().flat_map(move |pool| {
            self.due_cache.due_at(pool, now).take(self.capacity.due_per_step(pool))
        })
    }

    /// Remembers the finished jobs that this request was to remove, because nobody asks for that again.
    pub(crate) fn keep_removals(&mut self, request: &Request) {
        if let Request::RemoveFinished(ids) = request {
            self.finished.extend(ids.iter().cloned());
        }
    }
}

/// The attempts that this process executes.
#[derive(Debug, Default)]
pub(crate) struct Executions {
    /// Attempts that were started here and whose end is not in the ledger.
    pub(crate) started: BTreeMap<Execution, Arc<Run>>,
    /// Attempts that still run here although another node has taken the run over.
    pub(crate) abandoned: BTreeMap<Execution, Arc<Run>>,
    /// Completions that are not in the ledger yet. One that arrives twice counts once.
    pub(crate) completions: BTreeMap<Execution, Completion>,
}

impl Executions {
    /// Keeps completions until a step has recorded them.
    pub(crate) fn add_completions(&mut self, completions: Vec<Completion>) {
        for completion in completions {
            self.completions.entry(completion.execution()).or_insert(completion);
        }
    }

    /// How many attempts were started here and have not ended.
    pub(crate) fn in_progress(&self) -> usize {
        let started = self.started.keys();
        started.filter(|execution| !self.completions.contains_key(*execution)).count()
    }
}

/// The latest ledger row of skipped overlaps of each job, so that the next overlap extends the row instead of adding one.
/// The rows are as the store had them or as they were written. If another node has changed a row since, extending it is a
/// conflict, and then all rows are forgotten.
#[derive(Debug, Default)]
pub(crate) struct OverlapRows {
    rows: BTreeMap<JobId, Arc<Run>>,
}

impl OverlapRows {
    pub(crate) fn remember(&mut self, row: Arc<Run>) {
        if self.rows.len() >= REMEMBERED_MAX {
            self.rows.clear();
        }
        self.rows.insert(row.job_id.clone(), row);
    }

    /// The row that an overlap of this job may extend.
    pub(crate) fn of(&self, job: &Job) -> Option<&Arc<Run>> {
        self.rows.get(&job.id).filter(|row| row.anchor == job.anchor)
    }

    pub(crate) fn clear(&mut self) {
        self.rows.clear();
    }

    /// Forgets rows that are deleted from the ledger.
    pub(crate) fn forget(&mut self, deleted: &[RunId]) {
        let deleted: BTreeSet<&RunId> = deleted.iter().collect();
        self.rows.retain(|_, row| !deleted.contains(&row.id));
    }
}
