//! A command that was started, until nothing of it is left.

use std::io;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Commands;
use super::cgroup::names;
use super::launcher::{Launcher, Reaped};
use super::order::{Answer, Refusal, Sheet};
use super::outcome::{killed_processes, out_of_memory, outcome, processes};
use super::output::Outputs;
use super::process::Process;
use super::records::Record;
use super::{cost, leftovers};
use crate::executor::report::{Shared, failed};
use crate::executor::shortage::Shortage;
use crate::job::Command;
use crate::run::{Cost, Execution, Outcome};

/// The first pause between two looks at what is left of a group, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(200)];
/// How long what a command has left in its cgroup may take to end by itself before it is asked to.
const LEFT_LIMIT: Duration = Duration::from_secs(1);
/// How long the processes of a cgroup that was killed are waited for.
const DEATH_LIMIT: Duration = Duration::from_secs(5);

/// A command that was started.
#[derive(Debug)]
pub(super) struct Running<'a> {
    pub(super) execution: Execution,
    pub(super) process: Process,
    pub(super) outputs: Outputs<'a>,
    /// What its shim answers, if it has one.
    pub(super) sheet: Option<Sheet>,
    /// What has started it in a cgroup of its own, if the daemon may make one.
    pub(super) launcher: Option<Launcher>,
    /// What a daemon after this one would find it by.
    pub(super) record: Option<Record<'a>>,
    pub(super) commands: &'a Commands,
    pub(super) shared: &'a Shared,
}

