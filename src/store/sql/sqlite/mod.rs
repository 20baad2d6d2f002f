//! A SQLite database. One connection writes, on the thread of the scheduler, which does nothing else meanwhile. Others read
//! (`readers`); in WAL mode they never wait for the writer. The file belongs to one daemon at a time (`file`).

pub(super) mod connection;
mod file;
mod readers;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::ffi;
use rusqlite::{Connection, MAIN_DB, OpenFlags, TransactionBehavior};

use self::connection::{bind_all, connect, failure, rows};
use self::file::{DatabaseFile, IfMissing, NEEDED_RIGHTS, not_opened};
use self::readers::Readers;
use super::migrate::{self, Schema, SchemaError};
use super::query::{Query, Write};
use super::value::SqlRow;
use crate::store::StoreError;

/// The version number of the oldest SQLite without the bug that corrupts a WAL when it is reset.
const SQLITE_AT_LEAST: i32 = 3_051_003;
/// Primary error codes for a file that SQLite has no right to write.
const NO_RIGHT: [i32; 3] = [ffi::SQLITE_PERM, ffi::SQLITE_READONLY, ffi::SQLITE_CANTOPEN];
/// Primary error codes for a file that is no database, or a corrupt one.
const NO_DATABASE: [i32; 2] = [ffi::SQLITE_NOTADB, ffi::SQLITE_CORRUPT];
/// The interval at which the file of an idle store is checked.
const WATCH: Duration = Duration::from_secs(1);

/// A database file.
#[derive(Debug)]
pub(super) struct SqliteDatabase {
    // The order matters: connections are closed before the file.
    readers: Readers,
    writer: Mutex<Writer>,
    file: Arc<DatabaseFile>,
}

/// The connection that writes.
#[derive(Debug)]
struct Writer {
    /// None when it is closed.
    connection: Option<Connection>,
    /// Whether it has failed. It is replaced at the next try, and stays open until then: the last connection deletes the
    /// WAL when it is closed.
    has_failed: bool,
}

impl SqliteDatabase {
    /// Opens the file, creating and migrating it where needed. Fails if another daemon holds it, or if it cannot be
    /// written.
    pub(super) async fn open(path: &Path) -> Result<Self, StoreError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|error| not_opened(folder, &error))?;
        }
        let (file, schema) = prepare(path, IfMissing::Create).await?;
        if schema.found == 0 {
            // Somebody may have moved the old one away without wanting this.
            tracing::info!(path = %file.path().display(), "created a new store");
        }
        let file = Arc::new(file);
        let unusable = |error: rusqlite::Error| {
            let code = error.sqlite_error().map(|error| error.extended_code);
            not_used(path, &error.to_string(), code)
        };
        let connection = connect_to_write(file.path()).map_err(unusable)?;
        prove_writable(&connection).map_err(unusable)?;
        file.note_companions()?;
        file.verify()?;
        let readers = Readers::start(&file)?;
        let writer = Writer { connection: Some(connection), has_failed: false };
        Ok(Self { readers, writer: Mutex::new(writer), file })
    }

    /// Creates the tables of a file that is there, or brings them to this version; says how they stood.
    pub(super) async fn migrate(path: &Path) -> Result<Schema, StoreError> {
        prepare(path, IfMissing::Refuse).await.map(|(_, schema)| schema)
    }

    /// Works on the connection that writes, on the thread of the caller: the scheduler has a thread of its own, and a change
    /// of threads would cost more than most statements. An error if the path no longer leads to the file that is open.
    pub(super) fn on_writer<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut writer = self.writer();
        let result = self.connection(&mut writer).and_then(work);
        writer.has_failed |= matches!(result, Err(StoreError::Unavailable(_)));
        let done = result?;
        self.file.verify()?;
        Ok(done)
    }

    /// The connection that writes; a new one if it has failed.
    fn connection<'a>(&self, writer: &'a mut Writer) -> Result<&'a mut Connection, StoreError> {
        if writer.has_failed && writer.connection.is_some() {
            // A new connection must not lead to another file than the old one: their contents would be mixed.
            self.file.verify()?;
            let fresh = connect_to_write(self.file.path());
            let fresh = fresh.map_err(|error| StoreError::Unavailable(error.to_string()))?;
            writer.connection = Some(fresh);
            writer.has_failed = false;
        }
        let closed = || StoreError::Unavailable("the store is closed".to_owned());
        writer.connection.as_mut().ok_or_else(closed)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads rows on the connection that writes, which sees what was committed last.
    pub(super) fn read_newest(&self, query: &Query) -> Result<Vec<SqlRow>, StoreError> {
        self.on_writer(|connection| rows(connection, query))
    }

    /// Reads rows on a connection of a reader.
    pub(super) async fn read(&self, query: Query) -> Result<Vec<SqlRow>, StoreError> {
        self.readers.read(query).await
    }

    /// Writes all or nothing.
    pub(super) fn write(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        self.on_writer(|connection| write_all(connection, writes))
    }

    /// Returns within a second after the path has stopped leading to the file that is open.
    pub(super) async fn lost(&self) {
        loop {
            tokio::time::sleep(WATCH).await;
            if self.file.verify().is_err() {
                return;
            }
        }
    }

    /// Closes the connections, so that the WAL is folded into the file. An error if the path no longer leads to that file.
    pub(super) fn close(&self) -> Result<(), StoreError> {
        let verified = self.file.verify();
        self.readers.close();
        let writer = self.writer().connection.take();
        if let (Err(_), Some(connection)) = (&verified, &writer)
            && let Err(error) = empty_wal(connection)
        {
            tracing::warn!(%error, "the WAL could not be folded into the file that it belongs to");
        }
        verified
    }
}

