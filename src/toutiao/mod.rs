//! Toutiao: a news application, the first user of the scheduler.
//!
//! It provides builtins (`builtins`) that repair its statistics and expire its unpaid orders, and a small HTTP API
//! (`api`). Articles, users and orders are rows of an SQL database (`sql`); the statistics are counters (`counters`),
//! in Redis or in a file. To the scheduler it is an ordinary application: the API registers a job for each order through
//! the control socket, like any other client, and no other module uses its data.
//!
//! [`Toutiao`] opens nothing before it is needed. So neither a worker process that runs other builtins nor a check of a
//! configuration touches its files.

pub mod api;
mod builtins;
pub mod counters;
pub mod demo;
pub mod metric;
pub mod orders;
mod settings;
pub mod snowflake;
pub mod sql;
pub mod statistics;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::OnceCell;

pub use self::settings::{DEFAULT_DATABASE_URL, RedisSettings, ToutiaoSettings};
use crate::clock::{Clock, Timestamp};
use crate::invalid::Invalid;
use crate::task::builtin::Registry;
use counters::{CounterError, Counters};
use snowflake::Snowflake;
use sql::{DatabaseError, ToutiaoDatabase};

/// Why an operation of the application failed.
#[derive(Debug, thiserror::Error)]
pub enum ToutiaoError {
    /// The settings are wrong. Nothing works until they are corrected.
    #[error(transparent)]
    Settings(#[from] Invalid),
    /// The database failed. The operation may succeed later.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The counters failed. The operation may succeed later.
    #[error(transparent)]
    Counters(#[from] CounterError),
}

/// A handle to the application, which is cheap to clone.
#[derive(Debug, Clone)]
pub struct Toutiao {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: ToutiaoSettings,
    database_path: PathBuf,
    state_dir: PathBuf,
    clock: Arc<dyn Clock>,
    ids: Snowflake,
    database: OnceCell<ToutiaoDatabase>,
    counters: OnceCell<Counters>,
}

impl Toutiao {
    /// Checks the settings without opening anything. Relative paths are relative to `state_dir`.
    pub fn new(
        settings: ToutiaoSettings,
        state_dir: &Path,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ToutiaoError> {
        settings.check()?;
        let inner = Inner {
            database_path: settings.database_path(state_dir)?,
            state_dir: state_dir.to_owned(),
            ids: Snowflake::new(settings.worker_id, Arc::clone(&clock)),
            clock,
            settings,
            database: OnceCell::new(),
            counters: OnceCell::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Checks the settings, and opens and migrates the database and the counters.
    pub async fn open(
        settings: ToutiaoSettings,
        state_dir: &Path,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ToutiaoError> {
        let toutiao = Self::new(settings, state_dir, clock)?;
        toutiao.database().await?;
        toutiao.counters().await?;
        Ok(toutiao)
    }

    /// Adds the application's builtins. They open what they need when they first run. `runtime` drives their I/O; the
    /// builtins themselves run on threads that may block.
    pub fn register(&self, registry: &mut Registry, runtime: &Handle) {
        builtins::register(self, registry, runtime);
    }

    pub fn settings(&self) -> &ToutiaoSettings {
        &self.inner.settings
    }

    /// The database, opened at the first call.
    pub async fn database(&self) -> Result<&ToutiaoDatabase, DatabaseError> {
        self.inner
            .database
            .get_or_try_init(|| ToutiaoDatabase::open(&self.inner.database_path))
            .await
    }

    /// The counters, opened at the first call.
    pub async fn counters(&self) -> Result<&Counters, CounterError> {
        let open = || Counters::open(self.inner.settings.redis.as_ref(), &self.inner.state_dir);
        self.inner.counters.get_or_try_init(open).await
    }

    fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    fn new_id(&self) -> i64 {
        self.inner.ids.next()
    }
}
