//! Readers of the values of options. Each gives a value in its JSON form, or says why it is refused; clap adds which
//! option it is.

use chrono::TimeDelta;
use serde::Serialize;
use serde_json::{Map, Number, Value};

use crate::cli::error::CliError;
use crate::clock::MICROS_PER_SECOND;
use crate::duration::parse_duration;
use crate::json::{self, JsonError};

/// Reads a duration; its JSON form is seconds, which are an integer where they are whole.
pub(crate) fn seconds(text: &str) -> Result<Number, String> {
    let duration: TimeDelta = parse_duration(text)?;
    let micros = duration.num_microseconds().unwrap_or(i64::MAX);
    if micros % MICROS_PER_SECOND == 0 {
        return Ok((micros / MICROS_PER_SECOND).into());
    }
    #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "at most 2^53")]
    let seconds = micros as f64 / 1e6;
    Number::from_f64(seconds).ok_or_else(|| "is too long".to_owned())
}

/// Objects that the flags of several options make, one key for each.
const PARTS: [&str; 6] = ["task", "trigger", "retry", "env", "headers", "limits"];

/// Reads JSON.
pub(super) fn json(text: &str) -> Result<Value, String> {
    json::read(text.as_bytes()).map_err(|error| match error {
        JsonError::Syntax(error) => format!("it is not JSON: {error}"),
        JsonError::Refused(invalid) => invalid.to_string(),
    })
}

/// Reads a value that is JSON if it can be, and text otherwise.
fn json_or_text(text: &str) -> Result<Value, String> {
    match json::read(text.as_bytes()) {
        Ok(value) => Ok(value),
        Err(JsonError::Syntax(_)) => Ok(text.into()),
        Err(JsonError::Refused(invalid)) => Err(invalid.to_string()),
    }
}

/// Reads a value that is a number if it can be, and text otherwise.
#[expect(clippy::unnecessary_wraps, reason = "clap takes a reader that can fail")]
pub(super) fn number_or_text(text: &str) -> Result<Value, String> {
    Ok(text.parse::<u64>().map_or_else(|_| text.into(), Value::from))
}

/// Reads `NAME=VALUE`.
pub(super) fn name_value(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or("it must have the form NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Reads `NAME=VALUE`, where the value is JSON if it can be, and text otherwise.
pub(super) fn name_json(text: &str) -> Result<(String, Value), String> {
    let (name, value) = name_value(text)?;
    Ok((name, json_or_text(&value)?))
}

/// Reads where a secret is found: `env:VARIABLE`, `file:PATH` or `credential:NAME`. None: the text has another form.
/// It may be the secret itself then, so no message repeats it.
pub(super) fn secret_source(text: &str) -> Option<Value> {
    let (kind, place) = text.split_once(':')?;
    let is_kind = ["env", "file", "credential"].contains(&kind);
    is_kind.then(|| Map::from_iter([(kind.to_owned(), place.into())]).into())
}

/// Reads `NAME=SOURCE` as the value of `option`. This is done when the JSON is made, and not by clap, whose message
/// would repeat what was typed.
pub(super) fn name_source(option: &str, text: &str) -> Result<(String, Value), String> {
    let given = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let (name, source) =
        given.and_then(|(name, source)| Some((name, secret_source(source)?))).ok_or_else(|| {
            format!("{option} takes NAME=env:VARIABLE, NAME=file:PATH or NAME=credential:NAME")
        })?;
    Ok((name.trim().to_owned(), source))
}

/// The JSON form of options, without those that were not given: they are null, an empty list, or one of the objects in
/// [`PARTS`] without keys. The body of a call (`json`) is kept whatever it is, and what is inside of a trigger, a builtin's
/// arguments or a hook is not touched.
pub(super) fn given(options: &impl Serialize) -> Result<Value, CliError> {
    fn drop_absent(options: &mut Map<String, Value>) {
        for part in PARTS.iter().filter(|part| **part != "trigger") {
            if let Some(Value::Object(part)) = options.get_mut(*part) {
                drop_absent(part);
            }
        }
        options.retain(|key, value| match value {
            Value::Null => key == "json",
            Value::Array(items) => key == "json" || !items.is_empty(),
            Value::Object(keys) => !keys.is_empty() || !PARTS.contains(&key.as_str()),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
        });
    }
    let json = serde_json::to_value(options);
    let mut json = json.map_err(|error| CliError::Usage(error.to_string()))?;
    if let Value::Object(options) = &mut json {
        drop_absent(options);
    }
    Ok(json)
}

/// Makes an object of names and values. A name that is given twice is an error: only one of its values could count. `what`
/// says what the names are, in this error.
pub(super) fn object(
    what: &str,
    entries: impl IntoIterator<Item = Result<(String, Value), String>>,
) -> Result<Map<String, Value>, String> {
    let mut map = Map::new();
    for entry in entries {
        let (name, value) = entry?;
        if map.contains_key(&name) {
            return Err(format!("the {what} {name} is given twice"));
        }
        map.insert(name, value);
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_value_is_json_where_it_can_be() {
        let read = |given: &[&str]| object("argument", given.iter().map(|text| name_json(text)));
        let map = read(&["a=1", "b=x y", "c={\"d\":null}", "e=a=b"]).unwrap();
        assert_eq!(Value::Object(map), json!({"a": 1, "b": "x y", "c": {"d": null}, "e": "a=b"}));
        for bad in [
            ["a=1", "a=2"],
            ["a=1", "=2"],
            ["a=1", "b=123456789012345678901234567890"],
            ["a=1", "b={\"c\":1,\"c\":2}"],
        ] {
            assert!(read(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_source_that_cannot_be_read_is_not_repeated() {
        assert_eq!(secret_source("file:/a:b"), Some(json!({"file": "/a:b"})));
        for bad in ["A=hunter2", "A=vault:hunter2", "hunter2", "=env:hunter2"] {
            let why = name_source("--secret-env", bad).unwrap_err();
            assert!(why.starts_with("--secret-env takes") && !why.contains("hunter2"), "{why}");
        }
    }
}
