//! `PostgreSQL`.

use std::str::FromStr;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPool, PgRow};
use sqlx::{Column as _, Connection as _, PgConnection, Row as _, TypeInfo as _, ValueRef as _};

use super::{Dialect, ErrorCodes, ErrorTables};
use crate::store::StoreError;
use crate::store::sql::error_text::ErrorContext;
use crate::store::sql::migrate::{self, Schema, SchemaError};
use crate::store::sql::query::Query;
use crate::store::sql::server::{HintListener, ServerDatabase, sql_connection};
use crate::store::sql::value::{Cell, SqlRow, SqlValue};

const MIGRATIONS: &[(&str, &str)] = &[
    ("init", include_str!("../../../../migrations/postgres/0001_init.sql")),
    ("execution", include_str!("../../../../migrations/postgres/0002_execution.sql")),
    ("finished jobs", include_str!("../../../../migrations/postgres/0003_finished_jobs.sql")),
    ("crashes", include_str!("../../../../migrations/postgres/0004_crashes.sql")),
    ("sources", include_str!("../../../../migrations/postgres/0005_sources.sql")),
    ("requester", include_str!("../../../../migrations/postgres/0006_requester.sql")),
    ("failing", include_str!("../../../../migrations/postgres/0007_failing.sql")),
    ("policy", include_str!("../../../../migrations/postgres/0008_policy.sql")),
    ("pause", include_str!("../../../../migrations/postgres/0009_pause.sql")),
    ("lists", include_str!("../../../../migrations/postgres/0010_lists.sql")),
];

const ERRORS: ErrorTables = ErrorTables {
    passing: ErrorCodes {
        states: &["57", "53", "08", "25006", "55P03", "40", "58", "XX"],
        numbers: &[],
    },
    // A user who may not use a schema does not see it, either.
    denied: ErrorCodes { states: &["42501", "3F000"], numbers: &[] },
    // Data, constraints, exceptions of triggers and functions, limits.
    refused_value: ErrorCodes { states: &["22", "23", "45", "54", "P0"], numbers: &[] },
    whole_server: ErrorCodes { states: &["25006", "57P", "08"], numbers: &[] },
    missing_table: ErrorCodes { states: &["42P01"], numbers: &[] },
};

/// The channel on which a node sends hints to the others.
const CHANNEL: &str = "punctual";

#[derive(Debug, Clone, Copy)]
pub(crate) struct Postgres;

impl Dialect for Postgres {
    fn migrations(&self) -> &'static [(&'static str, &'static str)] {
        MIGRATIONS
    }

    /// Tables are created in the first schema of the search path.
    fn existing_tables(&self, names: &str) -> String {
        format!(
            "select relname::text from pg_class join pg_namespace on pg_namespace.oid = relnamespace \
             where nspname = current_schema() and relname in ({names}) order by relname"
        )
    }

    fn errors(&self) -> &'static ErrorTables {
        &ERRORS
    }

    fn placeholder(&self, number: usize) -> String {
        format!("${number}")
    }

    fn integer_type(&self) -> &'static str {
        "bigint"
    }

    fn position_in(&self, column: &str) -> String {
        format!("strpos({column}, ")
    }
}

sql_connection!(Postgres, PgConnection);

impl ServerDatabase for Postgres {
    type Db = sqlx::Postgres;
    type Connection = PgConnection;
    type Options = PgConnectOptions;
    type Listener = PgListener;

