//! What an error of a database server means: for the change that has failed, for its connection, and for all connections.

use sqlx::error::DatabaseError;

use crate::store::StoreError;
use crate::store::sql::dialect::Dialect;
use crate::store::sql::error_text::{CONNECT_TIMEOUT, words};

/// Codes of a transaction that was rolled back because of a conflict with another one. Trying again helps.
const IN_THE_WAY: [&str; 2] = ["40001", "40P01"];
/// Classes of codes that are about what was written or about another transaction: data, constraints, rollbacks.
const OF_THE_CHANGE: [&str; 3] = ["22", "23", "40"];
/// Codes of a prepared statement that exists already, or does not exist: someone else has used the session.
const OF_A_SHARED_SESSION: [&str; 2] = ["42P05", "26000"];

/// The failure of work on a connection.
#[derive(Debug)]
pub(super) enum ServerError {
    /// The server has failed, or the network to it.
    Sql(sqlx::Error),
    /// The connection has not failed.
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

impl ServerError {
    /// The error of a write. A key that is taken is a conflict.
    pub(super) fn of_write(error: sqlx::Error, conflict: &str) -> Self {
        if error.as_database_error().is_some_and(DatabaseError::is_unique_violation) {
            return Self::Store(StoreError::Conflict(conflict.to_owned()));
        }
        Self::Sql(error)
    }

    /// What this means for the caller of the store.
    pub(super) fn into_store_error(self, dialect: &dyn Dialect) -> StoreError {
        match self {
            Self::Sql(error) => store_error(dialect, &error),
            Self::Store(error) => error,
        }
    }

    /// Whether another connection might not have this error.
    pub(super) fn may_be_of_the_connection(&self, dialect: &dyn Dialect) -> bool {
        let Self::Sql(error) = self else { return false };
        if is_of_a_value(dialect, error) {
            return false;
        }
        let code = error.as_database_error().and_then(DatabaseError::code);
        code.is_none_or(|code| !OF_THE_CHANGE.iter().any(|class| code.starts_with(class)))
    }

    /// Whether all connections may be affected: they lead to the same server, which may no longer be the one that takes
    /// writes.
    pub(super) fn is_of_the_server(&self, dialect: &dyn Dialect) -> bool {
        let Self::Sql(error) = self else { return false };
        let codes = &dialect.errors().whole_server;
        error.as_database_error().is_some_and(|error| dialect.is_one_of(error, codes))
    }
}

/// Whether the database refuses a value, and would refuse it again.
fn is_of_a_value(dialect: &dyn Dialect, error: &sqlx::Error) -> bool {
    match error.as_database_error() {
        Some(error) => dialect.is_one_of(error, &dialect.errors().refused_value),
        None => matches!(error, sqlx::Error::Encode(_)),
    }
}

/// What an error of sqlx means for the caller of the store.
pub(super) fn store_error(dialect: &dyn Dialect, error: &sqlx::Error) -> StoreError {
    let found = error.as_database_error();
    if found.is_some_and(|error| dialect.is_one_of(error, &dialect.errors().denied)) {
        return StoreError::Refused(words(dialect, error));
    }
    let code = found.and_then(DatabaseError::code);
    let is_one_of = |codes: &[&str]| code.as_deref().is_some_and(|code| codes.contains(&code));
    if is_one_of(&IN_THE_WAY) {
        return StoreError::Conflict("a row".to_owned());
    }
    if is_of_a_value(dialect, error) {
        return StoreError::Rejected(words(dialect, error));
    }
    if is_one_of(&OF_A_SHARED_SESSION) {
        let message = format!(
            "{} (is a connection pooler in its way that is not in session mode?)",
            words(dialect, error)
        );
        return StoreError::Unavailable(message);
    }
    if matches!(error, sqlx::Error::PoolTimedOut) {
        let message = format!("the database server cannot be reached within {CONNECT_TIMEOUT:?}");
        return StoreError::Unavailable(message);
    }
    StoreError::Unavailable(words(dialect, error))
}
