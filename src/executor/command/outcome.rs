//! The outcome that follows from the end of a command's process, in words.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::process::Signal;

use super::shim::{SharedBlock, ShimResult};
use crate::executor::exit_status::describe_exit;
use crate::executor::run::failed;
use crate::job::{Command, MemorySize};
use crate::run::Outcome;

/// The outcome of a command that ended by itself. `block` tells a shim that did not become the command from a command
/// that ended with the same exit code.
pub(super) fn outcome(
    status: ExitStatus,
    command: &Command,
    block: Option<&SharedBlock>,
) -> Outcome {
    match block.map_or(ShimResult::Executed, SharedBlock::result) {
        ShimResult::Executed => of_status(status, command),
        ShimResult::Refused(error) => error.into(),
        ShimResult::Silent => failed(format!(
            "the command could not be started: its shim ended before it became the command: {}",
            describe_exit(status)
        )),
    }
}

fn of_status(status: ExitStatus, command: &Command) -> Outcome {
    match status.code() {
        Some(code) if command.is_success(code) => {
            Outcome::Succeeded { result: None, exit_code: Some(code) }
        }
        code => Outcome::Failed {
            error: describe_exit(status),
            exit_code: code,
            signal: status.signal(),
            permanent: code.is_some_and(|code| command.is_permanent(code)),
        },
    }
}

/// Adds to a failure that processes of the command were killed for lack of memory. A success stays one.
pub(super) fn out_of_memory(outcome: Outcome, limit: Option<&MemorySize>) -> Outcome {
    let Outcome::Failed { error, exit_code, signal, permanent } = outcome else { return outcome };
    let limit = limit_in_words(limit);
    // The kernel uses SIGKILL. Without exit code and signal, it was the command's launcher that was killed.
    let is_itself = exit_code.is_none() && signal.is_none_or(|it| it == Signal::KILL.as_raw());
    let error = if is_itself {
        format!("killed: out of memory{limit}")
    } else {
        format!("{error}; a process of it was killed: out of memory{limit}")
    };
    Outcome::Failed { error, exit_code, signal, permanent }
}

/// A line for the output of a run that succeeded although some of its processes were killed for lack of memory.
pub(super) fn killed_processes(count: usize, limit: Option<&MemorySize>) -> String {
    let limit = limit_in_words(limit);
    let were = if count == 1 { "was" } else { "were" };
    format!("{} {were} killed: out of memory{limit}", processes(count))
}

fn limit_in_words(limit: Option<&MemorySize>) -> String {
    limit.map(|limit| format!(" (limit {})", limit.words())).unwrap_or_default()
}

/// A number of processes, in words.
pub(super) fn processes(count: usize) -> String {
    if count == 1 { "1 process".to_owned() } else { format!("{count} processes") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_was_killed_for_lack_of_memory_says_so_with_its_limit() {
        let ended = |exit_code, signal| Outcome::Failed {
            error: "ended".to_owned(),
            exit_code,
            signal,
            permanent: false,
        };
        let error = |outcome| {
            let Outcome::Failed { error, .. } = outcome else { panic!("{outcome:?}") };
            error
        };
        let limit = MemorySize::Text("64M".to_owned());
        let killed = out_of_memory(ended(None, Some(9)), Some(&limit));
        assert_eq!(error(killed), "killed: out of memory (limit 64 MiB)");
        assert_eq!(error(out_of_memory(ended(None, None), None)), "killed: out of memory");
        let failed = out_of_memory(ended(Some(1), None), Some(&limit));
        let expected = "ended; a process of it was killed: out of memory (limit 64 MiB)";
        assert_eq!(error(failed), expected);
        let success = Outcome::Succeeded { result: None, exit_code: Some(0) };
        assert_eq!(out_of_memory(success.clone(), Some(&limit)), success);
        let told = killed_processes(1, Some(&limit));
        assert_eq!(told, "1 process was killed: out of memory (limit 64 MiB)");
        assert_eq!(killed_processes(2, None), "2 processes were killed: out of memory");
    }
}
