//! How often a run is tried, and how long it is waited in between.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use serde_json::Number;

use super::seconds;
use crate::invalid::Invalid;

/// Attempts of a run, at most.
const ATTEMPTS_MAX: u32 = 100;
/// Longest delay, in seconds: 30 days.
const DELAY_SECONDS_MAX: f64 = 2_592_000.0;
/// Largest factor from one delay to the next.
const BACKOFF_MAX: f64 = 100.0;
const DELAY: f64 = 1.0;
const BACKOFF: f64 = 2.0;
const MAX_DELAY: f64 = 3600.0;
const JITTER: f64 = 0.1;

/// When a run whose attempt has failed is tried again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retry {
    /// Attempts in all.
    pub max_attempts: u32,
    /// Before the second attempt.
    pub delay: TimeDelta,
    /// By what each further delay is longer.
    pub backoff: f64,
    /// No delay is longer than this.
    pub max_delay: TimeDelta,
    /// The part of a delay by which it may be longer, by chance: so that what failed together is not tried together.
    pub jitter: f64,
}

/// The same as it is given.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryInput {
    max_attempts: u32,
    delay: Option<f64>,
    backoff: Option<f64>,
    max_delay: Option<f64>,
    jitter: Option<f64>,
}

/// The same as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShownRetry {
    max_attempts: u32,
    delay: Option<Number>,
    backoff: f64,
    max_delay: Option<Number>,
    jitter: f64,
}

impl RetryInput {
    /// Completed with the defaults.
    pub fn complete(self) -> Result<Retry, Invalid> {
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
            return Err(Invalid::new("jitter", "must be between 0 and 1: a part of the delay"));
        }
        Ok(Retry { max_attempts: self.max_attempts, delay, backoff, max_delay, jitter })
    }
}

impl Retry {
    /// As it is shown.
    pub fn shown(&self) -> ShownRetry {
        ShownRetry {
            max_attempts: self.max_attempts,
            delay: seconds::shown(self.delay),
            backoff: self.backoff,
            max_delay: seconds::shown(self.max_delay),
            jitter: self.jitter,
        }
    }

    /// The delay after an attempt of that number; `chance` is between 0 and 1.
    pub fn delay_after(&self, attempt: u32, chance: f64) -> TimeDelta {
        let most = self.max_delay.as_seconds_f64();
        let steps = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let delay = (self.delay.as_seconds_f64() * self.backoff.powi(steps)).min(most);
        let delay = delay * (1.0 + self.jitter * chance.clamp(0.0, 1.0));
        seconds::delta(delay)
    }

    /// No delay is longer than this, whatever chance does.
    pub fn longest(&self) -> TimeDelta {
        self.delay_after(u32::MAX, 1.0).max(self.delay + self.delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invalid;
    use serde_json::json;

    fn retry(given: serde_json::Value) -> Result<Retry, Invalid> {
        invalid::read::<RetryInput>(given)?.complete()
    }

    #[test]
    fn delays_grow_up_to_the_longest_one_and_chance_makes_them_longer_only() {
        let given =
            json!({"max_attempts": 9, "delay": 2, "backoff": 3, "max_delay": 20, "jitter": 0.5});
        let retry = retry(given).unwrap();
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
        assert_eq!(retry(json!({"max_attempts": 1})).unwrap().delay, TimeDelta::seconds(1));
    }
}
