//! Executes runs: in named pools with a fixed number of workers, or as tasks of the async runtime.
//!
//! The scheduler hands a run over as an [`Assignment`], and the executor answers with one [`Completion`]. A builtin runs on
//! a thread ([`thread_pool`]) or in a worker process ([`worker`]), a command is a process of its own ([`command`]), and an
//! HTTP call or a mail is a task of the runtime ([`http`], [`mail`]) that occupies one of the pool's `max_workers` permits.
//!
//! What must hold: the executor never uses the store; the scheduler writes what happens. A pool has no queue to speak of:
//! the scheduler counts its free workers and hands no more runs over, except very short ones to threads. Other runs wait in
//! the ledger, where they can be seen and survive a crash. The children of this module import its files, but not this one.

mod assignment;
mod blocking;
mod builtin_call;
mod children;
mod command;
mod deliveries;
mod exit_status;
mod heartbeat;
mod hook_report;
mod http;
mod live;
mod mail;
mod pipes;
mod run;
mod secret_variables;
mod settings;
mod shortage;
mod thread_pool;
mod worker;

pub use assignment::{Assignment, Completion};
pub use children::{adopts_processes, reap_adopted};
pub use command::{Controllers, Privileges, exec, kill_orphans, launch};
pub use deliveries::{Deliveries, DeliveryCounts};
pub use heartbeat::{Heartbeat, HeartbeatEvent, Heartbeats};
pub use live::{LiveRuns, Saving};
pub use mail::{MailSettings, Mailer, Security};
pub use secret_variables::SecretVariables;
pub use settings::{AHEAD_MAX, ExecutorKind, PoolSettings, WORKERS_MAX, handed_over_max};
pub use worker::{WorkerProgram, WorkerTimes, serve as serve_worker};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Rlimit;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::TaskTracker;

use crate::clock::{Clock, Timestamp};
use crate::job::{Command, Job, Task};
use crate::output::Output;
use crate::run::{Execution, Outcome, RunId};
use crate::task::builtin::Registry;
use crate::task::context::Context;
use command::CommandRunner;
use http::client::Clients;
use run::{ExecutorServices, STOPPED, failed, failure};
use thread_pool::ThreadPool;
use worker::ProcessPool;

/// How long a stop waits for processes to end, in addition to their own grace time.
pub const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Starts runs. Each start is answered by one completion, unless the executor is stopped first.
pub trait Executor: std::fmt::Debug + Send + 'static {
    /// Starts a run in the named pool, without waiting for it.
    fn start(&mut self, pool: &str, assignment: Assignment);

    /// Cancels a run, without waiting for its end. Its completion says [`Outcome::Cancelled`] if the cancel ended it, and
    /// its own outcome if it had ended before or cannot be ended. For an unknown run this does nothing.
    fn cancel(&mut self, run_id: &RunId, reason: &str);

    /// The outputs of running runs that have to be saved now.
    fn unsaved_outputs(&mut self, now: Timestamp, saving: Saving) -> Vec<(Execution, Arc<Output>)>;

    /// Takes note that an output from [`Executor::unsaved_outputs`] has been saved.
    fn output_saved(&mut self, execution: &Execution, output: &Output, now: Timestamp);

    /// Sends a heartbeat soon, without waiting for it.
    fn send_heartbeat(&mut self, heartbeat: Heartbeat);

    /// Counts the heartbeats and mails that it sends.
    fn deliveries(&self) -> Deliveries {
        Deliveries::default()
    }

    /// Keeps the secret variables that a job names from the commands of other jobs.
    fn note_secrets(&mut self, _job: &Job) {}

    /// Ends the processes that a crashed daemon has left of these attempts on this machine, before they are run again.
    fn kill_orphans(&mut self, executions: &[Execution]);

    /// Applies new pool settings: sizes change, and new pools are added. Running work goes on.
    fn resize(&mut self, settings: &BTreeMap<String, PoolSettings>);

    /// Cancels all runs, and waits until they have ended or [`STOP_LIMIT`] is over.
    fn stop(&mut self) -> impl Future<Output = ()> + Send;
}

/// The executor of a daemon: its pools.
#[derive(Debug)]
pub struct PoolExecutor {
    services: Arc<ExecutorServices>,
    pools: BTreeMap<String, WorkerPool>,
    heartbeats: Heartbeats,
    worker: WorkerProgram,
    commands: Arc<CommandRunner>,
    mailer: Mailer,
}

#[derive(Debug)]
struct WorkerPool {
    settings: PoolSettings,
    workers: PoolWorkers,
    /// One permit for each HTTP call or mail in progress. The scheduler may hand over more of them than `max_workers`.
    permits: Arc<Semaphore>,
}

#[derive(Debug)]
enum PoolWorkers {
    Threads(Arc<ThreadPool>),
    Processes(ProcessPool),
}

