//! Time zones. [`Zone`] hides where the rules come from.
//!
//! The system's tz database is used if there is one, so that an upgrade of it takes effect; otherwise the copy in the
//! program (`database`). `system` finds the zone of the machine, and `advice` suggests what to write instead of an
//! unknown zone. The types of dates and times are chrono's.

mod advice;
mod database;
mod system;

pub use system::DefaultZone;

use chrono::{
    DateTime, Datelike, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeDelta,
    Timelike, Utc,
};
use jiff::tz::{AmbiguousOffset, TimeZone};

use crate::clock::Timestamp;
use crate::invalid::{Invalid, quoted};

/// The largest fixed offset. The tz database has none beyond 15 hours.
const OFFSET_SECONDS_MAX: i32 = 18 * 3600;
/// Files of a tz database that are not zones, because their content depends on the machine.
const NOT_PLACES: [&str; 4] = ["localtime", "posixrules", "Factory", "Etc/Unknown"];
/// The changes of the clock for POSIX rules that name a summer time without its dates. The C library uses the same.
const POSIX_CHANGES: &str = ",M3.2.0,M11.1.0";
/// The range of years in which two zones are compared; the second year is not included.
const COMPARED_YEARS: (i32, i32) = (1970, 2100);

#[derive(Debug, Clone)]
pub struct Zone {
    name: String,
    rules: TimeZone,
}

impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// The instants of a reading of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Local {
    Single(Timestamp),
    /// Two instants, because the clock was set back over the reading.
    Fold {
        first: Timestamp,
        second: Timestamp,
    },
    /// No instant, because the clock was set forward over the reading.
    Gap {
        /// The first instant after the gap.
        end: Timestamp,
        /// The instant of the reading if the clock had not been set forward.
        shifted: Timestamp,
        /// By how much the clock was set forward.
        length: TimeDelta,
    },
}

impl Zone {
    pub fn utc() -> Self {
        Self { name: "UTC".to_owned(), rules: TimeZone::UTC }
    }

    /// Parses an IANA name, `UTC`, a fixed offset such as `+05:30`, or POSIX rules such as `CET-1CEST,M3.5.0,M10.5.0/3`.
    pub fn parse(name: &str) -> Result<Self, Invalid> {
        let refuse = |why: String| Err(Invalid::new("timezone", why));
        if let Some(seconds) = parse_offset(name) {
            let zone = Self::from_offset(name, seconds);
            return zone.map_or_else(|| refuse(advice::unknown(name)), Ok);
        }
        // POSIX rules without a summer time, such as `UTC+3`, are not accepted: they look like an offset and mean the
        // opposite.
        if (name.contains(',') || name.starts_with('<'))
            && let Some(zone) = Self::from_posix(name)
        {
            return Ok(zone);
        }
        if NOT_PLACES.iter().any(|other| other.eq_ignore_ascii_case(name)) {
            return refuse(format!("{} is not the same zone on every machine", quoted(name)));
        }
        Self::from_database(name).map_or_else(|| refuse(advice::unknown(name)), Ok)
    }

    /// A zone of the tz database.
    fn from_database(name: &str) -> Option<Self> {
        if NOT_PLACES.iter().any(|other| other.eq_ignore_ascii_case(name)) {
            return None;
        }
        // The canonical spelling, if the list of names has it.
        let listed = chrono_tz::Tz::from_str_insensitive(name).ok().map(chrono_tz::Tz::name);
        let spelled = listed.unwrap_or(name);
        let rules = TimeZone::get(spelled).ok()?;
        if spelled.eq_ignore_ascii_case("utc") {
            return Some(Self::utc());
        }
        Some(Self { name: rules.iana_name().unwrap_or(spelled).to_owned(), rules })
    }

    /// A zone with a fixed offset, in seconds east of UTC.
    fn from_offset(name: &str, seconds: i32) -> Option<Self> {
        let offset = jiff::tz::Offset::from_seconds(seconds).ok()?;
        Some(Self { name: name.to_owned(), rules: TimeZone::fixed(offset) })
    }

