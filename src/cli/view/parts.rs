//! What the views have in common: how fields of an answer become text.

use serde_json::Value;

use crate::cli::table::state;
use crate::cli::times::{instant, local, relative};
use crate::clock::Timestamp;
use crate::printable::{escaped, escaped_json};
use crate::zone::Zone;

pub(super) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn rows<'a>(page: &'a Value, key: &str) -> &'a [Value] {
    page.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

pub(super) fn local_option(value: &Value, key: &str, zone: &Zone) -> String {
    instant(value, key).map(|at| local(at, zone)).unwrap_or_default()
}

/// A time, and how far it is from now.
pub(super) fn when(value: &Value, key: &str, zone: &Zone, now: Timestamp) -> Option<String> {
    let at = instant(value, key)?;
    Some(format!("{} ({})", local(at, zone), relative(at, now)))
}

/// A field in its JSON form, to be copied.
pub(super) fn json(value: &Value, key: &str) -> String {
    value.get(key).map(|value| escaped_json(&unreadable(value)).into_owned()).unwrap_or_default()
}

/// Lines of a name and a value each, without those that have no value. States are coloured.
pub(super) fn details(width: usize, lines: &[(&str, String)]) -> String {
    let given = lines.iter().filter(|(_, value)| !value.is_empty());
    let line = |(key, value): &(&str, String)| {
        let value = escaped(value);
        let value = match (*key, value.split_once(' ')) {
            ("state", Some((word, rest))) => format!("{} {rest}", state(word)),
            ("state", None) => state(&value),
            (_, _) => value.into_owned(),
        };
        format!("{key:<width$} {value}")
    };
    given.map(line).collect::<Vec<_>>().join("\n")
}

/// A trigger or task that cannot be read, as it is. It is null in a job of the file that was never valid.
pub(super) fn unreadable(value: &Value) -> String {
    if value.is_null() { String::new() } else { value.to_string() }
}

pub(super) fn next_page(page: &Value) -> String {
    match page.get("next_cursor").and_then(Value::as_str) {
        Some(cursor) => format!("more: --cursor '{}'\n", escaped(cursor)),
        None => String::new(),
    }
}

/// The user who did something, if that is known.
pub(super) fn by(value: &Value, key: &str) -> String {
    match text(value, key) {
        "" => String::new(),
        name => format!(" by {name}"),
    }
}

/// Until when a pause lasts, if it ends by itself.
pub(crate) fn pause_end(pause: &Value, key: &str, zone: &Zone, now: Timestamp) -> String {
    when(pause, key, zone, now).map(|until| format!(" until {until}")).unwrap_or_default()
}

/// A pause: since when, who paused it, until when and why.
pub(super) fn pause_words(pause: &Value, zone: &Zone, now: Timestamp) -> Option<String> {
    let since = when(pause, "since", zone, now)?;
    let (by, until) = (by(pause, "by"), pause_end(pause, "until", zone, now));
    Some(format!("since {since}{by}{until}{}", reason(pause, "reason")))
}

/// Why something was done, in brackets, if that is known.
pub(super) fn reason(value: &Value, key: &str) -> String {
    match text(value, key) {
        "" => String::new(),
        reason => format!(" ({reason})"),
    }
}

pub(super) fn plain_value(value: &Value, key: &str) -> String {
    match value.get(key) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
            .collect::<Vec<_>>()
            .join(", "),
        Some(other) => other.to_string(),
    }
}
