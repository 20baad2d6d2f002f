//! Secrets in the configuration: read when the file is, and from then on used but never shown.

use std::fmt;

use serde_json::Value;

use crate::invalid::Invalid;
use crate::secret::{Secret, Text};

/// What stands where a secret stood.
const MASK: &str = "***";
/// Characters that a part of a secret has at least to be recognised in a message.
const PART_CHARS_MIN: usize = 4;

/// What is secret, or may have something secret in it: it is used, and not shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Hidden<T>(pub T);

impl<T> fmt::Debug for Hidden<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("…")
    }
}

/// Who reads the secrets of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Reader {
    /// The service, which has all of them.
    #[default]
    Service,
    /// Another command. It goes on without those that only the service has.
    Command,
}

/// The secrets of a file.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    reader: Reader,
    /// Those that only the service has: the key, and the place in words.
    missing: Vec<(String, String)>,
    texts: Hidden<Vec<String>>,
    /// Variables of the environment that they came from.
    variables: Vec<String>,
}

impl Secrets {
    pub(super) fn read_by(reader: Reader) -> Self {
        Self { reader, ..Self::default() }
    }

    /// Reads a text that stands at this key. None if it is a secret that only the service has.
    pub(super) fn read(&mut self, key: &str, text: &Text) -> Result<Option<String>, Invalid> {
        let secret = match text {
            Text::Plain(text) => return Ok(Some(text.clone())),
            Text::Secret(secret) => secret,
        };
        if let Secret::Env(name) = secret {
            self.variables.push(name.clone());
        }
        let read = match self.reader {
            Reader::Service => secret.read().map(Some),
            Reader::Command => secret.read_outside_service(),
        };
        let found = read.map_err(|error| Invalid::new(key, error.to_string()))?;
        match &found {
            Some(found) => self.texts.0.push(found.clone()),
            None => self.missing.push((key.to_owned(), secret.place())),
        }
        Ok(found)
    }

    /// Puts secrets in the place of what says where they are, wherever that stands in a table, and null in the place of
    /// those that only the service has.
    pub(super) fn resolve(&mut self, key: &str, value: &mut Value) -> Result<(), Invalid> {
        if let Some(secret) = place(value) {
            *value = self.read(key, &Text::Secret(secret))?.into();
            return Ok(());
        }
        match value {
            Value::Object(map) => map
                .iter_mut()
                .try_for_each(|(name, value)| self.resolve(&format!("{key}.{name}"), value)),
            Value::Array(items) => items
                .iter_mut()
                .enumerate()
                .try_for_each(|(number, item)| self.resolve(&format!("{key}[{number}]"), item)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
        }
    }

    /// The secrets that only the service has: the key, and the place in words.
    pub(super) fn missing(&self) -> &[(String, String)] {
        &self.missing
    }

    /// Variables of the environment that nobody else is to see.
    pub(super) fn variables(&self) -> &[String] {
        &self.variables
    }

    /// The same fault, without a secret that its message may quote.
    pub(super) fn hidden_in(&self, invalid: Invalid) -> Invalid {
        let secrets = self.texts.0.iter().filter(|secret| !secret.is_empty());
        let message = secrets.fold(invalid.message, |message, secret| {
            let message = message.replace(secret.as_str(), MASK);
            // What is wrong is often a part of it, and that is what is quoted.
            let rest = secret.split_once("://").map_or(secret.as_str(), |(_, rest)| rest);
            let mut parts = rest.split(|letter: char| !letter.is_alphanumeric());
            let is_quoted = |part: &str| {
                let beginning: String = part.chars().take(PART_CHARS_MIN).collect();
                beginning.chars().count() == PART_CHARS_MIN && message.contains(&beginning)
            };
            if parts.any(is_quoted) {
                format!("the secret does not fit here ({MASK})")
            } else {
                message
            }
        });
        Invalid { field: invalid.field, message }
    }
}

/// Where a secret is, if that is all that stands here.
fn place(value: &Value) -> Option<Secret> {
    let is_alone = value.as_object().is_some_and(|map| map.len() == 1);
    is_alone.then(|| serde_json::from_value(value.clone()).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_secret_stands_in_the_place_of_its_place_and_in_no_message() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("url");
        std::fs::write(&file, "redis://me:swordfish@host\n").unwrap();
        let mut secrets = Secrets::default();
        let mut table = json!({"redis": {"url": {"file": file}}, "list": [{"file": file}], "n": 1, "keys": {"env": 1}});
        secrets.resolve("toutiao", &mut table).unwrap();
        let url = "redis://me:swordfish@host";
        assert_eq!(
            table,
            json!({"redis": {"url": url}, "list": [url], "n": 1, "keys": {"env": 1}})
        );
        let quoted = [
            format!("bad \"{url}\""),
            "bad \"redis://me:swordf…".to_owned(),
            "unknown value swordfish".to_owned(),
        ];
        for message in quoted {
            let told = secrets.hidden_in(Invalid::new("a.b", message)).to_string();
            assert!(told.starts_with("a.b: ") && !told.contains("sword"), "{told}");
        }
        assert!(!format!("{secrets:?}").contains("sword"));
        let mut missing = json!({"redis": {"url": {"credential": "none"}}});
        let refused = secrets.resolve("toutiao", &mut missing).unwrap_err();
        assert_eq!(refused.field, "toutiao.redis.url");
    }
}
