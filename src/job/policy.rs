//! How a job behaves when it is late, still busy, fails, or was interrupted.

use std::sync::Arc;

use chrono::TimeDelta;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Number, Value};

use super::retry::{Retry, RetryInput, ShownRetry};
use super::rules::{Coalesce, OnCrash, OnFinish, Overlap};
use super::task::http;
use super::{Hooks, Task, seconds};
use crate::invalid::Invalid;
use crate::json;
use crate::secret::Text;

/// Longest `misfire_grace_time`, in seconds: about a century, far from any overflow.
const GRACE_SECONDS_MAX: f64 = 3.2e9;
/// Longest `timeout`, in seconds: a year.
const TIMEOUT_SECONDS_MAX: f64 = 31_536_000.0;
/// Priorities lie between this and its negative.
const PRIORITY_MAX: i32 = 1000;

/// A job's policies, complete.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// How late an occurrence may still start; none means however late.
    pub misfire_grace: Option<TimeDelta>,
    /// Which of several missed occurrences run.
    pub coalesce: Coalesce,
    /// Runs of this job at the same time.
    pub max_instances: u32,
    /// What becomes of an occurrence beyond that.
    pub overlap: Overlap,
    /// What becomes of an interrupted run.
    pub on_crash: OnCrash,
    /// Occurrences after which the job is finished.
    pub max_runs: Option<u64>,
    /// How long an attempt may take; none means however long.
    pub timeout: Option<TimeDelta>,
    /// Whether and when a failed run is tried again.
    pub retry: Option<Retry>,
    /// Of the runs that wait for a worker, those of the highest come first.
    pub priority: i32,
    /// What is run when something has happened to a run.
    pub hooks: Hooks,
    /// Where is told that a run starts, has succeeded, or has failed.
    pub heartbeat: Option<Text>,
    /// What happens to the job once it is finished; none means that `[retention]` decides.
    pub on_finish: Option<OnFinish>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            misfire_grace: None,
            coalesce: Coalesce::default(),
            max_instances: 1,
            overlap: Overlap::default(),
            on_crash: OnCrash::default(),
            max_runs: None,
            timeout: None,
            retry: None,
            priority: 0,
            hooks: Hooks::default(),
            heartbeat: None,
            on_finish: None,
        }
    }
}

/// The policies that few jobs have, as they are stored and shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Options<'a> {
    timeout: Option<Number>,
    retry: Option<ShownRetry>,
    priority: i32,
    on_failure: Option<&'a Task>,
    on_failure_once: bool,
    on_recovery: Option<&'a Task>,
    on_success: Option<&'a Task>,
    on_missed: Option<&'a Task>,
    heartbeat: Option<&'a Text>,
    on_finish: Option<OnFinish>,
}

impl Policy {
    /// The grace time as it is shown: seconds, whole where it is whole.
    pub fn misfire_grace_seconds(&self) -> Option<Number> {
        seconds::shown(self.misfire_grace?)
    }

    /// The policies that few jobs have.
    pub fn options(&self) -> Options<'_> {
        Options {
            timeout: self.timeout.and_then(seconds::shown),
            retry: self.retry.map(|retry| retry.shown()),
            priority: self.priority,
            on_failure: self.hooks.on_failure.as_deref(),
            on_failure_once: self.hooks.on_failure_once,
            on_recovery: self.hooks.on_recovery.as_deref(),
            on_success: self.hooks.on_success.as_deref(),
            on_missed: self.hooks.on_missed.as_deref(),
            heartbeat: self.heartbeat.as_ref(),
            on_finish: self.on_finish,
        }
    }

    /// Whether it has none of those.
    pub fn is_plain(&self) -> bool {
        self.timeout.is_none()
            && self.retry.is_none()
            && self.priority == 0
            && self.hooks == Hooks::default()
            && self.heartbeat.is_none()
            && self.on_finish.is_none()
    }
}

