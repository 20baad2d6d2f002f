//! A command that was started, until nothing of it is left.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Commands;
use super::cgroup::Cgroup;
use super::order::{Answer, Refusal, Sheet};
use super::outcome::outcome;
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
    /// Its cgroup, if it has one.
    pub(super) cgroup: Option<Cgroup<'a>>,
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
            exited = self.process.exited() => exited,
            () = self.outputs.read_all() => self.process.exited().await,
        };
        if let Err(error) = exited {
            tracing::warn!(run = %self.execution.0.0, %error, "a command could not be waited for");
        }
    }

    /// Asks the whole group to end, gives it time, then ends by force whatever belongs to the run.
    pub(super) async fn end_tree(&mut self, grace: Duration) {
        let deadline = Instant::now() + grace;
        self.process.signal(Signal::TERM);
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
        // The command has not been reaped, even if it has ended: so the number is still that of its group.
        self.process.signal(Signal::KILL);
        match &self.cgroup {
            Some(cgroup) => cgroup.kill(),
            None => self.end_escaped().await,
        }
        self.exited().await;
        self.wait_for_cgroup().await;
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
        if let Some(cgroup) = &self.cgroup {
            return cgroup.is_populated();
        }
        let session = self.process.pid();
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
                tracing::warn!(run = %self.execution.0.0, %error, "nobody looked for processes of a run");
            }
        }
    }

    async fn wait_for_cgroup(&self) {
        let Some(cgroup) = &self.cgroup else { return };
        let deadline = Instant::now() + DEATH_LIMIT;
        let [mut pause, longest] = PAUSES;
        while cgroup.is_populated() && Instant::now() < deadline {
            tokio::time::sleep(pause).await;
            pause = longest.min(pause * 2);
        }
    }

    /// Why a command that has ended was never executed, if its launcher had no place for it.
    pub(super) fn shortage(&self) -> Option<Shortage> {
        match self.sheet.as_ref()?.answer() {
            Answer::Refused(Refusal { error, is_shortage: true, .. }) => Some(Shortage(error)),
            Answer::Refused(_) | Answer::Executed | Answer::Nothing => None,
        }
    }

    /// The outcome of a command that has ended, and its cost.
    pub(super) async fn finish(mut self, command: &Command) -> (Outcome, Cost) {
        let ended = self.process.reap().await;
        drop(self.record);
        self.outputs.read_rest().await;
        for pipe in self.outputs.still_open() {
            self.commands.drains.take(pipe, &self.shared.runtime);
        }
        match ended {
            Ok(usage) => {
                let outcome = outcome(usage.status, command, self.sheet.as_ref());
                (outcome, cost::cost(&usage.rusage))
            }
            Err(error) => {
                (failed(format!("the command could not be waited for: {error}")), Cost::default())
            }
        }
    }
}
