//! Statements of a commit: one transaction takes a list of changes, or nothing.
//!
//! SQLite is written row by row, by statements that are prepared once, on one thread. A server is
//! a journey away: there, changes of one kind that follow each other share a statement.

use std::collections::BTreeSet;
use std::sync::Arc;

use rusqlite::{Connection, TransactionBehavior};

use super::bind;
use super::changes::{ROWS, StatementKind, Statements};
use super::dialect::{Query, Write};
use super::row::count;
use super::sqlite::connection::{SqliteParameters, failure, is_taken};
use super::value::Bind;
use super::{Backend, SqlStore};
use crate::clock::Timestamp;
use crate::job::{Job, JobId};
use crate::output::Output;
use crate::run::{Run, RunId, SkipReason};
use crate::store::{
    Archive, Change, Claim, ClusterView, Holder, InFlightCount, Node, ScheduledJob, Store,
    StoreError,
};

/// The setting that says since when the scheduler is paused: an instant in microseconds.
pub(super) const PAUSED_SINCE: &str = "paused_since";
/// The setting that says what time it was when a step was last written, to within some minutes: an instant in
/// microseconds.
pub(super) const RECORDED_TIME: &str = "recorded_time";

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
        Change::ExtendSkipped { run, former_last } => bind::span(to, run, *former_last),
        Change::InsertAttempt(attempt) => bind::attempt(to, attempt),
        Change::PutOutput { run_id, attempt, output } => {
            to.text(Some(&run_id.0));
            to.integer(Some(i64::from(*attempt)));
            to.text(Some(&output.to_json()));
            to.integer(Some(count(output.bytes)));
        }
        Change::SavePartialOutput { run_id, attempt, output, held_by } => {
            to.integer(Some(i64::from(*attempt)));
            to.text(Some(&output.to_json()));
            to.integer(Some(count(output.bytes)));
            to.text(Some(&run_id.0));
            to.integer(Some(i64::from(*attempt)));
            to.text(Some(held_by));
        }
        Change::CancelJobRuns { job_id, reason, except_node } => {
            to.text(Some(reason));
            to.text(Some(job_id.as_str()));
            to.text(Some(except_node));
        }
        Change::CancelRun { run_id, reason } => {
            to.text(Some(reason));
            to.text(Some(&run_id.0));
        }
        Change::Prune { run_id, .. } => to.text(Some(&run_id.0)),
        Change::RecordTime(at) => {
            to.text(Some(RECORDED_TIME));
            to.text(Some(&at.timestamp_micros().to_string()));
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
        Change::UpdateRun { run, .. } | Change::ExtendSkipped { run, .. } => {
            format!("run {}", run.id)
        }
        Change::InsertAttempt(attempt) => format!("an attempt of run {}", attempt.run_id),
        Change::PutOutput { run_id, .. } | Change::SavePartialOutput { run_id, .. } => {
            format!("the output of run {run_id}")
        }
        Change::CancelRun { run_id, .. } | Change::Prune { run_id, .. } => {
            format!("run {run_id}")
        }
        Change::CancelJobRuns { job_id, .. } => format!("runs of job \"{job_id}\""),
        Change::SetPaused(_) => "the pause".to_owned(),
        Change::RecordTime(_) => "the recorded time".to_owned(),
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
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failure)?;
    for group in
        changes.chunk_by(|first, second| StatementKind::of(first) == StatementKind::of(second))
    {
        write_rows(&transaction, statements, group)?;
    }
    transaction.commit().map_err(failure)
}

/// Writes changes of one kind, row by row.
fn write_rows(
    connection: &Connection,
    statements: &Statements,
    changes: &[Change],
) -> Result<(), StoreError> {
    let Some(kind) = changes.first().map(StatementKind::of) else { return Ok(()) };
    let mut statement = connection.prepare_cached(statements.text(kind, 1)).map_err(failure)?;
    for change in changes {
        let mut parameters = SqliteParameters::of(&mut statement);
        bind(&mut parameters, change);
        parameters.finish().map_err(failure)?;
        match statement.raw_execute() {
            Ok(0) if kind.must_write() => return Err(StoreError::Conflict(name(change))),
            Ok(_) => {}
            Err(error) if is_taken(&error) => return Err(StoreError::Conflict(name(change))),
            Err(error) => return Err(failure(error)),
        }
    }
    Ok(())
}

