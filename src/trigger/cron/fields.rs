//! The eight calendar fields, compiled into sets of bits, and the search over them in civil time.
//!
//! [`Fields::matches`] and the searches are written apart from each other on purpose: tests hold
//! one against the other.

use chrono::{Datelike, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Timelike};
use serde_json::Value;

use super::expression::{Item, MONTHS, Shape, WEEKDAYS, parse};
use crate::invalid::Invalid;
use crate::trigger::given::Given;

/// The fields, the coarsest first.
pub(in crate::trigger) const FIELD_NAMES: [&str; 8] =
    ["year", "month", "day", "week", "day_of_week", "hour", "minute", "second"];

const SHAPES: [Shape; 8] = [
    Shape { name: "year", min: 1970, max: 9999, names: &[] },
    Shape { name: "month", min: 1, max: 12, names: &MONTHS },
    Shape { name: "day", min: 1, max: 31, names: &[] },
    Shape { name: "week", min: 1, max: 53, names: &[] },
    Shape { name: "day_of_week", min: 0, max: 6, names: &WEEKDAYS },
    Shape { name: "hour", min: 0, max: 23, names: &[] },
    Shape { name: "minute", min: 0, max: 59, names: &[] },
    Shape { name: "second", min: 0, max: 59, names: &[] },
];

/// Years after which the calendar repeats itself, weekdays and ISO weeks included.
const CALENDAR_CYCLE_YEARS: usize = 400;
const EVERY_WEEK: u64 = ((1 << 53) - 1) << 1;
const EVERY_WEEKDAY: u64 = (1 << 7) - 1;

/// What each field allows.
#[derive(Debug, Clone)]
pub(super) struct Fields {
    years: Vec<Item>,
    months: u64,
    days: u64,
    /// For each weekday, bit n for the nth of the month.
    nth_weekdays: [u8; 7],
    last_weekdays: u64,
    last_day: bool,
    weeks: u64,
    weekdays: u64,
    hours: u64,
    minutes: u64,
    seconds: u64,
}

fn bits(items: &[Item]) -> u64 {
    let range = |item: &Item| match *item {
        Item::Range { first, last, step } => (first..=last)
            .step_by(usize::try_from(step).unwrap_or(1))
            .fold(0, |bits, value| bits | 1 << value),
        Item::Nth { .. } | Item::LastWeekday(_) | Item::LastDay => 0,
    };
    items.iter().fold(0, |bits, item| bits | range(item))
}

fn has(set: u64, value: u32) -> bool {
    set.checked_shr(value).unwrap_or(0) & 1 == 1
}

/// The smallest member of a set that is at least `from`.
fn next_bit(set: u64, from: u32) -> Option<u32> {
    let rest = set & u64::MAX.checked_shl(from).unwrap_or(0);
    (rest != 0).then(|| rest.trailing_zeros())
}

/// The largest member of a set that is at most `until`.
fn last_bit(set: u64, until: u32) -> Option<u32> {
    let rest = set & (u64::MAX >> (63 - until.min(63)));
    (rest != 0).then(|| rest.ilog2())
}

/// How many members of a set are below `limit`.
fn bits_below(set: u64, limit: u32) -> u64 {
    u64::from((set & !u64::MAX.checked_shl(limit).unwrap_or(0)).count_ones())
}

fn given_text(given: &mut Given, name: &'static str) -> Result<Option<String>, Invalid> {
    match given.take(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Number(number)) if number.is_u64() => Ok(Some(number.to_string())),
        Some(other) => {
            Err(Invalid::new(name, format!("must be a whole number or an expression, not {other}")))
        }
    }
}

impl Fields {
    /// Reads the fields. One that is not given is `*` where it is coarser than the finest one given, else its
    /// minimum; `week` and `day_of_week` are `*`.
    pub(super) fn parse(given: &mut Given) -> Result<Self, Invalid> {
        let mut texts = Vec::new();
        for name in FIELD_NAMES {
            texts.push(given_text(given, name)?);
        }
        let Some(finest) = texts.iter().rposition(Option::is_some) else {
            // A field that is misspelt is the likelier fault.
            given.refuse_unknown()?;
            let known = FIELD_NAMES.join(", ");
            return Err(Invalid::new(
                "",
                format!("a cron trigger needs at least one of its fields ({known})"),
            ));
        };
        let mut sets = Vec::new();
        for (number, (shape, text)) in SHAPES.iter().zip(&texts).enumerate() {
            let always = number < finest || matches!(shape.name, "week" | "day_of_week");
            let default = if always { "*".to_owned() } else { shape.min.to_string() };
            let items = parse(shape, text.as_ref().unwrap_or(&default));
            sets.push(items.map_err(|why| Invalid::new(shape.name, why))?);
        }
        Ok(Self::new(&sets))
    }

