//! The schema: it is checked at every start, and migrated to this version if it is older. A newer schema is refused. A
//! current schema is only read, so the daemon needs no right to change it.

use std::path::Path;

use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, MySqlConnection, PgConnection, SqlStr,
    SqliteConnection,
};

use super::error_text::{is_denied, unreachable, words};
use super::url::StoreUrl;
use crate::store::StoreError;

const SQLITE: &[(&str, &str)] = &[
    ("init", include_str!("../../../migrations/sqlite/0001_init.sql")),
    ("overlap", include_str!("../../../migrations/sqlite/0002_overlap.sql")),
    ("settings", include_str!("../../../migrations/sqlite/0003_settings.sql")),
    ("nodes", include_str!("../../../migrations/sqlite/0004_nodes.sql")),
    ("execution", include_str!("../../../migrations/sqlite/0005_execution.sql")),
    ("finished jobs", include_str!("../../../migrations/sqlite/0006_finished_jobs.sql")),
    ("crashes", include_str!("../../../migrations/sqlite/0007_crashes.sql")),
    ("sources", include_str!("../../../migrations/sqlite/0008_sources.sql")),
    ("requester", include_str!("../../../migrations/sqlite/0009_requester.sql")),
    ("failing", include_str!("../../../migrations/sqlite/0010_failing.sql")),
];

const POSTGRES: &[(&str, &str)] = &[
    ("init", include_str!("../../../migrations/postgres/0001_init.sql")),
    ("execution", include_str!("../../../migrations/postgres/0002_execution.sql")),
    ("finished jobs", include_str!("../../../migrations/postgres/0003_finished_jobs.sql")),
    ("crashes", include_str!("../../../migrations/postgres/0004_crashes.sql")),
    ("sources", include_str!("../../../migrations/postgres/0005_sources.sql")),
    ("requester", include_str!("../../../migrations/postgres/0006_requester.sql")),
    ("failing", include_str!("../../../migrations/postgres/0007_failing.sql")),
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
    ("crashes", include_str!("../../../migrations/mysql/0012_crashes.sql")),
    ("sources", include_str!("../../../migrations/mysql/0013_sources.sql")),
    ("requester", include_str!("../../../migrations/mysql/0014_requester.sql")),
    ("failing", include_str!("../../../migrations/mysql/0015_failing.sql")),
];

/// The table in which the migrator notes what it has done.
const TABLE: &str = "_sqlx_migrations";

fn migrator(list: &'static [(&str, &str)]) -> Migrator {
    let migration = |(version, (name, sql)): (i64, &(&'static str, &'static str))| {
        let sql = SqlStr::from_static(sql);
        Migration::new(version, (*name).into(), MigrationType::Simple, sql, false)
    };
    Migrator::with_migrations((1..).zip(list).map(migration).collect())
}

/// The names of the tables that these migrations make, as a list of SQL.
fn tables(list: &[(&str, &str)]) -> String {
    let lines = list.iter().flat_map(|(_, sql)| sql.lines());
    let made = lines.filter_map(|line| line.trim_start().strip_prefix("create table "));
    let names = made.filter_map(|rest| rest.split([' ', '(']).next());
    names.map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
}

/// How a schema stands beside the one that this program needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schema {
    /// The version that the database has; zero if it has no tables of ours.
    pub found: usize,
    /// The version that this program needs.
    pub needed: usize,
}

impl Schema {
    /// Whether nothing has to be changed.
    pub fn is_current(&self) -> bool {
        self.found == self.needed
    }
}

/// Why a schema was not brought to this version.
#[derive(Debug, thiserror::Error)]
pub(super) enum SchemaError {
    /// The database failed; it may work later.
    #[error("{}", words(.0))]
    Sql(sqlx::Error),
    #[error(
        "it was written by a newer version of punctual (schema {found}, this one knows {known})"
    )]
    Newer { found: i64, known: usize },
    #[error(
        "its table {TABLE} belongs to another program, or to tables that were changed by hand (version {0} is not punctual's): \
         give punctual a schema or a database of its own"
    )]
    Foreign(i64),
    #[error(
        "it has tables of another program, with names that punctual needs ({0}): give punctual a schema or a database of its own"
    )]
    Occupied(String),
    #[error("version {0} of its schema was applied by half: restore a backup, or see {TABLE}")]
    Dirty(i64),
    #[error(
        "its user may not read the schema ({0}): it needs select, insert, update and delete on all tables"
    )]
    Unreadable(String),
    #[error(
        "{}, and its user may not change it ({why}): run `punctual migrate` as a user who may",
        stands(.schema)
    )]
    Denied { schema: Schema, why: String },
    #[error("another node has been changing the schema for a minute")]
    Locked,
    #[error("{0}")]
    Other(String),
}

/// How a schema that is not current is told.
fn stands(schema: &Schema) -> String {
    let Schema { found, needed } = schema;
    if *found == 0 {
        return "the tables of punctual are not there".to_owned();
    }
    format!("its schema has version {found} where this version of punctual needs {needed}")
}

