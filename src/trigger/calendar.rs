//! Every so many months or days of the calendar, at one time of day, counted from a start date.
//!
//! Months come first and keep the day of the month: a month without that day is passed over.
//! Weeks and days are added to what they give. So `months = 1` from January 31 is March 31, and
//! `months = 1, days = 1` is April 1.

use chrono::{Datelike, Days, NaiveDate, NaiveTime, TimeDelta};

use super::Span;
use super::dst::{Dst, Fold, Gap, Missing, gaps};
use super::given::Given;
use crate::clock::Timestamp;
use crate::invalid::Invalid;
use crate::zone::Zone;

/// Longest steps, a thousand years each: far from any overflow.
const YEARS_MAX: u32 = 1000;
const MONTHS_MAX: u32 = 12 * YEARS_MAX;
const WEEKS_MAX: u32 = 53 * YEARS_MAX;
const DAYS_MAX: u32 = 366 * YEARS_MAX;
/// The last year of the calendar.
const LAST_YEAR: i32 = 9999;

/// A series of dates, and a time of day.
#[derive(Debug, Clone)]
pub(super) struct CalendarInterval {
    months: u32,
    days: u32,
    time: NaiveTime,
    start: NaiveDate,
    end: Option<NaiveDate>,
    dst: Dst,
    /// When it was defined, if that is what it starts from: an earlier time of that day is past.
    anchor: Option<Timestamp>,
}

impl CalendarInterval {
    pub(super) fn parse(given: &mut Given, anchor: Timestamp) -> Result<Self, Invalid> {
        let months = 12 * given.whole("years", YEARS_MAX)? + given.whole("months", MONTHS_MAX)?;
        let days = 7 * given.whole("weeks", WEEKS_MAX)? + given.whole("days", DAYS_MAX)?;
        let (hour, minute) = (given.whole("hour", 23)?, given.whole("minute", 59)?);
        let time = NaiveTime::from_hms_opt(hour, minute, given.whole("second", 59)?);
        let time = time.ok_or_else(|| Invalid::new("hour", "is not a time of day"))?;
        let (start, end) = (given.date("start_date")?, given.date("end_date")?);
        let anchor = Some(anchor).filter(|_| start.is_none());
        let today = anchor.map(|anchor| given.zone().to_local(anchor).date());
        let start = start.or(today).unwrap_or_default();
        if end.is_some_and(|end| end < start) {
            return Err(Invalid::new("end_date", "is before start_date"));
        }
        let dst = Dst { gap: Gap::Skip, fold: Fold::First }.or_given(given)?;
        if months == 0 && days == 0 {
            // A key that is misspelt is the likelier fault.
            given.refuse_unknown()?;
            return Err(Invalid::new(
                "",
                "a calendarinterval is at least one day: give years, months, weeks or days",
            ));
        }
        Ok(Self { months, days, time, start, end, dst, anchor })
    }

    /// The last instant of the end date.
    pub(super) fn end(&self, zone: &Zone) -> Option<Timestamp> {
        let midnight = self.end?.succ_opt()?.and_time(NaiveTime::MIN);
        zone.instant(midnight).checked_sub_signed(TimeDelta::microseconds(1))
    }

    pub(super) fn first(&self, zone: &Zone) -> Option<Timestamp> {
        match self.anchor {
            Some(anchor) => self.next_from(zone, anchor),
            None => self.occurrences_from(zone, self.start).next(),
        }
    }

    pub(super) fn next_from(&self, zone: &Zone, at: Timestamp) -> Option<Timestamp> {
        self.occurrences_from(zone, near(zone, at)?.0).find(|found| *found >= at)
    }

    pub(super) fn last_until(&self, zone: &Zone, at: Timestamp) -> Option<Timestamp> {
        let mut date = near(zone, at)?.1;
        while let Some(found) = self.date_until(date) {
            let last = self
                .dst
                .instants(zone, found.and_time(self.time))
                .filter(|last| *last <= at)
                .last();
            if last.is_some() {
                return last.filter(|_| self.end.is_none_or(|end| found <= end));
            }
            date = found.pred_opt()?;
        }
        None
    }

    pub(super) fn matches(&self, zone: &Zone, at: Timestamp) -> bool {
        let Some((from, until)) = near(zone, at) else { return false };
        let dates = from.iter_days().take_while(|date| *date <= until);
        dates.filter(|date| self.has_date(*date)).any(|date| {
            self.dst.instants(zone, date.and_time(self.time)).any(|instant| instant == at)
        })
    }