    fn new(sets: &[Vec<Item>]) -> Self {
        let set = |number: usize| sets.get(number).map(Vec::as_slice).unwrap_or_default();
        let days = set(2);
        let nth = |of: u32| {
            days.iter().fold(0, |bits, item| match *item {
                Item::Nth { n, weekday } if weekday == of => bits | 1 << n,
                Item::Nth { .. } | Item::LastWeekday(_) | Item::LastDay | Item::Range { .. } => {
                    bits
                }
            })
        };
        let last_weekdays = days.iter().fold(0, |bits, item| match *item {
            Item::LastWeekday(weekday) => bits | 1 << weekday,
            Item::Nth { .. } | Item::LastDay | Item::Range { .. } => bits,
        });
        Self {
            years: set(0).to_vec(),
            months: bits(set(1)),
            days: bits(set(2)),
            nth_weekdays: [0, 1, 2, 3, 4, 5, 6].map(nth),
            last_weekdays,
            last_day: days.contains(&Item::LastDay),
            weeks: bits(set(3)),
            weekdays: bits(set(4)),
            hours: bits(set(5)),
            minutes: bits(set(6)),
            seconds: bits(set(7)),
        }
    }

    /// Whether every field matches a reading.
    pub(super) fn matches(&self, at: NaiveDateTime) -> bool {
        let (day, weekday) = (at.day(), at.weekday().num_days_from_monday());
        let last = days_in_month(at.year(), at.month());
        let nth = self
            .nth_weekdays
            .iter()
            .zip(0..)
            .any(|(nth, of)| of == weekday && has(u64::from(*nth), day.div_ceil(7)));
        let day_matches = has(self.days, day)
            || nth
            || (has(self.last_weekdays, weekday) && day + 7 > last)
            || (self.last_day && day == last);
        self.has_year(at.year())
            && has(self.months, at.month())
            && day_matches
            && has(self.weekdays, weekday)
            && has(self.weeks, at.iso_week().week())
            && has(self.hours, at.hour())
            && has(self.minutes, at.minute())
            && has(self.seconds, at.second())
    }

    fn has_year(&self, year: i32) -> bool {
        let Ok(year) = u32::try_from(year) else { return false };
        self.years.iter().any(|item| match *item {
            Item::Range { first, last, step } => {
                (first..=last).contains(&year) && (year - first) % step == 0
            }
            Item::Nth { .. } | Item::LastWeekday(_) | Item::LastDay => false,
        })
    }

    /// The first matching reading at or after `from`, which is a whole second.
    pub(super) fn next(&self, from: NaiveDateTime) -> Option<NaiveDateTime> {
        let (date, time) = (from.date(), from.time());
        if self.matches_date(date)
            && let Some(time) = self.next_time(time)
        {
            return Some(date.and_time(time));
        }
        Some(self.next_date(date.succ_opt()?)?.and_time(self.next_time(NaiveTime::MIN)?))
    }

    /// The last matching reading before `until`.
    pub(super) fn last_before(&self, until: NaiveDateTime) -> Option<NaiveDateTime> {
        let latest = until - TimeDelta::seconds(1);
        if self.matches_date(latest.date())
            && let Some(time) = self.last_time(latest.time())
        {
            return Some(latest.date().and_time(time));
        }
        let end_of_day = NaiveTime::from_hms_opt(23, 59, 59)?;
        Some(self.last_date(latest.date().pred_opt()?)?.and_time(self.last_time(end_of_day)?))
    }

    /// How many readings match with `from <= reading < until`.
    pub(super) fn count(&self, from: NaiveDateTime, until: NaiveDateTime) -> u64 {
        if from >= until {
            return 0;
        }
        let a_day = u64::from(
            self.hours.count_ones() * self.minutes.count_ones() * self.seconds.count_ones(),
        );
        let before = |at: NaiveDateTime| {
            if self.matches_date(at.date()) { self.times_before(at.time()) } else { 0 }
        };
        let whole_days = self.count_dates(from.date(), until.date());
        // Days from the first one on, less what lies before on it, plus what lies before on the last one.
        (whole_days * a_day + before(until)).saturating_sub(before(from))
    }

