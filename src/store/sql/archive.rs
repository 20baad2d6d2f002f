//! Reads for everybody but the scheduler: single jobs and runs, pages of them, and what need not be kept. They never wait
//! for the connection that writes.

use std::collections::BTreeSet;

use super::SqlStore;
use super::dialect::Dialect;
use super::query::Query;
use super::table::DecodedRow;
use super::tables::jobs::{self, JOBS};
use super::tables::runs::{self, ATTEMPTS, RUNS};
use super::value::SqlRow;
use crate::clock::Timestamp;
use crate::filter::{
    FinishedJobs, JobConditions, JobFilter, PAGE_BYTES, Prunable, RetentionClass, RunFilter,
};
use crate::job::{Job, JobId, Origin};
use crate::output::Output;
use crate::run::{Attempt, Run, RunId};
use crate::store::{
    ATTEMPT_BYTES, Archive, PoolRuns, RUN_BYTES, ReadFuture, ReviewedJob, Rows, StoreError,
};

/// The instant at which a run has ended.
const ENDED_AT: &str = "coalesce(runs.finished_at, runs.created_at)";

/// Only runs that have ended or were skipped.
const ENDED: &str = " and state not in ('pending', 'running')";

/// The bytes that a run takes with its attempts and outputs.
fn size_of_run(dialect: &dyn Dialect) -> String {
    let integer = dialect.integer_type();
    let text = |column: &str| format!("coalesce(octet_length({column}), 0)");
    let rows = |table: &str, column: &str| {
        format!(
            "coalesce((select cast(sum({ATTEMPT_BYTES} + {}) as {integer}) from {table} where run_id = runs.id), 0)",
            text(column)
        )
    };
    let texts = ["job_id", "error", "result"].map(text).join(" + ");
    let (outputs, attempts) = (rows("attempt_outputs", "kept"), rows("attempts", "error"));
    format!("cast({RUN_BYTES} + {texts} + {outputs} + {attempts} as {integer})")
}

