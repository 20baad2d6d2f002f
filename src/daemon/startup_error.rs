//! Why a start ended before the daemon was ready.

use crate::cli::CliError;
use crate::config::ConfigError;

/// Why a start ended before the daemon was ready.
#[derive(Debug)]
pub(super) enum StartupError {
    /// A signal asked the daemon to stop. That is not a failure.
    Stopped,
    Failed(CliError),
}

impl From<CliError> for StartupError {
    fn from(failure: CliError) -> Self {
        Self::Failed(failure)
    }
}

impl From<ConfigError> for StartupError {
    fn from(error: ConfigError) -> Self {
        Self::Failed(error.into())
    }
}

/// An error that may pass: exit code 1, after which systemd starts the daemon again.
pub(super) fn refused(error: &impl ToString) -> CliError {
    CliError::Refused(error.to_string())
}

/// An error that stays until somebody changes something: exit code 2, after which systemd does not try again.
pub(super) fn unusable(error: &impl ToString) -> CliError {
    CliError::Usage(error.to_string())
}
