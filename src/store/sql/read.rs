//! Statements that read.

use sqlx::{AssertSqlSafe, QueryBuilder, Sqlite, SqlitePool};

use super::row::{self, JOB_COLUMNS, RUN_COLUMNS};
use super::write::PAUSED_SINCE;
use super::{SqlStore, unavailable};
use crate::clock::Timestamp;
use crate::filter::{JobFilter, RunFilter};
use crate::job::{Job, JobId};
use crate::run::{Output, Run};
use crate::store::{Archive, Reading, StoreError};

/// Ids in one `in (…)` list: far below SQLite's 32,766 parameters.
const IDS_PER_STATEMENT: usize = 500;

type Query = QueryBuilder<Sqlite>;

fn select(columns: &str, table: &str) -> Query {
    Query::new(format!("select {columns} from {table} where true"))
}

async fn jobs(mut query: Query, pool: &SqlitePool) -> Result<Vec<Job>, StoreError> {
    let rows = query.build().fetch_all(pool).await.map_err(unavailable)?;
    rows.iter().map(row::job).collect()
}

async fn runs(mut query: Query, pool: &SqlitePool) -> Result<Vec<Run>, StoreError> {
    let rows = query.build().fetch_all(pool).await.map_err(unavailable)?;
    rows.iter().map(row::run).collect()
}

fn push_list<'a>(query: &mut Query, items: impl Iterator<Item = &'a str>) {
    let mut list = query.separated(", ");
    for item in items {
        list.push_bind(item.to_owned());
    }
    query.push(")");
}

fn push_limit(query: &mut Query, limit: usize) {
    query.push(" limit ").push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
}

impl SqlStore {
    pub(super) async fn paused_setting(&self) -> Result<Option<Timestamp>, StoreError> {
        let value: Option<String> = sqlx::query_scalar("select value from settings where name = ?")
            .bind(PAUSED_SINCE)
            .fetch_optional(&self.writer)
            .await
            .map_err(unavailable)?;
        let unusable = |value: &str| {
            StoreError::Unusable(format!(
                "the setting {PAUSED_SINCE} is \"{value}\", not an instant"
            ))
        };
        let instant = |value: String| {
            let micros = value.parse().ok().and_then(Timestamp::from_timestamp_micros);
            micros.ok_or_else(|| unusable(&value))
        };
        value.map(instant).transpose()
    }

    pub(super) async fn load_jobs(&self, ids: &[JobId]) -> Result<Vec<Job>, StoreError> {
        let mut found = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(IDS_PER_STATEMENT) {
            let mut query = select(JOB_COLUMNS, "jobs");
            query.push(" and id in (");
            push_list(&mut query, chunk.iter().map(JobId::as_str));
            found.extend(jobs(query, &self.writer).await?);
        }
        Ok(found)
    }

    pub(super) async fn due_jobs(
        &self,
        until: Timestamp,
        executors: &[String],
        limit: usize,
    ) -> Result<Vec<Job>, StoreError> {
        let mut query = select(JOB_COLUMNS, "jobs");
        query.push(" and next_run_time <= ").push_bind(until.timestamp_micros());
        query.push(" and executor in (");
        push_list(&mut query, executors.iter().map(String::as_str));
        query.push(" order by next_run_time");
        push_limit(&mut query, limit);
        jobs(query, &self.writer).await
    }

    pub(super) async fn jobs_to_review(
        &self,
        executors: &[String],
    ) -> Result<Vec<Job>, StoreError> {
        let mut query = select(JOB_COLUMNS, "jobs");
        query.push(" and (origin = 'file' or state = 'broken' or executor not in (");
        push_list(&mut query, executors.iter().map(String::as_str));
        query.push(")");
        jobs(query, &self.writer).await
    }

    pub(super) async fn runs_in_flight(&self) -> Result<Vec<Run>, StoreError> {
        let mut query = select(RUN_COLUMNS, "runs");
        query.push(" and state in ('pending', 'running') order by id");
        runs(query, &self.writer).await
    }
}

