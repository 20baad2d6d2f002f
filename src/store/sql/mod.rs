//! The SQL store: SQLite, PostgreSQL, MySQL and MariaDB. Every statement stands in this folder
//! and asks the database neither for the time nor for a decision.
//!
//! `url` names a database. `sqlite` speaks to a file, `server` to a database server; `migrate` brings the schema of either
//! to this version; `error_text` says why a database cannot be used. `dialect` knows how the texts of statements differ.
//! `bind`, `row`, `row_reader` and `value` turn jobs and runs into columns and back. `changes` and `commit` write, `read`
//! reads, `lease` claims jobs and sends heartbeats.

mod bind;
mod changes;
mod commit;
mod dialect;
mod error_text;
mod lease;
mod migrate;
mod read;
mod row;
mod row_reader;
mod server;
mod sqlite;
mod url;
mod value;

use std::path::Path;
use std::sync::Arc;

use super::StoreError;
use changes::Statements;
use dialect::{Dialect, Query};
use server::Server;
use sqlite::Sqlite;
use value::SqlRow;

pub use migrate::Schema;
pub use url::StoreUrl;

/// Jobs and ledger in a SQL database. Clones share it.
#[derive(Debug, Clone)]
pub struct SqlStore {
    database: Arc<Backend>,
    statements: Arc<Statements>,
}

#[derive(Debug)]
enum Backend {
    Sqlite(Sqlite),
    Server(Server),
}

/// Finds out whether the database of a place can be connected to, and changes nothing. Unlike an opening, this may be
/// given up at any time.
pub async fn reach(place: &StoreUrl) -> Result<(), StoreError> {
    server::connect::reach(place).await
}

/// How the schema of a database stands. Nothing is changed.
pub async fn schema(place: &StoreUrl) -> Result<Schema, StoreError> {
    match place {
        StoreUrl::Sqlite(path) => {
            migrate::look_at_sqlite(path).await.map_err(|error| error.at(place))
        }
        StoreUrl::Postgres(..) | StoreUrl::MySql(..) => {
            server::connect::schema(place, server::connect::SchemaAction::Look).await
        }
    }
}

/// Creates the tables of a database, or brings them to this version; says how they stood. A file that a daemon holds is
/// refused.
pub async fn migrate(place: &StoreUrl) -> Result<Schema, StoreError> {
    match place {
        StoreUrl::Sqlite(path) => Sqlite::migrate(path).await,
        StoreUrl::Postgres(..) | StoreUrl::MySql(..) => {
            server::connect::schema(place, server::connect::SchemaAction::Bring).await
        }
    }
}

impl SqlStore {
    /// Opens a store, creating and migrating its tables where needed. A file that another daemon holds is refused.
    pub async fn open(place: &StoreUrl) -> Result<Self, StoreError> {
        let (database, dialect) = match place {
            StoreUrl::Sqlite(path) => (Backend::Sqlite(Sqlite::open(path).await?), Dialect::Sqlite),
            StoreUrl::Postgres(..) => {
                (Backend::Server(Server::open(place).await?), Dialect::Postgres)
            }
            StoreUrl::MySql(..) => (Backend::Server(Server::open(place).await?), Dialect::MySql),
        };
        Ok(Self { database: Arc::new(database), statements: Arc::new(Statements::new(dialect)) })
    }

    /// Opens a database file.
    pub async fn open_file(path: &Path) -> Result<Self, StoreError> {
        Self::open(&StoreUrl::Sqlite(path.to_owned())).await
    }

    /// Closes the connections; a SQLite WAL is folded into its file. An error if what was written last may be lost,
    /// because the file was removed or replaced.
    pub async fn close(&self) -> Result<(), StoreError> {
        match self.database.as_ref() {
            Backend::Sqlite(file) => file.close(),
            Backend::Server(server) => {
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
    async fn read_newest(&self, query: Query) -> Result<Vec<SqlRow>, StoreError> {
        match self.database.as_ref() {
            Backend::Sqlite(file) => file.read_newest(&query),
            Backend::Server(server) => server.read_newest(query).await,
        }
    }

    /// Reads rows without disturbing the core.
    async fn read(&self, query: Query) -> Result<Vec<SqlRow>, StoreError> {
        match self.database.as_ref() {
            Backend::Sqlite(file) => file.read(query).await,
            Backend::Server(server) => server.read(query).await,
        }
    }
}