impl WorkerPool {
    fn new(
        settings: PoolSettings,
        worker: &WorkerProgram,
        services: &Arc<ExecutorServices>,
    ) -> Self {
        let PoolSettings { kind, max_workers } = settings;
        let workers = match kind {
            ExecutorKind::ThreadPool => {
                let threads = Arc::<ThreadPool>::default();
                threads.resize(max_workers);
                PoolWorkers::Threads(threads)
            }
            ExecutorKind::ProcessPool => {
                let (worker, services) = (worker.clone(), Arc::clone(services));
                PoolWorkers::Processes(ProcessPool::new(worker, max_workers, services))
            }
        };
        Self { settings, workers, permits: Arc::new(Semaphore::new(max_workers)) }
    }

    fn resize(&mut self, max_workers: usize) {
        match &self.workers {
            PoolWorkers::Threads(threads) => threads.resize(max_workers),
            PoolWorkers::Processes(processes) => processes.resize(max_workers),
        }
        if self.settings.max_workers != max_workers {
            self.settings.max_workers = max_workers;
            // The calls in progress keep their old permits.
            self.permits = Arc::new(Semaphore::new(max_workers));
        }
    }
}

impl PoolExecutor {
    /// Creates the pools. Completions go to `completions`; `worker` runs the builtins of process pools.
    pub fn new(
        settings: &BTreeMap<String, PoolSettings>,
        registry: Registry,
        clock: Arc<dyn Clock>,
        completions: mpsc::Sender<Completion>,
        worker: &WorkerProgram,
    ) -> Self {
        let (tracker, runtime) = (TaskTracker::new(), Handle::current());
        let clients = Clients::default();
        let deliveries = Deliveries::default();
        let heartbeats = Heartbeats::start(clients.clone(), deliveries.clone(), &runtime);
        let live = LiveRuns::new(handed_over_max(settings));
        let services = Arc::new(ExecutorServices {
            registry,
            clock,
            completions,
            tracker,
            runtime,
            clients,
            live,
            deliveries,
        });
        let mut executor = Self {
            services,
            pools: BTreeMap::new(),
            heartbeats,
            worker: worker.clone(),
            commands: Arc::new(CommandRunner::new(WorkerProgram::itself())),
            mailer: Mailer::new(MailSettings::local()),
        };
        executor.apply(settings);
        executor
    }

    fn with_commands(mut self, change: impl FnOnce(&mut CommandRunner)) -> Self {
        change(Arc::make_mut(&mut self.commands));
        self
    }

    /// Sets the program through which commands are started where necessary, for a process that is not `punctual` itself.
    #[must_use]
    pub fn with_shim(self, program: impl Into<PathBuf>) -> Self {
        self.with_commands(|commands| commands.shim = program.into())
    }

    /// Sets the variables of the daemon that commands do not inherit and outputs do not show.
    #[must_use]
    pub fn keeping_secrets(self, secrets: SecretVariables) -> Self {
        self.with_commands(|commands| commands.secrets = secrets)
    }

    /// Sets the mailer.
    #[must_use]
    pub fn mailing(self, mailer: Mailer) -> Self {
        Self { mailer, ..self }
    }

    /// Sets the user of commands that name none; `None` for the user of this process.
    #[must_use]
    pub fn running_as(self, user: Option<String>) -> Self {
        self.with_commands(|commands| commands.default_user = user)
    }

    /// Sets the limit of open files of commands. Default: the limit of the daemon.
    #[must_use]
    pub fn limiting_files(self, files: Rlimit) -> Self {
        self.with_commands(|commands| commands.files = Some(files))
    }

    /// Sets the file in which running commands are recorded. Commands that a crashed daemon has left in it are ended now,
    /// which may block for moments.
    #[must_use]
    pub fn noting_commands(self, file: &Path) -> Self {
        self.with_commands(|commands| commands.record_in(file))
    }

    fn apply(&mut self, settings: &BTreeMap<String, PoolSettings>) {
        self.services.live.resize(handed_over_max(settings));
        for (name, settings) in settings {
            match self.pools.get_mut(name) {
                Some(pool) if pool.settings.kind == settings.kind => {
                    pool.resize(settings.max_workers);
                }
                Some(_) | None => {
                    let pool = WorkerPool::new(*settings, &self.worker, &self.services);
                    self.pools.insert(name.clone(), pool);
                }
            }
        }
    }

    /// Reads the certificates that the machine trusts, before a call needs them.
    pub fn load_certificates(&self) {
        self.services.clients.reload_certificates(&self.services.runtime);
    }

    /// The runs that have been started here and have not ended.
    pub fn live(&self) -> LiveRuns {
        self.services.live.clone()
    }

