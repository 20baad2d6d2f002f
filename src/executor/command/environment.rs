//! The environment and stdin of a command: what it inherits from the daemon, what its definition gives it, and what
//! says which run it belongs to. Secrets are read here and hidden from the run's output at once.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};
use serde_json::Value;

use super::error::CommandStartError;
use super::run_as::home_or_root;
use crate::clock::rfc3339;
use crate::executor::assignment::Assignment;
use crate::executor::blocking::BlockingThreads;
use crate::executor::hook_report;
use crate::job::{Command, RUN_VARIABLES, ReportForm};
use crate::secret::Text;
use crate::task::context::Context;

/// The shell that runs scripts, and the `SHELL` of every command.
pub(super) const SHELL: &str = "/bin/sh";

/// Where programs are looked for if there is no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The variables that name the run of a process: as a run, or as a hook run. With [`ATTEMPT_VARIABLE`], the processes of a
/// run are found by them. Only the daemon sets them.
pub(super) const RUN_ID_VARIABLES: [&str; 2] = ["PUNCTUAL_RUN_ID", "PUNCTUAL_HOOK_RUN_ID"];
pub(super) const ATTEMPT_VARIABLE: &str = "PUNCTUAL_ATTEMPT";

/// Variables of the service manager and of the configuration that are meant for the daemon alone.
const DAEMONS_OWN: [&str; 12] = [
    "NOTIFY_SOCKET",
    "CREDENTIALS_DIRECTORY",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "SYSTEMD_EXEC_PID",
    "MANAGERPID",
    "MANAGERPIDFDID",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
    "FDSTORE",
    "PUNCTUAL_LOG",
    "PUNCTUAL_CGROUP",
];
/// Prefixes of further variables of that kind.
const DAEMONS_OWN_PREFIXES: [&str; 2] = ["WATCHDOG_", "LISTEN_"];

pub(super) type Environment = BTreeMap<OsString, OsString>;

