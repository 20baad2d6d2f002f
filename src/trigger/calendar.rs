//! Every N months or days of the calendar, at one time of day, counted from a start date.
//!
//! Months come first and keep the day of the month: a month without that day is passed over.
//! Weeks and days are added to what they give. So `months = 1` from January 31 is March 31, and
//! `months = 1, days = 1` is April 1.

use std::sync::OnceLock;

use chrono::{Datelike, Days, NaiveDate, NaiveTime, TimeDelta};

use super::Span;
use super::dst::{DstGap, DstPolicy, FoldPolicy, GapPolicy, gaps};
use super::spec::SpecReader;
use crate::clock::Timestamp;
use crate::invalid::Invalid;
use crate::zone::Zone;

/// Longest steps, a thousand years each: far from any overflow.
const YEARS_MAX: u32 = 1000;
const MONTHS_MAX: u32 = 12 * YEARS_MAX;
const WEEKS_MAX: u32 = 53 * YEARS_MAX;
const DAYS_MAX: u32 = 366 * YEARS_MAX;
/// Dates from one milestone to the next.
const MILESTONE_STEPS: usize = 64;
/// The last year of the calendar.
const LAST_YEAR: i32 = 9999;

/// A series of dates, and a time of day.
#[derive(Debug, Clone)]
pub(super) struct CalendarInterval {
    months: u32,
    days: u32,
    time: NaiveTime,
    start: NaiveDate,
    /// The first instant that counts, if a time of day was given or it starts from its definition: what the series has
    /// before it is past.
    begin: Option<Timestamp>,
    /// The last instant that counts.
    end: Option<Timestamp>,
    dst: DstPolicy,
    /// Whether it starts from its definition, because no start was given.
    is_anchored: bool,
    /// One of every N dates, where each depends on the one before it; found when first needed.
    milestones: OnceLock<Vec<NaiveDate>>,
}

impl CalendarInterval {
    pub(super) fn parse(given: &mut SpecReader, anchor: Timestamp) -> Result<Self, Invalid> {
        let months = 12 * given.whole("years", YEARS_MAX)? + given.whole("months", MONTHS_MAX)?;
        let days = 7 * given.whole("weeks", WEEKS_MAX)? + given.whole("days", DAYS_MAX)?;
        let (hour, minute) = (given.whole("hour", 23)?, given.whole("minute", 59)?);
        let time = NaiveTime::from_hms_opt(hour, minute, given.whole("second", 59)?);
        let time = time.ok_or_else(|| Invalid::new("hour", "is not a time of day"))?;
        let (given_start, end) = (given.start_day()?, given.end()?);
        let today = || (given.zone().to_local(anchor).date(), Some(anchor));
        let (start, begin) = given_start.unwrap_or_else(today);
        let midnight = given.zone().instant(start.and_time(NaiveTime::MIN));
        if given_start.is_some() && end.is_some_and(|end| end < begin.unwrap_or(midnight)) {
            return Err(Invalid::new("end_date", "is before start_date"));
        }
        let dst = DstPolicy { gap: GapPolicy::Skip, fold: FoldPolicy::First }.or_given(given)?;
        if months == 0 && days == 0 {
            // A key that is misspelt is the likelier fault.
            given.refuse_unknown()?;
            return Err(Invalid::new(
                "",
                "a calendarinterval is at least one day: give years, months, weeks or days",
            ));
        }
        let is_anchored = given_start.is_none();
        let milestones = OnceLock::new();
        Ok(Self { months, days, time, start, begin, end, dst, is_anchored, milestones })
    }