    /// Executes a run as a task of the runtime.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.services.tracker.spawn_on(task, &self.services.runtime);
    }

    /// Reports a run as ended without executing it.
    fn refuse(&self, outcome: Outcome, assignment: Assignment, context: Arc<Context>) {
        let services = Arc::clone(&self.services);
        self.spawn(async move { services.refuse(&assignment, &context, outcome).await });
    }
}

impl Executor for PoolExecutor {
    fn start(&mut self, pool: &str, assignment: Assignment) {
        let context = self.services.live.add(assignment.execution());
        context.log.hide(self.commands.secrets.values());
        if let Some(error) = assignment.forbidden.clone() {
            return self.refuse(failure(error, true), assignment, context);
        }
        let Some(pool) = self.pools.get(pool) else {
            let error = failed(format!("executor \"{pool}\" is not configured"));
            return self.refuse(error, assignment, context);
        };
        let services = Arc::clone(&self.services);
        match (&*assignment.task, &pool.workers) {
            (Task::Http(call), _) => {
                let (call, permits) = (Arc::clone(call), Arc::clone(&pool.permits));
                self.spawn(http::execute(services, call, assignment, context, permits));
            }
            (Task::Mail(mail), _) => {
                let (mail, mailer) = (Arc::clone(mail), self.mailer.clone());
                let permits = Arc::clone(&pool.permits);
                self.spawn(mailer.execute(services, mail, assignment, context, permits));
            }
            (Task::Builtin(builtin), PoolWorkers::Threads(threads)) => {
                let builtin = Arc::clone(builtin);
                threads.execute(services, builtin, assignment, context);
            }
            (Task::Builtin(builtin), PoolWorkers::Processes(processes)) => {
                let builtin = Arc::clone(builtin);
                processes.execute(builtin, assignment, context);
            }
            (Task::Command(command), PoolWorkers::Processes(_)) => {
                let (command, runner) = (Arc::clone(command), Arc::clone(&self.commands));
                self.spawn(execute_command(services, runner, command, assignment, context));
            }
            (Task::Command(_), PoolWorkers::Threads(_)) => {
                let error = failed("a threadpool does not run commands");
                self.refuse(error, assignment, context);
            }
            (Task::Unreadable(_), _) => {
                self.refuse(failed("the task cannot be read"), assignment, context);
            }
        }
    }

    fn cancel(&mut self, run_id: &RunId, reason: &str) {
        self.services.live.cancel(run_id, reason);
    }

    fn unsaved_outputs(&mut self, now: Timestamp, saving: Saving) -> Vec<(Execution, Arc<Output>)> {
        self.services.live.unsaved_outputs(now, saving)
    }

    fn output_saved(&mut self, execution: &Execution, output: &Output, now: Timestamp) {
        self.services.live.output_saved(execution, output, now);
    }

    fn send_heartbeat(&mut self, heartbeat: Heartbeat) {
        self.heartbeats.send(heartbeat);
    }

    fn deliveries(&self) -> Deliveries {
        self.services.deliveries.clone()
    }

    fn note_secrets(&mut self, job: &Job) {
        let secrets = &self.commands.secrets;
        if secrets.add(job.secret_variables()) {
            self.services.live.hide(&secrets.values());
        }
    }

    fn kill_orphans(&mut self, executions: &[Execution]) {
        let ended = kill_orphans(executions);
        if ended > 0 {
            tracing::warn!(
                processes = ended,
                "killed processes that runs of a dead daemon had left"
            );
        }
    }

    fn resize(&mut self, settings: &BTreeMap<String, PoolSettings>) {
        self.apply(settings);
        // A reload of the configuration also reads the certificates again.
        self.load_certificates();
    }

    async fn stop(&mut self) {
        self.services.tracker.close();
        self.services.live.cancel_all(STOPPED);
        for pool in self.pools.values() {
            if let PoolWorkers::Processes(processes) = &pool.workers {
                processes.stop();
            }
        }
        // A builtin on a thread cannot be ended from outside, so the wait has a limit.
        if tokio::time::timeout(STOP_LIMIT, self.services.tracker.wait()).await.is_err() {
            tracing::warn!(
                still_running = self.services.tracker.len(),
                "some work did not end when asked to"
            );
        }
        self.commands.close().await;
        self.heartbeats.stop().await;
    }
}

/// Executes a command and reports how it ended.
async fn execute_command(
    services: Arc<ExecutorServices>,
    runner: Arc<CommandRunner>,
    command: Arc<Command>,
    assignment: Assignment,
    context: Arc<Context>,
) {
    let attempt = || async {
        match context.cancellation.ending() {
            Some(ending) => Ok(Outcome::from(ending).into()),
            None => command::execute(&runner, &command, &assignment, &context, &services).await,
        }
    };
    let (started_at, end) = services.retry_on_shortage(&assignment, &context, attempt).await;
    services.report(&assignment, &context, started_at, end).await;
}