    /// Parses POSIX rules. [`Zone::parse`] parses the zone's name into the same zone: the name is an offset if the rules
    /// have no summer time, else it is the rules.
    fn from_posix(text: &str) -> Option<Self> {
        if text.trim() != text {
            return None;
        }
        let with_changes = format!("{text}{POSIX_CHANGES}");
        let (name, rules) = [text, &with_changes]
            .into_iter()
            .find_map(|text| Some((text, TimeZone::posix(text).ok()?)))?;
        let zone = Self { name: name.to_owned(), rules };
        let Some(seconds) = zone.constant_offset() else { return Some(zone) };
        let sign = if seconds < 0 { '-' } else { '+' };
        let (hours, minutes) = (seconds.abs() / 3600, seconds.abs() / 60 % 60);
        let offset = format!("{sign}{hours:02}:{minutes:02}");
        if parse_offset(&offset) == Some(seconds) {
            return Self::from_offset(&offset, seconds);
        }
        // The offset has seconds, or is nearly a day.
        let letters = name.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(0);
        let (abbreviation, rest) = name.split_at_checked(letters)?;
        let bracketed = format!("<{abbreviation}>{rest}");
        Some(if name.starts_with('<') { zone } else { Self { name: bracketed, ..zone } })
    }

    /// The offset in seconds east of UTC, if the clock never changes.
    fn constant_offset(&self) -> Option<i32> {
        let changes = self.rules.following(jiff::Timestamp::MIN).next().is_some();
        (!changes).then(|| self.offset_seconds(Timestamp::default()))
    }

    /// Whether the clocks of two zones always show the same, even if the zones have different names.
    pub fn has_rules_of(&self, other: &Self) -> bool {
        self.name == other.name || self.changes().eq(other.changes())
    }

