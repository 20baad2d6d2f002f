//! What a job does, as data: one file for each type of task, with its keys, checks and view. `executor` carries it out.
//!
//! To add a type, write its file with a struct that implements [`TaskType`], add a row to the list below, and let the
//! executor carry it out.

mod builtin;
mod command;
pub(super) mod http;
mod limits;
mod mail;

pub use builtin::Builtin;
pub use command::{Command, Program, RUN_VARIABLES, ReportForm};
pub use http::{HttpBody, HttpCall, parse_url};
pub use limits::{CORES_PERIOD, MemorySize, ResourceLimits};
pub use mail::{Mail, mailbox};

use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::invalid::Invalid;

/// What a type of task has to say about itself.
pub trait TaskType {
    /// The task in a few words, for tables and logs.
    fn describe(&self) -> String;

    /// The variables of the daemon's environment that it names as secrets.
    fn secret_variables(&self) -> Vec<&str> {
        Vec::new()
    }

    /// The first of its fields that is secret.
    fn secret_field(&self) -> Option<String> {
        None
    }

    /// A warning about a task that is accepted but looks like a mistake.
    fn advice(&self) -> Option<String> {
        None
    }

    /// Refuses what only a hook can use, in a job's own task.
    fn check_is_no_hook(&self) -> Result<(), Invalid> {
        Ok(())
    }

    /// Whether only a pool of processes can execute it.
    fn needs_process(&self) -> bool {
        false
    }
}

/// Defines [`Task`] from the list of types: the variant, its struct, and the word that is its `type`. The struct has an
/// associated function `parse`, which reads the other keys.
macro_rules! task_types {
    ($($(#[$attribute:meta])* $variant:ident($content:ty) = $word:literal,)+) => {
        /// A job's task. Each variant is shared, so that what executes it can hold it without a copy.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Task {
            $($(#[$attribute])* $variant(Arc<$content>),)+
            /// A stored task that can no longer be read. It is kept as it is, and never run.
            Unreadable(Value),
        }

        /// The words of all types.
        const WORDS: &[&str] = &[$($word),+];

        impl Task {
            /// Reads a task of the type that `word` names. None: there is no such type.
            fn of_type(word: &str, keys: Map<String, Value>) -> Option<Result<Self, Invalid>> {
                match word {
                    $($word => {
                        Some(<$content>::parse(keys).map(|task| Self::$variant(Arc::new(task))))
                    })+
                    _ => None,
                }
            }

            fn content(&self) -> Option<&dyn TaskType> {
                match self {
                    $(Self::$variant(task) => Some(&**task),)+
                    Self::Unreadable(_) => None,
                }
            }
        }

        impl Serialize for Task {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    $(Self::$variant(task) => {
                        Tagged { r#type: $word, keys: &**task }.serialize(serializer)
                    })+
                    Self::Unreadable(value) => value.serialize(serializer),
                }
            }
        }
    };
}
task_types! {
    /// A registered Rust function.
    Builtin(Builtin) = "builtin",
    /// A program in a process of its own.
    Command(Command) = "command",
    /// A call over HTTP.
    Http(HttpCall) = "http",
    /// A mail.
    Mail(Mail) = "mail",
}

#[derive(Serialize)]
struct Tagged<'a, T> {
    r#type: &'static str,
    #[serde(flatten)]
    keys: &'a T,
}

impl Task {
    /// Reads the JSON form; an error names the field.
    pub fn parse(value: &Value) -> Result<Self, Invalid> {
        Self::from_value(value.clone())
    }

    /// The same, without a copy.
    pub(super) fn from_value(value: Value) -> Result<Self, Invalid> {
        let Value::Object(mut keys) = value else {
            return Err(Invalid::new(
                "",
                "a task is an object such as {\"type\": \"builtin\", \"name\": \"noop\"}",
            ));
        };
        let refuse = |why: String| {
            let expected = WORDS.join("\", \"");
            Err(Invalid::new("type", format!("{why} (expected one of \"{expected}\")")))
        };
        let Some(word) = keys.remove("type") else { return refuse("missing".to_owned()) };
        let task = word.as_str().and_then(|word| Self::of_type(word, keys));
        task.unwrap_or_else(|| refuse(format!("unknown task type {word}")))
    }

    /// The JSON form.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// The variables of the daemon's environment that it names as secrets.
    pub fn secret_variables(&self) -> Vec<&str> {
        self.content().map(TaskType::secret_variables).unwrap_or_default()
    }

    /// The first of its fields that is secret.
    pub fn secret_field(&self) -> Option<String> {
        self.content()?.secret_field()
    }

    /// A warning about a task that is accepted but looks like a mistake.
    pub fn advice(&self) -> Option<String> {
        self.content()?.advice()
    }

    /// Refuses what only a hook can use, in a job's own task.
    pub fn check_is_no_hook(&self) -> Result<(), Invalid> {
        self.content().map_or(Ok(()), TaskType::check_is_no_hook)
    }

    /// Whether only a pool of processes can execute it. None: nothing can.
    pub(super) fn needs_process(&self) -> Option<bool> {
        self.content().map(TaskType::needs_process)
    }

    /// The task in a few words, for tables and logs.
    pub fn describe(&self) -> String {
        match self {
            Self::Unreadable(value) => value.to_string(),
            _ => self.content().map(TaskType::describe).unwrap_or_default(),
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
