//! The tables: the list of columns of each, and how a row becomes a job, a run, an attempt or a node.

pub(super) mod jobs;
pub(super) mod nodes;
mod outcome;
pub(super) mod runs;

use serde_json::Value;

/// The value of a column that holds JSON. A text that is no JSON is kept as a string, so that it can be shown.
fn parse_json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}
