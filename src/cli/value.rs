//! JSON that is typed as the value of an option.

use serde_json::Value;

use super::CliError;
use crate::json::{self, JsonError};

/// Reads the JSON value of an option.
pub(super) fn json(option: &str, text: &str) -> Result<Value, CliError> {
    json::read(text.as_bytes()).map_err(|error| match error {
        JsonError::Syntax(error) => CliError::Usage(format!("{option} is not JSON: {error}")),
        JsonError::Refused(invalid) => CliError::Usage(format!("{option}: {invalid}")),
    })
}

/// Reads a value that is JSON where it can be, and text otherwise.
pub(super) fn json_or_text(option: &str, text: &str) -> Result<Value, CliError> {
    match json::read(text.as_bytes()) {
        Ok(value) => Ok(value),
        Err(JsonError::Syntax(_)) => Ok(text.into()),
        Err(JsonError::Refused(invalid)) => {
            Err(CliError::Usage(format!("{option}: {text}: {invalid}")))
        }
    }
}
