//! Parses times as people write them: a date with an optional time of day and offset. Where the current time is known, also
//! a time of day alone, a day such as `tomorrow`, or a distance from now.

use chrono::{Datelike, Month, NaiveDate, NaiveTime, SubsecRound, TimeDelta};

use crate::clock::Timestamp;
use crate::duration::parse_duration;
use crate::invalid::quoted;
use crate::zone::{Zone, parse_offset, whole};

/// Examples of what is accepted everywhere, for error messages.
const EXAMPLES: &str = "2026-11-06, 2026-11-06 16:30 or 2026-11-06T16:30:05+08:00";

/// How a time that depends on the current time is completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Toward {
    /// A time of day alone is the next one; `yesterday` is refused.
    Future,
    /// A time of day alone is the last one; a duration alone is a distance back.
    Past,
}

/// Parses a time that does not depend on the current time: `Y-m-d` with an optional time of day `H:M[:S[.f]]` after a space
/// or a `T`, and an optional offset `Z`, `UTC`, `±HH:MM`, `±HHMM` or `±HH`. Without an offset the time is in `zone`. The
/// result is truncated to whole microseconds.
pub fn parse_instant(text: &str, zone: &Zone) -> Result<Timestamp, String> {
    parse_exact_instant(text, zone).map(|at| at.trunc_subsecs(6))
}

/// Parses the same as [`parse_instant`], but keeps all digits of the fraction.
pub fn parse_exact_instant(text: &str, zone: &Zone) -> Result<Timestamp, String> {
    let parsed = ParsedTime::parse(text).map_err(|why| not_a_time(text, &why))?;
    let Day::Date(date) = parsed.day else { return Err(relative(text)) };
    parsed.on(date, zone).ok_or_else(|| not_a_time(text, "the years are 1 to 9999"))
}

/// Parses the same as [`parse_instant`] and returns the date: as it is written or, if there is an offset, the date of the
/// instant in `zone`.
pub fn parse_date(text: &str, zone: &Zone) -> Result<NaiveDate, String> {
    let parsed = ParsedTime::parse(text).map_err(|why| not_a_time(text, &why))?;
    match (parsed.day, parsed.offset_seconds) {
        (Day::Date(date), None) => Ok(date),
        (Day::Date(_), Some(_)) => Ok(zone.to_local(parse_exact_instant(text, zone)?).date()),
        (Day::FromToday(_) | Day::Nearest, _) => Err(relative(text)),
    }
}

/// Parses a date without a time of day.
pub fn parse_bare_date(text: &str) -> Option<NaiveDate> {
    parse_day(text.trim()).ok()
}

/// Parses a time that may depend on the current time: everything that [`parse_instant`] accepts, and `now`, `+30m`, `-1h`,
/// `2h ago`, `16:30`, `today`, `tomorrow 10:00`, `yesterday`.
pub fn parse_moment(
    text: &str,
    zone: &Zone,
    now: Timestamp,
    toward: Toward,
) -> Result<Timestamp, String> {
    if let Some(at) = parse_distance(text.trim(), now, toward) {
        return at.ok().filter(|at| is_in_calendar(*at)).ok_or_else(|| too_far(text));
    }
    let parsed = ParsedTime::parse(text).map_err(|why| not_a_moment(text, &why))?;
    let today = match parsed.offset_seconds {
        Some(seconds) => now.naive_utc().checked_add_signed(TimeDelta::seconds(seconds.into())),
        None => Some(zone.to_local(now)),
    };
    let today = today.ok_or_else(|| too_far(text))?.date();
    let on = |days: i64| {
        let day = today.checked_add_signed(TimeDelta::days(days));
        day.and_then(|day| parsed.on(day, zone)).ok_or_else(|| too_far(text))
    };
    let at = match (parsed.day, toward) {
        (Day::Date(date), _) => parsed.on(date, zone).ok_or_else(|| too_far(text))?,
        (Day::FromToday(-1), Toward::Future) => {
            return Err(not_a_moment(text, "it is in the past"));
        }
        (Day::FromToday(days), _) => on(days)?,
        (Day::Nearest, Toward::Future) => Some(on(0)?).filter(|at| *at > now).map_or(on(1), Ok)?,
        (Day::Nearest, Toward::Past) => Some(on(0)?).filter(|at| *at <= now).map_or(on(-1), Ok)?,
    };
    Ok(at.trunc_subsecs(6))
}

/// Whether a text is a time that depends on the current time.
pub fn is_relative(text: &str, toward: Toward) -> bool {
    let (zone, now) = (Zone::utc(), Timestamp::default());
    parse_instant(text, &zone).is_err() && parse_moment(text, &zone, now, toward).is_ok()
}

