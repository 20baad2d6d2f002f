//! A fault in a configuration file, with its place.

use std::path::{Path, PathBuf};

use crate::invalid::Invalid;

/// A fault in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.line())]
pub struct ConfigError {
    /// The path of the file, as it was given.
    pub file: PathBuf,
    /// Line and column, from 1, where they are known.
    pub place: Option<(usize, usize)>,
    /// The key, and what is wrong with it.
    pub invalid: Invalid,
}

impl ConfigError {
    /// A fault of the file as a whole.
    pub fn of_file(file: &Path, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), place: None, invalid: Invalid::new("", message) }
    }

    fn line(&self) -> String {
        let file = self.file.display();
        match self.place {
            Some((line, column)) => format!("{file}:{line}:{column}: {}", self.invalid),
            None => format!("{file}: {}", self.invalid),
        }
    }
}
