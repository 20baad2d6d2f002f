//! A job as it is given: by a client, or in `jobs.toml`. Same keys, same checks.

use serde::Deserialize;
use serde_json::Value;

use super::JobId;
use super::policy::{PolicyInput, given, given_value};
use super::retry::RetryInput;
use super::rules::{Coalesce, OnCrash, OnFinish, Overlap};
use crate::invalid::{self, Invalid};
use crate::json;
use crate::secret::Text;

/// Labels that a job may have.
const TAGS_MAX: usize = 64;
/// Bytes of a tag, a name or an executor's name.
const WORD_BYTES_MAX: usize = 255;
/// Bytes of a description.
const DESCRIPTION_BYTES_MAX: usize = 16 * 1024;

/// A job's definition, not yet compiled.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::option_option, reason = "null says \"no limit\", absence says \"the default\"")]
pub struct Definition {
    /// The id; a new unique one where none is given.
    pub id: Option<String>,
    /// A name for people.
    pub name: Option<String>,
    /// When it is due.
    #[serde(deserialize_with = "json::deserialize_strict")]
    pub trigger: Value,
    /// What it does.
    #[serde(deserialize_with = "json::deserialize_strict")]
    pub task: Value,
    /// The pool; the one that fits the task where none is given.
    pub executor: Option<String>,
    #[serde(default, deserialize_with = "given")]
    misfire_grace_time: Option<Option<f64>>,
    coalesce: Option<Coalesce>,
    max_instances: Option<u32>,
    overlap: Option<Overlap>,
    on_crash: Option<OnCrash>,
    #[serde(default, deserialize_with = "given")]
    max_runs: Option<Option<u64>>,
    #[serde(default, deserialize_with = "given")]
    timeout: Option<Option<f64>>,
    #[serde(default, deserialize_with = "given")]
    retry: Option<Option<RetryInput>>,
    priority: Option<i32>,
    #[serde(default, deserialize_with = "given_value")]
    on_failure: Option<Option<Value>>,
    on_failure_once: Option<bool>,
    #[serde(default, deserialize_with = "given_value")]
    on_recovery: Option<Option<Value>>,
    #[serde(default, deserialize_with = "given_value")]
    on_success: Option<Option<Value>>,
    #[serde(default, deserialize_with = "given_value")]
    on_missed: Option<Option<Value>>,
    #[serde(default, deserialize_with = "given")]
    heartbeat: Option<Option<Text>>,
    #[serde(default, deserialize_with = "given")]
    on_finish: Option<Option<OnFinish>>,
    /// When it runs first, whatever the trigger says; null starts it paused.
    #[serde(default, deserialize_with = "given")]
    pub next_run_time: Option<Option<String>>,
    /// Whether it starts paused.
    #[serde(default)]
    pub paused: bool,
    /// Labels.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Whether a job of the same id is redefined rather than refused.
    #[serde(default)]
    pub replace_existing: bool,
}

impl Definition {
    /// Reads JSON text that is in order, as nearly all is. None says that it is not: [`Definition::parse`] tells why.
    pub fn read(text: &[u8]) -> Option<Self> {
        json::check_integers(text).ok()?;
        let definition: Self = serde_json::from_slice(text).ok()?;
        definition.check_words().ok()?;
        Some(definition)
    }

    /// Reads the JSON form; an error names the field.
    pub fn parse(value: Value) -> Result<Self, Invalid> {
        if !value.is_object() {
            return Err(Invalid::new(
                "",
                "a job is an object with at least \"trigger\" and \"task\"",
            ));
        }
        let definition: Self = invalid::read(value)?;
        definition.check_words()?;
        Ok(definition)
    }

