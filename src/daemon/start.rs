//! A start, from the control socket to the open store. The socket answers first, with 503 and the reason, so that
//! nothing that waits for the daemon is held up by a database server that is away. The start waits for the server. An
//! error that does not go away by itself, such as a wrong password or a newer schema, ends the start.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::app::App;
use super::declared;
use super::files::{self, Reader};
use super::notify;
use super::serve::{refused, unusable};
use super::signals::{Asked, Signals};
use crate::cli::CliError;
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config, ConfigError};
use crate::control::condition::{Condition, ConditionKind, ReportedConditions};
use crate::control::socket_watch::{self, SocketGuard};
use crate::control::{self, DeclaredFile, OpeningStore, Routes, StartStage};
use crate::executor::Privileges;
use crate::scheduler::admission::Rules;
use crate::scheduler::declare::DeclareError;
use crate::scheduler::pulse::Pulse;
use crate::scheduler::request::RequestError;
use crate::server;
use crate::store::StoreError;
use crate::store::sql::{self, SqlStore, StoreUrl};

/// Time between two tries.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a start may take before the service manager is told that the daemon is ready all the same: its socket
/// answers, and a migration or a long file of jobs must not look like a daemon that hangs. Below the unit's
/// `TimeoutStartSec`.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// A start in progress. It owns the stage that requests and the service manager see.
#[derive(Debug)]
pub(super) struct Start {
    stage: watch::Sender<StartStage>,
    /// Says that the daemon is starting, for as long as the stage is not the last one.
    noted: ReportedConditions,
    /// When the service manager is told that the daemon is ready; none once it was.
    ready_at: Option<Instant>,
}

/// An error of an operation on the store that may be temporary.
pub(super) trait Passing {
    /// The reason, if the store is only unavailable for a while.
    fn away(&self) -> Option<String>;
}

impl Passing for StoreError {
    fn away(&self) -> Option<String> {
        match self {
            Self::Unavailable(why) => Some(why.clone()),
            // Other nodes were faster, again and again.
            Self::Conflict(_) => Some(self.to_string()),
            Self::Rejected(_) | Self::Unusable(_) | Self::Refused(_) => None,
        }
    }
}

impl Passing for DeclareError {
    fn away(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.away(),
            Self::Refused(RequestError::Unavailable(why)) => Some(why.clone()),
            Self::Refused(_) | Self::Rejected { .. } | Self::Conflict { .. } => None,
        }
    }
}

/// How the daemon ends if its store cannot be used. Exit code 2 has the service manager not try again: somebody has to
/// change something first.
pub(super) fn unusable_store(error: &StoreError) -> CliError {
    match error {
        StoreError::Refused(_) => CliError::Usage(error.to_string()),
        StoreError::Unavailable(_)
        | StoreError::Conflict(_)
        | StoreError::Rejected(_)
        | StoreError::Unusable(_) => refused(error),
    }
}

impl Start {
    /// Lets the control socket appear, and answers at it until `doors` close. The socket goes with its file.
    pub(super) fn listen(
        (socket, mode): (&Path, u32),
        opening: OpeningStore,
        doors: &CancellationToken,
        tracker: &TaskTracker,
    ) -> Result<(Self, SocketGuard), CliError> {
        let (listener, file, watcher) =
            socket_watch::listen(socket, mode).map_err(|error| refused(&error))?;
        let noted = ReportedConditions::default();
        let keeping = watcher.watch(noted.clone(), Arc::new(SystemClock));
        tracker.spawn(doors.clone().run_until_cancelled_owned(keeping));
        let (stage, stages) = watch::channel(StartStage::Opening(Arc::new(opening)));
        let router = control::gated(stages, Arc::new(SystemClock));
        let wording: server::Wording = control::wording;
        let settings = (control::listener::LIMITS, wording);
        let closed = doors.clone().cancelled_owned();
        tracker.spawn(async move { server::serve(listener, router, settings, closed).await });
        let ready_at = Some(Instant::now() + READY_WITHIN);
        Ok((Self { stage, noted, ready_at }, file))
    }

