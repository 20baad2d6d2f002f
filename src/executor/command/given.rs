//! What a command is given, once every secret in it has been read.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::order::Refusal;
use crate::executor::Assignment;
use crate::executor::blocking::Blocking;
use crate::executor::notice;
use crate::job::{Command, ReportForm};
use crate::secret::Text;
use crate::task::context::Context;

/// Where programs are looked for when there is no PATH.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// What a command is given.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// Variables beside those of the daemon.
    pub(super) env: Vec<(String, String)>,
    /// What it reads.
    pub(super) stdin: Option<String>,
}

impl Given {
    /// Reads it. What is secret is hidden from now on.
    pub(super) async fn read(
        command: &Command,
        assignment: &Assignment,
        context: &Context,
        blocking: &Blocking,
    ) -> Result<Self, Refusal> {
        let is_secret = |text: &Text| text.plain().is_none();
        let (mut given, secrets) = if command.env.values().chain(&command.stdin).any(is_secret) {
            // A file may take its time.
            let command = command.clone();
            let read = blocking.run(move || Self::collect(&command)).await;
            read.map_err(Refusal::passing)??
        } else {
            Self::collect(command)?
        };
        if !secrets.is_empty() {
            context.log.hide(secrets);
        }
        // A hook reads its event, unless it was given something else to read.
        if given.stdin.is_none() {
            given.stdin =
                assignment.event.as_deref().map(|facts| match command.report.unwrap_or_default() {
                    ReportForm::Text => notice::report(facts),
                    ReportForm::Json => facts.to_string(),
                });
        }
        Ok(given)
    }

    /// All texts, and of them those that are secret.
    fn collect(command: &Command) -> Result<(Self, Vec<String>), Refusal> {
        let (mut given, mut secrets) = (Self::default(), Vec::new());
        for (name, text) in &command.env {
            let value = text.read(&mut secrets);
            let value = value.map_err(|error| Refusal::passing(format!("env.{name}: {error}")))?;
            if value.contains('\0') {
                let why =
                    format!("env.{name}: the secret has a NUL byte, which no variable can hold");
                return Err(Refusal::passing(why));
            }
            given.env.push((name.clone(), value));
        }
        let stdin = command.stdin.as_ref().map(|text| text.read(&mut secrets)).transpose();
        given.stdin = stdin.map_err(|error| Refusal::passing(format!("stdin: {error}")))?;
        Ok((given, secrets))
    }

    /// The file to execute: what has a slash is a path (from `cwd`), what has none is looked for in PATH.
    pub(super) fn find_program(&self, name: &str, cwd: Option<&str>) -> Result<PathBuf, Refusal> {
        if name.contains('/') {
            return Ok(cwd.map_or_else(|| PathBuf::from(name), |cwd| Path::new(cwd).join(name)));
        }
        let given = self.env.iter().find(|(variable, _)| variable == "PATH");
        let inherited = given.is_none().then(|| std::env::var_os("PATH")).flatten();
        let path = given.map(|(_, value)| OsStr::new(value)).or(inherited.as_deref());
        find_in_path(name, path)
    }
}

/// The first file of this name in the folders of a `PATH` that this process may execute.
pub(super) fn find_in_path(name: &str, path: Option<&OsStr>) -> Result<PathBuf, Refusal> {
    let path = path.unwrap_or(OsStr::new(DEFAULT_PATH));
    let is_program = |file: &PathBuf| {
        file.is_absolute()
            && file.is_file()
            && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
    };
    let found = std::env::split_paths(path).map(|folder| folder.join(name)).find(is_program);
    found.ok_or_else(|| {
        let path = path.to_string_lossy();
        Refusal::passing(format!("the program \"{name}\" was not found in {path}"))
    })
}
