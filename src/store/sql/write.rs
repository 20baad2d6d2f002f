//! Statements of a commit: one transaction takes a list of changes, or nothing.
//!
//! SQLite is written row by row, by statements that are prepared once, on one thread. A server is
//! a journey away: there, changes of one kind that follow each other share a statement.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, TransactionBehavior};

use super::bind::{self, ADVANCED, JOB_KEYS, NEW_JOB, NEW_RUN, RUN, RUN_KEYS, job_columns};
use super::dialect::{Dialect, Query, Update, Write};
use super::row::count;
use super::sqlite::{Parameters, is_taken, unavailable};
use super::value::Bind;
use super::{Database, SqlStore};
use crate::clock::Timestamp;
use crate::job::{Job, JobId};
use crate::run::Run;
use crate::store::{Change, Claim, Holder, InFlight, Meeting, Node, Store, StoreError};

/// Rows of one statement, the most first. There are few sizes, so that each statement is prepared once and kept.
const ROWS: [usize; 8] = [ROWS_MAX, 64, 32, 16, 8, 4, 2, 1];
const ROWS_MAX: usize = 256;

/// The setting that says since when the scheduler is paused: an instant in microseconds.
pub(super) const PAUSED_SINCE: &str = "paused_since";

/// What a statement does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    InsertJob,
    UpdateJob,
    AdvanceJob,
    DeleteJob,
    InsertRun,
    UpdateRun,
    PutOutput,
    AskToEnd,
    PutSetting,
    DeleteSetting,
}

const KINDS: [Kind; 10] = [
    Kind::InsertJob,
    Kind::UpdateJob,
    Kind::AdvanceJob,
    Kind::DeleteJob,
    Kind::InsertRun,
    Kind::UpdateRun,
    Kind::PutOutput,
    Kind::AskToEnd,
    Kind::PutSetting,
    Kind::DeleteSetting,
];

impl Kind {
    fn of(change: &Change) -> Self {
        match change {
            Change::InsertJob(_) => Self::InsertJob,
            Change::UpdateJob(_) => Self::UpdateJob,
            Change::AdvanceJob(_) => Self::AdvanceJob,
            Change::DeleteJob { .. } => Self::DeleteJob,
            Change::InsertRun(_) => Self::InsertRun,
            Change::UpdateRun { .. } => Self::UpdateRun,
            Change::PutOutput { .. } => Self::PutOutput,
            Change::AskToEnd { .. } => Self::AskToEnd,
            Change::SetPaused(Some(_)) => Self::PutSetting,
            Change::SetPaused(None) => Self::DeleteSetting,
        }
    }

    /// Whether several of the kind can share a statement.
    fn is_shared(self) -> bool {
        !matches!(self, Self::DeleteJob | Self::AskToEnd | Self::PutSetting | Self::DeleteSetting)
    }

    /// Whether there must be a row for each change.
    fn must_write(self) -> bool {
        !matches!(self, Self::PutOutput | Self::AskToEnd | Self::PutSetting | Self::DeleteSetting)
    }

    fn text(self, dialect: Dialect, rows: usize) -> String {
        let all = job_columns();
        let update_jobs = |columns| Update {
            table: "jobs",
            columns,
            keys: &JOB_KEYS,
            count_up: Some("revision"),
            only: None,
        };
        match self {
            Self::InsertJob => {
                let columns: Vec<&str> = all.into_iter().chain(NEW_JOB).collect();
                dialect.insert("jobs", &columns, rows)
            }
            Self::UpdateJob => dialect.update(&update_jobs(&all), rows),
            Self::AdvanceJob => dialect.update(&update_jobs(&ADVANCED), rows),
            Self::DeleteJob => dialect.delete("jobs", &JOB_KEYS),
            Self::InsertRun => {
                let columns: Vec<&str> = RUN.into_iter().chain(NEW_RUN).collect();
                dialect.insert("runs", &columns, rows)
            }
            Self::UpdateRun => {
                let only = Some("runs.state in ('pending', 'running')");
                let update =
                    Update { table: "runs", columns: &RUN, keys: &RUN_KEYS, count_up: None, only };
                dialect.update(&update, rows)
            }
            Self::PutOutput => {
                dialect.upsert("outputs", "run_id", &["run_id", "tail", "bytes"], rows)
            }
            Self::AskToEnd => {
                dialect.update(
                    &Update {
                        table: "runs",
                        columns: &["end_reason"],
                        keys: &["job_id"],
                        count_up: None,
                        only: Some("runs.state = 'running' and runs.node <> "),
                    },
                    1,
                ) + &dialect.placeholder(3)
            }
            Self::PutSetting => dialect.upsert("settings", "name", &["name", "value"], 1),
            Self::DeleteSetting => dialect.delete("settings", &["name"]),
        }
    }
}