impl From<sqlx::Error> for SchemaError {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<MigrateError> for SchemaError {
    fn from(error: MigrateError) -> Self {
        if let MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) = error {
            return Self::Sql(error);
        }
        if let MigrateError::Dirty(version) = error {
            return Self::Dirty(version);
        }
        if let MigrateError::VersionMismatch(version) = error {
            return Self::Foreign(version);
        }
        Self::Other(error.to_string())
    }
}

impl SchemaError {
    /// What this means for a store at that place.
    pub(super) fn at(self, place: &StoreUrl) -> StoreError {
        match self {
            Self::Sql(error) => unreachable(place, &error),
            Self::Locked => StoreError::Unavailable(format!("{place}: {self}")),
            Self::Newer { .. }
            | Self::Foreign(_)
            | Self::Occupied(_)
            | Self::Dirty(_)
            | Self::Unreadable(_)
            | Self::Denied { .. }
            | Self::Other(_) => StoreError::Refused(format!("{place}: {self}")),
        }
    }
}

fn denial(error: &sqlx::Error) -> Option<String> {
    let is_denied = error.as_database_error().is_some_and(is_denied);
    is_denied.then(|| words(error))
}

/// Whether a statement failed because its table is not there: by the codes of `PostgreSQL` and MySQL, and by what
/// SQLite says.
fn is_missing(error: &sqlx::Error) -> bool {
    let Some(error) = error.as_database_error() else { return false };
    let code = error.code();
    matches!(code.as_deref(), Some("42P01" | "42S02")) || error.message().contains("no such table")
}

/// Looks how the schema stands where tables with these names of ours are there, and changes nothing. The names must have
/// been read before: tables of ours come together with the note of their migration, so they are never there without it.
async fn look_beside<C: Migrate>(
    taken: Vec<String>,
    connection: &mut C,
    migrator: &Migrator,
) -> Result<Schema, SchemaError> {
    let schema = look(connection, migrator).await?;
    if schema.found == 0 && !taken.is_empty() {
        return Err(SchemaError::Occupied(taken.join(", ")));
    }
    Ok(schema)
}

/// Looks how the schema stands, and changes nothing.
async fn look<C: Migrate>(connection: &mut C, migrator: &Migrator) -> Result<Schema, SchemaError> {
    let needed = migrator.iter().count();
    let applied = match connection.list_applied_migrations(TABLE).await {
        Ok(applied) => applied,
        Err(MigrateError::Execute(error)) if is_missing(&error) => Vec::new(),
        Err(MigrateError::Execute(error)) => {
            return Err(denial(&error).map_or(SchemaError::Sql(error), SchemaError::Unreadable));
        }
        Err(error) => return Err(error.into()),
    };
    let Some(newest) = applied.last() else { return Ok(Schema { found: 0, needed }) };
    for (known, found) in migrator.iter().zip(&applied) {
        if (known.version, &known.checksum) != (found.version, &found.checksum) {
            return Err(SchemaError::Foreign(found.version));
        }
    }
    if applied.len() > needed {
        return Err(SchemaError::Newer { found: newest.version, known: needed });
    }
    if let Some(version) = connection.dirty_version(TABLE).await? {
        return Err(SchemaError::Dirty(version));
    }
    Ok(Schema { found: applied.len(), needed })
}

/// The error of a failed migration. If a right is missing, it says which version the schema has.
fn refused(schema: Schema, error: MigrateError) -> SchemaError {
    let denied =
        if let MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) = &error {
            denial(error)
        } else {
            None
        };
    denied.map_or_else(|| error.into(), |why| SchemaError::Denied { schema, why })
}

/// How the schema of a file stands. A file that is not there has none, and is not made.
pub(super) async fn look_at_sqlite(path: &Path) -> Result<Schema, SchemaError> {
    let migrator = migrator(SQLITE);
    if !path.exists() {
        return Ok(Schema { found: 0, needed: SQLITE.len() });
    }
    let mut connection =
        SqliteConnectOptions::new().filename(path).read_only(true).connect().await?;
    let schema = match taken_in_sqlite(&mut connection).await {
        Ok(taken) => look_beside(taken, &mut connection, &migrator).await,
        Err(error) => Err(error.into()),
    };
    connection.close().await?;
    schema
}

async fn taken_in_sqlite(connection: &mut SqliteConnection) -> sqlx::Result<Vec<String>> {
    let list = tables(SQLITE);
    let names = format!("select name from sqlite_schema where name in ({list}) order by name");
    sqlx::query_scalar(AssertSqlSafe(names)).fetch_all(connection).await
}

/// Brings a file to this version, and says how it stood. An empty one gets its tables.
pub(super) async fn sqlite(path: &Path) -> Result<Schema, SchemaError> {
    let options = SqliteConnectOptions::new().filename(path).journal_mode(SqliteJournalMode::Wal);
    let mut connection = options.connect().await?;
    let schema = match taken_in_sqlite(&mut connection).await {
        Ok(taken) => bring(taken, &mut connection, migrator(SQLITE)).await,
        Err(error) => Err(error.into()),
    };
    connection.close().await?;
    schema
}

