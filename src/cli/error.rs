//! The error of a command, with its exit code and its form as JSON.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::client::ClientError;
use crate::config::ConfigError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The command line is not valid: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The file is faulty: exit code 2.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Jobs of the file are faulty, each in its own way: exit code 2.
    #[error("{}", .0.join("\n"))]
    Faulty(Vec<String>),
    /// Other files declare jobs of this file, one line for each: exit code 1.
    #[error("{}", .0.join("\n"))]
    Conflicts(Vec<String>),
    /// The command was refused, or failed: exit code 1.
    #[error("{0}")]
    Refused(String),
    /// There is no job or run of this name: exit code 1.
    #[error("{0}")]
    NotFound(String),
    /// The command failed, and the reason has been shown already: exit code 1.
    #[error("{0}")]
    Quiet(String),
    /// No daemon answers: exit code 3.
    #[error("{0}")]
    Unreachable(String),
    /// The call to the daemon failed: exit code 3 if the daemon could not be reached, else 1.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Ctrl-C ended the wait for something that goes on: exit code 130, like a program that SIGINT ended.
    #[error("{0}")]
    Interrupted(String),
}

impl CliError {
    /// The exit code that says what kind of error it is.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Client(error) if error.is_not_connected() => ExitCode::from(3),
            Self::Refused(_)
            | Self::Conflicts(_)
            | Self::NotFound(_)
            | Self::Quiet(_)
            | Self::Client(_) => ExitCode::from(1),
            Self::Usage(_) | Self::Config(_) | Self::Faulty(_) => ExitCode::from(2),
            Self::Unreachable(_) => ExitCode::from(3),
            Self::Interrupted(_) => ExitCode::from(130),
        }
    }

    /// Whether the same command for other jobs would fail in the same way.
    pub(super) fn ends_all(&self) -> bool {
        match self {
            Self::Client(error) => error.is_not_connected(),
            Self::Unreachable(_) | Self::Interrupted(_) => true,
            Self::Usage(_)
            | Self::Config(_)
            | Self::Faulty(_)
            | Self::Conflicts(_)
            | Self::Refused(_)
            | Self::NotFound(_)
            | Self::Quiet(_) => false,
        }
    }

    /// The error as JSON, in the form of the errors of the control socket.
    pub(super) fn to_value(&self) -> Value {
        let (code, field) = match self {
            Self::Usage(_) => ("usage", None),
            Self::Faulty(_) => ("faulty_file", None),
            Self::Conflicts(_) => ("declared_in_file", None),
            Self::Config(error) => ("faulty_file", Some(error.invalid.field.as_str())),
            Self::Refused(_) | Self::Quiet(_) => ("failed", None),
            Self::NotFound(_) => ("not_found", None),
            Self::Interrupted(_) => ("interrupted", None),
            Self::Unreachable(_) | Self::Client(ClientError::Unreachable { .. }) => {
                ("unreachable", None)
            }
            Self::Client(ClientError::Denied { .. }) => ("permission_denied", None),
            Self::Client(ClientError::Unreadable(_)) => ("unreadable_answer", None),
            Self::Client(ClientError::Refused { code, field, .. }) => {
                (code.as_str(), field.as_deref())
            }
        };
        // The field has a key of its own.
        let message = if let Self::Client(ClientError::Refused { message, .. }) = self {
            message.clone()
        } else {
            self.to_string()
        };
        let field = field.filter(|field| !field.is_empty());
        json!({"error": {"code": code, "message": message, "field": field}})
    }
}
