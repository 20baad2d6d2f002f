//! The dates that the fields year, month, day, week and `day_of_week` allow.
//!
//! [`Dates::matches`] decides on a single date; the searches compute the matching days of a whole month at once. The two
//! are implemented independently on purpose, so that tests can check one against the other.

use chrono::{Datelike, NaiveDate};

use super::bits;
use super::field_parser::Item;
use super::years::Years;

/// A set of all ISO weeks, 1 to 53.
const EVERY_WEEK: u64 = ((1 << 53) - 1) << 1;
/// Bits 0, 7, 14, 21, 28 and 35. Multiplying the bits of a week by it repeats them over a month.
const EVERY_SEVENTH: u64 = 0x8_1020_4081;
/// The number of years that a search tries one by one before it finds out which kinds of year can match at all.
const YEARS_ONE_BY_ONE: usize = 8;
/// A range that has a year of every kind.
const YEARS_OF_EVERY_KIND: std::ops::Range<i32> = 2000..2400;
/// The last year of the calendar.
const LAST_YEAR: i32 = 9999;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Dates {
    years: Years,
    months: u64,
    days: u64,
    /// For each weekday, bit n for the nth of the month.
    nth_weekdays: [u8; 7],
    last_weekdays: u64,
    last_day: bool,
    weeks: u64,
    weekdays: u64,
    /// Whether a date matches if either its day or its weekday does, instead of both.
    either_day: bool,
}

