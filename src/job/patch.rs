//! A change of a job's definition: a JSON merge patch (RFC 7396) of the job as a client could have written it. What the
//! patch sets to null is as if it had not been given, so the job defaults apply.

use serde_json::{Map, Value};

use super::{Definition, Job};
use crate::invalid::Invalid;
use crate::json::merge_member;

const TRIGGER: &str = "trigger";
const NEXT_RUN_TIME: &str = "next_run_time";

/// What is to change in the definition of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobPatch {
    members: Map<String, Value>,
    /// Whether the trigger replaces the former one as a whole. Otherwise it is merged with it.
    replaces_trigger: bool,
}

impl JobPatch {
    /// Reads the JSON form; an error names the field.
    pub fn parse(value: Value) -> Result<Self, Invalid> {
        let Value::Object(members) = value else {
            let message = "a patch is an object of what is to change, such as {\"timeout\": 60}";
            return Err(Invalid::new("", message));
        };
        for (key, hint) in [
            ("paused", "a job is paused by POST /v1/jobs/{id}/pause, and resumed by …/resume"),
            ("replace_existing", "a patch always changes the job that its path names"),
        ] {
            if members.contains_key(key) {
                return Err(Invalid::new(key, format!("cannot be patched: {hint}")));
            }
        }
        if members.get(NEXT_RUN_TIME) == Some(&Value::Null) {
            let message = "cannot be null here: a job is paused by POST /v1/jobs/{id}/pause";
            return Err(Invalid::new(NEXT_RUN_TIME, message));
        }
        Ok(Self { members, replaces_trigger: false })
    }

    /// A patch that replaces the trigger, and nothing else.
    pub fn of_trigger(trigger: Value) -> Self {
        let members = Map::from_iter([(TRIGGER.to_owned(), trigger)]);
        Self { members, replaces_trigger: true }
    }

    /// Whether it says anything about the trigger.
    pub fn has_trigger(&self) -> bool {
        self.members.contains_key(TRIGGER)
    }

    /// Whether it says when the job runs next.
    pub fn has_next_run_time(&self) -> bool {
        self.members.contains_key(NEXT_RUN_TIME)
    }

    /// The definition of this job with the change.
    pub fn apply(&self, job: &Job) -> Result<Definition, Invalid> {
        let mut definition = job.definition();
        for (key, change) in &self.members {
            if key == "id" {
                if change.as_str() != Some(job.id.as_str()) {
                    return Err(Invalid::new("id", "the id of a job cannot be changed"));
                }
            } else if key == NEXT_RUN_TIME {
                definition.insert(key.clone(), change.clone());
            } else if !definition.contains_key(key) {
                return Err(Invalid::new(key, "there is no such option of a job"));
            } else if change.is_null() && matches!(key.as_str(), TRIGGER | "task") {
                return Err(Invalid::new(key, "cannot be null: every job has one"));
            } else if key == TRIGGER && self.replaces_trigger {
                definition.insert(key.clone(), change.clone());
            } else {
                merge_member(&mut definition, key, change);
            }
        }
        // The rules for ids may have been others when the job was added.
        definition.remove("id");
        let mut definition = Definition::parse(Value::Object(definition))?;
        definition.id = Some(job.id.to_string());
        Ok(definition)
    }
}

impl Job {
    /// The options whose values differ in the definition of another job. A job without them has the same definition.
    pub fn changed_options(&self, other: &Self) -> Vec<String> {
        let others = other.definition();
        let own = self.definition().into_iter();
        let changed = own.filter(|(key, value)| others.get(key) != Some(value));
        changed.map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_patch_cannot_change_is_refused_by_name() {
        for (patch, field) in [
            (json!([]), ""),
            (json!(null), ""),
            (json!({"paused": true}), "paused"),
            (json!({"replace_existing": null}), "replace_existing"),
            (json!({"next_run_time": null}), "next_run_time"),
        ] {
            assert_eq!(JobPatch::parse(patch.clone()).unwrap_err().field, field, "{patch}");
        }
    }
}
