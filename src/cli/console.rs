//! What is printed, and how a command ends.

use std::io::Write;
use std::process::ExitCode;

use serde_json::Value;

use super::CliError;
use crate::printable::{escaped, escaped_json};

/// Ends a command whose answers are for people: says why it failed, if it did, and gives its exit code.
pub fn report(result: Result<(), CliError>) -> ExitCode {
    Console::new(false).report(result)
}

/// How answers are shown.
#[derive(Debug)]
pub struct Console {
    json: bool,
}

impl Console {
    /// Answers as JSON, or for people.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether a program reads the answers.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// Ends a command: one line on the standard error if it failed, or one for each of several faults, and the exit code that says why.
    pub fn report(&self, result: Result<(), CliError>) -> ExitCode {
        let Err(failure) = result else { return ExitCode::SUCCESS };
        self.complain(&failure);
        failure.exit_code()
    }

    /// Prints a failure in one line, with control characters escaped, unless it has been shown already.
    pub(super) fn complain(&self, failure: &CliError) {
        if matches!(failure, CliError::Quiet(_)) {
            return;
        }
        let line = if let CliError::Faulty(lines) | CliError::Conflicts(lines) = failure
            && !self.json
        {
            lines.iter().map(|line| text(line)).collect::<Vec<_>>().join("\n")
        } else {
            self.worded(failure)
        };
        // Where the standard error is gone, nobody reads; the exit code still tells.
        drop(writeln!(std::io::stderr(), "{line}"));
    }

    /// A failure as one line: in JSON, or for people.
    pub fn worded(&self, failure: &CliError) -> String {
        if self.json { json(&failure.to_value()) } else { text(&failure.to_string()) }
    }

    /// Shows an answer: as it is, or as `view` puts it, which escapes what is foreign.
    pub fn show(
        &self,
        answer: &Value,
        view: impl FnOnce(&Value) -> String,
    ) -> Result<(), CliError> {
        let text = if self.json { json(answer) } else { view(answer) };
        line(text.trim_end_matches('\n'))
    }
}

/// A line of a failure, for people.
fn text(line: &str) -> String {
    format!("punctual: {}", escaped(line))
}

/// Says on standard error what is no part of an answer.
pub fn note(text: &str) {
    // Where the standard error is gone, nobody reads.
    drop(writeln!(std::io::stderr(), "{}", self::text(text)));
}

/// An answer in JSON that commands no terminal.
pub(super) fn json(answer: &Value) -> String {
    escaped_json(&answer.to_string()).into_owned()
}

/// Prints a line. A reader that has gone away (`| head`) is no failure.
pub(super) fn line(text: &str) -> Result<(), CliError> {
    print(text).map(drop)
}

/// Whether somebody still reads what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StdoutState {
    There,
    Gone,
}

/// Prints a text and a line break, and tells whether its reader is there.
pub(super) fn print(text: &str) -> Result<StdoutState, CliError> {
    write(&format!("{text}\n"))
}

/// Prints a text as it is, and tells whether its reader is there.
pub(super) fn write(text: &str) -> Result<StdoutState, CliError> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(StdoutState::There),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(StdoutState::Gone),
        Err(error) => Err(CliError::Refused(error.to_string())),
    }
}
