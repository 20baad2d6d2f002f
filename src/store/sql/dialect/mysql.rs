//! `MySQL` and `MariaDB`.

use std::str::FromStr;

use futures_util::TryStreamExt as _;
use sqlx::error::DatabaseError;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::mysql::{MySqlConnectOptions, MySqlDatabaseError, MySqlPool, MySqlRow};
use sqlx::{AssertSqlSafe, Column as _, MySqlConnection, Row as _, TypeInfo as _, ValueRef as _};

use super::{Dialect, ErrorCodes, ErrorTables, JoinedUpdate, Update, placeholders};
use crate::invalid::Invalid;
use crate::store::sql::migrate::{self, Schema, SchemaError};
use crate::store::sql::query::Query;
use crate::store::sql::server::{HintListener, ServerDatabase, sql_connection};
use crate::store::sql::value::{Cell, SqlRow, SqlValue};

/// One statement each: this database cannot take back a change of the schema that failed half way.
const MIGRATIONS: &[(&str, &str)] = &[
    ("jobs", include_str!("../../../../migrations/mysql/0001_jobs.sql")),
    ("runs", include_str!("../../../../migrations/mysql/0002_runs.sql")),
    ("outputs", include_str!("../../../../migrations/mysql/0003_outputs.sql")),
    ("settings", include_str!("../../../../migrations/mysql/0004_settings.sql")),
    ("nodes", include_str!("../../../../migrations/mysql/0005_nodes.sql")),
    ("options", include_str!("../../../../migrations/mysql/0006_options.sql")),
    ("cost", include_str!("../../../../migrations/mysql/0007_cost.sql")),
    ("attempts", include_str!("../../../../migrations/mysql/0008_attempts.sql")),
    ("attempt outputs", include_str!("../../../../migrations/mysql/0009_attempt_outputs.sql")),
    ("drop outputs", include_str!("../../../../migrations/mysql/0010_drop_outputs.sql")),
    ("finished jobs", include_str!("../../../../migrations/mysql/0011_finished_jobs.sql")),
    ("crashes", include_str!("../../../../migrations/mysql/0012_crashes.sql")),
    ("sources", include_str!("../../../../migrations/mysql/0013_sources.sql")),
    ("requester", include_str!("../../../../migrations/mysql/0014_requester.sql")),
    ("failing", include_str!("../../../../migrations/mysql/0015_failing.sql")),
    ("policy", include_str!("../../../../migrations/mysql/0016_policy.sql")),
    ("fill policy", include_str!("../../../../migrations/mysql/0017_fill_policy.sql")),
    ("drop options", include_str!("../../../../migrations/mysql/0018_drop_options.sql")),
    ("pause", include_str!("../../../../migrations/mysql/0019_pause.sql")),
    ("trigger type", include_str!("../../../../migrations/mysql/0020_trigger_type.sql")),
    ("fill trigger type", include_str!("../../../../migrations/mysql/0021_fill_trigger_type.sql")),
];

/// These databases have one code of the standard for many errors ("HY000"), so their own numbers count.
const ERRORS: ErrorTables = ErrorTables {
    // Before the handshake they come without a code.
    passing: ErrorCodes {
        states: &[],
        numbers: &[
            1021, 1040, 1041, 1047, 1053, 1129, 1135, 1152, 1153, 1154, 1155, 1156, 1157, 1158,
            1159, 1160, 1161, 1203, 1205, 1213, 1226, 1290, 1792, 1836,
        ],
    },
    // A right on a database, a table, a column, an operation.
    denied: ErrorCodes { states: &[], numbers: &[1044, 1142, 1143, 1227] },
    // By number: a text that cannot be encoded, a packet that is too large, a constraint that is violated.
    refused_value: ErrorCodes {
        states: &["22", "23", "45", "54", "P0"],
        numbers: &[1366, 1153, 3819, 4025],
    },
    // Shutdown, read-only (three ways), connection killed, no member of its cluster.
    whole_server: ErrorCodes { states: &[], numbers: &[1053, 1290, 1792, 1836, 1927, 1047] },
    missing_table: ErrorCodes { states: &["42S02"], numbers: &[] },
};

/// Every statement of a transaction sees what others have committed, as in `PostgreSQL`, and no gaps are locked.
const ISOLATION: &str = "set session transaction isolation level read committed";
/// A node that is stopped in the middle of a transaction must not hold its rows for longer. `MySQL` has no limit for that:
/// there, a session ends that was idle for many times the interval of renewals.
const IDLE_LIMIT: &str =
    "set session wait_timeout = 30 /*M!100301 , idle_transaction_timeout = 2 */";

#[derive(Debug, Clone, Copy)]
pub(crate) struct MySql;

