//! What is wrong with an input, and where: the one error of every check of something given.

use std::fmt::Display;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::printable::shortened;

/// A value that was refused: the field that holds it, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.sentence())]
pub struct Invalid {
    /// Path of the field, such as `trigger.hour`; empty for the input as a whole.
    pub field: String,
    /// What is wrong, for a person, without the field's name.
    pub message: String,
}

/// Characters of a message, or of a field's name: what is quoted of a hostile input has an end.
const MESSAGE_CHARS_MAX: usize = 500;
/// Characters of a text that is quoted in a message.
const QUOTE_CHARS_MAX: usize = 80;

impl Invalid {
    /// An error at `field`.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        let cut = |text: String| shortened(&text, MESSAGE_CHARS_MAX).into_owned();
        Self { field: cut(field.into()), message: cut(message.into()) }
    }

    /// The same error, seen from the object that holds it under `parent`.
    #[must_use]
    pub fn within(self, parent: &str) -> Self {
        let field = match (parent.is_empty(), self.field.is_empty()) {
            (true, _) => self.field,
            (false, true) => parent.to_owned(),
            (false, false) => format!("{parent}.{}", self.field),
        };
        Self { field, message: self.message }
    }

    fn sentence(&self) -> String {
        if self.field.is_empty() {
            self.message.clone()
        } else {
            format!("{}: {}", self.field, self.message)
        }
    }
}

/// A text as it is quoted in a message: its beginning, if it is long.
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", shortened(text, QUOTE_CHARS_MAX))
}

/// Reads a JSON value into a type; an error names the path of the field that is wrong.
pub fn read<T: DeserializeOwned>(value: Value) -> Result<T, Invalid> {
    serde_path_to_error::deserialize(value).map_err(|error| at_path(&error))
}

/// An error of a reader that follows where it reads.
pub fn at_path<E: Display>(error: &serde_path_to_error::Error<E>) -> Invalid {
    Invalid::new(field_at(error.path()), error.inner().to_string())
}

/// The field at a path; empty for the input as a whole.
pub fn field_at(path: &serde_path_to_error::Path) -> String {
    let path = path.to_string();
    if path == "." { String::new() } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its shape is read")]
    struct Shape {
        max_workers: u32,
    }

    #[test]
    fn an_error_names_the_field_that_is_wrong() {
        let cases = [
            (json!({"max_workers": "x"}), "max_workers"),
            (json!({"max_workers": 1, "max_wokers": 2}), "max_wokers"),
            (json!({}), ""),
        ];
        for (value, field) in cases {
            assert_eq!(read::<Shape>(value.clone()).unwrap_err().field, field, "{value}");
        }
        let nested = Invalid::new("hour", "too large").within("trigger").within("jobs[0]");
        assert_eq!(nested.to_string(), "jobs[0].trigger.hour: too large");
    }
}
