//! Phase 2 of a daemon's life, after the store was opened: the parts are built and connected.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::application::Application;
use super::config_loader::ConfigLoader;
use super::context::DaemonContext;
use super::process_state::ProcessState;
use super::scheduler_thread::{self, RunningScheduler};
use super::secret_variables;
use super::serve::Daemon;
use super::settings::DaemonSettings;
use super::signals::Signals;
use super::start::Startup;
use super::startup_error::{StartupError, refused};
use super::status_line::StatusLine;
use crate::cli::CliError;
use crate::clock::{Clock, SystemClock};
use crate::control::{self, Api};
use crate::executor::{
    self, Completion, LiveRuns, Mailer, PoolExecutor, SecretVariables, WorkerProgram,
    handed_over_max,
};
use crate::history::History;
use crate::retention::Pruner;
use crate::scheduler::Scheduler;
use crate::scheduler::handle::{Handle, REQUEST_QUEUE};
use crate::scheduler::serve::LoopInputs;
use crate::store::sql::SqlStore;
use crate::store::{Archive, Store};

/// Recorded as the error of a run that is not repeated after its daemon died.
const DIED: &str = "the daemon died while it ran";
/// Pause after an error before the daemon listens for hints of other nodes again.
const HINT_PAUSE: Duration = Duration::from_secs(1);
/// Maximum number of reloads that wait for their turn.
const RELOAD_QUEUE: usize = 16;

/// The parts of a daemon that are built on its open store.
pub(super) struct Parts {
    store: SqlStore,
    scheduler: Scheduler<SqlStore, PoolExecutor>,
    completions: mpsc::Receiver<Completion>,
    live: LiveRuns,
    secrets: SecretVariables,
    mailer: Mailer,
}

impl Parts {
    pub(super) fn build(
        settings: &DaemonSettings,
        store: SqlStore,
        context: &DaemonContext,
        process: &ProcessState,
    ) -> Self {
        let config = &settings.config;
        let (completion_sender, completions) =
            mpsc::channel(handed_over_max(&config.executors).max(1));
        let secrets = SecretVariables::incomplete();
        secrets.add(config.secret_variables());
        let mailer = Mailer::new(config.mail.clone());
        let mut pools = PoolExecutor::new(
            &config.executors,
            settings.application.registry.clone(),
            Arc::new(SystemClock),
            completion_sender,
            &WorkerProgram::own(settings.application.worker_settings.clone()),
        )
        .running_as(config.default_user.clone())
        .keeping_secrets(secrets.clone())
        .mailing(mailer.clone())
        .noting_commands(&commands_file(&context.socket));
        if let Some(limit) = process.file_limit {
            pools = pools.limiting_files(limit);
        }
        pools.load_certificates();
        let live = pools.live();
        let identity = context.identity.clone();
        let scheduler = Scheduler::new(store.clone(), pools, settings.rules.clone(), identity);
        let scheduler = scheduler.with_pulse(context.pulse.clone());
        Self { store, scheduler, completions, live, secrets, mailer }
    }

    /// Recovers the runs that were in flight when the last daemon died.
    pub(super) async fn recover(
        &mut self,
        startup: &mut Startup,
        signals: &mut Signals,
    ) -> Result<(), StartupError> {
        let recover = async || self.scheduler.recover(SystemClock.now(), DIED).await;
        let recovered = startup.retry(signals, recover).await?;
        if recovered.rerun + recovered.lost > 0 {
            tracing::warn!(
                rerun = recovered.rerun,
                lost = recovered.lost,
                "runs were in flight when the last daemon ended"
            );
        }
        Ok(())
    }

