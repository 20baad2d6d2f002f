//! What this daemon starts commands with: its settings for them, its launchers, and its record of what runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::process::Rlimit;

use super::delegation::Controllers;
use super::environment::{self, Environment};
use super::error::CommandStartError;
use super::launcher::{Launcher, LauncherPool, LauncherProgram};
use super::output::Drains;
use super::records::CommandRecords;
use crate::executor::secret_variables::SecretVariables;
use crate::executor::shortage::is_shortage;
use crate::job::{Command, ResourceLimits};

#[derive(Debug, Clone)]
pub(crate) struct CommandRunner {
    /// This program, which acts as the shim and as the launcher of commands.
    pub(crate) shim: PathBuf,
    /// The user of commands that name none; if none is given, the daemon's own.
    pub(crate) default_user: Option<String>,
    /// Variables of the daemon that only commands get that name them.
    pub(crate) secrets: SecretVariables,
    /// Variables of the daemon that commands get, unless `secrets` withholds them.
    pub(super) inherited: Environment,
    /// The limit of open files of a command, if that is not the daemon's own limit.
    pub(crate) files: Option<Rlimit>,
    /// Start commands in cgroups of their own; none if the daemon may not make cgroups.
    launchers: Option<Arc<LauncherPool>>,
    pub(super) records: Option<Arc<CommandRecords>>,
    pub(super) drains: Drains,
}

impl CommandRunner {
    pub(crate) fn new(shim: PathBuf) -> Self {
        Self {
            shim,
            default_user: None,
            secrets: SecretVariables::complete_from_the_start(),
            inherited: environment::inherited(),
            files: None,
            launchers: LauncherPool::find(),
            records: None,
            drains: Drains::default(),
        }
    }

    /// Records the running commands in this file, after killing those that a dead daemon has left in it.
    pub(crate) fn record_in(&mut self, file: &Path) {
        let records = CommandRecords::open(file).inspect_err(|error| {
            tracing::warn!(%error, file = %file.display(), "running commands are not recorded, so some may not be found after a crash");
        });
        self.records = records.ok().map(Arc::new);
    }

    /// A launcher that starts the command in a cgroup of its own; none if the daemon may not make one. That is an error
    /// only if the command limits its whole run, which needs a cgroup.
    pub(super) async fn take_launcher(
        &self,
        command: &Command,
    ) -> Result<Option<Launcher>, CommandStartError> {
        let limits = command.limits.as_ref();
        let launchers = self.launchers.as_ref();
        let controllers =
            launchers.map_or_else(Controllers::default, |pool| pool.cgroups.controllers);
        if let Some(limits) = limits {
            controllers.check(limits).map_err(|invalid| {
                CommandStartError::permanent(invalid.within("limits").to_string())
            })?;
        }
        let Some(launchers) = launchers else { return Ok(None) };
        let files = self.files.and_then(|limit| limit.current);
        let program = LauncherProgram { path: self.shim.clone(), files };
        match launchers.take(&program, limits).await {
            Ok(launcher) => Ok(Some(launcher)),
            Err(error)
                if is_shortage(&error) || limits.is_some_and(ResourceLimits::are_of_the_run) =>
            {
                Err(CommandStartError::of_daemon(&error))
            }
            Err(error) => {
                tracing::warn!(%error, "a run starts without a cgroup of its own");
                Ok(None)
            }
        }
    }

    /// Takes back a launcher whose command has ended, with nothing left of it.
    pub(super) fn give_back(&self, launcher: Launcher) {
        if let Some(launchers) = &self.launchers {
            launchers.give_back(launcher);
        }
    }

    /// Ends the launchers. To be called when no command runs any more.
    pub(crate) async fn close(&self) {
        if let Some(launchers) = &self.launchers {
            launchers.close().await;
        }
    }
}
