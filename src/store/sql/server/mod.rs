//! A database server. One connection belongs to the scheduler, so that it never waits behind readers; the others read.
//!
//! [`ServerDatabase`] is what differs between servers in addition to their [`Dialect`]; the files of `dialect` implement it. The
//! rest of the store knows a server as a [`ServerUrl`] and, when it is open, as an [`OpenServer`].

mod connect;
mod error;

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sqlx::migrate::{Migrate, Migrator};
use sqlx::pool::PoolConnection;
use sqlx::{Connection, Database, Pool};

pub(super) use self::connect::{SchemaAction, ServerUrl, parse};
use self::error::{ServerError, store_error};
use super::dialect::Dialect;
use super::error_text::ErrorContext;
use super::migrate::{Schema, SchemaError};
use super::query::{Query, SqlConnection, Write};
use super::value::{Cell, SqlRow};
use crate::invalid::Invalid;
use crate::job::Job;
use crate::store::StoreError;

/// How long an answer is waited for, so that a server that has vanished without a word is noticed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// A future of a call to a server.
pub(super) type ServerFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a kind of server does in its own way, in addition to its [`Dialect`].
pub(super) trait ServerDatabase: Dialect + Sized + 'static {
    type Db: Database<Connection = Self::Connection>;
    type Connection: Connection<Database = Self::Db, Options = Self::Options>
        + SqlConnection
        + Migrate;
    type Options: sqlx::ConnectOptions<Connection = Self::Connection> + FromStr;
    type Listener: HintListener;

    const DIALECT: &'static Self;
    /// The schemes of its URLs.
    const SCHEMES: &'static [&'static str];
    /// The scheme that its driver reads, and that is shown; none if that is the given one.
    const URL_SCHEME: Option<&'static str> = None;
    /// What is set on the connection of the scheduler.
    const CORE_SESSION: &'static [&'static str];
    /// What is set on the connections of readers.
    const READER_SESSION: &'static [&'static str] = &[];
    /// What is set on the connection that checks the server and its schema at a start.
    const FIRST_SESSION: &'static [&'static str] = &[];

    /// Reads a URL.
    fn parse(url: &str) -> Result<Self::Options, sqlx::Error>;

    /// Refuses a URL that leaves something out.
    fn check_options(_options: &Self::Options) -> Result<(), Invalid> {
        Ok(())
    }

    /// Whether the server is reached through a socket of this machine.
    fn is_at_socket(options: &Self::Options) -> bool;

    /// Refuses a session that the store cannot use.
    fn check_session(
        _connection: &mut Self::Connection,
        _options: &Self::Options,
        _context: &ErrorContext,
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        async { Ok(()) }
    }

    /// Brings the schema to this version, and says how it stood. Nodes that start together take turns.
    fn migrate(
        connection: &mut Self::Connection,
        migrator: Migrator,
    ) -> impl Future<Output = Result<Schema, SchemaError>> + Send;

    /// The statement that sends a hint to the other nodes when it is committed, if the server has notifications.
    fn hint(_sender: &str) -> Option<Query> {
        None
    }

    /// Begins to receive hints.
    fn listen(
        readers: &Pool<Self::Db>,
    ) -> impl Future<Output = Result<Self::Listener, sqlx::Error>> + Send;

    /// A value of a row.
    fn cell(row: &<Self::Db as Database>::Row, column: usize) -> Result<Cell, sqlx::Error>;
}

/// Receives the hints of other nodes.
pub(super) trait HintListener: Debug + Send {
    /// Waits for the next hint, and says which node has sent it.
    fn next_sender(&mut self) -> impl Future<Output = Result<String, sqlx::Error>> + Send;
}

