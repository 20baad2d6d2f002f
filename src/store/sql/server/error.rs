//! What a database server's error means: for the change that failed, for the connection that it came
//! on, and for all connections.

use sqlx::error::DatabaseError;
use sqlx::mysql::MySqlDatabaseError;

use crate::store::StoreError;
use crate::store::sql::error_text::{CONNECT_TIMEOUT, is_denied, words};

/// Codes of a transaction that was undone because another one was in its way: trying again helps.
const IN_THE_WAY: [&str; 2] = ["40001", "40P01"];
/// Classes of codes that are about what was written or about another transaction: data, constraints, rollbacks.
const OF_THE_CHANGE: [&str; 3] = ["22", "23", "40"];
/// Classes of codes of a value that the database refuses, and would refuse again: data, constraints, exceptions of
/// triggers and functions, limits.
const OF_A_VALUE: [&str; 5] = ["22", "23", "45", "54", "P0"];
/// The same of MySQL and MariaDB, which say "HY000" of them: a text that cannot be encoded, a packet that is too large,
/// a constraint that is violated.
const NUMBERS_OF_A_VALUE: [u16; 4] = [1366, 1153, 3819, 4025];
/// Codes, or how they begin, of a server that takes no writes, ends, or cannot be reached by what stands before it.
const OF_THE_SERVER: [&str; 3] = ["25006", "57P", "08"];
/// The same of MySQL and MariaDB, which have one code for many errors: shutdown, read-only (three ways), connection
/// killed, no member of its cluster.
const NUMBERS_OF_THE_SERVER: [u16; 6] = [1053, 1290, 1792, 1836, 1927, 1047];
/// Codes of a prepared statement that is there already, or is not there: someone else has used the session.
const OF_A_SHARED_SESSION: [&str; 2] = ["42P05", "26000"];

/// Why something on a connection was not done.
#[derive(Debug)]
pub(super) enum ServerError {
    /// The server, or the way to it, said so.
    Sql(sqlx::Error),
    /// It is no fault of the connection.
    Store(StoreError),
}

impl From<sqlx::Error> for ServerError {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StoreError> for ServerError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<ServerError> for StoreError {
    fn from(fault: ServerError) -> Self {
        match fault {
            ServerError::Sql(error) => failure(error),
            ServerError::Store(error) => error,
        }
    }
}

impl ServerError {
    /// A write that failed: because a key is taken, or because the database is not there.
    pub(super) fn of_write(error: sqlx::Error, conflict: &str) -> Self {
        if database(&error).is_some_and(DatabaseError::is_unique_violation) {
            return Self::Store(StoreError::Conflict(conflict.to_owned()));
        }
        Self::Sql(error)
    }

    /// Whether another connection might not have this fault.
    pub(super) fn may_be_of_the_connection(&self) -> bool {
        let Self::Sql(error) = self else { return false };
        if is_of_a_value(error) {
            return false;
        }
        let code = database(error).and_then(DatabaseError::code);
        code.is_none_or(|code| !OF_THE_CHANGE.iter().any(|class| code.starts_with(class)))
    }

    /// Whether connections that do not show this fault may have it: all of them lead to the same server, which may no
    /// longer be the right one.
    pub(super) fn is_of_the_server(&self) -> bool {
        let Self::Sql(error) = self else { return false };
        let Some(error) = database(error) else { return false };
        if let Some(error) = error.try_downcast_ref::<MySqlDatabaseError>() {
            return NUMBERS_OF_THE_SERVER.contains(&error.number());
        }
        error.code().is_some_and(|code| OF_THE_SERVER.iter().any(|start| code.starts_with(start)))
    }
}

fn database(error: &sqlx::Error) -> Option<&dyn DatabaseError> {
    error.as_database_error()
}

/// Whether the database refuses a value, and would refuse it again.
fn is_of_a_value(error: &sqlx::Error) -> bool {
    let Some(found) = database(error) else { return matches!(error, sqlx::Error::Encode(_)) };
    let mysql = found.try_downcast_ref::<MySqlDatabaseError>();
    let is_known = mysql.is_some_and(|error| NUMBERS_OF_A_VALUE.contains(&error.number()));
    let is_of = |code: &str| OF_A_VALUE.iter().any(|class| code.starts_with(class));
    is_known || found.code().is_some_and(|code| is_of(&code))
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
pub(super) fn failure(error: sqlx::Error) -> StoreError {
    if database(&error).is_some_and(is_denied) {
        return StoreError::Refused(words(&error));
    }
    let code = database(&error).and_then(DatabaseError::code);
    let is_one_of = |codes: &[&str]| code.as_deref().is_some_and(|code| codes.contains(&code));
    if is_one_of(&IN_THE_WAY) {
        return StoreError::Conflict("a row".to_owned());
    }
    if is_of_a_value(&error) {
        return StoreError::Rejected(words(&error));
    }
    if is_one_of(&OF_A_SHARED_SESSION) {
        let message = format!(
            "{} (is a connection pooler in its way that is not in session mode?)",
            words(&error)
        );
        return StoreError::Unavailable(message);
    }
    if matches!(error, sqlx::Error::PoolTimedOut) {
        let message = format!("the database server cannot be reached within {CONNECT_TIMEOUT:?}");
        return StoreError::Unavailable(message);
    }
    StoreError::Unavailable(words(&error))
}
