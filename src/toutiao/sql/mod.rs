//! The application's database. Every SQL statement that reads or changes it is in this folder.
//!
//! The statements are plain SQL, so that other databases can use them with other placeholders. Time is always a parameter;
//! the database is never asked for it.

mod orders;
mod seed;
mod statistics;
mod users;

use std::borrow::Cow;
use std::fs::{File, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::SqlSafeStr;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

pub use seed::{SeedTable, SeedValue};
pub use users::User;

/// The largest number of rows in one statement: far below the number of bound parameters that any database accepts.
pub(super) const CHUNK_ROWS: usize = 500;

/// Connections to one file. It has one writer at a time; the other connections serve readers.
const MAX_CONNECTIONS: u32 = 8;

/// How long a writer waits for another one, and a caller waits for a connection.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The time until opening is tried again while another process opens a file.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The mode of a new file.
const MODE: u32 = 0o640;

/// Begins a transaction that reads before it writes. It takes the write lock at once, because taking it later fails
/// without waiting if another writer was faster.
pub(super) const BEGIN: &str = "begin immediate";

/// Why an operation of the database failed.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The directory of the file cannot be created or opened.
    #[error("cannot use the directory {}: {source}", .path.display())]
    Directory { path: PathBuf, source: std::io::Error },
    #[error("cannot open {}: {source}", .path.display())]
    Open { path: PathBuf, source: sqlx::Error },
    #[error("cannot migrate {}: {source}", .path.display())]
    Migrate { path: PathBuf, source: MigrateError },
    /// A statement failed. It may succeed later.
    #[error("the database failed: {0}")]
    Statement(#[from] sqlx::Error),
    /// A row has a value that this program never writes.
    #[error("row {id} of {table} cannot be read: {reason}")]
    Unreadable { table: &'static str, id: i64, reason: String },
}

#[derive(Debug, Clone)]
pub struct ToutiaoDatabase {
    pool: SqlitePool,
}

impl ToutiaoDatabase {
    /// Opens a database file, and creates or migrates its tables.
    pub async fn open(path: &Path) -> Result<Self, DatabaseError> {
        let pool =
            open_file(path, include_str!("../../../migrations/toutiao/sqlite/0001_init.sql"))
                .await?;
        Ok(Self { pool })
    }
}

/// Opens an SQLite file durably, and creates or migrates its tables with the statements `init`.
pub(super) async fn open_file(
    path: &Path,
    init: &'static str,
) -> Result<SqlitePool, DatabaseError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new(".")).to_owned();
    let unusable = |source| DatabaseError::Directory { path: directory.clone(), source };
    tokio::fs::create_dir_all(&directory).await.map_err(unusable)?;
    let lock = lock_directory(&directory).await.map_err(unusable)?;
    create(path)
        .map_err(|error| DatabaseError::Open { path: path.to_owned(), source: error.into() })?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT);
    let pool = SqlitePoolOptions::new()
        .max_connections(MAX_CONNECTIONS)
        .acquire_timeout(BUSY_TIMEOUT)
        .connect_with(options)
        .await
        .map_err(|source| DatabaseError::Open { path: path.to_owned(), source })?;
    migrate(&pool, init)
        .await
        .map_err(|source| DatabaseError::Migrate { path: path.to_owned(), source })?;
    drop(lock);
    Ok(pool)
}

/// Waits until no other process opens a file of this directory. The lock ends with the returned handle. A new file is
/// changed to WAL when it is opened, and SQLite refuses that without waiting while another process does the same.
async fn lock_directory(directory: &Path) -> std::io::Result<File> {
    let handle = File::open(directory)?;
    loop {
        match handle.try_lock() {
            Ok(()) => return Ok(handle),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PAUSE).await,
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Creates the file if it does not exist, with a mode that not everybody can read. SQLite gives its other files the same
/// mode.
fn create(path: &Path) -> std::io::Result<()> {
    let mut options = File::options();
    match options.write(true).create_new(true).mode(MODE).open(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Migrates in one transaction that holds the write lock: worker processes may open the same file at the same moment, and
/// only one of them may create the tables.
async fn migrate(pool: &SqlitePool, init: &'static str) -> Result<(), MigrateError> {
    let first =
        Migration::new(1, Cow::Borrowed("init"), MigrationType::Simple, init.into_sql_str(), false);
    let migrator = Migrator::with_migrations(vec![first]);
    let mut transaction = pool.begin_with(BEGIN).await?;
    // `run` is not used because its future is not `Send` for every lifetime.
    migrator.run_direct(None, &mut *transaction, false).await?;
    transaction.commit().await?;
    Ok(())
}
