//! Phase 2 of a daemon's life: the start, from the control socket to the declared jobs.
//!
//! The socket answers first, with 503 and the reason, so that programs which wait for the daemon are not blocked by a
//! database server that is away. The start waits for the server. An error that does not go away by itself, such as a
//! wrong password or a newer schema, ends the start.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

use super::config_loader::ConfigLoader;
use super::context::DaemonContext;
use super::service_manager;
use super::settings::{self, DaemonSettings};
use super::signals::{SignalRequest, Signals};
use super::startup_error::{StartupError, refused, unusable};
use crate::cli::CliError;
use crate::clock::SystemClock;
use crate::control::condition::{Condition, ConditionKind, ReportedConditions};
use crate::control::socket_watch::{self, SocketGuard};
use crate::control::{self, OpeningStore, Routes, StartStage};
use crate::scheduler::declare::DeclareError;
use crate::scheduler::request::RequestError;
use crate::server;
use crate::store::StoreError;
use crate::store::sql::{self, SqlStore};

/// Time between two attempts.
const PAUSE: Duration = Duration::from_secs(1);
/// The service manager is told that the daemon is ready after this time even if the start is not over: its socket
/// answers, and a migration or a long file of jobs must not look like a daemon that hangs. This is below
/// `TimeoutStartSec=` of the unit.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// A start in progress. It owns the stage that requests and the service manager see.
#[derive(Debug)]
pub(super) struct Startup {
    stage: watch::Sender<StartStage>,
    /// Conditions that parts of the daemon report. One of them says that the daemon is starting.
    pub(super) noted: ReportedConditions,
    /// When the service manager will be told that the daemon is ready; `None` once it was.
    ready_at: Option<Instant>,
}

/// Serves `/metrics`, `/healthz` and `/readyz` at a TCP address until the servers are stopped.
fn listen_for_monitors(
    address: SocketAddr,
    routes: Routes,
    context: &DaemonContext,
) -> Result<(), CliError> {
    let fail = |error: std::io::Error| {
        refused(&format!("control.metrics_listen: cannot listen at {address}: {error}"))
    };
    let listener = std::net::TcpListener::bind(address).map_err(fail)?;
    listener.set_nonblocking(true).map_err(fail)?;
    let listener = TcpListener::from_std(listener).map_err(fail)?;
    let address = listener.local_addr().map_err(fail)?;
    tracing::info!(%address, "metrics");
    let routes = control::monitoring::monitoring(routes, address);
    let limits = control::monitoring::LIMITS;
    let stop = context.stop_servers.clone().cancelled_owned();
    context.tracker.spawn(async move {
        server::serve(listener, routes, limits, control::wording, stop).await;
    });
    Ok(())
}

/// An error of an operation on the store that may pass.
pub(super) trait StoreCallError {
    /// The reason, if the store is only unavailable for a while.
    fn unavailable(&self) -> Option<String>;

    /// How the start ends if the store is not only unavailable.
    fn failure(&self) -> CliError;
}

impl StoreCallError for StoreError {
    fn unavailable(&self) -> Option<String> {
        match self {
            Self::Unavailable(why) => Some(why.clone()),
            // Other nodes were faster, several times in a row.
            Self::Conflict(_) => Some(self.to_string()),
            Self::Rejected(_) | Self::Unusable(_) | Self::Refused(_) => None,
        }
    }

    fn failure(&self) -> CliError {
        if let Self::Refused(_) = self { unusable(self) } else { refused(self) }
    }
}

impl StoreCallError for DeclareError {
    fn unavailable(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.unavailable(),
            Self::Refused(RequestError::Unavailable(why)) => Some(why.clone()),
            Self::Refused(_) | Self::Rejected { .. } | Self::Conflict { .. } => None,
        }
    }

    fn failure(&self) -> CliError {
        refused(self)
    }
}

impl Startup {
    /// Creates the control socket and answers at it until the servers are stopped. Dropping the [`SocketGuard`] removes
    /// the file of the socket.
    pub(super) fn listen(
        settings: &DaemonSettings,
        context: &DaemonContext,
    ) -> Result<(Self, SocketGuard), CliError> {
        let opening = OpeningStore {
            info: context.info(&settings.config)?,
            rules: settings.rules.clone(),
            declared: settings.declared.clone(),
            store_error: None,
        };
        let (listener, file, watcher) =
            socket_watch::listen(&context.socket, settings.config.socket_mode)
                .map_err(|error| refused(&error))?;
        let noted = ReportedConditions::default();
        context.spawn_until_end(watcher.watch(noted.clone(), Arc::new(SystemClock)));
        let (stage, stages) = watch::channel(StartStage::Opening(Arc::new(opening)));
        let router = control::gated(stages, Arc::new(SystemClock));
        if let Some(address) = settings.config.metrics_listen {
            listen_for_monitors(address, router.clone(), context)?;
        }
        let limits = control::listener::LIMITS;
        let stop = context.stop_servers.clone().cancelled_owned();
        context.tracker.spawn(async move {
            server::serve(listener, router, limits, control::wording, stop).await;
        });
        let ready_at = Some(Instant::now() + READY_WITHIN);
        Ok((Self { stage, noted, ready_at }, file))
    }

