//! What every part of a daemon shares, from the start to the stop.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::settings::{self, DaemonSettings};
use super::startup_error::{refused, unusable};
use super::watchdog;
use crate::cli::CliError;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::control::{self, LogFilter};
use crate::scheduler::NodeIdentity;
use crate::scheduler::pulse::Pulse;
use crate::zone::Zone;

/// What every part of a daemon shares.
pub(super) struct DaemonContext {
    pub(super) identity: NodeIdentity,
    /// The path of the control socket.
    pub(super) socket: PathBuf,
    /// Shows whether the scheduler's loop makes progress.
    pub(super) pulse: Pulse,
    /// Stops the scheduler and the tasks that serve it.
    pub(super) stop_scheduler: CancellationToken,
    /// Stops the servers. This comes after the scheduler has stopped, so that clients can follow the stop.
    pub(super) stop_servers: CancellationToken,
    /// All tasks that must end before the store is closed.
    pub(super) tracker: TaskTracker,
    pub(super) log: Arc<dyn LogFilter>,
}

impl DaemonContext {
    pub(super) fn new(
        settings: &DaemonSettings,
        socket: Option<PathBuf>,
        log: Arc<dyn LogFilter>,
    ) -> Result<Self, CliError> {
        let config = &settings.config;
        Ok(Self {
            identity: NodeIdentity {
                node: node_name().into(),
                started_at: SystemClock.now(),
                seed: seed(),
                lease: config.lease,
            },
            socket: config.listens_at(socket).map_err(|invalid| unusable(&invalid))?,
            pulse: watchdog::start().map_err(|error| refused(&error))?,
            stop_scheduler: CancellationToken::new(),
            stop_servers: CancellationToken::new(),
            tracker: TaskTracker::new(),
            log,
        })
    }

    /// What the control socket shows of this daemon.
    pub(super) fn info(&self, config: &Config) -> Result<control::DaemonInfo, CliError> {
        let Self { identity, socket, .. } = self;
        Ok(control::DaemonInfo {
            node: identity.node.to_string(),
            started_at: identity.started_at,
            socket: std::path::absolute(socket).unwrap_or_else(|_| socket.to_owned()),
            store: settings::store_place(config, Path::new(""))?.to_string(),
            zone_source: Zone::source(),
        })
    }

    /// Runs a task until the scheduler is asked to stop.
    pub(super) fn spawn_until_stop(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(self.stop_scheduler.clone().run_until_cancelled_owned(task));
    }

    /// Runs a task until the servers stop, which is after the last run has ended.
    pub(super) fn spawn_until_end(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(self.stop_servers.clone().run_until_cancelled_owned(task));
    }
}

/// The machine, the process and a random number. Machine and process alone are not unique: in containers both may have
/// the same names again and again.
fn node_name() -> String {
    let machine = rustix::system::uname();
    let process = std::process::id();
    format!("{}:{process}:{:04x}", machine.nodename().to_string_lossy(), seed() & 0xffff)
}

/// A random number.
fn seed() -> u64 {
    let random = uuid::Uuid::now_v7();
    random.as_u64_pair().1
}
