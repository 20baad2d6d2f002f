//! `punctual exec`: becomes a command that the daemon could not set up from outside.

use std::process::ExitCode;

use crate::cli::{CliError, report};
use crate::executor;

/// Becomes the command, or says that it cannot.
pub fn exec() -> ExitCode {
    executor::exec()
        .unwrap_or_else(|error| report(Err(CliError::Refused(format!("exec: {error}")))))
}
