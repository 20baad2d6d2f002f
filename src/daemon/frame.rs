//! What every part of a daemon shares: its identity, the socket that it listens on, and how its tasks are ended.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::files;
use super::serve::{refused, unusable};
use super::start::Plan;
use super::watchdog;
use crate::cli::CliError;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::control::{self, LogFilter};
use crate::scheduler::NodeIdentity;
use crate::scheduler::pulse::Pulse;
use crate::zone::Zone;

/// What every part of a daemon shares.
pub(super) struct Frame {
    pub(super) identity: NodeIdentity,
    /// Where it listens.
    pub(super) socket: PathBuf,
    pub(super) pulse: Pulse,
    /// Ends the core, which ends first.
    pub(super) core: CancellationToken,
    /// Ends the servers. They are ended after the core, so that they can report on the stop.
    pub(super) doors: CancellationToken,
    pub(super) tracker: TaskTracker,
    pub(super) log: Arc<dyn LogFilter>,
}

impl Frame {
    /// The frame of a daemon that is about to start.
    pub(super) fn new(
        plan: &Plan,
        socket: Option<PathBuf>,
        log: Arc<dyn LogFilter>,
    ) -> Result<Self, CliError> {
        Ok(Self {
            identity: NodeIdentity {
                node: node_name().into(),
                started_at: SystemClock.now(),
                seed: seed(),
                lease: plan.config.lease,
            },
            socket: plan.config.listens_at(socket).map_err(|invalid| unusable(&invalid))?,
            pulse: watchdog::start().map_err(|error| refused(&error))?,
            core: CancellationToken::new(),
            doors: CancellationToken::new(),
            tracker: TaskTracker::new(),
            log,
        })
    }

    /// The facts that the control socket tells of this daemon.
    pub(super) fn facts(&self, config: &Config) -> Result<control::DaemonInfo, CliError> {
        let Self { identity, socket, .. } = self;
        Ok(control::DaemonInfo {
            node: identity.node.to_string(),
            started_at: identity.started_at,
            socket: std::path::absolute(socket).unwrap_or_else(|_| socket.to_owned()),
            store: files::store_place(config, Path::new(""))?.to_string(),
            zone_source: Zone::source(),
        })
    }
}

/// The machine, the process and a number: what tells one daemon from another, also in containers, where machines and
/// processes may have the same names again and again.
fn node_name() -> String {
    let machine = rustix::system::uname();
    let process = std::process::id();
    format!("{}:{process}:{:04x}", machine.nodename().to_string_lossy(), seed() & 0xffff)
}

/// A number that no other daemon has.
fn seed() -> u64 {
    let random = uuid::Uuid::now_v7();
    random.as_u64_pair().1
}