fn integer(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A list of words as SQL.
pub(super) fn words(states: &[&str]) -> String {
    format!("('{}')", states.join("', '"))
}

/// The condition that a run belongs to a class.
fn of_kind(kind: RetentionClass) -> String {
    let event = if kind.is_of_hooks() { "is not null" } else { "is null" };
    format!(" and runs.state in {} and runs.event {event}", words(kind.states()))
}

/// Adds the condition that a run is neither the last success nor the last failure of a job that exists. The ids of those
/// are found once per statement: to look for a newer run for each row takes as many steps as its job has rows.
fn push_may_go(query: &mut Query, kind: RetentionClass, job_id: Option<&str>) {
    if kind.always_kept().is_empty() {
        return;
    }
    let kept = words(kind.always_kept());
    query.push(&format!(
        " and (runs.event is not null or runs.state not in {kept} \
         or not exists (select 1 from jobs where jobs.id = runs.job_id) \
         or runs.id not in (select max(newest.id) from runs newest where newest.event is null \
         and newest.state in {kept}"
    ));
    if let Some(job_id) = job_id {
        query.push(" and newest.job_id = ").bind(job_id);
    }
    query.push(" group by newest.job_id))");
}

impl SqlStore {
    /// Ids begin with the time at which they were made, so ids that are too new to have ended before are not read.
    fn prunable_query(&self, which: Prunable<'_>, limit: usize) -> Query {
        let mut query = match which {
            Prunable::WithOutput { .. } => self.select("distinct run_id", "attempt_outputs"),
            Prunable::Ended { .. }
            | Prunable::Oldest { .. }
            | Prunable::FirstBeyond { .. }
            | Prunable::UpTo { .. } => self.select("id", "runs"),
        };
        match which {
            Prunable::Ended { ids_tell_time, kind, before, after } => {
                query.push(" and id > ").bind(after);
                if ids_tell_time {
                    query.push(" and id < ").bind(&*RunId::first_at(before).0);
                }
                query.push(&of_kind(kind));
                push_may_go(&mut query, kind, None);
                query.push(" and ").push(ENDED_AT).push(" < ").bind(before);
                query.push(" order by id").limit(limit);
            }
            Prunable::WithOutput { ids_tell_time, before, after } => {
                query.push(" and run_id > ").bind(after);
                if ids_tell_time {
                    query.push(" and run_id < ").bind(&*RunId::first_at(before).0);
                }
                query.push(" and exists (select 1 from runs where runs.id = run_id");
                push_may_go(&mut query, RetentionClass::Runs, None);
                push_may_go(&mut query, RetentionClass::Errors, None);
                query.push(ENDED).push(" and ").push(ENDED_AT);
                query.push(" < ").bind(before).push(") order by run_id").limit(limit);
            }
            Prunable::Oldest { last } => {
                query.push(" and id <= ").bind(last).push(ENDED).push(" order by id").limit(limit);
            }
            Prunable::FirstBeyond { job_id, kind, keep } => {
                query.push(" and job_id = ").bind(job_id).push(&of_kind(kind));
                query.push(" order by id desc").limit(1).push(" offset ").bind(integer(keep));
            }
            // The index of a job's occurrences has the older ones first, so that little is read twice.
            Prunable::UpTo { job_id, kind, last } => {
                query.push(" and job_id = ").bind(job_id);
                query.push(&of_kind(kind));
                push_may_go(&mut query, kind, Some(job_id));
                query.push(" and id <= ").bind(last).limit(limit);
            }
        }
        query
    }
}

/// Reads what is reviewed of a job.
fn reviewed(mut row: SqlRow) -> Result<ReviewedJob, StoreError> {
    Ok(ReviewedJob {
        id: JobId::stored(row.text()?),
        is_declared: Origin::parse(&row.text()?) == Some(Origin::File),
        source: row.text_option()?,
    })
}

impl SqlStore {
    /// Reads rows up to the size of a page.
    pub(super) async fn read_page<T>(
        &self,
        mut query: Query,
        read: fn(SqlRow) -> DecodedRow<T>,
    ) -> Result<Rows<T>, StoreError> {
        query.bytes_max(PAGE_BYTES);
        let rows = self.read(query).await?;
        let is_cut = rows.iter().map(SqlRow::bytes).sum::<usize>() >= PAGE_BYTES;
        Ok(Rows { rows: rows.into_iter().map(|row| read(row).value).collect(), is_cut })
    }
}

impl Archive for SqlStore {
    fn job<'a>(&'a self, id: &'a str) -> ReadFuture<'a, Option<Job>> {
        Box::pin(async move {
            let mut query = self.select_all(&JOBS);
            query.push(" and id = ").bind(id);
            Ok(self.read(query).await?.pop().map(|row| jobs::job(row).value))
        })
    }

    fn jobs<'a>(&'a self, filter: &'a JobFilter) -> ReadFuture<'a, Rows<Job>> {
        Box::pin(self.list_jobs(filter))
    }

    fn job_ids<'a>(
        &'a self,
        conditions: &'a JobConditions,
        after: &'a str,
        limit: usize,
    ) -> ReadFuture<'a, Vec<JobId>> {
        Box::pin(async move {
            let rows = self.read(self.job_ids_query(conditions, after, limit)).await?;
            rows.into_iter().map(|mut row| Ok(JobId::stored(row.text()?))).collect()
        })
    }

    fn run<'a>(&'a self, id: &'a str) -> ReadFuture<'a, Option<Run>> {
        Box::pin(async move {
            let mut query = self.select_all(&RUNS);
            query.push(" and id = ").bind(id);
            Ok(self.read(query).await?.pop().map(|row| runs::run(row).value))
        })
    }

    fn run_ids<'a>(&'a self, part: &'a str, limit: usize) -> ReadFuture<'a, Vec<RunId>> {
        Box::pin(async move {
            let mut found = BTreeSet::new();
            for query in self.run_ids_queries(part, limit) {
                for mut row in self.read(query).await? {
                    found.insert(RunId(row.text()?.into()));
                }
            }
            Ok(found.into_iter().collect())
        })
    }

    fn runs<'a>(&'a self, filter: &'a RunFilter) -> ReadFuture<'a, Rows<Run>> {
        Box::pin(self.read_page(self.runs_query(filter), runs::run))
    }

    fn attempts<'a>(&'a self, run_id: &'a str) -> ReadFuture<'a, Vec<Attempt>> {
        Box::pin(async move {
            let mut query = self.select_all(&ATTEMPTS);
            query.push(" and run_id = ").bind(run_id).push(" order by attempt");
            Ok(self.read(query).await?.into_iter().map(runs::attempt).collect())
        })
    }

    fn output<'a>(&'a self, run_id: &'a str, attempt: u32) -> ReadFuture<'a, Option<Output>> {
        Box::pin(async move {
            let mut query = self.select("kept, bytes", "attempt_outputs");
            query.push(" and run_id = ").bind(run_id);
            query.push(" and attempt = ").bind(i64::from(attempt));
            let Some(mut found) = self.read(query).await?.pop() else { return Ok(None) };
            let unusable =
                || StoreError::Unusable(format!("the output of run {run_id} is not understood"));
            let kept = found.text().map_err(|_| unusable())?;
            let bytes = found.count().map_err(|_| unusable())?;
            Output::from_json(&kept, bytes).map(Some).ok_or_else(unusable)
        })
    }

    fn jobs_to_review<'a>(
        &'a self,
        executors: &'a [String],
        after: &'a str,
        limit: usize,
    ) -> ReadFuture<'a, Vec<ReviewedJob>> {
        Box::pin(async move {
            let mut query = self.select("id, origin, source", JOBS.name);
            query.push(" and id > ").bind(after);
            query.push(" and (origin = 'file' or state = 'broken' or ");
            query.none_of("executor", executors.iter().map(String::as_str)).push(")");
            query.push(" order by id").limit(limit);
            self.read(query).await?.into_iter().map(reviewed).collect()
        })
    }

    fn prunable<'a>(&'a self, which: Prunable<'a>, limit: usize) -> ReadFuture<'a, Vec<RunId>> {
        Box::pin(async move {
            let rows = self.read(self.prunable_query(which, limit)).await?;
            rows.into_iter().map(|mut row| Ok(RunId(row.text()?.into()))).collect()
        })
    }

    fn crowded_jobs<'a>(
        &'a self,
        rows: usize,
        after: &'a str,
        limit: usize,
    ) -> ReadFuture<'a, Vec<String>> {
        Box::pin(async move {
            // An index holds all that this needs, in this order.
            let mut query = self.select("job_id", "runs");
            query.push(" and job_id > ").bind(after);
            query.push(" group by job_id having count(*) > ").bind(integer(rows));
            query.push(" order by job_id").limit(limit);
            self.read(query).await?.into_iter().map(|mut row| row.text()).collect()
        })
    }

    fn run_sizes<'a>(
        &'a self,
        before: Option<&'a str>,
        limit: usize,
    ) -> ReadFuture<'a, Vec<(RunId, u64)>> {
        Box::pin(async move {
            let columns = format!("id, {}", size_of_run(self.texts.dialect));
            let mut query = self.select(&columns, "runs");
            query.push(ENDED);
            if let Some(before) = before {
                query.push(" and id < ").bind(before);
            }
            query.push(" order by id desc").limit(limit);
            let rows = self.read(query).await?;
            rows.into_iter().map(|mut row| Ok((RunId(row.text()?.into()), row.count()?))).collect()
        })
    }

    fn finished_jobs<'a>(&'a self, page: FinishedJobs<'a>) -> ReadFuture<'a, Vec<Job>> {
        Box::pin(async move {
            let (finished_at, id) = page.after;
            let mut query = self.select_all(&JOBS);
            query.push(" and state = 'finished' and updated_at < ").bind(page.before);
            query.push(" and updated_at >= ").bind(finished_at);
            query.push(" and (updated_at > ").bind(finished_at);
            query.push(" or id > ").bind(id).push(")");
            query.push(" and not exists (select 1 from runs where runs.job_id = jobs.id");
            query.push(" and runs.state in ('pending', 'running'))");
            query.push(" order by updated_at, id").limit(page.limit);
            let rows = self.read(query).await?;
            Ok(rows.into_iter().filter_map(|row| jobs::job(row).writable()).collect())
        })
    }

    fn finished_beyond(&self, keep: usize) -> ReadFuture<'_, Option<Timestamp>> {
        Box::pin(async move {
            let mut query = self.select("updated_at", JOBS.name);
            query.push(" and state = 'finished' order by updated_at desc, id desc").limit(1);
            query.push(" offset ").bind(integer(keep));
            let found = self.read(query).await?.pop();
            found.map(|mut row| row.instant()).transpose()
        })
    }

    fn in_flight(&self) -> ReadFuture<'_, Vec<PoolRuns>> {
        Box::pin(async move {
            let columns = "executor, node, state, count(*)";
            let mut query = self.select(columns, "runs");
            query.push(" and state in ('pending', 'running')");
            query.push(" group by executor, node, state order by executor, node, state");
            let mut found: Vec<PoolRuns> = Vec::new();
            for mut row in self.read(query).await? {
                let (executor, node) = (row.text()?, row.text()?);
                let (state, count) = (row.text()?, row.count()?);
                let is_other = |last: &PoolRuns| last.executor != executor || last.node != node;
                if found.last().is_none_or(is_other) {
                    found.push(PoolRuns { executor, node, running: 0, waiting: 0 });
                }
                let Some(pool) = found.last_mut() else { continue };
                if state == "running" {
                    pool.running = count;
                } else {
                    pool.waiting = count;
                }
            }
            Ok(found)
        })
    }

    fn job_counts(&self) -> ReadFuture<'_, Vec<(String, u64)>> {
        Box::pin(async move {
            let text = "select state, count(*) from jobs group by state order by state";
            let rows = self.read(self.query(text)).await?;
            rows.into_iter().map(|mut row| Ok((row.text()?, row.count()?))).collect()
        })
    }
}
