//! `punctual serve`: everything is built here, started in order, and ended in order.
//!
//! Up: configuration, control socket, store, recovery, declared jobs, application, ready. Down: no
//! new runs, what runs may end within the limit, the rest is recorded, the sockets and the store are closed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::app::App;
use super::core::{Serving, Stopped};
use super::declared;
use super::files::{self, Demo, Reader, Source};
use super::frame::Frame;
use super::inherited::Inherited;
use super::retention::Pruner;
use super::signals::{Asked, Signals};
use super::standing::Standing;
use super::start::{Plan, Start, unusable_store};
use super::{logging, notify, stop};
use crate::cli::{CliError, ClientArguments};
use crate::client::Client;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Retention};
use crate::control::{self, Api, DeclaredFile, LogFilter, ReloadRequest, ReloadResult, Reloaded};
use crate::executor::{
    self, Completion, LiveRuns, Mailer, PoolExecutor, Privileges, SecretVariables, WorkerProgram,
    handed_over_max,
};
use crate::history::History;
use crate::invalid::Invalid;
use crate::scheduler::admission::Rules;
use crate::scheduler::declare::{DeclareError, DeclareReport, Occasion, declare};
use crate::scheduler::handle::REQUEST_QUEUE;
use crate::scheduler::serve::LoopInputs;
use crate::scheduler::{self, Scheduler};
use crate::store::sql::SqlStore;
use crate::store::{Archive, Store};

/// What the ledger says of a run whose daemon died and that is not run again.
const DIED: &str = "the daemon died while it ran";
/// Threads for blocking work beside those of the pools: reading the store, files, names, preview.
const BLOCKING_THREADS: usize = 64;
/// How long to wait before hints of other nodes are listened to again.
const HINT_PAUSE: Duration = Duration::from_secs(1);
/// Reloads that wait for their turn.
const RELOAD_QUEUE: usize = 16;

/// Runs the daemon until it is asked to end.
///
/// `file` is its configuration, if one was named. `client` names where it listens, whatever the file says, and how it
/// says why it failed.
pub fn serve(file: Option<PathBuf>, demo: bool, client: ClientArguments) -> ExitCode {
    let inherited = Inherited::settle();
    let demo = if demo { Demo::Yes } else { Demo::No };
    let output = client.output();
    let log = match logging::start(demo, &output) {
        Ok(log) => log,
        Err(code) => return code,
    };
    inherited.report();
    let source = Source::find(file, demo);
    let filter = log.filter();
    let result = load_and_run(source, demo, client.socket, &inherited, filter);
    log.end(&result, &output)
}

fn load_and_run(
    source: Source,
    demo: Demo,
    socket: Option<PathBuf>,
    inherited: &Inherited,
    log: Arc<dyn LogFilter>,
) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .map_err(|error| refused(&format!("the runtime could not be started: {error}")))?;
    let result = runtime.block_on(run(source, socket, demo, inherited, log));
    // A builtin that does not end cannot be waited for: its run is recorded, and the process ends.
    runtime.shutdown_background();
    result
}

pub(super) fn refused(error: &impl ToString) -> CliError {
    CliError::Refused(error.to_string())
}

/// Something in the environment is.
pub(super) fn unusable(error: &Invalid) -> CliError {
    CliError::Usage(error.to_string())
}

/// The parts of a daemon that has not been started.
struct Parts {
    store: SqlStore,
    scheduler: Scheduler<SqlStore, PoolExecutor>,
    completions: mpsc::Receiver<Completion>,
    live: LiveRuns,
    secrets: SecretVariables,
    mailer: Mailer,
}

impl Parts {
    /// Builds them on an open store.
    fn build(plan: &Plan, store: SqlStore, frame: &Frame, inherited: &Inherited) -> Self {
        let config = &plan.config;
        let (completions_in, completions) =
            mpsc::channel(handed_over_max(&config.executors).max(1));
        let secrets = SecretVariables::incomplete();
        secrets.add(config.secret_variables());
        let mailer = Mailer::new(config.mail.clone());
        let mut pools = PoolExecutor::new(
            &config.executors,
            plan.app.registry(),
            Arc::new(SystemClock),
            completions_in,
            &WorkerProgram::own(plan.app.worker_hello().clone()),
        )
        .running_as(config.default_user.clone())
        .keeping_secrets(secrets.clone())
        .mailing(mailer.clone())
        .noting_commands(&commands_file(&frame.socket));
        if let Some(files) = inherited.files() {
            pools = pools.limiting_files(files);
        }
        pools.load_certificates();
        let live = pools.live();
        let identity = frame.identity.clone();
        let scheduler = Scheduler::new(store.clone(), pools, plan.rules.clone(), identity);
        let scheduler = scheduler.with_pulse(frame.pulse.clone());
        Self { store, scheduler, completions, live, secrets, mailer }
    }