/// Whether an instant is in the years 1 to 9999, which can be written in the usual form.
pub fn is_in_calendar(at: Timestamp) -> bool {
    (1..=9999).contains(&at.year())
}

/// The error of a distance that leads beyond the range of instants.
struct OutOfRange;

/// Parses `now`, `+30m`, `in 30m`, `-1h` or `1h ago`, and toward the past also `1h`. `None` if the text has none of these
/// forms.
fn parse_distance(
    text: &str,
    now: Timestamp,
    toward: Toward,
) -> Option<Result<Timestamp, OutOfRange>> {
    if text.eq_ignore_ascii_case("now") {
        return Some(Ok(now));
    }
    if let Some(ahead) = text.strip_prefix('+').or_else(|| text.strip_prefix("in ")) {
        let ahead = parse_duration(ahead).ok()?;
        return Some(now.checked_add_signed(ahead).ok_or(OutOfRange));
    }
    let back = text.strip_prefix('-').or_else(|| text.strip_suffix(" ago"));
    let back = back.or_else(|| Some(text).filter(|_| toward == Toward::Past))?;
    let back = parse_duration(back).ok()?;
    Some(now.checked_sub_signed(back).ok_or(OutOfRange))
}

fn not_a_time(text: &str, why: &str) -> String {
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    format!("{} is not a time{why} (expected {EXAMPLES})", quoted(text))
}

fn not_a_moment(text: &str, why: &str) -> String {
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    let text = quoted(text);
    format!(
        "{text} is not a time{why} (expected {EXAMPLES}, or 16:30, tomorrow 10:00, now, +30m, 2h ago)"
    )
}

fn too_far(text: &str) -> String {
    not_a_moment(text, "the years are 1 to 9999")
}

fn relative(text: &str) -> String {
    let text = quoted(text);
    format!("{text} is not a time: it depends on the day on which it is read (expected {EXAMPLES})")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Day {
    Date(NaiveDate),
    /// A number of days after today.
    FromToday(i64),
    /// No day is written: the next or the last day on which the clock shows the time of day.
    Nearest,
}

#[derive(Debug, Clone, Copy)]
struct ParsedTime {
    day: Day,
    time: NaiveTime,
    /// The offset from UTC, if it is written.
    offset_seconds: Option<i32>,
}

impl ParsedTime {
    /// Parses a text. The error is empty if there is nothing to say except that it is not a time.
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let first = text.split_whitespace().next().unwrap_or_default();
        let days = match first.to_lowercase().as_str() {
            "yesterday" => Some(-1),
            "today" => Some(0),
            "tomorrow" => Some(1),
            _ => None,
        };
        let (day, rest) = if let Some(days) = days {
            (Day::FromToday(days), text.get(first.len()..).unwrap_or_default())
        } else if first.contains('-') && !first.split('-').next().unwrap_or_default().contains(':')
        {
            let (date, rest) = text.split_at(text.find(['T', 't', ' ']).unwrap_or(text.len()));
            (Day::Date(parse_day(date)?), rest.strip_prefix(['T', 't']).unwrap_or(rest))
        } else {
            let (time, offset_seconds) = parse_clock(text)?;
            return Ok(Self { day: Day::Nearest, time, offset_seconds });
        };
        if rest.trim().is_empty() {
            return Ok(Self { day, time: NaiveTime::MIN, offset_seconds: None });
        }
        let (time, offset_seconds) = parse_clock(rest.trim_start())?;
        Ok(Self { day, time, offset_seconds })
    }

    /// The instant on a date, if it is in the calendar.
    fn on(&self, date: NaiveDate, zone: &Zone) -> Option<Timestamp> {
        let reading = date.and_time(self.time);
        let at = match self.offset_seconds {
            Some(seconds) => {
                reading.checked_sub_signed(TimeDelta::seconds(seconds.into()))?.and_utc()
            }
            None => zone.instant(reading),
        };
        Some(at).filter(|at| is_in_calendar(*at))
    }
}

/// Parses `Y-m-d`.
fn parse_day(text: &str) -> Result<NaiveDate, String> {
    let mut parts = text.splitn(3, '-');
    let mut number = |digits: std::ops::RangeInclusive<usize>| {
        parts.next().filter(|part| digits.contains(&part.len())).and_then(whole)
    };
    let parts = number(4..=4).zip(number(1..=2)).zip(number(1..=2));
    let ((year, month), day) = parts.ok_or_else(String::new)?;
    if year == 0 {
        return Err("the years are 1 to 9999".to_owned());
    }
    let named = u8::try_from(month).ok().and_then(|month| Month::try_from(month).ok());
    let named = named.ok_or_else(|| format!("the month is 1 to 12, not {month}"))?;
    let year = i32::try_from(year).map_err(|_| String::new())?;
    NaiveDate::from_ymd_opt(year, month, day).ok_or_else(|| {
        let of_year = if month == 2 { format!(" in {year}") } else { String::new() };
        format!("{} has {} days{of_year}", named.name(), named.num_days(year).unwrap_or_default())
    })
}

