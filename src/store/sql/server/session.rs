//! What a PostgreSQL session must be, checked at a start before anything is written: one of its own,
//! of a database that keeps any text, on a server that takes writes.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection, Row as _};

use crate::store::StoreError;
use crate::store::sql::error_text::{refuse, unreachable};
use crate::store::sql::url::StoreUrl;

/// How long the check may take: a pooler lets a client wait when all of its connections are taken.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);
/// Encodings that keep any text: the second one keeps bytes as they are.
const ENCODINGS: [&str; 2] = ["UTF8", "SQL_ASCII"];
/// What is asked, as plain text: a pooler may not pass on a prepared statement.
const STATE: &str = "select pg_backend_pid()::text, current_setting('server_encoding'), \
     current_setting('transaction_read_only')";

/// The answer to [`STATE`].
struct SessionState {
    /// The server's process that has answered.
    process: String,
    encoding: String,
    is_read_only: bool,
}

async fn state(connection: &mut PgConnection) -> Result<SessionState, sqlx::Error> {
    let row = sqlx::raw_sql(STATE).fetch_one(connection).await?;
    let read_only: String = row.try_get(2)?;
    Ok(SessionState {
        process: row.try_get(0)?,
        encoding: row.try_get(1)?,
        is_read_only: read_only == "on",
    })
}

/// Refuses a session that the store cannot use. A server that takes no writes, as during a failover, is waited for.
pub(super) async fn check_postgres(
    connection: &mut PgConnection,
    options: &PgConnectOptions,
    place: &StoreUrl,
) -> Result<(), StoreError> {
    let look = async {
        let state = state(connection).await?;
        Ok((is_shared(connection, &state.process, options).await?, state))
    };
    let looked = tokio::time::timeout(CHECK_TIMEOUT, look).await;
    let no_answer =
        || StoreError::Unavailable(format!("{place}: no answer within {CHECK_TIMEOUT:?}"));
    let (is_shared, state) =
        looked.map_err(|_| no_answer())?.map_err(|error| unreachable(place, &error))?;
    if is_shared {
        return Err(refuse(
            place,
            "a connection pooler shares the session between transactions, but prepared statements and \
             notifications need a session of their own: set its pool_mode to session, or connect to the \
             server itself",
        ));
    }
    if !ENCODINGS.contains(&state.encoding.as_str()) {
        let encoding = state.encoding;
        let message = format!("the database has the encoding {encoding}, and must have UTF8");
        return Err(refuse(place, &message));
    }
    if state.is_read_only {
        return Err(StoreError::Unavailable(format!("{place}: the server takes no writes now")));
    }
    Ok(())
}

/// Whether something gives each transaction any session that is free. Then a second client gets the session of the
/// first one, which it has not let go of; or the first one gets another one, because the second one has its own.
async fn is_shared(
    first: &mut PgConnection,
    process: &str,
    options: &PgConnectOptions,
) -> Result<bool, sqlx::Error> {
    let mut second = PgConnection::connect_with(options).await?;
    // The transaction keeps the session while the first one is asked again.
    sqlx::raw_sql("begin").execute(&mut second).await?;
    let is_shared =
        state(&mut second).await?.process == process || state(first).await?.process != process;
    sqlx::raw_sql("rollback").execute(&mut second).await?;
    second.close().await?;
    Ok(is_shared)
}
