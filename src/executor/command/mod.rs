//! Commands: each a child process in a group of its own, its output read as it comes.
//!
//! Most are started by `posix_spawn`, which costs the same however much memory the daemon has. What that cannot set
//! (a user, limits, a cgroup) is set by this program itself, which then becomes the command: see [`shim`].

mod cgroup;
mod cost;
mod given;
mod leftovers;
mod order;
mod outcome;
mod output;
mod process;
mod running;
mod shim;
mod start;

pub use leftovers::end_leftovers;
pub use shim::exec;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::report::Ended;
use super::{Assignment, STOPPED};
use crate::clock::Clock;
use crate::job::Command;
use crate::run::Outcome;
use crate::task::cancellation::Ending;
use crate::task::context::Context;
use cgroup::{Cgroup, Cgroups};

/// How long a command that the stop of the daemon interrupts is given to end, at most.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// What commands are started with.
#[derive(Debug, Clone)]
pub(super) struct Commands {
    /// This program, which becomes the command once it has set what the command wants.
    shim: PathBuf,
    /// Variables of the daemon that commands do not get.
    withheld: Vec<String>,
    cgroups: Option<Arc<Cgroups>>,
}

impl Commands {
    /// This is the program that commands are started through where they need it.
    pub(super) fn new(shim: PathBuf) -> Self {
        Self { shim, withheld: Vec::new(), cgroups: Cgroups::find().map(Arc::new) }
    }

    /// The same, through another program.
    pub(super) fn through(self, shim: PathBuf) -> Self {
        Self { shim, ..self }
    }

    /// The same, and commands do not get these variables of the daemon.
    pub(super) fn without(self, withheld: Vec<String>) -> Self {
        Self { withheld, ..self }
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

    /// Runs a command to its end, or ends all its processes when it is cancelled.
    pub(super) async fn execute(
        &self,
        command: &Command,
        assignment: &Assignment,
        context: &Context,
        clock: &Arc<dyn Clock>,
    ) -> Ended {
        let started = tokio::select! {
            biased;
            started = start::start(self, command, assignment, context, clock) => started,
            // A secret may stand in a file that does not answer.
            ending = context.cancellation.cancelled() => return Outcome::from(ending).into(),
        };
        let mut running = match started {
            Ok(running) => running,
            Err(refusal) => return Outcome::from(refusal).into(),
        };
        let ending = tokio::select! {
            biased;
            () = running.exited() => None,
            ending = context.cancellation.cancelled() => Some(ending),
        };
        if let Some(ending) = &ending {
            running.end_tree(grace(command, ending)).await;
        }
        let (outcome, cost) = running.finish(command).await;
        Ended { outcome: ending.map_or(outcome, Into::into), cost }
    }
}

/// Time between the request to end and the end by force: a stop of the daemon waits for nobody for long.
fn grace(command: &Command, ending: &Ending) -> Duration {
    match ending {
        Ending::Cancelled(reason) if reason == STOPPED => command.kill_grace().min(STOP_GRACE),
        Ending::Cancelled(_) | Ending::TimedOut(_) => command.kill_grace(),
    }
}
