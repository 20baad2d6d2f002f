//! The options that say how a job behaves when it is late, still busy, fails, is interrupted or is finished.
//!
//! [`policy_options!`] describes every option once: its key, what a client may write, its default and its bounds.
//! From these rows come [`Policy`], which is complete, [`PolicyInput`], which holds what was given (in a request or in
//! `[scheduler.job_defaults]`), the keys of a [`Definition`](super::Definition), the view of a job, and the stored form.
//! To add an option, add a row here and a flag in `cli/options/policy.rs`, and use its field where it takes effect.

use std::fmt;
use std::sync::{Arc, LazyLock};

use chrono::TimeDelta;
use serde::de::{self, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Number, Value};

use super::retry::{Retry, RetryInput};
use super::task::http;
use super::{Task, seconds};
use crate::invalid::{self, Invalid};
use crate::json;
use crate::secret::Text;
use crate::words::words;

/// The longest `misfire_grace_time`, in seconds: about a century, far from any overflow.
const GRACE_SECONDS_MAX: f64 = 3.2e9;
/// The longest `timeout`, in seconds: a year.
const TIMEOUT_SECONDS_MAX: f64 = 31_536_000.0;
/// Priorities lie between this and its negative.
const PRIORITY_MAX: i32 = 1000;

/// Passes the options to a macro, one row each:
/// `key: what a client writes => what the scheduler reads = the default, the check that turns one into the other;`.
///
/// The default applies where neither the job nor the job defaults give the option, or where it is given as null. The
/// store holds only what differs from the default, so a default is never changed.
macro_rules! policy_options {
    ($then:ident) => {
        $then! {
            /// How late an occurrence may still start, given in seconds. None: however late.
            #[serde(serialize_with = "seconds::serialize_option")]
            misfire_grace_time: f64 => Option<TimeDelta> = None,
                |given| duration(given, GRACE_SECONDS_MAX);
            /// Which of several missed occurrences run.
            coalesce: CoalesceInput => Coalesce = Coalesce::Latest, |given| Ok(given.0);
            /// How many runs of this job may be in flight at the same time.
            max_instances: u32 => u32 = 1, |given| at_least_one(given, "");
            /// What happens to an occurrence beyond `max_instances`.
            overlap: Overlap => Overlap = Overlap::Skip, Ok;
            /// What happens to a run that a crash of the daemon interrupted.
            on_crash: OnCrash => OnCrash = OnCrash::Rerun, Ok;
            /// The number of occurrences after which the job is finished. None: no limit.
            max_runs: u64 => Option<u64> = None, |given| at_least_one(given, OR_NULL).map(Some);
            /// How long an attempt may take, given in seconds. None: however long.
            #[serde(serialize_with = "seconds::serialize_option")]
            timeout: f64 => Option<TimeDelta> = None, |given| duration(given, TIMEOUT_SECONDS_MAX);
            /// Whether and when a failed run is tried again. None: never.
            retry: RetryInput => Option<Retry> = None, RetryInput::check;
            /// Of the runs that wait for a worker, those of the highest priority start first.
            priority: i32 => i32 = 0, priority;
            /// The task to run when a run has failed for good.
            #[serde(serialize_with = "serialize_task")]
            on_failure: TaskInput => Option<Arc<Task>> = None, TaskInput::check;
            /// Whether `on_failure` runs only for the first failure since the last success.
            on_failure_once: bool => bool = false, Ok;
            /// The task to run when a run has succeeded after one that failed.
            #[serde(serialize_with = "serialize_task")]
            on_recovery: TaskInput => Option<Arc<Task>> = None, TaskInput::check;
            /// The task to run when a run has succeeded.
            #[serde(serialize_with = "serialize_task")]
            on_success: TaskInput => Option<Arc<Task>> = None, TaskInput::check;
            /// The task to run when an occurrence was too late to run.
            #[serde(serialize_with = "serialize_task")]
            on_missed: TaskInput => Option<Arc<Task>> = None, TaskInput::check;
            /// The URL to notify when a run starts, succeeds or fails.
            heartbeat: Text => Option<Text> = None, heartbeat;
            /// What happens to the job once it is finished. None: `[retention]` decides.
            on_finish: OnFinish => Option<OnFinish> = None, |given| Ok(Some(given));
        }
    };
}
pub(super) use policy_options;

