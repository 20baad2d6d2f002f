//! Why a command could not be started.

use std::io;

use serde::{Deserialize, Serialize};

use crate::executor::shortage::is_shortage;
use crate::run::Outcome;

/// The command was not started. The shim sends this to the daemon as JSON.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CommandStartError {
    pub(super) error: String,
    /// Trying again cannot help.
    pub(super) permanent: bool,
    /// The system lacked a resource, such as a free process or descriptor. Nothing has begun, so the start is tried
    /// again without counting as an attempt.
    pub(super) is_shortage: bool,
}

impl CommandStartError {
    pub(super) fn transient(error: impl Into<String>) -> Self {
        Self { error: error.into(), permanent: false, is_shortage: false }
    }

    pub(super) fn shortage(error: impl Into<String>) -> Self {
        Self { is_shortage: true, ..Self::transient(error) }
    }

    pub(super) fn permanent(error: impl Into<String>) -> Self {
        Self { permanent: true, ..Self::transient(error) }
    }

    /// The daemon failed to create the process, for a reason that is not the command's own.
    pub(super) fn of_daemon(error: &io::Error) -> Self {
        let why = format!("the command could not be started: {error}");
        if is_shortage(error) { Self::shortage(why) } else { Self::transient(why) }
    }
}

impl From<CommandStartError> for Outcome {
    fn from(CommandStartError { error, permanent, .. }: CommandStartError) -> Self {
        Self::Failed { error, exit_code: None, signal: None, permanent }
    }
}
