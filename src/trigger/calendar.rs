//! `calendarinterval`: every N months or days of the calendar, at one time of day, counted from a start date.
//!
//! Months are added first and keep the day of the month; a month without that day is skipped. Weeks and days are added
//! to the result. So `months = 1` from January 31 is March 31, and `months = 1, days = 1` is April 1.

use std::sync::OnceLock;

use chrono::{Datelike, Days, NaiveDate, NaiveTime, TimeDelta};
use serde_json::Value;

use super::dst::{DstGap, DstPolicy, FoldPolicy, GapPolicy, gaps};
use super::schedule::{Schedule, Span};
use super::spec::{SpecReader, describe_keys};
use crate::clock::Timestamp;
use crate::invalid::Invalid;
use crate::zone::Zone;

/// The longest steps, a thousand years each, which is far from any overflow.
const YEARS_MAX: u32 = 1000;
const MONTHS_MAX: u32 = 12 * YEARS_MAX;
const WEEKS_MAX: u32 = 53 * YEARS_MAX;
const DAYS_MAX: u32 = 366 * YEARS_MAX;
/// The number of dates from one milestone to the next.
const MILESTONE_STEPS: usize = 64;
/// The last year of the calendar.
const LAST_YEAR: i32 = 9999;
/// The keys that describe the trigger in a table.
const KEYS: [&str; 7] = ["years", "months", "weeks", "days", "hour", "minute", "second"];

/// A series of dates, and a time of day.
#[derive(Debug)]
pub(super) struct CalendarInterval {
    months: u32,
    days: u32,
    time: NaiveTime,
    start: NaiveDate,
    /// The earliest possible occurrence: the start if it has a time of day, or the definition if there is no start.
    begin: Option<Timestamp>,
    /// The latest possible occurrence.
    end: Option<Timestamp>,
    dst: DstPolicy,
    /// Whether the series starts at the definition, because no start was given.
    is_anchored: bool,
    /// Every [`MILESTONE_STEPS`]th date of a series whose dates each depend on the one before; computed when first
    /// needed.
    milestones: OnceLock<Vec<NaiveDate>>,
}

impl CalendarInterval {
    pub(super) fn parse(spec: &mut SpecReader) -> Result<Self, Invalid> {
        let months = 12 * spec.whole("years", YEARS_MAX)? + spec.whole("months", MONTHS_MAX)?;
        let days = 7 * spec.whole("weeks", WEEKS_MAX)? + spec.whole("days", DAYS_MAX)?;
        let (hour, minute) = (spec.whole("hour", 23)?, spec.whole("minute", 59)?);
        let time = NaiveTime::from_hms_opt(hour, minute, spec.whole("second", 59)?);
        let time = time.ok_or_else(|| Invalid::new("hour", "is not a time of day"))?;
        let (given_start, end) = (spec.start_day()?, spec.end()?);
        let today = || (spec.zone().to_local(spec.anchor()).date(), Some(spec.anchor()));
        let (start, begin) = given_start.unwrap_or_else(today);
        let midnight = spec.zone().instant(start.and_time(NaiveTime::MIN));
        if given_start.is_some() && end.is_some_and(|end| end < begin.unwrap_or(midnight)) {
            return Err(Invalid::new("end_date", "is before start_date"));
        }
        let default = DstPolicy { gap: GapPolicy::Skip, fold: FoldPolicy::First };
        let dst = spec.dst_policy(default)?;
        if months == 0 && days == 0 {
            spec.refuse_unknown()?;
            return Err(Invalid::new(
                "",
                "a calendarinterval is at least one day: give years, months, weeks or days",
            ));
        }
        let is_anchored = given_start.is_none();
        let milestones = OnceLock::new();
        Ok(Self { months, days, time, start, begin, end, dst, is_anchored, milestones })
    }

    /// The occurrences of all dates from `date` on.
    fn occurrences_from(&self, zone: &Zone, date: NaiveDate) -> impl Iterator<Item = Timestamp> {
        let dates = std::iter::successors(self.date_from(date), |date| self.step(*date));
        let mut last = None;
        dates
            .flat_map(|date| self.dst.instants(zone, date.and_time(self.time)))
            // A day that the zone skips is shifted to the next day, which may be in the series too.
            .filter(move |at| last.replace(*at) != Some(*at))
            .skip_while(|at| self.begin.is_some_and(|begin| *at < begin))
            .take_while(|at| self.end.is_none_or(|end| *at <= end))
    }

