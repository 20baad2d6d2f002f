//! Where runs are executed: named pools with a fixed number of workers.
//!
//! A pool has hardly a queue. The scheduler counts its free workers and hands over no more runs than
//! that, but for very short ones; what waits, waits in the ledger, where it can be seen and outlives
//! a crash. An executor never touches the store: it reports a [`Completion`], and the scheduler writes.

mod blocking;
mod children;
mod command;
mod confidential;
mod heartbeat;
mod http;
mod live;
mod mail;
mod notice;
mod place;
mod process;
mod report;
mod shortage;
mod thread;
mod worker;

pub use children::{adopts_processes, reap_adopted};
pub use command::{Controllers, Privileges, exec, kill_orphans, launch};
pub use confidential::Confidential;
pub use heartbeat::{Beat, Heartbeats, Signal};
pub use live::Live;
pub use mail::{MailSettings, Mailer, Security};
pub use worker::{WorkerProgram, WorkerTimes, serve as serve_worker};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Rlimit;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::TaskTracker;

use crate::clock::{Clock, Timestamp};
use crate::job::{Job, JobId, Task};
use crate::output::Output;
use crate::run::{Cost, Execution, Outcome, RunId, traceparent};
use crate::task::builtin::Registry;
use crate::task::context::Context;
use command::CommandRunner;
use http::client::Clients;
use process::ProcessPool;
use report::{Shared, failed, failed_for_good};
use thread::ThreadPool;

/// Workers of one pool, at most: a thread or a process each.
pub const WORKERS_MAX: usize = 1000;
/// Runs that a pool of threads may be handed beyond its workers.
pub const AHEAD_MAX: usize = 500;
/// Why a run is to end at a stop.
const STOPPED: &str = "the daemon stops";
/// How long a stop waits for processes to go, beyond their own grace time.
pub const STOP_LIMIT: Duration = Duration::from_secs(10);

/// What a pool is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExecutorKind {
    /// Threads of the daemon; they run builtins. A call over HTTP takes no thread, but the place of one.
    ThreadPool,
    /// Processes; they run commands, and builtins in worker processes. A call over HTTP is as above.
    ProcessPool,
}

impl ExecutorKind {
    /// Whether a pool of this kind can run the task.
    pub fn runs(self, task: &Task) -> bool {
        match (self, task) {
            (_, Task::Builtin { .. } | Task::Http(_) | Task::Mail(_))
            | (Self::ProcessPool, Task::Command(_)) => true,
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
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// What happened to which run, if this one tells of it.
    pub event: Option<Arc<Value>>,
    /// Why it must not be carried out, if so: the run fails with this error.
    pub forbidden: Option<String>,
}

impl Assignment {
    /// Which attempt of which run it is.
    pub fn execution(&self) -> Execution {
        (self.run_id.clone(), self.attempt)
    }

    /// The trace that the run is, as the W3C's `traceparent` has it.
    pub fn traceparent(&self) -> String {
        traceparent(&self.run_id.0, self.attempt)
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
    /// What it cost.
    pub cost: Cost,
    /// What is kept of what it wrote.
    pub output: Arc<Output>,
}

impl Completion {
    /// Which attempt of which run it is about.
    pub fn execution(&self) -> Execution {
        (self.run_id.clone(), self.attempt)
    }
}

/// Which outputs of runs in progress are to be saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saving {
    /// Those for which it is time, within a limit of bytes for each look.
    Due,
    /// All that are not saved, before the daemon ends.
    All,
}

/// Starts runs. Each start is answered by one completion, unless the executor is stopped first.
pub trait Executor: std::fmt::Debug + Send + 'static {
    /// Begins to execute a run in the named pool, without waiting for it.
    fn start(&mut self, pool: &str, assignment: Assignment);

    /// Asks a run that was started to end, without waiting for it. Its completion says [`Outcome::Cancelled`] if this
    /// ended it, and what it came to if it ended before, or cannot be ended. For a run that is not there, this does nothing.
    fn cancel(&mut self, run_id: &RunId, reason: &str);

    /// What runs that have no completion have written so far, where that is not saved.
    fn unsaved_outputs(&mut self, now: Timestamp, saving: Saving) -> Vec<(Execution, Arc<Output>)>;

    /// An output that [`Executor::unsaved_outputs`] gave is saved.
    fn output_saved(&mut self, execution: &Execution, output: &Output, now: Timestamp);

    /// Sends a heartbeat soon, without waiting for it.
    fn tell(&mut self, beat: Beat);

    /// Takes note of a job that may be run here: what it names as a secret is kept from the others.
    fn learn(&mut self, _job: &Job) {}

    /// Ends what a daemon that died has left over of these attempts on this machine, before they are run again.
    fn end_leftovers(&mut self, executions: &[Execution]);

    /// Adapts the pools to new settings: their sizes, and pools that are new. What runs goes on.
    fn resize(&mut self, settings: &BTreeMap<String, PoolSettings>);

    /// Ends what can be ended, and returns when it has ended.
    fn stop(&mut self) -> impl Future<Output = ()> + Send;
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
    by_name: BTreeMap<String, Pool>,
    /// Places of each pool for calls over HTTP: no more are made at a time, also where runs are handed over ahead.
    calls: BTreeMap<String, (usize, Arc<Semaphore>)>,
    heartbeats: Heartbeats,
    worker: WorkerProgram,
    commands: Arc<CommandRunner>,
    mailer: Mailer,
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
        let (tracker, runtime) = (TaskTracker::new(), Handle::current());
        let clients = Clients::default();
        let heartbeats = Heartbeats::start(clients.clone(), &runtime);
        let live = Live::new(handed_over_max(settings));
        let shared =
            Arc::new(Shared { registry, clock, completions, tracker, runtime, clients, live });
        let mut pools = Self {
            shared,
            by_name: BTreeMap::new(),
            calls: BTreeMap::new(),
            heartbeats,
            worker: worker.clone(),
            commands: Arc::new(CommandRunner::new(WorkerProgram::itself())),
            mailer: Mailer::new(MailSettings::local()),
        };
        pools.adapt(settings);
        pools
    }