/// Whether a variable is meant for the daemon and not for the processes that it starts.
pub(crate) fn is_daemons_own(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    DAEMONS_OWN.contains(&name)
        || DAEMONS_OWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The variables of this process that commands inherit. As with cron, `SHELL` is the shell that runs scripts, because
/// the login shell of a system user often is not one (`/usr/sbin/nologin`). `HOME` is a directory that exists.
pub(super) fn inherited() -> Environment {
    let mut env: Environment =
        std::env::vars_os().filter(|(name, _)| !is_daemons_own(name)).collect();
    env.insert("SHELL".into(), SHELL.into());
    if !env.get(OsStr::new("HOME")).is_some_and(|home| Path::new(home).is_dir()) {
        let entry = User::from_uid(Uid::effective()).ok().flatten();
        env.insert("HOME".into(), home_or_root(entry.map(|user| user.dir)).into());
    }
    env
}

/// The variables and the stdin of a command's definition, with every secret read.
#[derive(Debug, Default)]
pub(super) struct ResolvedInputs {
    pub(super) env: Vec<(String, String)>,
    pub(super) stdin: Option<String>,
}

impl ResolvedInputs {
    /// Reads the secrets, and from then on hides them in the run's output.
    pub(super) async fn read(
        command: &Command,
        assignment: &Assignment,
        context: &Context,
        blocking: &BlockingThreads,
    ) -> Result<Self, CommandStartError> {
        let is_secret = |text: &Text| text.plain().is_none();
        let (mut inputs, secrets) = if command.env.values().chain(&command.stdin).any(is_secret) {
            // Reading the file of a secret may block.
            let command = command.clone();
            let read = blocking.run(move || Self::collect(&command)).await;
            read.map_err(CommandStartError::transient)??
        } else {
            Self::collect(command)?
        };
        if !secrets.is_empty() {
            context.log.hide(secrets);
        }
        // A hook reads a description of its event, unless its definition gives it another stdin.
        if inputs.stdin.is_none() {
            inputs.stdin =
                assignment.event.as_deref().map(|event| match command.report.unwrap_or_default() {
                    ReportForm::Text => hook_report::report(event),
                    ReportForm::Json => event.to_string(),
                });
        }
        Ok(inputs)
    }

    /// All texts, and the secret ones among them.
    fn collect(command: &Command) -> Result<(Self, Vec<String>), CommandStartError> {
        let (mut inputs, mut secrets) = (Self::default(), Vec::new());
        for (name, text) in &command.env {
            let value = text.read(&mut secrets);
            let value = value
                .map_err(|error| CommandStartError::transient(format!("env.{name}: {error}")))?;
            if value.contains('\0') {
                let why =
                    format!("env.{name}: the secret has a NUL byte, which no variable can hold");
                return Err(CommandStartError::transient(why));
            }
            inputs.env.push((name.clone(), value));
        }
        let stdin = command.stdin.as_ref().map(|text| text.read(&mut secrets)).transpose();
        inputs.stdin =
            stdin.map_err(|error| CommandStartError::transient(format!("stdin: {error}")))?;
        Ok((inputs, secrets))
    }

    /// The file to execute: a name with a slash is a path (relative to `cwd`), any other is looked up in `PATH`.
    pub(super) fn find_program(
        &self,
        name: &str,
        cwd: Option<&str>,
    ) -> Result<PathBuf, CommandStartError> {
        if name.contains('/') {
            return Ok(cwd.map_or_else(|| PathBuf::from(name), |cwd| Path::new(cwd).join(name)));
        }
        let given = self.env.iter().find(|(variable, _)| variable == "PATH");
        let inherited = given.is_none().then(|| std::env::var_os("PATH")).flatten();
        let path = given.map(|(_, value)| OsStr::new(value)).or(inherited.as_deref());
        find_in_path(name, path)
    }
}

/// The first file of this name in the directories of `path` that this process may execute.
pub(super) fn find_in_path(name: &str, path: Option<&OsStr>) -> Result<PathBuf, CommandStartError> {
    let path = path.unwrap_or(OsStr::new(DEFAULT_PATH));
    let is_program = |file: &PathBuf| {
        file.is_absolute()
            && file.is_file()
            && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
    };
    let found = std::env::split_paths(path).map(|folder| folder.join(name)).find(is_program);
    found.ok_or_else(|| {
        let path = path.to_string_lossy();
        CommandStartError::transient(format!("the program \"{name}\" was not found in {path}"))
    })
}

/// Completes what a command inherits with its own variables and with those that describe the run.
pub(super) fn of_run(
    mut env: Environment,
    inputs: &ResolvedInputs,
    assignment: &Assignment,
) -> Environment {
    // The daemon itself may have been started by a run of another daemon.
    for name in RUN_VARIABLES {
        env.remove(OsStr::new(name));
    }
    env.extend(inputs.env.iter().map(|(name, value)| (name.into(), value.into())));
    let [run_id, hook_run_id] = RUN_ID_VARIABLES;
    let run_id = if assignment.event.is_some() { hook_run_id } else { run_id };
    let own = [
        ("PUNCTUAL_JOB_ID", Some(assignment.job_id.as_str().to_owned())),
        (run_id, Some(assignment.run_id.0.to_string())),
        (ATTEMPT_VARIABLE, Some(assignment.attempt.to_string())),
        ("TRACEPARENT", Some(assignment.traceparent())),
        ("PUNCTUAL_SCHEDULED_AT", assignment.scheduled_at.map(rfc3339)),
    ];
    env.extend(own.into_iter().filter_map(|(name, value)| Some((name.into(), value?.into()))));
    if let Some(event) = assignment.event.as_deref() {
        env.extend(reported(event));
    }
    env
}

/// The variables that tell a hook about the run that it reports.
fn reported(event: &Value) -> impl Iterator<Item = (OsString, OsString)> {
    let variables = [
        ("PUNCTUAL_EVENT", "/event"),
        ("PUNCTUAL_HOST", "/host"),
        ("PUNCTUAL_RUN_ID", "/run/id"),
        ("PUNCTUAL_SCHEDULED_AT", "/run/scheduled_at"),
        ("PUNCTUAL_STATE", "/run/state"),
        ("PUNCTUAL_EXIT_CODE", "/run/exit_code"),
        ("PUNCTUAL_ERROR", "/run/error"),
        ("PUNCTUAL_OUTPUT", "/output"),
    ];
    variables.into_iter().filter_map(|(name, pointer)| {
        // A variable cannot hold a NUL byte.
        let value = hook_report::text(event, pointer).replace('\0', "\u{fffd}");
        (!value.is_empty()).then(|| (name.into(), value.into()))
    })
}

/// The variables by which a process of the run is found, without any that a client has chosen.
pub(super) fn run_markers(env: &Environment) -> Environment {
    let marker = |name: &str| env.get_key_value(OsStr::new(name));
    RUN_ID_VARIABLES
        .into_iter()
        .chain([ATTEMPT_VARIABLE])
        .filter_map(marker)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_the_service_manager_are_not_inherited() {
        for name in
            ["NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_FDNAMES", "PUNCTUAL_LOG"]
        {
            assert!(is_daemons_own(OsStr::new(name)), "{name}");
        }
        for name in ["PATH", "HOME", "RUNTIME_DIRECTORY", "PUNCTUAL_SOCKET", "LISTENER"] {
            assert!(!is_daemons_own(OsStr::new(name)), "{name}");
        }
    }
}
