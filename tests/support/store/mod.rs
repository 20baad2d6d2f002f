//! A store in memory: for tests of the core, which need no database and no waiting.
//!
//! It keeps the same promises as the SQL stores (one conformance suite runs on all), but nothing
//! outlives the process.

pub mod faulty;
pub mod layered;
mod lists;
mod prune;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::occurrences::last_occurrence;
use punctual::clock::Timestamp;
use punctual::filter::{FinishedJobs, JobConditions, JobFilter, Prunable, RunFilter};
use punctual::job::{Job, JobId, JobState, Origin, Pause};
use punctual::output::Output;
use punctual::run::{Attempt, Cause, Run, RunId, RunState, SkipReason};
use punctual::store::{
    Archive, CLAIM_BYTES, Change, Claim, ClusterView, Holder, InFlightCount, Node, PoolRuns,
    ReadFuture, ReviewedJob, Rows, ScheduledJob, Store, StoreError,
};

#[derive(Debug, Clone, Default)]
struct Tables {
    jobs: BTreeMap<JobId, Arc<Job>>,
    runs: BTreeMap<RunId, Arc<Run>>,
    attempts: BTreeMap<(RunId, u32), Arc<Attempt>>,
    outputs: BTreeMap<(RunId, u32), Arc<Output>>,
    nodes: BTreeMap<String, Node>,
    asked_to_end: BTreeMap<RunId, String>,
    pause: Option<Arc<Pause>>,
    recorded_time: Option<Timestamp>,
}

/// A store in memory; clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    tables: Arc<Mutex<Tables>>,
    is_shared: bool,
}

