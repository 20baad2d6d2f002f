//! Reads TOML into JSON, and finds the place of a field in the text again.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::ConfigError;
use crate::invalid::Invalid;

/// The position of every key of a file.
#[derive(Debug, Default)]
pub(super) struct KeyPositions {
    /// The path of the file, as it was given.
    pub(super) file: PathBuf,
    /// Byte offset of the start of each line.
    lines: Vec<usize>,
    /// Byte offset of each key, by its path, such as `jobs[0].trigger.hour`.
    keys: BTreeMap<String, usize>,
    /// Values that JSON cannot represent. Each was replaced by null.
    pub(super) unusable: Vec<Invalid>,
}

impl KeyPositions {
    /// Adds the place of a fault: that of its field, or else of the nearest key that contains it.
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

    fn line_and_column(&self, offset: usize) -> (usize, usize) {
        let line = self.lines.partition_point(|begin| *begin <= offset).max(1);
        let begin = self.lines.get(line - 1).copied().unwrap_or(0);
        (line, offset.saturating_sub(begin) + 1)
    }
}

/// Reads the text of a file into JSON, and records the position of every key.
pub(super) fn read(file: &Path, text: &str) -> Result<(Value, KeyPositions), ConfigError> {
    let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
    let lines = std::iter::once(0).chain(breaks).collect();
    let mut positions = KeyPositions { file: file.to_owned(), lines, ..KeyPositions::default() };
    let table = DeTable::parse(text).map_err(|error| {
        let place = error.span().map(|Range { start, .. }| positions.line_and_column(start));
        let invalid = Invalid::new("", format!("not TOML: {}", error.message()));
        ConfigError { file: file.to_owned(), place, invalid }
    })?;
    let value = from_table(table.get_ref(), "", &mut positions);
    Ok((value, positions))
}

fn from_table(table: &DeTable<'_>, path: &str, positions: &mut KeyPositions) -> Value {
    let mut map = Map::new();
    for (key, value) in table {
        let name: &str = key.get_ref();
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        positions.keys.insert(path.clone(), key.span().start);
        map.insert(name.to_owned(), from_value(value, &path, positions));
    }
    Value::Object(map)
}

fn from_value(value: &Spanned<DeValue<'_>>, path: &str, positions: &mut KeyPositions) -> Value {
    let mut refuse = |why: &str| {
        positions.unusable.push(Invalid::new(path, why));
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
                positions.keys.insert(path.clone(), item.span().start);
                list.push(from_value(item, &path, positions));
            }
            Value::Array(list)
        }
        DeValue::Table(table) => from_table(table, path, positions),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_its_position() {
        let text = "[a]\nb = 1\n\n[[jobs]]\nid = \"x\"\ntrigger = { type = \"cron\", hour = 3 }\n";
        let (value, positions) = read(Path::new("f.toml"), text).unwrap();
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
            assert_eq!(positions.error(Invalid::new(field, "x")).place, place, "{field}");
        }
    }

    #[test]
    fn invalid_toml_is_refused_with_its_position() {
        let error = read(Path::new("f.toml"), "a = 1\nb = = 2\n").unwrap_err();
        assert_eq!(error.place.map(|(line, _)| line), Some(2));
        assert!(error.to_string().starts_with("f.toml:2:"), "{error}");
    }
}