/// Implements [`SqlConnection`]. It is a macro, since the bounds that `sqlx` would need of a generic type fill a page.
macro_rules! sql_connection {
    ($database:ty, $connection:ty) => {
        fn prepared(
            query: Query,
        ) -> sqlx::query::Query<
            'static,
            <$database as ServerDatabase>::Db,
            <<$database as ServerDatabase>::Db as sqlx::Database>::Arguments,
        > {
            let Query { text, values, .. } = query;
            let prepared = sqlx::query(sqlx::AssertSqlSafe(text));
            values.into_iter().fold(prepared, |query, value| match value {
                SqlValue::Integer(number) => query.bind(number),
                SqlValue::Text(text) => query.bind(text),
            })
        }

        impl $crate::store::sql::query::SqlConnection for $connection {
            async fn execute_query(&mut self, query: Query) -> Result<u64, sqlx::Error> {
                Ok(prepared(query).execute(self).await?.rows_affected())
            }

            async fn fetch_rows(&mut self, query: Query) -> Result<Vec<SqlRow>, sqlx::Error> {
                let bytes_max = query.bytes_max;
                let (mut found, mut bytes) = (Vec::new(), 0_usize);
                let mut rows = prepared(query).fetch(self);
                while bytes < bytes_max
                    && let Some(row) = rows.try_next().await?
                {
                    let cells = (0..row.len()).map(|column| <$database>::cell(&row, column));
                    let row = SqlRow::new(cells.collect::<Result<_, sqlx::Error>>()?);
                    bytes = bytes.saturating_add(row.bytes());
                    found.push(row);
                }
                Ok(found)
            }

            async fn set(&mut self, setting: &'static str) -> Result<(), sqlx::Error> {
                sqlx::query(setting).execute(self).await.map(drop)
            }
        }
    };
}
pub(super) use sql_connection;

/// The connections of an open server. Clones share them.
#[derive(Debug)]
struct ServerPools<D: ServerDatabase> {
    core: Pool<D::Db>,
    readers: Pool<D::Db>,
}

impl<D: ServerDatabase> Clone for ServerPools<D> {
    fn clone(&self) -> Self {
        Self { core: self.core.clone(), readers: self.readers.clone() }
    }
}

/// An open server.
#[derive(Debug)]
struct Server<D: ServerDatabase> {
    pools: Mutex<ServerPools<D>>,
    /// Whether an error has said that connections may lead to the wrong server, and they have not been renewed since.
    is_suspect: AtomicBool,
    /// Tells the hints of other nodes from its own.
    id: String,
    listener: tokio::sync::Mutex<Option<D::Listener>>,
}

/// Makes jobs of claimed rows, and says what has to be written about them.
pub(super) type TakeJobs<'a> = &'a (dyn Fn(Vec<SqlRow>) -> (Vec<Job>, Vec<Write>) + Sync);

/// An open server, whatever its kind.
pub(super) trait OpenServer: Debug + Send + Sync {
    /// Reads rows on the scheduler's connection.
    fn read_newest(&self, query: Query) -> ServerFuture<'_, Result<Vec<SqlRow>, StoreError>>;

    /// Reads rows on a reader's connection.
    fn read(&self, query: Query) -> ServerFuture<'_, Result<Vec<SqlRow>, StoreError>>;

    /// Reads jobs, and writes that they are taken, in one transaction.
    fn claim<'a>(
        &'a self,
        query: Query,
        take: TakeJobs<'a>,
    ) -> ServerFuture<'a, Result<Vec<Job>, StoreError>>;

    /// Writes all or nothing.
    fn write(&self, writes: Vec<Write>) -> ServerFuture<'_, Result<(), StoreError>>;

    /// A statement that sends a hint to the other nodes when it is committed, if the server has notifications.
    fn hint(&self) -> Option<Write>;

    /// Returns when another node has sent a hint. A lost hint only costs time.
    fn wait_for_hint(&self) -> ServerFuture<'_, Result<(), StoreError>>;

    /// Closes the connections.
    fn close(&self) -> ServerFuture<'_, ()>;
}

impl<D: ServerDatabase> Server<D> {
    fn new(pools: ServerPools<D>) -> Self {
        Self {
            pools: Mutex::new(pools),
            is_suspect: AtomicBool::new(false),
            id: uuid::Uuid::now_v7().to_string(),
            listener: tokio::sync::Mutex::default(),
        }
    }

    fn pools(&self) -> ServerPools<D> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Closes a connection whose error may be its own, so that the next try gets a new one, and notes an error of the
    /// whole server.
    fn failed(&self, pooled: &mut PoolConnection<D::Db>, error: ServerError) -> StoreError {
        if error.may_be_of_the_connection(D::DIALECT) {
            pooled.close_on_drop();
        }
        if error.is_of_the_server(D::DIALECT) {
            self.is_suspect.store(true, Ordering::Relaxed);
        }
        error.into_store_error(D::DIALECT)
    }

