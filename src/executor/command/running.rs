//! A command that was started: it is waited for, ended if asked to, and cleared away until no process of it is left.

use std::io;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::cgroup::process_names;
use super::error::CommandStartError;
use super::launcher::{Launcher, ReapedCommand};
use super::orphans;
use super::outcome::{killed_processes, out_of_memory, outcome, processes};
use super::output::CommandOutput;
use super::process::{Process, cost};
use super::records::CommandRecord;
use super::runner::CommandRunner;
use super::shim::{SharedBlock, ShimResult};
use crate::executor::run::{ExecutorServices, failed};
use crate::executor::shortage::Shortage;
use crate::job::Command;
use crate::run::{Cost, Execution, Outcome};

/// The first and the longest pause between two checks whether processes have ended.
const PAUSES: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(200)];
/// How long processes that a command has left in its cgroup may take to end by themselves, before they get SIGTERM.
const LEFT_LIMIT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct RunningCommand<'a> {
    pub(super) execution: Execution,
    pub(super) process: Process,
    pub(super) outputs: CommandOutput<'a>,
    /// The handshake with its shim, if it has one.
    pub(super) block: Option<SharedBlock>,
    /// The launcher that has started it in a cgroup of its own, if the daemon may make one.
    pub(super) launcher: Option<Launcher>,
    /// Lets the next daemon find it if this one crashes.
    pub(super) record: Option<CommandRecord<'a>>,
    pub(super) runner: &'a CommandRunner,
    pub(super) services: &'a ExecutorServices,
}

