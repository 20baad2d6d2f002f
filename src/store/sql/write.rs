//! Statements that write: one transaction takes a list of changes, or nothing.

use sqlx::sqlite::SqliteQueryResult;
use sqlx::{Sqlite, SqliteConnection};

use super::row::count;
use super::{SqlStore, unavailable};
use crate::clock::Timestamp;
use crate::job::{Due, Job, JobId, JobState, Origin};
use crate::run::{Outcome, Run, RunId, RunState};
use crate::store::{Change, Store, StoreError};

const INSERT_JOB: &str = "insert into jobs (name, state, reason, trigger_spec, task, executor, misfire_grace_time, \
    coalesce_rule, max_instances, on_crash, max_runs, run_count, tags, description, origin, anchor, scheduled_at, \
    next_run_time, created_at, updated_at, overlap, id, revision) \
    values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1)";

const UPDATE_JOB: &str = "update jobs set name = ?, state = ?, reason = ?, trigger_spec = ?, task = ?, executor = ?, \
    misfire_grace_time = ?, coalesce_rule = ?, max_instances = ?, on_crash = ?, max_runs = ?, run_count = ?, \
    tags = ?, description = ?, origin = ?, anchor = ?, scheduled_at = ?, next_run_time = ?, \
    created_at = ?, updated_at = ?, overlap = ?, \
    revision = revision + 1 where id = ? and revision = ?";

const INSERT_RUN: &str = "insert into runs (state, reason, last_scheduled_at, occurrences, attempt, started_at, \
    finished_at, exit_code, error, result, node, id, job_id, anchor, cause, scheduled_at, due_at, executor, \
    created_at) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

const UPDATE_RUN: &str = "update runs set state = ?, reason = ?, last_scheduled_at = ?, occurrences = ?, \
    attempt = ?, started_at = ?, finished_at = ?, exit_code = ?, error = ?, result = ?, node = ? where id = ?";

const PUT_OUTPUT: &str = "insert into outputs (run_id, tail, bytes) values (?, ?, ?) \
    on conflict (run_id) do update set tail = excluded.tail, bytes = excluded.bytes";

const PUT_SETTING: &str = "insert into settings (name, value) values (?, ?) \
    on conflict (name) do update set value = excluded.value";

/// The setting that says since when the scheduler is paused: an instant in microseconds.
pub(super) const PAUSED_SINCE: &str = "paused_since";

type Query<'q> = sqlx::query::Query<'q, Sqlite, sqlx::sqlite::SqliteArguments>;

impl Store for SqlStore {
    async fn load(&self, ids: &[JobId]) -> Result<Vec<Job>, StoreError> {
        self.load_jobs(ids).await
    }

    async fn due(
        &self,
        until: Timestamp,
        executors: &[String],
        limit: usize,
    ) -> Result<Vec<Job>, StoreError> {
        self.due_jobs(until, executors, limit).await
    }

    async fn to_review(&self, executors: &[String]) -> Result<Vec<Job>, StoreError> {
        self.jobs_to_review(executors).await
    }

    async fn in_flight(&self) -> Result<Vec<Run>, StoreError> {
        self.runs_in_flight().await
    }

    async fn paused_since(&self) -> Result<Option<Timestamp>, StoreError> {
        self.paused_setting().await
    }

    async fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        // "Immediate" takes the write lock at once: a transaction that only later asks for it can be refused
        // without any waiting.
        let mut transaction =
            self.writer.begin_with("begin immediate").await.map_err(unavailable)?;
        for change in changes {
            apply(change, &mut transaction).await?;
        }
        transaction.commit().await.map_err(unavailable)
    }
}

async fn apply(change: &Change, connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let (query, conflict) = match change {
        Change::InsertJob(job) => {
            (bind_job(sqlx::query(INSERT_JOB), job), format!("job \"{}\"", job.id))
        }
        Change::UpdateJob(job) => (
            bind_job(sqlx::query(UPDATE_JOB), job).bind(job.revision),
            format!("job \"{}\"", job.id),
        ),
        Change::DeleteJob(id) => {
            let query = sqlx::query("delete from jobs where id = ?").bind(id.as_str().to_owned());
            (query, format!("job \"{id}\""))
        }
        Change::InsertRun(run) => {
            (bind_new_run(run), format!("an occurrence of job \"{}\"", run.job_id))
        }
        Change::UpdateRun(run) => {
            (bind_run(sqlx::query(UPDATE_RUN), run), format!("run {}", run.id))
        }
        Change::PutOutput { run_id, tail, bytes } => {
            (bind_output(run_id, tail, *bytes), format!("run {run_id}"))
        }
        Change::SetPaused(since) => (bind_paused(*since), "the pause".to_owned()),
    };
    match query.execute(connection).await {
        Ok(done) if changed_nothing(change, &done) => Err(StoreError::Conflict(conflict)),
        Ok(_) => Ok(()),
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
            Err(StoreError::Conflict(conflict))
        }
        Err(error) => Err(unavailable(error)),
    }
}

