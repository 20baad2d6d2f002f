//! Why a worker process can no longer be used, and what that means for the run that it was executing.

use std::io::{self, ErrorKind};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use super::protocol::frame::FrameError;
use crate::executor::exit_status::describe_exit;
use crate::executor::run::failed;
use crate::run::Outcome;
use crate::task::context::Ending;

/// Why a worker can no longer be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum WorkerError {
    /// Its socket has ended.
    #[error("ended")]
    Ended,
    /// It has ended, and has certainly not read everything that it was sent.
    #[error("ended before it had read everything that it was sent")]
    EndedUnread,
    #[error("lost its socket: {0}")]
    Socket(io::Error),
    #[error("broke the protocol: {0}")]
    Protocol(String),
    /// It sent nothing for this long.
    #[error("did not answer for {}s", .0.as_secs_f64())]
    Silent(Duration),
    /// Its run was cancelled, and the builtin or the whole worker did not end in the way that was asked.
    #[error("was asked to end its call")]
    Cancelled(Ending),
}

impl From<io::Error> for WorkerError {
    fn from(error: io::Error) -> Self {
        // The kernel reports these if the other end was closed before the write, or was closed with unread bytes.
        let is_unread = matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset);
        if is_unread { Self::EndedUnread } else { Self::Socket(error) }
    }
}

impl From<FrameError> for WorkerError {
    fn from(error: FrameError) -> Self {
        Self::Protocol(error.to_string())
    }
}

impl WorkerError {
    /// The outcome of the run whose worker failed with this error and then ended with this exit status.
    pub(super) fn into_outcome(self, status: &io::Result<ExitStatus>) -> Outcome {
        let error = format!("the worker process {}", self.describe(status));
        match (self, status) {
            (Self::Cancelled(ending), _) => ending.into(),
            (_, Err(_)) => failed(error),
            (_, Ok(status)) => {
                let (exit_code, signal) = (status.code(), status.signal());
                Outcome::Failed { error, exit_code, signal, permanent: false }
            }
        }
    }

    /// The error as the predicate of a sentence about the worker process.
    pub(super) fn describe(&self, status: &io::Result<ExitStatus>) -> String {
        match (self, status) {
            (Self::Ended | Self::EndedUnread, Ok(status)) if status.signal().is_some() => {
                format!("was {}", describe_exit(*status))
            }
            (Self::Ended | Self::EndedUnread, Ok(status)) => {
                format!("ended with {}", describe_exit(*status))
            }
            (Self::Ended | Self::EndedUnread, Err(error)) => {
                format!("could not be waited for: {error}")
            }
            _ => self.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(error: WorkerError, status: i32) -> (String, Option<i32>, Option<i32>) {
        let outcome = error.into_outcome(&Ok(ExitStatus::from_raw(status)));
        let Outcome::Failed { error, exit_code, signal, permanent: false } = outcome else {
            panic!("{outcome:?}")
        };
        (error, exit_code, signal)
    }

    #[test]
    fn the_error_of_a_run_says_what_ended_its_worker() {
        let text = |text: &str| text.to_owned();
        assert_eq!(
            told(WorkerError::Ended, 9),
            (text("the worker process was ended by signal 9 (SIGKILL)"), None, Some(9))
        );
        assert_eq!(
            told(WorkerError::EndedUnread, 3 << 8),
            (text("the worker process ended with exit code 3"), Some(3), None)
        );
        assert_eq!(
            told(WorkerError::Silent(Duration::from_secs(10)), 9),
            (text("the worker process did not answer for 10s"), None, Some(9))
        );
        assert_eq!(
            told(WorkerError::Protocol(text("nonsense")), 9).0,
            "the worker process broke the protocol: nonsense"
        );
    }
}
