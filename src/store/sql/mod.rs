//! The SQL store: SQLite, PostgreSQL, MySQL and MariaDB. All SQL of jobs and runs is in this folder. No statement asks the
//! database for the time or for a decision.
//!
//! - `tables` describes each table: one list of columns, from which `table` derives statements, parameters and rows.
//!   `value` and `row_reader` are what goes into a statement and what comes out of a row.
//! - `changes` says how each change is written, `commit` writes them; `store` and `archive` are the two traits.
//! - `dialect` has one file for each kind of database, with everything that differs between them.
//! - `url` names a database. `sqlite` speaks to a file, `server` to a database server. `migrate` brings the schema of
//!   either to this version. `error_text` says why a database cannot be used.

mod archive;
mod changes;
mod commit;
mod dialect;
mod error_text;
mod lists;
mod migrate;
mod query;
mod row_reader;
mod server;
mod sqlite;
mod store;
mod table;
mod tables;
mod url;
mod value;

use std::path::Path;
use std::sync::Arc;

use super::StoreError;
use changes::StatementTexts;
use dialect::Dialect;
use dialect::sqlite::Sqlite;
use error_text::ErrorContext;
use query::Query;
use server::{OpenServer, SchemaAction};
use sqlite::SqliteDatabase;
use table::SqlTable;
use value::SqlRow;

pub use migrate::Schema;
pub use url::StoreUrl;

/// Jobs and ledger in a SQL database. Clones share it.
#[derive(Debug, Clone)]
pub struct SqlStore {
    backend: Arc<Backend>,
    texts: Arc<StatementTexts>,
}

#[derive(Debug)]
enum Backend {
    Sqlite(SqliteDatabase),
    Server(Box<dyn OpenServer>),
}

/// Finds out whether the database of a URL can be connected to, and changes nothing. A file is always there. Cancel-safe,
/// unlike [`SqlStore::open`].
pub async fn reach(url: &StoreUrl) -> Result<(), StoreError> {
    match url {
        StoreUrl::Sqlite(_) => Ok(()),
        StoreUrl::Server(server) => server.0.reach().await,
    }
}

/// How the schema of a database stands. Nothing is changed.
pub async fn schema(url: &StoreUrl) -> Result<Schema, StoreError> {
    match url {
        StoreUrl::Sqlite(path) => {
            let context =
                ErrorContext { url: url.to_string(), dialect: &Sqlite, is_at_socket: false };
            migrate::look_at_sqlite(path).await.map_err(|error| error.at(&context))
        }
        StoreUrl::Server(server) => server.0.schema(SchemaAction::Look).await,
    }
}

/// Creates the tables of a database, or brings them to this version; says how they stood. A file that a daemon holds is
/// refused.
pub async fn migrate(url: &StoreUrl) -> Result<Schema, StoreError> {
    match url {
        StoreUrl::Sqlite(path) => SqliteDatabase::migrate(path).await,
        StoreUrl::Server(server) => server.0.schema(SchemaAction::Migrate).await,
    }
}

impl SqlStore {
    /// Opens a store, creating and migrating its tables where needed. A file that another daemon holds is refused.
    pub async fn open(url: &StoreUrl) -> Result<Self, StoreError> {
        let (backend, dialect): (Backend, &'static dyn Dialect) = match url {
            StoreUrl::Sqlite(path) => (Backend::Sqlite(SqliteDatabase::open(path).await?), &Sqlite),
            StoreUrl::Server(server) => {
                (Backend::Server(server.0.open().await?), server.0.dialect())
            }
        };
        Ok(Self { backend: Arc::new(backend), texts: Arc::new(StatementTexts::new(dialect)) })
    }

    /// Opens a database file.
    pub async fn open_file(path: &Path) -> Result<Self, StoreError> {
        Self::open(&StoreUrl::Sqlite(path.to_owned())).await
    }

    /// Closes the connections; a SQLite WAL is folded into its file. An error if what was written last may be lost,
    /// because the file was removed or replaced.
    pub async fn close(&self) -> Result<(), StoreError> {
        match self.backend.as_ref() {
            Backend::Sqlite(file) => file.close(),
            Backend::Server(server) => {
                server.close().await;
                Ok(())
            }
        }
    }

    /// A statement that begins with this text.
    fn query(&self, text: impl Into<String>) -> Query {
        Query::new(self.texts.dialect, text)
    }

    /// Reads these columns of a table; conditions follow, each with its `and`.
    fn select(&self, columns: &str, table: &str) -> Query {
        self.query(format!("select {columns} from {table} where true"))
    }

    /// Reads all columns of a table.
    fn select_all<T, D>(&self, table: &SqlTable<T, D>) -> Query {
        self.select(table.select_list(), table.name)
    }

    /// Reads rows as the core needs them: what was committed last is seen.
    async fn read_newest(&self, query: Query) -> Result<Vec<SqlRow>, StoreError> {
        match self.backend.as_ref() {
            Backend::Sqlite(file) => file.read_newest(&query),
            Backend::Server(server) => server.read_newest(query).await,
        }
    }

    /// Reads rows without disturbing the core.
    async fn read(&self, query: Query) -> Result<Vec<SqlRow>, StoreError> {
        match self.backend.as_ref() {
            Backend::Sqlite(file) => file.read(query).await,
            Backend::Server(server) => server.read(query).await,
        }
    }
}
