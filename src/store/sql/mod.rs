//! The SQL store: SQLite, PostgreSQL, MySQL and MariaDB. Every statement stands in this folder
//! and asks the database neither for the time nor for a decision.
//!
//! `place` names a database; `sqlite` (with `file` and `readers`) and `server` (with `fault`) speak to one; `connect`
//! (with `session`, `migrate` and `reason`) reaches a server at a start and says why it cannot; `dialect` knows what differs in the text of statements; `value`, `bind`,
//! `columns` and `row` turn words into columns and back; `read`, `hold`, `statement` and `write` are the
//! statements.

mod bind;
mod columns;
mod connect;
mod dialect;
mod fault;
mod file;
mod hold;
mod migrate;
mod place;
mod read;
mod readers;
mod reason;
mod row;
mod server;
mod session;
mod sqlite;
mod statement;
mod value;
mod write;

use std::path::Path;
use std::sync::Arc;

use super::StoreError;
use dialect::{Dialect, Query};
use server::Server;
use sqlite::Sqlite;
use statement::Statements;
use value::Row;

pub use migrate::Schema;
pub use place::StorePlace;

/// Jobs and ledger in a SQL database. Clones share it.
#[derive(Debug, Clone)]
pub struct SqlStore {
    database: Arc<Database>,
    statements: Arc<Statements>,
}

#[derive(Debug)]
enum Database {
    Sqlite(Sqlite),
    Server(Server),
}

/// Finds out whether the database of a place can be connected to, and changes nothing. Unlike an opening, this may be
/// given up at any time.
pub async fn reach(place: &StorePlace) -> Result<(), StoreError> {
    connect::reach(place).await
}

/// How the schema of a database stands. Nothing is changed.
pub async fn schema(place: &StorePlace) -> Result<Schema, StoreError> {
    match place {
        StorePlace::Sqlite(path) => {
            migrate::look_at_sqlite(path).await.map_err(|error| error.at(place))
        }
        StorePlace::Postgres(..) | StorePlace::MySql(..) => {
            connect::schema(place, connect::Task::Look).await
        }
    }
}

/// Creates the tables of a database, or brings them to this version; says how they stood. A file that a daemon holds is
/// refused.
pub async fn migrate(place: &StorePlace) -> Result<Schema, StoreError> {
    match place {
        StorePlace::Sqlite(path) => Sqlite::migrate(path).await,
        StorePlace::Postgres(..) | StorePlace::MySql(..) => {
            connect::schema(place, connect::Task::Bring).await
        }
    }
}

impl SqlStore {
    /// Opens a store, creating and migrating its tables where needed. A file that another daemon holds is refused.
    pub async fn open(place: &StorePlace) -> Result<Self, StoreError> {
        let (database, dialect) = match place {
            StorePlace::Sqlite(path) => {
                (Database::Sqlite(Sqlite::open(path).await?), Dialect::Sqlite)
            }
            StorePlace::Postgres(..) => {
                (Database::Server(Server::open(place).await?), Dialect::Postgres)
            }
            StorePlace::MySql(..) => (Database::Server(Server::open(place).await?), Dialect::MySql),
        };
        Ok(Self { database: Arc::new(database), statements: Arc::new(Statements::new(dialect)) })
    }

    /// Opens a database file.
    pub async fn open_file(path: &Path) -> Result<Self, StoreError> {
        Self::open(&StorePlace::Sqlite(path.to_owned())).await
    }

    /// Closes the connections; a SQLite WAL is folded into its file. An error if what was written last may be lost,
    /// because the file was removed or replaced.
    pub async fn close(&self) -> Result<(), StoreError> {
        match self.database.as_ref() {
            Database::Sqlite(file) => file.close(),
            Database::Server(server) => {
                server.close().await;
                Ok(())
            }
        }
    }

    /// A statement that begins so.
    fn query(&self, text: impl Into<String>) -> Query {
        Query::new(self.statements.dialect, text)
    }

    /// Reads rows as the core needs them: what was committed last is seen.
    async fn read_newest(&self, query: Query) -> Result<Vec<Row>, StoreError> {
        match self.database.as_ref() {
            Database::Sqlite(file) => file.read_newest(&query),
            Database::Server(server) => server.read_newest(query).await,
        }
    }

    /// Reads rows without disturbing the core.
    async fn read(&self, query: Query) -> Result<Vec<Row>, StoreError> {
        match self.database.as_ref() {
            Database::Sqlite(file) => file.read(query).await,
            Database::Server(server) => server.read(query).await,
        }
    }
}