impl Running<'_> {
    /// Waits for the end of the command itself, while it reads what the command writes. It is cancel-safe.
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

    /// Asks the whole group to end, gives it time, then ends by force whatever belongs to the run.
    pub(super) async fn end_tree(&mut self, grace: Duration) {
        let deadline = Instant::now() + grace;
        if self.signal(Signal::TERM) {
            if timeout_at(deadline, self.exited()).await.is_ok() {
                self.wait_for_group(deadline).await;
            }
            if Instant::now() >= deadline {
                tracing::warn!(
                    pid = self.process.pid().as_raw_pid(),
                    run = %self.execution.0.0,
                    "a command did not end when asked to; it is killed"
                );
            }
        }
        if !self.signal(Signal::KILL)
            && let Some(launcher) = &self.launcher
        {
            // Takes the launcher along, and needs no right but that to write to the cgroup.
            launcher.cgroup.kill();
        }
        if self.launcher.is_none() {
            self.end_escaped().await;
        }
        self.exited().await;
    }

    /// Sends a signal to the group; whether that is possible. The command has not been waited for, even if it has ended, so
    /// the number is still that of its group, unless its launcher is gone.
    fn signal(&self, signal: Signal) -> bool {
        if !self.launcher.as_ref().is_none_or(Launcher::lives) {
            return true;
        }
        let sent = self.process.signal(signal);
        if let Err(error) = &sent {
            tracing::warn!(
                %error,
                signal = signal.as_raw(),
                pid = self.process.pid().as_raw_pid(),
                run = %self.execution.0.0,
                "a command cannot be signalled (that of another user needs CAP_KILL)"
            );
        }
        sent.is_ok()
    }

    /// Waits until the others of the group have ended too, or their time is over.
    async fn wait_for_group(&mut self, deadline: Instant) {
        let [mut pause, longest] = PAUSES;
        while Instant::now() < deadline && self.is_inhabited().await {
            let until = deadline.min(Instant::now() + pause);
            self.read_until(until).await;
            pause = longest.min(pause * 2);
        }
    }

    async fn read_until(&mut self, until: Instant) {
        // Neither the end of the outputs nor their bounds matter here: only that nobody waits for a full pipe.
        if timeout_at(until, self.outputs.read_all()).await.is_ok() {
            sleep_until(until).await;
        }
    }

    /// Whether anything of its group, or of its cgroup, lives beside the command itself.
    async fn is_inhabited(&self) -> bool {
        let session = self.process.pid();
        if let Some(launcher) = &self.launcher {
            return !launcher.cgroup.others(&[launcher.pid(), session]).is_empty();
        }
        let look = move || leftovers::is_inhabited(session);
        self.shared.clients.reading.run(look).await.unwrap_or(false)
    }

    /// Ends processes of the run that have left its group.
    async fn end_escaped(&self) {
        let (execution, session) = (self.execution.clone(), self.process.pid());
        let ending = move || leftovers::end_run(&execution, session);
        match self.shared.clients.reading.run(ending).await {
            Ok(0) => {}
            Ok(count) => tracing::debug!(count, "processes that had left their group were killed"),
            Err(error) => {
                tracing::warn!(run = %self.execution.0.0, %error, "the leftover processes of a run could not be searched for");
            }
        }
    }

    /// Why a command that has ended was never executed, if its launcher had no place for it.
    pub(super) fn shortage(&self) -> Option<Shortage> {
        match self.sheet.as_ref()?.answer() {
            Answer::Refused(Refusal { error, is_shortage: true, .. }) => Some(Shortage(error)),
            Answer::Refused(_) | Answer::Executed | Answer::Nothing => None,
        }
    }

    /// The outcome of a command that has ended, and its cost. What it has left in its cgroup is ended: this is how long that
    /// may take to end once it was asked to.
    pub(super) async fn finish(mut self, command: &Command, grace: Duration) -> (Outcome, Cost) {
        let (outcome, cost) = self.reap(command).await;
        let outcome = self.explain_kill(outcome, command);
        self.clear_cgroup(grace).await;
        drop(self.record);
        self.outputs.read_rest().await;
        for pipe in self.outputs.still_open() {
            self.commands.drains.take(pipe, &self.shared.runtime);
        }
        (outcome, cost)
    }

    /// Waits for the command, which has ended, unless its launcher has.
    async fn reap(&mut self, command: &Command) -> (Outcome, Cost) {
        let reaped = match &mut self.launcher {
            None => {
                let ended = self.process.reap().await;
                ended.map(|ended| (ended.status, cost::cost(&ended.rusage)))
            }
            Some(launcher) => {
                let reaped = launcher.reap().await;
                self.process.forget();
                reaped.map(|Reaped { status, cost }| (status, cost))
            }
        };
        match reaped {
            Ok((status, cost)) => (outcome(status, command, self.sheet.as_ref()), cost),
            Err(error) => {
                (failed(format!("the command could not be waited for: {error}")), Cost::default())
            }
        }
    }

    /// Says so if processes of the run were killed for lack of memory: in the error of a failed run, in the output of another
    /// one. A command may go on without a process that it has started, and succeed.
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

    /// Ends what is left in the cgroup of the command, and gives its launcher back if that can be used again.
    async fn clear_cgroup(&mut self, grace: Duration) {
        let Some(mut launcher) = self.launcher.take() else { return };
        if launcher.lives() && !grace.is_zero() {
            self.wait_until_alone(&mut launcher, LEFT_LIMIT).await;
            let left = launcher.cgroup.others(&[launcher.pid()]);
            if !left.is_empty() {
                self.tell_left_behind(&left);
                launcher.cgroup.terminate(&left);
                self.wait_until_alone(&mut launcher, grace).await;
            }
        }
        if launcher.lives() && launcher.is_alone() {
            self.commands.give_back(launcher);
            return;
        }
        launcher.cgroup.kill();
        let deadline = Instant::now() + DEATH_LIMIT;
        let [mut pause, longest] = PAUSES;
        while launcher.cgroup.is_populated() && Instant::now() < deadline {
            tokio::time::sleep(pause).await;
            pause = longest.min(pause * 2);
        }
    }

    /// Waits until nothing but the launcher is in the cgroup, at most this long.
    async fn wait_until_alone(&mut self, launcher: &mut Launcher, limit: Duration) {
        let deadline = Instant::now() + limit;
        let [mut pause, longest] = PAUSES;
        while !launcher.is_alone() && Instant::now() < deadline {
            self.read_until(deadline.min(Instant::now() + pause)).await;
            pause = longest.min(pause * 2);
        }
    }

    /// Says in the log and in the output of the run what its command has left behind.
    fn tell_left_behind(&self, left: &[Pid]) {
        let (count, names) = (left.len(), names(left));
        tracing::warn!(
            run = %self.execution.0.0,
            count,
            %names,
            "a command has left processes behind; they are ended"
        );
        let processes = processes(count);
        self.outputs.note(&format!(
            "punctual: ending {processes} that the command has left behind: {names}"
        ));
    }
}

/// Waits until the command has ended, or its launcher, without which its end cannot be told. It is cancel-safe.
async fn exited(process: &Process, launcher: Option<&Launcher>) -> io::Result<()> {
    let Some(launcher) = launcher else { return process.exited().await };
    tokio::select! {
        biased;
        exited = process.exited() => exited,
        _ = launcher.ended() => Ok(()),
    }
}
