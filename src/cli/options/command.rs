//! The flags of a command. The struct is the JSON of the task, without its type and program.
#![expect(clippy::doc_markdown, reason = "these comments are the help text, which is not Markdown")]

use clap::Args;
use serde::ser::Error;
use serde::{Serialize, Serializer};
use serde_json::{Number, Value};

use super::values::{name_source, name_value, number_or_text, object, seconds};
use crate::job::Program;

/// The command, and how it is started and ended. Each part is a struct of its own without parts, because clap makes no
/// group of a struct that has some.
#[derive(Debug, Default, Args, Serialize)]
#[command(next_help_heading = "Command")]
pub(super) struct CommandOptions {
    #[command(flatten)]
    #[serde(flatten)]
    process: ProcessOptions,
    #[command(flatten)]
    env: EnvironmentOptions,
    #[command(flatten)]
    limits: LimitOptions,
}

#[derive(Debug, Default, Args, Serialize)]
struct ProcessOptions {
    /// Run a command (no shell, unless --shell is given): everything after --
    #[arg(last = true, value_name = "COMMAND", help_heading = "What")]
    #[serde(skip)]
    command: Vec<String>,
    /// The one word after -- is a script for /bin/sh
    #[arg(long)]
    #[serde(skip)]
    shell: bool,
    /// Working directory
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    /// Text for standard input
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stdin: Option<String>,
    /// User to run as; only a daemon with the rights of root accepts others than its own [default: the daemon's]
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Group to run in [default: the user's own]
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Permissions that new files do not get, such as 027
    #[arg(long, value_name = "OCTAL")]
    umask: Option<String>,
    /// Niceness, from -20 (highest priority) to 19
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    nice: Option<i32>,
    /// Exit code that means success; can be given again [default: 0]
    #[arg(long = "success-code", value_name = "N")]
    success_codes: Vec<i32>,
    /// Exit code after which a retry is pointless; can be given again
    #[arg(long = "no-retry-code", value_name = "N")]
    no_retry_codes: Vec<i32>,
    /// Time between SIGTERM, at a cancel or timeout, and SIGKILL [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    kill_grace: Option<Number>,
}

impl CommandOptions {
    /// Whether it says what is executed. A lone `--shell` does, and is refused.
    pub(super) fn has_program(&self) -> bool {
        self.process.shell || !self.process.command.is_empty()
    }

    /// What is executed: the words after `--`, or the script that they are with `--shell`.
    pub(super) fn program(&self) -> Result<Program, &'static str> {
        match self.process.command.as_slice() {
            words if !self.process.shell => Ok(Program::Argv(words.to_vec())),
            [script] => Ok(Program::Shell(script.clone())),
            _ => Err("--shell takes one word after --: quote the script as a whole"),
        }
    }
}

/// The variables of a command. As JSON they are one object.
#[derive(Debug, Default, Args)]
struct EnvironmentOptions {
    /// Environment variable; can be given again
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_value)]
    env: Vec<(String, String)>,
    /// Environment variable that is secret: read for each run from env:VARIABLE, file:PATH or credential:NAME, and
    /// hidden in the output
    #[arg(long, value_name = "NAME=SOURCE")]
    secret_env: Vec<String>,
}

impl Serialize for EnvironmentOptions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let plain = self.env.iter().map(|(name, value)| Ok((name.clone(), value.as_str().into())));
        let secret = self.secret_env.iter().map(|text| name_source("--secret-env", text));
        let variables = object("variable", plain.chain(secret));
        variables.map_err(S::Error::custom)?.serialize(serializer)
    }
}

/// What the processes of a command may use.
#[derive(Debug, Default, Args, Serialize)]
struct LimitOptions {
    /// Address space of each process: bytes, or 512M, 2G
    #[arg(long, value_name = "SIZE", value_parser = number_or_text)]
    memory: Option<Value>,
    /// CPU time of each process
    #[arg(long = "cpu-time", value_name = "DURATION", value_parser = seconds)]
    cpu: Option<Number>,
    /// Open files of each process
    #[arg(long = "open-files", value_name = "N")]
    files: Option<u64>,
    /// Memory of all processes together: bytes, or 512M, 2G; the daemon needs a cgroup for this
    #[arg(long, value_name = "SIZE", value_parser = number_or_text)]
    total_memory: Option<Value>,
    /// Maximum number of processes and threads at a time; the daemon needs a cgroup for this
    #[arg(long, value_name = "N")]
    processes: Option<u64>,
    /// CPU cores that all processes together may use, such as 0.5; the daemon needs a cgroup for this
    #[arg(long, value_name = "N")]
    cores: Option<f64>,
}