/// Migrates a schema to this version if it is older, and returns the state that it found. A current schema is only read:
/// the user may have no right to change it. Programs that start at the same time take turns.
async fn bring<C: Migrate>(
    taken: Vec<String>,
    connection: &mut C,
    mut migrator: Migrator,
) -> Result<Schema, SchemaError> {
    let schema = look_beside(taken, connection, &migrator).await?;
    if schema.is_current() {
        return Ok(schema);
    }
    connection.lock().await?;
    migrator.set_locking(false);
    let schema = look(connection, &migrator).await;
    let brought = match schema {
        Ok(schema) => {
            let done = migrator.run_direct(None, connection, false).await;
            done.map(|()| schema).map_err(|error| refused(schema, error))
        }
        error => error,
    };
    connection.unlock().await?;
    brought
}

/// How the schema of a `PostgreSQL` database stands.
pub(super) async fn look_at_postgres(connection: &mut PgConnection) -> Result<Schema, SchemaError> {
    let taken = taken_in_postgres(connection).await?;
    look_beside(taken, connection, &migrator(POSTGRES)).await
}

/// Looks where tables would be made: in the first schema of the search path.
async fn taken_in_postgres(connection: &mut PgConnection) -> sqlx::Result<Vec<String>> {
    let list = tables(POSTGRES);
    let names = format!(
        "select relname::text from pg_class join pg_namespace on pg_namespace.oid = relnamespace \
         where nspname = current_schema() and relname in ({list}) order by relname"
    );
    sqlx::query_scalar(AssertSqlSafe(names)).fetch_all(connection).await
}

/// Brings a `PostgreSQL` database to this version, and says how it stood.
pub(super) async fn postgres(connection: &mut PgConnection) -> Result<Schema, SchemaError> {
    // Of the lock that the migrator takes, and of tables that others work on.
    sqlx::query("set lock_timeout = '60s'").execute(&mut *connection).await?;
    let taken = taken_in_postgres(connection).await?;
    bring(taken, connection, migrator(POSTGRES)).await
}

/// How the schema of a MySQL database stands.
pub(super) async fn look_at_mysql(connection: &mut MySqlConnection) -> Result<Schema, SchemaError> {
    let taken = taken_in_mysql(connection).await?;
    look_beside(taken, connection, &migrator(MYSQL)).await
}

async fn taken_in_mysql(connection: &mut MySqlConnection) -> sqlx::Result<Vec<String>> {
    let list = tables(MYSQL);
    let names = format!(
        "select cast(table_name as char) from information_schema.tables \
         where table_schema = database() and table_name in ({list}) order by table_name"
    );
    sqlx::query_scalar(AssertSqlSafe(names)).fetch_all(connection).await
}

/// Brings a MySQL database to this version, and says how it stood. Those who come together take turns, with a lock of
/// our own: the migrator waits for its lock "for ever", by a number of seconds that MariaDB refuses, and then goes on
/// without it.
pub(super) async fn mysql(connection: &mut MySqlConnection) -> Result<Schema, SchemaError> {
    let mut migrator = migrator(MYSQL);
    migrator.set_locking(false);
    let taken = taken_in_mysql(connection).await?;
    let schema = look_beside(taken, connection, &migrator).await;
    // While one that came first is at it, a version may look applied by half.
    if schema.as_ref().is_ok_and(Schema::is_current) || !may_be_under_way(&schema) {
        return schema;
    }
    let lock = "select get_lock(concat('punctual ', md5(database())), 60)";
    let taken: Option<i64> = sqlx::query_scalar(lock).fetch_one(&mut *connection).await?;
    if taken != Some(1) {
        return Err(SchemaError::Locked);
    }
    let schema = bring_mysql(connection, &migrator).await;
    let unlock = "do release_lock(concat('punctual ', md5(database())))";
    sqlx::query(unlock).execute(&mut *connection).await?;
    schema
}

fn may_be_under_way(schema: &Result<Schema, SchemaError>) -> bool {
    matches!(schema, Ok(_) | Err(SchemaError::Dirty(_)))
}

async fn bring_mysql(
    connection: &mut MySqlConnection,
    migrator: &Migrator,
) -> Result<Schema, SchemaError> {
    let schema = look(connection, migrator).await?;
    let Err(error) = migrator.run_direct(None, connection, false).await else { return Ok(schema) };
    if let MigrateError::ExecuteMigration(why, version) = &error
        && denial(why).is_some()
    {
        // The migrator notes a version before it tries. This one was refused before anything was changed.
        let forget = format!("delete from {TABLE} where version = ? and success = false");
        let query = sqlx::query(AssertSqlSafe(forget)).bind(version);
        query.execute(&mut *connection).await?;
    }
    Err(refused(schema, error))
}