    const DIALECT: &'static Self = &Self;
    const SCHEMES: &'static [&'static str] = &["postgres", "postgresql"];

    /// A node that is stopped in the middle of a transaction must not hold its rows for longer than this: the others wait for
    /// them, and lose their own leases.
    const CORE_SESSION: &'static [&'static str] =
        &["set idle_in_transaction_session_timeout = 2000"];

    /// A connection pooler refuses a setting that it does not know, and nothing here is read as a float.
    fn parse(url: &str) -> Result<PgConnectOptions, sqlx::Error> {
        let options = PgConnectOptions::from_str(url)?;
        Ok(options.application_name("punctual").extra_float_digits(None))
    }

    fn is_at_socket(options: &PgConnectOptions) -> bool {
        options.get_socket().is_some() || options.get_host().starts_with('/')
    }

    async fn check_session(
        connection: &mut PgConnection,
        options: &PgConnectOptions,
        context: &ErrorContext,
    ) -> Result<(), StoreError> {
        check_session(connection, options, context).await
    }

    async fn migrate(
        connection: &mut PgConnection,
        migrator: Migrator,
    ) -> Result<Schema, SchemaError> {
        // For the lock that the migrator takes, and for tables that others work on.
        sqlx::query("set lock_timeout = '60s'").execute(&mut *connection).await?;
        let taken = migrate::existing_tables(&Self, connection).await?;
        migrate::bring(&Self, taken, connection, migrator).await
    }

    fn hint(id: &str) -> Option<Query> {
        let mut query = Query::new(&Self, "select pg_notify(");
        query.bind(CHANNEL).push(", ").bind(id).push(")");
        Some(query)
    }

    async fn listen(readers: &PgPool) -> Result<PgListener, sqlx::Error> {
        let mut listener = PgListener::connect_with(readers).await?;
        listener.listen(CHANNEL).await?;
        Ok(listener)
    }

    fn cell(row: &PgRow, column: usize) -> Result<Cell, sqlx::Error> {
        if row.try_get_raw(column)?.is_null() {
            return Ok(Cell::Null);
        }
        match row.column(column).type_info().name() {
            "INT8" => row.try_get(column).map(Cell::Integer),
            _ => row.try_get(column).map(Cell::Text),
        }
    }
}

impl HintListener for PgListener {
    async fn next_sender(&mut self) -> Result<String, sqlx::Error> {
        Ok(self.recv().await?.payload().to_owned())
    }
}

/// How long the check of a session may take: a pooler lets a client wait while all of its connections are taken.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);
/// Encodings that can keep any text; the second one keeps bytes as they are.
const ENCODINGS: [&str; 2] = ["UTF8", "SQL_ASCII"];
/// Asks for the state of the session, as plain text: a pooler may not pass on a prepared statement.
const STATE: &str = "select pg_backend_pid()::text, current_setting('server_encoding'), \
     current_setting('transaction_read_only')";

/// The answer to [`STATE`].
struct Session {
    /// The process of the server that has answered.
    process: String,
    encoding: String,
    is_read_only: bool,
}

async fn state(connection: &mut PgConnection) -> Result<Session, sqlx::Error> {
    let row = sqlx::raw_sql(STATE).fetch_one(connection).await?;
    let read_only: String = row.try_get(2)?;
    Ok(Session {
        process: row.try_get(0)?,
        encoding: row.try_get(1)?,
        is_read_only: read_only == "on",
    })
}

/// Refuses a session that the store cannot use: it must not be shared between transactions, and the database must keep any
/// text. A server that takes no writes, as during a failover, is waited for.
async fn check_session(
    connection: &mut PgConnection,
    options: &PgConnectOptions,
    context: &ErrorContext,
) -> Result<(), StoreError> {
    let look = async {
        let state = state(connection).await?;
        Ok((is_shared(connection, &state.process, options).await?, state))
    };
    let looked = tokio::time::timeout(CHECK_TIMEOUT, look).await;
    let no_answer = || context.unavailable(&format!("no answer within {CHECK_TIMEOUT:?}"));
    let (is_shared, state) =
        looked.map_err(|_| no_answer())?.map_err(|error| context.unreachable(&error))?;
    if is_shared {
        return Err(context.refuse(
            "a connection pooler shares the session between transactions, but prepared statements and \
             notifications need a session of their own: set its pool_mode to session, or connect to the \
             server itself",
        ));
    }
    if !ENCODINGS.contains(&state.encoding.as_str()) {
        let encoding = state.encoding;
        let message = format!("the database has the encoding {encoding}, and must have UTF8");
        return Err(context.refuse(&message));
    }
    if state.is_read_only {
        return Err(context.unavailable("the server takes no writes now"));
    }
    Ok(())
}

/// Whether a pooler gives each transaction any session that is free. Then a second client gets the session of the first
/// one, which has not closed it; or the first client gets another session, because the second one has taken its own.
async fn is_shared(
    first: &mut PgConnection,
    process: &str,
    options: &PgConnectOptions,
) -> Result<bool, sqlx::Error> {
    let mut second = PgConnection::connect_with(options).await?;
    // The transaction keeps the session while the first client is asked again.
    sqlx::raw_sql("begin").execute(&mut second).await?;
    let is_shared =
        state(&mut second).await?.process == process || state(first).await?.process != process;
    sqlx::raw_sql("rollback").execute(&mut second).await?;
    second.close().await?;
    Ok(is_shared)
}
