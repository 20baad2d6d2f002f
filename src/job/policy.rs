//! How a job behaves when it is late, still busy, or was interrupted.

use chrono::TimeDelta;
use serde::{Deserialize, Deserializer, Serialize};

use crate::clock::MICROS_PER_SECOND;
use crate::invalid::Invalid;

/// Longest `misfire_grace_time`, in seconds: about a century, far from any overflow.
const GRACE_SECONDS_MAX: f64 = 3.2e9;

/// Which of several occurrences that fell due together are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Coalesce {
    /// The latest of them, once.
    #[default]
    Latest,
    /// The earliest of them, once.
    Earliest,
    /// Each of them, one after the other.
    All,
}

impl Coalesce {
    /// The rule of that name.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "latest" => Some(Self::Latest),
            "earliest" => Some(Self::Earliest),
            "all" => Some(Self::All),
            _ => None,
        }
    }

    /// The rule's name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Latest => "latest",
            Self::Earliest => "earliest",
            Self::All => "all",
        }
    }
}

impl<'de> Deserialize<'de> for Coalesce {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected \"latest\", \"earliest\", \"all\", true or false")]
        enum Given {
            Flag(bool),
            Word(String),
        }
        match Given::deserialize(deserializer)? {
            Given::Flag(true) => Ok(Self::Latest),
            Given::Flag(false) => Ok(Self::All),
            Given::Word(word) => Self::parse(&word).ok_or_else(|| {
                serde::de::Error::custom(format!(
                    "unknown rule \"{word}\" (expected \"latest\", \"earliest\", \"all\", true or false)"
                ))
            }),
        }
    }
}

/// What becomes of an occurrence while as many runs of its job as `max_instances` allows are in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    /// It is not run, and recorded so.
    #[default]
    Skip,
    /// It waits until one of them ends.
    Queue,
    /// The oldest of them is ended, and it waits for that.
    Replace,
}

impl Overlap {
    /// The rule of that name.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Skip, Self::Queue, Self::Replace].into_iter().find(|rule| rule.word() == word)
    }

    /// The rule's name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Queue => "queue",
            Self::Replace => "replace",
        }
    }
}

/// What becomes of a run that was in flight when its daemon died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnCrash {
    /// It is run again, as the next attempt: at least once.
    #[default]
    Rerun,
    /// It is recorded as lost: at most once.
    Lose,
}

impl OnCrash {
    /// The word that the store keeps.
    pub fn word(self) -> &'static str {
        match self {
            Self::Rerun => "rerun",
            Self::Lose => "lose",
        }
    }
}

/// A job's policies, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
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
}

impl Policy {
    /// The grace time as it is shown: seconds, whole where it is whole.
    pub fn misfire_grace_seconds(&self) -> Option<serde_json::Number> {
        let micros = self.misfire_grace?.num_microseconds()?;
        if micros % MICROS_PER_SECOND == 0 {
            return Some((micros / MICROS_PER_SECOND).into());
        }
        #[expect(
            clippy::as_conversions,
            clippy::cast_precision_loss,
            reason = "at most 3.2e15: exact in a double"
        )]
        serde_json::Number::from_f64(micros as f64 / 1e6)
    }
}

/// The policies that were given; what is absent comes from the defaults.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenPolicy {
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
}

/// Tells a value that was given as null from one that was not given.
#[expect(clippy::option_option, reason = "null says \"no limit\", absence says \"the default\"")]
pub(super) fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

impl GivenPolicy {
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
        Ok(Policy {
            misfire_grace: grace.map(grace_from_seconds).transpose()?,
            coalesce: self.coalesce.or(defaults.coalesce).unwrap_or_default(),
            max_instances,
            overlap: self.overlap.or(defaults.overlap).unwrap_or_default(),
            on_crash: self.on_crash.or(defaults.on_crash).unwrap_or_default(),
            max_runs,
        })
    }
}

fn grace_from_seconds(seconds: f64) -> Result<TimeDelta, Invalid> {
    // Compared this way round, NaN is refused too.
    if !(seconds > 0.0 && seconds <= GRACE_SECONDS_MAX) {
        let message = format!(
            "must be above 0 and at most {GRACE_SECONDS_MAX} seconds, or null for no limit"
        );
        return Err(Invalid::new("misfire_grace_time", message));
    }
    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        reason = "at most 3.2e15: exact"
    )]
    Ok(TimeDelta::microseconds((seconds * 1e6).round().max(1.0) as i64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invalid;
    use serde_json::json;

    fn complete(given: serde_json::Value, defaults: serde_json::Value) -> Result<Policy, Invalid> {
        invalid::read::<GivenPolicy>(given)?.complete(&invalid::read(defaults)?)
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
        ];
        for (given, field) in cases {
            assert_eq!(complete(given.clone(), json!({})).unwrap_err().field, field, "{given}");
        }
    }
}
