//! A database server: PostgreSQL, or MySQL and MariaDB. One connection is the core's, so that it
//! never waits behind readers; the others read.

use std::time::Duration;

use sqlx::mysql::{MySqlPool, MySqlPoolOptions, MySqlRow};
use sqlx::postgres::{PgListener, PgPool, PgPoolOptions, PgRow};
use sqlx::{AssertSqlSafe, Column, Row as _, TypeInfo, ValueRef};
use tokio::sync::Mutex;

use super::dialect::Query;
use super::migrate;
use super::place::StorePlace;
use super::value::{Cell, Row, Value};
use crate::store::StoreError;

/// Connections for readers, and the one that listens.
const READERS: u32 = 5;
/// How long a connection is waited for: a server that is away is tried again by the core.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an answer is waited for, so that a server that has vanished without a word is noticed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// The channel on which a node tells the others that there is something to see.
const CHANNEL: &str = "punctual";

/// A statement that writes, and what it must have done.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) query: Query,
    /// Rows that it must have written, if that matters.
    pub(super) rows: Option<u64>,
    /// What was changed by someone else if it did not.
    pub(super) conflict: String,
}

/// The pools of a server.
#[derive(Debug)]
pub(super) enum Pools {
    Postgres { core: PgPool, readers: PgPool },
    MySql { core: MySqlPool, readers: MySqlPool },
}

/// A server.
#[derive(Debug)]
pub(super) struct Server {
    pools: Pools,
    /// Tells the others' hints from its own.
    id: String,
    listener: Mutex<Option<PgListener>>,
}

/// Runs an expression on the pool of whichever server it is.
macro_rules! on_pool {
    ($pools:expr, $which:ident, |$pool:ident| $body:expr) => {
        match $pools {
            Pools::Postgres { $which: $pool, .. } => $body,
            Pools::MySql { $which: $pool, .. } => $body,
        }
    };
}

/// A statement of sqlx with its parameters.
macro_rules! prepared {
    ($query:expr) => {{
        let Query { text, values, .. } = $query;
        values.into_iter().fold(sqlx::query(AssertSqlSafe(text)), |query, value| match value {
            Value::Integer(number) => query.bind(number),
            Value::Text(text) => query.bind(text),
        })
    }};
}

impl Server {
    /// Connects, and brings the schema to this version.
    pub(super) async fn open(place: &StorePlace) -> Result<Self, StoreError> {
        let unusable = |error: String| StoreError::Unusable(format!("{place}: {error}"));
        let failed = |error: sqlx::Error| unusable(error.to_string());
        let pools = match place {
            StorePlace::Postgres(options, _) => {
                let pool = || PgPoolOptions::new().acquire_timeout(CONNECT_TIMEOUT);
                let options = options.as_ref().clone().application_name("punctual");
                let core = pool()
                    .max_connections(1)
                    .idle_timeout(None)
                    .max_lifetime(None)
                    .test_before_acquire(false)
                    .connect_with(options.clone())
                    .await
                    .map_err(failed)?;
                migrate::postgres(&core).await.map_err(unusable)?;
                let readers = pool().max_connections(READERS).connect_lazy_with(options);
                Pools::Postgres { core, readers }
            }
            StorePlace::MySql(options, _) => {
                let pool = || {
                    MySqlPoolOptions::new().acquire_timeout(CONNECT_TIMEOUT).after_connect(
                        |connection, _| {
                            Box::pin(async move {
                                // What others have committed is seen by every statement, and no gaps are locked.
                                let sql = "set session transaction isolation level read committed";
                                sqlx::query(sql).execute(connection).await.map(drop)
                            })
                        },
                    )
                };
                let options = options.as_ref().clone();
                let core = pool()
                    .max_connections(1)
                    .idle_timeout(None)
                    .max_lifetime(None)
                    .test_before_acquire(false)
                    .connect_with(options.clone())
                    .await
                    .map_err(failed)?;
                migrate::mysql(&core).await.map_err(unusable)?;
                let readers = pool().max_connections(READERS).connect_lazy_with(options);
                Pools::MySql { core, readers }
            }
            StorePlace::Sqlite(_) => return Err(unusable("it is a file".to_owned())),
        };
        let id = uuid::Uuid::now_v7().to_string();
        Ok(Self { pools, id, listener: Mutex::default() })
    }

    /// Reads rows on the core's connection.
    pub(super) async fn read_newest(&self, query: Query) -> Result<Vec<Row>, StoreError> {
        in_time(async {
            on_pool!(&self.pools, core, |pool| {
                let rows = prepared!(query).fetch_all(pool).await.map_err(failure)?;
                rows.iter().map(Cells::row).collect()
            })
        })
        .await
    }

    /// Reads rows on a reader's connection.
    pub(super) async fn read(&self, query: Query) -> Result<Vec<Row>, StoreError> {
        in_time(async {
            on_pool!(&self.pools, readers, |pool| {
                let rows = prepared!(query).fetch_all(pool).await.map_err(failure)?;
                rows.iter().map(Cells::row).collect()
            })
        })
        .await
    }