    /// Opens the store of the settings once it is available. Until then SIGHUP reloads the configuration file, and the
    /// latest settings are used.
    pub(super) async fn open_store(
        &mut self,
        mut settings: DaemonSettings,
        loader: &ConfigLoader,
        context: &DaemonContext,
        signals: &mut Signals,
    ) -> Result<(DaemonSettings, SqlStore), StartupError> {
        loop {
            let reaching = self.patiently(Box::pin(sql::reach(&settings.store)));
            let opened = match signals.unless_stopped(reaching).await? {
                Ok(()) => {
                    // This must not be cancelled by a signal: it may be changing the schema.
                    let opening = Box::pin(SqlStore::open(&settings.store));
                    self.patiently(context.pulse.store_call(opening)).await
                }
                Err(error) => Err(error),
            };
            match opened {
                Ok(store) => {
                    self.set_unavailable(None);
                    return Ok((settings, store));
                }
                Err(error) => match error.unavailable() {
                    Some(why) => self.set_unavailable(Some(why)),
                    None => return Err(error.failure().into()),
                },
            }
            tokio::select! {
                request = signals.next() => match request {
                    SignalRequest::Stop => return Err(StartupError::Stopped),
                    SignalRequest::Reload => {
                        settings = self.reload(settings, loader, signals).await?;
                    }
                },
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// Does something on the open store, and repeats it while the store is unavailable. A reload that is requested in the
    /// meantime is remembered for later.
    pub(super) async fn retry<T, E: StoreCallError>(
        &mut self,
        signals: &mut Signals,
        mut attempt: impl AsyncFnMut() -> Result<T, E>,
    ) -> Result<T, StartupError> {
        loop {
            match signals.unless_stopped(self.patiently(Box::pin(attempt()))).await? {
                Ok(done) => {
                    self.set_unavailable(None);
                    return Ok(done);
                }
                Err(error) => match error.unavailable() {
                    Some(why) => self.set_unavailable(Some(why)),
                    None => return Err(error.failure().into()),
                },
            }
            signals.unless_stopped(tokio::time::sleep(PAUSE)).await?;
        }
    }

    /// The store is open: requests about the daemon are answered from now on.
    pub(super) fn set_declaring(&self, routes: Routes) {
        let message = "the jobs of the file are being declared";
        self.noted.set(Condition::new(ConditionKind::Starting, message, None));
        self.stage.send_replace(StartStage::Declaring { routes, store_error: None });
    }

    /// The jobs of the file are declared: all requests are answered from now on.
    pub(super) fn set_up(&self) {
        self.stage.send_modify(|stage| {
            if let StartStage::Declaring { routes, .. } = stage {
                *stage = StartStage::Up(routes.clone());
            }
        });
        self.noted.clear(ConditionKind::Starting);
    }

    /// Awaits `work`. If that takes long, the service manager is told in the meantime that the daemon is ready.
    async fn patiently<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        if let Some(at) = self.ready_at {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep_until(at) => {
                    let reason = self.stage.borrow().reason();
                    self.notify(&reason.unwrap_or_default());
                }
            }
        }
        work.await
    }

    fn notify(&mut self, status: &str) {
        match self.ready_at.take() {
            Some(_) => service_manager::ready(status),
            None => service_manager::status(status),
        }
    }

    /// Records why the store is unavailable, or that it is available.
    fn set_unavailable(&mut self, why: Option<String>) {
        let has_changed = self.stage.send_if_modified(|stage| {
            let store_error = match stage {
                StartStage::Opening(opening) => &mut Arc::make_mut(opening).store_error,
                StartStage::Declaring { store_error, .. } => store_error,
                StartStage::Up(_) => return false,
            };
            let has_changed = *store_error != why;
            store_error.clone_from(&why);
            has_changed
        });
        match why {
            Some(error) if has_changed => {
                tracing::warn!(%error, "the store is not available yet; waiting for it");
                self.notify(&format!("waiting for the store: {error}"));
            }
            None if has_changed => {
                tracing::info!("the store is available");
                self.notify("the store is available; starting");
            }
            Some(_) | None => {}
        }
    }

    /// Reads the file again before the store is open. The old settings stay in force if the file is faulty.
    async fn reload(
        &mut self,
        settings: DaemonSettings,
        loader: &ConfigLoader,
        signals: &mut Signals,
    ) -> Result<DaemonSettings, StartupError> {
        service_manager::reloading();
        let config = signals.unless_stopped(loader.load(Ok)).await?;
        let new = config.map_err(CliError::from).and_then(|config| {
            let new = DaemonSettings::check(config, loader.path())?;
            new.jobs()?.refuse_faults().map_err(CliError::Refused)?;
            Ok(new)
        });
        let settings = match new {
            Ok(new) => {
                let needed = settings.config.restart_needed(&new.config);
                if needed.iter().any(|table| table == "control") {
                    tracing::warn!(
                        "the configuration was reloaded; [control] takes effect only after a restart"
                    );
                } else {
                    tracing::info!("the configuration was reloaded");
                }
                control::audit::reload_by_signal();
                new
            }
            Err(error) => {
                tracing::error!(%error, "the configuration is faulty; the old one stays in force");
                settings
            }
        };
        let place = settings::store_place(&settings.config, Path::new(""));
        let place = place.map(|place| place.to_string()).unwrap_or_default();
        self.stage.send_modify(|stage| {
            let StartStage::Opening(opening) = stage else { return };
            let OpeningStore { info, rules, declared, .. } = Arc::make_mut(opening);
            info.store = place;
            rules.clone_from(&settings.rules);
            declared.clone_from(&settings.declared);
        });
        let reason = self.stage.borrow().reason();
        service_manager::ready(&reason.unwrap_or_default());
        Ok(settings)
    }
}