/// The text of every statement that a commit needs.
#[derive(Debug)]
pub(super) struct Statements {
    pub(super) dialect: Dialect,
    /// By kind and number of rows.
    texts: BTreeMap<(Kind, usize), String>,
}

impl Statements {
    pub(super) fn new(dialect: Dialect) -> Self {
        let sizes = |kind: Kind| {
            // SQLite is written row by row.
            let is_shared = kind.is_shared() && dialect != Dialect::Sqlite;
            ROWS.into_iter().filter(move |rows| is_shared || *rows == 1)
        };
        let keys = KINDS.into_iter().flat_map(|kind| sizes(kind).map(move |rows| (kind, rows)));
        let texts = keys.map(|(kind, rows)| ((kind, rows), kind.text(dialect, rows))).collect();
        Self { dialect, texts }
    }

    fn text(&self, kind: Kind, rows: usize) -> &str {
        self.texts.get(&(kind, rows)).map_or("", String::as_str)
    }
}

/// Gives a change to its statement.
fn bind(to: &mut impl Bind, change: &Change) {
    match change {
        Change::InsertJob(job) => bind::new_job(to, job),
        Change::UpdateJob(job) => {
            bind::job(to, job);
            bind::job_keys(to, &job.id, job.revision - 1, job.created_at);
        }
        Change::AdvanceJob(job) => {
            bind::advanced(to, job);
            bind::job_keys(to, &job.id, job.revision - 1, job.created_at);
        }
        Change::DeleteJob { id, revision, created_at } => {
            bind::job_keys(to, id, *revision, *created_at);
        }
        Change::InsertRun(run) => bind::new_run(to, run),
        Change::UpdateRun { run, held_by } => {
            bind::run(to, run);
            bind::run_keys(to, run, held_by);
        }
        Change::PutOutput { run_id, tail, bytes } => {
            to.text(Some(&run_id.0));
            to.text(Some(tail));
            to.integer(Some(count(*bytes)));
        }
        Change::AskToEnd { job_id, reason, except_node } => {
            to.text(Some(reason));
            to.text(Some(job_id.as_str()));
            to.text(Some(except_node));
        }
        Change::SetPaused(since) => {
            to.text(Some(PAUSED_SINCE));
            if let Some(since) = since {
                to.text(Some(&since.timestamp_micros().to_string()));
            }
        }
    }
}

/// What was changed by someone else, if a change could not be written.
fn name(change: &Change) -> String {
    match change {
        Change::InsertJob(job) | Change::UpdateJob(job) | Change::AdvanceJob(job) => {
            format!("job \"{}\"", job.id)
        }
        Change::DeleteJob { id, .. } => format!("job \"{id}\""),
        Change::InsertRun(run) => format!("an occurrence of job \"{}\"", run.job_id),
        Change::UpdateRun { run, .. } => format!("run {}", run.id),
        Change::PutOutput { run_id, .. } => format!("the output of run {run_id}"),
        Change::AskToEnd { job_id, .. } => format!("runs of job \"{job_id}\""),
        Change::SetPaused(_) => "the pause".to_owned(),
    }
}

/// Writes all changes to a file, or none.
fn commit_to_file(
    connection: &mut Connection,
    statements: &Statements,
    changes: &[Change],
) -> Result<(), StoreError> {
    // One statement is a transaction of its own.
    if changes.len() == 1 {
        return write_rows(connection, statements, changes);
    }
    // "Immediate" takes the write lock at once: a transaction that only later asks for it can be refused
    // without any waiting.
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(unavailable)?;
    for group in changes.chunk_by(|first, second| Kind::of(first) == Kind::of(second)) {
        write_rows(&transaction, statements, group)?;
    }
    transaction.commit().map_err(unavailable)
}

/// Writes changes of one kind, row by row.
fn write_rows(
    connection: &Connection,
    statements: &Statements,
    changes: &[Change],
) -> Result<(), StoreError> {
    let Some(kind) = changes.first().map(Kind::of) else { return Ok(()) };
    let mut statement = connection.prepare_cached(statements.text(kind, 1)).map_err(unavailable)?;
    for change in changes {
        let mut parameters = Parameters::of(&mut statement);
        bind(&mut parameters, change);
        parameters.finish().map_err(unavailable)?;
        match statement.raw_execute() {
            Ok(0) if kind.must_write() => return Err(StoreError::Conflict(name(change))),
            Ok(_) => {}
            Err(error) if is_taken(&error) => return Err(StoreError::Conflict(name(change))),
            Err(error) => return Err(unavailable(error)),
        }
    }
    Ok(())
}

