//! Where runs are executed: named pools with a fixed number of workers.
//!
//! A pool has hardly a queue. The scheduler counts its free workers and hands over no more runs than
//! that, but for very short ones; what waits, waits in the ledger, where it can be seen and outlives
//! a crash. An executor never touches the store: it reports a [`Completion`], and the scheduler writes.

mod command;
mod process;
mod started;
mod thread;
mod worker;

pub use worker::{WorkerProgram, serve as serve_worker};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::clock::{Clock, Timestamp};
use crate::job::{JobId, Task};
use crate::run::{Execution, Outcome, RunId};
use crate::task::builtin::Registry;
use crate::task::output::Tail;
use process::ProcessPool;
use started::Started;
use thread::ThreadPool;

/// Bytes of a builtin's result that the ledger keeps.
const RESULT_BYTES_MAX: usize = 64 * 1024;
/// Bytes of an error that the ledger keeps.
const ERROR_BYTES_MAX: usize = 8 * 1024;
/// Workers of one pool, at most: a thread or a process each.
pub const WORKERS_MAX: usize = 1000;
/// Runs that a pool of threads may be handed beyond its workers.
pub const AHEAD_MAX: usize = 500;
/// Why a run is to end at a stop.
const STOPPED: &str = "the daemon stops";
/// How long a stop waits for processes to go, beyond their own grace time.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// What a pool is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExecutorKind {
    /// Threads of the daemon; they run builtins.
    ThreadPool,
    /// Processes; they run commands, and builtins in worker processes.
    ProcessPool,
}

impl ExecutorKind {
    /// Whether a pool of this kind can run the task.
    pub fn runs(self, task: &Task) -> bool {
        match (self, task) {
            (_, Task::Builtin { .. }) | (Self::ProcessPool, Task::Command(_)) => true,
            (Self::ThreadPool, Task::Command(_)) | (_, Task::Unreadable(_)) => false,
        }
    }

    /// The kind's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::ThreadPool => "threadpool",
            Self::ProcessPool => "processpool",
        }
    }
}

/// A pool, as it is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolSettings {
    /// What it is made of.
    pub kind: ExecutorKind,
    /// Runs at the same time.
    pub max_workers: usize,
}

/// Runs that these pools may have been handed at a time.
pub fn handed_over_max(settings: &BTreeMap<String, PoolSettings>) -> usize {
    settings.values().map(|pool| pool.max_workers + AHEAD_MAX).sum()
}

/// A run, handed over to be executed.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// The run.
    pub run_id: RunId,
    /// Its job.
    pub job_id: JobId,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// The occurrence; none for a manual run.
    pub scheduled_at: Option<Timestamp>,
    /// What to do.
    pub task: Arc<Task>,
}

impl Assignment {
    /// Which attempt of which run it is.
    pub fn execution(&self) -> Execution {
        (self.run_id.clone(), self.attempt)
    }
}

/// How an execution ended.
#[derive(Debug)]
pub struct Completion {
    /// The run.
    pub run_id: RunId,
    /// Which of its attempts.
    pub attempt: u32,
    /// When the work really began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// How it ended.
    pub outcome: Outcome,
    /// The end of what it wrote.
    pub output: Tail,
}

impl Completion {
    /// Which attempt of which run it is about.
    pub fn execution(&self) -> Execution {
        (self.run_id.clone(), self.attempt)
    }
}

/// Starts runs. Each start is answered by one completion, unless the executor is stopped first.
pub trait Executor: std::fmt::Debug + Send + 'static {
    /// Begins to execute a run in the named pool, without waiting for it.
    fn start(&mut self, pool: &str, assignment: Assignment);

    /// Asks a run that was started to end, without waiting for it. Its completion says [`Outcome::Cancelled`] if this
    /// ended it, and what it came to if it ended before, or cannot be ended. For a run that is not there, this does nothing.
    fn cancel(&mut self, run_id: &RunId, reason: &str);

    /// Ends what can be ended, and returns when it has ended.
    fn stop(&mut self) -> impl Future<Output = ()> + Send;
}

/// What every pool shares.
#[derive(Debug)]
struct Shared {
    registry: Registry,
    clock: Arc<dyn Clock>,
    completions: mpsc::Sender<Completion>,
    tracker: TaskTracker,
}

#[derive(Debug)]
enum Pool {
    Thread(ThreadPool),
    Process(ProcessPool),
}

/// The configured pools.
#[derive(Debug)]
pub struct Pools {
    shared: Arc<Shared>,
    /// Where processes are looked after, whoever starts them.
    runtime: Handle,
    by_name: BTreeMap<String, Pool>,
    started: Started,
}

