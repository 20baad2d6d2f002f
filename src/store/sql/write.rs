//! Statements that write: one transaction takes a list of changes, or nothing.
//!
//! Changes of one kind that follow each other share a statement: what a statement costs beside the
//! database, and there is a change of threads in it, is then paid once for many rows.

use sqlx::{AssertSqlSafe, SqliteConnection};

use super::bind::{self, Query};
use super::row::count;
use super::{SqlStore, unavailable};
use crate::clock::Timestamp;
use crate::job::{Job, JobId};
use crate::run::Run;
use crate::store::{Change, Store, StoreError};

/// Rows of one statement, the most first. There are few sizes, so that each statement is prepared once and kept.
const ROWS: [usize; 7] = [ROWS_MAX, 32, 16, 8, 4, 2, 1];
const ROWS_MAX: usize = 64;

/// A statement for several rows: what stands before, for each of, and after them.
struct Statement {
    before: &'static str,
    row: &'static str,
    after: &'static str,
}

const INSERT_JOBS: Statement = Statement {
    before: "insert into jobs (name, state, reason, trigger_spec, task, executor, misfire_grace_time, coalesce_rule, \
        max_instances, on_crash, max_runs, run_count, tags, description, origin, anchor, scheduled_at, next_run_time, \
        created_at, updated_at, overlap, id, revision) values ",
    row: "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1)",
    after: "",
};

const UPDATE_JOBS: Statement = Statement {
    before: "with new (name, state, reason, trigger_spec, task, executor, misfire_grace_time, coalesce_rule, \
        max_instances, on_crash, max_runs, run_count, tags, description, origin, anchor, scheduled_at, next_run_time, \
        created_at, updated_at, overlap, id, revision) as (values ",
    row: "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    after: ") update jobs set name = new.name, state = new.state, reason = new.reason, trigger_spec = new.trigger_spec, \
        task = new.task, executor = new.executor, misfire_grace_time = new.misfire_grace_time, \
        coalesce_rule = new.coalesce_rule, max_instances = new.max_instances, on_crash = new.on_crash, \
        max_runs = new.max_runs, run_count = new.run_count, tags = new.tags, description = new.description, \
        origin = new.origin, anchor = new.anchor, scheduled_at = new.scheduled_at, next_run_time = new.next_run_time, \
        created_at = new.created_at, updated_at = new.updated_at, overlap = new.overlap, \
        revision = new.revision + 1 from new where jobs.id = new.id and jobs.revision = new.revision",
};

const INSERT_RUNS: Statement = Statement {
    before: "insert into runs (state, reason, last_scheduled_at, occurrences, attempt, started_at, finished_at, \
        exit_code, error, result, node, id, job_id, anchor, cause, scheduled_at, due_at, executor, created_at) values ",
    row: "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    after: "",
};

const UPDATE_RUNS: Statement = Statement {
    before: "with new (state, reason, last_scheduled_at, occurrences, attempt, started_at, finished_at, exit_code, \
        error, result, node, id) as (values ",
    row: "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    after: ") update runs set state = new.state, reason = new.reason, last_scheduled_at = new.last_scheduled_at, \
        occurrences = new.occurrences, attempt = new.attempt, started_at = new.started_at, \
        finished_at = new.finished_at, exit_code = new.exit_code, error = new.error, result = new.result, \
        node = new.node from new where runs.id = new.id",
};

const PUT_OUTPUTS: Statement = Statement {
    before: "insert into outputs (run_id, tail, bytes) values ",
    row: "(?, ?, ?)",
    after: " on conflict (run_id) do update set tail = excluded.tail, bytes = excluded.bytes",
};

const PUT_SETTING: &str = "insert into settings (name, value) values (?, ?) \
    on conflict (name) do update set value = excluded.value";

/// The setting that says since when the scheduler is paused: an instant in microseconds.
pub(super) const PAUSED_SINCE: &str = "paused_since";

impl Statement {
    fn text(&self, rows: usize) -> String {
        let list = vec![self.row; rows].join(", ");
        format!("{}{list}{}", self.before, self.after)
    }
}

