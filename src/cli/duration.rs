//! Durations on the command line: from text to JSON, and in words.

use chrono::TimeDelta;
use serde_json::Value;

use super::CliError;
use crate::clock::{MICROS_PER_SECOND, Timestamp, duration_words};
use crate::duration::parse_duration;

/// The seconds of the duration that was given by the flag `option`, as JSON.
pub(super) fn given(option: &str, text: Option<&str>) -> Result<Option<Value>, CliError> {
    let duration = text.map(parse_duration).transpose();
    let duration = duration.map_err(|why| CliError::Usage(format!("{option}: {why}")))?;
    Ok(duration.map(seconds))
}

/// Seconds as JSON: whole where they are whole.
fn seconds(duration: TimeDelta) -> Value {
    let micros = duration.num_microseconds().unwrap_or(i64::MAX);
    if micros % MICROS_PER_SECOND == 0 {
        return (micros / MICROS_PER_SECOND).into();
    }
    #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "at most 2^53")]
    Value::from(micros as f64 / 1e6)
}

/// How far an instant is from now: `in 2m 5s`, `3h 1m ago`.
pub(super) fn relative(at: Timestamp, now: Timestamp) -> String {
    let distance = at.signed_duration_since(now);
    if distance >= TimeDelta::zero() {
        format!("in {}", duration_words(distance))
    } else {
        format!("{} ago", duration_words(distance))
    }
}