    /// The offset at the beginning of the compared years, and every later offset with the instant of its change.
    fn changes(&self) -> impl Iterator<Item = (Option<jiff::Timestamp>, i32)> {
        let (first, end) = COMPARED_YEARS;
        let year = |year: i32| {
            to_jiff(
                NaiveDate::from_yo_opt(year, 1)
                    .unwrap_or_default()
                    .and_time(NaiveTime::MIN)
                    .and_utc(),
            )
        };
        let (first, end) = (year(first), year(end));
        let begin = (None, self.rules.to_offset(first).seconds());
        let changes =
            self.rules.following(first).take_while(move |change| change.timestamp() < end);
        let mut last = begin.1;
        // Some changes only concern the abbreviation and not the clock.
        let changes = changes
            .map(|change| (Some(change.timestamp()), change.offset().seconds()))
            .filter(move |(_, offset)| std::mem::replace(&mut last, *offset) != *offset);
        std::iter::once(begin).chain(changes)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The offset at an instant, in seconds east of UTC.
    pub fn offset_seconds(&self, at: Timestamp) -> i32 {
        self.rules.to_offset(to_jiff(at)).seconds()
    }

    /// The reading of the wall clock at an instant.
    pub fn to_local(&self, at: Timestamp) -> NaiveDateTime {
        shift(at.naive_utc(), self.offset_seconds(at))
    }

    /// The instant with the zone's offset, for display.
    pub fn to_fixed(&self, at: Timestamp) -> DateTime<FixedOffset> {
        let offset = FixedOffset::east_opt(self.offset_seconds(at)).unwrap_or_else(|| Utc.fix());
        at.with_timezone(&offset)
    }

    /// The instants of a reading of the wall clock.
    pub fn resolve(&self, local: NaiveDateTime) -> Local {
        let at = |offset: jiff::tz::Offset| shift(local, -offset.seconds()).and_utc();
        let Some(reading) = to_jiff_civil(local) else { return Local::Single(local.and_utc()) };
        match self.rules.to_ambiguous_timestamp(reading).offset() {
            AmbiguousOffset::Unambiguous { offset } => Local::Single(at(offset)),
            AmbiguousOffset::Fold { before, after } => {
                Local::Fold { first: at(before), second: at(after) }
            }
            AmbiguousOffset::Gap { before, after } => {
                let shifted = at(before);
                let length = TimeDelta::seconds(i64::from(after.seconds() - before.seconds()));
                Local::Gap {
                    end: self.transition_until(shifted).unwrap_or(shifted),
                    shifted,
                    length,
                }
            }
        }
    }

    /// The instant of a reading. A reading in a gap is moved forward by the length of the gap; in a fold, the first
    /// instant counts.
    pub fn instant(&self, local: NaiveDateTime) -> Timestamp {
        match self.resolve(local) {
            Local::Single(at) | Local::Fold { first: at, .. } | Local::Gap { shifted: at, .. } => {
                at
            }
        }
    }

    /// The last instant of a day, before the clock first shows the next day.
    pub fn end_of_day(&self, day: NaiveDate) -> Option<Timestamp> {
        let midnight = day.succ_opt()?.and_time(NaiveTime::MIN);
        let next_day = match self.resolve(midnight) {
            Local::Single(at) | Local::Fold { first: at, .. } | Local::Gap { end: at, .. } => at,
        };
        next_day.checked_sub_signed(TimeDelta::microseconds(1))
    }

    /// The first change of the zone's rules after an instant.
    pub fn transition_after(&self, at: Timestamp) -> Option<Timestamp> {
        self.rules
            .following(to_jiff(at))
            .next()
            .and_then(|transition| from_jiff(transition.timestamp()))
    }

    /// The last change of the zone's rules at or before an instant.
    pub fn transition_until(&self, at: Timestamp) -> Option<Timestamp> {
        let after = to_jiff(at.checked_add_signed(TimeDelta::microseconds(1))?);
        self.rules.preceding(after).next().and_then(|transition| from_jiff(transition.timestamp()))
    }

    /// The source of the rules and its version, for people.
    pub fn source() -> String {
        database::source()
    }

    /// Checks that TZDIR, if it is set, contains a tz database.
    pub fn check_source() -> Result<(), Invalid> {
        database::folder().map(drop)
    }
}

fn shift(at: NaiveDateTime, seconds: i32) -> NaiveDateTime {
    at.checked_add_signed(TimeDelta::seconds(seconds.into())).unwrap_or(at)
}

/// Converts an instant. One outside of jiff's years (-9999 to 9999) becomes the nearest instant within.
fn to_jiff(at: Timestamp) -> jiff::Timestamp {
    let edge = if at.timestamp() > 0 { jiff::Timestamp::MAX } else { jiff::Timestamp::MIN };
    jiff::Timestamp::from_microsecond(at.timestamp_micros()).unwrap_or(edge)
}

fn from_jiff(at: jiff::Timestamp) -> Option<Timestamp> {
    Timestamp::from_timestamp_micros(at.as_microsecond())
}

fn to_jiff_civil(local: NaiveDateTime) -> Option<jiff::civil::DateTime> {
    let part = |number: u32| i8::try_from(number).ok();
    let year = i16::try_from(local.year()).ok()?;
    let (month, day) = (part(local.month())?, part(local.day())?);
    let (hour, minute, second) =
        (part(local.hour())?, part(local.minute())?, part(local.second())?);
    let nanosecond = i32::try_from(local.nanosecond() % 1_000_000_000).ok()?;
    jiff::civil::DateTime::new(year, month, day, hour, minute, second, nanosecond).ok()
}

/// Parses `±HH:MM` into seconds.
pub fn parse_offset(text: &str) -> Option<i32> {
    let (sign, rest) = match text.strip_prefix('+') {
        Some(rest) => (1, rest),
        None => (-1, text.strip_prefix('-')?),
    };
    let (hours, minutes) = rest.split_once(':')?;
    let two_digits = |part: &str| {
        whole(part).filter(|_| part.len() == 2).and_then(|number| i32::try_from(number).ok())
    };
    let (hours, minutes) = (two_digits(hours)?, two_digits(minutes)?);
    let seconds = hours * 3600 + minutes * 60;
    (minutes < 60 && seconds <= OFFSET_SECONDS_MAX).then_some(sign * seconds)
}

/// Parses a number that consists of digits only.
pub(crate) fn whole(digits: &str) -> Option<u32> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}
