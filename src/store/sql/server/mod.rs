//! A database server: PostgreSQL, or MySQL and MariaDB. One connection is the core's, so that it
//! never waits behind readers; the others read.

pub(super) mod connect;
mod error;
mod session;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::mysql::MySqlRow;
use sqlx::postgres::{PgListener, PgRow};
use sqlx::{AssertSqlSafe, Column, Connection as _, Database, Pool, Row as _, TypeInfo, ValueRef};

use self::connect::ServerPools;
use self::error::{ServerError, failure};
use super::dialect::{Dialect, Query, Write};
use super::url::StoreUrl;
use super::value::{Cell, SqlRow, SqlValue};
use crate::store::StoreError;

/// How long an answer is waited for, so that a server that has vanished without a word is noticed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// The channel on which a node tells the others that there is something to see.
const CHANNEL: &str = "punctual";

/// A server.
#[derive(Debug)]
pub(super) struct Server {
    pools: Mutex<ServerPools>,
    /// Whether a fault has told that connections may lead to the wrong server, and they have not been renewed since.
    is_suspect: AtomicBool,
    /// Tells the others' hints from its own.
    id: String,
    listener: tokio::sync::Mutex<Option<PgListener>>,
}

/// Runs an expression on the pool of whichever server it is.
macro_rules! on_pool {
    ($pools:expr, $which:ident, |$pool:ident| $body:expr) => {
        match $pools {
            ServerPools::Postgres { $which: $pool, .. } => $body,
            ServerPools::MySql { $which: $pool, .. } => $body,
        }
    };
}

/// Runs an expression on a connection, and waits for its answer, but not for ever. A connection that has not answered
/// is closed: it would take its place in the pool until the server, or the network, gives it up. So is one whose fault
/// may lie in itself: the next try gets a new one.
macro_rules! on_connection {
    ($server:expr, $which:ident, |$connection:ident| $body:expr) => {
        on_pool!(&$server.pools(), $which, |pool| {
            let mut pooled = pool.acquire().await.map_err(failure)?;
            let answer = async {
                let $connection = &mut *pooled;
                $body
            };
            match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
                Ok(Ok(done)) => Ok(done),
                Ok(Err(fault)) => {
                    let fault: ServerError = fault;
                    if fault.may_be_of_the_connection() {
                        pooled.close_on_drop();
                    }
                    if fault.is_of_the_server() {
                        $server.is_suspect.store(true, Ordering::Relaxed);
                    }
                    Err(fault.into())
                }
                Err(_) => {
                    pooled.close_on_drop();
                    Err(StoreError::Unavailable(format!("no answer within {ANSWER_TIMEOUT:?}")))
                }
            }
        })
    };
}

/// A statement of sqlx with its parameters.
macro_rules! prepared {
    ($query:expr) => {{
        let Query { text, values, .. } = $query;
        values.into_iter().fold(sqlx::query(AssertSqlSafe(text)), |query, value| match value {
            SqlValue::Integer(number) => query.bind(number),
            SqlValue::Text(text) => query.bind(text),
        })
    }};
}

/// Reads rows, one after the other, so that no more of them are held than the query wants.
macro_rules! fetched {
    ($connection:expr, $query:expr) => {{
        let query = $query;
        let (mut found, mut bytes, bytes_max) = (Vec::new(), 0_usize, query.bytes_max);
        let mut rows = prepared!(query).fetch($connection);
        while bytes < bytes_max
            && let Some(row) = rows.try_next().await?
        {
            let row = row.row()?;
            bytes = bytes.saturating_add(row.bytes());
            found.push(row);
        }
        Ok(found)
    }};
}

/// Executes statements on a connection, until one has not done what it must.
macro_rules! written {
    ($connection:expr, $writes:expr) => {
        for Write { query, rows, conflict } in $writes {
            let done = prepared!(query).execute(&mut *$connection).await;
            let done = done.map_err(|error| ServerError::of_write(error, &conflict))?;
            check(done.rows_affected(), rows, conflict)?;
        }
    };
}

impl Server {
    /// Connects, and brings the schema to this version.
    pub(super) async fn open(place: &StoreUrl) -> Result<Self, StoreError> {
        let pools = connect::open(place).await?;
        let id = uuid::Uuid::now_v7().to_string();
        Ok(Self {
            pools: Mutex::new(pools),
            is_suspect: AtomicBool::new(false),
            id,
            listener: tokio::sync::Mutex::default(),
        })
    }

    fn pools(&self) -> ServerPools {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The core's answer. If it is the first good one after a fault of the server, readers and the one that listens
    /// connect again: what they are connected to may be the server that had the fault.
    fn renewing<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        if answer.is_ok() && self.is_suspect.swap(false, Ordering::Relaxed) {
            match &mut *self.pools.lock().unwrap_or_else(PoisonError::into_inner) {
                ServerPools::Postgres { readers, .. } => renew(readers),
                ServerPools::MySql { readers, .. } => renew(readers),
            }
        }
        answer
    }

    /// Reads rows on the core's connection.
    pub(super) async fn read_newest(&self, query: Query) -> Result<Vec<SqlRow>, StoreError> {
        self.renewing(on_connection!(self, core, |connection| fetched!(connection, query)))
    }

