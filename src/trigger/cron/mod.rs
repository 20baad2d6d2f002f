//! Calendar patterns: an instant fires if and only if every field matches what the wall clock of
//! the zone shows.
//!
//! The fields come from APScheduler's keys or from a crontab expression and are compiled into the
//! same sets. The search runs in civil time over [`fields::CronFields`] and is then mapped to
//! instants, so that it never walks second by second. A reading that the clock skipped does not
//! exist, one that it showed twice happens twice, unless `dst_gap` and `dst_fold` say otherwise.

mod bits;
mod crontab;
mod dates;
mod expression;
mod fields;
mod mistake;
mod times;
mod years;

use chrono::{NaiveDateTime, TimeDelta, Timelike};

use super::Span;
use super::dst::{DstGap, DstPolicy, FoldPolicy, GapPolicy, gap_at, gaps};
use super::spec::SpecReader;
use crate::clock::Timestamp;
use crate::invalid::Invalid;
use crate::zone::{Local, Zone};
use fields::CronFields;

/// Successive matches that all lie in gaps, after which a search gives up: from the last exception on, the calendar and
/// the clocks' rules repeat within 400 years.
const GAPS_MAX: usize = 500;

/// A calendar pattern.
#[derive(Debug, Clone)]
pub(super) struct Cron {
    fields: CronFields,
    start: Option<Timestamp>,
    end: Option<Timestamp>,
    dst: DstPolicy,
    anchor: Timestamp,
}

/// A stretch of time without a change of the clock.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    from: Timestamp,
    /// Where it ends: the next change, or the end of the search. Not included.
    until: Timestamp,
}

/// The readings of a stretch that count, and the clock's distance from UTC.
#[derive(Debug, Clone, Copy)]
struct Readings {
    from: NaiveDateTime,
    until: NaiveDateTime,
    offset: TimeDelta,
}

impl Cron {
    /// A pattern of APScheduler's fields.
    pub(super) fn parse(given: &mut SpecReader, anchor: Timestamp) -> Result<Self, Invalid> {
        let (start, end) = given.range()?;
        let dst = DstPolicy { gap: GapPolicy::Skip, fold: FoldPolicy::Both }.or_given(given)?;
        Ok(Self { fields: CronFields::parse(given)?, start, end, dst, anchor })
    }

    /// A pattern in the form of crontab(5).
    pub(super) fn parse_crontab(
        given: &mut SpecReader,
        anchor: Timestamp,
    ) -> Result<Self, Invalid> {
        let (start, end) = given.range()?;
        let Some(text) = given.text("expression")? else {
            given.refuse_unknown()?;
            return Err(Invalid::new("expression", "missing, such as \"*/5 8-18 * * mon-fri\""));
        };
        let read = crontab::parse(&text).map_err(|why| Invalid::new("expression", why))?;
        let rule =
            if read.has_wildcard_time { DstPolicy::CRON_WILDCARD } else { DstPolicy::CRON_FIXED };
        Ok(Self { fields: read.fields, start, end, dst: rule.or_given(given)?, anchor })
    }

