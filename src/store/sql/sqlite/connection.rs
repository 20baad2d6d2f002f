//! A connection to a SQLite file: settings, parameters, rows and errors.

use std::path::Path;
use std::time::Duration;

use rusqlite::ffi;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, Statement};

use crate::store::StoreError;
use crate::store::sql::query::Query;
use crate::store::sql::value::{Bind, Cell, SqlRow, SqlValue};

/// How long a statement waits for a lock that a foreign process (a backup, a shell) holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Pages after which the WAL is folded back: larger than SQLite's own 1,000, so that bursts fold less often.
const WAL_PAGES: i64 = 4000;
/// Statements that each connection keeps prepared.
const PREPARED: usize = 64;

pub(crate) fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(PREPARED);
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
    Ok(connection)
}

pub(crate) fn rows(connection: &Connection, query: &Query) -> Result<Vec<SqlRow>, StoreError> {
    let mut statement = connection.prepare_cached(&query.text).map_err(failure)?;
    let columns = statement.column_count();
    bind_all(&mut statement, &query.values).map_err(failure)?;
    let (mut found, mut bytes) = (Vec::new(), 0_usize);
    let mut rows = statement.raw_query();
    while bytes < query.bytes_max
        && let Some(row) = rows.next().map_err(failure)?
    {
        let cell = |column| Ok(cell(row.get_ref(column)?));
        let cells: rusqlite::Result<Vec<Cell>> = (0..columns).map(cell).collect();
        let row = SqlRow::new(cells.map_err(failure)?);
        bytes = bytes.saturating_add(row.bytes());
        found.push(row);
    }
    Ok(found)
}

pub(super) fn bind_all(statement: &mut Statement<'_>, values: &[SqlValue]) -> rusqlite::Result<()> {
    let mut parameters = SqliteParameters::of(statement);
    for value in values {
        match value {
            SqlValue::Integer(number) => parameters.integer(*number),
            SqlValue::Text(text) => parameters.text(text.as_deref()),
        }
    }
    parameters.finish()
}

fn cell(value: ValueRef<'_>) -> Cell {
    match value {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(number) => Cell::Integer(number),
        ValueRef::Text(text) => Cell::of_bytes(text),
        ValueRef::Blob(bytes) => Cell::Other(String::from_utf8_lossy(bytes).into_owned()),
        ValueRef::Real(number) => Cell::Other(number.to_string()),
    }
}

/// The parameters of a prepared statement.
pub(crate) struct SqliteParameters<'s, 'c> {
    statement: &'s mut Statement<'c>,
    next: usize,
    result: rusqlite::Result<()>,
}

impl<'s, 'c> SqliteParameters<'s, 'c> {
    pub(crate) fn of(statement: &'s mut Statement<'c>) -> Self {
        Self { statement, next: 1, result: Ok(()) }
    }

    fn bind(&mut self, value: impl rusqlite::ToSql) {
        if self.result.is_ok() {
            self.result = self.statement.raw_bind_parameter(self.next, value);
        }
        self.next += 1;
    }

    /// An error if one of the parameters could not be bound.
    pub(crate) fn finish(self) -> rusqlite::Result<()> {
        self.result
    }
}

impl Bind for SqliteParameters<'_, '_> {
    fn integer(&mut self, number: Option<i64>) {
        self.bind(number);
    }

    fn text(&mut self, text: Option<&str>) {
        self.bind(text);
    }
}

/// Whether a write failed because a key is taken.
pub(crate) fn is_taken(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
        && error.sqlite_error().is_some_and(|error| {
            [ffi::SQLITE_CONSTRAINT_UNIQUE, ffi::SQLITE_CONSTRAINT_PRIMARYKEY]
                .contains(&error.extended_code)
        })
}

/// Codes of a value that a constraint or a trigger refuses, or that is too large.
const REFUSED_VALUE: [ErrorCode; 3] =
    [ErrorCode::ConstraintViolation, ErrorCode::TypeMismatch, ErrorCode::TooBig];

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
pub(crate) fn failure(error: rusqlite::Error) -> StoreError {
    if error.sqlite_error_code().is_some_and(|code| REFUSED_VALUE.contains(&code)) {
        return StoreError::Rejected(error.to_string());
    }
    StoreError::Unavailable(error.to_string())
}