macro_rules! define_policy {
    ($(
        $(#[$attribute:meta])*
        $key:ident: $input:ty => $value:ty = $default:expr, $check:expr;
    )+) => {
        /// The options of a job, complete. As JSON it is what a client could have written.
        #[derive(Debug, Clone, PartialEq, Serialize)]
        pub struct Policy {
            $($(#[$attribute])* pub $key: $value,)+
        }

        impl Default for Policy {
            fn default() -> Self {
                Self { $($key: $default,)+ }
            }
        }

        /// The options that were given. What is absent comes from the job defaults.
        #[derive(Debug, Clone, Default, PartialEq, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct PolicyInput {
            $(#[serde(default, deserialize_with = "given")] pub(super) $key: Given<$input>,)+
        }

        impl PolicyInput {
            /// Checks the options and completes them, from `defaults` where nothing was given.
            pub fn complete(&self, defaults: &Self) -> Result<Policy, Invalid> {
                Ok(Policy {
                    $($key: {
                        let check: fn($input) -> Result<$value, Invalid> = $check;
                        match self.$key.as_ref().or(defaults.$key.as_ref()).cloned().flatten() {
                            Some(given) => check(given)
                                .map_err(|invalid| invalid.within(stringify!($key)))?,
                            None => $default,
                        }
                    },)+
                })
            }
        }
    };
}
policy_options!(define_policy);

/// An option as it was given: absent, null (which takes back what the job defaults say), or a value.
pub(super) type Given<T> = Option<Option<T>>;

/// Reads an option that was given, perhaps as null.
pub(super) fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Given<T>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

/// What the default policy is as JSON.
static DEFAULT: LazyLock<Map<String, Value>> = LazyLock::new(|| Policy::default().to_map());

impl Policy {
    fn to_map(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            Ok(_) | Err(_) => Map::new(),
        }
    }

    /// The JSON that the store keeps: an object of the options that differ from their defaults, in the form in which a
    /// client gives them. None if all are at their defaults, as in most jobs.
    pub fn to_stored(&self) -> Option<String> {
        if *self == Self::default() {
            return None;
        }
        let mut map = self.to_map();
        map.retain(|key, value| DEFAULT.get(key) != Some(value));
        Some(Value::Object(map).to_string())
    }

    /// Reads the JSON that the store keeps. What cannot be read is an error that names the option, never a default. Where a
    /// key stands twice, as in jobs that were migrated, the last value counts.
    pub fn from_stored(stored: Option<&str>) -> Result<Self, Invalid> {
        let Some(text) = stored else { return Ok(Self::default()) };
        let map: Map<String, Value> = serde_json::from_str(text)
            .map_err(|_| Invalid::new("", format!("\"{text}\" is not a JSON object")))?;
        invalid::read::<PolicyInput>(map.into())?.complete(&PolicyInput::default())
    }

    /// The misfire grace time in seconds, whole where it is whole.
    pub fn misfire_grace_seconds(&self) -> Option<Number> {
        seconds::shown(self.misfire_grace_time?)
    }

    /// The hooks that are set, with their keys: tasks that report what happened to a run.
    pub fn hooks(&self) -> impl Iterator<Item = (&'static str, &Arc<Task>)> {
        let hooks = [
            ("on_failure", &self.on_failure),
            ("on_recovery", &self.on_recovery),
            ("on_success", &self.on_success),
            ("on_missed", &self.on_missed),
        ];
        hooks.into_iter().filter_map(|(key, task)| Some((key, task.as_ref()?)))
    }

    /// Whether the outcome of the previous run decides which hooks run.
    pub fn needs_last_outcome(&self) -> bool {
        self.on_recovery.is_some() || self.on_failure_once && self.on_failure.is_some()
    }
}

words! {
    /// Which of several occurrences that fell due together are run.
    pub enum Coalesce {
        /// Only the latest.
        Latest = "latest",
        /// Only the earliest.
        Earliest = "earliest",
        /// All of them, one after the other.
        All = "all",
    }
}

words! {
    /// What happens to an occurrence while `max_instances` runs of its job are in flight.
    pub enum Overlap {
        /// It is recorded as skipped.
        Skip = "skip",
        /// It waits until one of them ends.
        Queue = "queue",
        /// The oldest of them is cancelled, and the occurrence waits until that has ended.
        Replace = "replace",
    }
}

words! {
    /// What happens to a run that was in flight when its daemon died.
    pub enum OnCrash {
        /// It runs again, as the next attempt: at least once.
        Rerun = "rerun",
        /// It is recorded as lost: at most once.
        Lose = "lose",
    }
}

words! {
    /// What happens to a finished job once none of its runs is in flight. Without one of these, it is removed after the
    /// time that `[retention]` gives finished jobs.
    pub enum OnFinish {
        /// It is removed at once.
        Remove = "remove",
        /// It is kept until a client removes it.
        Keep = "keep",
    }
}

/// `coalesce` as it is given: APScheduler's true and false, or a word.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct CoalesceInput(Coalesce);

impl<'de> Deserialize<'de> for CoalesceInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FlagOrWord;

        impl Visitor<'_> for FlagOrWord {
            type Value = CoalesceInput;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("\"latest\", \"earliest\", \"all\", true or false")
            }

            fn visit_bool<E: de::Error>(self, flag: bool) -> Result<CoalesceInput, E> {
                Ok(CoalesceInput(if flag { Coalesce::Latest } else { Coalesce::All }))
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<CoalesceInput, E> {
                let unknown = || E::invalid_value(Unexpected::Str(word), &self);
                Coalesce::parse(word).map(CoalesceInput).ok_or_else(unknown)
            }
        }

        deserializer.deserialize_any(FlagOrWord)
    }
}