    /// The policies that were given.
    pub fn policy(&self) -> PolicyInput {
        PolicyInput {
            misfire_grace_time: self.misfire_grace_time,
            coalesce: self.coalesce,
            max_instances: self.max_instances,
            overlap: self.overlap,
            on_crash: self.on_crash,
            max_runs: self.max_runs,
            timeout: self.timeout,
            retry: self.retry,
            priority: self.priority,
            on_failure: self.on_failure.clone(),
            on_failure_once: self.on_failure_once,
            on_recovery: self.on_recovery.clone(),
            on_success: self.on_success.clone(),
            on_missed: self.on_missed.clone(),
            heartbeat: self.heartbeat.clone(),
            on_finish: self.on_finish,
        }
    }

    fn check_words(&self) -> Result<(), Invalid> {
        if let Some(id) = &self.id {
            check_new_id(id)?;
        }
        let bad_word = |word: &str| {
            word.is_empty() || word.len() > WORD_BYTES_MAX || word.chars().any(char::is_control)
        };
        let refuse = |field: &str| {
            Err(Invalid::new(
                field,
                format!("must be 1 to {WORD_BYTES_MAX} bytes without control characters"),
            ))
        };
        if self.name.as_deref().is_some_and(bad_word) {
            return refuse("name");
        }
        if self.tags.iter().any(|tag| bad_word(tag)) {
            return refuse("tags");
        }
        if self.tags.len() > TAGS_MAX {
            return Err(Invalid::new("tags", format!("at most {TAGS_MAX} tags")));
        }
        if self.description.len() > DESCRIPTION_BYTES_MAX || self.description.contains('\0') {
            let message = format!("at most {DESCRIPTION_BYTES_MAX} bytes, without NUL");
            return Err(Invalid::new("description", message));
        }
        Ok(())
    }
}

/// Checks the id of a new job.
pub fn new_id(text: &str) -> Result<JobId, Invalid> {
    check_new_id(text)?;
    JobId::parse(text)
}

/// Refuses an id that clients could not name, or that people could not tell from another one. A job that is stored under
/// such an id stays as it is.
fn check_new_id(id: &str) -> Result<(), Invalid> {
    if matches!(id, "." | "..") {
        let message = "an id cannot be \".\" or \"..\": clients take these out of a path";
        return Err(Invalid::new("id", message));
    }
    match id.chars().find(|character| is_invisible(*character)) {
        Some(character) => {
            let code = u32::from(character);
            Err(Invalid::new(
                "id",
                format!("an id has no invisible characters, such as U+{code:04X}"),
            ))
        }
        None => Ok(()),
    }
}

/// Characters that show nothing, or change the direction of the text around them. The joiners are not among them: some
/// scripts need them.
fn is_invisible(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_text_that_would_not_be_kept_as_it_was_given_takes_the_way_that_names_the_fault() {
        let job =
            |task: &str| format!(r#"{{"id": "a", "trigger": {{"type": "date"}}, "task": {task}}}"#);
        assert!(Definition::read(job("{}").as_bytes()).is_some());
        for task in [r#"{"a": 1, "a": 2}"#, r#"{"a": 99999999999999999999}"#, &"[".repeat(100)] {
            assert!(Definition::read(job(task).as_bytes()).is_none(), "{task}");
        }
        let hook =
            r#"{"trigger": {}, "task": {}, "on_failure": {"type": "builtin", "type": "command"}}"#;
        assert!(Definition::read(hook.as_bytes()).is_none());
    }

    #[test]
    fn an_id_can_be_named_and_told_from_others() {
        let id = |id: &str| Definition::parse(json!({"id": id, "trigger": {}, "task": {}}));
        for good in ["batch", "a.b", "...", "order:42:expire", "备份", "a\u{200d}b"] {
            assert!(id(good).is_ok(), "{good}");
        }
        for bad in [".", "..", "a\u{202e}b", "\u{feff}a", "a\u{200b}"] {
            assert_eq!(id(bad).unwrap_err().field, "id", "{bad:?}");
        }
    }

    #[test]
    fn a_value_of_the_file_is_not_nested_too_deeply_either() {
        let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
        let error = Definition::parse(json!({"trigger": {}, "task": {"args": deep}})).unwrap_err();
        assert!(error.to_string().contains("at most 64 levels"), "{error}");
    }
}