    /// Returns an answer to the scheduler. If it is the first good one after an error of the whole server, readers and the
    /// listener connect again: what they are connected to may be the server that had the error.
    fn renewing<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        if answer.is_ok() && self.is_suspect.swap(false, Ordering::Relaxed) {
            renew(&mut self.pools.lock().unwrap_or_else(PoisonError::into_inner).readers);
        }
        answer
    }
}

/// Works on a connection of a pool, and waits for the answer, but not for ever. A connection that has not answered is
/// closed: it would take its place in the pool until the server, or the network, gives it up.
macro_rules! on_connection {
    ($server:expr, $pool:ident, |$connection:ident| $body:expr) => {{
        let pool = $server.pools().$pool;
        let mut pooled = pool.acquire().await.map_err(|error| store_error(D::DIALECT, &error))?;
        let answer = async {
            let $connection: &mut D::Connection = &mut pooled;
            $body
        };
        match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err($server.failed(&mut pooled, error)),
            Err(_) => {
                pooled.close_on_drop();
                Err(StoreError::Unavailable(format!("no answer within {ANSWER_TIMEOUT:?}")))
            }
        }
    }};
}

impl<D: ServerDatabase> OpenServer for Server<D> {
    fn read_newest(&self, query: Query) -> ServerFuture<'_, Result<Vec<SqlRow>, StoreError>> {
        Box::pin(async move {
            self.renewing(on_connection!(self, core, |connection| Ok(connection
                .fetch_rows(query)
                .await?)))
        })
    }

    fn read(&self, query: Query) -> ServerFuture<'_, Result<Vec<SqlRow>, StoreError>> {
        Box::pin(async move {
            on_connection!(self, readers, |connection| Ok(connection.fetch_rows(query).await?))
        })
    }

    fn claim<'a>(
        &'a self,
        query: Query,
        take: TakeJobs<'a>,
    ) -> ServerFuture<'a, Result<Vec<Job>, StoreError>> {
        Box::pin(async move {
            self.renewing(on_connection!(self, core, |connection| {
                let mut transaction = connection.begin().await?;
                let (jobs, writes) = take(transaction.fetch_rows(query).await?);
                write_all(&mut *transaction, writes).await?;
                transaction.commit().await?;
                Ok(jobs)
            }))
        })
    }

    fn write(&self, writes: Vec<Write>) -> ServerFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let is_alone = matches!(writes.as_slice(), [write] if write.is_whole());
            self.renewing(on_connection!(self, core, |connection| {
                if is_alone {
                    // One statement is a transaction of its own.
                    return write_all(connection, writes).await;
                }
                let mut transaction = connection.begin().await?;
                write_all(&mut *transaction, writes).await?;
                Ok(transaction.commit().await?)
            }))
        })
    }

    fn hint(&self) -> Option<Write> {
        D::hint(&self.id).map(Write::any)
    }

    fn wait_for_hint(&self) -> ServerFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let mut listener = self.listener.lock().await;
            let failed = |error| store_error(D::DIALECT, &error);
            loop {
                let known = match &mut *listener {
                    Some(known) => known,
                    none => none.insert(D::listen(&self.pools().readers).await.map_err(failed)?),
                };
                match known.next_sender().await {
                    Ok(sender) if sender == self.id => {}
                    Ok(_) => return Ok(()),
                    Err(error) => {
                        *listener = None;
                        return Err(failed(error));
                    }
                }
            }
        })
    }

    /// The listener's connection is given back first: a pool waits for all of its connections.
    fn close(&self) -> ServerFuture<'_, ()> {
        Box::pin(async move {
            drop(self.listener.lock().await.take());
            let pools = self.pools();
            pools.readers.close().await;
            pools.core.close().await;
        })
    }
}

/// Executes statements, until one has not done what it must.
async fn write_all<C: SqlConnection>(
    connection: &mut C,
    writes: Vec<Write>,
) -> Result<(), ServerError> {
    for Write { query, rows, conflict } in writes {
        let done = connection.execute_query(query).await;
        let done = done.map_err(|error| ServerError::of_write(error, &conflict))?;
        if rows.is_some_and(|rows| rows != done) {
            return Err(StoreError::Conflict(conflict).into());
        }
    }
    Ok(())
}

/// Replaces a pool by a new one to the same server. Closing the old one wakes the tasks that wait for a connection of it.
fn renew<D: Database>(pool: &mut Pool<D>) {
    let options = pool.connect_options().as_ref().clone();
    let fresh = pool.options().clone().connect_lazy_with(options);
    drop(std::mem::replace(pool, fresh).close());
}