    /// Matching dates with `from <= date < until`.
    fn count_dates(&self, from: NaiveDate, until: NaiveDate) -> u64 {
        let (mut year, mut month, mut count) = (from.year(), from.month(), 0);
        while (year, month) <= (until.year(), until.month()) {
            let mut days = self.days_of(year, month);
            if (year, month) == (from.year(), from.month()) {
                days &= u64::MAX << from.day();
            }
            if (year, month) == (until.year(), until.month()) {
                days &= !(u64::MAX << until.day());
            }
            count += u64::from(days.count_ones());
            (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
        }
        count
    }

    fn matches_date(&self, date: NaiveDate) -> bool {
        has(self.days_of(date.year(), date.month()), date.day())
    }

    /// The matching days of a month, as bits.
    fn days_of(&self, year: i32, month: u32) -> u64 {
        if !has(self.months, month) || !self.has_year(year) {
            return 0;
        }
        let Some(first) = NaiveDate::from_ymd_opt(year, month, 1) else { return 0 };
        let last = days_in_month(year, month);
        let in_month = (u64::MAX >> (63 - last)) & !1;
        let mut days = self.days & in_month;
        let first_weekday = first.weekday().num_days_from_monday();
        // Day 1 + (w - first weekday) mod 7 is the first such weekday of the month.
        let first_of = |weekday: u32| 1 + (weekday + 7 - first_weekday) % 7;
        for (nth, weekday) in self.nth_weekdays.iter().zip(0..) {
            let on = (1..=5)
                .filter(|n| has(u64::from(*nth), *n))
                .map(|n| first_of(weekday) + 7 * (n - 1));
            days |= on.fold(0, |days, day| days | 1 << day) & in_month;
        }
        for weekday in (0..7).filter(|weekday| has(self.last_weekdays, *weekday)) {
            days |= 1 << (first_of(weekday) + (last - first_of(weekday)) / 7 * 7);
        }
        if self.last_day {
            days |= 1 << last;
        }
        if self.weekdays != EVERY_WEEKDAY {
            let on = (1..=last).filter(|day| has(self.weekdays, (first_weekday + day - 1) % 7));
            days &= on.fold(0, |days, day| days | 1 << day);
        }
        if self.weeks != EVERY_WEEK {
            let week = |day: u32| {
                first.with_day(day).is_some_and(|date| has(self.weeks, date.iso_week().week()))
            };
            days &= (1..=last)
                .filter(|day| has(days, *day) && week(*day))
                .fold(0, |days, day| days | 1 << day);
        }
        days
    }

    fn next_date(&self, from: NaiveDate) -> Option<NaiveDate> {
        let years = (from.year().max(1970)..=9999).filter(|year| self.has_year(*year));
        years.take(self.years_to_search()).find_map(|year| {
            let begin = if year == from.year() { from.month() } else { 1 };
            (begin..=12).find_map(|month| {
                let begin = day_in(from, year, month).unwrap_or(1);
                NaiveDate::from_ymd_opt(year, month, next_bit(self.days_of(year, month), begin)?)
            })
        })
    }

    fn last_date(&self, until: NaiveDate) -> Option<NaiveDate> {
        let years = (1970..=until.year().min(9999)).rev().filter(|year| self.has_year(*year));
        years.take(self.years_to_search()).find_map(|year| {
            let end = if year == until.year() { until.month() } else { 12 };
            (1..=end).rev().find_map(|month| {
                let end = day_in(until, year, month).unwrap_or(31);
                NaiveDate::from_ymd_opt(year, month, last_bit(self.days_of(year, month), end)?)
            })
        })
    }

    /// Matching years after which a search has seen everything: each range of years comes to every place in the
    /// calendar's cycle, if it is long enough, within as many of its members.
    fn years_to_search(&self) -> usize {
        CALENDAR_CYCLE_YEARS * self.years.len() + 1
    }

    fn next_time(&self, from: NaiveTime) -> Option<NaiveTime> {
        let (hour, minute, second) = (from.hour(), from.minute(), from.second());
        let (first_minute, first_second) = (next_bit(self.minutes, 0)?, next_bit(self.seconds, 0)?);
        if has(self.hours, hour) {
            let in_minute = next_bit(self.seconds, second).filter(|_| has(self.minutes, minute));
            if let Some(second) = in_minute {
                return NaiveTime::from_hms_opt(hour, minute, second);
            }
            if let Some(minute) = next_bit(self.minutes, minute + 1) {
                return NaiveTime::from_hms_opt(hour, minute, first_second);
            }
        }
        NaiveTime::from_hms_opt(next_bit(self.hours, hour + 1)?, first_minute, first_second)
    }

    fn last_time(&self, until: NaiveTime) -> Option<NaiveTime> {
        let (hour, minute, second) = (until.hour(), until.minute(), until.second());
        let (last_minute, last_second) = (last_bit(self.minutes, 59)?, last_bit(self.seconds, 59)?);
        if has(self.hours, hour) {
            let in_minute = last_bit(self.seconds, second).filter(|_| has(self.minutes, minute));
            if let Some(second) = in_minute {
                return NaiveTime::from_hms_opt(hour, minute, second);
            }
            if let Some(minute) =
                minute.checked_sub(1).and_then(|until| last_bit(self.minutes, until))
            {
                return NaiveTime::from_hms_opt(hour, minute, last_second);
            }
        }
        NaiveTime::from_hms_opt(
            last_bit(self.hours, hour.checked_sub(1)?)?,
            last_minute,
            last_second,
        )
    }

    /// How many matching times of a day lie before `time`.
    fn times_before(&self, time: NaiveTime) -> u64 {
        let (minutes, seconds) =
            (u64::from(self.minutes.count_ones()), u64::from(self.seconds.count_ones()));
        let mut count = bits_below(self.hours, time.hour()) * minutes * seconds;
        if has(self.hours, time.hour()) {
            count += bits_below(self.minutes, time.minute()) * seconds;
            if has(self.minutes, time.minute()) {
                count += bits_below(self.seconds, time.second());
            }
        }
        count
    }
}

/// The day of a date, if it lies in that month.
fn day_in(date: NaiveDate, year: i32, month: u32) -> Option<u32> {
    ((year, month) == (date.year(), date.month())).then(|| date.day())
}

fn days_in_month(year: i32, month: u32) -> u32 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}
