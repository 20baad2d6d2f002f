//! What the end of a command means.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use super::order::{Answer, Refusal, Sheet};
use crate::executor::report::failed;
use crate::job::Command;
use crate::run::{Outcome, describe_signal};

impl From<Refusal> for Outcome {
    fn from(Refusal { error, permanent, .. }: Refusal) -> Self {
        Self::Failed { error, exit_code: None, signal: None, permanent }
    }
}

/// The outcome of a command that ended by itself. A shim that did not become the command is told apart from a command
/// that ended with the same code.
pub(super) fn outcome(status: ExitStatus, command: &Command, sheet: Option<&Sheet>) -> Outcome {
    match sheet.map_or(Answer::Executed, Sheet::answer) {
        Answer::Executed => of_status(status, command),
        Answer::Refused(refusal) => refusal.into(),
        Answer::Nothing => failed(format!(
            "the command could not be started: what should have become it ended before: {}",
            in_words(status)
        )),
    }
}

fn of_status(status: ExitStatus, command: &Command) -> Outcome {
    match status.code() {
        Some(code) if command.is_success(code) => {
            Outcome::Succeeded { result: None, exit_code: Some(code) }
        }
        code => Outcome::Failed {
            error: in_words(status),
            exit_code: code,
            signal: status.signal(),
            permanent: code.is_some_and(|code| command.is_permanent(code)),
        },
    }
}

fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("ended by {}", describe_signal(signal)),
        (None, None) => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_its_number_and_its_name() {
        let words = |signal: i32| in_words(ExitStatus::from_raw(signal));
        assert_eq!(words(9), "ended by signal 9 (SIGKILL)");
        assert_eq!(words(34), "ended by signal 34");
        assert_eq!(words(7 << 8), "exit code 7");
    }
}
