//! What a job does: exactly one kind of task.

use std::collections::BTreeMap;

use clap::Args;
use serde::ser::Error;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::command::CommandOptions;
use super::http::HttpOptions;
use super::values::{self, name_json, object};
use crate::cli::error::CliError;
use crate::job::Program;

/// The task. As JSON it is that of the kind that was given.
#[derive(Debug, Args)]
pub(super) struct TaskOptions {
    #[command(flatten)]
    builtin: BuiltinOptions,
    #[command(flatten)]
    command: CommandOptions,
    #[command(flatten)]
    http: HttpOptions,
}

/// A builtin.
#[derive(Debug, Args)]
#[command(next_help_heading = "What")]
struct BuiltinOptions {
    /// Run a builtin
    #[arg(long, value_name = "NAME", conflicts_with_all = ["ProcessOptions", "EnvironmentOptions", "LimitOptions"])]
    builtin: Option<String>,
    /// Argument of the builtin; JSON if it can be read as such, else text
    #[arg(
        long = "arg",
        value_name = "NAME=VALUE",
        value_parser = name_json,
        conflicts_with = "command"
    )]
    args: Vec<(String, Value)>,
}

impl TaskOptions {
    /// Refuses arguments without a builtin that gets them.
    pub(super) fn check(&self) -> Result<(), CliError> {
        if self.builtin.builtin.is_none() && !self.builtin.args.is_empty() {
            return Err(CliError::Usage("--arg needs --builtin".to_owned()));
        }
        Ok(())
    }

    /// The JSON form of the task, if one is given as a whole.
    pub(super) fn whole(&self) -> Result<Option<Value>, CliError> {
        let is_given =
            self.builtin.builtin.is_some() || self.http.is_given() || self.command.has_program();
        if !is_given {
            return Ok(None);
        }
        // The options that were not given are left out of a task as of a job.
        let job = values::given(&BTreeMap::from([("task", self)]))?;
        Ok(job.get("task").cloned())
    }

    /// What is to change in a task that stays what it is: arguments of a builtin, or options of a command.
    pub(super) fn part(&self) -> Result<Option<Value>, CliError> {
        let args = object("argument", self.builtin.args.iter().cloned().map(Ok));
        let args = args.map_err(CliError::Usage)?;
        let Value::Object(mut part) = values::given(&self.command)? else { return Ok(None) };
        if !args.is_empty() {
            part.insert("args".to_owned(), Value::Object(args));
        }
        Ok(Some(part).filter(|part| !part.is_empty()).map(Value::Object))
    }
}

impl Serialize for TaskOptions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(tag = "type", rename_all = "lowercase")]
        enum TaskJson<'a> {
            Builtin {
                name: &'a str,
                args: Map<String, Value>,
            },
            Http(&'a HttpOptions),
            Command {
                #[serde(flatten)]
                program: Program,
                #[serde(flatten)]
                options: &'a CommandOptions,
            },
        }
        let task = if let Some(name) = &self.builtin.builtin {
            let args = object("argument", self.builtin.args.iter().cloned().map(Ok));
            let args = args.map_err(S::Error::custom)?;
            TaskJson::Builtin { name, args }
        } else if self.http.is_given() {
            TaskJson::Http(&self.http)
        } else {
            let program = self.command.program().map_err(S::Error::custom)?;
            TaskJson::Command { program, options: &self.command }
        };
        task.serialize(serializer)
    }
}