impl Dialect for MySql {
    fn migrations(&self) -> &'static [(&'static str, &'static str)] {
        MIGRATIONS
    }

    fn existing_tables(&self, names: &str) -> String {
        format!(
            "select cast(table_name as char) from information_schema.tables \
             where table_schema = database() and table_name in ({names}) order by table_name"
        )
    }

    fn errors(&self) -> &'static ErrorTables {
        &ERRORS
    }

    fn error_number(&self, error: &dyn DatabaseError) -> Option<u16> {
        error.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number)
    }

    fn error_text(&self, error: &dyn DatabaseError) -> String {
        error.to_string()
    }

    fn integer_type(&self) -> &'static str {
        "signed"
    }

    /// Bytes, so that the collation does not make "A" an "a".
    fn position_in(&self, column: &str) -> String {
        format!("instr(cast({column} as binary), ")
    }

    /// Read in any other order, every row that is due would be locked, and not only the earliest.
    fn claimed_jobs(&self) -> &'static str {
        "jobs force index (jobs_due)"
    }

    fn on_conflict(&self, _keys: &[&str], columns: &[&str]) -> String {
        let set: Vec<String> =
            columns.iter().map(|column| format!("{column} = values({column})")).collect();
        format!("on duplicate key update {}", set.join(", "))
    }

    fn update_rows(&self, update: &Update, rows: usize) -> String {
        let JoinedUpdate { names, matching, only } = update.joined();
        let table = update.table;
        let first: Vec<String> = names.iter().map(|name| format!("? as {name}")).collect();
        let values = placeholders(&|number| self.placeholder(number), 1, names.len());
        format!(
            "update {table} join (select {}{}) as new on {matching} set {} where true{only}",
            first.join(", "),
            format!(" union all select {values}").repeat(rows - 1),
            update.assignments(&format!("{table}."))
        )
    }
}

sql_connection!(MySql, MySqlConnection);

impl ServerDatabase for MySql {
    type Db = sqlx::MySql;
    type Connection = MySqlConnection;
    type Options = MySqlConnectOptions;
    type Listener = NoHints;

    const DIALECT: &'static Self = &Self;
    const SCHEMES: &'static [&'static str] = &["mysql", "mariadb"];
    const URL_SCHEME: Option<&'static str> = Some("mysql");
    const CORE_SESSION: &'static [&'static str] = &[ISOLATION, IDLE_LIMIT];
    const READER_SESSION: &'static [&'static str] = &[ISOLATION];
    const FIRST_SESSION: &'static [&'static str] = Self::CORE_SESSION;

    fn parse(url: &str) -> Result<MySqlConnectOptions, sqlx::Error> {
        MySqlConnectOptions::from_str(url)
    }

    fn check_options(options: &MySqlConnectOptions) -> Result<(), Invalid> {
        if options.get_database().is_none_or(str::is_empty) {
            let why = "must name a database, such as mysql://user@host/punctual";
            return Err(Invalid::new("url", why));
        }
        Ok(())
    }

    fn is_at_socket(options: &MySqlConnectOptions) -> bool {
        options.get_socket().is_some()
    }

    /// Nodes that start together take turns, by a lock of our own: the migrator waits for its lock for a number of seconds
    /// that MariaDB refuses, and then goes on without it.
    async fn migrate(
        connection: &mut MySqlConnection,
        mut migrator: Migrator,
    ) -> Result<Schema, SchemaError> {
        migrator.set_locking(false);
        let taken = migrate::existing_tables(&Self, connection).await?;
        let schema = migrate::check_schema(&Self, taken, connection, &migrator).await;
        // While another node migrates, a version may look applied by half.
        let may_be_under_way = matches!(schema, Ok(_) | Err(SchemaError::Dirty(_)));
        if schema.as_ref().is_ok_and(Schema::is_current) || !may_be_under_way {
            return schema;
        }
        let lock = "select get_lock(concat('punctual ', md5(database())), 60)";
        let taken: Option<i64> = sqlx::query_scalar(lock).fetch_one(&mut *connection).await?;
        if taken != Some(1) {
            return Err(SchemaError::Locked);
        }
        let schema = bring(connection, &migrator).await;
        let unlock = "do release_lock(concat('punctual ', md5(database())))";
        sqlx::query(unlock).execute(&mut *connection).await?;
        schema
    }

    async fn listen(_readers: &MySqlPool) -> Result<NoHints, sqlx::Error> {
        Ok(NoHints)
    }

    fn cell(row: &MySqlRow, column: usize) -> Result<Cell, sqlx::Error> {
        if row.try_get_raw(column)?.is_null() {
            return Ok(Cell::Null);
        }
        match row.column(column).type_info().name() {
            "BIGINT" => row.try_get(column).map(Cell::Integer),
            "VARBINARY" | "BLOB" | "LONGBLOB" => {
                let bytes: Vec<u8> = row.try_get(column)?;
                Ok(Cell::of_bytes(&bytes))
            }
            _ => row.try_get(column).map(Cell::Text),
        }
    }
}

async fn bring(
    connection: &mut MySqlConnection,
    migrator: &Migrator,
) -> Result<Schema, SchemaError> {
    let schema = migrate::look(&MySql, connection, migrator).await?;
    let Err(error) = migrator.run_direct(None, connection, false).await else { return Ok(schema) };
    if let MigrateError::ExecuteMigration(why, version) = &error
        && migrate::denial(&MySql, why).is_some()
    {
        // The migrator notes a version before it tries. This one was refused before anything was changed.
        let forget =
            format!("delete from {} where version = ? and success = false", migrate::TABLE);
        let query = sqlx::query(AssertSqlSafe(forget)).bind(version);
        query.execute(&mut *connection).await?;
    }
    Err(migrate::refused(&MySql, schema, error))
}

/// These databases have no notifications: the other nodes look by themselves.
#[derive(Debug)]
pub(crate) struct NoHints;

impl HintListener for NoHints {
    async fn next_sender(&mut self) -> Result<String, sqlx::Error> {
        std::future::pending().await
    }
}
