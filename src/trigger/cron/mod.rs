//! `cron` and `crontab`: calendar patterns. An instant fires if and only if the reading of the zone's wall clock matches
//! every field.
//!
//! The fields of both types are compiled into the same sets ([`fields::CronFields`]): `cron` has APScheduler's keys, each
//! parsed by [`field_parser`], and `crontab` one expression, parsed by [`crontab`]. The search runs over readings of the clock
//! and maps them to instants, so it never goes second by second. A reading that the clock skips does not exist, and one
//! that it shows twice exists twice, unless the trigger's [`DstPolicy`] says otherwise.

mod bits;
mod crontab;
mod crontab_hints;
mod dates;
mod field_hints;
mod field_parser;
mod fields;
mod times;
mod years;

use chrono::{NaiveDateTime, TimeDelta, Timelike};
use serde_json::Value;

use super::dst::{DstGap, DstPolicy, FoldPolicy, GapPolicy, gap_at, gaps};
use super::schedule::{Schedule, Span};
use super::spec::{SpecReader, describe_keys};
use crate::clock::Timestamp;
use crate::invalid::{Invalid, quoted};
use crate::zone::{Local, Zone};
use fields::{CronFields, FIELD_NAMES};

/// The number of successive matches in gaps after which a search gives up. After the last exception the calendar and
/// the clock's rules repeat every 400 years, so a pattern that had only gaps so far will have no match.
const GAPS_MAX: usize = 500;

/// A calendar pattern with a range of time.
#[derive(Debug)]
pub(super) struct Cron {
    fields: CronFields,
    start: Option<Timestamp>,
    end: Option<Timestamp>,
    dst: DstPolicy,
    anchor: Timestamp,
}

/// A span of time without a change of the clock.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    from: Timestamp,
    /// The next change of the clock, or the end of the search. Not included.
    until: Timestamp,
}

/// The readings of a stretch that count, and the clock's offset from UTC in it.
#[derive(Debug, Clone, Copy)]
struct Readings {
    from: NaiveDateTime,
    until: NaiveDateTime,
    offset: TimeDelta,
}

impl Cron {
    /// Reads the fields of APScheduler.
    pub(super) fn parse_fields(spec: &mut SpecReader) -> Result<Self, Invalid> {
        let (start, end) = spec.range()?;
        let default = DstPolicy { gap: GapPolicy::Skip, fold: FoldPolicy::Both };
        let dst = spec.dst_policy(default)?;
        let fields = CronFields::parse(spec)?;
        Ok(Self { fields, start, end, dst, anchor: spec.anchor() })
    }

    /// Reads an expression of crontab(5). An error says what to write instead, if the mistake is a known one.
    pub(super) fn parse_crontab(spec: &mut SpecReader) -> Result<Self, Invalid> {
        let (start, end) = spec.range()?;
        let Some(text) = spec.text("expression")? else {
            spec.refuse_unknown()?;
            return Err(Invalid::new("expression", "missing, such as \"*/5 8-18 * * mon-fri\""));
        };
        let parsed = crontab::parse(&text).map_err(|error| {
            let text = text.trim();
            let hint = crontab_hints::hint(text).map(|hint| format!("{}: {hint}", quoted(text)));
            Invalid::new("expression", hint.unwrap_or(error))
        })?;
        let default =
            if parsed.has_wildcard_time { DstPolicy::CRON_WILDCARD } else { DstPolicy::CRON_FIXED };
        let dst = spec.dst_policy(default)?;
        Ok(Self { fields: parsed.fields, start, end, dst, anchor: spec.anchor() })
    }

    /// Whether `at` is the first instant after a gap, and a matching reading in the gap is shifted to it.
    fn is_shifted_to(&self, zone: &Zone, at: Timestamp) -> bool {
        self.dst.gap != GapPolicy::Skip
            && gap_at(zone, at).is_some_and(|gap| {
                self.dst.shifts(gap.length())
                    && self.fields.next(gap.from).is_some_and(|reading| reading < gap.until)
            })
    }

