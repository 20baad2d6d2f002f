//! The SQL store. SQLite now; every statement stands in this folder and asks the database
//! neither for the time nor for a decision.
//!
//! One connection writes, the others read: SQLite has one writer by construction, and a reader
//! in WAL mode never waits for it. The file belongs to one daemon at a time, which holds a lock
//! beside it for as long as it lives.

mod bind;
mod lock;
mod read;
mod row;
mod write;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use super::StoreError;
use crate::invalid::Invalid;
use lock::FileLock;

/// Connections for readers: more than the daemon's threads would only queue inside SQLite.
const READERS: u32 = 4;
/// How long a statement waits for a lock that a foreign process (a backup, a shell) holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Pages after which the WAL is folded back: larger than SQLite's own 1,000, so that bursts fold less often.
const WAL_PAGES: &str = "4000";
/// The oldest SQLite without the WAL-reset corruption bug, as `sqlite_version()` orders it.
const SQLITE_AT_LEAST: (u32, u32, u32) = (3, 51, 3);

/// Jobs and ledger in a SQL database.
#[derive(Debug, Clone)]
pub struct SqlStore {
    writer: SqlitePool,
    readers: SqlitePool,
    /// Held until the last clone goes.
    _lock: std::sync::Arc<FileLock>,
}

/// The database file that a store URL names.
pub fn sqlite_path(url: &str) -> Result<PathBuf, Invalid> {
    let refuse =
        |why: &str| Err(Invalid::new("url", format!("{why}, such as sqlite://punctual.db")));
    match url.strip_prefix("sqlite://") {
        Some("" | ":memory:") => refuse("must name a file"),
        Some(path) if path.contains('?') => refuse("takes no options after \"?\""),
        Some(path) => Ok(PathBuf::from(path)),
        None => refuse("must begin with sqlite:// and name a file"),
    }
}

impl SqlStore {
    /// Opens the database file, creating and migrating it where needed. Fails if another daemon holds it.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let shown = path.display();
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|error| {
                StoreError::Unusable(format!("cannot create {}: {error}", folder.display()))
            })?;
        }
        let lock = FileLock::take(path)?;
        let unusable = |error: sqlx::Error| StoreError::Unusable(format!("{shown}: {error}"));
        let options = SqliteConnectOptions::from_str("sqlite://")
            .map_err(unusable)?
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("wal_autocheckpoint", WAL_PAGES);
        // A connection to a file does not go stale: no ping before each use, no end by age.
        let pool = || {
            SqlitePoolOptions::new()
                .idle_timeout(None)
                .max_lifetime(None)
                .test_before_acquire(false)
        };
        let writer =
            pool().max_connections(1).connect_with(options.clone()).await.map_err(unusable)?;
        check_version(&writer).await?;
        migrate(&writer)
            .await
            .map_err(|error| StoreError::Unusable(format!("{shown}: {error}")))?;
        let readers = pool().max_connections(READERS).connect_with(options.read_only(true)).await;
        Ok(Self { writer, readers: readers.map_err(unusable)?, _lock: std::sync::Arc::new(lock) })
    }

    /// Closes the connections, so that the WAL is folded into the file.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// Brings the schema to this version. What a newer one has written is refused, not guessed at.
async fn migrate(pool: &SqlitePool) -> Result<(), String> {
    let migration = |version, name: &'static str, sql: &'static str| {
        let sql = sqlx::SqlStr::from_static(sql);
        Migration::new(version, name.into(), MigrationType::Simple, sql, false)
    };
    let migrations = vec![
        migration(1, "init", include_str!("../../../migrations/sqlite/0001_init.sql")),
        migration(2, "overlap", include_str!("../../../migrations/sqlite/0002_overlap.sql")),
        migration(3, "settings", include_str!("../../../migrations/sqlite/0003_settings.sql")),
    ];
    let known = migrations.len();
    let migrated = Migrator::with_migrations(migrations).run(pool).await;
    if let Err(MigrateError::VersionMissing(version)) = migrated {
        return Err(format!(
            "it was written by a newer version of punctual (schema {version}, this one knows {known})"
        ));
    }
    migrated.map_err(|error| error.to_string())
}

/// Refuses to write with a SQLite that is known to corrupt a WAL, should the build ever link one.
async fn check_version(pool: &SqlitePool) -> Result<(), StoreError> {
    let version: String =
        sqlx::query_scalar("select sqlite_version()").fetch_one(pool).await.map_err(unavailable)?;
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    let (major, minor, patch) = SQLITE_AT_LEAST;
    if (next(), next(), next()) < SQLITE_AT_LEAST {
        let message =
            format!("SQLite {version} is too old: {major}.{minor}.{patch} or newer is needed");
        return Err(StoreError::Unusable(message));
    }
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn unavailable(error: sqlx::Error) -> StoreError {
    StoreError::Unavailable(error.to_string())
}