    /// The same pools, of a process that is not `punctual` itself: this is the program that commands are started
    /// through where they need it.
    #[must_use]
    pub fn with_shim(self, program: impl Into<PathBuf>) -> Self {
        let commands = Arc::unwrap_or_clone(self.commands).through(program.into());
        Self { commands: Arc::new(commands), ..self }
    }

    /// The same pools, whose commands do not get these variables of the daemon, and whose outputs do not show them.
    #[must_use]
    pub fn keeping_secrets(self, secrets: Confidential) -> Self {
        let commands = Arc::unwrap_or_clone(self.commands).keeping_secrets(secrets);
        Self { commands: Arc::new(commands), ..self }
    }

    /// The same pools, which send mails as this mailer is set.
    #[must_use]
    pub fn mailing(self, mailer: Mailer) -> Self {
        Self { mailer, ..self }
    }

    /// The same pools, whose commands run as this user where they name none; none for that of this process.
    #[must_use]
    pub fn running_as(self, user: Option<String>) -> Self {
        let commands = Arc::unwrap_or_clone(self.commands).running_as(user);
        Self { commands: Arc::new(commands), ..self }
    }

    /// The same pools, with this limit of open files for commands instead of the daemon's own.
    #[must_use]
    pub fn limiting_files(self, files: Rlimit) -> Self {
        let commands = Arc::unwrap_or_clone(self.commands).limiting_files(files);
        Self { commands: Arc::new(commands), ..self }
    }

    /// The same pools, which note the commands that run in this file. Those that a daemon which died has left in it are
    /// ended now, which may block for moments.
    #[must_use]
    pub fn noting_commands(self, file: &Path) -> Self {
        let commands = Arc::unwrap_or_clone(self.commands).noting(file);
        Self { commands: Arc::new(commands), ..self }
    }

    fn adapt(&mut self, settings: &BTreeMap<String, PoolSettings>) {
        self.shared.live.resize(handed_over_max(settings));
        for (name, PoolSettings { kind, max_workers }) in settings {
            if self.calls.get(name).is_none_or(|(places, _)| places != max_workers) {
                // What is being called keeps its old place.
                let places = Arc::new(Semaphore::new(*max_workers));
                self.calls.insert(name.clone(), (*max_workers, places));
            }
            match (kind, self.by_name.get_mut(name)) {
                (ExecutorKind::ThreadPool, Some(Pool::Thread(threads))) => {
                    threads.resize(*max_workers);
                }
                (ExecutorKind::ThreadPool, _) => {
                    let threads = ThreadPool::new(*max_workers);
                    self.by_name.insert(name.clone(), Pool::Thread(threads));
                }
                (ExecutorKind::ProcessPool, Some(Pool::Process(processes))) => {
                    processes.resize(*max_workers);
                }
                (ExecutorKind::ProcessPool, _) => {
                    let (worker, shared) = (self.worker.clone(), Arc::clone(&self.shared));
                    let processes = ProcessPool::new(worker, *max_workers, shared);
                    self.by_name.insert(name.clone(), Pool::Process(processes));
                }
            }
        }
    }