    /// Whether `at` fires only because a reading in a gap is shifted to it.
    fn fires_by_shift(&self, zone: &Zone, at: Timestamp) -> bool {
        !self.fields.matches(zone.to_local(at)) && self.is_shifted_to(zone, at)
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
            // This is the first of two passes over the same readings: those before `local` come again.
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

    /// The readings of a stretch. The clock does not change within it, so its offset from UTC is constant.
    fn readings(&self, zone: &Zone, stretch: Stretch) -> Readings {
        let begin = zone.to_local(stretch.from);
        let offset = TimeDelta::seconds(zone.offset_seconds(stretch.from).into());
        let until = stretch.until.naive_utc() + offset;
        let from = match zone.resolve(begin) {
            // The stretch begins with the second pass over readings of which only the first counts: skip the fold.
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
    fn last_in(&self, zone: &Zone, stretch: Stretch, readings: Readings) -> Option<Timestamp> {
        let last = self.fields.last_before(readings.until).filter(|last| *last >= readings.from);
        let last = last.map(|last| (last - readings.offset).and_utc());
        last.or_else(|| Some(stretch.from).filter(|from| self.fires_by_shift(zone, *from)))
    }
}

impl Schedule for Cron {
    fn first(&self, zone: &Zone) -> Option<Timestamp> {
        self.next_from(zone, self.start.unwrap_or(self.anchor))
    }

    fn end(&self) -> Option<Timestamp> {
        self.end
    }

    fn next_from(&self, zone: &Zone, at: Timestamp) -> Option<Timestamp> {
        let at = ceil_to_second(self.start.map_or(at, |start| start.max(at)))?;
        self.search(zone, at).filter(|found| self.end.is_none_or(|end| *found <= end))
    }

    fn last_until(&self, zone: &Zone, at: Timestamp) -> Option<Timestamp> {
        let epoch = Timestamp::default().checked_sub_days(chrono::Days::new(2))?;
        let earliest = self.start.map_or(epoch, |start| start.max(epoch));
        let at = self.end.map_or(at, |end| end.min(at));
        let mut until = floor_to_second(at)?.checked_add_signed(TimeDelta::seconds(1))?;
        while until > earliest {
            let within = until.checked_sub_signed(TimeDelta::seconds(1))?;
            let from = zone.transition_until(within).map_or(epoch, |from| from.max(epoch));
            let stretch = Stretch { from, until };
            if let Some(last) = self.last_in(zone, stretch, self.readings(zone, stretch)) {
                return Some(last).filter(|last| *last >= earliest);
            }
            // There is no match between the last matching reading and this stretch. Go on a day or two after it, which
            // is later than any change of the clock can move it.
            let begin = zone.to_local(from).checked_add_signed(TimeDelta::days(1))?;
            let reading = self.fields.last_before(begin)?;
            until = from.min(reading.checked_add_signed(TimeDelta::days(2))?.and_utc());
        }
        None
    }

    fn matches(&self, zone: &Zone, at: Timestamp) -> bool {
        let is_in_range =
            self.start.is_none_or(|start| at >= start) && self.end.is_none_or(|end| at <= end);
        let is_whole = at.timestamp_subsec_nanos() == 0;
        let local = zone.to_local(at);
        let is_dropped_repeat = match zone.resolve(local) {
            Local::Fold { first, second } => second == at && !self.dst.repeats(first, second),
            Local::Single(_) | Local::Gap { .. } => false,
        };
        is_in_range
            && is_whole
            && (self.is_shifted_to(zone, at) || (self.fields.matches(local) && !is_dropped_repeat))
    }

    /// Counts by days, between changes of the clock.
    fn occurrences(&self, zone: &Zone, first: Timestamp, to: Timestamp) -> Option<Span> {
        let to = self.end.map_or(to, |end| end.min(to));
        let until = floor_to_second(to)?.checked_add_signed(TimeDelta::seconds(1))?;
        let (mut count, mut last) = (0_u64, first);
        let mut stretch = Stretch { from: first, until: first };
        while stretch.until < until {
            stretch.from = stretch.until;
            stretch.until =
                zone.transition_after(stretch.from).map_or(until, |next| next.min(until));
            let readings = self.readings(zone, stretch);
            let shifted = u64::from(self.fires_by_shift(zone, stretch.from));
            count = count
                .saturating_add(self.fields.count(readings.from, readings.until))
                .saturating_add(shifted);
            last = self.last_in(zone, stretch, readings).unwrap_or(last);
        }
        (count > 0).then_some(Span { first, last, count })
    }

    fn is_like(&self, other: &dyn Schedule) -> bool {
        other.downcast::<Self>().is_some_and(|other| {
            (self.start, self.end, self.dst) == (other.start, other.end, other.dst)
                && self.fields == other.fields
        })
    }

    fn describe(&self, spec: &Value, _zone: &Zone) -> String {
        let keys: Vec<&str> = std::iter::once("expression").chain(FIELD_NAMES).collect();
        describe_keys(spec, &keys)
    }

    fn start(&self, _zone: &Zone) -> Option<Timestamp> {
        self.start
    }

    fn never_fires_reason(&self) -> Option<&'static str> {
        let nothing = self.fields.next(NaiveDateTime::default()).is_none();
        nothing.then_some("no date matches all the fields")
    }

    fn follows_zone(&self) -> bool {
        true
    }

    fn dst_gaps(&self, zone: &Zone, from: Timestamp, to: Timestamp, limit: usize) -> Vec<DstGap> {
        let to = self.end.map_or(to, |end| end.min(to));
        let from = self.start.map_or(from, |start| start.max(from));
        let found = gaps(zone, from, to).filter_map(|gap| {
            let first = self.fields.next(gap.from).filter(|first| *first < gap.until)?;
            let count = self.fields.count(gap.from, gap.until);
            let shifted = self.dst.shifts(gap.length()) && !self.fields.matches(gap.until);
            Some(gap.of_trigger(zone, first, count, shifted))
        });
        found.take(limit).collect()
    }
}

fn floor_to_second(at: Timestamp) -> Option<Timestamp> {
    at.with_nanosecond(0)
}

fn ceil_to_second(at: Timestamp) -> Option<Timestamp> {
    let floor = floor_to_second(at)?;
    if floor == at { Some(at) } else { floor.checked_add_signed(TimeDelta::seconds(1)) }
}
