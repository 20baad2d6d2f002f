//! Commands: each is a child process in a session of its own, whose output is read while it is written.
//!
//! [`execute`] is one command from start to end: `start` resolves its environment and stdin and creates the process,
//! `running` waits for it, reads its output and ends it on a cancel or a timeout, `outcome` says what its exit status means.
//!
//! Three kinds of process are involved. All files here run in the daemon, except `shim/child.rs` and `launcher/child.rs`. A command that wants another user,
//! limits or a directory is started through the *shim* (`shim/child.rs`), which sets that on itself and becomes the command.
//! Where the daemon may make cgroups, it has a *launcher* (`launcher/child.rs`) start the command or its shim, so that
//! either is born in a cgroup. What the daemon says to each of them is in `shim/handshake.rs` and `launcher/protocol.rs`.
//!
//! When a run has ended, nothing of it is left: its processes are found by their session, by the variables of the run in
//! their environment (`orphans`), or by their cgroup; after a crash of the daemon, by the file that `records` keeps.

mod cgroup;
mod delegation;
mod environment;
mod error;
mod launcher;
mod orphans;
mod outcome;
mod output;
mod privileges;
mod process;
mod records;
mod run_as;
mod runner;
mod running;
mod shim;
mod spawn;
mod start;

pub use delegation::Controllers;
pub(super) use environment::is_daemons_own;
pub use launcher::launch;
pub use orphans::kill_orphans;
pub use privileges::Privileges;
pub(super) use runner::CommandRunner;
pub use shim::exec;

use std::time::Duration;

use super::assignment::Assignment;
use super::run::{ExecutorServices, RunEnd, STOPPED};
use super::shortage::Shortage;
use crate::job::Command;
use crate::run::Outcome;
use crate::task::context::{Context, Ending};

/// The longest grace time of a command when the daemon stops.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Runs a command to its end, or ends all its processes when it is cancelled or its time is up. A [`Shortage`] means that
/// nothing has begun.
pub(super) async fn execute(
    runner: &CommandRunner,
    command: &Command,
    assignment: &Assignment,
    context: &Context,
    services: &ExecutorServices,
) -> Result<RunEnd, Shortage> {
    let started = tokio::select! {
        biased;
        started = start::start(runner, command, assignment, context, services) => started,
        // A start can hang: the file of a secret may be on a file system that does not answer.
        ending = context.cancellation.cancelled() => return Ok(Outcome::from(ending).into()),
    };
    let mut running = match started {
        Ok(running) => running,
        Err(error) if error.is_shortage => return Err(Shortage(error.error)),
        Err(error) => return Ok(Outcome::from(error).into()),
    };
    let ending = tokio::select! {
        biased;
        () = running.exited() => None,
        ending = context.cancellation.cancelled() => Some(ending),
    };
    let Some(ending) = ending else {
        let shortage = running.shortage();
        let (outcome, cost) = running.finish(command, command.kill_grace().min(STOP_GRACE)).await;
        return shortage.map_or(Ok(RunEnd { outcome, cost }), Err);
    };
    running.end_tree(grace(command, &ending)).await;
    // All processes of the run have had their grace time.
    let (_, cost) = running.finish(command, Duration::ZERO).await;
    Ok(RunEnd { outcome: ending.into(), cost })
}

/// Time between SIGTERM and SIGKILL. A stop of the daemon does not wait for a long grace time.
fn grace(command: &Command, ending: &Ending) -> Duration {
    match ending {
        Ending::Cancelled(reason) if reason == STOPPED => command.kill_grace().min(STOP_GRACE),
        Ending::Cancelled(_) | Ending::TimedOut(_) => command.kill_grace(),
    }
}