    /// Whether another one means the same.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        (self.start, self.end, self.dst) == (other.start, other.end, other.dst)
            && self.fields == other.fields
    }

    pub(super) fn start(&self) -> Option<Timestamp> {
        self.start
    }

    pub(super) fn end(&self) -> Option<Timestamp> {
        self.end
    }

    /// Why it can never fire, in which zone ever.
    pub(super) fn never_fires_reason(&self) -> Option<&'static str> {
        let nothing = self.fields.next(NaiveDateTime::default()).is_none();
        nothing.then_some("no date matches all the fields")
    }

    /// The first occurrence from the start on; without a start, from the definition on.
    pub(super) fn first(&self, zone: &Zone) -> Option<Timestamp> {
        self.next_from(zone, self.start.unwrap_or(self.anchor))
    }

    pub(super) fn matches(&self, zone: &Zone, at: Timestamp) -> bool {
        let inside =
            self.start.is_none_or(|start| at >= start) && self.end.is_none_or(|end| at <= end);
        let whole = at.timestamp_subsec_nanos() == 0;
        let local = zone.to_local(at);
        let is_repeated = match zone.resolve(local) {
            Local::Fold { first, second } => second == at && !self.dst.repeats(first, second),
            Local::Single(_) | Local::Gap { .. } => false,
        };
        inside
            && whole
            && (self.is_shifted_to(zone, at) || (self.fields.matches(local) && !is_repeated))
    }

    /// Whether `at` is the first instant after a gap from which a matching reading is shifted to it.
    fn is_shifted_to(&self, zone: &Zone, at: Timestamp) -> bool {
        self.dst.gap != GapPolicy::Skip
            && gap_at(zone, at).is_some_and(|skipped| {
                self.dst.shifts(skipped.length())
                    && self.fields.next(skipped.from).is_some_and(|reading| reading < skipped.until)
            })
    }

    pub(super) fn next_from(&self, zone: &Zone, at: Timestamp) -> Option<Timestamp> {
        let at = ceil_to_second(self.start.map_or(at, |start| start.max(at)))?;
        self.search(zone, at).filter(|found| self.end.is_none_or(|end| *found <= end))
    }

    /// The first occurrence at or after a whole second.
    fn search(&self, zone: &Zone, at: Timestamp) -> Option<Timestamp> {
        if self.is_shifted_to(zone, at) {
            return Some(at);
        }
        let local = zone.to_local(at);
        if let Local::Fold { first, second } = zone.resolve(local)
            && first == at
            && self.dst.repeats(first, second)
        {
            // In the first of two passes over the same readings: those behind come again.
            let until = zone.transition_after(at).filter(|until| *until <= second)?;
            let found = self.fields.next(local).map(|reading| zone.instant(reading));
            return found.filter(|found| *found < until).or_else(|| self.search_from(zone, until));
        }
        self.search_from(zone, at)
    }

    fn search_from(&self, zone: &Zone, at: Timestamp) -> Option<Timestamp> {
        let mut reading = self.fields.next(zone.to_local(at))?;
        let mut gaps = 0;
        while gaps < GAPS_MAX {
            match zone.resolve(reading) {
                Local::Single(found) => return Some(found),
                Local::Fold { first, .. } if first >= at => return Some(first),
                Local::Fold { first, second }
                    if second >= at && self.dst.repeats(first, second) =>
                {
                    return Some(second);
                }
                Local::Gap { end, length, .. } if self.dst.shifts(length) && end >= at => {
                    return Some(end);
                }
                Local::Gap { end, .. } => {
                    gaps += 1;
                    reading = self.fields.next(zone.to_local(end))?;
                }
                Local::Fold { .. } => {
                    reading = self.fields.next(reading + TimeDelta::seconds(1))?;
                }
            }
        }
        None
    }

    /// The last occurrence at or before `at`.
    pub(super) fn last_until(&self, zone: &Zone, at: Timestamp) -> Option<Timestamp> {
        let epoch = Timestamp::default().checked_sub_days(chrono::Days::new(2))?;
        let earliest = self.start.map_or(epoch, |start| start.max(epoch));
        let at = self.end.map_or(at, |end| end.min(at));
        let mut until = floor_to_second(at)?.checked_add_signed(TimeDelta::seconds(1))?;
        while until > earliest {
            let within = until.checked_sub_signed(TimeDelta::seconds(1))?;
            let from = zone.transition_until(within).map_or(epoch, |from| from.max(epoch));
            let stretch = Stretch { from, until };
            if let Some(last) = self.latest(zone, stretch, self.readings(zone, stretch)) {
                return Some(last).filter(|last| *last >= earliest);
            }
            // What is a day before the last reading that matches needs no look, whatever the clock did.
            let begin = zone.to_local(from).checked_add_signed(TimeDelta::days(1))?;
            let reading = self.fields.last_before(begin)?;
            until = from.min(reading.checked_add_signed(TimeDelta::days(2))?.and_utc());
        }
        None
    }

    /// The occurrences from `first`, which is one, up to `to`: counted by days, between changes of the clock.
    pub(super) fn occurrences(&self, zone: &Zone, first: Timestamp, to: Timestamp) -> Option<Span> {
        let to = self.end.map_or(to, |end| end.min(to));
        let until = floor_to_second(to)?.checked_add_signed(TimeDelta::seconds(1))?;
        let (mut count, mut last) = (0_u64, first);
        let mut stretch = Stretch { from: first, until: first };
        while stretch.until < until {
            stretch.from = stretch.until;
            stretch.until =
                zone.transition_after(stretch.from).map_or(until, |next| next.min(until));
            let readings = self.readings(zone, stretch);
            let shifted = u64::from(self.begins_with_a_shift(zone, stretch.from));
            count = count
                .saturating_add(self.fields.count(readings.from, readings.until))
                .saturating_add(shifted);
            last = self.latest(zone, stretch, readings).unwrap_or(last);
        }
        (count > 0).then_some(Span { first, last, count })
    }

    /// The readings of a stretch. The clock does not change within it, so neither does its distance from UTC.
    fn readings(&self, zone: &Zone, stretch: Stretch) -> Readings {
        let begin = zone.to_local(stretch.from);
        let offset = TimeDelta::seconds(zone.offset_seconds(stretch.from).into());
        let until = stretch.until.naive_utc() + offset;
        let from = match zone.resolve(begin) {
            // The second pass over readings of which only the first counts: they end where the fold does.
            Local::Fold { first, second }
                if second == stretch.from && !self.dst.repeats(first, second) =>
            {
                begin
                    + second.signed_duration_since(first).min(until - begin).max(TimeDelta::zero())
            }
            Local::Fold { .. } | Local::Single(_) | Local::Gap { .. } => begin,
        };
        Readings { from, until, offset }
    }

    /// The last occurrence of a stretch.
    fn latest(&self, zone: &Zone, stretch: Stretch, readings: Readings) -> Option<Timestamp> {
        let last = self.fields.last_before(readings.until).filter(|last| *last >= readings.from);
        let last = last.map(|last| (last - readings.offset).and_utc());
        last.or_else(|| Some(stretch.from).filter(|from| self.begins_with_a_shift(zone, *from)))
    }

    /// Whether what a gap has hidden is shifted to this instant, which would not fire otherwise.
    fn begins_with_a_shift(&self, zone: &Zone, at: Timestamp) -> bool {
        !self.fields.matches(zone.to_local(at)) && self.is_shifted_to(zone, at)
    }

    /// The readings that the clock skips, with `from < instant <= to`.
    pub(super) fn dst_gaps(
        &self,
        zone: &Zone,
        from: Timestamp,
        to: Timestamp,
    ) -> impl Iterator<Item = DstGap> {
        let to = self.end.map_or(to, |end| end.min(to));
        let from = self.start.map_or(from, |start| start.max(from));
        gaps(zone, from, to).filter_map(move |gap| {
            let first = self.fields.next(gap.from).filter(|first| *first < gap.until)?;
            let count = self.fields.count(gap.from, gap.until);
            let shifted = self.dst.shifts(gap.length()) && !self.fields.matches(gap.until);
            Some(gap.of_trigger(zone, first, count, shifted))
        })
    }
}

fn floor_to_second(at: Timestamp) -> Option<Timestamp> {
    at.with_nanosecond(0)
}

fn ceil_to_second(at: Timestamp) -> Option<Timestamp> {
    let floor = floor_to_second(at)?;
    if floor == at { Some(at) } else { floor.checked_add_signed(TimeDelta::seconds(1)) }
}
