//! The console: answers go to standard output, as JSON or for people; errors go to standard error and decide the exit
//! code.

use std::io::Write;
use std::process::ExitCode;

use serde_json::Value;

use super::CliError;
use crate::printable::{escaped, escaped_json};

/// Ends a command whose answers are for people: prints the error, if there is one, and returns the exit code.
pub fn report(result: Result<(), CliError>) -> ExitCode {
    Console::new(false).report(result)
}

/// How answers are shown.
#[derive(Debug)]
pub struct Console {
    json: bool,
}

impl Console {
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether a program reads the answers.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// Ends a command: prints the error, if there is one, and returns the exit code that says why it failed.
    pub fn report(&self, result: Result<(), CliError>) -> ExitCode {
        let Err(failure) = result else { return ExitCode::SUCCESS };
        self.complain(&failure);
        failure.exit_code()
    }

    /// Prints an error in one line, or in one for each of several faults, with control characters escaped. An error that
    /// has been shown already prints nothing.
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
        // If standard error is closed, the exit code still says it.
        drop(writeln!(std::io::stderr(), "{line}"));
    }

    /// An error as one line: in JSON, or for people.
    pub fn worded(&self, failure: &CliError) -> String {
        if self.json { json(&failure.to_value()) } else { text(&failure.to_string()) }
    }

    /// Shows an answer: as JSON, or as the text that `view` makes of it, which escapes everything foreign.
    pub fn show(
        &self,
        answer: &Value,
        view: impl FnOnce(&Value) -> String,
    ) -> Result<(), CliError> {
        let text = if self.json { json(answer) } else { view(answer) };
        line(text.trim_end_matches('\n'))
    }
}

/// A line of an error, for people.
fn text(line: &str) -> String {
    format!("punctual: {}", escaped(line))
}

/// Prints a note on standard error, since it is not part of an answer.
pub fn note(text: &str) {
    // If standard error is closed, nobody needs the note.
    drop(writeln!(std::io::stderr(), "{}", self::text(text)));
}

/// An answer in JSON, escaped so that it cannot command a terminal.
pub(super) fn json(answer: &Value) -> String {
    escaped_json(&answer.to_string()).into_owned()
}

/// Prints a line. A reader that has gone away (`| head`) is no error.
pub(super) fn line(text: &str) -> Result<(), CliError> {
    print(text).map(drop)
}

/// Whether something still reads standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StdoutState {
    There,
    Gone,
}

/// Prints a text and a line break, and says whether standard output is still read.
pub(super) fn print(text: &str) -> Result<StdoutState, CliError> {
    write(&format!("{text}\n"))
}

/// Prints a text as it is, and says whether standard output is still read.
pub(super) fn write(text: &str) -> Result<StdoutState, CliError> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(StdoutState::There),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(StdoutState::Gone),
        Err(error) => Err(CliError::Refused(error.to_string())),
    }
}