impl Pools {
    /// Makes the pools. Completions go to `completions`; `worker` is what runs builtins for a pool of processes.
    pub fn new(
        settings: &BTreeMap<String, PoolSettings>,
        registry: Registry,
        clock: Arc<dyn Clock>,
        completions: mpsc::Sender<Completion>,
        worker: &WorkerProgram,
    ) -> Self {
        let tracker = TaskTracker::new();
        let shared = Arc::new(Shared { registry, clock, completions, tracker });
        let pool = |settings: &PoolSettings| match settings.kind {
            ExecutorKind::ThreadPool => Pool::Thread(ThreadPool::new(settings.max_workers)),
            ExecutorKind::ProcessPool => Pool::Process(ProcessPool::new(worker.clone())),
        };
        let by_name =
            settings.iter().map(|(name, settings)| (name.clone(), pool(settings))).collect();
        let started = Started::new(handed_over_max(settings));
        Self { shared, runtime: Handle::current(), by_name, started }
    }
}

impl Executor for Pools {
    fn start(&mut self, pool: &str, assignment: Assignment) {
        let shared = Arc::clone(&self.shared);
        let tracker = shared.tracker.clone();
        let cancellation = self.started.add(assignment.run_id.clone());
        match self.by_name.get(pool) {
            Some(Pool::Thread(threads)) => threads.execute(shared, assignment, cancellation),
            Some(Pool::Process(processes)) => {
                let processes = processes.clone();
                let executing = async move {
                    processes.execute(&shared, assignment, &cancellation).await;
                };
                tracker.spawn_on(executing, &self.runtime);
            }
            None => {
                let error = failed(format!("executor \"{pool}\" is not configured"), None);
                let reporting = async move {
                    let now = shared.clock.now();
                    shared.report(assignment.execution(), now, error, Tail::default()).await;
                };
                tracker.spawn_on(reporting, &self.runtime);
            }
        }
    }

    fn cancel(&mut self, run_id: &RunId, reason: &str) {
        self.started.cancel(run_id, reason);
    }

    async fn stop(&mut self) {
        self.shared.tracker.close();
        self.started.cancel_all(STOPPED);
        // Threads cannot be ended from outside, so this does not wait for them for ever.
        if tokio::time::timeout(STOP_LIMIT, self.shared.tracker.wait()).await.is_err() {
            tracing::warn!(
                still_running = self.shared.tracker.len(),
                "some work did not end when asked to"
            );
        }
    }
}

impl Shared {
    /// What is told of the end of a run; nothing of one that the stop has interrupted, since whoever records that
    /// decides whether it is run again.
    fn completion(
        &self,
        (run_id, attempt): Execution,
        started_at: Timestamp,
        outcome: Outcome,
        output: Tail,
    ) -> Option<Completion> {
        if matches!(&outcome, Outcome::Cancelled { reason } if reason == STOPPED) {
            return None;
        }
        Some(Completion {
            run_id,
            attempt,
            started_at,
            finished_at: self.clock.now(),
            outcome: bounded(outcome),
            output,
        })
    }

    async fn report(&self, of: Execution, started_at: Timestamp, outcome: Outcome, output: Tail) {
        let completion = self.completion(of, started_at, outcome, output);
        let Some(completion) = completion else { return };
        // The scheduler is gone only when the daemon is: then the next start finds the run in the ledger.
        if self.completions.send(completion).await.is_err() {
            tracing::debug!("a completion came after the scheduler had stopped");
        }
    }
}

fn failed(error: impl Into<String>, exit_code: Option<i32>) -> Outcome {
    Outcome::Failed { error: error.into(), exit_code, permanent: false }
}

/// Cuts what would not fit into a row of the ledger.
fn bounded(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Succeeded { result: Some(result), exit_code } => {
            let bytes = result.to_string().len();
            let result = if bytes > RESULT_BYTES_MAX {
                json!({"cut": true, "bytes": bytes})
            } else {
                result
            };
            Outcome::Succeeded { result: Some(result), exit_code }
        }
        Outcome::Failed { error, exit_code, permanent } => {
            Outcome::Failed { error: bounded_text(error), exit_code, permanent }
        }
        Outcome::Cancelled { reason } => Outcome::Cancelled { reason: bounded_text(reason) },
        other @ (Outcome::Succeeded { .. } | Outcome::Lost { .. }) => other,
    }
}

fn bounded_text(mut text: String) -> String {
    if text.len() > ERROR_BYTES_MAX {
        text.truncate(text.floor_char_boundary(ERROR_BYTES_MAX));
        text.push('…');
    }
    text
}
