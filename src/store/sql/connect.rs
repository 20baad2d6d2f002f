//! Connecting to a database server at a start: a first try that says why it fails, a look at what the session and the
//! schema are, and then the pools.

use sqlx::Connection as _;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlPoolOptions};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};

use super::migrate::{self, Schema, SchemaError};
use super::place::StorePlace;
use super::reason::{may_pass, words};
use super::server::{CONNECT_TIMEOUT, Pools};
use super::session;
use crate::store::StoreError;

/// Connections for readers, and the one that listens.
const READERS: u32 = 5;
/// The core's `PostgreSQL` session. A node that is stopped in the middle of a transaction must not hold its rows for
/// longer than this: the others wait for them, and lose their own leases.
const POSTGRES_SESSION: &str = "set idle_in_transaction_session_timeout = 2000";
/// The same for MariaDB. MySQL has no such limit: there, a session ends that was idle for many times a sign of life.
const MYSQL_SESSION: &str =
    "set session wait_timeout = 30 /*M!100301 , idle_transaction_timeout = 2 */";
/// Every statement of a transaction sees what others have committed, as in PostgreSQL, and no gaps are locked.
const MYSQL_ISOLATION: &str = "set session transaction isolation level read committed";

/// What is set on the core's MySQL session.
const MYSQL_CORE: [&str; 2] = [MYSQL_ISOLATION, MYSQL_SESSION];

/// An error that ends a start.
pub(super) fn refuse(place: &StorePlace, error: &str) -> StoreError {
    StoreError::Refused(format!("{place}: {error}"))
}

/// Turns a failed connection into an error: unavailable if it may succeed later, refused if it never will.
pub(super) fn unreachable(place: &StorePlace, error: &sqlx::Error) -> StoreError {
    let message = format!("{place}: {}", words(error));
    if may_pass(place, error) {
        return StoreError::Unavailable(message);
    }
    StoreError::Refused(message)
}

/// Connects once. The error is the server's own, where a pool would only say that it has waited.
async fn attempt<T>(
    place: &StorePlace,
    connecting: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, StoreError> {
    let Ok(connected) = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await else {
        let message = format!("{place}: no answer within {CONNECT_TIMEOUT:?}");
        return Err(StoreError::Unavailable(message));
    };
    connected.map_err(|error| unreachable(place, &error))
}

async fn attempt_postgres(
    options: &PgConnectOptions,
    place: &StorePlace,
) -> Result<PgConnection, StoreError> {
    attempt(place, PgConnection::connect_with(options)).await
}

async fn attempt_mysql(
    options: &MySqlConnectOptions,
    place: &StorePlace,
) -> Result<MySqlConnection, StoreError> {
    let connecting = async {
        let mut connection = MySqlConnection::connect_with(options).await?;
        set(&mut connection, &MYSQL_CORE).await?;
        Ok(connection)
    };
    attempt(place, connecting).await
}

/// Finds out whether the server of a place takes a connection, and changes nothing. A file is always there.
pub(super) async fn reach(place: &StorePlace) -> Result<(), StoreError> {
    let closed = match place {
        StorePlace::Sqlite(_) => return Ok(()),
        StorePlace::Postgres(options, _) => {
            attempt_postgres(&settled(options), place).await?.close().await
        }
        StorePlace::MySql(options, _) => attempt_mysql(options, place).await?.close().await,
    };
    closed.map_err(|error| unreachable(place, &error))
}

/// What is to be done with a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    Look,
    Bring,
}

/// Looks at the schema of a server, or brings it to this version; says how it stood.
pub(super) async fn schema(place: &StorePlace, task: Task) -> Result<Schema, StoreError> {
    let done: Result<Schema, SchemaError> = match place {
        StorePlace::Sqlite(_) => return Err(refuse(place, "it is a file")),
        StorePlace::Postgres(options, _) => {
            let options = settled(options);
            let mut connection = attempt_postgres(&options, place).await?;
            session::check_postgres(&mut connection, &options, place).await?;
            match task {
                Task::Look => migrate::look_at_postgres(&mut connection).await,
                Task::Bring => migrate::postgres(&mut connection).await,
            }
        }
        StorePlace::MySql(options, _) => {
            let mut connection = attempt_mysql(options, place).await?;
            match task {
                Task::Look => migrate::look_at_mysql(&mut connection).await,
                Task::Bring => migrate::mysql(&mut connection).await,
            }
        }
    };
    done.map_err(|error| error.at(place))
}

/// Connects to a server, and brings its schema to this version.
pub(super) async fn open(place: &StorePlace) -> Result<Pools, StoreError> {
    schema(place, Task::Bring).await?;
    match place {
        StorePlace::Sqlite(_) => Err(refuse(place, "it is a file")),
        StorePlace::Postgres(options, _) => postgres(&settled(options), place).await,
        StorePlace::MySql(options, _) => mysql(options, place).await,
    }
}

/// The options of every connection. A connection pooler refuses a setting that it does not know, and nothing here is
/// read as a float.
fn settled(options: &PgConnectOptions) -> PgConnectOptions {
    options.clone().application_name("punctual").extra_float_digits(None)
}

async fn postgres(options: &PgConnectOptions, place: &StorePlace) -> Result<Pools, StoreError> {
    let pool = || PgPoolOptions::new().acquire_timeout(CONNECT_TIMEOUT);
    // The core finds out by itself that its connection is gone, and tries again.
    let core = pool().max_connections(1).idle_timeout(None).max_lifetime(None);
    let core = core.after_connect(|connection, _| {
        Box::pin(async { sqlx::query(POSTGRES_SESSION).execute(connection).await.map(drop) })
    });
    let core = core.test_before_acquire(false).connect_with(options.clone()).await;
    let core = core.map_err(|error| unreachable(place, &error))?;
    let readers = pool().max_connections(READERS).connect_lazy_with(options.clone());
    Ok(Pools::Postgres { core, readers })
}

async fn mysql(options: &MySqlConnectOptions, place: &StorePlace) -> Result<Pools, StoreError> {
    let pool = |settings: &'static [&str]| {
        let pool = MySqlPoolOptions::new().acquire_timeout(CONNECT_TIMEOUT);
        pool.after_connect(|connection, _| Box::pin(set(connection, settings)))
    };
    let core = pool(&MYSQL_CORE);
    let core = core.max_connections(1).idle_timeout(None).max_lifetime(None);
    let core = core.test_before_acquire(false).connect_with(options.clone()).await;
    let core = core.map_err(|error| unreachable(place, &error))?;
    let readers = pool(&[MYSQL_ISOLATION]).max_connections(READERS);
    Ok(Pools::MySql { core, readers: readers.connect_lazy_with(options.clone()) })
}

async fn set(
    connection: &mut MySqlConnection,
    settings: &[&'static str],
) -> Result<(), sqlx::Error> {
    for setting in settings {
        sqlx::query(*setting).execute(&mut *connection).await?;
    }
    Ok(())
}
