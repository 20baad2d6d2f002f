//! What a job does, as data. The seam that carries it out is `task` and `executor`.

mod command;
pub(super) mod http;
mod limits;
mod mail;

pub use command::{Command, Program, RUN_VARIABLES, ReportForm};
pub use http::{HttpBody, HttpCall, parse_url};
pub use limits::{CORES_PERIOD, MemorySize, ResourceLimits};
pub use mail::{Mail, mailbox};

use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use super::Json;
use crate::invalid::{self, Invalid};

/// The types of tasks, as an error lists them.
const TYPES: &str = "\"builtin\", \"command\", \"http\" or \"mail\"";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BuiltinInput {
    name: String,
    #[serde(default)]
    args: Map<String, Value>,
}

/// A registered Rust function, and the arguments of its call.
#[derive(Debug, PartialEq, Serialize)]
pub struct Builtin {
    pub name: String,
    /// An object.
    pub args: Json,
}

/// A job's task. Each variant is shared, so that what executes it can hold it without a copy.
#[derive(Debug, Clone, PartialEq)]
pub enum Task {
    /// A registered Rust function.
    Builtin(Arc<Builtin>),
    /// A program in a process of its own.
    Command(Arc<Command>),
    /// A call over HTTP.
    Http(Arc<HttpCall>),
    /// A mail.
    Mail(Arc<Mail>),
    /// A stored task that can no longer be read: kept as it is, never run.
    Unreadable(Value),
}

impl Serialize for Task {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Tagged<'a, T: Serialize> {
            r#type: &'static str,
            #[serde(flatten)]
            rest: &'a T,
        }
        match self {
            Self::Builtin(rest) => {
                Tagged { r#type: "builtin", rest: &**rest }.serialize(serializer)
            }
            Self::Command(rest) => {
                Tagged { r#type: "command", rest: &**rest }.serialize(serializer)
            }
            Self::Http(rest) => Tagged { r#type: "http", rest: &**rest }.serialize(serializer),
            Self::Mail(rest) => Tagged { r#type: "mail", rest: &**rest }.serialize(serializer),
            Self::Unreadable(value) => value.serialize(serializer),
        }
    }
}

impl Task {
    /// Reads the JSON form.
    pub fn parse(value: &Value) -> Result<Self, Invalid> {
        let Value::Object(map) = value else {
            return Err(Invalid::new(
                "",
                "a task is an object such as {\"type\": \"builtin\", \"name\": \"noop\"}",
            ));
        };
        let mut rest = map.clone();
        match rest.remove("type") {
            Some(Value::String(word)) if word == "builtin" => {
                let given: BuiltinInput = invalid::read(Value::Object(rest))?;
                Ok(Self::Builtin(Arc::new(Builtin { name: given.name, args: given.args.into() })))
            }
            Some(Value::String(word)) if word == "command" => {
                Ok(Self::Command(Command::parse(rest)?.into()))
            }
            Some(Value::String(word)) if word == "http" => {
                Ok(Self::Http(Arc::new(HttpCall::parse(Value::Object(rest))?)))
            }
            Some(Value::String(word)) if word == "mail" => {
                Ok(Self::Mail(Arc::new(Mail::parse(rest)?)))
            }
            Some(other) => {
                let message = format!("unknown task type {other} (expected {TYPES})");
                Err(Invalid::new("type", message))
            }
            None => Err(Invalid::new("type", format!("missing (expected {TYPES})"))),
        }
    }

    /// The JSON form.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// The variables of the daemon's environment that it names as secrets.
    pub fn secret_variables(&self) -> Vec<&str> {
        match self {
            Self::Builtin(_) | Self::Mail(_) | Self::Unreadable(_) => Vec::new(),
            Self::Command(command) => command.secret_variables(),
            Self::Http(call) => call.secret_variables(),
        }
    }

    /// The first of its fields that is secret.
    pub fn secret_field(&self) -> Option<String> {
        match self {
            Self::Builtin(_) | Self::Mail(_) | Self::Unreadable(_) => None,
            Self::Command(command) => command.secret_field(),
            Self::Http(call) => call.secret_field(),
        }
    }

    /// Warnings about a task that is accepted but looks like a mistake.
    pub fn advice(&self) -> Option<String> {
        match self {
            Self::Command(command) => command.program.advice(),
            Self::Builtin(_) | Self::Http(_) | Self::Mail(_) | Self::Unreadable(_) => None,
        }
    }

    /// The task in a few words, for tables and logs.
    pub fn describe(&self) -> String {
        match self {
            Self::Builtin(builtin) => builtin.name.clone(),
            Self::Command(command) => command.program.describe(),
            Self::Http(call) => call.describe(),
            Self::Mail(mail) => mail.describe(),
            Self::Unreadable(value) => value.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_task_is_read_and_written_alike() {
        let cases = [
            json!({"type": "builtin", "name": "noop", "args": {"a": 1}}),
            json!({"type": "command", "argv": ["/bin/true", "x"], "env": {"A": "b"}, "cwd": "/tmp"}),
            json!({"type": "http", "url": "https://example.org", "headers": {"A": {"env": "B"}}, "json": {"c": 1}}),
            json!({"type": "mail", "to": ["a@example.org"], "subject": "b", "text": "c"}),
        ];
        for case in cases {
            assert_eq!(Task::parse(&case).unwrap().to_value(), case);
        }
    }

    #[test]
    fn a_bad_task_is_refused_by_its_field() {
        let cases = [
            (json!("noop"), ""),
            (json!({"name": "noop"}), "type"),
            (json!({"type": "shell"}), "type"),
            (json!({"type": "builtin"}), ""),
            (json!({"type": "builtin", "name": "noop", "argv": []}), "argv"),
            (json!({"type": "http", "url": "example.org"}), "url"),
        ];
        for (case, field) in cases {
            assert_eq!(Task::parse(&case).unwrap_err().field, field, "{case}");
        }
    }
}
