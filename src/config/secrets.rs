//! Secrets in the configuration. They are read together with the file; afterwards they are used but never shown.

use std::fmt;

use serde_json::Value;

use crate::invalid::Invalid;
use crate::secret::{Secret, Text};

/// Replaces a secret in messages.
const MASK: &str = "***";
/// Minimum number of characters of a part of a secret that is looked for in messages.
const PART_CHARS_MIN: usize = 4;

/// A value that is or may contain a secret. Its `Debug` output hides it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Hidden<T>(pub T);

impl<T> fmt::Debug for Hidden<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("…")
    }
}

/// Which secrets of a file a process can read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum SecretAccess {
    /// All of them, as the service: one that cannot be read is a fault.
    #[default]
    All,
    /// Perhaps not those of the service, as a command. It goes on without these.
    Partial,
}

/// The secrets of a file.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    access: SecretAccess,
    /// Secrets that only the service can read: the key, and a description of where the secret is.
    pub(super) missing: Vec<(String, String)>,
    texts: Hidden<Vec<String>>,
    /// The environment variables that hold secrets.
    pub(super) variables: Vec<String>,
}

impl Secrets {
    pub(super) fn new(access: SecretAccess) -> Self {
        Self { access, ..Self::default() }
    }

    /// Reads the text at this key. Returns `None` if it is a secret that only the service can read.
    pub(super) fn read(&mut self, key: &str, text: &Text) -> Result<Option<String>, Invalid> {
        let secret = match text {
            Text::Plain(text) => return Ok(Some(text.clone())),
            Text::Secret(secret) => secret,
        };
        if let Secret::Env(name) = secret {
            self.variables.push(name.clone());
        }
        let read = match self.access {
            SecretAccess::All => secret.read().map(Some),
            SecretAccess::Partial => secret.read_outside_service(),
        };
        let found = read.map_err(|error| Invalid::new(key, error.to_string()))?;
        match &found {
            Some(found) => self.texts.0.push(found.clone()),
            None => self.missing.push((key.to_owned(), secret.place())),
        }
        Ok(found)
    }

    /// Replaces each reference to a secret in a table, at any depth, by the secret itself, or by null if only the service
    /// can read it.
    pub(super) fn resolve(&mut self, key: &str, value: &mut Value) -> Result<(), Invalid> {
        if let Some(secret) = reference(value) {
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
            _ => Ok(()),
        }
    }

    /// The same fault with the secrets removed from its message.
    pub(super) fn mask(&self, invalid: Invalid) -> Invalid {
        let secrets = self.texts.0.iter().filter(|secret| !secret.is_empty());
        let message = secrets.fold(invalid.message, |message, secret| {
            let message = message.replace(secret.as_str(), MASK);
            // A parser often quotes only the part that is wrong.
            let rest = secret.split_once("://").map_or(secret.as_str(), |(_, rest)| rest);
            let mut parts = rest.split(|letter: char| !letter.is_alphanumeric());
            let is_quoted = |part: &str| {
                let start: String = part.chars().take(PART_CHARS_MIN).collect();
                start.chars().count() == PART_CHARS_MIN && message.contains(&start)
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

/// The reference to a secret, if the value is nothing else.
fn reference(value: &Value) -> Option<Secret> {
    let is_alone = value.as_object().is_some_and(|map| map.len() == 1);
    is_alone.then(|| serde_json::from_value(value.clone()).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_secret_replaces_its_reference_and_appears_in_no_message() {
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
            let told = secrets.mask(Invalid::new("a.b", message)).to_string();
            assert!(told.starts_with("a.b: ") && !told.contains("sword"), "{told}");
        }
        assert!(!format!("{secrets:?}").contains("sword"));
        let mut missing = json!({"redis": {"url": {"credential": "none"}}});
        let refused = secrets.resolve("toutiao", &mut missing).unwrap_err();
        assert_eq!(refused.field, "toutiao.redis.url");
    }
}
