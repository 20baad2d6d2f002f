//! Durations as the contract has them: seconds, which may have a fraction.

use chrono::TimeDelta;
use serde_json::Number;

use crate::clock::MICROS_PER_SECOND;
use crate::invalid::Invalid;

/// A duration above 0 and at most `most` seconds.
pub(super) fn parse(field: &str, seconds: f64, most: f64) -> Result<TimeDelta, Invalid> {
    // Compared this way round, NaN is refused too.
    if seconds > 0.0 && seconds <= most {
        return Ok(delta(seconds));
    }
    Err(Invalid::new(field, format!("must be above 0 and at most {most} seconds")))
}

/// A duration of this many seconds, and at least a microsecond.
pub(super) fn delta(seconds: f64) -> TimeDelta {
    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        reason = "what is out of range is cut to the largest there is"
    )]
    TimeDelta::microseconds((seconds * 1e6).round().max(1.0) as i64)
}

/// A duration as it is shown: whole where it is whole.
pub(super) fn shown(duration: TimeDelta) -> Option<Number> {
    let micros = duration.num_microseconds()?;
    if micros % MICROS_PER_SECOND == 0 {
        return Some((micros / MICROS_PER_SECOND).into());
    }
    Number::from_f64(duration.as_seconds_f64())
}
