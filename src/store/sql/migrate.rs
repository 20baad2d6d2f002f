//! The schema: brought to this version at every start, forwards only. What a newer version has
//! written is refused, not guessed at.

use std::path::Path;
use std::str::FromStr;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{MySqlPool, PgPool, SqlStr};

const SQLITE: &[(&str, &str)] = &[
    ("init", include_str!("../../../migrations/sqlite/0001_init.sql")),
    ("overlap", include_str!("../../../migrations/sqlite/0002_overlap.sql")),
    ("settings", include_str!("../../../migrations/sqlite/0003_settings.sql")),
    ("nodes", include_str!("../../../migrations/sqlite/0004_nodes.sql")),
    ("execution", include_str!("../../../migrations/sqlite/0005_execution.sql")),
    ("finished jobs", include_str!("../../../migrations/sqlite/0006_finished_jobs.sql")),
];

const POSTGRES: &[(&str, &str)] = &[
    ("init", include_str!("../../../migrations/postgres/0001_init.sql")),
    ("execution", include_str!("../../../migrations/postgres/0002_execution.sql")),
    ("finished jobs", include_str!("../../../migrations/postgres/0003_finished_jobs.sql")),
];

/// One statement each: this database cannot take back a change of the schema that failed half way.
const MYSQL: &[(&str, &str)] = &[
    ("jobs", include_str!("../../../migrations/mysql/0001_jobs.sql")),
    ("runs", include_str!("../../../migrations/mysql/0002_runs.sql")),
    ("outputs", include_str!("../../../migrations/mysql/0003_outputs.sql")),
    ("settings", include_str!("../../../migrations/mysql/0004_settings.sql")),
    ("nodes", include_str!("../../../migrations/mysql/0005_nodes.sql")),
    ("options", include_str!("../../../migrations/mysql/0006_options.sql")),
    ("cost", include_str!("../../../migrations/mysql/0007_cost.sql")),
    ("attempts", include_str!("../../../migrations/mysql/0008_attempts.sql")),
    ("attempt outputs", include_str!("../../../migrations/mysql/0009_attempt_outputs.sql")),
    ("drop outputs", include_str!("../../../migrations/mysql/0010_drop_outputs.sql")),
    ("finished jobs", include_str!("../../../migrations/mysql/0011_finished_jobs.sql")),
];

fn migrator(list: &'static [(&str, &str)]) -> Migrator {
    let migration = |(version, (name, sql)): (i64, &(&'static str, &'static str))| {
        let sql = SqlStr::from_static(sql);
        Migration::new(version, (*name).into(), MigrationType::Simple, sql, false)
    };
    Migrator::with_migrations((1..).zip(list).map(migration).collect())
}

fn explain(result: Result<(), MigrateError>, known: usize) -> Result<(), String> {
    if let Err(MigrateError::VersionMissing(version)) = result {
        return Err(format!(
            "it was written by a newer version of punctual (schema {version}, this one knows {known})"
        ));
    }
    result.map_err(|error| error.to_string())
}

/// Brings a file to this version. An empty one gets its tables.
pub(super) async fn sqlite(path: &Path) -> Result<(), String> {
    let options = SqliteConnectOptions::from_str("sqlite://").map_err(|error| error.to_string())?;
    let options = options.filename(path).journal_mode(SqliteJournalMode::Wal);
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await;
    let pool = pool.map_err(|error| error.to_string())?;
    let result = migrator(SQLITE).run(&pool).await;
    pool.close().await;
    explain(result, SQLITE.len())
}

/// Brings a database to this version. Nodes that start together take turns.
pub(super) async fn postgres(pool: &PgPool) -> Result<(), String> {
    explain(migrator(POSTGRES).run(pool).await, POSTGRES.len())
}

/// Brings a database to this version. Nodes that start together take turns, with a lock of our own: the migrator waits
/// for its lock "for ever", by a number of seconds that MariaDB refuses, and then goes on without it.
pub(super) async fn mysql(pool: &MySqlPool) -> Result<(), String> {
    let failed = |error: sqlx::Error| error.to_string();
    let mut connection = pool.acquire().await.map_err(failed)?;
    let lock = "select get_lock(concat('punctual ', md5(database())), 60)";
    let taken: Option<i64> =
        sqlx::query_scalar(lock).fetch_one(&mut *connection).await.map_err(failed)?;
    if taken != Some(1) {
        return Err("another node has been changing the schema for a minute".to_owned());
    }
    let mut migrator = migrator(MYSQL);
    let result = migrator.set_locking(false).run(&mut *connection).await;
    let unlock = "do release_lock(concat('punctual ', md5(database())))";
    sqlx::query(unlock).execute(&mut *connection).await.map_err(failed)?;
    explain(result, MYSQL.len())
}