impl MemoryStore {
    /// A store that several nodes work on.
    pub fn shared() -> Self {
        Self { is_shared: true, ..Self::default() }
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn conflict(what: &str, id: impl std::fmt::Display) -> StoreError {
    StoreError::Conflict(format!("{what} {id}"))
}

impl Tables {
    fn apply(&mut self, change: &Change) -> Result<(), StoreError> {
        match change {
            Change::InsertJob(_)
            | Change::UpdateJob(_)
            | Change::AdvanceJob(_)
            | Change::DeleteJob { .. } => self.apply_to_job(change)?,
            Change::InsertRun(run) => {
                let taken = self.runs.values().any(|known| {
                    known.id == run.id
                        || (run.scheduled_at.is_some()
                            && known.job_id == run.job_id
                            && known.anchor == run.anchor
                            && known.scheduled_at == run.scheduled_at)
                });
                if taken {
                    return Err(conflict("an occurrence of job", &run.job_id));
                }
                self.runs.insert(run.id.clone(), Arc::clone(run));
            }
            Change::UpdateRun { run, held_by } => {
                let known = self.runs.get_mut(&run.id);
                let known = known.filter(|known| known.node == *held_by && !known.state.is_final());
                *known.ok_or_else(|| conflict("run", &run.id))? = Arc::clone(run);
            }
            Change::ExtendSkipped { run, former_last } => {
                let is_this = |known: &&mut Arc<Run>| matches!(&known.state, RunState::Skipped { last_scheduled_at, .. } if last_scheduled_at == former_last);
                let known = self.runs.get_mut(&run.id).filter(is_this);
                *known.ok_or_else(|| conflict("run", &run.id))? = Arc::clone(run);
            }
            Change::InsertAttempt(attempt) => {
                let key = (attempt.run_id.clone(), attempt.number);
                if self.attempts.contains_key(&key) {
                    return Err(conflict("an attempt of run", &attempt.run_id));
                }
                self.attempts.insert(key, Arc::clone(attempt));
            }
            Change::PutOutput { run_id, attempt, output } => {
                self.outputs.insert((run_id.clone(), *attempt), Arc::clone(output));
            }
            Change::SavePartialOutput { run_id, attempt, output, held_by } => {
                if self.runs_on(held_by, run_id, *attempt) {
                    self.outputs.insert((run_id.clone(), *attempt), Arc::clone(output));
                }
            }
            Change::CancelRun { run_id, reason } => {
                if self.in_flight().any(|run| run.id == *run_id) {
                    self.asked_to_end.insert(run_id.clone(), reason.clone());
                }
            }
            Change::CancelJobRuns { job_id, reason, except_node } => {
                let meant: Vec<RunId> = self
                    .in_flight()
                    .filter(|run| run.job_id == *job_id && run.node != *except_node)
                    .filter(|run| matches!(run.state, RunState::Running { .. }))
                    .map(|run| run.id.clone())
                    .collect();
                self.asked_to_end.extend(meant.into_iter().map(|id| (id, reason.clone())));
            }
            Change::SetPause(pause) => self.pause.clone_from(pause),
            Change::EndPause(pause) => {
                if self.pause.take().as_ref() != Some(pause) {
                    return Err(conflict("the pause", pause.since));
                }
            }
            Change::RecordTime(at) => self.recorded_time = Some(*at),
            Change::Prune { run_id, part } => self.prune(run_id, *part),
        }
        Ok(())
    }

    fn apply_to_job(&mut self, change: &Change) -> Result<(), StoreError> {
        if let Change::InsertJob(job) = change {
            if self.jobs.contains_key(&job.id) {
                return Err(conflict("job", &job.id));
            }
            self.jobs.insert(job.id.clone(), Arc::clone(job));
        }
        if let Change::UpdateJob(job) | Change::AdvanceJob(job) = change {
            let known = self.jobs.get_mut(&job.id);
            let is_this = |known: &&mut Arc<Job>| {
                (known.revision + 1, known.created_at) == (job.revision, job.created_at)
            };
            let known = known.filter(is_this);
            *known.ok_or_else(|| conflict("job", &job.id))? = Arc::clone(job);
        }
        if let Change::DeleteJob { id, revision, created_at } = change {
            self.jobs
                .get(id)
                .filter(|known| (known.revision, known.created_at) == (*revision, *created_at))
                .ok_or_else(|| conflict("job", id))?;
            self.jobs.remove(id);
        }
        Ok(())
    }

    /// Whether a node runs this attempt.
    fn runs_on(&self, node: &str, run_id: &RunId, attempt: u32) -> bool {
        self.runs.get(run_id).is_some_and(|run| {
            let is_running = matches!(run.state, RunState::Running { .. });
            is_running && run.attempt == attempt && *run.node == *node
        })
    }

    fn in_flight(&self) -> impl Iterator<Item = &Run> {
        self.runs.values().map(AsRef::as_ref).filter(|run| !run.state.is_final())
    }
}

impl Store for MemoryStore {
    fn is_shared(&self) -> bool {
        self.is_shared
    }

    async fn load_jobs(&self, ids: &[JobId]) -> Result<Vec<Job>, StoreError> {
        let tables = self.tables();
        Ok(ids.iter().filter_map(|id| tables.jobs.get(id).map(|job| (**job).clone())).collect())
    }

    async fn claim_jobs(&self, claim: Claim<'_>) -> Result<Vec<Job>, StoreError> {
        let mut tables = self.tables();
        let is_free = |job: &Job| {
            let owner = job.owner.as_deref().filter(|owner| *owner != claim.node);
            owner.is_none_or(|owner| claim.live.iter().all(|live| live != owner))
        };
        let jobs = tables.jobs.values_mut();
        let mut due: Vec<(Timestamp, &mut Arc<Job>)> = jobs
            .filter(|job| claim.executors.contains(&job.executor))
            .filter(|job| !self.is_shared || is_free(job))
            .filter_map(|job| Some((job.wakes_at()?, job)))
            .filter(|(due_at, _)| *due_at <= claim.until)
            .collect();
        due.sort_by_key(|(due_at, _)| *due_at);
        let due = up_to(CLAIM_BYTES, due.into_iter(), |(_, job)| job.bytes);
        let taken = due.take(claim.limit).map(|(_, job)| {
            if self.is_shared {
                Arc::make_mut(job).owner = Some(claim.node.into());
            }
            (**job).clone()
        });
        Ok(taken.collect())
    }

    async fn release_jobs(
        &self,
        node: &str,
        executor: &str,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        for job in self.tables().jobs.values_mut() {
            let is_due = job.wakes_at().is_some_and(|at| at <= until);
            if is_due && job.executor == executor && job.owner.as_deref() == Some(node) {
                Arc::make_mut(job).owner = None;
            }
        }
        Ok(())
    }

    async fn runs_in_flight(&self, holder: Holder<'_>) -> Result<Vec<Run>, StoreError> {
        let tables = self.tables();
        let wanted = tables.in_flight().filter(|run| match holder {
            Holder::Node(name) => *run.node == *name,
            Holder::Gone { but } => {
                // Who is alone may find the name of one who was before, which means nothing.
                let is_known = self.is_shared && tables.nodes.contains_key(&*run.node);
                *run.node != *but && !is_known
            }
        });
        Ok(wanted.cloned().collect())
    }

    async fn load_runs(&self, ids: &[RunId]) -> Result<Vec<Run>, StoreError> {
        let tables = self.tables();
        Ok(ids.iter().filter_map(|id| tables.runs.get(id).map(|run| (**run).clone())).collect())
    }

    async fn latest_skips(
        &self,
        jobs: &[Arc<Job>],
        reason: SkipReason,
    ) -> Result<Vec<Run>, StoreError> {
        let tables = self.tables();
        let latest = |job: &Arc<Job>| {
            let of_job = tables.runs.values().filter(|run| {
                run.job_id == job.id && run.anchor == job.anchor && run.scheduled_at.is_some()
            });
            of_job.max_by_key(|run| run.scheduled_at)
        };
        let is_skip = |run: &&Arc<Run>| matches!(run.state, RunState::Skipped { reason: known, .. } if known == reason);
        Ok(jobs.iter().filter_map(latest).filter(is_skip).map(|run| (**run).clone()).collect())
    }

    async fn load_output(
        &self,
        run_id: &RunId,
        attempt: u32,
    ) -> Result<Option<Output>, StoreError> {
        self.output(&run_id.0, attempt).await
    }

    async fn count_in_flight_elsewhere(
        &self,
        node: &str,
    ) -> Result<Vec<(JobId, InFlightCount)>, StoreError> {
        let tables = self.tables();
        let mut found: BTreeMap<JobId, InFlightCount> = BTreeMap::new();
        let is_event = |run: &Run| matches!(run.cause, Cause::Event { .. });
        for run in tables.in_flight().filter(|run| *run.node != *node && !is_event(run)) {
            let count = found.entry(run.job_id.clone()).or_default();
            match run.state {
                RunState::Running { .. } => count.running += 1,
                RunState::Pending | RunState::Ended { .. } | RunState::Skipped { .. } => {
                    count.waiting += 1;
                }
            }
        }
        Ok(found.into_iter().collect())
    }

    async fn renew_lease(
        &self,
        node: &str,
        started_at: Timestamp,
        now: Timestamp,
    ) -> Result<ClusterView, StoreError> {
        let mut tables = self.tables();
        let is_new = !tables.nodes.contains_key(node);
        let new = || Node { name: node.to_owned(), beat: 0, started_at, seen_at: now };
        let me = tables.nodes.entry(node.to_owned()).or_insert_with(new);
        (me.beat, me.seen_at) = (me.beat + 1, now);
        let nodes = tables.nodes.values().cloned().collect();
        let mine = tables.in_flight().filter(|run| *run.node == *node);
        let asked = mine.filter_map(|run| {
            tables.asked_to_end.get(&run.id).map(|reason| (run.id.clone(), reason.clone()))
        });
        let cancel_requests = asked.collect();
        let (pause, recorded_time) = (tables.pause.as_deref().cloned(), tables.recorded_time);
        Ok(ClusterView { is_new, nodes, pause, recorded_time, cancel_requests })
    }

    async fn remove_nodes(&self, dead: &[Node]) -> Result<(), StoreError> {
        let mut tables = self.tables();
        let known = |node: &&Node| {
            tables.nodes.get(&node.name).is_some_and(|known| known.beat == node.beat)
        };
        if let Some(alive) = dead.iter().find(|node| !known(node)) {
            return Err(conflict("node", &alive.name));
        }
        for node in dead {
            tables.nodes.remove(&node.name);
        }
        Ok(())
    }

    async fn pause(&self) -> Result<Option<Pause>, StoreError> {
        Ok(self.tables().pause.as_deref().cloned())
    }

    async fn recorded_time(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.tables().recorded_time)
    }

    async fn newest_run(&self) -> Result<Option<Run>, StoreError> {
        Ok(self.tables().runs.values().next_back().map(|run| (**run).clone()))
    }

    async fn scheduled_jobs(
        &self,
        after: Option<&JobId>,
        limit: usize,
    ) -> Result<Vec<ScheduledJob>, StoreError> {
        let tables = self.tables();
        let scheduled = |job: &Arc<Job>| {
            let of_job =
                tables.runs.values().filter(|run| run.job_id == job.id && run.anchor == job.anchor);
            let last = of_job.filter_map(|run| last_occurrence(run)).max();
            ScheduledJob { job: (**job).clone(), last }
        };
        let page = tables.jobs.values().filter(|job| after.is_none_or(|after| job.id > *after));
        Ok(page.take(limit).map(scheduled).collect())
    }

    async fn wait_for_hint(&self) -> Result<(), StoreError> {
        std::future::pending().await
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let mut tables = self.tables();
        let mut after = tables.clone();
        for change in &changes {
            after.apply(change)?;
        }
        *tables = after;
        Ok(())
    }
}

/// Items up to the one with which they reach this many bytes.
fn up_to<T>(
    bytes_max: usize,
    items: impl Iterator<Item = T>,
    bytes: impl Fn(&T) -> usize,
) -> impl Iterator<Item = T> {
    items.scan(0_usize, move |sum, item| {
        let is_wanted = *sum < bytes_max;
        *sum = sum.saturating_add(bytes(&item));
        is_wanted.then_some(item)
    })
}

impl Archive for MemoryStore {
    fn job<'a>(&'a self, id: &'a str) -> ReadFuture<'a, Option<Job>> {
        Box::pin(async move {
            let tables = self.tables();
            let found = tables.jobs.values().find(|job| job.id.as_str() == id);
            Ok(found.map(|job| (**job).clone()))
        })
    }

