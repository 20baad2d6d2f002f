//! The error of every check of an input: what is wrong, and in which field.

use std::fmt::Display;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::printable::shortened;

/// An invalid value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.sentence())]
pub struct Invalid {
    /// The path of the field, such as `trigger.hour`; empty for the input as a whole.
    pub field: String,
    /// What is wrong, for people, without the name of the field.
    pub message: String,
}

/// The largest number of characters of a message or a field's name, because they may quote a hostile input.
const MESSAGE_CHARS_MAX: usize = 500;
/// The largest number of characters of a quoted text.
const QUOTE_CHARS_MAX: usize = 80;

impl Invalid {
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        let cut = |text: String| shortened(&text, MESSAGE_CHARS_MAX).into_owned();
        Self { field: cut(field.into()), message: cut(message.into()) }
    }

    /// The same error in an object whose field `parent` holds the input.
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

/// Quotes a text for a message. A long text is shortened to its beginning.
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", shortened(text, QUOTE_CHARS_MAX))
}

/// Deserializes a JSON value. An error names the field.
pub fn read<T: DeserializeOwned>(value: Value) -> Result<T, Invalid> {
    serde_path_to_error::deserialize(value).map_err(|error| at_path(&error))
}

/// Converts an error of `serde_path_to_error`.
pub fn at_path<E: Display>(error: &serde_path_to_error::Error<E>) -> Invalid {
    Invalid::new(field_at(error.path()), error.inner().to_string())
}

/// The field of a path; empty for the input as a whole.
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
