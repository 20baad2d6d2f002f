//! What the processes of a command may use.

use serde::{Deserialize, Serialize};

use crate::invalid::Invalid;

/// The least memory with which a program can be loaded at all.
const MEMORY_MIN: u64 = 1024 * 1024;
/// The least number of open files: the standard three, and the library that is being loaded.
const FILES_MIN: u64 = 4;

/// An amount of memory as it was given: `512000000` or `"512M"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number of bytes, or a text such as \"512M\" or \"2G\"")]
pub enum Bytes {
    /// Bytes.
    Number(u64),
    /// A number with a unit: K, M, G or T, in steps of 1024.
    Text(String),
}

impl Bytes {
    /// How many bytes it is; none if the text cannot be read, or says more than there can be.
    pub fn count(&self) -> Option<u64> {
        let text = match self {
            Self::Number(bytes) => return Some(*bytes),
            Self::Text(text) => text.as_str(),
        };
        let digits = text.trim_end_matches(['K', 'M', 'G', 'T']);
        let shift = match text.strip_prefix(digits)? {
            "" => 0,
            "K" => 10,
            "M" => 20,
            "G" => 30,
            "T" => 40,
            _ => return None,
        };
        // `parse` would take a sign.
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
        let number: u64 = digits.parse().ok().filter(|_| is_number)?;
        number.checked_mul(1 << shift)
    }
}

/// What a command may use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Address space of each of its processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    /// Time on processors of each of its processes, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u64>,
    /// Open files of each of its processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
}

impl Limits {
    /// Refuses what nothing could run with.
    pub(super) fn check(&self) -> Result<(), Invalid> {
        let refuse = |field: &str, why: String| Err(Invalid::new(field, why));
        if let Some(memory) = &self.memory {
            match memory.count() {
                None => {
                    let why = "must be a number of bytes, or one with a unit such as \"512M\"";
                    return refuse("memory", why.to_owned());
                }
                Some(..MEMORY_MIN) => {
                    return refuse("memory", format!("must be at least {MEMORY_MIN} bytes"));
                }
                Some(MEMORY_MIN..) => {}
            }
        }
        if self.cpu == Some(0) {
            return refuse("cpu", "must be at least 1 second".to_owned());
        }
        if self.files.is_some_and(|files| files < FILES_MIN) {
            return refuse("files", format!("must be at least {FILES_MIN}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invalid;
    use serde_json::json;

    #[test]
    fn memory_is_read_with_and_without_a_unit() {
        let text = |text: &str| Bytes::Text(text.to_owned()).count();
        assert_eq!(Bytes::Number(5).count(), Some(5));
        assert_eq!([text("7"), text("1K"), text("512M")], [Some(7), Some(1024), Some(512 << 20)]);
        assert_eq!([text("2G"), text("1T")], [Some(2 << 30), Some(1 << 40)]);
        for bad in ["", "K", "1k", "1 K", "-1", "1KM", "1.5G", "18446744073709551616"] {
            assert_eq!(text(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_bad_limit_is_refused_by_its_field() {
        let cases = [
            (json!({"memory": "12Q"}), "memory"),
            (json!({"memory": "M"}), "memory"),
            (json!({"memory": "+1M"}), "memory"),
            (json!({"memory": "1MM"}), "memory"),
            (json!({"memory": "99999999999T"}), "memory"),
            (json!({"memory": 4096}), "memory"),
            (json!({"memory": -1}), "memory"),
            (json!({"cpu": 0}), "cpu"),
            (json!({"cpu": 0.5}), "cpu"),
            (json!({"files": 3}), "files"),
        ];
        for (case, field) in cases {
            let checked = invalid::read::<Limits>(case.clone()).and_then(|limits| limits.check());
            assert_eq!(checked.unwrap_err().field, field, "{case}");
        }
    }
}