    /// Finds out what a crash has left. None if the daemon was asked to stop while it waited for the store.
    async fn recover(
        &mut self,
        start: &mut Start,
        signals: &mut Signals,
    ) -> Option<Result<(), CliError>> {
        let look = async || self.scheduler.recover(SystemClock.now(), DIED).await;
        let recovered = match start.persist(signals, look).await? {
            Ok(recovered) => recovered,
            Err(error) => return Some(Err(unusable_store(&error))),
        };
        if recovered.rerun + recovered.lost > 0 {
            tracing::warn!(
                rerun = recovered.rerun,
                lost = recovered.lost,
                "runs were in flight when the last daemon ended"
            );
        }
        Some(Ok(()))
    }
}

/// What runs beside the scheduler's loop.
struct Daemon {
    reader: Reader,
    /// Jobs of the file.
    declared: usize,
    /// What is known of the file.
    file: watch::Sender<DeclaredFile>,
    rules: watch::Sender<Arc<Rules>>,
    retention: watch::Sender<Retention>,
    mailer: Mailer,
    handle: scheduler::handle::Handle,
    archive: Arc<dyn Archive>,
    reloads: mpsc::Receiver<ReloadRequest>,
    /// The configuration that the parts were built from.
    config: Config,
    /// Where it listens.
    socket: PathBuf,
    standing: Standing,
}

async fn run(
    source: Source,
    socket: Option<PathBuf>,
    demo: Demo,
    inherited: &Inherited,
    log: Arc<dyn LogFilter>,
) -> Result<(), CliError> {
    let mut signals = Signals::new(inherited).map_err(|error| refused(&error))?;
    let file = source.shown();
    let reader = Reader::new(source);
    let Some(config) = signals.unless_stopped(reader.read(Ok)).await else { return Ok(()) };
    let config = config?;
    let plan = Plan::of(config, file.clone())?;
    tracing::info!(%file, "the configuration was read");
    let mut frame = Frame::new(&plan, socket, log)?;
    let opening = plan.opening(frame.facts(&plan.config)?);
    let listens = (frame.socket.as_path(), plan.config.socket_mode);
    let (mut start, socket_file) = Start::listen(listens, opening, &frame.doors, &frame.tracker)?;
    let opening = start.open_store(plan, &reader, (&frame.pulse, &mut signals));
    let Some(opened) = frame.pulse.while_waiting(opening).await else { return Ok(()) };
    let (plan, store) = opened?;
    // The file may have been read again while the store was waited for.
    frame.identity.lease = plan.config.lease;
    let mut parts = Parts::build(&plan, store.clone(), &frame, inherited);
    match frame.pulse.while_waiting(parts.recover(&mut start, &mut signals)).await {
        Some(recovered) => recovered?,
        None => return Ok(()),
    }
    let jobs = plan.jobs()?;
    let (mut daemon, app, mut serving) = assemble(parts, plan, reader, &frame, &start)?;
    let started = match daemon.begin(jobs, &mut start, &mut signals).await {
        Some(Ok(())) => {
            let client = Client::new(&daemon.socket);
            let starting = start_app(&app, &frame.tracker, client, &frame.doors, demo);
            let started = signals.unless_stopped(starting).await;
            started.map(|started| started.map_err(|error| refused(&format!("{error:#}"))))
        }
        ended => ended,
    };
    let Frame { pulse, core, doors, tracker, .. } = frame;
    let is_up = matches!(started, Some(Ok(())));
    let drained = if is_up {
        let standing = daemon.standing.clone();
        standing.ready();
        tracker.spawn(doors.clone().run_until_cancelled_owned(standing.follow()));
        daemon.work(&mut signals, &mut serving).await
    } else {
        None
    };
    stop::begin(&core);
    let end = async {
        let drained = if let Some(drained) = drained { drained } else { serving.ended.await };
        // The socket goes first: a client that comes now finds none, rather than one that refuses it.
        drop(socket_file);
        pulse.while_waiting(stop::close(&store, (tracker, doors), drained)).await
    };
    stop::oversee(end, &mut signals, &serving.drain).await?;
    started.unwrap_or(Ok(()))
}

