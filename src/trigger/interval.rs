//! Every so much elapsed time, on the grid of a start that never moves.
//!
//! All arithmetic is in whole microseconds from the start, so that nothing drifts: the
//! millionth occurrence lies exactly a million steps after it, whatever was late in between.

use chrono::TimeDelta;

use super::Span;
use super::spec::{MICROS_MAX, SpecReader};
use crate::clock::{MICROS_PER_SECOND, Timestamp};
use crate::invalid::Invalid;

/// Units, and their microseconds.
const UNITS: [(&str, i64); 6] = [
    ("weeks", 604_800 * MICROS_PER_SECOND),
    ("days", 86_400 * MICROS_PER_SECOND),
    ("hours", 3600 * MICROS_PER_SECOND),
    ("minutes", 60 * MICROS_PER_SECOND),
    ("seconds", MICROS_PER_SECOND),
    ("microseconds", 1),
];

/// A grid of instants.
#[derive(Debug, Clone)]
pub(super) struct Interval {
    /// Microseconds between two occurrences; at least 1.
    step: i64,
    /// The grid's first instant.
    start: Timestamp,
    /// Whether that comes from its definition, because no start was given.
    is_anchored: bool,
    end: Option<Timestamp>,
}

impl Interval {
    pub(super) fn parse(given: &mut SpecReader, anchor: Timestamp) -> Result<Self, Invalid> {
        let mut step = 0_i64;
        for (name, unit_micros) in UNITS {
            step = step.saturating_add(given.micros(name, unit_micros)?);
        }
        let (start, end) = given.range()?;
        if step <= 0 {
            // A key that is misspelt is the likelier fault.
            given.refuse_unknown()?;
            return Err(Invalid::new(
                "",
                "an interval is more than zero: give weeks, days, hours, minutes, seconds or microseconds",
            ));
        }
        if step > MICROS_MAX {
            return Err(Invalid::new("", "the interval is longer than a thousand years"));
        }
        let is_anchored = start.is_none();
        // Without a start the first occurrence is one interval after the definition, as APScheduler has it.
        let start = start.or_else(|| anchor.checked_add_signed(TimeDelta::microseconds(step)));
        let start =
            start.ok_or_else(|| Invalid::new("", "the interval goes beyond the calendar"))?;
        Ok(Self { step, start, is_anchored, end })
    }

    /// Whether another one means the same.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let same_start = self.is_anchored == other.is_anchored
            && (self.is_anchored || self.start == other.start);
        same_start && (self.step, self.end) == (other.step, other.end)
    }

    /// Whether every instant of the grid is a whole second.
    pub(super) fn is_whole_seconds(&self) -> bool {
        self.step % MICROS_PER_SECOND == 0 && self.start.timestamp_micros() % MICROS_PER_SECOND == 0
    }

    pub(super) fn end(&self) -> Option<Timestamp> {
        self.end
    }

    pub(super) fn first(&self) -> Option<Timestamp> {
        self.within(self.start)
    }

    pub(super) fn next_from(&self, at: Timestamp) -> Option<Timestamp> {
        let elapsed = self.micros_since_start(at);
        if elapsed <= 0 {
            return self.first();
        }
        let steps = elapsed.checked_add(self.step - 1)? / self.step;
        self.within(self.instant(steps)?)
    }

    pub(super) fn matches(&self, at: Timestamp) -> bool {
        let elapsed = self.micros_since_start(at);
        elapsed >= 0 && elapsed % self.step == 0 && self.within(at).is_some()
    }

    pub(super) fn last_until(&self, at: Timestamp) -> Option<Timestamp> {
        let elapsed = self.micros_since_start(self.end.map_or(at, |end| end.min(at)));
        if elapsed < 0 { None } else { self.instant(elapsed / self.step) }
    }

    /// The occurrences from `first`, which is one, up to `to`.
    pub(super) fn occurrences(&self, first: Timestamp, to: Timestamp) -> Option<Span> {
        let to = self.end.map_or(to, |end| end.min(to));
        let before = self.micros_since_start(first) / self.step;
        let until = self.micros_since_start(to) / self.step;
        let count = u64::try_from(until.checked_sub(before)?).ok()?.checked_add(1)?;
        Some(Span { first, last: self.instant(until)?, count })
    }

    pub(super) fn describe(&self) -> String {
        let (mut rest, mut parts) = (self.step, Vec::new());
        for (unit, micros) in [
            ("d", 86_400_000_000),
            ("h", 3_600_000_000),
            ("m", 60_000_000),
            ("s", 1_000_000),
            ("ms", 1000),
            ("µs", 1),
        ] {
            if rest >= micros {
                parts.push(format!("{}{unit}", rest / micros));
                rest %= micros;
            }
        }
        format!("every {}", parts.concat())
    }

    fn micros_since_start(&self, at: Timestamp) -> i64 {
        at.timestamp_micros().saturating_sub(self.start.timestamp_micros())
    }

    fn instant(&self, steps: i64) -> Option<Timestamp> {
        let micros = steps.checked_mul(self.step)?.checked_add(self.start.timestamp_micros())?;
        Timestamp::from_timestamp_micros(micros)
    }

    fn within(&self, at: Timestamp) -> Option<Timestamp> {
        Some(at).filter(|at| self.end.is_none_or(|end| *at <= end))
    }
}