impl Dates {
    /// Compiles the items of the fields year, month, day, week and `day_of_week`.
    pub(super) fn new([years, months, days, weeks, weekdays]: [&[Item]; 5]) -> Self {
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
            years: Years::new(years),
            months: bits::from_items(months),
            days: bits::from_items(days),
            nth_weekdays: [0, 1, 2, 3, 4, 5, 6].map(nth),
            last_weekdays,
            last_day: days.contains(&Item::LastDay),
            weeks: bits::from_items(weeks),
            weekdays: bits::from_items(weekdays),
            either_day: false,
        }
    }

    /// The same dates, but a date matches if its day or its weekday matches, instead of both.
    pub(super) fn with_either_day(self) -> Self {
        Self { either_day: true, ..self }
    }

    pub(super) fn matches(&self, date: NaiveDate) -> bool {
        let (day, weekday) = (date.day(), date.weekday().num_days_from_monday());
        let last = days_in_month(date.year(), date.month());
        let nth = self
            .nth_weekdays
            .iter()
            .zip(0..)
            .any(|(nth, of)| of == weekday && bits::has(u64::from(*nth), day.div_ceil(7)));
        let day_matches = bits::has(self.days, day)
            || nth
            || (bits::has(self.last_weekdays, weekday) && day + 7 > last)
            || (self.last_day && day == last);
        let weekday_matches = bits::has(self.weekdays, weekday);
        let either_or_both = if self.either_day {
            day_matches || weekday_matches
        } else {
            day_matches && weekday_matches
        };
        self.years.has(date.year())
            && bits::has(self.months, date.month())
            && either_or_both
            && bits::has(self.weeks, date.iso_week().week())
    }

    /// Whether a date is among the matching days of its month. Means the same as [`Dates::matches`].
    pub(super) fn contains(&self, date: NaiveDate) -> bool {
        bits::has(self.days_of(date.year(), date.month()), date.day())
    }

    /// The number of matching dates with `from <= date < until`.
    pub(super) fn count(&self, from: NaiveDate, until: NaiveDate) -> u64 {
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

    /// The first matching date at or after `from`.
    pub(super) fn next(&self, from: NaiveDate) -> Option<NaiveDate> {
        let years =
            (from.year().max(self.years.first())..=LAST_YEAR).filter(|at| self.years.has(*at));
        self.search_years(years, |year| {
            let begin = if year == from.year() { from.month() } else { 1 };
            (begin..=12).filter(|month| bits::has(self.months, *month)).find_map(|month| {
                let begin = day_in(from, year, month).unwrap_or(1);
                let day = bits::next(self.days_in(year, month), begin)?;
                NaiveDate::from_ymd_opt(year, month, day)
            })
        })
    }

    /// The last matching date at or before `until`.
    pub(super) fn last_until(&self, until: NaiveDate) -> Option<NaiveDate> {
        let years = self.years.first()..=until.year().min(LAST_YEAR);
        self.search_years(years.rev().filter(|at| self.years.has(*at)), |year| {
            let end = if year == until.year() { until.month() } else { 12 };
            (1..=end).rev().filter(|month| bits::has(self.months, *month)).find_map(|month| {
                let end = day_in(until, year, month).unwrap_or(31);
                let day = bits::last(self.days_in(year, month), end)?;
                NaiveDate::from_ymd_opt(year, month, day)
            })
        })
    }

    /// Searches the first few years one by one, and then only the years of a kind that can have a match. So a rare date is
    /// found, and the search for an impossible one ends, without trying ten thousand years.
    fn search_years(
        &self,
        mut years: impl Iterator<Item = i32>,
        mut search: impl FnMut(i32) -> Option<NaiveDate>,
    ) -> Option<NaiveDate> {
        let near = years.by_ref().take(YEARS_ONE_BY_ONE).find_map(&mut search);
        if near.is_some() {
            return near;
        }
        let kinds = self.kinds_of_year_that_match();
        if kinds == 0 {
            return None;
        }
        years.filter(|year| bits::has(kinds, kind_of_year(*year))).find_map(search)
    }

    /// The set of the kinds of year that have a matching date.
    fn kinds_of_year_that_match(&self) -> u64 {
        let (mut seen, mut matching) = (0_u64, 0_u64);
        for year in YEARS_OF_EVERY_KIND {
            let kind = 1 << kind_of_year(year);
            if seen & kind == 0 && self.has_date_in(year) {
                matching |= kind;
            }
            seen |= kind;
        }
        matching
    }

    fn has_date_in(&self, year: i32) -> bool {
        (1..=12).any(|month| bits::has(self.months, month) && self.days_in(year, month) != 0)
    }

    /// The set of matching days of a month.
    fn days_of(&self, year: i32, month: u32) -> u64 {
        if !bits::has(self.months, month) || !self.years.has(year) {
            return 0;
        }
        self.days_in(year, month)
    }

    /// The set of matching days of a month that is known to match, like its year.
    fn days_in(&self, year: i32, month: u32) -> u64 {
        let Some(first) = NaiveDate::from_ymd_opt(year, month, 1) else { return 0 };
        let last = days_in_month(year, month);
        let in_month = (u64::MAX >> (63 - last)) & !1;
        let first_weekday = first.weekday().num_days_from_monday();
        let mut days = self.days & in_month;
        days |= self.weekdays_of_month(first_weekday, last) & in_month;
        if self.last_day {
            days |= 1 << last;
        }
        // Repeats the week over the month and shifts it so that the weekday of day 1 is at bit 1.
        let on_weekdays = ((self.weekdays * EVERY_SEVENTH) >> first_weekday << 1) & in_month;
        days = if self.either_day { days | on_weekdays } else { days & on_weekdays };
        if self.weeks != EVERY_WEEK {
            days &= self.days_in_weeks(first, last);
        }
        days
    }

    /// The set of days of a month that are in a matching ISO week.
    fn days_in_weeks(&self, first: NaiveDate, last: u32) -> u64 {
        let (mut days, mut day) = (0, 1);
        while let Some(date) = first.with_day(day).filter(|_| day <= last) {
            let next_monday = day + 7 - date.weekday().num_days_from_monday();
            if bits::has(self.weeks, date.iso_week().week()) {
                days |= (1 << next_monday) - (1 << day);
            }
            day = next_monday;
        }
        days
    }

    /// The set of days such as the third Friday or the last Friday, in a month with this first weekday and last day.
    fn weekdays_of_month(&self, first_weekday: u32, last: u32) -> u64 {
        if self.last_weekdays == 0 && self.nth_weekdays == [0; 7] {
            return 0;
        }
        // The day of the month that is its first such weekday.
        let first_of = |weekday: u32| 1 + (weekday + 7 - first_weekday) % 7;
        let mut days = 0;
        for (nth, weekday) in self.nth_weekdays.iter().zip(0..) {
            let on = (1..=5)
                .filter(|n| bits::has(u64::from(*nth), *n))
                .map(|n| first_of(weekday) + 7 * (n - 1));
            days |= on.fold(0, |days, day| days | 1 << day);
        }
        for weekday in (0..7).filter(|weekday| bits::has(self.last_weekdays, *weekday)) {
            days |= 1 << (first_of(weekday) + (last - first_of(weekday)) / 7 * 7);
        }
        days
    }
}

/// The kind of a year, which determines its calendar including the ISO weeks: its first weekday, whether it has a leap
/// day, and whether the year before had one.
fn kind_of_year(year: i32) -> u32 {
    let first = NaiveDate::from_ymd_opt(year, 1, 1);
    let first_weekday = first.map_or(0, |first| first.weekday().num_days_from_monday());
    first_weekday + 7 * u32::from(is_leap(year)) + 14 * u32::from(is_leap(year - 1))
}

/// The day of a date, if the date is in this month.
fn day_in(date: NaiveDate, year: i32, month: u32) -> Option<u32> {
    ((year, month) == (date.year(), date.month())).then(|| date.day())
}

fn days_in_month(year: i32, month: u32) -> u32 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn is_leap(year: i32) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}
