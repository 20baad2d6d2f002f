//! A commit: one transaction writes a list of changes, or nothing.
//!
//! A SQLite file is written row by row, by statements that are prepared once, on the thread of the scheduler. A server
//! answers over the network, so changes of one kind that follow each other share a statement there.

use std::collections::BTreeSet;

use rusqlite::{Connection, TransactionBehavior};

use super::changes::{Statement, StatementTexts, bind, subject};
use super::query::{Query, Write};
use super::sqlite::connection::{SqliteParameters, failure, is_taken};
use crate::store::{Change, StoreError};

/// How many changes a statement may take, the most first. There are few sizes, so that each statement is prepared once and
/// kept by the connection.
const BATCH_SIZES: [usize; 8] = [256, 64, 32, 16, 8, 4, 2, 1];

/// Writes all changes to a file, or none.
pub(super) fn commit_to_file(
    connection: &mut Connection,
    texts: &StatementTexts,
    changes: &[Change],
) -> Result<(), StoreError> {
    // One statement is a transaction of its own.
    if changes.len() == 1 {
        return write_rows(connection, texts, changes);
    }
    // "Immediate" takes the write lock at once: a transaction that only later asks for it can be refused
    // without any waiting.
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failure)?;
    for group in changes.chunk_by(|first, second| Statement::of(first) == Statement::of(second)) {
        write_rows(&transaction, texts, group)?;
    }
    transaction.commit().map_err(failure)
}

/// Writes changes of one kind, row by row.
fn write_rows(
    connection: &Connection,
    texts: &StatementTexts,
    changes: &[Change],
) -> Result<(), StoreError> {
    let Some(statement) = changes.first().map(Statement::of) else { return Ok(()) };
    let text = texts.text(statement, 1);
    let mut prepared = connection.prepare_cached(&text).map_err(failure)?;
    for change in changes {
        let mut parameters = SqliteParameters::of(&mut prepared);
        bind(&mut parameters, change);
        parameters.finish().map_err(failure)?;
        match prepared.raw_execute() {
            Ok(0) if statement.must_write => return Err(StoreError::Conflict(subject(change))),
            Ok(_) => {}
            Err(error) if is_taken(&error) => return Err(StoreError::Conflict(subject(change))),
            Err(error) => return Err(failure(error)),
        }
    }
    Ok(())
}

/// The changes as few statements, in their order.
pub(super) fn writes(texts: &StatementTexts, changes: &[Change]) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut rest = changes;
    while let Some(statement) = rest.first().map(Statement::of) {
        let (mut group, more) = rest.split_at(batch_len(statement, rest));
        while let Some(size) = BATCH_SIZES.into_iter().find(|size| *size <= group.len()) {
            let (batch, others) = group.split_at(size);
            writes.push(write(texts, statement, batch));
            group = others;
        }
        rest = more;
    }
    writes
}

/// How many of the changes from the first on can share a statement.
fn batch_len(statement: Statement, changes: &[Change]) -> usize {
    if !statement.is_batched {
        return 1;
    }
    let mut runs = BTreeSet::new();
    let end = changes.iter().position(|change| {
        // Of two rows for the same run in one statement, the database would choose one.
        let is_second = matches!(change, Change::UpdateRun { run, .. } if !runs.insert(&run.id));
        is_second || Statement::of(change) != statement
    });
    end.unwrap_or(changes.len())
}

/// Changes of one kind as one statement. A conflict is named after the first of them.
fn write(texts: &StatementTexts, statement: Statement, batch: &[Change]) -> Write {
    let mut query = Query::new(texts.dialect, &*texts.text(statement, batch.len()));
    for change in batch {
        bind(&mut query.values, change);
    }
    let rows = statement.must_write.then(|| u64::try_from(batch.len()).unwrap_or(u64::MAX));
    Write { query, rows, conflict: batch.first().map(subject).unwrap_or_default() }
}