impl Archive for SqlStore {
    fn job<'a>(&'a self, id: &'a str) -> Reading<'a, Option<Job>> {
        Box::pin(async move {
            let mut query = select(JOB_COLUMNS, "jobs");
            query.push(" and id = ").push_bind(id);
            Ok(jobs(query, &self.readers).await?.pop())
        })
    }

    fn jobs<'a>(&'a self, filter: &'a JobFilter) -> Reading<'a, Vec<Job>> {
        Box::pin(async move {
            let mut query = select(JOB_COLUMNS, "jobs");
            if let Some(state) = &filter.state {
                query.push(" and state = ").push_bind(state);
            }
            if let Some(tag) = &filter.tag {
                // Tags are a JSON list: the quoted tag stands in it as it stands alone.
                let quoted = serde_json::Value::from(tag.as_str()).to_string();
                query.push(" and instr(tags, ").push_bind(quoted).push(") > 0");
            }
            if let Some(prefix) = &filter.prefix {
                let length = i64::try_from(prefix.chars().count()).unwrap_or(i64::MAX);
                query.push(" and id >= ").push_bind(prefix);
                query.push(" and substr(id, 1, ").push_bind(length).push(") = ").push_bind(prefix);
            }
            if let Some(after) = &filter.after {
                query.push(" and id > ").push_bind(after);
            }
            query.push(" order by id");
            push_limit(&mut query, filter.limit);
            jobs(query, &self.readers).await
        })
    }

    fn run<'a>(&'a self, id: &'a str) -> Reading<'a, Option<Run>> {
        Box::pin(async move {
            let mut query = select(RUN_COLUMNS, "runs");
            query.push(" and id = ").push_bind(id);
            Ok(runs(query, &self.readers).await?.pop())
        })
    }

    fn runs<'a>(&'a self, filter: &'a RunFilter) -> Reading<'a, Vec<Run>> {
        Box::pin(async move {
            let mut query = select(RUN_COLUMNS, "runs");
            if let Some(job_id) = &filter.job_id {
                query.push(" and job_id = ").push_bind(job_id);
            }
            if let Some(state) = &filter.state {
                query.push(" and state = ").push_bind(state);
            }
            if let Some(at) = filter.occurrence {
                query.push(" and scheduled_at <= ").push_bind(at.timestamp_micros());
                query.push(" and coalesce(last_scheduled_at, scheduled_at) >= ");
                query.push_bind(at.timestamp_micros());
            }
            if let Some(since) = filter.since {
                query.push(" and created_at >= ").push_bind(since.timestamp_micros());
            }
            if let Some(before) = &filter.before {
                query.push(" and id < ").push_bind(before);
            }
            query.push(" order by id desc");
            push_limit(&mut query, filter.limit);
            runs(query, &self.readers).await
        })
    }

    fn output<'a>(&'a self, run_id: &'a str) -> Reading<'a, Option<Output>> {
        Box::pin(async move {
            let found: Option<(String, i64)> =
                sqlx::query_as("select tail, bytes from outputs where run_id = ?")
                    .bind(run_id)
                    .fetch_optional(&self.readers)
                    .await
                    .map_err(unavailable)?;
            Ok(found.map(|(tail, bytes)| Output { tail, bytes: u64::try_from(bytes).unwrap_or(0) }))
        })
    }

    fn job_counts(&self) -> Reading<'_, Vec<(String, u64)>> {
        Box::pin(async move {
            let counts: Vec<(String, i64)> = sqlx::query_as(AssertSqlSafe(
                "select state, count(*) from jobs group by state order by state",
            ))
            .fetch_all(&self.readers)
            .await
            .map_err(unavailable)?;
            Ok(counts
                .into_iter()
                .map(|(state, count)| (state, u64::try_from(count).unwrap_or(0)))
                .collect())
        })
    }
}
