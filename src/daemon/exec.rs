//! `punctual exec`: becomes a command that the daemon could not set up from outside.

use std::process::ExitCode;

use crate::cli::{Failure, report};
use crate::executor;

/// Becomes the command, or says that it cannot.
pub fn exec() -> ExitCode {
    executor::exec().unwrap_or_else(|error| report(Err(Failure::Refused(format!("exec: {error}")))))
}