/// The policies that were given; what is absent comes from the defaults.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyInput {
    /// Seconds; null is no limit.
    #[serde(default, deserialize_with = "given")]
    pub misfire_grace_time: Option<Option<f64>>,
    /// Which of several missed occurrences run.
    pub coalesce: Option<Coalesce>,
    /// Runs at the same time.
    pub max_instances: Option<u32>,
    /// What becomes of an occurrence beyond that.
    pub overlap: Option<Overlap>,
    /// What becomes of an interrupted run.
    pub on_crash: Option<OnCrash>,
    /// Occurrences after which the job is finished; null is no limit.
    #[serde(default, deserialize_with = "given")]
    pub max_runs: Option<Option<u64>>,
    /// Seconds; null is no limit.
    #[serde(default, deserialize_with = "given")]
    pub timeout: Option<Option<f64>>,
    /// When a failed run is tried again; null is never.
    #[serde(default, deserialize_with = "given")]
    pub retry: Option<Option<RetryInput>>,
    /// Which of the runs that wait come first.
    pub priority: Option<i32>,
    /// A task that is run when a run has failed for good; null is none.
    #[serde(default, deserialize_with = "given_value")]
    pub on_failure: Option<Option<Value>>,
    /// Whether that is run only for the first failure since a run has succeeded; false unless it is given.
    pub on_failure_once: Option<bool>,
    /// A task that is run when a run has succeeded after one that failed; null is none.
    #[serde(default, deserialize_with = "given_value")]
    pub on_recovery: Option<Option<Value>>,
    /// The same when a run has succeeded.
    #[serde(default, deserialize_with = "given_value")]
    pub on_success: Option<Option<Value>>,
    /// The same when an occurrence was too late to run.
    #[serde(default, deserialize_with = "given_value")]
    pub on_missed: Option<Option<Value>>,
    /// A URL that is told how runs go; null is none.
    #[serde(default, deserialize_with = "given")]
    pub heartbeat: Option<Option<Text>>,
    /// What happens to the job once it is finished; null leaves it to `[retention]`.
    #[serde(default, deserialize_with = "given")]
    pub on_finish: Option<Option<OnFinish>>,
}

/// Tells a value that was given as null from one that was not given.
#[expect(clippy::option_option, reason = "null says \"none\", absence says \"the default\"")]
pub(super) fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

/// The same for a JSON value, which is read strictly.
#[expect(clippy::option_option, reason = "null says \"none\", absence says \"the default\"")]
pub(super) fn given_value<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<Value>>, D::Error> {
    let value = json::deserialize_strict(deserializer)?;
    Ok(Some(Some(value).filter(|value| !value.is_null())))
}

impl PolicyInput {
    /// The complete policy, with `defaults` where nothing was given.
    pub fn complete(&self, defaults: &Self) -> Result<Policy, Invalid> {
        let grace = self.misfire_grace_time.or(defaults.misfire_grace_time).flatten();
        let max_instances = self.max_instances.or(defaults.max_instances).unwrap_or(1);
        let max_runs = self.max_runs.or(defaults.max_runs).flatten();
        if max_instances == 0 {
            return Err(Invalid::new("max_instances", "must be at least 1"));
        }
        if max_runs == Some(0) {
            return Err(Invalid::new("max_runs", "must be at least 1, or null for no limit"));
        }
        let grace = grace.map(|grace| limit("misfire_grace_time", grace, GRACE_SECONDS_MAX));
        let timeout = self.timeout.or(defaults.timeout).flatten();
        let timeout = timeout.map(|timeout| limit("timeout", timeout, TIMEOUT_SECONDS_MAX));
        let retry = self.retry.or(defaults.retry).flatten().map(RetryInput::complete);
        let retry = retry.transpose().map_err(|invalid| invalid.within("retry"))?;
        let priority = self.priority.or(defaults.priority).unwrap_or_default();
        if !(-PRIORITY_MAX..=PRIORITY_MAX).contains(&priority) {
            let message = format!("must be between -{PRIORITY_MAX} and {PRIORITY_MAX}");
            return Err(Invalid::new("priority", message));
        }
        Ok(Policy {
            misfire_grace: grace.transpose()?,
            coalesce: self.coalesce.or(defaults.coalesce).unwrap_or_default(),
            max_instances,
            overlap: self.overlap.or(defaults.overlap).unwrap_or_default(),
            on_crash: self.on_crash.or(defaults.on_crash).unwrap_or_default(),
            max_runs,
            timeout: timeout.transpose()?,
            retry: retry.filter(|retry| retry.max_attempts > 1),
            priority,
            hooks: Hooks {
                on_failure: task(
                    "on_failure",
                    self.on_failure.as_ref(),
                    defaults.on_failure.as_ref(),
                )?,
                on_failure_once: self
                    .on_failure_once
                    .or(defaults.on_failure_once)
                    .unwrap_or_default(),
                on_recovery: task(
                    "on_recovery",
                    self.on_recovery.as_ref(),
                    defaults.on_recovery.as_ref(),
                )?,
                on_success: task(
                    "on_success",
                    self.on_success.as_ref(),
                    defaults.on_success.as_ref(),
                )?,
                on_missed: task("on_missed", self.on_missed.as_ref(), defaults.on_missed.as_ref())?,
            },
            heartbeat: self.heartbeat(defaults)?,
            on_finish: self.on_finish.or(defaults.on_finish).flatten(),
        })
    }