/// A hook's task as it is given. It is read strictly, and checked by [`Task::parse`].
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TaskInput(Value);

impl<'de> Deserialize<'de> for TaskInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        json::deserialize_strict(deserializer).map(Self)
    }
}

/// Writes a hook's task or null, for `#[serde(serialize_with)]`.
#[expect(clippy::ref_option, reason = "serde passes the field by reference")]
fn serialize_task<S: Serializer>(
    task: &Option<Arc<Task>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    task.as_deref().serialize(serializer)
}

impl TaskInput {
    fn check(self) -> Result<Option<Arc<Task>>, Invalid> {
        Task::from_value(self.0).map(|task| Some(Arc::new(task)))
    }
}

/// What a message about a bound adds where null means that there is none.
const OR_NULL: &str = ", or null for no limit";

fn duration(given: f64, most: f64) -> Result<Option<TimeDelta>, Invalid> {
    let duration = seconds::parse("", given, most);
    let duration = duration.map_err(|invalid| Invalid::new("", invalid.message + OR_NULL))?;
    Ok(Some(duration))
}

fn at_least_one<N: From<u8> + PartialOrd>(given: N, or_null: &str) -> Result<N, Invalid> {
    if given >= N::from(1) {
        return Ok(given);
    }
    Err(Invalid::new("", format!("must be at least 1{or_null}")))
}

fn priority(given: i32) -> Result<i32, Invalid> {
    if (-PRIORITY_MAX..=PRIORITY_MAX).contains(&given) {
        return Ok(given);
    }
    Err(Invalid::new("", format!("must be between -{PRIORITY_MAX} and {PRIORITY_MAX}")))
}

