//! What is printed, and how a command ends.

use std::io::Write;
use std::process::ExitCode;

use serde_json::Value;

use crate::client::ClientError;
use crate::config::ConfigError;
use crate::printable::{escaped, escaped_json};

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// What was typed makes no sense: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The file is faulty: exit code 2.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It was refused, or failed: exit code 1.
    #[error("{0}")]
    Refused(String),
    /// It failed, and that has been shown already: exit code 1.
    #[error("{0}")]
    Quiet(String),
    /// No daemon answers: exit code 3.
    #[error("{0}")]
    Unreachable(String),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Unreachable { .. } => Self::Unreachable(error.to_string()),
            ClientError::Refused { .. } | ClientError::Unreadable(_) => {
                Self::Refused(error.to_string())
            }
        }
    }
}

impl Failure {
    /// The exit code that tells what kind of failure it is.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Refused(_) | Self::Quiet(_) => ExitCode::from(1),
            Self::Usage(_) | Self::Config(_) => ExitCode::from(2),
            Self::Unreachable(_) => ExitCode::from(3),
        }
    }
}

/// Ends a command: one line on the standard error if it failed, and the exit code that says why.
pub fn report(result: Result<(), Failure>) -> ExitCode {
    let Err(failure) = result else { return ExitCode::SUCCESS };
    if !matches!(failure, Failure::Quiet(_)) {
        complain(&failure.to_string());
    }
    failure.exit_code()
}

/// Prints a complaint in one line, without what could command a terminal, and goes on.
pub(super) fn complain(text: &str) {
    // Where the standard error is gone, nobody reads; the exit code still tells.
    drop(writeln!(std::io::stderr(), "punctual: {}", escaped(text)));
}

/// How answers are shown.
#[derive(Debug)]
pub struct Output {
    json: bool,
}

impl Output {
    /// Answers as JSON, or for people.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether a program reads the answers.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// Shows an answer: as it is, or as `view` puts it, which escapes what is foreign.
    pub fn show(&self, answer: &Value, view: impl FnOnce(&Value) -> String) -> Result<(), Failure> {
        let text = if self.json { json(answer) } else { view(answer) };
        line(&text)
    }
}

/// An answer in JSON that commands no terminal.
pub(super) fn json(answer: &Value) -> String {
    escaped_json(&answer.to_string()).into_owned()
}

/// Prints a line. A reader that has gone away (`| head`) is no failure.
pub(super) fn line(text: &str) -> Result<(), Failure> {
    print(text).map(drop)
}

/// Whether somebody still reads what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    There,
    Gone,
}

/// Prints a line, and tells whether its reader is there.
pub(super) fn print(text: &str) -> Result<Reader, Failure> {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{}", text.trim_end_matches('\n')).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(Reader::There),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(Failure::Refused(error.to_string())),
    }
}
