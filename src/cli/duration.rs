//! Durations and times as people type and read them.

use chrono::TimeDelta;

use super::Failure;
use crate::clock::{MICROS_PER_SECOND, Timestamp, duration_words};

/// Units, the longest first, in microseconds.
const UNITS: [(&str, i64); 7] = [
    ("w", 7 * 24 * 3600 * MICROS_PER_SECOND),
    ("d", 24 * 3600 * MICROS_PER_SECOND),
    ("h", 3600 * MICROS_PER_SECOND),
    ("ms", MICROS_PER_SECOND / 1000),
    ("m", 60 * MICROS_PER_SECOND),
    ("s", MICROS_PER_SECOND),
    ("us", 1),
];

/// Reads `90s`, `1h30m`, `1.5d`; a bare number is seconds.
pub(super) fn parse(text: &str) -> Result<TimeDelta, Failure> {
    let refuse = || {
        Failure::Usage(format!(
            "\"{text}\" is not a duration (examples: 10s, 90m, 1h30m, 2d, 500ms)"
        ))
    };
    let mut rest = text.trim();
    let mut micros = 0_i64;
    if rest.is_empty() {
        return Err(refuse());
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(end);
        let number: f64 = number.parse().map_err(|_| refuse())?;
        let (factor, tail) = if tail.is_empty() {
            (MICROS_PER_SECOND, tail)
        } else {
            let unit =
                UNITS.iter().find_map(|(unit, factor)| Some((*factor, tail.strip_prefix(unit)?)));
            unit.ok_or_else(refuse)?
        };
        let part = scale(number, factor).ok_or_else(refuse)?;
        micros = micros.checked_add(part).ok_or_else(refuse)?;
        rest = tail;
    }
    Ok(TimeDelta::microseconds(micros))
}

#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "checked below"
)]
fn scale(number: f64, factor: i64) -> Option<i64> {
    let micros = (number * factor as f64).round();
    // 2^53: up to there every whole number is exact.
    (micros <= 9_007_199_254_740_992.0).then_some(micros as i64)
}

/// Seconds as JSON: whole where they are whole.
pub(super) fn seconds(duration: TimeDelta) -> serde_json::Value {
    let micros = duration.num_microseconds().unwrap_or(i64::MAX);
    if micros % MICROS_PER_SECOND == 0 {
        return (micros / MICROS_PER_SECOND).into();
    }
    #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "at most 2^53")]
    serde_json::Value::from(micros as f64 / 1e6)
}

/// Reads a time in the past: `1h` ago, or RFC 3339.
pub(super) fn instant_before(text: &str, now: Timestamp) -> Result<Timestamp, Failure> {
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    let refuse =
        || Failure::Usage(format!("\"{text}\" is neither a duration (1h) nor an RFC 3339 time"));
    now.checked_sub_signed(parse(text).map_err(|_| refuse())?).ok_or_else(refuse)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        let cases = [
            ("10s", 10_000_000),
            ("1h30m", 5_400_000_000),
            ("1.5d", 129_600_000_000),
            ("90", 90_000_000),
        ];
        for (text, micros) in cases {
            assert_eq!(parse(text).unwrap(), TimeDelta::microseconds(micros), "{text}");
        }
        assert_eq!(parse("500ms").unwrap(), TimeDelta::milliseconds(500));
        for text in ["", "h", "10x", "-5s", "1h-3m", "1..5s", "99999999999999d"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
