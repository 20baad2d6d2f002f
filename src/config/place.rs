//! From TOML to JSON, and from a field back to its place in the text.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ConfigError;
use crate::invalid::Invalid;

/// Where every key of a file stands.
#[derive(Debug, Default)]
pub(super) struct Places {
    file: PathBuf,
    /// Byte offset of each line's beginning.
    lines: Vec<usize>,
    /// Byte offset of each key, by its path, such as `jobs[0].trigger.hour`.
    keys: BTreeMap<String, usize>,
    /// Values that JSON does not have; null stands in for each.
    pub(super) unusable: Vec<Invalid>,
}

impl Places {
    /// A fault with its place: that of its field, or of the nearest key around it.
    pub(super) fn error(&self, invalid: Invalid) -> ConfigError {
        let mut path = invalid.field.as_str();
        let offset = loop {
            if let Some(offset) = self.keys.get(path) {
                break Some(*offset);
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = path.get(..end).unwrap_or_default(),
                None => break None,
            }
        };
        ConfigError {
            file: self.file.clone(),
            place: offset.map(|offset| self.line_and_column(offset)),
            invalid,
        }
    }

    /// The file, as it was named.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    fn line_and_column(&self, offset: usize) -> (usize, usize) {
        let line = self.lines.partition_point(|begin| *begin <= offset).max(1);
        let begin = self.lines.get(line - 1).copied().unwrap_or(0);
        (line, offset.saturating_sub(begin) + 1)
    }
}

/// Reads a file's text into JSON, and notes where everything stands.
pub(super) fn read(file: &Path, text: &str) -> Result<(Value, Places), ConfigError> {
    let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
    let lines = std::iter::once(0).chain(breaks).collect();
    let mut places = Places { file: file.to_owned(), lines, ..Places::default() };
    let table = DeTable::parse(text).map_err(|error| {
        let place = error.span().map(|Range { start, .. }| places.line_and_column(start));
        let invalid = Invalid::new("", format!("not TOML: {}", error.message()));
        ConfigError { file: file.to_owned(), place, invalid }
    })?;
    let value = from_table(table.get_ref(), "", &mut places);
    Ok((value, places))
}

fn from_table(table: &DeTable<'_>, path: &str, places: &mut Places) -> Value {
    let mut map = Map::new();
    for (key, value) in table {
        let name: &str = key.get_ref();
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        places.keys.insert(path.clone(), key.span().start);
        map.insert(name.to_owned(), from_value(value, &path, places));
    }
    Value::Object(map)
}

fn from_value(value: &Spanned<DeValue<'_>>, path: &str, places: &mut Places) -> Value {
    let mut refuse = |why: &str| {
        places.unusable.push(Invalid::new(path, why));
        Value::Null
    };
    match value.get_ref() {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Datetime(at) => Value::String(at.to_string()),
        DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(integer) => integer.into(),
            Err(_) => refuse("the number is too large"),
        },
        DeValue::Float(float) => {
            let number = float.as_str().parse::<f64>().ok().and_then(Number::from_f64);
            number.map_or_else(|| refuse("must be a finite number"), Value::Number)
        }
        DeValue::Array(items) => {
            let mut list = Vec::with_capacity(items.len());
            for (number, item) in items.iter().enumerate() {
                let path = format!("{path}[{number}]");
                places.keys.insert(path.clone(), item.span().start);
                list.push(from_value(item, &path, places));
            }
            Value::Array(list)
        }
        DeValue::Table(table) => from_table(table, path, places),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_its_place() {
        let text = "[a]\nb = 1\n\n[[jobs]]\nid = \"x\"\ntrigger = { type = \"cron\", hour = 3 }\n";
        let (value, places) = read(Path::new("f.toml"), text).unwrap();
        assert_eq!(value["jobs"][0]["trigger"]["hour"], 3);
        let cases = [
            ("a.b", Some((2, 1))),
            ("jobs[0].id", Some((5, 1))),
            ("jobs[0].trigger.hour", Some((6, 28))),
            ("jobs[0].trigger.minute", Some((6, 1))),
            ("jobs[0]", Some((4, 1))),
            ("nothing", None),
        ];
        for (field, place) in cases {
            assert_eq!(places.error(Invalid::new(field, "x")).place, place, "{field}");
        }
    }

    #[test]
    fn what_is_not_toml_is_refused_at_its_place() {
        let error = read(Path::new("f.toml"), "a = 1\nb = = 2\n").unwrap_err();
        assert_eq!(error.place.map(|(line, _)| line), Some(2));
        assert!(error.to_string().starts_with("f.toml:2:"), "{error}");
    }
}
