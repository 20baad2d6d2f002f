//! What a job does: exactly one kind of task.

use clap::Args;
use serde::ser::Error;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::command::CommandOptions;
use super::http::HttpOptions;
use super::values::{name_json, object};
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
        requires = "builtin",
        conflicts_with = "command"
    )]
    args: Vec<(String, Value)>,
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
