//! SQLite. One connection writes, on the thread of whoever calls: the core, which does nothing else
//! meanwhile. A few other connections read, on threads for that, and in WAL mode never wait for the
//! writer. The file belongs to one daemon at a time, which holds a lock beside it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, Statement, TransactionBehavior};
use tokio::sync::Semaphore;

use super::dialect::{Query, Write};
use super::lock::FileLock;
use super::migrate;
use super::value::{Bind, Cell, Row, Value};
use crate::store::StoreError;

/// Connections for readers: more than the daemon's threads would only queue inside SQLite.
const READERS: usize = 4;
/// How long a statement waits for a lock that a foreign process (a backup, a shell) holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Pages after which the WAL is folded back: larger than SQLite's own 1,000, so that bursts fold less often.
const WAL_PAGES: i64 = 4000;
/// Statements that each connection keeps prepared.
const PREPARED: usize = 64;
/// The oldest SQLite without the WAL-reset corruption bug, as its version number counts.
const SQLITE_AT_LEAST: i32 = 3_051_003;

/// A database file.
#[derive(Debug)]
pub(super) struct Sqlite {
    path: PathBuf,
    /// None once it is closed.
    writer: Mutex<Option<Connection>>,
    readers: Arc<Mutex<Vec<Connection>>>,
    places: Arc<Semaphore>,
    /// Held until the store goes.
    _lock: FileLock,
}

impl Sqlite {
    /// Opens the file, creating and migrating it where needed. Fails if another daemon holds it.
    pub(super) async fn open(path: &Path) -> Result<Self, StoreError> {
        let shown = path.display();
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|error| {
                StoreError::Unusable(format!("cannot create {}: {error}", folder.display()))
            })?;
        }
        let lock = FileLock::take(path)?;
        let unusable = |error: String| StoreError::Unusable(format!("{shown}: {error}"));
        check_version()?;
        migrate::sqlite(path).await.map_err(unusable)?;
        let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
            .map_err(|error| unusable(error.to_string()))?;
        Ok(Self {
            path: path.to_owned(),
            writer: Mutex::new(Some(connection)),
            readers: Arc::default(),
            places: Arc::new(Semaphore::new(READERS)),
            _lock: lock,
        })
    }

    /// Does something on the connection that writes, on this very thread: the core has one of its own, and to change
    /// threads would cost more than most statements do.
    pub(super) fn on_writer<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let closed = || StoreError::Unavailable("the store is closed".to_owned());
        work(writer.as_mut().ok_or_else(closed)?)
    }

    /// Reads rows on the writer's connection: what was written last is seen.
    pub(super) fn read_newest(&self, query: &Query) -> Result<Vec<Row>, StoreError> {
        self.on_writer(|connection| rows(connection, query))
    }

    /// Reads rows without the writer.
    pub(super) async fn read(&self, query: Query) -> Result<Vec<Row>, StoreError> {
        let gone = |error: String| StoreError::Unavailable(error);
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.map_err(|error| gone(error.to_string()))?;
        let (idle, path) = (Arc::clone(&self.readers), self.path.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let known = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = known
                .map_or_else(|| connect(&path, OpenFlags::SQLITE_OPEN_READ_ONLY), Ok)
                .map_err(unavailable)?;
            let rows = rows(&connection, &query);
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            drop(place);
            rows
        });
        reading.await.map_err(|error| gone(error.to_string()))?
    }

    /// Writes all or nothing.
    pub(super) fn write(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        self.on_writer(|connection| write_all(connection, writes))
    }

    /// Closes the connections, so that the WAL is folded into the file.
    pub(super) async fn close(&self) {
        self.places.close();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let readers = Arc::clone(&self.readers);
        let closing = tokio::task::spawn_blocking(move || {
            readers.lock().unwrap_or_else(PoisonError::into_inner).clear();
            drop(writer);
        });
        if let Err(error) = closing.await {
            tracing::warn!(%error, "the database could not be closed");
        }
    }
}

fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(PREPARED);
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
    Ok(connection)
}

/// Refuses to write with a SQLite that is known to corrupt a WAL, should the build ever link one.
fn check_version() -> Result<(), StoreError> {
    if rusqlite::version_number() < SQLITE_AT_LEAST {
        let (version, least) = (rusqlite::version(), SQLITE_AT_LEAST);
        let (major, minor, patch) = (least / 1_000_000, least / 1000 % 1000, least % 1000);
        let message =
            format!("SQLite {version} is too old: {major}.{minor}.{patch} or newer is needed");
        return Err(StoreError::Unusable(message));
    }
    Ok(())
}

fn rows(connection: &Connection, query: &Query) -> Result<Vec<Row>, StoreError> {
    let mut statement = connection.prepare_cached(&query.text).map_err(unavailable)?;
    let columns = statement.column_count();
    bind_all(&mut statement, &query.values).map_err(unavailable)?;
    let mut found = Vec::new();
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next().map_err(unavailable)? {
        let cell = |column| Ok(cell(row.get_ref(column)?));
        let cells: rusqlite::Result<Vec<Cell>> = (0..columns).map(cell).collect();
        found.push(Row::new(cells.map_err(unavailable)?));
    }
    Ok(found)
}

fn write_all(connection: &mut Connection, writes: Vec<Write>) -> Result<(), StoreError> {
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(unavailable)?;
    for Write { query, rows, conflict } in writes {
        let mut statement = transaction.prepare_cached(&query.text).map_err(unavailable)?;
        bind_all(&mut statement, &query.values).map_err(unavailable)?;
        let done = statement.raw_execute().map_err(unavailable)?;
        if rows.is_some_and(|rows| u64::try_from(done) != Ok(rows)) {
            return Err(StoreError::Conflict(conflict));
        }
    }
    transaction.commit().map_err(unavailable)
}

fn bind_all(statement: &mut Statement<'_>, values: &[Value]) -> rusqlite::Result<()> {
    let mut parameters = Parameters::of(statement);
    for value in values {
        match value {
            Value::Integer(number) => parameters.integer(*number),
            Value::Text(text) => parameters.text(text.as_deref()),
        }
    }
    parameters.finish()
}

fn cell(value: ValueRef<'_>) -> Cell {
    match value {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(number) => Cell::Integer(number),
        ValueRef::Text(text) | ValueRef::Blob(text) => {
            Cell::Text(String::from_utf8_lossy(text).into_owned())
        }
        ValueRef::Real(number) => Cell::Text(number.to_string()),
    }
}

/// The parameters of a prepared statement.
pub(super) struct Parameters<'s, 'c> {
    statement: &'s mut Statement<'c>,
    next: usize,
    result: rusqlite::Result<()>,
}

impl<'s, 'c> Parameters<'s, 'c> {
    pub(super) fn of(statement: &'s mut Statement<'c>) -> Self {
        Self { statement, next: 1, result: Ok(()) }
    }

    fn bind(&mut self, value: impl rusqlite::ToSql) {
        if self.result.is_ok() {
            self.result = self.statement.raw_bind_parameter(self.next, value);
        }
        self.next += 1;
    }

    /// Whether all of them could be given.
    pub(super) fn finish(self) -> rusqlite::Result<()> {
        self.result
    }
}

impl Bind for Parameters<'_, '_> {
    fn integer(&mut self, number: Option<i64>) {
        self.bind(number);
    }

    fn text(&mut self, text: Option<&str>) {
        self.bind(text);
    }
}

/// Whether a write failed because a key is taken.
pub(super) fn is_taken(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
        && error.sqlite_error().is_some_and(|error| {
            [rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE, rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY]
                .contains(&error.extended_code)
        })
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
pub(super) fn unavailable(error: rusqlite::Error) -> StoreError {
    StoreError::Unavailable(error.to_string())
}