    /// Reads the certificates that the machine trusts, before a call needs them.
    pub fn load_certificates(&self) {
        self.shared.clients.reload_certificates(&self.shared.runtime);
    }

    /// The runs that were started here and have not ended.
    pub fn live(&self) -> Live {
        self.shared.live.clone()
    }
}

impl Executor for Pools {
    fn start(&mut self, pool: &str, assignment: Assignment) {
        let shared = Arc::clone(&self.shared);
        let context = self.shared.live.add(assignment.execution());
        context.log.hide(self.commands.secrets.values());
        let refuse = |outcome: Outcome, assignment: Assignment, context: Arc<Context>| {
            let shared = Arc::clone(&self.shared);
            let reporting = async move {
                let now = shared.clock.now();
                shared.report(&assignment, &context, now, outcome.into()).await;
            };
            self.shared.tracker.spawn_on(reporting, &self.shared.runtime);
        };
        if let Some(error) = assignment.forbidden.clone() {
            refuse(failed_for_good(error), assignment, context);
            return;
        }
        match (&*assignment.task, self.calls.get(pool)) {
            (Task::Http(_), Some((_, places))) => {
                let executing = http::execute(shared, assignment, context, Arc::clone(places));
                self.shared.tracker.spawn_on(executing, &self.shared.runtime);
                return;
            }
            (Task::Mail(_), Some((_, places))) => {
                let mailer = self.mailer.clone();
                let executing = mailer.execute(shared, assignment, context, Arc::clone(places));
                self.shared.tracker.spawn_on(executing, &self.shared.runtime);
                return;
            }
            _ => {}
        }
        match self.by_name.get(pool) {
            Some(Pool::Thread(threads)) => threads.execute(shared, assignment, context),
            Some(Pool::Process(processes)) => {
                processes.execute(&self.commands, assignment, context);
            }
            None => {
                let error = failed(format!("executor \"{pool}\" is not configured"));
                refuse(error, assignment, context);
            }
        }
    }

    fn cancel(&mut self, run_id: &RunId, reason: &str) {
        self.shared.live.cancel(run_id, reason);
    }

    fn unsaved_outputs(&mut self, now: Timestamp, saving: Saving) -> Vec<(Execution, Arc<Output>)> {
        self.shared.live.unsaved_outputs(now, saving)
    }

    fn output_saved(&mut self, execution: &Execution, output: &Output, now: Timestamp) {
        self.shared.live.output_saved(execution, output, now);
    }

    fn tell(&mut self, beat: Beat) {
        self.heartbeats.tell(beat);
    }

    fn learn(&mut self, job: &Job) {
        let secrets = &self.commands.secrets;
        if secrets.learn(job.secret_variables()) {
            self.shared.live.hide(&secrets.values());
        }
    }

    fn end_leftovers(&mut self, executions: &[Execution]) {
        let ended = kill_orphans(executions);
        if ended > 0 {
            tracing::warn!(processes = ended, "ended what was left over of runs whose daemon died");
        }
    }

    fn resize(&mut self, settings: &BTreeMap<String, PoolSettings>) {
        self.adapt(settings);
        // A reload looks for everything again.
        self.load_certificates();
    }

    async fn stop(&mut self) {
        self.shared.tracker.close();
        self.shared.live.cancel_all(STOPPED);
        for pool in self.by_name.values() {
            if let Pool::Process(processes) = pool {
                processes.stop();
            }
        }
        // Threads cannot be ended from outside, so this does not wait for them for ever.
        if tokio::time::timeout(STOP_LIMIT, self.shared.tracker.wait()).await.is_err() {
            tracing::warn!(
                still_running = self.shared.tracker.len(),
                "some work did not end when asked to"
            );
        }
        self.commands.close().await;
        self.heartbeats.stop().await;
    }
}
