//! The application's tables: every statement of SQL that reads or changes them is below here.
//!
//! Statements are lower case and plain, so that other databases can take them over with other
//! placeholders. Time is always a parameter: SQL never asks the database for it.

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

pub use seed::{ArticleRow, CommentRow, MarkRow, RelationRow, SeedRows, UserRow};
pub use users::User;

/// Rows of one statement at most: far below the bound parameters that any database takes.
pub(super) const CHUNK_ROWS: usize = 500;

/// Connections to one file. It has one writer at a time; the others are for readers.
const MAX_CONNECTIONS: u32 = 8;

/// How long a writer waits for another one, and a caller for a connection.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Time until a file that another process opens is tried again.
const TURN_PAUSE: Duration = Duration::from_millis(10);

/// Mode of a new file.
const MODE: u32 = 0o640;

/// The start of a transaction that reads before it writes: it takes the write lock at once,
/// because a lock that is taken later fails without waiting when another writer was faster.
pub(super) const BEGIN: &str = "begin immediate";

/// Why a database did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The directory of the file cannot be made, or not be opened.
    #[error("cannot use the directory {}: {source}", .path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file cannot be opened.
    #[error("cannot open {}: {source}", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the database said.
        source: sqlx::Error,
    },
    /// The tables cannot be brought up to date.
    #[error("cannot migrate {}: {source}", .path.display())]
    Migrate {
        /// The file.
        path: PathBuf,
        /// What the database said.
        source: MigrateError,
    },
    /// A statement failed; it may work later.
    #[error("the database failed: {0}")]
    Statement(#[from] sqlx::Error),
    /// A row holds what this program never writes.
    #[error("row {id} of {table} cannot be read: {reason}")]
    Unreadable {
        /// The table.
        table: &'static str,
        /// The row's key.
        id: i64,
        /// What is wrong with it.
        reason: String,
    },
}

/// The application's tables.
#[derive(Debug, Clone)]
pub struct ToutiaoDatabase {
    pool: SqlitePool,
}

impl ToutiaoDatabase {
    /// Opens the tables in a file, and creates or migrates them.
    pub async fn open(path: &Path) -> Result<Self, DatabaseError> {
        let pool =
            open_file(path, include_str!("../../../migrations/toutiao/sqlite/0001_init.sql"))
                .await?;
        Ok(Self { pool })
    }
}

/// Opens a durable file and brings its tables up to date.
pub(super) async fn open_file(
    path: &Path,
    init: &'static str,
) -> Result<SqlitePool, DatabaseError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new(".")).to_owned();
    let unusable = |source| DatabaseError::Directory { path: directory.clone(), source };
    tokio::fs::create_dir_all(&directory).await.map_err(unusable)?;
    let turn = take_turn(&directory).await.map_err(unusable)?;
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
    drop(turn);
    Ok(pool)
}

/// Waits until nobody else opens a file of this directory; the turn ends with the handle. A new file is changed to WAL
/// when it is opened, and SQLite refuses that, without any waiting, while another process has the file open to do the
/// same.
async fn take_turn(directory: &Path) -> std::io::Result<File> {
    let handle = File::open(directory)?;
    loop {
        match handle.try_lock() {
            Ok(()) => return Ok(handle),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(TURN_PAUSE).await,
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Creates the file, if there is none, so that not everybody may read it. SQLite gives the same mode to the files
/// beside it.
fn create(path: &Path) -> std::io::Result<()> {
    let mut options = File::options();
    match options.write(true).create_new(true).mode(MODE).open(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

// All in one transaction that holds the write lock: worker processes open the same file at the
// same moment, and only one of them may create its tables.
async fn migrate(pool: &SqlitePool, init: &'static str) -> Result<(), MigrateError> {
    let first =
        Migration::new(1, Cow::Borrowed("init"), MigrationType::Simple, init.into_sql_str(), false);
    let migrator = Migrator::with_migrations(vec![first]);
    let mut transaction = pool.begin_with(BEGIN).await?;
    // The direct form, because futures of the other one are not `Send` for every lifetime.
    migrator.run_direct(None, &mut *transaction, false).await?;
    transaction.commit().await?;
    Ok(())
}