/// Parses `H:M[:S[.f]]` with an optional offset. The digits after the point are a fraction, so `.5` is half a second.
fn parse_clock(text: &str) -> Result<(NaiveTime, Option<i32>), String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != ':' && c != '.');
    let (clock, offset) = text.split_at(end.unwrap_or(text.len()));
    let (whole_seconds, fraction) =
        clock.split_once('.').map_or((clock, None), |(clock, fraction)| (clock, Some(fraction)));
    let parts: Option<Vec<u32>> = whole_seconds
        .split(':')
        .map(|part| Some(part).filter(|part| (1..=2).contains(&part.len())).and_then(whole))
        .collect();
    let (hour, minute, second) = match (parts.unwrap_or_default().as_slice(), fraction) {
        ([hour, minute], None) => (*hour, *minute, 0),
        ([hour, minute, second], _) => (*hour, *minute, *second),
        (_, _) => return Err(String::new()),
    };
    let units = [("hour", hour, 23), ("minute", minute, 59), ("second", second, 59)];
    if let Some((unit, value, most)) = units.into_iter().find(|(_, value, most)| value > most) {
        return Err(format!("the {unit} is 0 to {most}, not {value}"));
    }
    let nanos = match fraction {
        None => 0,
        Some(digits) if (1..=9).contains(&digits.len()) => {
            whole(digits).and_then(|_| whole(&format!("{digits:0<9}"))).ok_or_else(String::new)?
        }
        Some(_) => return Err("a fraction of a second has 1 to 9 digits".to_owned()),
    };
    let time = NaiveTime::from_hms_nano_opt(hour, minute, second, nanos);
    Ok((time.ok_or_else(String::new)?, parse_clock_offset(offset.trim())?))
}

