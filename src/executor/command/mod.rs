//! Commands: each a child process in a group of its own, its output read as it comes.
//!
//! Most are started by `posix_spawn`, which costs the same however much memory the daemon has. What that cannot set
//! (a user, limits, a cgroup) is set by this program itself, which then becomes the command: see [`shim`].

mod cgroup;
mod cost;
mod drain;
mod environment;
mod given;
mod identity;
mod leftovers;
mod order;
mod outcome;
mod output;
mod process;
mod records;
mod running;
mod shim;
mod spawn;
mod start;
mod stat;

pub(super) use environment::is_daemons_own;
pub use identity::Privileges;
pub use leftovers::end_leftovers;
pub use shim::exec;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Rlimit;

use super::confidential::Confidential;
use super::report::{Ended, Shared};
use super::shortage::Shortage;
use super::{Assignment, STOPPED};
use crate::job::Command;
use crate::run::{Execution, Outcome};
use crate::task::cancellation::Ending;
use crate::task::context::Context;
use cgroup::{Cgroup, Cgroups};
use drain::Drains;
use records::Records;

/// How long a command that the stop of the daemon interrupts is given to end, at most.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// What commands are started with.
#[derive(Debug, Clone)]
pub(super) struct Commands {
    /// This program, which becomes the command once it has set what the command wants.
    shim: PathBuf,
    /// Variables of the daemon that only those commands get which name them.
    pub(super) secrets: Confidential,
    /// Variables of the daemon that commands get, unless they are withheld.
    inherited: BTreeMap<OsString, OsString>,
    /// Open files of a command, where that is not the limit of the daemon itself.
    files: Option<Rlimit>,
    cgroups: Option<Arc<Cgroups>>,
    records: Option<Arc<Records>>,
    drains: Drains,
}

impl Commands {
    /// This is the program that commands are started through where they need it.
    pub(super) fn new(shim: PathBuf) -> Self {
        Self {
            shim,
            secrets: Confidential::complete_from_the_start(),
            inherited: environment::inherited(),
            files: None,
            cgroups: Cgroups::find().map(Arc::new),
            records: None,
            drains: Drains::default(),
        }
    }

    /// The same, through another program.
    pub(super) fn through(self, shim: PathBuf) -> Self {
        Self { shim, ..self }
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

    /// Ends what a daemon that died has left over of these attempts; how many processes are known to have been killed.
    pub(super) fn end_leftovers(&self, executions: &[Execution]) -> usize {
        if let Some(cgroups) = &self.cgroups {
            for execution in executions {
                cgroups.kill(execution);
            }
        }
        end_leftovers(executions)
    }

    /// A cgroup for a run, if the daemon may make one.
    fn cgroup(&self, assignment: &Assignment) -> Option<Cgroup<'_>> {
        match self.cgroups.as_ref()?.make(&assignment.execution()) {
            Ok(cgroup) => Some(cgroup),
            Err(error) => {
                tracing::warn!(%error, "a run goes without a cgroup of its own");
                None
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
        let (outcome, cost) = running.finish(command).await;
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