    fn jobs<'a>(&'a self, filter: &'a JobFilter) -> ReadFuture<'a, Rows<Job>> {
        Box::pin(async move { Ok(self.tables().list_jobs(filter)) })
    }

    fn job_ids<'a>(
        &'a self,
        conditions: &'a JobConditions,
        after: &'a str,
        limit: usize,
    ) -> ReadFuture<'a, Vec<JobId>> {
        Box::pin(async move {
            let tables = self.tables();
            let wanted = tables.jobs.values().filter(|job| conditions.are_met_by(job));
            let ids = wanted.map(|job| job.id.clone()).filter(|id| id.as_str() > after);
            Ok(ids.take(limit).collect())
        })
    }

    fn run<'a>(&'a self, id: &'a str) -> ReadFuture<'a, Option<Run>> {
        Box::pin(async move {
            let tables = self.tables();
            Ok(tables.runs.get(&RunId(id.into())).map(|run| (**run).clone()))
        })
    }

    fn run_ids<'a>(&'a self, part: &'a str, limit: usize) -> ReadFuture<'a, Vec<RunId>> {
        Box::pin(async move {
            let tables = self.tables();
            let ids = tables.runs.keys();
            let named = ids.filter(|id| id.0.starts_with(part) || id.0.ends_with(part));
            Ok(named.take(2 * limit).cloned().collect())
        })
    }

    fn runs<'a>(&'a self, filter: &'a RunFilter) -> ReadFuture<'a, Rows<Run>> {
        Box::pin(async move { Ok(self.tables().list_runs(filter)) })
    }

    fn attempts<'a>(&'a self, run_id: &'a str) -> ReadFuture<'a, Vec<Attempt>> {
        Box::pin(async move {
            let tables = self.tables();
            let of_run = tables.attempts.values().filter(|attempt| &*attempt.run_id.0 == run_id);
            Ok(of_run.map(|attempt| (**attempt).clone()).collect())
        })
    }

    fn output<'a>(&'a self, run_id: &'a str, attempt: u32) -> ReadFuture<'a, Option<Output>> {
        Box::pin(async move {
            let output = self.tables().outputs.get(&(RunId(run_id.into()), attempt)).cloned();
            Ok(output.map(|output| (*output).clone()))
        })
    }

    fn jobs_to_review<'a>(
        &'a self,
        executors: &'a [String],
        after: &'a str,
        limit: usize,
    ) -> ReadFuture<'a, Vec<ReviewedJob>> {
        Box::pin(async move {
            let tables = self.tables();
            let wanted = tables.jobs.values().filter(|job| {
                job.origin == Origin::File
                    || matches!(job.state, JobState::Broken { .. })
                    || !executors.contains(&job.executor)
            });
            let reviewed = |job: &Arc<Job>| ReviewedJob {
                id: job.id.clone(),
                is_declared: job.origin == Origin::File,
                source: job.source.as_deref().map(str::to_owned),
            };
            let page = wanted.filter(|job| job.id.as_str() > after).take(limit);
            Ok(page.map(reviewed).collect())
        })
    }

    fn prunable<'a>(&'a self, which: Prunable<'a>, limit: usize) -> ReadFuture<'a, Vec<RunId>> {
        Box::pin(async move {
            let mut found = self.tables().prunable(which);
            found.truncate(limit);
            Ok(found)
        })
    }

    fn crowded_jobs<'a>(
        &'a self,
        rows: usize,
        after: &'a str,
        limit: usize,
    ) -> ReadFuture<'a, Vec<String>> {
        Box::pin(async move { Ok(self.tables().crowded_jobs(rows, after, limit)) })
    }

    fn run_sizes<'a>(
        &'a self,
        before: Option<&'a str>,
        limit: usize,
    ) -> ReadFuture<'a, Vec<(RunId, u64)>> {
        Box::pin(async move { Ok(self.tables().run_sizes(before, limit)) })
    }

    fn finished_jobs<'a>(&'a self, page: FinishedJobs<'a>) -> ReadFuture<'a, Vec<Job>> {
        Box::pin(async move { Ok(self.tables().finished_jobs(&page)) })
    }

    fn finished_beyond(&self, keep: usize) -> ReadFuture<'_, Option<Timestamp>> {
        Box::pin(async move { Ok(self.tables().finished_beyond(keep)) })
    }

    fn in_flight(&self) -> ReadFuture<'_, Vec<PoolRuns>> {
        Box::pin(async move { Ok(self.tables().pool_runs()) })
    }

    fn job_counts(&self) -> ReadFuture<'_, Vec<(String, u64)>> {
        Box::pin(async move {
            let mut counts: BTreeMap<String, u64> = BTreeMap::new();
            for job in self.tables().jobs.values() {
                *counts.entry(job.state.word().to_owned()).or_default() += 1;
            }
            Ok(counts.into_iter().collect())
        })
    }
}
