//! The schema is checked at every start, and migrated to this version if it is older. A newer schema is refused. A current
//! schema is only read, so the daemon needs no right to change it.

use std::path::Path;

use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, SqlStr, SqliteConnection};

use super::dialect::Dialect;
use super::dialect::sqlite::Sqlite;
use super::error_text::{ErrorContext, words};
use super::query::{Query, SqlConnection};
use crate::store::StoreError;

/// The table in which the migrator notes the migrations that it has applied.
pub(super) const TABLE: &str = "_sqlx_migrations";

pub(super) fn migrator(dialect: &dyn Dialect) -> Migrator {
    let migration = |(version, (name, sql)): (i64, &(&'static str, &'static str))| {
        let sql = SqlStr::from_static(sql);
        Migration::new(version, (*name).into(), MigrationType::Simple, sql, false)
    };
    Migrator::with_migrations((1..).zip(dialect.migrations()).map(migration).collect())
}

/// The question which tables exist that have the names of ours.
fn existing_tables_question(dialect: &dyn Dialect) -> String {
    let lines = dialect.migrations().iter().flat_map(|(_, sql)| sql.lines());
    let created = lines.filter_map(|line| line.trim_start().strip_prefix("create table "));
    let names = created.filter_map(|rest| rest.split([' ', '(']).next());
    let names: Vec<String> = names.map(|name| format!("'{name}'")).collect();
    dialect.existing_tables(&names.join(", "))
}

/// The tables of a server that have the names of ours.
pub(super) async fn existing_tables<C: SqlConnection>(
    dialect: &'static dyn Dialect,
    connection: &mut C,
) -> Result<Vec<String>, SchemaError> {
    let query = Query::new(dialect, existing_tables_question(dialect));
    let rows = connection.fetch_rows(query).await?;
    rows.into_iter()
        .map(|mut row| row.text().map_err(|error| SchemaError::Other(error.to_string())))
        .collect()
}

/// The version of a schema, and the version that this program needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schema {
    /// The version that the database has; zero if it has no tables of ours.
    pub found: usize,
    /// The version that this program needs.
    pub needed: usize,
}

impl Schema {
    pub fn is_current(&self) -> bool {
        self.found == self.needed
    }
}

/// Why a schema was not brought to this version.
#[derive(Debug, thiserror::Error)]
pub(super) enum SchemaError {
    /// The database failed; it may work later.
    #[error("{}", words(&Sqlite, .0))]
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

/// Describes a schema that is not current.
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
    /// What this means for a store.
    pub(super) fn at(self, context: &ErrorContext) -> StoreError {
        match self {
            Self::Sql(error) => context.unreachable(&error),
            Self::Locked => context.unavailable(&self.to_string()),
            Self::Newer { .. }
            | Self::Foreign(_)
            | Self::Occupied(_)
            | Self::Dirty(_)
            | Self::Unreadable(_)
            | Self::Denied { .. }
            | Self::Other(_) => context.refuse(&self.to_string()),
        }
    }
}

/// The words of an error if the user lacks a right.
pub(super) fn denial(dialect: &dyn Dialect, error: &sqlx::Error) -> Option<String> {
    let found = error.as_database_error()?;
    let is_denied = dialect.is_one_of(found, &dialect.errors().denied);
    is_denied.then(|| words(dialect, error))
}

/// Whether a statement failed because its table is not there: by its code, and by what SQLite says.
fn is_missing(dialect: &dyn Dialect, error: &sqlx::Error) -> bool {
    let Some(error) = error.as_database_error() else { return false };
    dialect.is_one_of(error, &dialect.errors().missing_table)
        || error.message().contains("no such table")
}

/// Looks how the schema stands in a database that has these tables with names of ours, and changes nothing. The tables must
/// have been listed before: tables of ours are created together with the note of their migration, so they never exist
/// without it.
pub(super) async fn check_schema<C: Migrate>(
    dialect: &dyn Dialect,
    taken: Vec<String>,
    connection: &mut C,
    migrator: &Migrator,
) -> Result<Schema, SchemaError> {
    let schema = look(dialect, connection, migrator).await?;
    if schema.found == 0 && !taken.is_empty() {
        return Err(SchemaError::Occupied(taken.join(", ")));
    }
    Ok(schema)
}