/// Connects the parts, starts the scheduler's loop and what runs beside it, and lets requests about the daemon through.
/// Nothing fires yet.
fn assemble(
    parts: Parts,
    plan: Plan,
    reader: Reader,
    frame: &Frame,
    start: &Start,
) -> Result<(Daemon, App, Serving), CliError> {
    let Parts { store, mut scheduler, completions, live, secrets, mailer } = parts;
    let Plan { app, config, rules, declared, .. } = plan;
    let Frame { core, doors, tracker, .. } = frame;
    // Until the jobs of the file are declared nothing fires: no job as the file of yesterday had it.
    scheduler.hold();
    let (commands_in, commands) = mpsc::channel(REQUEST_QUEUE);
    let handle = scheduler::handle::Handle::new(commands_in, scheduler.status());
    let handle = handle.with_pulse(frame.pulse.clone());
    let (rules_in, rules_out) = watch::channel(Arc::new(rules));
    let (file_in, file_out) = watch::channel(declared);
    let (reload_in, reloads) = mpsc::channel(RELOAD_QUEUE);
    let noted = start.noted();
    let history = History::new(Arc::new(store.clone()), handle.clone(), live.clone());
    let known = (handle.clone(), history.clone(), noted.clone());
    let standing = Standing::new(known, rules_out.clone(), frame.socket.clone());
    let api = Api {
        history,
        handle: handle.clone(),
        rules: rules_out,
        declared: file_out,
        clock: Arc::new(SystemClock),
        reload: reload_in,
        reported: noted,
        info: Arc::new(frame.facts(&config)?),
        closing: doors.clone(),
        budget: control::MemoryBudget::default(),
        previews: control::PreviewLimits::default(),
        log: Arc::clone(&frame.log),
        users: control::UserNames::default(),
    };
    start_helpers(&store, secrets, core, tracker);
    let (hints, outputs) = start_hints(&store, live, (core, doors), tracker);
    let inlets =
        LoopInputs { requests: commands, completions, hints, outputs, shutdown: core.clone() };
    let serving = super::core::start(scheduler, &store, inlets, config.drain_limit, tracker);
    let serving = serving.map_err(|error| refused(&error))?;
    start.declaring(control::router(api));
    let archive: Arc<dyn Archive> = Arc::new(store);
    let retention = watch::Sender::new(config.retention);
    start_pruner(&archive, &handle, &retention, core, tracker);
    let daemon = Daemon {
        reader,
        declared: 0,
        file: file_in,
        rules: rules_in,
        retention,
        mailer,
        handle,
        archive,
        reloads,
        config,
        socket: frame.socket.clone(),
        standing,
    };
    Ok((daemon, app, serving))
}

/// Starts what commands rely on: somebody who knows which variables are secrets, and who reaps what they leave behind.
fn start_helpers(
    store: &SqlStore,
    secrets: SecretVariables,
    core: &CancellationToken,
    tracker: &TaskTracker,
) {
    if executor::adopts_processes() {
        tracker.spawn(core.clone().run_until_cancelled_owned(reap_adopted()));
    }
    let learning = super::secrets::learn(Arc::new(store.clone()), secrets);
    tracker.spawn(core.clone().run_until_cancelled_owned(learning));
}

/// Waits for processes that have lost their parent: this process is the init of its container.
async fn reap_adopted() {
    let error = executor::reap_adopted().await;
    tracing::error!(%error, "processes that have lost their parent cannot be waited for");
}

/// Where the commands that run are noted for a daemon that follows a crash: beside the socket.
fn commands_file(socket: &Path) -> PathBuf {
    let mut file = socket.as_os_str().to_owned();
    file.push(".commands");
    file.into()
}