fn heartbeat(given: Text) -> Result<Option<Text>, Invalid> {
    http::check_url("", &given, "the whole URL")?;
    Ok(Some(given))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn complete(given: Value, defaults: Value) -> Result<Policy, Invalid> {
        invalid::read::<PolicyInput>(given)?.complete(&invalid::read(defaults)?)
    }

    #[test]
    fn an_unknown_word_for_coalesce_is_quoted_beside_the_known_ones() {
        let error = complete(json!({"coalesce": "newest"}), json!({})).unwrap_err().to_string();
        assert!(error.contains("\"newest\"") && error.contains("\"earliest\""), "{error}");
    }

    #[test]
    fn a_default_applies_only_where_nothing_was_given() {
        let defaults = json!({"misfire_grace_time": 60, "coalesce": false, "max_runs": 3});
        let policy = complete(json!({}), defaults.clone()).unwrap();
        assert_eq!(policy.misfire_grace_time, Some(TimeDelta::seconds(60)));
        assert_eq!((policy.coalesce, policy.max_runs), (Coalesce::All, Some(3)));
        let given = json!({"misfire_grace_time": null, "coalesce": "earliest"});
        let policy = complete(given, defaults).unwrap();
        assert_eq!((policy.misfire_grace_time, policy.coalesce), (None, Coalesce::Earliest));
    }

    #[test]
    fn an_option_out_of_range_is_refused_by_name() {
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
            (json!({"on_finsh": "keep"}), "on_finsh"),
        ];
        for (given, field) in cases {
            assert_eq!(complete(given.clone(), json!({})).unwrap_err().field, field, "{given}");
            let stored = Policy::from_stored(Some(&given.to_string()));
            assert_eq!(stored.unwrap_err().field, field, "{given}, as it is stored");
        }
    }

    fn every_option() -> Value {
        json!({
            "misfire_grace_time": 0.5,
            "coalesce": "all",
            "max_instances": 2,
            "overlap": "queue",
            "on_crash": "lose",
            "max_runs": 9,
            "timeout": 1.5,
            "retry": {"max_attempts": 3, "delay": 2, "backoff": 1.5, "max_delay": 60, "jitter": 0.0},
            "priority": 7,
            "on_failure": {"type": "builtin", "name": "noop", "args": {}},
            "on_failure_once": true,
            "on_recovery": {"type": "builtin", "name": "noop", "args": {}},
            "on_success": {"type": "command", "argv": ["true"]},
            "on_missed": {"type": "command", "shell": "true"},
            "heartbeat": {"env": "HEARTBEAT_URL"},
            "on_finish": "remove",
        })
    }

    #[test]
    fn options_are_shown_as_they_are_given_and_null_takes_a_default_back() {
        let policy = complete(every_option(), json!({})).unwrap();
        assert_eq!(serde_json::to_value(&policy).unwrap(), every_option());
        let Value::Object(mut none) = every_option() else { unreachable!() };
        none.values_mut().for_each(|value| *value = Value::Null);
        assert_eq!(complete(none.into(), every_option()).unwrap(), Policy::default());
    }

    #[test]
    fn the_store_keeps_what_differs_from_the_defaults_and_gives_it_back() {
        let policy = complete(every_option(), json!({})).unwrap();
        let stored = policy.to_stored().unwrap();
        assert_eq!(stored, every_option().to_string());
        assert_eq!(Policy::from_stored(Some(&stored)).unwrap(), policy);
        assert_eq!(Policy::default().to_stored(), None);
        assert_eq!(Policy::from_stored(None).unwrap(), Policy::default());
        let two = complete(json!({"priority": -1, "max_instances": 3}), json!({})).unwrap();
        assert_eq!(two.to_stored().unwrap(), r#"{"max_instances":3,"priority":-1}"#);
    }

    #[test]
    fn what_earlier_versions_stored_can_be_read() {
        let stored = r#"{"timeout":90,"retry":null,"priority":0,"on_failure":null,"on_failure_once":false,
            "on_recovery":null,"on_success":null,"on_missed":null,"heartbeat":null,"on_finish":null,
            "misfire_grace_time":1.5,"coalesce":"latest","max_instances":1,"max_runs":null}"#;
        let policy = Policy::from_stored(Some(stored)).unwrap();
        let expected = json!({"timeout": 90, "misfire_grace_time": 1.5});
        assert_eq!(policy, complete(expected, json!({})).unwrap());
        for unreadable in ["", "null", "[]", "{", r#"{"overlap":"explode"}"#] {
            assert!(Policy::from_stored(Some(unreadable)).is_err(), "{unreadable}");
        }
    }
}