    fn heartbeat(&self, defaults: &Self) -> Result<Option<Text>, Invalid> {
        let heartbeat = self.heartbeat.as_ref().or(defaults.heartbeat.as_ref());
        let heartbeat = heartbeat.and_then(Option::as_ref);
        if let Some(url) = heartbeat.and_then(Text::plain) {
            let refuse = |why: &str| Invalid::new("heartbeat", why);
            if http::has_user(&http::parse_url(url).map_err(refuse)?) {
                return Err(refuse(
                    "must not hold a user or a password, which everyone could see; give the whole URL as a secret",
                ));
            }
        }
        Ok(heartbeat.cloned())
    }
}

fn limit(field: &str, given: f64, most: f64) -> Result<TimeDelta, Invalid> {
    seconds::parse(field, given, most).map_err(|invalid| Invalid {
        message: format!("{}, or null for no limit", invalid.message),
        ..invalid
    })
}

fn task(
    field: &str,
    given: Option<&Option<Value>>,
    default: Option<&Option<Value>>,
) -> Result<Option<Arc<Task>>, Invalid> {
    let task = given.or(default).and_then(Option::as_ref).map(Task::parse);
    let task = task.transpose().map_err(|invalid| invalid.within(field))?;
    Ok(task.map(Arc::new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invalid;
    use serde_json::json;

    fn complete(given: Value, defaults: Value) -> Result<Policy, Invalid> {
        invalid::read::<PolicyInput>(given)?.complete(&invalid::read(defaults)?)
    }

    #[test]
    fn a_default_applies_only_where_nothing_was_given() {
        let defaults = json!({"misfire_grace_time": 60, "coalesce": false, "max_runs": 3});
        let policy = complete(json!({}), defaults.clone()).unwrap();
        assert_eq!(policy.misfire_grace, Some(TimeDelta::seconds(60)));
        assert_eq!((policy.coalesce, policy.max_runs), (Coalesce::All, Some(3)));
        let policy =
            complete(json!({"misfire_grace_time": null, "coalesce": "earliest"}), defaults)
                .unwrap();
        assert_eq!((policy.misfire_grace, policy.coalesce), (None, Coalesce::Earliest));
    }

    #[test]
    fn a_policy_out_of_range_is_refused_by_name() {
        let cases = [
            (json!({"misfire_grace_time": 0}), "misfire_grace_time"),
            (json!({"misfire_grace_time": -1}), "misfire_grace_time"),
            (json!({"misfire_grace_time": 1e300}), "misfire_grace_time"),
            (json!({"max_instances": 0}), "max_instances"),
            (json!({"max_instances": -1}), "max_instances"),
            (json!({"max_runs": 0}), "max_runs"),
            (json!({"coalesce": "no"}), "coalesce"),
            (json!({"overlap": "explode"}), "overlap"),
            (json!({"on_crash": "explode"}), "on_crash"),
            (json!({"timeout": 0}), "timeout"),
            (json!({"timeout": "1h"}), "timeout"),
            (json!({"retry": {"max_attempts": 0}}), "retry.max_attempts"),
            (json!({"priority": 1001}), "priority"),
            (json!({"on_failure": {"type": "shell"}}), "on_failure.type"),
            (json!({"heartbeat": "ftp://x"}), "heartbeat"),
            (json!({"on_finish": "delete"}), "on_finish"),
        ];
        for (given, field) in cases {
            assert_eq!(complete(given.clone(), json!({})).unwrap_err().field, field, "{given}");
        }
    }

    #[test]
    fn what_few_jobs_have_is_shown_as_it_is_given() {
        let given = json!({
            "timeout": 1.5,
            "retry": {"max_attempts": 3, "delay": 2, "backoff": 1.5, "max_delay": 60, "jitter": 0.0},
            "priority": 7,
            "on_failure": {"type": "builtin", "name": "noop", "args": {}},
            "on_failure_once": true,
            "on_recovery": {"type": "builtin", "name": "noop", "args": {}},
            "on_success": null,
            "on_missed": null,
            "heartbeat": {"env": "HEARTBEAT_URL"},
            "on_finish": "remove",
        });
        let policy = complete(given.clone(), json!({})).unwrap();
        assert_eq!(serde_json::to_value(policy.options()).unwrap(), given);
        assert!(!policy.is_plain());
        let none = json!({"timeout": null, "on_failure": null, "on_failure_once": false, "on_recovery": null, "heartbeat": null, "retry": null, "priority": 0, "on_finish": null});
        assert!(complete(none, given).unwrap().is_plain(), "null takes a default back");
    }
}