async fn start_app(
    app: &App,
    tracker: &TaskTracker,
    client: Client,
    doors: &CancellationToken,
    demo: Demo,
) -> anyhow::Result<()> {
    app.serve(tracker, client.clone(), doors.clone()).await?;
    if demo == Demo::Yes {
        super::demo::prepare(app.toutiao(), &client, SystemClock.now()).await?;
        let show = super::demo::show(client, app.toutiao().settings().listen.clone());
        let doors = doors.clone();
        tracker.spawn(async move { doors.run_until_cancelled(show).await });
    }
    Ok(())
}

impl Daemon {
    /// Declares the jobs of the file, lets all requests through, and then lets jobs fire: what starts may use the socket
    /// at once. None if the daemon was asked to stop before.
    async fn begin(
        &mut self,
        jobs: files::Declared,
        start: &mut Start,
        signals: &mut Signals,
    ) -> Option<Result<(), CliError>> {
        let rules = self.rules.borrow().as_ref().clone();
        let declare = async || {
            let file = self.reader.shown();
            self.declare(rules.clone(), jobs.clone(), file, Occasion::Start).await
        };
        if let Err(error) = start.persist(signals, declare).await? {
            return Some(Err(refused(&error)));
        }
        start.up();
        let begin = async || Ok::<(), DeclareError>(self.handle.begin().await?);
        let done = start.persist(signals, begin).await?;
        Some(done.map_err(|error| refused(&error)))
    }

    /// Waits for the end. The answer is how the loop ended, if it did so by itself, which
    /// happens when it cannot go on.
    async fn work(&mut self, signals: &mut Signals, serving: &mut Serving) -> Option<Stopped> {
        tracing::info!(socket = %self.socket.display(), "ready");
        tokio::select! {
            () = self.watch(signals) => None,
            ended = &mut serving.ended => Some(ended),
        }
    }

    /// Waits for the end, and reads the configuration again when asked to.
    async fn watch(&mut self, signals: &mut Signals) {
        let mut is_asked_again = false;
        loop {
            let order = if std::mem::take(&mut is_asked_again) {
                None
            } else {
                tokio::select! {
                    asked = signals.next() => match asked {
                        Asked::Stop => return,
                        Asked::Reload => None,
                    },
                    Some(order) = self.reloads.recv() => Some(order),
                }
            };
            notify::reloading();
            let force = order.as_ref().is_some_and(|order| order.force);
            let reloaded = self.reload_unless_stopped(force, signals).await;
            let Some((answer, again)) = reloaded else { return };
            is_asked_again = again;
            match &answer {
                Ok(reloaded) if reloaded.restart_needed.is_empty() => {
                    tracing::info!("the configuration was read again");
                }
                Ok(reloaded) => {
                    let tables = reloaded.restart_needed.join(", ");
                    tracing::warn!(%tables, "the configuration was read again; these take effect at the next start only");
                }
                Err(error) => {
                    tracing::error!(%error, "the configuration is faulty; the old one stays");
                }
            }
            if order.is_none() && answer.is_ok() {
                control::audit::reload_by_signal();
            }
            self.standing.reloaded(answer.as_ref().err());
            if let Some(order) = order {
                // Who asked may have gone away; what was done is done.
                drop(order.reply.send(answer));
            }
        }
    }

    /// Reads the configuration again, and says whether a signal has asked for another reload meanwhile. None if one has asked to stop.
    async fn reload_unless_stopped(
        &mut self,
        force: bool,
        signals: &mut Signals,
    ) -> Option<(ReloadResult, bool)> {
        let mut reloading = std::pin::pin!(self.reload(force));
        let mut is_asked_again = false;
        loop {
            tokio::select! {
                answer = &mut reloading => return Some((answer, is_asked_again)),
                asked = signals.next() => match asked {
                    Asked::Stop => return None,
                    Asked::Reload => is_asked_again = true,
                },
            }
        }
    }