/// Locks a file, and brings its schema to this version.
async fn prepare(path: &Path, absent: IfMissing) -> Result<(DatabaseFile, Schema), StoreError> {
    check_version()?;
    let file = DatabaseFile::lock(path, absent).await?;
    let schema = migrate::migrate_sqlite(file.path()).await.map_err(|error| {
        if let SchemaError::Sql(sqlx::Error::Database(cause)) = &error {
            let code = cause.code().and_then(|code| code.parse().ok());
            return not_used(path, &error.to_string(), code);
        }
        let may_pass = matches!(error, SchemaError::Sql(_) | SchemaError::Locked);
        let message = format!("{}: {error}", path.display());
        if may_pass { StoreError::Unusable(message) } else { StoreError::Refused(message) }
    })?;
    Ok((file, schema))
}

/// The error of a file that SQLite does not use, by its code. A file that is full or locked may be used at another try.
fn not_used(path: &Path, why: &str, code: Option<i32>) -> StoreError {
    let message = format!("{}: {why}", path.display());
    // The upper bits hold an extended code, which does not matter here.
    match code.map(|code| code & 0xff) {
        Some(code) if NO_RIGHT.contains(&code) => {
            StoreError::Refused(format!("{message}{NEEDED_RIGHTS}"))
        }
        Some(code) if NO_DATABASE.contains(&code) => StoreError::Refused(message),
        Some(_) | None => StoreError::Unusable(message),
    }
}

/// Folds the WAL into the file that is open, and empties it, so that it is not applied to another file that has taken the
/// path. If the path still leads to the file, SQLite does this when the last connection is closed.
fn empty_wal(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma(None, "wal_checkpoint", "truncate", |_| Ok(()))
}

fn connect_to_write(path: &Path) -> rusqlite::Result<Connection> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // SQLite opens a file that it may not write as read-only, without an error.
    if connection.is_readonly(MAIN_DB)? {
        let code = ffi::Error::new(ffi::SQLITE_READONLY);
        let why = "it cannot be written, only read".to_owned();
        return Err(rusqlite::Error::SqliteFailure(code, Some(why)));
    }
    Ok(connection)
}

/// Proves that the file can be written, by a write that changes nothing.
fn prove_writable(connection: &Connection) -> rusqlite::Result<()> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    connection.pragma_update(None, "user_version", version)
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

fn write_all(connection: &mut Connection, writes: Vec<Write>) -> Result<(), StoreError> {
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failure)?;
    for Write { query, rows, conflict } in writes {
        let mut statement = transaction.prepare_cached(&query.text).map_err(failure)?;
        bind_all(&mut statement, &query.values).map_err(failure)?;
        let done = statement.raw_execute().map_err(failure)?;
        if rows.is_some_and(|rows| u64::try_from(done) != Ok(rows)) {
            return Err(StoreError::Conflict(conflict));
        }
    }
    transaction.commit().map_err(failure)
}