    /// Whether an instant is neither before the beginning nor after the end.
    fn is_in_range(&self, at: Timestamp) -> bool {
        self.begin.is_none_or(|begin| at >= begin) && self.end.is_none_or(|end| at <= end)
    }

    /// The date that follows a date of the series.
    fn step(&self, date: NaiveDate) -> Option<NaiveDate> {
        let mut month = month_number(date) + i64::from(self.months);
        let last_month = i64::from(LAST_YEAR) * 12 + 11;
        let mut next = day_of_month(month, date.day());
        while next.is_none() && month <= last_month {
            month += i64::from(self.months);
            next = day_of_month(month, date.day());
        }
        let next = next?.checked_add_days(Days::new(self.days.into()))?;
        Some(next).filter(|next| next.year() <= LAST_YEAR)
    }

    /// The first date of the series at or after `from`.
    fn date_from(&self, from: NaiveDate) -> Option<NaiveDate> {
        let mut date = self.jump_until(from);
        while date < from {
            date = self.step(date)?;
        }
        Some(date)
    }

    /// The last date of the series at or before `until`.
    fn date_until(&self, until: NaiveDate) -> Option<NaiveDate> {
        let mut date = Some(self.jump_until(until)).filter(|date| *date <= until)?;
        while let Some(next) = self.step(date).filter(|next| *next <= until) {
            date = next;
        }
        Some(date)
    }

    /// A date of the series at or before `until` from which few steps lead to it; the start if there is none.
    fn jump_until(&self, until: NaiveDate) -> NaiveDate {
        let days = until.signed_duration_since(self.start).num_days();
        if days <= 0 {
            return self.start;
        }
        let jumped = match (i64::from(self.months), i64::from(self.days)) {
            (0, step) => self.start.checked_add_signed(TimeDelta::days(days / step * step)),
            (step, 0) => self.jump_months(until, step),
            (_, _) => self.milestone_until(until),
        };
        jumped.unwrap_or(self.start)
    }

    /// The last milestone at or before `until`. If months and days are mixed, each date depends on the one before, so
    /// no formula leads to a date.
    fn milestone_until(&self, until: NaiveDate) -> Option<NaiveDate> {
        let milestones = self.milestones.get_or_init(|| {
            let dates = std::iter::successors(Some(self.start), |date| self.step(*date));
            dates.step_by(MILESTONE_STEPS).collect()
        });
        let after = milestones.partition_point(|date| *date <= until);
        milestones.get(after.checked_sub(1)?).copied()
    }

    /// The last date at or before `until` that is a number of steps of `step` months after the start.
    fn jump_months(&self, until: NaiveDate, step: i64) -> Option<NaiveDate> {
        let first = month_number(self.start);
        let mut month = first + (month_number(until) - first) / step * step;
        while month >= first {
            let date = day_of_month(month, self.start.day()).filter(|date| *date <= until);
            if date.is_some() {
                return date;
            }
            month -= step;
        }
        None
    }

    /// Whether a date is in the series, computed independently of the search.
    fn has_date(&self, date: NaiveDate) -> bool {
        let days = date.signed_duration_since(self.start).num_days();
        if days < 0 {
            return false;
        }
        let months = month_number(date) - month_number(self.start);
        match (self.months, self.days) {
            (0, step) => days % i64::from(step) == 0,
            (step, 0) => months % i64::from(step) == 0 && date.day() == self.start.day(),
            (_, _) => {
                let near = self.milestone_until(date);
                let mut dates = std::iter::successors(near, |date| self.step(*date));
                dates.find(|found| *found >= date) == Some(date)
            }
        }
    }
}

impl Schedule for CalendarInterval {
    fn first(&self, zone: &Zone) -> Option<Timestamp> {
        self.occurrences_from(zone, self.start).next()
    }

    fn end(&self) -> Option<Timestamp> {
        self.end
    }

    fn next_from(&self, zone: &Zone, at: Timestamp) -> Option<Timestamp> {
        self.occurrences_from(zone, dates_near(zone, at)?.0).find(|found| *found >= at)
    }

