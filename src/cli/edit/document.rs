//! A job as a TOML text, and back.

use serde_json::{Map, Value};

use crate::cli::error::CliError;
use crate::cli::view::is_defined;
use crate::printable::escaped;

/// The options of a job in the order in which they are shown; others follow.
const FIRST: [&str; 5] = ["name", "description", "tags", "executor", "timeout"];
/// How a line that says what is wrong begins.
const COMPLAINT: &str = "#! ";

/// The options of a job.
#[derive(Debug)]
pub(super) struct Document {
    /// An object without nulls, which TOML does not have.
    pub(super) value: Value,
    /// The options that the job does not have.
    absent: Vec<String>,
    toml: String,
}

impl Document {
    /// The options of a job. Refuses one that TOML cannot hold.
    pub(super) fn of(job: &Value) -> Result<Self, CliError> {
        let members = job.as_object().into_iter().flatten();
        let members: Vec<(&String, &Value)> =
            members.filter(|(key, _)| *key != "id" && is_defined(key)).collect();
        let absent = members.iter().filter(|(_, value)| value.is_null());
        let absent = absent.map(|(key, _)| (*key).clone()).collect();
        let rank = |key: &str| FIRST.iter().position(|first| *first == key).unwrap_or(FIRST.len());
        let mut given: Vec<(&String, &Value)> =
            members.into_iter().filter(|(_, value)| !value.is_null()).collect();
        // Tables come last, so that what follows them is not taken for a part of them.
        given.sort_by_key(|(key, value)| (value.is_object(), rank(key)));
        let mut options = Map::new();
        for (key, value) in given {
            let value = without_nulls(value).ok_or_else(|| unfit(key))?;
            options.insert(key.clone(), value);
        }
        let toml = toml::to_string_pretty(&options).map_err(|_| unfit("the job"))?;
        let value = Value::Object(options);
        // An integer may be too large.
        if parse(&toml).as_ref() != Ok(&value) {
            return Err(unfit("the job"));
        }
        Ok(Self { value, absent, toml })
    }

    /// The text for the editor.
    pub(super) fn text(&self, id: &str) -> String {
        let Self { absent, toml, .. } = self;
        let id = escaped(id);
        let not_set = if absent.is_empty() {
            String::new()
        } else {
            format!("# Not set: {}.\n", absent.join(", "))
        };
        format!(
            "# Job {id}. Only what you change is sent. Leave the file as it is to change nothing.\n\
            # An option that you remove gets its default.\n{not_set}\n{toml}"
        )
    }
}

fn unfit(what: &str) -> CliError {
    let why = format!("{what} has a value that TOML cannot hold: use punctual modify");
    CliError::Refused(why)
}

/// The value without members that are null. None: an array has a null, so that it cannot be left out.
fn without_nulls(value: &Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Object(members) => {
            let given = members.iter().filter(|(_, value)| !value.is_null());
            let given = given.map(|(key, value)| Some((key.clone(), without_nulls(value)?)));
            given.collect::<Option<Map<_, _>>>().map(Value::Object)
        }
        Value::Array(items) => {
            items.iter().map(without_nulls).collect::<Option<Vec<_>>>().map(Value::Array)
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => Some(value.clone()),
    }
}

/// The text with a comment above it that says why it was refused, in place of an earlier one.
pub(super) fn with_complaint(text: &str, why: &str) -> String {
    let complaint = why.lines().map(|line| format!("{COMPLAINT}{}\n", escaped(line)));
    // Only above the text: a script in it may have such lines too.
    let kept = text.split_inclusive('\n').skip_while(|line| line.starts_with(COMPLAINT));
    complaint.chain(kept.map(str::to_owned)).collect()
}

/// Reads the text. An error says where it is.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let table: toml::Table = toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.split('\n').count();
        format!("line {line} of what was saved: {}", error.message())
    })?;
    from_toml(toml::Value::Table(table))
}

fn from_toml(value: toml::Value) -> Result<Value, String> {
    Ok(match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => serde_json::Number::from_f64(number)
            .ok_or_else(|| format!("{number} is no number that a job can hold"))?
            .into(),
        toml::Value::Boolean(flag) => flag.into(),
        toml::Value::Datetime(at) => at.to_string().into(),
        toml::Value::Array(items) => {
            Value::Array(items.into_iter().map(from_toml).collect::<Result<_, _>>()?)
        }
        toml::Value::Table(members) => {
            let members = members.into_iter().map(|(key, value)| Ok((key, from_toml(value)?)));
            Value::Object(members.collect::<Result<_, String>>()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job(more: &Value) -> Value {
        let mut job = json!({
            "id": "a", "name": "a", "revision": 3, "timeout": 1.5, "max_runs": null,
            "trigger": {"type": "cron", "hour": "3", "timezone": "UTC", "end_date": null},
            "task": {"type": "command", "shell": "a\n'b'\t\"c\" \\ é", "env": {"A.B": "x"}},
            "tags": ["x", "y"], "description": "# no comment\n#! no complaint\n",
        });
        job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        job
    }

    #[test]
    fn what_is_not_changed_is_read_as_it_was_written() {
        let document = Document::of(&job(&json!({}))).unwrap();
        let text = document.text("a");
        assert!(text.contains("# Not set: max_runs.\n"), "{text}");
        assert_eq!(parse(&text).unwrap(), document.value, "{text}");
        assert_eq!(document.value.get("revision"), None);
        let complained = with_complaint(&text, "timeout: must be\nat least 1");
        assert!(
            complained.starts_with("#! timeout: must be\n#! at least 1\n# Job a"),
            "{complained}"
        );
        assert_eq!(parse(&complained).unwrap(), document.value);
        let again = with_complaint(&complained, "other");
        assert!(again.starts_with("#! other\n# Job a"), "{again}");
    }

    #[test]
    fn what_toml_cannot_hold_is_refused_and_not_changed() {
        for args in [json!([1, null]), json!(u64::MAX)] {
            let task = json!({"type": "builtin", "name": "noop", "args": {"a": args}});
            let error = Document::of(&job(&json!({"task": task}))).unwrap_err().to_string();
            assert!(error.contains("TOML cannot hold"), "{error}");
        }
    }

    #[test]
    fn a_fault_is_named_by_its_line() {
        let error = parse("# a\nb = 1\nc = \n").unwrap_err();
        assert!(error.contains("line 3"), "{error}");
        assert!(parse("a = nan").unwrap_err().contains("NaN"));
        assert_eq!(parse("a = 2026-11-06T16:30:05").unwrap(), json!({"a": "2026-11-06T16:30:05"}));
    }
}