impl RunningCommand<'_> {
    /// Waits for the end of the command itself, and reads its output meanwhile. Cancel-safe.
    pub(super) async fn exited(&mut self) {
        let exited = tokio::select! {
            biased;
            exited = exited(&self.process, self.launcher.as_ref()) => exited,
            () = self.outputs.read_all() => exited(&self.process, self.launcher.as_ref()).await,
        };
        if let Err(error) = exited {
            tracing::warn!(run = %self.execution.0.0, %error, "a command could not be waited for");
        }
    }

    /// Sends SIGTERM to the whole group, gives it time, then kills whatever belongs to the run.
    pub(super) async fn end_tree(&mut self, grace: Duration) {
        let deadline = Instant::now() + grace;
        if self.signal(Signal::TERM) {
            if timeout_at(deadline, self.exited()).await.is_ok() {
                self.wait_for_group(deadline).await;
            }
            if Instant::now() >= deadline {
                tracing::warn!(
                    pid = self.process.pid.as_raw_pid(),
                    run = %self.execution.0.0,
                    "a command did not end when asked to, and is killed"
                );
            }
        }
        if !self.signal(Signal::KILL)
            && let Some(launcher) = &self.launcher
        {
            // This kills the launcher too, and needs no right except to write to the cgroup.
            launcher.cgroup.kill();
        }
        if self.launcher.is_none() {
            self.kill_escaped().await;
        }
        self.exited().await;
    }

    /// Sends a signal to the group, and returns whether that was possible. The command has not been reaped, even if it has
    /// ended, so the id is still that of its group, unless its launcher is gone.
    fn signal(&self, signal: Signal) -> bool {
        if !self.launcher.as_ref().is_none_or(Launcher::is_alive) {
            return true;
        }
        let sent = self.process.signal(signal);
        if let Err(error) = &sent {
            tracing::warn!(
                %error,
                signal = signal.as_raw(),
                pid = self.process.pid.as_raw_pid(),
                run = %self.execution.0.0,
                "a signal could not be sent to a command (for another user's command, the daemon needs CAP_KILL)"
            );
        }
        sent.is_ok()
    }

    /// Waits until the other processes of the run have ended too, or their time is over.
    async fn wait_for_group(&mut self, deadline: Instant) {
        let [mut pause, longest] = PAUSES;
        while Instant::now() < deadline && self.has_others().await {
            let until = deadline.min(Instant::now() + pause);
            self.read_until(until).await;
            pause = longest.min(pause * 2);
        }
    }

    async fn read_until(&mut self, until: Instant) {
        // The output is read so that no process blocks on a full pipe. Its end does not matter here.
        if timeout_at(until, self.outputs.read_all()).await.is_ok() {
            sleep_until(until).await;
        }
    }

    /// Whether another process than the command itself lives in its session or cgroup.
    async fn has_others(&self) -> bool {
        let session = self.process.pid;
        if let Some(launcher) = &self.launcher {
            return !launcher.cgroup.others(&[launcher.pid, session]).is_empty();
        }
        let search = move || orphans::has_others(session);
        self.services.clients.blocking.run(search).await.unwrap_or(false)
    }

    /// Kills processes of the run that have left its group.
    async fn kill_escaped(&self) {
        let (execution, session) = (self.execution.clone(), self.process.pid);
        let killing = move || orphans::kill_run(&execution, session);
        match self.services.clients.blocking.run(killing).await {
            Ok(0) => {}
            Ok(count) => tracing::debug!(count, "processes that had left their group were killed"),
            Err(error) => {
                tracing::warn!(run = %self.execution.0.0, %error, "the processes of a run could not be searched for");
            }
        }
    }

    /// The shortage for which the shim of a command that has ended could not execute it, if there was one.
    pub(super) fn shortage(&self) -> Option<Shortage> {
        match self.block.as_ref()?.result() {
            ShimResult::Refused(CommandStartError { error, is_shortage: true, .. }) => {
                Some(Shortage(error))
            }
            ShimResult::Refused(_) | ShimResult::Executed | ShimResult::Silent => None,
        }
    }

    /// The outcome of a command that has ended, and its cost. Processes that it has left in its cgroup get SIGTERM, and
    /// SIGKILL after `grace`.
    pub(super) async fn finish(mut self, command: &Command, grace: Duration) -> (Outcome, Cost) {
        let (outcome, cost) = self.reap(command).await;
        let outcome = self.explain_kill(outcome, command);
        self.clear_cgroup(grace).await;
        drop(self.record);
        self.outputs.read_rest().await;
        for pipe in self.outputs.take_open() {
            self.runner.drains.take(pipe, &self.services.runtime);
        }
        (outcome, cost)
    }

    /// Reaps the command, which has ended, or learns that its launcher has.
    async fn reap(&mut self, command: &Command) -> (Outcome, Cost) {
        let reaped = match &mut self.launcher {
            None => {
                let ended = self.process.reap().await;
                ended.map(|ended| (ended.status, cost(&ended.rusage)))
            }
            Some(launcher) => {
                let reaped = launcher.reap().await;
                self.process.forget();
                reaped.map(|ReapedCommand { status, cost }| (status, cost))
            }
        };
        match reaped {
            Ok((status, cost)) => (outcome(status, command, self.block.as_ref()), cost),
            Err(error) => {
                (failed(format!("the command could not be waited for: {error}")), Cost::default())
            }
        }
    }

    /// If processes of the run were killed for lack of memory, says so in the error of a failed run, or in the output of
    /// another one: a command may go on without a process that it has started, and succeed.
    fn explain_kill(&self, outcome: Outcome, command: &Command) -> Outcome {
        let count = self.launcher.as_ref().map_or(0, Launcher::oom_kills);
        if count == 0 {
            return outcome;
        }
        let limits = command.limits.as_ref();
        let limit = limits.and_then(|limits| limits.total_memory.as_ref());
        if !matches!(outcome, Outcome::Failed { .. }) {
            tracing::warn!(
                run = %self.execution.0.0,
                count,
                "processes of a command were killed: out of memory"
            );
            self.outputs.note(&format!("punctual: {}", killed_processes(count, limit)));
        }
        out_of_memory(outcome, limit)
    }

    /// Ends the processes that are left in the command's cgroup, and gives its launcher back if that can be used again.
    async fn clear_cgroup(&mut self, grace: Duration) {
        let Some(mut launcher) = self.launcher.take() else { return };
        if launcher.is_alive() && !grace.is_zero() {
            self.wait_until_alone(&mut launcher, LEFT_LIMIT).await;
            let left = launcher.cgroup.others(&[launcher.pid]);
            if !left.is_empty() {
                self.report_left_behind(&left);
                launcher.cgroup.terminate(&left);
                self.wait_until_alone(&mut launcher, grace).await;
            }
        }
        if launcher.is_alive() && launcher.is_alone() {
            self.runner.give_back(launcher);
            return;
        }
        launcher.cgroup.kill_and_wait().await;
    }

    /// Waits until the launcher is alone in its cgroup, at most this long.
    async fn wait_until_alone(&mut self, launcher: &mut Launcher, limit: Duration) {
        let deadline = Instant::now() + limit;
        let [mut pause, longest] = PAUSES;
        while !launcher.is_alone() && Instant::now() < deadline {
            self.read_until(deadline.min(Instant::now() + pause)).await;
            pause = longest.min(pause * 2);
        }
    }

    /// Reports in the log and in the run's output which processes its command has left behind.
    fn report_left_behind(&self, left: &[Pid]) {
        let (count, names) = (left.len(), process_names(left));
        tracing::warn!(
            run = %self.execution.0.0,
            count,
            %names,
            "a command has left processes behind, which are ended"
        );
        let processes = processes(count);
        self.outputs.note(&format!(
            "punctual: ending {processes} that the command has left behind: {names}"
        ));
    }
}

/// Waits until the command has ended, or its launcher, which alone can reap the command. Cancel-safe.
async fn exited(process: &Process, launcher: Option<&Launcher>) -> io::Result<()> {
    let Some(launcher) = launcher else { return process.exited().await };
    tokio::select! {
        biased;
        exited = process.exited() => exited,
        _ = launcher.ended() => Ok(()),
    }
}