/// Parses the offset after a time of day.
fn parse_clock_offset(text: &str) -> Result<Option<i32>, String> {
    let digits = text.get(1..).unwrap_or_default();
    let spelled = match (text, digits.len()) {
        ("", _) => return Ok(None),
        ("Z" | "z" | "UTC" | "utc", _) => return Ok(Some(0)),
        (_, 2) => format!("{text}:00"),
        (_, 4) if !text.contains(':') => {
            let (hours, minutes) = text.split_at_checked(3).ok_or_else(String::new)?;
            format!("{hours}:{minutes}")
        }
        (_, _) => text.to_owned(),
    };
    parse_offset(&spelled).map(Some).ok_or_else(|| {
        format!(
            "{} is not an offset such as Z, +08:00 or +0800, and a zone's name is given apart, as timezone",
            quoted(text)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin() -> Zone {
        Zone::parse("Europe/Berlin").unwrap()
    }

    /// A Sunday, 10:24:44 in Berlin.
    fn now() -> Timestamp {
        "2026-11-29T09:24:44Z".parse().unwrap()
    }

    fn shown(at: Timestamp) -> String {
        at.format("%Y-%m-%dT%H:%M:%S%.fZ").to_string()
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        let cases = [
            ("2026-12-06", "2026-12-05T23:00:00Z"),
            ("2026-12-6", "2026-12-05T23:00:00Z"),
            ("2026-12-06 16:30", "2026-12-06T15:30:00Z"),
            ("2026-12-06T16:30", "2026-12-06T15:30:00Z"),
            ("2026-12-06 9:5", "2026-12-06T08:05:00Z"),
            ("2026-12-06 16:30:05.5", "2026-12-06T15:30:05.500Z"),
            ("2026-12-06 16:30:05.123456789", "2026-12-06T15:30:05.123456Z"),
            ("2026-12-06T10:30Z", "2026-12-06T10:30:00Z"),
            ("2026-12-06t10:30:00z", "2026-12-06T10:30:00Z"),
            ("2026-12-06 10:30 UTC", "2026-12-06T10:30:00Z"),
            ("2026-12-06T10:30+0800", "2026-12-06T02:30:00Z"),
            ("2026-12-06T10:30:00+08:00", "2026-12-06T02:30:00Z"),
            ("2026-12-06 10:30:00 -0330", "2026-12-06T14:00:00Z"),
            ("2026-12-06 10:30-08", "2026-12-06T18:30:00Z"),
        ];
        for (text, instant) in cases {
            assert_eq!(parse_instant(text, &berlin()).map(shown), Ok(instant.into()), "{text}");
            assert!(!is_relative(text, Toward::Past), "{text}");
        }
    }

    #[test]
    fn a_time_that_depends_on_the_current_time_is_only_parsed_with_it() {
        let cases = [
            ("now", "2026-11-29T09:24:44Z", "2026-11-29T09:24:44Z"),
            ("+30m", "2026-11-29T09:54:44Z", "2026-11-29T09:54:44Z"),
            ("in 2 days", "2026-12-01T09:24:44Z", "2026-12-01T09:24:44Z"),
            ("-1h", "2026-11-29T08:24:44Z", "2026-11-29T08:24:44Z"),
            ("1h 30m ago", "2026-11-29T07:54:44Z", "2026-11-29T07:54:44Z"),
            ("16:30", "2026-11-29T15:30:00Z", "2026-11-28T15:30:00Z"),
            ("10:00", "2026-11-30T09:00:00Z", "2026-11-29T09:00:00Z"),
            ("10:24:44", "2026-11-30T09:24:44Z", "2026-11-29T09:24:44Z"),
            ("00:30Z", "2026-11-30T00:30:00Z", "2026-11-29T00:30:00Z"),
            ("today", "2026-11-28T23:00:00Z", "2026-11-28T23:00:00Z"),
            ("today 08:00", "2026-11-29T07:00:00Z", "2026-11-29T07:00:00Z"),
            ("tomorrow 10:00", "2026-11-30T09:00:00Z", "2026-11-30T09:00:00Z"),
            ("Tomorrow", "2026-11-29T23:00:00Z", "2026-11-29T23:00:00Z"),
            ("2026-12-06 16:30", "2026-12-06T15:30:00Z", "2026-12-06T15:30:00Z"),
        ];
        let read = |text, toward| parse_moment(text, &berlin(), now(), toward).map(shown);
        for (text, next, last) in cases {
            assert_eq!(read(text, Toward::Future), Ok(next.into()), "{text}");
            assert_eq!(read(text, Toward::Past), Ok(last.into()), "{text}");
            let told = parse_instant(text, &berlin());
            assert_eq!(told.is_err(), is_relative(text, Toward::Past), "{text}");
        }
        assert_eq!(read("yesterday", Toward::Past), Ok("2026-11-27T23:00:00Z".into()));
        assert_eq!(read("12h", Toward::Past), Ok("2026-11-28T21:24:44Z".into()));
        assert!(read("yesterday", Toward::Future).unwrap_err().contains("in the past"));
        assert!(read("12h", Toward::Future).is_err(), "ahead or back, that is not said");
    }

    #[test]
    fn a_time_that_is_not_understood_is_refused_with_what_is_wrong() {
        let cases = [
            ("2027-02-30", "February has 28 days in 2027"),
            ("2028-02-30 10:00", "February has 29 days in 2028"),
            ("2027-04-31", "April has 30 days"),
            ("2027-13-01", "the month is 1 to 12, not 13"),
            ("2027-00-01", "the month is 1 to 12, not 0"),
            ("2027-01-00", "January has 31 days"),
            ("2027-01-01 24:00", "the hour is 0 to 23, not 24"),
            ("2027-01-01 10:60", "the minute is 0 to 59, not 60"),
            ("2027-01-01 10:00:60", "the second is 0 to 59, not 60"),
            ("2027-01-01 10:00 Europe/Berlin", "a zone's name is given apart"),
            ("2027-01-01 10:00+8", "is not an offset"),
            ("2027-01-01 10", "is not a time (expected"),
            ("0000-01-01", "the years are 1 to 9999"),
            ("10/12/2026", "is not a time (expected"),
            ("06.12.2026", "is not a time (expected"),
            ("noon", "is not a time (expected"),
            ("", "is not a time (expected"),
            ("é", "is not a time (expected"),
            ("2026-12-06 10:00 +é", "is not an offset"),
            ("2026-12-06 10:00 é123", "is not an offset"),
        ];
        for (text, why) in cases {
            for message in [
                parse_instant(text, &berlin()).unwrap_err(),
                parse_date(text, &berlin()).unwrap_err(),
                parse_moment(text, &berlin(), now(), Toward::Past).unwrap_err(),
            ] {
                assert!(message.contains(why), "{text}: {message}");
                assert!(message.contains("2026-11-06 16:30"), "{text}: {message}");
            }
        }
        for text in ["16:30", "tomorrow 10:00"] {
            let message = parse_instant(text, &berlin()).unwrap_err();
            assert!(message.contains("depends on the day on which it is read"), "{message}");
        }
        let far = parse_moment("+9000 weeks", &berlin(), now(), Toward::Future);
        assert!(far.is_ok(), "{far:?}");
        assert!(parse_moment("+900000 weeks", &berlin(), now(), Toward::Future).is_err());
    }
}
