//! `punctual serve`: the life of a daemon, in four phases.
//!
//! 1. [`settings`](super::settings): the configuration is read and checked.
//! 2. [`start`](super::start): the control socket answers, the store is opened, the parts are built and connected
//!    ([`assembly`](super::assembly)), runs that a crash has left are recovered, and the jobs of the file are declared.
//! 3. [`serve`](mod@super::serve): jobs fire, until a signal asks the daemon to stop.
//! 4. [`stop`](super::stop): runs may end, and everything is closed in order.
//!
//! A signal may end phases 1 and 2 early. Once the scheduler runs, phase 4 follows in any case.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use super::application::Application;
use super::assembly::Parts;
use super::config_loader::{ConfigLoader, ConfigSource};
use super::context::DaemonContext;
use super::demo;
use super::logging;
use super::process_state::ProcessState;
use super::settings::DaemonSettings;
use super::signals::Signals;
use super::start::Startup;
use super::startup_error::{StartupError, refused};
use super::stop::stop;
use crate::cli::{CliError, ClientArguments};
use crate::client::Client;
use crate::clock::{Clock, SystemClock};
use crate::control::LogFilter;

/// Maximum number of threads for blocking work other than that of the pools: reading the store and files, looking up
/// names, previews.
const BLOCKING_THREADS: usize = 64;

/// Runs the daemon until it is asked to stop.
///
/// `file` is its configuration file, if one was named. `client` names the socket, which takes precedence over the file,
/// and the format of the message about a failure.
pub fn serve(file: Option<PathBuf>, is_demo: bool, client: ClientArguments) -> ExitCode {
    let process = ProcessState::set_for_daemon();
    let output = client.console();
    let log = match logging::start(is_demo, &output) {
        Ok(log) => log,
        Err(code) => return code,
    };
    process.log_faults();
    let source = ConfigSource::new(file, is_demo);
    let result = run_on_runtime(run(source, client.socket, is_demo, &process, log.filter()));
    log.end(&result, &output)
}

fn run_on_runtime(daemon: impl Future<Output = Result<(), StartupError>>) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .map_err(|error| refused(&format!("the runtime could not be started: {error}")))?;
    let ended = runtime.block_on(daemon);
    // This does not wait for a builtin that does not end: its run is recorded, and the process ends.
    runtime.shutdown_background();
    match ended {
        Ok(()) | Err(StartupError::Stopped) => Ok(()),
        Err(StartupError::Failed(failure)) => Err(failure),
    }
}

/// The four phases.
async fn run(
    source: ConfigSource,
    socket: Option<PathBuf>,
    is_demo: bool,
    process: &ProcessState,
    log: Arc<dyn LogFilter>,
) -> Result<(), StartupError> {
    let mut signals = Signals::new(process).map_err(|error| refused(&error))?;

    // Phase 1: settings.
    let loader = ConfigLoader::new(source);
    let config = signals.unless_stopped(loader.load(Ok)).await??;
    let settings = DaemonSettings::check(config, loader.path())?;
    tracing::info!(file = %loader.path(), "the configuration was read");

    // Phase 2: start.
    let mut context = DaemonContext::new(&settings, socket, log)?;
    let pulse = context.pulse.clone();
    let (mut startup, socket_file) = Startup::listen(&settings, &context)?;
    let opening = startup.open_store(settings, &loader, &context, &mut signals);
    let (settings, store) = pulse.while_waiting(opening).await?;
    // The file may have been reloaded in the meantime.
    context.identity.lease = settings.config.lease;
    let mut parts = Parts::build(&settings, store.clone(), &context, process);
    pulse.while_waiting(parts.recover(&mut startup, &mut signals)).await?;
    let jobs = settings.jobs()?;
    let (mut daemon, application, mut scheduler) =
        parts.assemble(settings, loader, &context, &startup)?;
    let starting = async {
        daemon.begin(jobs, &mut startup, &mut signals).await?;
        let client = Client::new(&daemon.socket);
        let starting = start_application(&application, &context, client, is_demo);
        let started = signals.unless_stopped(starting).await?;
        started.map_err(|error| StartupError::Failed(refused(&format!("{error:#}"))))
    };
    let started = starting.await;

    // Phase 3: serve.
    let ended = if started.is_ok() {
        daemon.status_line.ready();
        context.spawn_until_end(daemon.status_line.clone().follow());
        daemon.serve(&mut signals, &mut scheduler).await
    } else {
        None
    };

    // Phase 4: stop.
    stop(context, store, scheduler, ended, socket_file, &mut signals).await?;
    started
}

async fn start_application(
    application: &Application,
    context: &DaemonContext,
    client: Client,
    is_demo: bool,
) -> anyhow::Result<()> {
    let stop = context.stop_servers.clone();
    application.serve(&context.tracker, client.clone(), stop).await?;
    if is_demo {
        let toutiao = &application.toutiao;
        demo::prepare(toutiao, &client, SystemClock.now()).await?;
        context.spawn_until_end(demo::show(client, toutiao.settings().listen.clone()));
    }
    Ok(())
}