/// Whether an update found no row: another revision, or none at all. A job may well be gone before it is deleted.
fn changed_nothing(change: &Change, done: &SqliteQueryResult) -> bool {
    let must_change = match change {
        Change::UpdateJob(_) | Change::UpdateRun(_) => true,
        Change::InsertJob(_)
        | Change::DeleteJob(_)
        | Change::InsertRun(_)
        | Change::PutOutput { .. }
        | Change::SetPaused(_) => false,
    };
    must_change && done.rows_affected() == 0
}

fn bind_paused<'q>(since: Option<Timestamp>) -> Query<'q> {
    match since {
        Some(since) => {
            sqlx::query(PUT_SETTING).bind(PAUSED_SINCE).bind(since.timestamp_micros().to_string())
        }
        None => sqlx::query("delete from settings where name = ?").bind(PAUSED_SINCE),
    }
}

fn bind_job<'q>(query: Query<'q>, job: &Job) -> Query<'q> {
    let (next, reason) = match &job.state {
        JobState::Active { next } => ((Some(next.scheduled_at), Some(next.due_at)), None),
        // A paused job keeps its place in the schedule, but is not due.
        JobState::Paused { next: Due { scheduled_at, .. } } => ((Some(*scheduled_at), None), None),
        JobState::Finished => ((None, None), None),
        JobState::Broken { reason, since } => ((*since, None), Some(reason.clone())),
    };
    let origin = match job.origin {
        Origin::File => "file",
        Origin::Socket => "socket",
    };
    query
        .bind(job.name.clone())
        .bind(job.state.word())
        .bind(reason)
        .bind(job.trigger.spec().to_string())
        .bind(job.task.to_value().to_string())
        .bind(job.executor.clone())
        .bind(job.policy.misfire_grace.and_then(|grace| grace.num_microseconds()))
        .bind(job.policy.coalesce.word())
        .bind(i64::from(job.policy.max_instances))
        .bind(job.policy.on_crash.word())
        .bind(job.policy.max_runs.map(count))
        .bind(count(job.run_count))
        .bind(serde_json::Value::from(job.tags.clone()).to_string())
        .bind(job.description.clone())
        .bind(origin)
        .bind(job.anchor.timestamp_micros())
        .bind(next.0.map(|at| at.timestamp_micros()))
        .bind(next.1.map(|at| at.timestamp_micros()))
        .bind(job.created_at.timestamp_micros())
        .bind(job.updated_at.timestamp_micros())
        .bind(job.policy.overlap.word())
        .bind(job.id.as_str().to_owned())
}

/// The columns of a run that its state decides.
#[derive(Default)]
struct StateColumns {
    reason: Option<&'static str>,
    last_scheduled_at: Option<Timestamp>,
    count: u64,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    exit_code: Option<i32>,
    error: Option<String>,
    result: Option<String>,
}

fn state_columns(state: &RunState) -> StateColumns {
    let blank = StateColumns { count: 1, ..StateColumns::default() };
    match state {
        RunState::Pending => blank,
        RunState::Running { started_at } => StateColumns { started_at: Some(*started_at), ..blank },
        RunState::Skipped { reason, last_scheduled_at, count } => StateColumns {
            reason: Some(reason.word()),
            last_scheduled_at: Some(*last_scheduled_at),
            count: *count,
            ..blank
        },
        RunState::Ended { started_at, finished_at, outcome } => {
            let ended = StateColumns {
                started_at: Some(*started_at),
                finished_at: Some(*finished_at),
                ..blank
            };
            match outcome {
                Outcome::Succeeded { result, exit_code } => {
                    let result = result.as_ref().map(ToString::to_string);
                    StateColumns { result, exit_code: *exit_code, ..ended }
                }
                Outcome::Failed { error, exit_code, permanent } => StateColumns {
                    reason: permanent.then_some("permanent"),
                    error: Some(error.clone()),
                    exit_code: *exit_code,
                    ..ended
                },
                Outcome::Lost { error } => StateColumns { error: Some(error.clone()), ..ended },
            }
        }
    }
}

fn bind_run<'q>(query: Query<'q>, run: &Run) -> Query<'q> {
    let columns = state_columns(&run.state);
    query
        .bind(run.state.word())
        .bind(columns.reason)
        .bind(columns.last_scheduled_at.map(|at| at.timestamp_micros()))
        .bind(count(columns.count))
        .bind(i64::from(run.attempt))
        .bind(columns.started_at.map(|at| at.timestamp_micros()))
        .bind(columns.finished_at.map(|at| at.timestamp_micros()))
        .bind(columns.exit_code)
        .bind(columns.error)
        .bind(columns.result)
        .bind(run.node.clone())
        .bind(run.id.0.clone())
}

fn bind_new_run(run: &Run) -> Query<'static> {
    bind_run(sqlx::query(INSERT_RUN), run)
        .bind(run.job_id.as_str().to_owned())
        .bind(run.anchor.timestamp_micros())
        .bind(run.cause.word())
        .bind(run.scheduled_at.map(|at| at.timestamp_micros()))
        .bind(run.due_at.timestamp_micros())
        .bind(run.executor.clone())
        .bind(run.created_at.timestamp_micros())
}

fn bind_output(run_id: &RunId, tail: &str, bytes: u64) -> Query<'static> {
    sqlx::query(PUT_OUTPUT).bind(run_id.0.clone()).bind(tail.to_owned()).bind(count(bytes))
}
