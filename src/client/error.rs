//! The error of a call to the daemon.

use std::path::PathBuf;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon answers at the socket.
    #[error("no daemon answers at {}: {reason} ({help}--socket and PUNCTUAL_SOCKET choose another path)", .socket.display())]
    Unreachable {
        /// The path that was tried.
        socket: PathBuf,
        /// What the system said, and where else there is no socket.
        reason: String,
        /// A hint at how to find out more.
        help: &'static str,
    },
    /// The system refuses a connection to the socket.
    #[error("permission denied on {}: {advice}", .socket.display())]
    Denied {
        /// The path that was tried.
        socket: PathBuf,
        /// How to get access.
        advice: String,
    },
    /// The daemon refused the call.
    #[error("{}", refusal(.field.as_deref(), .message))]
    Refused {
        status: u16,
        /// Stable code of the error.
        code: String,
        message: String,
        /// The field that is wrong, if it is one.
        field: Option<String>,
    },
    /// The answer was not one of this protocol.
    #[error("the daemon's answer could not be read: {0}")]
    Unreadable(String),
}

fn refusal(field: Option<&str>, message: &str) -> String {
    match field {
        Some(field) if !field.is_empty() => format!("{field}: {message}"),
        _ => message.to_owned(),
    }
}

impl ClientError {
    /// Whether no daemon could be asked: none answers, or the system refuses the connection.
    pub fn is_not_connected(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Denied { .. })
    }

    /// Whether the job has another version than the one that the request was meant for.
    pub fn is_outdated(&self) -> bool {
        matches!(self, Self::Refused { status: 412, .. })
    }

    /// Whether the daemon has no job or run of this name.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}
