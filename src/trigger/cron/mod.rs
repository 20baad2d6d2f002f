//! Calendar fields as APScheduler has them: an instant fires if and only if every field matches
//! what the wall clock of the zone shows.
//!
//! A reading that the clock skipped does not exist, one that it showed twice happens twice;
//! `dst_gap = "shift"` and `dst_fold = "first"` choose otherwise. The search runs in civil time
//! over [`fields::Fields`] and is then mapped to instants, so that it never walks second by second.

mod expression;
mod fields;

use chrono::{NaiveDateTime, TimeDelta, Timelike};

use super::Span;
use super::given::Given;
use crate::clock::Timestamp;
use crate::invalid::Invalid;
use crate::zone::{Local, Zone};
use fields::Fields;

pub(super) use fields::FIELD_NAMES;

/// What happens to a reading that the clock skips.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gap {
    Skip,
    Shift,
}

/// What happens to a reading that the clock shows twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fold {
    Both,
    First,
}

/// A calendar pattern.
#[derive(Debug, Clone)]
pub(super) struct Cron {
    fields: Fields,
    start: Option<Timestamp>,
    end: Option<Timestamp>,
    gap: Gap,
    fold: Fold,
    anchor: Timestamp,
}

/// A stretch of time without a change of the clock.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    from: Timestamp,
    /// Where it ends: the next change, or the end of the search. Not included.
    until: Timestamp,
}

impl Cron {
    pub(super) fn parse(given: &mut Given, anchor: Timestamp) -> Result<Self, Invalid> {
        let (start, end) = given.range()?;
        let gap = if given.word("dst_gap", ["skip", "shift"])? == "shift" {
            Gap::Shift
        } else {
            Gap::Skip
        };
        let fold = if given.word("dst_fold", ["both", "first"])? == "first" {
            Fold::First
        } else {
            Fold::Both
        };
        let fields = Fields::parse(given)?;
        let cron = Self { fields, start, end, gap, fold, anchor };
        // A pattern that matches once does so within a cycle of the calendar, so this tells for good.
        if cron.fields.next(NaiveDateTime::default()).is_none() {
            return Err(Invalid::new("", "it can never fire: no date matches all the fields"));
        }
        Ok(cron)
    }

    pub(super) fn end(&self) -> Option<Timestamp> {
        self.end
    }

    /// The first occurrence from the start on; without a start, since the epoch.
    pub(super) fn first(&self, zone: &Zone) -> Option<Timestamp> {
        let from_anchor = || self.next_from(zone, self.anchor);
        match self.start {
            Some(start) => self.next_from(zone, start),
            None => from_anchor().or_else(|| self.next_from(zone, Timestamp::default())),
        }
    }

    pub(super) fn matches(&self, zone: &Zone, at: Timestamp) -> bool {
        let inside =
            self.start.is_none_or(|start| at >= start) && self.end.is_none_or(|end| at <= end);
        let whole = at.timestamp_subsec_nanos() == 0;
        let local = zone.to_local(at);
        let again = matches!(zone.resolve(local), Local::Fold { second, .. } if second == at);
        let shifted = self.gap == Gap::Shift && self.ends_a_gap_with_a_match(zone, at);
        inside
            && whole
            && (shifted || (self.fields.matches(local) && !(again && self.fold == Fold::First)))
    }

    /// Whether `at` is the first instant after a gap in which a reading matches.
    fn ends_a_gap_with_a_match(&self, zone: &Zone, at: Timestamp) -> bool {
        let Some(before) = at.checked_sub_signed(TimeDelta::seconds(1)) else { return false };
        let last_before = zone.to_local(before);
        let first_after = zone.to_local(at);
        let begin = last_before + TimeDelta::seconds(1);
        begin < first_after && self.fields.next(begin).is_some_and(|reading| reading < first_after)
    }

    pub(super) fn next_from(&self, zone: &Zone, at: Timestamp) -> Option<Timestamp> {
        let at = ceil_to_second(self.start.map_or(at, |start| start.max(at)))?;
        self.search(zone, at).filter(|found| self.end.is_none_or(|end| *found <= end))
    }

    /// The first occurrence at or after a whole second.
    fn search(&self, zone: &Zone, at: Timestamp) -> Option<Timestamp> {
        if self.gap == Gap::Shift && self.ends_a_gap_with_a_match(zone, at) {
            return Some(at);
        }
        let local = zone.to_local(at);
        if let Local::Fold { first, second } = zone.resolve(local)
            && first == at
            && self.fold == Fold::Both
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
        loop {
            match zone.resolve(reading) {
                Local::Single(found) => return Some(found),
                Local::Fold { first, .. } if first >= at => return Some(first),
                Local::Fold { second, .. } if second >= at && self.fold == Fold::Both => {
                    return Some(second);
                }
                Local::Gap { end, .. } if self.gap == Gap::Shift && end >= at => return Some(end),
                Local::Gap { end, .. } => reading = self.fields.next(zone.to_local(end))?,
                Local::Fold { .. } => {
                    reading = self.fields.next(reading + TimeDelta::seconds(1))?;
                }
            }
        }
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
            let (more, latest) = self.count(zone, stretch);
            count = count.saturating_add(more);
            last = latest.unwrap_or(last);
        }
        (count > 0).then_some(Span { first, last, count })
    }

    /// How many occurrences a stretch has, and the latest.
    fn count(&self, zone: &Zone, stretch: Stretch) -> (u64, Option<Timestamp>) {
        let begin = zone.to_local(stretch.from);
        let offset = TimeDelta::seconds(zone.offset_seconds(stretch.from).into());
        // The clock does not change within the stretch, so neither does its distance from UTC.
        let end = stretch.until.naive_utc() + offset;
        let begin_counted = match zone.resolve(begin) {
            // The second pass over readings of which only the first counts: they end where the fold does.
            Local::Fold { first, second } if second == stretch.from && self.fold == Fold::First => {
                begin + second.signed_duration_since(first).min(end - begin).max(TimeDelta::zero())
            }
            Local::Fold { .. } | Local::Single(_) | Local::Gap { .. } => begin,
        };
        let mut count = self.fields.count(begin_counted, end);
        let mut last = self.fields.last_before(end).filter(|last| *last >= begin_counted);
        let shifted = self.gap == Gap::Shift
            && !self.fields.matches(begin)
            && self.ends_a_gap_with_a_match(zone, stretch.from);
        if shifted {
            count = count.saturating_add(1);
            last = last.or(Some(begin));
        }
        (count, last.map(|last| (last - offset).and_utc()))
    }
}

fn floor_to_second(at: Timestamp) -> Option<Timestamp> {
    at.with_nanosecond(0)
}

fn ceil_to_second(at: Timestamp) -> Option<Timestamp> {
    let floor = floor_to_second(at)?;
    if floor == at { Some(at) } else { floor.checked_add_signed(TimeDelta::seconds(1)) }
}