/// Changes of one kind that follow each other.
enum Group<'a> {
    InsertJobs(Vec<&'a Job>),
    UpdateJobs(Vec<&'a Job>),
    InsertRuns(Vec<&'a Run>),
    UpdateRuns(Vec<&'a Run>),
    PutOutputs(Vec<(&'a str, &'a str, u64)>),
    DeleteJob(&'a JobId),
    SetPaused(Option<Timestamp>),
}

impl Group<'_> {
    /// Whether one statement writes it all or nothing, and so needs no transaction around it.
    fn is_one_statement(&self) -> bool {
        match self {
            Self::InsertJobs(jobs) => ROWS.contains(&jobs.len()),
            Self::InsertRuns(runs) => ROWS.contains(&runs.len()),
            Self::PutOutputs(outputs) => ROWS.contains(&outputs.len()),
            // Of several rows to update some may be there and some not, which is found out afterwards.
            Self::UpdateJobs(jobs) => jobs.len() == 1,
            Self::UpdateRuns(runs) => runs.len() == 1,
            Self::DeleteJob(_) | Self::SetPaused(_) => true,
        }
    }
}

/// The changes in groups, in their order.
fn groups(changes: &[Change]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for change in changes {
        match (change, groups.last_mut()) {
            (Change::InsertJob(job), Some(Group::InsertJobs(jobs)))
            | (Change::UpdateJob(job), Some(Group::UpdateJobs(jobs))) => jobs.push(job),
            (Change::InsertRun(run), Some(Group::InsertRuns(runs))) => runs.push(run),
            // Two rows for the same run in one statement would leave it to the database which one counts.
            (Change::UpdateRun(run), Some(Group::UpdateRuns(runs)))
                if runs.len() < ROWS_MAX && runs.iter().all(|other| other.id != run.id) =>
            {
                runs.push(run);
            }
            (Change::PutOutput { run_id, tail, bytes }, Some(Group::PutOutputs(outputs))) => {
                outputs.push((&run_id.0, tail, *bytes));
            }
            (Change::InsertJob(job), _) => groups.push(Group::InsertJobs(vec![job])),
            (Change::UpdateJob(job), _) => groups.push(Group::UpdateJobs(vec![job])),
            (Change::InsertRun(run), _) => groups.push(Group::InsertRuns(vec![run])),
            (Change::UpdateRun(run), _) => groups.push(Group::UpdateRuns(vec![run])),
            (Change::PutOutput { run_id, tail, bytes }, _) => {
                groups.push(Group::PutOutputs(vec![(&run_id.0, tail, *bytes)]));
            }
            (Change::DeleteJob(id), _) => groups.push(Group::DeleteJob(id)),
            (Change::SetPaused(since), _) => groups.push(Group::SetPaused(*since)),
        }
    }
    groups
}

/// The items in as few slices as the sizes of statements allow.
fn batches<T>(mut items: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = ROWS.into_iter().find(|size| *size <= items.len())?;
        let (batch, rest) = items.split_at(size);
        items = rest;
        Some(batch)
    })
}

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
        let mut groups = groups(changes);
        if groups.len() == 1
            && let Some(group) = groups.pop_if(|group| group.is_one_statement())
        {
            let mut connection = self.writer.acquire().await.map_err(unavailable)?;
            return apply(group, &mut connection).await;
        }
        // "Immediate" takes the write lock at once: a transaction that only later asks for it can be refused
        // without any waiting.
        let mut transaction =
            self.writer.begin_with("begin immediate").await.map_err(unavailable)?;
        for group in groups {
            apply(group, &mut transaction).await?;
        }
        transaction.commit().await.map_err(unavailable)
    }
}

async fn apply(group: Group<'_>, connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let named = |job: &&Job| format!("job \"{}\"", job.id);
    let occurrence = |run: &&Run| format!("an occurrence of job \"{}\"", run.job_id);
    let to_update = |query, job: &&Job| bind::job(query, job).bind(job.revision);
    match group {
        Group::InsertJobs(jobs) => {
            write(connection, &INSERT_JOBS, &jobs, |query, job| bind::job(query, job), named).await
        }
        Group::UpdateJobs(jobs) => write(connection, &UPDATE_JOBS, &jobs, to_update, named).await,
        Group::InsertRuns(runs) => {
            let row = |query, run: &&Run| bind::new_run(query, run);
            write(connection, &INSERT_RUNS, &runs, row, occurrence).await
        }
        Group::UpdateRuns(runs) => {
            let row = |query, run: &&Run| bind::run(query, run);
            write(connection, &UPDATE_RUNS, &runs, row, |run| format!("run {}", run.id)).await
        }
        Group::PutOutputs(outputs) => {
            let row = |query: Query<'static>, (id, tail, bytes): &(&str, &str, u64)| {
                query.bind((*id).to_owned()).bind((*tail).to_owned()).bind(count(*bytes))
            };
            write(connection, &PUT_OUTPUTS, &outputs, row, |(id, ..)| format!("run {id}")).await
        }
        Group::DeleteJob(id) => {
            let query = sqlx::query("delete from jobs where id = ?").bind(id.as_str().to_owned());
            query.execute(connection).await.map(drop).map_err(unavailable)
        }
        Group::SetPaused(since) => {
            set_paused(since).execute(connection).await.map(drop).map_err(unavailable)
        }
    }
}

/// Writes the items. One that has no row to update, or whose place is taken, is a conflict; it is named by the first
/// of its statement, which the callers that can do something about it write alone.
async fn write<T>(
    connection: &mut SqliteConnection,
    statement: &Statement,
    items: &[T],
    bind: impl Fn(Query<'static>, &T) -> Query<'static>,
    name: impl Fn(&T) -> String,
) -> Result<(), StoreError> {
    for batch in batches(items) {
        let text = AssertSqlSafe(statement.text(batch.len()));
        let query = batch.iter().fold(sqlx::query(text), &bind);
        let conflict = || StoreError::Conflict(batch.first().map(&name).unwrap_or_default());
        match query.execute(&mut *connection).await {
            Ok(done) if done.rows_affected() == u64::try_from(batch.len()).unwrap_or(0) => {}
            Ok(_) => return Err(conflict()),
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                return Err(conflict());
            }
            Err(error) => return Err(unavailable(error)),
        }
    }
    Ok(())
}

fn set_paused(since: Option<Timestamp>) -> Query<'static> {
    match since {
        Some(since) => {
            sqlx::query(PUT_SETTING).bind(PAUSED_SINCE).bind(since.timestamp_micros().to_string())
        }
        None => sqlx::query("delete from settings where name = ?").bind(PAUSED_SINCE),
    }
}