/// Looks how the schema stands, and changes nothing.
pub(super) async fn look<C: Migrate>(
    dialect: &dyn Dialect,
    connection: &mut C,
    migrator: &Migrator,
) -> Result<Schema, SchemaError> {
    let needed = migrator.iter().count();
    let applied = match connection.list_applied_migrations(TABLE).await {
        Ok(applied) => applied,
        Err(MigrateError::Execute(error)) if is_missing(dialect, &error) => Vec::new(),
        Err(MigrateError::Execute(error)) => {
            let denied = denial(dialect, &error);
            return Err(denied.map_or(SchemaError::Sql(error), SchemaError::Unreadable));
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
pub(super) fn refused(dialect: &dyn Dialect, schema: Schema, error: MigrateError) -> SchemaError {
    let denied =
        if let MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) = &error {
            denial(dialect, error)
        } else {
            None
        };
    denied.map_or_else(|| error.into(), |why| SchemaError::Denied { schema, why })
}

/// How the schema of a file stands. A file that is not there has none, and is not made.
pub(super) async fn look_at_sqlite(path: &Path) -> Result<Schema, SchemaError> {
    let migrator = migrator(&Sqlite);
    if !path.exists() {
        return Ok(Schema { found: 0, needed: migrator.iter().count() });
    }
    let mut connection =
        SqliteConnectOptions::new().filename(path).read_only(true).connect().await?;
    let schema = match existing_in_sqlite(&mut connection).await {
        Ok(taken) => check_schema(&Sqlite, taken, &mut connection, &migrator).await,
        Err(error) => Err(error.into()),
    };
    connection.close().await?;
    schema
}

async fn existing_in_sqlite(connection: &mut SqliteConnection) -> sqlx::Result<Vec<String>> {
    let question = existing_tables_question(&Sqlite);
    sqlx::query_scalar(AssertSqlSafe(question)).fetch_all(connection).await
}

/// Brings a file to this version, and says how it stood. An empty one gets its tables.
pub(super) async fn migrate_sqlite(path: &Path) -> Result<Schema, SchemaError> {
    let options = SqliteConnectOptions::new().filename(path).journal_mode(SqliteJournalMode::Wal);
    let mut connection = options.connect().await?;
    let schema = match existing_in_sqlite(&mut connection).await {
        Ok(taken) => bring(&Sqlite, taken, &mut connection, migrator(&Sqlite)).await,
        Err(error) => Err(error.into()),
    };
    connection.close().await?;
    schema
}

/// How the schema of a server stands.
pub(super) async fn look_at_server<C: Migrate + SqlConnection>(
    dialect: &'static dyn Dialect,
    connection: &mut C,
    migrator: &Migrator,
) -> Result<Schema, SchemaError> {
    let taken = existing_tables(dialect, connection).await?;
    check_schema(dialect, taken, connection, migrator).await
}

/// Migrates a schema to this version if it is older, and returns how it stood. A current schema is only read, since the user
/// may have no right to change it. Daemons that start at the same time take turns.
pub(super) async fn bring<C: Migrate>(
    dialect: &dyn Dialect,
    taken: Vec<String>,
    connection: &mut C,
    mut migrator: Migrator,
) -> Result<Schema, SchemaError> {
    let schema = check_schema(dialect, taken, connection, &migrator).await?;
    if schema.is_current() {
        return Ok(schema);
    }
    connection.lock().await?;
    migrator.set_locking(false);
    let schema = look(dialect, connection, &migrator).await;
    let brought = match schema {
        Ok(schema) => {
            let done = migrator.run_direct(None, connection, false).await;
            done.map(|()| schema).map_err(|error| refused(dialect, schema, error))
        }
        error => error,
    };
    connection.unlock().await?;
    brought
}