    /// Whether another one means the same.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let same_start = self.is_anchored == other.is_anchored
            && (self.is_anchored || (self.start, self.begin) == (other.start, other.begin));
        let rest = |its: &Self| (its.months, its.days, its.time, its.end, its.dst);
        same_start && rest(self) == rest(other)
    }

    /// The start that was given: an instant, or the beginning of a date.
    pub(super) fn start(&self, zone: &Zone) -> Option<Timestamp> {
        let midnight = self.start.and_time(NaiveTime::MIN);
        (!self.is_anchored).then(|| self.begin.unwrap_or_else(|| zone.instant(midnight)))
    }

    pub(super) fn end(&self) -> Option<Timestamp> {
        self.end
    }

    pub(super) fn first(&self, zone: &Zone) -> Option<Timestamp> {
        self.occurrences_from(zone, self.start).next()
    }

    pub(super) fn next_from(&self, zone: &Zone, at: Timestamp) -> Option<Timestamp> {
        self.occurrences_from(zone, near(zone, at)?.0).find(|found| *found >= at)
    }

    pub(super) fn last_until(&self, zone: &Zone, at: Timestamp) -> Option<Timestamp> {
        let at = self.end.map_or(at, |end| end.min(at));
        let mut date = near(zone, at)?.1;
        while let Some(found) = self.date_until(date) {
            let last = self
                .dst
                .instants(zone, found.and_time(self.time))
                .filter(|last| *last <= at)
                .last();
            if last.is_some() {
                return last.filter(|last| self.is_within(*last));
            }
            date = found.pred_opt()?;
        }
        None
    }

    pub(super) fn matches(&self, zone: &Zone, at: Timestamp) -> bool {
        let Some((from, until)) = near(zone, at).filter(|_| self.is_within(at)) else {
            return false;
        };
        let dates = from.iter_days().take_while(|date| *date <= until);
        dates.filter(|date| self.has_date(*date)).any(|date| {
            self.dst.instants(zone, date.and_time(self.time)).any(|instant| instant == at)
        })
    }

    /// The occurrences from `first`, which is one, up to `to`: date by date.
    pub(super) fn occurrences(&self, zone: &Zone, first: Timestamp, to: Timestamp) -> Option<Span> {
        let all = self.occurrences_from(zone, near(zone, first)?.0);
        let others = all.filter(|at| *at > first).take_while(|at| *at <= to);
        Some(others.fold(Span::one(first), |span, last| Span {
            last,
            count: span.count + 1,
            ..span
        }))
    }

    /// Dates whose time of day the clock skips, with `from < instant <= to`.
    pub(super) fn dst_gaps(
        &self,
        zone: &Zone,
        from: Timestamp,
        to: Timestamp,
    ) -> impl Iterator<Item = DstGap> {
        let to = self.end.map_or(to, |end| end.min(to));
        let from = self.begin.map_or(from, |begin| begin.max(from));
        gaps(zone, from, to).filter_map(move |gap| {
            let dates =
                gap.from.date().iter_days().take_while(move |date| *date <= gap.until.date());
            let mut skipped = dates
                .filter(|date| self.has_date(*date))
                .map(|date| date.and_time(self.time))
                .filter(|reading| (gap.from..gap.until).contains(reading));
            let first = skipped.next()?;
            let count = 1 + u64::try_from(skipped.count()).unwrap_or(0);
            let matches = gap.until.time() == self.time && self.has_date(gap.until.date());
            let shifted = self.dst.shifts(gap.length()) && !matches;
            Some(gap.of_trigger(zone, first, count, shifted))
        })
    }

    /// The instants of all dates from `date` on.
    fn occurrences_from(&self, zone: &Zone, date: NaiveDate) -> impl Iterator<Item = Timestamp> {
        let dates = std::iter::successors(self.date_from(date), |date| self.step(*date));
        let mut last = None;
        dates
            .flat_map(|date| self.dst.instants(zone, date.and_time(self.time)))
            // A day that the zone left out is shifted to the next one, which may be there itself.
            .filter(move |at| last.replace(*at) != Some(*at))
            .skip_while(|at| self.begin.is_some_and(|begin| *at < begin))
            .take_while(|at| self.end.is_none_or(|end| *at <= end))
    }

    /// Whether an instant is neither before the start nor after the end.
    fn is_within(&self, at: Timestamp) -> bool {
        self.begin.is_none_or(|begin| at >= begin) && self.end.is_none_or(|end| at <= end)
    }

    /// The date after a date of the series.
    fn step(&self, date: NaiveDate) -> Option<NaiveDate> {
        let mut month = month_number(date) + i64::from(self.months);
        let last_month = i64::from(LAST_YEAR) * 12 + 11;
        let mut next = day_of_month(month, date.day());
        // A month without that day is passed over.
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

    /// A date of the series at or before `until`, and near it.
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

    /// The last milestone at or before `until`. Where months and days are mixed each date depends on the one before it,
    /// so that there is no arithmetic that leads to it.
    fn milestone_until(&self, until: NaiveDate) -> Option<NaiveDate> {
        let milestones = self.milestones.get_or_init(|| {
            let dates = std::iter::successors(Some(self.start), |date| self.step(*date));
            dates.step_by(MILESTONE_STEPS).collect()
        });
        let after = milestones.partition_point(|date| *date <= until);
        milestones.get(after.checked_sub(1)?).copied()
    }

    /// The last date at or before `until` that is some steps of months after the start.
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

    /// Whether a date is one of the series: told by arithmetic, apart from the search.
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

/// The dates whose readings can be near an instant: the clock's own, and two on either side, for a clock that skips a
/// day.
fn near(zone: &Zone, at: Timestamp) -> Option<(NaiveDate, NaiveDate)> {
    let date = zone.to_local(at).date();
    Some((date.checked_sub_days(Days::new(2))?, date.checked_add_days(Days::new(2))?))
}

/// Months since the year 0.
fn month_number(date: NaiveDate) -> i64 {
    i64::from(date.year()) * 12 + i64::from(date.month0())
}

/// The day of a month, if the calendar has it.
fn day_of_month(month: i64, day: u32) -> Option<NaiveDate> {
    let year = i32::try_from(month.div_euclid(12)).ok().filter(|year| *year <= LAST_YEAR)?;
    NaiveDate::from_ymd_opt(year, u32::try_from(month.rem_euclid(12)).ok()? + 1, day)
}
