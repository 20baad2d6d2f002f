//! Durations in the contract: seconds, which may have a fraction.

use chrono::TimeDelta;
use serde::{Serialize, Serializer};
use serde_json::Number;

use crate::clock::MICROS_PER_SECOND;
use crate::invalid::Invalid;

/// Reads a duration that must be above 0 and at most `most` seconds.
pub(super) fn parse(field: &str, seconds: f64, most: f64) -> Result<TimeDelta, Invalid> {
    // Compared this way round, NaN is refused too.
    if seconds > 0.0 && seconds <= most {
        return Ok(delta(seconds));
    }
    Err(Invalid::new(field, format!("must be above 0 and at most {most} seconds")))
}

/// A duration of this many seconds, rounded to microseconds, of which it has at least one.
pub(super) fn delta(seconds: f64) -> TimeDelta {
    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        reason = "a value out of range becomes the largest one"
    )]
    TimeDelta::microseconds((seconds * 1e6).round().max(1.0) as i64)
}

/// The seconds of a duration as JSON: an integer if they are whole.
pub(super) fn shown(duration: TimeDelta) -> Option<Number> {
    let micros = duration.num_microseconds()?;
    if micros % MICROS_PER_SECOND == 0 {
        return Some((micros / MICROS_PER_SECOND).into());
    }
    Number::from_f64(duration.as_seconds_f64())
}

/// Writes a duration, for `#[serde(serialize_with)]`.
pub(super) fn serialize<S: Serializer>(
    duration: &TimeDelta,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    shown(*duration).serialize(serializer)
}

/// Writes a duration or null, for `#[serde(serialize_with)]`.
#[expect(clippy::ref_option, reason = "serde passes the field by reference")]
pub(super) fn serialize_option<S: Serializer>(
    duration: &Option<TimeDelta>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    duration.and_then(shown).serialize(serializer)
}