/// The changes as few statements, in their order.
fn writes(statements: &Statements, changes: &[Change]) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut rest = changes;
    while let Some(kind) = rest.first().map(Kind::of) {
        let (mut group, more) = rest.split_at(together(kind, rest));
        while let Some(rows) = ROWS.into_iter().find(|rows| *rows <= group.len()) {
            let (batch, others) = group.split_at(rows);
            writes.push(write(statements, kind, batch));
            group = others;
        }
        rest = more;
    }
    writes
}

/// How many of the changes from the first on can share a statement.
fn together(kind: Kind, changes: &[Change]) -> usize {
    if !kind.is_shared() {
        return 1;
    }
    let mut runs = BTreeSet::new();
    let end = changes.iter().position(|change| {
        let is_second = match change {
            // Of two rows for the same run in one statement, the database would choose.
            Change::UpdateRun { run, .. } => !runs.insert(&run.id),
            Change::InsertJob(_)
            | Change::UpdateJob(_)
            | Change::AdvanceJob(_)
            | Change::DeleteJob { .. }
            | Change::InsertRun(_)
            | Change::PutOutput { .. }
            | Change::AskToEnd { .. }
            | Change::SetPaused(_) => false,
        };
        is_second || Kind::of(change) != kind
    });
    end.unwrap_or(changes.len())
}

/// Changes of one kind as one statement. A conflict is named by the first of them.
fn write(statements: &Statements, kind: Kind, batch: &[Change]) -> Write {
    let mut query = Query::new(statements.dialect, statements.text(kind, batch.len()));
    for change in batch {
        bind(&mut query.values, change);
    }
    let rows = kind.must_write().then(|| u64::try_from(batch.len()).unwrap_or(u64::MAX));
    Write { query, rows, conflict: batch.first().map(name).unwrap_or_default() }
}

/// Whether other nodes should look at what was changed before they do so of themselves.
fn concerns_others(change: &Change) -> bool {
    match change {
        Change::UpdateJob(_)
        | Change::DeleteJob { .. }
        | Change::AskToEnd { .. }
        | Change::SetPaused(_) => true,
        Change::InsertJob(_)
        | Change::AdvanceJob(_)
        | Change::InsertRun(_)
        | Change::UpdateRun { .. }
        | Change::PutOutput { .. } => false,
    }
}

impl Store for SqlStore {
    fn is_shared(&self) -> bool {
        matches!(self.database.as_ref(), Database::Server(_))
    }

    async fn load(&self, ids: &[JobId]) -> Result<Vec<Job>, StoreError> {
        self.load_jobs(ids).await
    }

    async fn claim(&self, claim: Claim<'_>) -> Result<Vec<Job>, StoreError> {
        self.claim_jobs(claim).await
    }

    async fn release(
        &self,
        node: &str,
        executor: &str,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        self.release_jobs(node, executor, until).await
    }

    async fn to_review(&self, executors: &[String]) -> Result<Vec<Job>, StoreError> {
        self.jobs_to_review(executors).await
    }

    async fn in_flight(&self, holder: Holder<'_>) -> Result<Vec<Run>, StoreError> {
        self.runs_in_flight(holder).await
    }

    async fn in_flight_elsewhere(&self, node: &str) -> Result<Vec<(JobId, InFlight)>, StoreError> {
        self.count_elsewhere(node).await
    }

    async fn meet(
        &self,
        node: &str,
        started_at: Timestamp,
        now: Timestamp,
    ) -> Result<Meeting, StoreError> {
        self.meet_nodes(node, started_at, now).await
    }

    async fn bury(&self, dead: &[Node]) -> Result<(), StoreError> {
        self.bury_nodes(dead).await
    }

    async fn paused_since(&self) -> Result<Option<Timestamp>, StoreError> {
        self.paused_setting().await
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        match self.database.as_ref() {
            Database::Sqlite(file) => {
                file.on_writer(|connection| commit_to_file(connection, &self.statements, &changes))
            }
            Database::Server(server) => {
                let mut writes = writes(&self.statements, &changes);
                if changes.iter().any(concerns_others) {
                    writes.extend(server.hint());
                }
                server.write(writes).await
            }
        }
    }

    async fn hinted(&self) -> Result<(), StoreError> {
        match self.database.as_ref() {
            Database::Sqlite(_) => std::future::pending().await,
            Database::Server(server) => server.hinted().await,
        }
    }
}
