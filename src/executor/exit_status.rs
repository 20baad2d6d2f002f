//! How a process ended, in words, for commands and worker processes alike.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use crate::run::describe_signal;

/// `exit code 3`, or `ended by signal 9 (SIGKILL)`.
pub(super) fn describe_exit(status: ExitStatus) -> String {
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
        let words = |status: i32| describe_exit(ExitStatus::from_raw(status));
        assert_eq!(words(9), "ended by signal 9 (SIGKILL)");
        assert_eq!(words(34), "ended by signal 34");
        assert_eq!(words(7 << 8), "exit code 7");
    }
}
