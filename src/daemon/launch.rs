//! `punctual launch`: starts commands in a cgroup, for a daemon.

use std::process::ExitCode;

use super::inherited::Inherited;
use crate::cli::{CliError, report};
use crate::executor;

/// Starts commands until the daemon is gone.
pub fn launch() -> ExitCode {
    // What it is told in secret is not for the commands of its user. It has no log to report faults to.
    let _inherited = Inherited::settle_worker();
    report(executor::launch().map_err(|error| CliError::Refused(format!("launch: {error}"))))
}