    /// Reads the configuration again. With `force` also a file that declares no jobs any more is believed.
    async fn reload(&mut self, force: bool) -> ReloadResult {
        let running = self.rules.borrow().clone();
        let default_user = self.config.default_user.clone();
        let judge = move |config: Config| {
            let executors = config.resized(&running.executors);
            let privileges = Privileges::of_this_process();
            let rules = files::rules(&config, running.registry.clone(), privileges)?;
            let rules = Rules { executors, ..rules }.running_as(default_user);
            let jobs = files::declared_jobs(&config, &rules, SystemClock.now())?;
            Ok((config, rules, jobs))
        };
        let judged = self.reader.read(judge).await;
        let (config, rules, jobs) = judged.map_err(|error| error.to_string())?;
        declared::refuse_faults(&jobs)?;
        if jobs.jobs.is_empty() && self.declared > 0 && !force {
            return Err(format!(
                "the file declares no jobs, which would remove the {} that it declared before; \
                 if that is meant, use punctual reload --force",
                self.declared
            ));
        }
        // What a running daemon cannot change stays as it is, and is named.
        let mut restart_needed = self.config.restart_needed(&config);
        if rules.executors != config.executors {
            restart_needed.push("executors".to_owned());
        }
        let jobs = self.declare(rules.clone(), jobs, self.reader.shown(), Occasion::Reload).await;
        let jobs = jobs.map_err(|error| error.to_string())?;
        self.rules.send_replace(Arc::new(rules));
        self.retention.send_replace(config.retention);
        self.mailer.set(config.mail);
        Ok(Reloaded { jobs, restart_needed })
    }

    /// Makes the rules these, and the jobs what the file declares; says how they have changed.
    async fn declare(
        &mut self,
        rules: Rules,
        jobs: files::Declared,
        path: String,
        occasion: Occasion,
    ) -> Result<control::Difference, DeclareError> {
        for (job, why) in files::over(&jobs.jobs, SystemClock.now()) {
            tracing::warn!(%job, "the job is finished: {why}");
        }
        let (count, source) = (jobs.count(), rules.source.to_string());
        let declaration = jobs.declaration();
        let faults = declaration.faults.clone();
        let (handle, archive) = (&self.handle, self.archive.as_ref());
        let done = declare(handle, archive, rules, declaration, occasion).await?;
        self.declared = count + done.kept;
        declared::log(&done, &faults);
        let DeclareReport { difference, refused, .. } = done;
        self.standing.declared(&difference.conflicts);
        let faults = declared::shown(faults.into_iter().chain(refused), &difference.conflicts);
        self.file.send_replace(DeclaredFile { path, source, jobs: count, faults });
        Ok(difference)
    }
}

/// Starts what removes old runs and finished jobs.
fn start_pruner(
    archive: &Arc<dyn Archive>,
    handle: &scheduler::handle::Handle,
    retention: &watch::Sender<Retention>,
    core: &CancellationToken,
    tracker: &TaskTracker,
) {
    let pruner = Pruner::new(Arc::clone(archive), handle.clone(), retention.subscribe());
    tracker.spawn(core.clone().run_until_cancelled_owned(pruner.work()));
}

/// Starts what tells the scheduler to look again: hints of other nodes, and what runs have written.
fn start_hints(
    store: &SqlStore,
    live: LiveRuns,
    (core, doors): (&CancellationToken, &CancellationToken),
    tracker: &TaskTracker,
) -> (mpsc::Receiver<()>, mpsc::Receiver<()>) {
    let (hints_in, hints) = mpsc::channel(1);
    let (outputs_in, outputs) = mpsc::channel(1);
    tracker.spawn(pass_on_hints(store.clone(), hints_in, core.clone()));
    // What runs write while they are waited for at the end is saved, too.
    tracker.spawn(pass_on_growth(live, outputs_in, doors.clone()));
    (hints, outputs)
}

/// Tells the scheduler when the store has something to see.
async fn pass_on_hints(store: SqlStore, hints: mpsc::Sender<()>, shutdown: CancellationToken) {
    loop {
        let hinted = tokio::select! {
            () = shutdown.cancelled() => return,
            hinted = store.wait_for_hint() => hinted,
        };
        match hinted {
            // One that waits already says the same.
            Ok(()) => drop(hints.try_send(())),
            // Without hints, the scheduler finds by itself what there is to see, a little later.
            Err(error) => {
                tracing::debug!(%error, "hints of other nodes cannot be heard");
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(HINT_PAUSE) => {}
                }
            }
        }
    }
}

/// Tells the scheduler when runs have written something that is not saved.
async fn pass_on_growth(live: LiveRuns, outputs: mpsc::Sender<()>, doors: CancellationToken) {
    while doors.run_until_cancelled(live.grown()).await.is_some() {
        match outputs.try_send(()) {
            // A hint that waits already says the same.
            Ok(()) | Err(TrySendError::Full(())) => {}
            Err(TrySendError::Closed(())) => return,
        }
    }
}
