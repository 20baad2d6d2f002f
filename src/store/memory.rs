//! A store in memory: for tests of the core, which need no database and no waiting.
//!
//! It keeps the same promises as the SQL stores (one conformance suite runs on all), but nothing
//! outlives the process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Archive, Change, Reading, Store, StoreError};
use crate::clock::Timestamp;
use crate::filter::{JobFilter, RunFilter};
use crate::job::{Job, JobId, JobState, Origin};
use crate::run::{Output, Run, RunId};

#[derive(Debug, Clone, Default)]
struct Tables {
    jobs: BTreeMap<JobId, Job>,
    runs: BTreeMap<RunId, Run>,
    outputs: BTreeMap<RunId, Output>,
    paused_since: Option<Timestamp>,
}

/// A store in memory; clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    tables: Arc<Mutex<Tables>>,
}

impl MemoryStore {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn apply(&mut self, change: &Change) -> Result<(), StoreError> {
        match change {
            Change::InsertJob(job) => {
                if self.jobs.contains_key(&job.id) {
                    return Err(StoreError::Conflict(format!("job \"{}\"", job.id)));
                }
                self.jobs.insert(job.id.clone(), Job { revision: 1, ..(**job).clone() });
            }
            Change::UpdateJob(job) => {
                let known =
                    self.jobs.get_mut(&job.id).filter(|known| known.revision == job.revision);
                let known =
                    known.ok_or_else(|| StoreError::Conflict(format!("job \"{}\"", job.id)))?;
                *known = Job { revision: job.revision + 1, ..(**job).clone() };
            }
            Change::DeleteJob(id) => {
                self.jobs.remove(id);
            }
            Change::InsertRun(run) => {
                let taken = self.runs.values().any(|known| {
                    known.id == run.id
                        || (run.scheduled_at.is_some()
                            && known.job_id == run.job_id
                            && known.anchor == run.anchor
                            && known.scheduled_at == run.scheduled_at)
                });
                if taken {
                    return Err(StoreError::Conflict(format!(
                        "an occurrence of job \"{}\"",
                        run.job_id
                    )));
                }
                self.runs.insert(run.id.clone(), (**run).clone());
            }
            Change::UpdateRun(run) => {
                let known = self.runs.get_mut(&run.id);
                let known = known.ok_or_else(|| StoreError::Conflict(format!("run {}", run.id)))?;
                *known = (**run).clone();
            }
            Change::PutOutput { run_id, tail, bytes } => {
                self.outputs.insert(run_id.clone(), Output { tail: tail.clone(), bytes: *bytes });
            }
            Change::SetPaused(since) => self.paused_since = *since,
        }
        Ok(())
    }

    fn active<'a>(&'a self, executors: &'a [String]) -> impl Iterator<Item = (Timestamp, &'a Job)> {
        self.jobs
            .values()
            .filter(|job| executors.contains(&job.executor))
            .filter_map(|job| Some((job.next()?.due_at, job)))
    }
}

impl Store for MemoryStore {
    async fn load(&self, ids: &[JobId]) -> Result<Vec<Job>, StoreError> {
        let tables = self.tables();
        Ok(ids.iter().filter_map(|id| tables.jobs.get(id).cloned()).collect())
    }

    async fn due(
        &self,
        until: Timestamp,
        executors: &[String],
        limit: usize,
    ) -> Result<Vec<Job>, StoreError> {
        let tables = self.tables();
        let mut due: Vec<_> = tables.active(executors).filter(|(at, _)| *at <= until).collect();
        due.sort_by_key(|(at, _)| *at);
        Ok(due.into_iter().take(limit).map(|(_, job)| job.clone()).collect())
    }

    async fn to_review(&self, executors: &[String]) -> Result<Vec<Job>, StoreError> {
        let tables = self.tables();
        let wanted = tables.jobs.values().filter(|job| {
            job.origin == Origin::File
                || matches!(job.state, JobState::Broken { .. })
                || !executors.contains(&job.executor)
        });
        Ok(wanted.cloned().collect())
    }

    async fn in_flight(&self) -> Result<Vec<Run>, StoreError> {
        Ok(self.tables().runs.values().filter(|run| !run.state.is_final()).cloned().collect())
    }

    async fn paused_since(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.tables().paused_since)
    }

    async fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        let mut tables = self.tables();
        let mut after = tables.clone();
        for change in changes {
            after.apply(change)?;
        }
        *tables = after;
        Ok(())
    }
}

impl Archive for MemoryStore {
    fn job<'a>(&'a self, id: &'a str) -> Reading<'a, Option<Job>> {
        Box::pin(async move {
            Ok(self.tables().jobs.values().find(|job| job.id.as_str() == id).cloned())
        })
    }

    fn jobs<'a>(&'a self, filter: &'a JobFilter) -> Reading<'a, Vec<Job>> {
        Box::pin(async move {
            let tables = self.tables();
            let wanted = tables.jobs.values().filter(|job| {
                let id = job.id.as_str();
                filter.state.as_deref().is_none_or(|state| job.state.word() == state)
                    && filter.tag.as_ref().is_none_or(|tag| job.tags.contains(tag))
                    && filter.prefix.as_deref().is_none_or(|prefix| id.starts_with(prefix))
                    && filter.after.as_deref().is_none_or(|after| id > after)
            });
            Ok(wanted.take(filter.limit).cloned().collect())
        })
    }

    fn run<'a>(&'a self, id: &'a str) -> Reading<'a, Option<Run>> {
        Box::pin(async move { Ok(self.tables().runs.get(&RunId(id.to_owned())).cloned()) })
    }

    fn runs<'a>(&'a self, filter: &'a RunFilter) -> Reading<'a, Vec<Run>> {
        Box::pin(async move {
            let tables = self.tables();
            let wanted = tables.runs.values().rev().filter(|run| {
                filter.job_id.as_deref().is_none_or(|id| run.job_id.as_str() == id)
                    && filter.state.as_deref().is_none_or(|state| run.state.word() == state)
                    && filter.occurrence.is_none_or(|at| run.covers(at))
                    && filter.since.is_none_or(|since| run.created_at >= since)
                    && filter.before.as_deref().is_none_or(|before| run.id.0.as_str() < before)
            });
            Ok(wanted.take(filter.limit).cloned().collect())
        })
    }

    fn output<'a>(&'a self, run_id: &'a str) -> Reading<'a, Option<Output>> {
        Box::pin(async move { Ok(self.tables().outputs.get(&RunId(run_id.to_owned())).cloned()) })
    }

    fn job_counts(&self) -> Reading<'_, Vec<(String, u64)>> {
        Box::pin(async move {
            let mut counts: BTreeMap<String, u64> = BTreeMap::new();
            for job in self.tables().jobs.values() {
                *counts.entry(job.state.word().to_owned()).or_default() += 1;
            }
            Ok(counts.into_iter().collect())
        })
    }
}