    /// The occurrences from `first`, which is one, up to `to`: date by date.
    pub(super) fn occurrences(&self, zone: &Zone, first: Timestamp, to: Timestamp) -> Option<Span> {
        let from = near(zone, first)?.0;
        let all = self.occurrences_from(zone, from).skip_while(|at| *at < first);
        let (count, last) = all
            .take_while(|at| *at <= to)
            .fold((0_u64, first), |(count, _), at| (count.saturating_add(1), at));
        (count > 0).then_some(Span { first, last, count })
    }

    /// Dates whose time of day the clock skips, with `from < instant <= to`.
    pub(super) fn missing(
        &self,
        zone: &Zone,
        from: Timestamp,
        to: Timestamp,
    ) -> impl Iterator<Item = Missing> {
        gaps(zone, from, to).filter_map(move |gap| {
            let dates =
                gap.from.date().iter_days().take_while(move |date| *date <= gap.until.date());
            let mut skipped = dates
                .filter(|date| self.has_date(*date))
                .map(|date| date.and_time(self.time))
                .filter(|reading| (gap.from..gap.until).contains(reading));
            let first = skipped.next()?;
            let count = 1 + u64::try_from(skipped.count()).unwrap_or(0);
            Some(gap.missing(first, count, self.dst.gap))
        })
    }

    /// The instants of all dates from `date` on.
    fn occurrences_from(&self, zone: &Zone, date: NaiveDate) -> impl Iterator<Item = Timestamp> {
        let dates = std::iter::successors(self.date_from(date), |date| self.step(*date));
        dates
            .take_while(|date| self.end.is_none_or(|end| *date <= end))
            .flat_map(|date| self.dst.instants(zone, date.and_time(self.time)))
    }

    /// The date after a date of the series.
    fn step(&self, date: NaiveDate) -> Option<NaiveDate> {
        let months = i32::try_from(self.months).ok()?;
        let mut month = date.year() * 12 + date.month0_signed();
        let mut next = Some(date);
        if months > 0 {
            next = None;
            while next.is_none() {
                month += months;
                next = NaiveDate::from_ymd_opt(
                    Some(month.div_euclid(12)).filter(|year| *year <= LAST_YEAR)?,
                    u32::try_from(month.rem_euclid(12)).ok()? + 1,
                    date.day(),
                );
            }
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

    /// A date of the series at or before `until`, and near it: the start, where months and days are mixed, because
    /// then each date depends on the one before it.
    fn jump_until(&self, until: NaiveDate) -> NaiveDate {
        let days = until.signed_duration_since(self.start).num_days();
        if days <= 0 {
            return self.start;
        }
        let jumped = match (i64::from(self.months), i64::from(self.days)) {
            (0, step) => self.start.checked_add_signed(TimeDelta::days(days / step * step)),
            (step, 0) => self.jump_months(until, step),
            (_, _) => None,
        };
        jumped.unwrap_or(self.start)
    }

    /// The last date at or before `until` that is some steps of months after the start.
    fn jump_months(&self, until: NaiveDate, step: i64) -> Option<NaiveDate> {
        let month_of = |date: NaiveDate| i64::from(date.year() * 12 + date.month0_signed());
        let first = month_of(self.start);
        let mut month = first + (month_of(until) - first) / step * step;
        while month >= first {
            let year = i32::try_from(month.div_euclid(12)).ok()?;
            let month_of_year = u32::try_from(month.rem_euclid(12)).ok()? + 1;
            let date = NaiveDate::from_ymd_opt(year, month_of_year, self.start.day());
            if let Some(date) = date.filter(|date| *date <= until) {
                return Some(date);
            }
            month -= step;
        }
        None
    }

    /// Whether a date is one of the series: told by arithmetic, apart from the search.
    fn has_date(&self, date: NaiveDate) -> bool {
        let days = date.signed_duration_since(self.start).num_days();
        if days < 0 || self.end.is_some_and(|end| date > end) {
            return false;
        }
        let months = (date.year() - self.start.year()) * 12 + date.month0_signed()
            - self.start.month0_signed();
        match (self.months, self.days) {
            (0, step) => days % i64::from(step) == 0,
            (step, 0) => i64::from(months) % i64::from(step) == 0 && date.day() == self.start.day(),
            (_, _) => {
                let mut dates = std::iter::successors(Some(self.start), |date| self.step(*date));
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

/// Months from 0, for arithmetic with signs.
trait SignedMonth {
    fn month0_signed(&self) -> i32;
}

impl SignedMonth for NaiveDate {
    fn month0_signed(&self) -> i32 {
        i32::try_from(self.month0()).unwrap_or(0)
    }
}
