//! The retry policy: how many attempts a run has, and the backoff between them.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::seconds;
use crate::invalid::Invalid;

/// The most attempts that a run can have.
const ATTEMPTS_MAX: u32 = 100;
/// The longest delay, in seconds: 30 days.
const DELAY_SECONDS_MAX: f64 = 2_592_000.0;
/// The largest factor from one delay to the next.
const BACKOFF_MAX: f64 = 100.0;
// What applies where a part is not given.
const DELAY: f64 = 1.0;
const BACKOFF: f64 = 2.0;
const MAX_DELAY: f64 = 3600.0;
const JITTER: f64 = 0.1;

/// Whether and when a run whose attempt failed is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Retry {
    /// The number of attempts, including the first one.
    pub max_attempts: u32,
    /// The delay before the second attempt.
    #[serde(serialize_with = "seconds::serialize")]
    pub delay: TimeDelta,
    /// The factor by which each further delay is longer.
    pub backoff: f64,
    /// The upper bound of all delays, before jitter.
    #[serde(serialize_with = "seconds::serialize")]
    pub max_delay: TimeDelta,
    /// The fraction by which chance may lengthen a delay, so that runs that failed together are not all tried again at
    /// the same time.
    pub jitter: f64,
}

/// A retry policy as it is given.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RetryInput {
    max_attempts: u32,
    delay: Option<f64>,
    backoff: Option<f64>,
    max_delay: Option<f64>,
    jitter: Option<f64>,
}

impl RetryInput {
    /// Checks the parts and completes them with their defaults. None: a run has one attempt.
    pub(super) fn check(self) -> Result<Option<Retry>, Invalid> {
        if !(1..=ATTEMPTS_MAX).contains(&self.max_attempts) {
            let message = format!("must be between 1 and {ATTEMPTS_MAX}");
            return Err(Invalid::new("max_attempts", message));
        }
        let delay = seconds::parse("delay", self.delay.unwrap_or(DELAY), DELAY_SECONDS_MAX)?;
        let max_delay = self.max_delay.unwrap_or(MAX_DELAY.max(self.delay.unwrap_or(DELAY)));
        let max_delay = seconds::parse("max_delay", max_delay, DELAY_SECONDS_MAX)?;
        let (backoff, jitter) = (self.backoff.unwrap_or(BACKOFF), self.jitter.unwrap_or(JITTER));
        if !(1.0..=BACKOFF_MAX).contains(&backoff) {
            let message = format!("must be between 1 and {BACKOFF_MAX}");
            return Err(Invalid::new("backoff", message));
        }
        if !(0.0..=1.0).contains(&jitter) {
            return Err(Invalid::new("jitter", "must be between 0 and 1: a fraction of the delay"));
        }
        let retry = Retry { max_attempts: self.max_attempts, delay, backoff, max_delay, jitter };
        Ok(Some(retry).filter(|retry| retry.max_attempts > 1))
    }
}

impl Retry {
    /// The delay after the attempt of this number. `chance`, between 0 and 1, chooses the jitter.
    pub fn delay_after(&self, attempt: u32, chance: f64) -> TimeDelta {
        let most = self.max_delay.as_seconds_f64();
        let steps = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let delay = (self.delay.as_seconds_f64() * self.backoff.powi(steps)).min(most);
        let delay = delay * (1.0 + self.jitter * chance.clamp(0.0, 1.0));
        seconds::delta(delay)
    }

    /// The longest delay that there can be, jitter included.
    pub fn longest(&self) -> TimeDelta {
        self.delay_after(u32::MAX, 1.0).max(self.delay + self.delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invalid;
    use serde_json::json;

    fn retry(given: serde_json::Value) -> Result<Option<Retry>, Invalid> {
        invalid::read::<RetryInput>(given)?.check()
    }

    #[test]
    fn delays_grow_up_to_the_longest_one_and_chance_makes_them_longer_only() {
        let given =
            json!({"max_attempts": 9, "delay": 2, "backoff": 3, "max_delay": 20, "jitter": 0.5});
        let retry = retry(given).unwrap().unwrap();
        let delays = |chance| {
            [1, 2, 3, 4, 1000, u32::MAX]
                .map(|attempt| retry.delay_after(attempt, chance).num_milliseconds())
        };
        assert_eq!(delays(0.0), [2000, 6000, 18_000, 20_000, 20_000, 20_000]);
        assert_eq!(delays(1.0), [3000, 9000, 27_000, 30_000, 30_000, 30_000]);
        assert_eq!(retry.longest().num_seconds(), 30);
    }

    #[test]
    fn a_retry_out_of_range_is_refused_by_name() {
        let cases = [
            (json!({}), ""),
            (json!({"max_attempts": 0}), "max_attempts"),
            (json!({"max_attempts": 101}), "max_attempts"),
            (json!({"max_attempts": 2, "delay": -1}), "delay"),
            (json!({"max_attempts": 2, "delay": 1e9}), "delay"),
            (json!({"max_attempts": 2, "backoff": 0.5}), "backoff"),
            (json!({"max_attempts": 2, "max_delay": 0}), "max_delay"),
            (json!({"max_attempts": 2, "jitter": 2}), "jitter"),
            (json!({"max_attempts": 2, "wait": 2}), "wait"),
        ];
        for (given, field) in cases {
            assert_eq!(retry(given.clone()).unwrap_err().field, field, "{given}");
        }
        let with_defaults = retry(json!({"max_attempts": 2})).unwrap().unwrap();
        assert_eq!(with_defaults.delay, TimeDelta::seconds(1));
        assert_eq!(retry(json!({"max_attempts": 1})).unwrap(), None, "one attempt is no retry");
    }
}