    /// Reads rows, then writes what depends on them, in one transaction.
    pub(super) async fn read_and_write(
        &self,
        query: Query,
        writes: impl FnOnce(&[Vec<Cell>]) -> Vec<Write> + Send,
    ) -> Result<Vec<Row>, StoreError> {
        in_time(async {
            on_pool!(&self.pools, core, |pool| {
                let mut transaction = pool.begin().await.map_err(failure)?;
                let rows = prepared!(query).fetch_all(&mut *transaction).await.map_err(failure)?;
                let cells = rows.iter().map(Cells::cells).collect::<Result<Vec<_>, _>>()?;
                for Write { query, rows, conflict } in writes(&cells) {
                    let done =
                        prepared!(query).execute(&mut *transaction).await.map_err(failure)?;
                    check(done.rows_affected(), rows, conflict)?;
                }
                transaction.commit().await.map_err(failure)?;
                Ok(cells.into_iter().map(Row::new).collect())
            })
        })
        .await
    }

    /// Writes all or nothing.
    pub(super) async fn write(&self, mut writes: Vec<Write>) -> Result<(), StoreError> {
        in_time(async {
            on_pool!(&self.pools, core, |pool| {
                if writes.len() == 1
                    && let Some(Write { query, rows, conflict }) =
                        writes.pop_if(|write| write.rows.is_none_or(|rows| rows == 1))
                {
                    let done = prepared!(query).execute(pool).await;
                    let done = done.map_err(|error| taken(error, &conflict))?;
                    return check(done.rows_affected(), rows, conflict);
                }
                let mut transaction = pool.begin().await.map_err(failure)?;
                for Write { query, rows, conflict } in writes {
                    let done = prepared!(query).execute(&mut *transaction).await;
                    let done = done.map_err(|error| taken(error, &conflict))?;
                    check(done.rows_affected(), rows, conflict)?;
                }
                transaction.commit().await.map_err(failure)
            })
        })
        .await
    }

    /// A statement that tells the other nodes to look, once it is committed; none where there is no such thing.
    pub(super) fn hint(&self) -> Option<Write> {
        let Pools::Postgres { .. } = self.pools else { return None };
        let mut query = Query::new(super::dialect::Dialect::Postgres, "select pg_notify(");
        query.bind(CHANNEL).push(", ").bind(self.id.as_str()).push(")");
        Some(Write { query, rows: None, conflict: String::new() })
    }

    /// Returns when another node has hinted; never where there is no such thing. A lost hint only costs time.
    pub(super) async fn hinted(&self) -> Result<(), StoreError> {
        let Pools::Postgres { readers, .. } = &self.pools else {
            return std::future::pending().await;
        };
        let mut listener = self.listener.lock().await;
        loop {
            if listener.is_none() {
                let mut fresh = PgListener::connect_with(readers).await.map_err(failure)?;
                fresh.listen(CHANNEL).await.map_err(failure)?;
                *listener = Some(fresh);
            }
            let Some(known) = listener.as_mut() else { continue };
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

    /// Closes the connections.
    pub(super) async fn close(&self) {
        on_pool!(&self.pools, readers, |pool| pool.close().await);
        on_pool!(&self.pools, core, |pool| pool.close().await);
    }
}

/// Waits for an answer, but not for ever.
async fn in_time<T>(answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    tokio::time::timeout(ANSWER_TIMEOUT, answer).await.unwrap_or_else(|_| {
        Err(StoreError::Unavailable(format!("no answer within {ANSWER_TIMEOUT:?}")))
    })
}

fn check(done: u64, wanted: Option<u64>, conflict: String) -> Result<(), StoreError> {
    if wanted.is_some_and(|wanted| wanted != done) {
        return Err(StoreError::Conflict(conflict));
    }
    Ok(())
}

/// A write that failed: because a key is taken, or because the database is not there.
fn taken(error: sqlx::Error, conflict: &str) -> StoreError {
    if let sqlx::Error::Database(database) = &error
        && database.is_unique_violation()
    {
        return StoreError::Conflict(conflict.to_owned());
    }
    failure(error)
}

/// Codes of a transaction that was undone because another one was in its way: trying again helps.
const IN_THE_WAY: [&str; 2] = ["40001", "40P01"];

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn failure(error: sqlx::Error) -> StoreError {
    if let sqlx::Error::Database(database) = &error
        && database.code().is_some_and(|code| IN_THE_WAY.contains(&code.as_ref()))
    {
        return StoreError::Conflict("a row".to_owned());
    }
    StoreError::Unavailable(error.to_string())
}

/// A row of a server as cells.
trait Cells: sqlx::Row {
    fn cell(&self, column: usize) -> Result<Cell, sqlx::Error>;

    fn cells(&self) -> Result<Vec<Cell>, StoreError> {
        (0..self.len()).map(|column| self.cell(column).map_err(failure)).collect()
    }

    fn row(&self) -> Result<Row, StoreError> {
        self.cells().map(Row::new)
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
                Ok(Cell::Text(String::from_utf8_lossy(&bytes).into_owned()))
            }
            _ => self.try_get(column).map(Cell::Text),
        }
    }
}