    /// Reads rows on a reader's connection.
    pub(super) async fn read(&self, query: Query) -> Result<Vec<SqlRow>, StoreError> {
        on_connection!(self, readers, |connection| fetched!(connection, query))
    }

    /// Reads rows, makes something of them, and writes what follows from that, in one transaction.
    pub(super) async fn read_and_write<T>(
        &self,
        query: Query,
        read: impl FnOnce(Vec<SqlRow>) -> Result<T, StoreError> + Send,
        writes: impl FnOnce(&T) -> Vec<Write> + Send,
    ) -> Result<T, StoreError> {
        self.renewing(on_connection!(self, core, |connection| {
            let mut transaction = connection.begin().await?;
            let rows: Result<Vec<SqlRow>, ServerError> = fetched!(&mut *transaction, query);
            let found = read(rows?)?;
            written!(transaction, writes(&found));
            transaction.commit().await?;
            Ok(found)
        }))
    }

    /// Writes all or nothing.
    pub(super) async fn write(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        let is_alone = matches!(writes.as_slice(), [write] if write.is_whole());
        self.renewing(on_connection!(self, core, |connection| {
            if is_alone {
                // One statement is a transaction of its own.
                written!(connection, writes);
                return Ok(());
            }
            let mut transaction = connection.begin().await?;
            written!(transaction, writes);
            Ok(transaction.commit().await?)
        }))
    }

    /// A statement that tells the other nodes to look, once it is committed; none where there is no such thing.
    pub(super) fn hint(&self) -> Option<Write> {
        let ServerPools::Postgres { .. } = self.pools() else { return None };
        let mut query = Query::new(Dialect::Postgres, "select pg_notify(");
        query.bind(CHANNEL).push(", ").bind(self.id.as_str()).push(")");
        Some(Write { query, rows: None, conflict: String::new() })
    }

    /// Returns when another node has hinted; never where there is no such thing. A lost hint only costs time.
    pub(super) async fn wait_for_hint(&self) -> Result<(), StoreError> {
        let mut listener = self.listener.lock().await;
        loop {
            let known = match &mut *listener {
                Some(known) => known,
                none => none.insert(self.listen().await?),
            };
            match known.recv().await {
                Ok(hint) if hint.payload() == self.id => {}
                Ok(_) => return Ok(()),
                Err(error) => {
                    *listener = None;
                    return Err(failure(error));
                }
            }
        }
    }

    async fn listen(&self) -> Result<PgListener, StoreError> {
        let ServerPools::Postgres { readers, .. } = self.pools() else {
            return std::future::pending().await;
        };
        let mut listener = PgListener::connect_with(&readers).await.map_err(failure)?;
        listener.listen(CHANNEL).await.map_err(failure)?;
        Ok(listener)
    }

    /// Closes the connections. The one that listens is given back first: a pool waits for all of its connections.
    pub(super) async fn close(&self) {
        drop(self.listener.lock().await.take());
        on_pool!(&self.pools(), readers, |pool| pool.close().await);
        on_pool!(&self.pools(), core, |pool| pool.close().await);
    }
}

/// Replaces a pool by a new one to the same place. Closing the old one wakes the tasks that wait for a connection of it.
fn renew<D: Database>(pool: &mut Pool<D>) {
    let options = pool.connect_options().as_ref().clone();
    let fresh = pool.options().clone().connect_lazy_with(options);
    drop(std::mem::replace(pool, fresh).close());
}

fn check(done: u64, wanted: Option<u64>, conflict: String) -> Result<(), ServerError> {
    if wanted.is_some_and(|wanted| wanted != done) {
        return Err(StoreError::Conflict(conflict).into());
    }
    Ok(())
}

/// A row of a server as cells.
trait Cells: sqlx::Row {
    fn cell(&self, column: usize) -> Result<Cell, sqlx::Error>;

    fn row(&self) -> Result<SqlRow, ServerError> {
        let cells = (0..self.len()).map(|column| self.cell(column));
        Ok(SqlRow::new(cells.collect::<Result<_, sqlx::Error>>()?))
    }
}

impl Cells for PgRow {
    fn cell(&self, column: usize) -> Result<Cell, sqlx::Error> {
        let value = self.try_get_raw(column)?;
        if value.is_null() {
            return Ok(Cell::Null);
        }
        match self.column(column).type_info().name() {
            "INT8" => self.try_get(column).map(Cell::Integer),
            _ => self.try_get(column).map(Cell::Text),
        }
    }
}

impl Cells for MySqlRow {
    fn cell(&self, column: usize) -> Result<Cell, sqlx::Error> {
        let value = self.try_get_raw(column)?;
        if value.is_null() {
            return Ok(Cell::Null);
        }
        match self.column(column).type_info().name() {
            "BIGINT" => self.try_get(column).map(Cell::Integer),
            "VARBINARY" | "BLOB" | "LONGBLOB" => {
                let bytes: Vec<u8> = self.try_get(column)?;
                Ok(Cell::of_bytes(&bytes))
            }
            _ => self.try_get(column).map(Cell::Text),
        }
    }
}
