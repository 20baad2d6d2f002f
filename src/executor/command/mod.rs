//! Commands: each a child process in a group of its own, its output read as it comes.
//!
//! Most are started by `posix_spawn`, which costs the same however much memory the daemon has. What that cannot set
//! (a user, limits, a cgroup) is set by this program itself, which then becomes the command: see [`shim`].

mod cgroup;
mod cost;
mod delegation;
mod drain;
mod environment;
mod given;
mod identity;
mod launcher;
mod leftovers;
mod order;
mod outcome;
mod output;
mod privileges;
mod process;
mod records;
mod requester;
mod running;
mod shim;
mod spawn;
mod start;
mod stat;

pub use delegation::Controllers;
pub(super) use environment::is_daemons_own;
pub use launcher::launch;
pub use leftovers::end_leftovers;
pub use privileges::Privileges;
pub use shim::exec;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Rlimit;

use super::confidential::Confidential;
use super::report::{Ended, Shared};
use super::shortage::{Shortage, is_shortage};
use super::{Assignment, STOPPED};
use crate::job::{Command, Limits};
use crate::run::Outcome;
use crate::task::cancellation::Ending;
use crate::task::context::Context;
use drain::Drains;
use launcher::{Launcher, Launchers, Program};
use order::Refusal;
use records::Records;

/// How long a command that the stop of the daemon interrupts is given to end, at most.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// What commands are started with.
#[derive(Debug, Clone)]
pub(super) struct Commands {
    /// This program, which becomes the command once it has set what the command wants.
    shim: PathBuf,
    /// The user of commands that name none, where that is not the daemon's own.
    default_user: Option<String>,
    /// Variables of the daemon that only those commands get which name them.
    pub(super) secrets: Confidential,
    /// Variables of the daemon that commands get, unless they are withheld.
    inherited: BTreeMap<OsString, OsString>,
    /// Open files of a command, where that is not the limit of the daemon itself.
    files: Option<Rlimit>,
    /// What starts commands in cgroups of their own, where the daemon may make some.
    launchers: Option<Arc<Launchers>>,
    records: Option<Arc<Records>>,
    drains: Drains,
}

impl Commands {
    /// This is the program that commands are started through where they need it.
    pub(super) fn new(shim: PathBuf) -> Self {
        Self {
            shim,
            default_user: None,
            secrets: Confidential::complete_from_the_start(),
            inherited: environment::inherited(),
            files: None,
            launchers: Launchers::find(),
            records: None,
            drains: Drains::default(),
        }
    }

    /// The same, through another program.
    pub(super) fn through(self, shim: PathBuf) -> Self {
        Self { shim, ..self }
    }

    /// The same, with this user for commands that name none.
    pub(super) fn running_as(self, default_user: Option<String>) -> Self {
        Self { default_user, ..self }
    }

    /// The same, and commands do not get these variables of the daemon.
    pub(super) fn keeping_secrets(self, secrets: Confidential) -> Self {
        Self { secrets, ..self }
    }

    /// The same, with this limit of open files for commands.
    pub(super) fn limiting_files(self, files: Rlimit) -> Self {
        Self { files: Some(files), ..self }
    }

    /// The same, and the commands that run are noted in this file. Those that a daemon which died has left in it are
    /// ended now.
    pub(super) fn noting(self, file: &Path) -> Self {
        let records = Records::open(file).map(Arc::new).inspect_err(|error| {
            tracing::warn!(%error, file = %file.display(), "running commands are not noted, and some could not be found after a crash");
        });
        Self { records: records.ok(), ..self }
    }

    /// Takes back a launcher whose command has ended, with nothing of it left.
    fn give_back(&self, launcher: Launcher) {
        if let Some(launchers) = &self.launchers {
            launchers.give_back(launcher);
        }
    }

    /// Ends the launchers, when no command runs any more.
    pub(super) async fn close(&self) {
        if let Some(launchers) = &self.launchers {
            launchers.close().await;
        }
    }

    /// What starts the command in a cgroup of its own, if the daemon may make one. Only a limit of the whole run makes it
    /// necessary.
    async fn launcher(&self, command: &Command) -> Result<Option<Launcher>, Refusal> {
        let limits = command.limits.as_ref();
        let launchers = self.launchers.as_ref();
        let controllers = launchers.map_or_else(Controllers::default, |all| all.controllers());
        if let Some(limits) = limits {
            controllers
                .check(limits)
                .map_err(|invalid| Refusal::permanent(invalid.within("limits").to_string()))?;
        }
        let Some(launchers) = launchers else { return Ok(None) };
        let files = self.files.and_then(|limit| limit.current);
        let program = Program { path: self.shim.clone(), files };
        match launchers.take(&program, limits).await {
            Ok(launcher) => Ok(Some(launcher)),
            Err(error) if is_shortage(&error) || limits.is_some_and(Limits::are_of_the_run) => {
                Err(start::no_means(&error))
            }
            Err(error) => {
                tracing::warn!(%error, "a run goes without a cgroup of its own");
                Ok(None)
            }
        }
    }

    /// Runs a command to its end, or ends all its processes when it is cancelled. While the system has no place for it,
    /// nothing has begun.
    pub(super) async fn execute(
        &self,
        command: &Command,
        assignment: &Assignment,
        context: &Context,
        shared: &Shared,
    ) -> Result<Ended, Shortage> {
        let started = tokio::select! {
            biased;
            started = start::start(self, command, assignment, context, shared) => started,
            // A secret may stand in a file that does not answer.
            ending = context.cancellation.cancelled() => return Ok(Outcome::from(ending).into()),
        };
        let mut running = match started {
            Ok(running) => running,
            Err(refusal) if refusal.is_shortage => return Err(Shortage(refusal.error)),
            Err(refusal) => return Ok(Outcome::from(refusal).into()),
        };
        let ending = tokio::select! {
            biased;
            () = running.exited() => None,
            ending = context.cancellation.cancelled() => Some(ending),
        };
        let shortage = if let Some(ending) = &ending {
            running.end_tree(grace(command, ending)).await;
            None
        } else {
            running.shortage()
        };
        let left_grace = match &ending {
            None => command.kill_grace().min(STOP_GRACE),
            // Everything has had its time.
            Some(_) => Duration::ZERO,
        };
        let (outcome, cost) = running.finish(command, left_grace).await;
        match shortage {
            Some(shortage) => Err(shortage),
            None => Ok(Ended { outcome: ending.map_or(outcome, Into::into), cost }),
        }
    }
}

/// Time between the request to end and the end by force: a stop of the daemon waits for nobody for long.
fn grace(command: &Command, ending: &Ending) -> Duration {
    match ending {
        Ending::Cancelled(reason) if reason == STOPPED => command.kill_grace().min(STOP_GRACE),
        Ending::Cancelled(_) | Ending::TimedOut(_) => command.kill_grace(),
    }
}
