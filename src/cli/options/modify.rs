//! The arguments of `modify` and `reschedule`. What is given becomes a merge patch of the job.
#![expect(clippy::doc_markdown, reason = "these comments are the help text, which is not Markdown")]

use clap::{ArgGroup, Args};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::policy::PolicyOptions;
use super::task::TaskOptions;
use super::trigger::TriggerOptions;
use super::values;
use crate::cli::error::CliError;
use crate::json::{difference, merge};

/// Options whose value is one whole: what a former value had besides does not stay.
const WHOLE: [&str; 4] = ["on_failure", "on_recovery", "on_success", "on_missed"];

/// A change of a job: the arguments of `modify`.
#[derive(Debug, Args, Serialize)]
#[command(group = ArgGroup::new("what").args(["builtin", "command", "url"]))]
pub struct ModifyOptions {
    /// The job's id
    #[serde(skip)]
    pub(crate) id: String,
    #[command(flatten, next_help_heading = "When")]
    #[serde(skip)]
    pub(crate) trigger: TriggerOptions,
    #[command(flatten)]
    #[serde(skip)]
    task: TaskOptions,
    /// Pool to run in
    #[arg(long, value_name = "NAME", help_heading = "How")]
    executor: Option<String>,
    #[command(flatten)]
    #[serde(flatten)]
    policy: PolicyOptions,
    /// Run next at this time, whatever the trigger says (as in --at)
    #[arg(long, value_name = "TIME", help_heading = "How")]
    next_run_time: Option<String>,
    /// Name for people
    #[arg(long, help_heading = "Labels")]
    name: Option<String>,
    /// Label to select jobs by, in place of all former ones; can be given again
    #[arg(long = "tag", value_name = "TAG", help_heading = "Labels")]
    tags: Vec<String>,
    /// Free text
    #[arg(long, value_name = "TEXT", help_heading = "Labels")]
    description: Option<String>,
    /// Take an option back to its default, such as timeout, on_failure, trigger.jitter or task.env.HOME; can be given
    /// again
    #[arg(long, value_name = "OPTION", help_heading = "Change")]
    #[serde(skip)]
    unset: Vec<String>,
    /// Change nothing; show what would change, and the next times before and after
    #[arg(long, help_heading = "Change")]
    #[serde(skip)]
    pub(crate) dry_run: bool,
}

impl ModifyOptions {
    /// The times that were given, each with its option.
    pub(crate) fn times_mut(&mut self) -> impl Iterator<Item = (&'static str, &mut String)> {
        let next = self.next_run_time.as_mut().map(|time| ("--next-run-time", time));
        self.trigger.times_mut().chain(next)
    }

    /// The patch of this job that makes the change.
    pub(crate) fn patch(&self, job: &Value) -> Result<Value, CliError> {
        let Value::Object(mut patch) = values::given(self)? else {
            return Err(CliError::Usage("these options are no object".to_owned()));
        };
        for key in WHOLE {
            if let Some(value) = patch.get(key).map(|new| replacement(job, key, new)).transpose()? {
                patch.insert(key.to_owned(), value);
            }
        }
        if let Some(trigger) = self.trigger_patch(job)? {
            patch.insert("trigger".to_owned(), trigger);
        }
        if let Some(task) = self.task_patch(job)? {
            patch.insert("task".to_owned(), task);
        }
        for option in &self.unset {
            unset(&mut patch, job, option)?;
        }
        if patch.is_empty() {
            let why = "say what to change, such as --timeout 1h or --unset timeout";
            return Err(CliError::Usage(why.to_owned()));
        }
        Ok(Value::Object(patch))
    }

    fn trigger_patch(&self, job: &Value) -> Result<Option<Value>, CliError> {
        let mut given = self.trigger.members()?;
        if let Value::Object(keys) = &mut given {
            // In a trigger, null is the same as nothing.
            keys.retain(|_, value| !value.is_null());
        }
        if self.trigger.has_kind() {
            return replacement(job, "trigger", &given).map(Some);
        }
        Ok(Some(given).filter(|given| given.as_object().is_some_and(|keys| !keys.is_empty())))
    }

    fn task_patch(&self, job: &Value) -> Result<Option<Value>, CliError> {
        if let Some(task) = self.task.whole()? {
            return replacement(job, "task", &task).map(Some);
        }
        self.task.part()
    }
}

/// The patch that replaces an option of a job by a new value as a whole.
fn replacement(job: &Value, key: &str, new: &Value) -> Result<Value, CliError> {
    let former = job.get(key).unwrap_or(&Value::Null);
    let patch = difference(former, new);
    let mut merged = former.clone();
    merge(&mut merged, &patch);
    if merged == *new {
        return Ok(patch);
    }
    let why = format!("{key}: a change cannot set a key to null; add --replace can");
    Err(CliError::Usage(why))
}