    /// Connects the parts, starts the scheduler's loop and the tasks beside it, and opens the control socket for
    /// requests about the daemon. No job fires yet.
    pub(super) fn assemble(
        self,
        settings: DaemonSettings,
        loader: ConfigLoader,
        context: &DaemonContext,
        startup: &Startup,
    ) -> Result<(Daemon, Application, RunningScheduler), CliError> {
        let Self { store, mut scheduler, completions, live, secrets, mailer } = self;
        let DaemonSettings { application, config, rules, declared, .. } = settings;
        // No job fires before the jobs of the file are declared: it would fire as an older file had it.
        scheduler.hold();
        let (requests_sender, requests) = mpsc::channel(REQUEST_QUEUE);
        let handle = Handle::new(requests_sender, scheduler.status());
        let handle = handle.with_pulse(context.pulse.clone());
        let (rules_sender, rules) = watch::channel(Arc::new(rules));
        let (declared_sender, declared) = watch::channel(declared);
        let (reload_sender, reloads) = mpsc::channel(RELOAD_QUEUE);
        let retention = watch::Sender::new(config.retention);
        let archive: Arc<dyn Archive> = Arc::new(store.clone());
        let noted = startup.noted.clone();
        let history = History::new(Arc::clone(&archive), handle.clone(), live.clone());
        let status_line = StatusLine::new(
            handle.clone(),
            history.clone(),
            noted.clone(),
            rules.clone(),
            context.socket.clone(),
        );
        let api = Api {
            history,
            handle: handle.clone(),
            rules,
            declared,
            clock: Arc::new(SystemClock),
            reload: reload_sender,
            reported: noted,
            info: Arc::new(context.info(&config)?),
            closing: context.stop_servers.clone(),
            budget: control::MemoryBudget::default(),
            previews: control::PreviewLimits::default(),
            log: Arc::clone(&context.log),
            users: control::UserNames::default(),
            metrics: scheduler.metrics(),
            requests: control::RequestCounts::default(),
        };
        if executor::adopts_processes() {
            context.spawn_until_stop(reap_adopted());
        }
        context.spawn_until_stop(secret_variables::learn(Arc::clone(&archive), secrets));
        let (hints_sender, hints) = mpsc::channel(1);
        context.spawn_until_stop(forward_hints(store.clone(), hints_sender));
        let (outputs_sender, outputs) = mpsc::channel(1);
        // What runs write while the stop waits for them is saved, too.
        context.spawn_until_end(forward_growth(live, outputs_sender));
        let shutdown: CancellationToken = context.stop_scheduler.clone();
        let inlets = LoopInputs { requests, completions, hints, outputs, shutdown };
        let running = scheduler_thread::start(
            scheduler,
            &store,
            inlets,
            config.drain_limit,
            &context.tracker,
        )
        .map_err(|error| refused(&error))?;
        startup.set_declaring(control::router(api));
        let pruner = Pruner::new(Arc::clone(&archive), handle.clone(), retention.subscribe());
        context.spawn_until_stop(pruner.run());
        let daemon = Daemon {
            loader,
            config,
            socket: context.socket.clone(),
            declared_jobs: 0,
            declared: declared_sender,
            rules: rules_sender,
            retention,
            mailer,
            handle,
            archive,
            reloads,
            status_line,
        };
        Ok((daemon, application, running))
    }
}

/// The file that lists the running commands for a daemon that starts after a crash: beside the socket.
fn commands_file(socket: &Path) -> PathBuf {
    let mut file = socket.as_os_str().to_owned();
    file.push(".commands");
    file.into()
}

/// Reaps processes that have lost their parent, because this process is the init of its container.
async fn reap_adopted() {
    let error = executor::reap_adopted().await;
    tracing::error!(%error, "orphaned processes of this container cannot be reaped");
}

/// Wakes the scheduler when another node has sent a hint through the store.
async fn forward_hints(store: SqlStore, hints: mpsc::Sender<()>) {
    loop {
        match store.wait_for_hint().await {
            // If the queue is full, the hint in it says the same.
            Ok(()) => drop(hints.try_send(())),
            // Without hints the scheduler finds changes by itself, a little later.
            Err(error) => {
                tracing::debug!(%error, "hints of other nodes cannot be received");
                tokio::time::sleep(HINT_PAUSE).await;
            }
        }
    }
}

/// Wakes the scheduler when runs have written output that is not saved.
async fn forward_growth(live: LiveRuns, outputs: mpsc::Sender<()>) {
    loop {
        live.grown().await;
        match outputs.try_send(()) {
            // If the queue is full, the hint in it says the same.
            Ok(()) | Err(TrySendError::Full(())) => {}
            Err(TrySendError::Closed(())) => return,
        }
    }
}
