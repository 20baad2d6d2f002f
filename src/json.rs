//! Parses JSON of clients strictly. It refuses a duplicate key, an integer that does not fit into 64 bits, and a value that
//! is nested too deeply. A plain parser would take the last key, round the integer, or fail later when the value becomes
//! part of a larger one. `merge_patch.rs` changes a value as a merge patch says.

mod merge_patch;

pub use merge_patch::{difference, merge, merge_member};

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::invalid::{self, Invalid};

/// The largest number of nested levels. It is half of what parsers accept, because responses, facts of hooks and messages to
/// worker processes contain a value a few levels down.
pub const DEPTH_MAX: usize = 64;
/// The number of digits up to which every integer fits into 64 bits.
const SAFE_DIGITS: usize = 18;

/// Every larger number is an integer that does not fit into 64 bits.
const LARGE: f64 = 9_223_372_036_854_775_807.0;

/// Why a text was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// It is not JSON.
    #[error("{0}")]
    Syntax(String),
    /// It is JSON that would not be preserved.
    #[error(transparent)]
    Refused(#[from] Invalid),
}

/// Parses a value.
pub fn read(text: &[u8]) -> Result<Value, JsonError> {
    let large = check_integers(text).err();
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut deserializer, &mut track);
    let value = Strict { levels: DEPTH_MAX, has_large: large.is_some() }.deserialize(tracked);
    let value = value.map_err(|error| match error.classify() {
        serde_json::error::Category::Data => {
            let field = invalid::field_at(&track.path());
            let message = large.as_ref().map(|large| large.message.clone());
            JsonError::Refused(Invalid::new(field, message.unwrap_or_else(|| error.to_string())))
        }
        serde_json::error::Category::Io
        | serde_json::error::Category::Syntax
        | serde_json::error::Category::Eof => JsonError::Syntax(error.to_string()),
    })?;
    deserializer.end().map_err(|error| JsonError::Syntax(error.to_string()))?;
    match large {
        Some(large) => Err(large.into()),
        None => Ok(value),
    }
}

/// Parses a value that is part of a larger text, for `#[serde(deserialize_with)]`. The caller checks the whole text with
/// [`check_integers`].
pub fn deserialize_strict<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    Strict { levels: DEPTH_MAX, has_large: false }.deserialize(deserializer)
}

fn too_deep() -> String {
    format!("a value has at most {DEPTH_MAX} levels")
}

/// Refuses a JSON text with an integer that does not fit into 64 bits.
pub fn check_integers(text: &[u8]) -> Result<(), Invalid> {
    let (mut rest, mut is_negative) = (text, false);
    while let Some((first, after)) = rest.split_first() {
        let follows_minus = std::mem::replace(&mut is_negative, *first == b'-');
        rest = match first {
            b'"' => after_string(after),
            b'0'..=b'9' => {
                let is_of_number = |byte: &&u8| {
                    byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-')
                };
                let length = 1 + after.iter().take_while(is_of_number).count();
                let (number, after) = rest.split_at(length);
                check_number(number, follows_minus)?;
                after
            }
            _ => after,
        };
    }
    Ok(())
}

/// The text after a string whose first quote has been read.
fn after_string(mut rest: &[u8]) -> &[u8] {
    while let Some(end) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) {
        let is_escape = rest.get(end) == Some(&b'\\');
        rest = rest.get(end + if is_escape { 2 } else { 1 }..).unwrap_or_default();
        if !is_escape {
            return rest;
        }
    }
    &[]
}

fn check_number(number: &[u8], is_negative: bool) -> Result<(), Invalid> {
    if number.len() <= SAFE_DIGITS || !number.iter().all(u8::is_ascii_digit) {
        return Ok(());
    }
    let digits = String::from_utf8_lossy(number);
    let sign = if is_negative { "-" } else { "" };
    let text = format!("{sign}{digits}");
    if text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok() {
        return Ok(());
    }
    let integer = invalid::quoted(&text);
    Err(Invalid::new(
        "",
        format!("the integer {integer} does not fit into 64 bits: give it as text"),
    ))
}

/// Deserializes a value with at most this number of levels.
struct Strict {
    levels: usize,
    /// Whether the text has an integer that does not fit into 64 bits. Then the first such number is an error, so that the
    /// error names its field.
    has_large: bool,
}

impl Strict {
    fn below<E: Error>(&self) -> Result<Self, E> {
        let levels = self.levels.checked_sub(1).ok_or_else(|| E::custom(too_deep()))?;
        Ok(Self { levels, has_large: self.has_large })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        if self.has_large && value.abs() >= LARGE {
            return Err(E::custom("an integer is too large"));
        }
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(self.below()?)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                let key = invalid::quoted(&key);
                return Err(A::Error::custom(format!("the key {key} is given twice")));
            }
            map.insert(key, entries.next_value_seed(self.below()?)?);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(text: &str) -> Invalid {
        match read(text.as_bytes()) {
            Err(JsonError::Refused(invalid)) => invalid,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn what_a_plain_parser_preserves_is_parsed_the_same() {
        let text = r#"{"a": [1, -2, 2.5, 1e300, true, null, "é\"\\ 99999999999999999999"], "b": {"c": {}},
            "most": 18446744073709551615, "least": -9223372036854775808, "float": 99999999999999999999.5}"#;
        let plain: Value = serde_json::from_str(text).unwrap();
        assert_eq!(read(text.as_bytes()).unwrap(), plain);
        for text in ["", "{", "[1,]", "tru", "{} {}", "\"\\", "1e", "\u{0}"] {
            assert!(matches!(read(text.as_bytes()), Err(JsonError::Syntax(_))), "{text}");
        }
    }

    #[test]
    fn a_duplicate_key_is_refused_with_its_name_and_field() {
        let invalid = refused(r#"{"id": "a", "trigger": {"hour": 1, "hour": 2}}"#);
        assert!(invalid.message.contains("the key \"hour\" is given twice"), "{invalid}");
        assert!(invalid.field.starts_with("trigger"), "{invalid}");
        assert!(refused(r#"{"id": "a", "id": "b"}"#).message.contains("\"id\" is given twice"));
        assert_eq!(read(br#"[{"a": 1}, {"a": 1}]"#).unwrap(), json!([{"a": 1}, {"a": 1}]));
    }

    #[test]
    fn an_integer_beyond_64_bits_is_refused_and_not_rounded() {
        for integer in
            ["18446744073709551616", "-9223372036854775809", "123456789012345678901234567890"]
        {
            let invalid = refused(&format!(r#"{{"args": {{"n": [0, {integer}]}}}}"#));
            assert!(invalid.message.contains(&format!("\"{integer}\"")), "{invalid}");
            assert_eq!(invalid.field, "args.n[1]");
            assert!(read(format!(r#"{{"n": "{integer}"}}"#).as_bytes()).is_ok(), "as text");
        }
    }

    #[test]
    fn a_value_has_a_limited_depth() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(read(nested(DEPTH_MAX).as_bytes()).is_ok());
        assert!(refused(&nested(DEPTH_MAX + 2)).message.contains("at most 64 levels"));
        let objects = format!("{}1{}", "{\"a\":".repeat(100), "}".repeat(100));
        assert!(refused(&objects).message.contains("at most 64 levels"));
    }
}