/// Adds to a patch that an option goes back to its default.
fn unset(patch: &mut Map<String, Value>, job: &Value, option: &str) -> Result<(), CliError> {
    let (first, rest) = option.split_once('.').unwrap_or((option, ""));
    // The flag of an option has dashes, and that of the labels is in the singular.
    let first = if first == "tag" { "tags".to_owned() } else { first.replace('-', "_") };
    let keys: Vec<&str> = std::iter::once(first.as_str())
        .chain(rest.split('.').filter(|_| !rest.is_empty()))
        .collect();
    if value_at(&Value::Object(patch.clone()), &keys).is_some() {
        return Err(CliError::Usage(format!("{option} is given, and --unset takes it back")));
    }
    // The daemon knows the options of a job, but a key inside of one may have any name.
    if keys.len() > 1 && value_at(job, &keys).is_none() {
        return Err(CliError::Refused(format!("--unset {option}: the job has nothing there")));
    }
    let change = keys.iter().rev().fold(Value::Null, |inner, key| json!({ *key: inner }));
    if let Some((key, inner)) = change.as_object().and_then(|change| change.iter().next()) {
        add_nulls(patch, key, inner);
    }
    Ok(())
}

/// Merges into a patch another one that consists of objects and a null.
fn add_nulls(patch: &mut Map<String, Value>, key: &str, change: &Value) {
    match (patch.get_mut(key), change) {
        (Some(Value::Object(members)), Value::Object(changes)) => {
            changes.iter().for_each(|(key, change)| add_nulls(members, key, change));
        }
        (_, _) => {
            patch.insert(key.to_owned(), change.clone());
        }
    }
}

fn value_at<'v>(value: &'v Value, keys: &[&str]) -> Option<&'v Value> {
    keys.iter().try_fold(value, |value, key| value.get(key))
}

/// Another trigger for a job: the arguments of `reschedule`.
#[derive(Debug, Args)]
pub struct RescheduleOptions {
    /// The job's id
    pub(crate) id: String,
    #[command(flatten, next_help_heading = "When")]
    pub(crate) trigger: TriggerOptions,
    /// Change nothing; show what would change, and the next times before and after
    #[arg(long, help_heading = "Change")]
    pub(crate) dry_run: bool,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        options: ModifyOptions,
    }

    fn patch(words: &[&str]) -> Result<Value, CliError> {
        let job = json!({
            "trigger": {"type": "cron", "hour": "3", "timezone": "UTC"},
            "task": {"type": "builtin", "name": "noop", "args": {"a": 1, "b": null}},
            "timeout": 60,
            "on_failure": {"type": "builtin", "name": "noop", "args": {}},
        });
        let flags = Flags::try_parse_from([&["modify", "job"], words].concat());
        flags.map_err(|error| CliError::Usage(error.to_string()))?.options.patch(&job)
    }

    #[test]
    fn only_what_is_given_is_in_the_patch() {
        let cases: [(&[&str], Value); 8] = [
            (&["--timeout", "5m"], json!({"timeout": 300})),
            (
                &["--retry-delay", "1s", "--max-attempts", "2"],
                json!({"retry": {"max_attempts": 2, "delay": 1}}),
            ),
            (&["--jitter", "5"], json!({"trigger": {"jitter": 5}})),
            (&["--arg", "c=2"], json!({"task": {"args": {"c": 2}}})),
            (&["--cwd", "/tmp"], json!({"task": {"cwd": "/tmp"}})),
            (
                &["--unset", "max-runs", "--unset", "task.args.a"],
                json!({"max_runs": null, "task": {"args": {"a": null}}}),
            ),
            (
                &["--arg", "c=2", "--unset", "task.args.a"],
                json!({"task": {"args": {"c": 2, "a": null}}}),
            ),
            (&["--unset", "tag", "--name", "x"], json!({"name": "x", "tags": null})),
        ];
        for (words, expected) in cases {
            assert_eq!(patch(words).unwrap(), expected, "{words:?}");
        }
    }

    #[test]
    fn a_trigger_a_task_and_a_hook_replace_the_former_one_as_a_whole() {
        let cases: [(&[&str], Value); 4] = [
            (
                &["--every", "10m"],
                json!({"trigger": {"hour": null, "timezone": null, "type": "interval", "seconds": 600}}),
            ),
            (&["--builtin", "noop"], json!({"task": {"args": {"a": null, "b": null}}})),
            (
                &["--", "true"],
                json!({"task": {"name": null, "args": null, "type": "command", "argv": ["true"]}}),
            ),
            (
                &["--on-failure", "x"],
                json!({"on_failure": {"name": null, "args": null, "type": "command", "shell": "x"}}),
            ),
        ];
        for (words, expected) in cases {
            assert_eq!(patch(words).unwrap(), expected, "{words:?}");
        }
    }

    #[test]
    fn what_contradicts_itself_or_says_nothing_is_refused() {
        let cases: [(&[&str], &str); 6] = [
            (&[], "say what to change"),
            (&["--timeout", "1", "--unset", "timeout"], "takes it back"),
            (&["--every", "1h", "--unset", "trigger"], "takes it back"),
            (&["--unset", "task.cwd"], "nothing there"),
            (&["--builtin", "noop", "--arg", "a=null"], "to null"),
            (&["--shell"], "--shell"),
        ];
        for (words, said) in cases {
            let error = patch(words).unwrap_err().to_string();
            assert!(error.contains(said), "{words:?}: {error}");
        }
    }
}