    fn last_until(&self, zone: &Zone, at: Timestamp) -> Option<Timestamp> {
        let at = self.end.map_or(at, |end| end.min(at));
        let mut date = dates_near(zone, at)?.1;
        while let Some(found) = self.date_until(date) {
            let last = self
                .dst
                .instants(zone, found.and_time(self.time))
                .filter(|last| *last <= at)
                .last();
            if last.is_some() {
                return last.filter(|last| self.is_in_range(*last));
            }
            date = found.pred_opt()?;
        }
        None
    }

    fn matches(&self, zone: &Zone, at: Timestamp) -> bool {
        let Some((from, until)) = dates_near(zone, at).filter(|_| self.is_in_range(at)) else {
            return false;
        };
        let dates = from.iter_days().take_while(|date| *date <= until);
        dates.filter(|date| self.has_date(*date)).any(|date| {
            self.dst.instants(zone, date.and_time(self.time)).any(|instant| instant == at)
        })
    }

    /// Counts date by date.
    fn occurrences(&self, zone: &Zone, first: Timestamp, to: Timestamp) -> Option<Span> {
        let all = self.occurrences_from(zone, dates_near(zone, first)?.0);
        let others = all.filter(|at| *at > first).take_while(|at| *at <= to);
        Some(others.fold(Span::one(first), |span, last| Span {
            last,
            count: span.count + 1,
            ..span
        }))
    }

    fn is_like(&self, other: &dyn Schedule) -> bool {
        let rest = |its: &Self| (its.months, its.days, its.time, its.end, its.dst);
        other.downcast::<Self>().is_some_and(|other| {
            self.is_anchored == other.is_anchored
                && (self.is_anchored || (self.start, self.begin) == (other.start, other.begin))
                && rest(self) == rest(other)
        })
    }

    fn describe(&self, spec: &Value, _zone: &Zone) -> String {
        describe_keys(spec, &KEYS)
    }

    fn start(&self, zone: &Zone) -> Option<Timestamp> {
        let midnight = self.start.and_time(NaiveTime::MIN);
        (!self.is_anchored).then(|| self.begin.unwrap_or_else(|| zone.instant(midnight)))
    }

    fn follows_zone(&self) -> bool {
        true
    }

    fn dst_gaps(&self, zone: &Zone, from: Timestamp, to: Timestamp, limit: usize) -> Vec<DstGap> {
        let to = self.end.map_or(to, |end| end.min(to));
        let from = self.begin.map_or(from, |begin| begin.max(from));
        let found = gaps(zone, from, to).filter_map(|gap| {
            let dates = gap.from.date().iter_days().take_while(|date| *date <= gap.until.date());
            let mut skipped = dates
                .filter(|date| self.has_date(*date))
                .map(|date| date.and_time(self.time))
                .filter(|reading| (gap.from..gap.until).contains(reading));
            let first = skipped.next()?;
            let count = 1 + u64::try_from(skipped.count()).unwrap_or(0);
            let fires_at_end = gap.until.time() == self.time && self.has_date(gap.until.date());
            let shifted = self.dst.shifts(gap.length()) && !fires_at_end;
            Some(gap.of_trigger(zone, first, count, shifted))
        });
        found.take(limit).collect()
    }
}

/// The range of dates whose occurrences can be at `at`: the date that the clock shows, and two days on either side,
/// because a clock can skip a whole day.
fn dates_near(zone: &Zone, at: Timestamp) -> Option<(NaiveDate, NaiveDate)> {
    let date = zone.to_local(at).date();
    Some((date.checked_sub_days(Days::new(2))?, date.checked_add_days(Days::new(2))?))
}

/// Months since the year 0.
fn month_number(date: NaiveDate) -> i64 {
    i64::from(date.year()) * 12 + i64::from(date.month0())
}

/// A day of a month that is counted since the year 0; `None` if the month does not have it.
fn day_of_month(month: i64, day: u32) -> Option<NaiveDate> {
    let year = i32::try_from(month.div_euclid(12)).ok().filter(|year| *year <= LAST_YEAR)?;
    NaiveDate::from_ymd_opt(year, u32::try_from(month.rem_euclid(12)).ok()? + 1, day)
}