    /// Opens the store of the plan once it is available. SIGHUP makes the daemon read the file again meanwhile, and the
    /// latest plan is used. None if the daemon was asked to stop before.
    pub(super) async fn open_store(
        &mut self,
        mut plan: Plan,
        reader: &Reader,
        (pulse, signals): (&Pulse, &mut Signals),
    ) -> Option<Result<(Plan, SqlStore), CliError>> {
        loop {
            // An opening must not be given up: it may be changing the schema.
            let reaching = self.patiently(Box::pin(sql::reach(&plan.store)));
            let opened = match signals.unless_stopped(reaching).await? {
                Ok(()) => {
                    let opening = Box::pin(SqlStore::open(&plan.store));
                    self.patiently(pulse.store_call(opening)).await
                }
                Err(error) => Err(error),
            };
            match opened {
                Ok(store) => {
                    self.set_away(None);
                    return Some(Ok((plan, store)));
                }
                Err(error) => match error.away() {
                    Some(why) => self.set_away(Some(why)),
                    None => return Some(Err(unusable_store(&error))),
                },
            }
            tokio::select! {
                asked = signals.next() => match asked {
                    Asked::Stop => return None,
                    Asked::Reload => plan = self.read_again(plan, reader, signals).await?,
                },
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// Does something on the open store, and again while that is away. A reload is remembered for later. None if the
    /// daemon was asked to stop before.
    pub(super) async fn persist<T, E: Passing>(
        &mut self,
        signals: &mut Signals,
        mut attempt: impl AsyncFnMut() -> Result<T, E>,
    ) -> Option<Result<T, E>> {
        loop {
            match signals.unless_stopped(self.patiently(Box::pin(attempt()))).await? {
                Err(error) if let Some(why) = error.away() => self.set_away(Some(why)),
                done => {
                    self.set_away(None);
                    return Some(done);
                }
            }
            signals.unless_stopped(tokio::time::sleep(PAUSE)).await?;
        }
    }

    /// Where conditions of the daemon are noted. The routes show them.
    pub(super) fn noted(&self) -> ReportedConditions {
        self.noted.clone()
    }

    /// The store is open: requests about the daemon get through.
    pub(super) fn declaring(&self, routes: Routes) {
        let message = "the jobs of the file are being declared";
        self.noted.set(Condition::new(ConditionKind::Starting, message, None));
        self.stage.send_replace(StartStage::Declaring { routes, store_error: None });
    }

    /// The jobs of the file are declared: all requests get through, and the daemon is ready.
    pub(super) fn up(&self) {
        self.stage.send_modify(|stage| {
            if let StartStage::Declaring { routes, .. } = stage {
                *stage = StartStage::Up(routes.clone());
            }
        });
        self.noted.clear(ConditionKind::Starting);
    }

    /// Awaits something. If that takes long, the service manager is told meanwhile that the daemon is ready.
    async fn patiently<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        if let Some(at) = self.ready_at {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep_until(at) => {
                    let reason = self.stage.borrow().reason();
                    self.tell(&reason.unwrap_or_default());
                }
            }
        }
        work.await
    }

    fn tell(&mut self, status: &str) {
        match self.ready_at.take() {
            Some(_) => notify::ready(status),
            None => notify::status(status),
        }
    }

    /// The store is away, for this reason, or it is there.
    fn set_away(&mut self, why: Option<String>) {
        let is_news = self.stage.send_if_modified(|stage| {
            let away = match stage {
                StartStage::Opening(opening) => &mut Arc::make_mut(opening).store_error,
                StartStage::Declaring { store_error, .. } => store_error,
                StartStage::Up(_) => return false,
            };
            let is_news = *away != why;
            away.clone_from(&why);
            is_news
        });
        match why {
            Some(error) if is_news => {
                tracing::warn!(%error, "the store is not there yet; waiting for it");
                self.tell(&format!("waiting for the store: {error}"));
            }
            None if is_news => {
                tracing::info!("the store is there");
                self.tell("the store is there; starting");
            }
            Some(_) | None => {}
        }
    }

    /// Makes a plan of the file as it is now; the old one stays if that is faulty. None if the daemon was asked to stop
    /// meanwhile.
    async fn read_again(
        &mut self,
        plan: Plan,
        reader: &Reader,
        signals: &mut Signals,
    ) -> Option<Plan> {
        notify::reloading();
        let read = signals.unless_stopped(reader.read(Ok)).await?;
        let without_faults = |plan: Plan| {
            declared::refuse_faults(&plan.jobs()?).map_err(CliError::Refused)?;
            Ok(plan)
        };
        let plan_of = |config| Plan::of(config, reader.shown());
        let new = read.map_err(CliError::from).and_then(plan_of).and_then(without_faults);
        let plan = match new {
            Ok(new) => {
                let needed = plan.config.restart_needed(&new.config);
                if needed.iter().any(|table| table == "control") {
                    tracing::warn!(
                        "the configuration was read again; control takes effect at the next start only"
                    );
                } else {
                    tracing::info!("the configuration was read again");
                }
                control::audit::reload_by_signal();
                new
            }
            Err(error) => {
                tracing::error!(%error, "the configuration is faulty; the old one stays");
                plan
            }
        };
        let shown = files::store_place(&plan.config, Path::new("")).map(|place| place.to_string());
        self.stage.send_modify(|stage| {
            let StartStage::Opening(opening) = stage else { return };
            let OpeningStore { info, rules, declared, .. } = Arc::make_mut(opening);
            info.store = shown.unwrap_or_default();
            rules.clone_from(&plan.rules);
            declared.clone_from(&plan.declared);
        });
        let reason = self.stage.borrow().reason();
        notify::ready(&reason.unwrap_or_default());
        Some(plan)
    }
}

/// A configuration that was checked as far as that is possible without the store.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) config: Config,
    pub(super) app: App,
    pub(super) rules: Rules,
    pub(super) store: StoreUrl,
    /// What its file declares.
    pub(super) declared: DeclaredFile,
}

impl Plan {
    /// Checks the configuration of the file at this path, also its jobs.
    pub(super) fn of(config: Config, path: String) -> Result<Self, CliError> {
        let state = config::state_directory().map_err(|invalid| unusable(&invalid))?;
        let settings = files::toutiao_settings(&config)?;
        let app = App::new(settings, &state, Arc::new(SystemClock), &Handle::current())
            .map_err(|invalid| config.error(invalid.within("toutiao")))?;
        let rules = files::rules(&config, app.registry(), Privileges::of_this_process())?;
        let store = files::store_place(&config, &state)?;
        let jobs = files::declared_jobs(&config, &rules, SystemClock.now())?;
        let (jobs, faults) = (jobs.count(), jobs.declaration().faults);
        let faults = declared::shown(faults.into_iter(), &[]);
        let declared = DeclaredFile { path, source: rules.source.to_string(), jobs, faults };
        Ok(Self { config, app, rules, store, declared })
    }

    /// What the status shows of a daemon that has not opened the store of this plan.
    pub(super) fn opening(&self, info: control::DaemonInfo) -> OpeningStore {
        let (rules, declared) = (self.rules.clone(), self.declared.clone());
        OpeningStore { info, rules, declared, store_error: None }
    }

    /// The declared jobs, as of now.
    pub(super) fn jobs(&self) -> Result<files::Declared, ConfigError> {
        files::declared_jobs(&self.config, &self.rules, SystemClock.now())
    }
}
