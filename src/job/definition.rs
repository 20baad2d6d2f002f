//! What a client may write about a job: the keys, and the bounds of id, labels and texts. Trigger and task are kept as
//! JSON here; [`super::admission`] compiles them. The policy options are described in `policy.rs`.

use serde::Deserialize;
use serde_json::Value;

use super::JobId;
use super::policy::{
    CoalesceInput, Given, OnCrash, OnFinish, Overlap, PolicyInput, TaskInput, given, policy_options,
};
use super::retry::RetryInput;
use crate::invalid::{self, Invalid};
use crate::json;
use crate::secret::Text;

/// The most labels of a job.
const TAGS_MAX: usize = 64;
/// The most bytes of a tag, a name or an executor's name.
const WORD_BYTES_MAX: usize = 255;
/// The most bytes of a description.
const DESCRIPTION_BYTES_MAX: usize = 16 * 1024;

/// Defines [`Definition`]: its own keys, and those of the policy options.
macro_rules! define_definition {
    ($(
        $(#[$attribute:meta])*
        $key:ident: $input:ty => $value:ty = $default:expr, $check:expr;
    )+) => {
        /// A job as a client or `jobs.toml` gives it: the same keys and the same checks. Admission compiles it into a
        /// [`Job`](super::Job).
        #[derive(Debug, Clone, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Definition {
            /// The id. None: a new unique one.
            pub id: Option<String>,
            /// A name for people. None: the id.
            pub name: Option<String>,
            /// When the job is due.
            #[serde(deserialize_with = "json::deserialize_strict")]
            pub trigger: Value,
            /// What the job does.
            #[serde(deserialize_with = "json::deserialize_strict")]
            pub task: Value,
            /// The pool that runs it. None: one that can run the task.
            pub executor: Option<String>,
            $(#[serde(default, deserialize_with = "given")] $key: Given<$input>,)+
            /// When the job runs first, whatever the trigger says. Null: it starts paused.
            #[serde(default, deserialize_with = "given")]
            pub next_run_time: Given<String>,
            /// Whether the job starts paused.
            #[serde(default)]
            pub paused: bool,
            /// Labels to select jobs by.
            #[serde(default)]
            pub tags: Vec<String>,
            /// Free text.
            #[serde(default)]
            pub description: String,
            /// Whether this redefines a job of the same id, which is an error otherwise.
            #[serde(default)]
            pub replace_existing: bool,
        }

        impl Definition {
            /// Takes the policy options that were given.
            pub fn take_policy(&mut self) -> PolicyInput {
                PolicyInput { $($key: self.$key.take(),)+ }
            }
        }
    };
}
policy_options!(define_definition);

impl Definition {
    /// Reads JSON text that has no fault, as nearly all has. None: [`Definition::parse`] finds the fault, more slowly.
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

/// Refuses an id that clients could not name, or that people could not distinguish from another one. A job that is stored
/// under such an id stays as it is.
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
