//! Texts that may be secret. A secret is given by its source: a variable, a file or a credential. It is read when it is
//! needed and never kept; the store, the log and every response contain only its source.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize};

use crate::file;

/// The largest size of a secret in a file.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// The folder in which root finds the credentials of the running systemd service.
const CREDENTIALS_OF_THE_SERVICE: &str = "/run/credentials/punctual.service";

/// The source of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Secret {
    /// A variable of the daemon's environment.
    Env(String),
    /// A file. A line break at its end is not part of the secret.
    File(String),
    /// A credential of systemd's `LoadCredential=`.
    Credential(String),
}

/// A text, or the source of a secret.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Text {
    Plain(String),
    Secret(Secret),
}

impl fmt::Debug for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(text) => text.fmt(formatter),
            Self::Secret(secret) => secret.fmt(formatter),
        }
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "expected a text, or { env = \"NAME\" }, { file = \"PATH\" } or { credential = \"NAME\" }"
        )]
        enum TextForm {
            Plain(String),
            Secret(Secret),
        }
        Ok(match TextForm::deserialize(deserializer)? {
            TextForm::Plain(text) => Self::Plain(text),
            TextForm::Secret(secret) => Self::Secret(secret),
        })
    }
}

/// A secret could not be read. The error contains its source and never its content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the secret in {place} cannot be read: {why}")]
pub struct SecretError {
    place: String,
    why: String,
}

impl Secret {
    /// The source in words.
    pub fn place(&self) -> String {
        match self {
            Self::Env(name) => format!("the environment variable {name}"),
            Self::File(path) => format!("the file {path}"),
            Self::Credential(name) => format!("the credential {name}"),
        }
    }

    /// Reads the secret from its source, and from nowhere else.
    pub fn read(&self) -> Result<String, SecretError> {
        let failed = |why: String| SecretError { place: self.place(), why };
        match self {
            Self::Env(name) => std::env::var(name).map_err(|error| failed(error.to_string())),
            Self::File(path) => read_file(Path::new(path)).map_err(failed),
            Self::Credential(name) => {
                let folder = std::env::var_os("CREDENTIALS_DIRECTORY")
                    .ok_or_else(|| failed("systemd has not passed any credentials".to_owned()))?;
                read_credential(Path::new(&folder), name).map_err(failed)
            }
        }
    }

    /// Reads the secret in a command that the service manager has not started. `None` if only the service can read it.
    pub fn read_outside_service(&self) -> Result<Option<String>, SecretError> {
        match self {
            Self::Env(name) if std::env::var_os(name).is_none() => Ok(None),
            Self::Credential(name) if std::env::var_os("CREDENTIALS_DIRECTORY").is_none() => {
                check_credential(name).map_err(|why| SecretError { place: self.place(), why })?;
                Ok(read_credential(Path::new(CREDENTIALS_OF_THE_SERVICE), name).ok())
            }
            Self::Env(_) | Self::File(_) | Self::Credential(_) => self.read().map(Some),
        }
    }
}

fn check_credential(name: &str) -> Result<(), String> {
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return Err("its name must not have a slash or begin with a dot".to_owned());
    }
    Ok(())
}

fn read_credential(folder: &Path, name: &str) -> Result<String, String> {
    check_credential(name)?;
    read_file(&folder.join(name))
}

fn read_file(path: &Path) -> Result<String, String> {
    let mut text = file::read_text(path, SECRET_BYTES_MAX)?;
    let line = text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    let length = line.unwrap_or(&text).len();
    text.truncate(length);
    Ok(text)
}

impl Text {
    /// Reads the text. A secret is also added to `found`, so that the caller can mask it.
    pub fn read(&self, found: &mut Vec<String>) -> Result<String, SecretError> {
        match self {
            Self::Plain(text) => Ok(text.clone()),
            Self::Secret(secret) => {
                let text = secret.read()?;
                found.push(text.clone());
                Ok(text)
            }
        }
    }

    /// The environment variable that is the source of the secret, if it is one.
    pub fn variable(&self) -> Option<&str> {
        match self {
            Self::Secret(Secret::Env(name)) => Some(name),
            Self::Plain(_) | Self::Secret(Secret::File(_) | Secret::Credential(_)) => None,
        }
    }

    /// The text, unless it is secret.
    pub fn plain(&self) -> Option<&str> {
        match self {
            Self::Plain(text) => Some(text),
            Self::Secret(_) => None,
        }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::Plain(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_text_is_plain_or_has_a_source_and_is_shown_as_given() {
        let cases = [
            json!("plain"),
            json!({"env": "NAME"}),
            json!({"file": "/run/x"}),
            json!({"credential": "x"}),
        ];
        for case in cases {
            let text: Text = serde_json::from_value(case.clone()).unwrap();
            assert_eq!(serde_json::to_value(&text).unwrap(), case);
        }
        for bad in [json!(1), json!({"env": 1}), json!({"vault": "x"}), json!(null)] {
            assert!(serde_json::from_value::<Text>(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_secret_is_read_when_it_is_needed_and_returned_for_masking() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "s3cret\n").unwrap();
        let text = Text::Secret(Secret::File(path.display().to_string()));
        let mut found = Vec::new();
        assert_eq!(text.read(&mut found).unwrap(), "s3cret");
        assert_eq!(Text::from("open").read(&mut found).unwrap(), "open");
        assert_eq!(found, ["s3cret"]);
        std::fs::write(&path, "s3cret\r\n").unwrap();
        assert_eq!(text.read(&mut Vec::new()).unwrap(), "s3cret");
        std::fs::remove_file(&path).unwrap();
        let error = text.read(&mut found).unwrap_err().to_string();
        assert!(error.contains("token") && !error.contains("s3cret"), "{error}");
        let folder = Secret::File(folder.path().display().to_string()).read().unwrap_err();
        assert!(folder.to_string().contains("not a regular file"), "{folder}");
        for name in ["../etc/passwd", "", ".x"] {
            assert!(Secret::Credential(name.to_owned()).read().is_err(), "{name:?}");
        }
    }
}
