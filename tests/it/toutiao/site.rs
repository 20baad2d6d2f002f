//! The application in a temporary directory, with a clock that is moved by hand, and the rows of
//! its tables seen from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use punctual::clock::{Clock, SystemClock, Timestamp};
use punctual::task::builtin::{Call, Registry, TaskError};
use punctual::task::context::Context;
use punctual::toutiao::{Toutiao, ToutiaoSettings};
use serde_json::Value;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use tokio::task::JoinHandle;

/// A clock that stands still until it is moved: microseconds since 1970.
#[derive(Debug)]
pub(crate) struct HandClock(pub(crate) AtomicI64);

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_timestamp_micros(self.0.load(Ordering::SeqCst)).unwrap()
    }
}

/// The application, opened.
pub(crate) struct Site {
    pub(crate) toutiao: Toutiao,
    pub(crate) clock: Arc<HandClock>,
    /// The tables, over a pool of the test's own.
    pub(crate) rows: SqlitePool,
    _directory: tempfile::TempDir,
}

impl Site {
    pub(crate) async fn open(settings: ToutiaoSettings) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(HandClock(AtomicI64::new(1_800_000_000_000_000)));
        let given = Arc::<HandClock>::clone(&clock);
        let toutiao = Toutiao::open(settings, directory.path(), given).await.unwrap();
        let options = SqliteConnectOptions::new().filename(directory.path().join("toutiao.db"));
        let rows = SqlitePool::connect_with(options).await.unwrap();
        Self { toutiao, clock, rows, _directory: directory }
    }

    /// Runs a builtin as an executor does: by name, on a thread that may block.
    pub(crate) async fn run(&self, name: &'static str, args: Value) -> Result<Value, TaskError> {
        self.start(name, &args, Arc::default()).await.unwrap()
    }

    /// Starts a builtin. It is cancelled through its context, and writes its output there.
    pub(crate) fn start(
        &self,
        name: &'static str,
        args: &Value,
        context: Arc<Context>,
    ) -> JoinHandle<Result<Value, TaskError>> {
        let mut registry = Registry::default();
        self.toutiao.register(&mut registry, &tokio::runtime::Handle::current());
        let call = Call {
            run_id: "run".to_owned(),
            job_id: "job".to_owned(),
            attempt: 1,
            scheduled_at: None,
            args: args.as_object().unwrap().clone(),
            event: None,
            context,
            clock: Arc::new(SystemClock),
        };
        tokio::task::spawn_blocking(move || registry.run(name, &call))
    }

    /// Changes the tables behind the application's back.
    pub(crate) async fn sql(&self, statement: &'static str) {
        sqlx::raw_sql(statement).execute(&self.rows).await.unwrap();
    }
}