/// The changes as few statements, in their order.
fn writes(statements: &Statements, changes: &[Change]) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut rest = changes;
    while let Some(kind) = rest.first().map(StatementKind::of) {
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
fn together(kind: StatementKind, changes: &[Change]) -> usize {
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
            | Change::ExtendSkipped { .. }
            | Change::InsertAttempt(_)
            | Change::PutOutput { .. }
            | Change::SavePartialOutput { .. }
            | Change::CancelJobRuns { .. }
            | Change::CancelRun { .. }
            | Change::Prune { .. }
            | Change::RecordTime(_)
            | Change::SetPaused(_) => false,
        };
        is_second || StatementKind::of(change) != kind
    });
    end.unwrap_or(changes.len())
}

/// Changes of one kind as one statement. A conflict is named by the first of them.
fn write(statements: &Statements, kind: StatementKind, batch: &[Change]) -> Write {
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
        | Change::CancelJobRuns { .. }
        | Change::CancelRun { .. }
        | Change::SetPaused(_) => true,
        Change::InsertJob(_)
        | Change::AdvanceJob(_)
        | Change::InsertRun(_)
        | Change::UpdateRun { .. }
        | Change::ExtendSkipped { .. }
        | Change::InsertAttempt(_)
        | Change::RecordTime(_)
        | Change::PutOutput { .. }
        | Change::SavePartialOutput { .. }
        | Change::Prune { .. } => false,
    }
}

impl Store for SqlStore {
    fn is_shared(&self) -> bool {
        matches!(self.database.as_ref(), Backend::Server(_))
    }

    async fn load_jobs(&self, ids: &[JobId]) -> Result<Vec<Job>, StoreError> {
        self.load_jobs(ids).await
    }

    async fn claim_jobs(&self, claim: Claim<'_>) -> Result<Vec<Job>, StoreError> {
        self.claim_jobs(claim).await
    }

    async fn release_jobs(
        &self,
        node: &str,
        executor: &str,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        self.release_jobs(node, executor, until).await
    }

    async fn runs_in_flight(&self, holder: Holder<'_>) -> Result<Vec<Run>, StoreError> {
        self.runs_in_flight(holder).await
    }

    async fn load_runs(&self, ids: &[RunId]) -> Result<Vec<Run>, StoreError> {
        self.runs_of_ids(ids).await
    }

    async fn latest_skips(
        &self,
        jobs: &[Arc<Job>],
        reason: SkipReason,
    ) -> Result<Vec<Run>, StoreError> {
        self.latest_skips_of(jobs, reason).await
    }

    async fn load_output(
        &self,
        run_id: &RunId,
        attempt: u32,
    ) -> Result<Option<Output>, StoreError> {
        Archive::output(self, &run_id.0, attempt).await
    }

    async fn count_in_flight_elsewhere(
        &self,
        node: &str,
    ) -> Result<Vec<(JobId, InFlightCount)>, StoreError> {
        self.count_elsewhere(node).await
    }

    async fn heartbeat(
        &self,
        node: &str,
        started_at: Timestamp,
        now: Timestamp,
    ) -> Result<ClusterView, StoreError> {
        self.meet_nodes(node, started_at, now).await
    }

    async fn remove_nodes(&self, dead: &[Node]) -> Result<(), StoreError> {
        self.bury_nodes(dead).await
    }

    async fn paused_since(&self) -> Result<Option<Timestamp>, StoreError> {
        self.paused_setting().await
    }

    async fn recorded_time(&self) -> Result<Option<Timestamp>, StoreError> {
        self.recorded_setting().await
    }

    async fn newest_run(&self) -> Result<Option<Run>, StoreError> {
        self.run_with_greatest_id().await
    }

    async fn scheduled_jobs(
        &self,
        after: Option<&JobId>,
        limit: usize,
    ) -> Result<Vec<ScheduledJob>, StoreError> {
        self.page_of_scheduled_jobs(after, limit).await
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        match self.database.as_ref() {
            Backend::Sqlite(file) => {
                file.on_writer(|connection| commit_to_file(connection, &self.statements, &changes))
            }
            Backend::Server(server) => {
                let mut writes = writes(&self.statements, &changes);
                if changes.iter().any(concerns_others) {
                    writes.extend(server.hint());
                }
                server.write(writes).await
            }
        }
    }

    async fn wait_for_hint(&self) -> Result<(), StoreError> {
        match self.database.as_ref() {
            // There are no other nodes, but the file may be taken away.
            Backend::Sqlite(file) => {
                file.lost().await;
                Ok(())
            }
            Backend::Server(server) => server.wait_for_hint().await,
        }
    }
}
