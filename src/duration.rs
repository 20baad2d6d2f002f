//! Parses durations as people write them: numbers with units, such as `90min`, `1h 30m` or `1.5d`.

use chrono::TimeDelta;

use crate::clock::MICROS_PER_SECOND;
use crate::invalid::quoted;

/// The spellings of each unit, and its length in microseconds.
const UNITS: [(&[&str], i64); 7] = [
    (&["w", "week", "weeks"], 7 * 24 * 3600 * MICROS_PER_SECOND),
    (&["d", "day", "days"], 24 * 3600 * MICROS_PER_SECOND),
    (&["h", "hr", "hrs", "hour", "hours"], 3600 * MICROS_PER_SECOND),
    (&["m", "min", "mins", "minute", "minutes"], 60 * MICROS_PER_SECOND),
    (&["s", "sec", "secs", "second", "seconds"], MICROS_PER_SECOND),
    (&["ms", "msec", "msecs", "millisecond", "milliseconds"], MICROS_PER_SECOND / 1000),
    (&["us", "µs", "usec", "usecs", "microsecond", "microseconds"], 1),
];
/// Examples of what is accepted, for error messages.
const EXAMPLES: &str = "examples: 10s, 90min, 1h 30m, 2 days, 500ms";

/// Parses a duration. A number without a unit is a number of seconds, but only if there is nothing else.
pub fn parse_duration(text: &str) -> Result<TimeDelta, String> {
    let refuse = |why: &str| {
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        format!("{} is not a duration{why} ({EXAMPLES})", quoted(text))
    };
    let mut rest = text.trim();
    let mut parts: Vec<(i64, i64)> = Vec::new();
    if rest.is_empty() {
        return Err(refuse(""));
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (digits, tail) = rest.split_at(end);
        let number: f64 = digits.parse().map_err(|_| refuse(""))?;
        let tail = tail.trim_start();
        let end = tail.find(|c: char| !c.is_alphabetic()).unwrap_or(tail.len());
        let (word, tail) = tail.split_at(end);
        let unit = match word {
            "" if parts.is_empty() && tail.is_empty() => MICROS_PER_SECOND,
            "" if tail.is_empty() || tail.starts_with(|c: char| c.is_ascii_digit()) => {
                return Err(refuse(&format!("{digits} has no unit")));
            }
            "" => return Err(refuse("")),
            word => unit(word).map_err(|why| refuse(&why))?,
        };
        if parts.iter().any(|(other, _)| *other == unit) {
            return Err(refuse("a unit is given twice"));
        }
        parts.push((unit, scale(number, unit).ok_or_else(|| refuse("it is too long"))?));
        rest = tail.trim_start();
    }
    let micros = parts.iter().try_fold(0_i64, |sum, (_, part)| sum.checked_add(*part));
    Ok(TimeDelta::microseconds(micros.ok_or_else(|| refuse("it is too long"))?))
}

/// The length of a unit. Upper and lower case mean the same, but `M` is refused because it often stands for months.
fn unit(word: &str) -> Result<i64, String> {
    let lower = word.to_lowercase();
    let found = UNITS.iter().find(|(spellings, _)| spellings.contains(&lower.as_str()));
    match (found, lower.as_str()) {
        (_, "mo" | "month" | "months" | "y" | "yr" | "year" | "years") => Err(format!(
            "{} has no fixed length, use a calendarinterval (--calendar months=1)",
            quoted(word)
        )),
        _ if word == "M" => Err("\"M\" may be months or minutes, write min".to_owned()),
        (Some((_, micros)), _) => Ok(*micros),
        (None, _) => Err(format!("unknown unit {}", quoted(word))),
    }
}

#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "checked below"
)]
fn scale(number: f64, factor: i64) -> Option<i64> {
    let micros = (number * factor as f64).round();
    // 2^53: doubles represent every whole number up to there.
    (micros <= 9_007_199_254_740_992.0).then_some(micros as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        let cases = [
            ("10s", 10_000_000),
            ("10sec", 10_000_000),
            ("5min", 300_000_000),
            ("90min", 5_400_000_000),
            ("1h30m", 5_400_000_000),
            ("1h 30m", 5_400_000_000),
            ("1 h", 3_600_000_000),
            ("1 hour 30 minutes", 5_400_000_000),
            ("1 day", 86_400_000_000),
            ("2 Days", 172_800_000_000),
            ("1.5d", 129_600_000_000),
            ("1w", 604_800_000_000),
            (" 500ms ", 500_000),
            ("3us", 3),
            ("90", 90_000_000),
            ("0.5", 500_000),
        ];
        for (text, micros) in cases {
            assert_eq!(parse_duration(text), Ok(TimeDelta::microseconds(micros)), "{text}");
        }
    }

    #[test]
    fn a_duration_that_is_not_understood_is_refused_with_what_is_accepted() {
        let cases = [
            ("", "is not a duration"),
            ("h", "is not a duration"),
            ("10x", "unknown unit \"x\""),
            ("-5s", "is not a duration"),
            ("1h-3m", "is not a duration"),
            ("1..5s", "is not a duration"),
            ("1:30", "is not a duration"),
            ("1h30", "30 has no unit"),
            ("1 30m", "1 has no unit"),
            ("1h 1h", "a unit is given twice"),
            ("1M", "may be months or minutes"),
            ("1 month", "--calendar months=1"),
            ("1y", "has no fixed length"),
            ("99999999999999d", "too long"),
        ];
        for (text, why) in cases {
            let message = parse_duration(text).unwrap_err();
            assert!(message.contains(why), "{text}: {message}");
            assert!(message.contains("(examples: 10s, 90min"), "{text}: {message}");
        }
    }
}
