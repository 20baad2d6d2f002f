//! Connecting to a database server at a start: a first try that says why it fails, a look at what the session and the
//! schema are, and then the pools.

use sqlx::Connection as _;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlPool, MySqlPoolOptions};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};

use super::session;
use crate::store::StoreError;
use crate::store::sql::error_text::{CONNECT_TIMEOUT, refuse, unreachable};
use crate::store::sql::migrate::{self, Schema, SchemaError};
use crate::store::sql::url::StoreUrl;

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

/// The pools of a server. Clones share them.
#[derive(Debug, Clone)]
pub(crate) enum ServerPools {
    Postgres { core: PgPool, readers: PgPool },
    MySql { core: MySqlPool, readers: MySqlPool },
}

/// What is set on the core's MySQL session.
const MYSQL_CORE: [&str; 2] = [MYSQL_ISOLATION, MYSQL_SESSION];

/// Connects once. The error is the server's own, where a pool would only say that it has waited.
async fn attempt<T>(
    place: &StoreUrl,
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
    place: &StoreUrl,
) -> Result<PgConnection, StoreError> {
    attempt(place, PgConnection::connect_with(options)).await
}

async fn attempt_mysql(
    options: &MySqlConnectOptions,
    place: &StoreUrl,
) -> Result<MySqlConnection, StoreError> {
    let connecting = async {
        let mut connection = MySqlConnection::connect_with(options).await?;
        set(&mut connection, &MYSQL_CORE).await?;
        Ok(connection)
    };
    attempt(place, connecting).await
}

/// Finds out whether the server of a place takes a connection, and changes nothing. A file is always there.
pub(crate) async fn reach(place: &StoreUrl) -> Result<(), StoreError> {
    let closed = match place {
        StoreUrl::Sqlite(_) => return Ok(()),
        StoreUrl::Postgres(options, _) => {
            attempt_postgres(&settled(options), place).await?.close().await
        }
        StoreUrl::MySql(options, _) => attempt_mysql(options, place).await?.close().await,
    };
    closed.map_err(|error| unreachable(place, &error))
}

/// What is to be done with a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SchemaAction {
    Look,
    Bring,
}

/// Looks at the schema of a server, or brings it to this version; says how it stood.
pub(crate) async fn schema(place: &StoreUrl, task: SchemaAction) -> Result<Schema, StoreError> {
    let done: Result<Schema, SchemaError> = match place {
        StoreUrl::Sqlite(_) => return Err(refuse(place, "it is a file")),
        StoreUrl::Postgres(options, _) => {
            let options = settled(options);
            let mut connection = attempt_postgres(&options, place).await?;
            session::check_postgres(&mut connection, &options, place).await?;
            match task {
                SchemaAction::Look => migrate::look_at_postgres(&mut connection).await,
                SchemaAction::Bring => migrate::postgres(&mut connection).await,
            }
        }
        StoreUrl::MySql(options, _) => {
            let mut connection = attempt_mysql(options, place).await?;
            match task {
                SchemaAction::Look => migrate::look_at_mysql(&mut connection).await,
                SchemaAction::Bring => migrate::mysql(&mut connection).await,
            }
        }
    };
    done.map_err(|error| error.at(place))
}

/// Connects to a server, and brings its schema to this version.
pub(crate) async fn open(place: &StoreUrl) -> Result<ServerPools, StoreError> {
    schema(place, SchemaAction::Bring).await?;
    match place {
        StoreUrl::Sqlite(_) => Err(refuse(place, "it is a file")),
        StoreUrl::Postgres(options, _) => postgres(&settled(options), place).await,
        StoreUrl::MySql(options, _) => mysql(options, place).await,
    }
}

/// The options of every connection. A connection pooler refuses a setting that it does not know, and nothing here is
/// read as a float.
fn settled(options: &PgConnectOptions) -> PgConnectOptions {
    options.clone().application_name("punctual").extra_float_digits(None)
}

async fn postgres(options: &PgConnectOptions, place: &StoreUrl) -> Result<ServerPools, StoreError> {
    let pool = || PgPoolOptions::new().acquire_timeout(CONNECT_TIMEOUT);
    // The core finds out by itself that its connection is gone, and tries again.
    let core = pool().max_connections(1).idle_timeout(None).max_lifetime(None);
    let core = core.after_connect(|connection, _| {
        Box::pin(async { sqlx::query(POSTGRES_SESSION).execute(connection).await.map(drop) })
    });
    let core = core.test_before_acquire(false).connect_with(options.clone()).await;
    let core = core.map_err(|error| unreachable(place, &error))?;
    let readers = pool().max_connections(READERS).connect_lazy_with(options.clone());
    Ok(ServerPools::Postgres { core, readers })
}

async fn mysql(options: &MySqlConnectOptions, place: &StoreUrl) -> Result<ServerPools, StoreError> {
    let pool = |settings: &'static [&str]| {
        let pool = MySqlPoolOptions::new().acquire_timeout(CONNECT_TIMEOUT);
        pool.after_connect(|connection, _| Box::pin(set(connection, settings)))
    };
    let core = pool(&MYSQL_CORE);
    let core = core.max_connections(1).idle_timeout(None).max_lifetime(None);
    let core = core.test_before_acquire(false).connect_with(options.clone()).await;
    let core = core.map_err(|error| unreachable(place, &error))?;
    let readers = pool(&[MYSQL_ISOLATION]).max_connections(READERS);
    Ok(ServerPools::MySql { core, readers: readers.connect_lazy_with(options.clone()) })
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
