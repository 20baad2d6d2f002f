//! `interval`: equal steps of elapsed time from a start that never moves.
//!
//! All arithmetic is in whole microseconds from the start, so nothing drifts: the millionth occurrence is exactly a
//! million steps after the start, however late the runs in between were.

use chrono::TimeDelta;
use serde_json::Value;

use super::schedule::{Schedule, Span};
use super::spec::{MICROS_MAX, SpecReader};
use crate::clock::{MICROS_PER_SECOND, Timestamp};
use crate::invalid::Invalid;
use crate::zone::Zone;

/// The units of the step, in microseconds.
const UNITS: [(&str, i64); 6] = [
    ("weeks", 604_800 * MICROS_PER_SECOND),
    ("days", 86_400 * MICROS_PER_SECOND),
    ("hours", 3600 * MICROS_PER_SECOND),
    ("minutes", 60 * MICROS_PER_SECOND),
    ("seconds", MICROS_PER_SECOND),
    ("microseconds", 1),
];

#[derive(Debug)]
pub(super) struct Interval {
    /// Microseconds between two occurrences; at least 1.
    step: i64,
    start: Timestamp,
    /// Whether the start follows from the definition, because none was given.
    is_anchored: bool,
    end: Option<Timestamp>,
}

impl Interval {
    pub(super) fn parse(spec: &mut SpecReader) -> Result<Self, Invalid> {
        let mut step = 0_i64;
        for (name, unit_micros) in UNITS {
            step = step.saturating_add(spec.micros(name, unit_micros)?);
        }
        let (start, end) = spec.range()?;
        if step <= 0 {
            spec.refuse_unknown()?;
            return Err(Invalid::new(
                "",
                "an interval is more than zero: give weeks, days, hours, minutes, seconds or microseconds",
            ));
        }
        if step > MICROS_MAX {
            return Err(Invalid::new("", "the interval is longer than a thousand years"));
        }
        let is_anchored = start.is_none();
        // Without a start, the first occurrence is one interval after the definition, as in APScheduler.
        let start =
            start.or_else(|| spec.anchor().checked_add_signed(TimeDelta::microseconds(step)));
        let start =
            start.ok_or_else(|| Invalid::new("", "the interval goes beyond the calendar"))?;
        Ok(Self { step, start, is_anchored, end })
    }

    fn micros_since_start(&self, at: Timestamp) -> i64 {
        at.timestamp_micros().saturating_sub(self.start.timestamp_micros())
    }

    /// The instant that is this many steps after the start.
    fn instant(&self, steps: i64) -> Option<Timestamp> {
        let micros = steps.checked_mul(self.step)?.checked_add(self.start.timestamp_micros())?;
        Timestamp::from_timestamp_micros(micros)
    }

    /// `at`, unless it is after the end.
    fn up_to_end(&self, at: Timestamp) -> Option<Timestamp> {
        Some(at).filter(|at| self.end.is_none_or(|end| *at <= end))
    }
}

impl Schedule for Interval {
    fn first(&self, _zone: &Zone) -> Option<Timestamp> {
        self.up_to_end(self.start)
    }

    fn end(&self) -> Option<Timestamp> {
        self.end
    }

    fn next_from(&self, _zone: &Zone, at: Timestamp) -> Option<Timestamp> {
        let elapsed = self.micros_since_start(at);
        if elapsed <= 0 {
            return self.up_to_end(self.start);
        }
        let steps = elapsed.checked_add(self.step - 1)? / self.step;
        self.up_to_end(self.instant(steps)?)
    }

    fn last_until(&self, _zone: &Zone, at: Timestamp) -> Option<Timestamp> {
        let elapsed = self.micros_since_start(self.end.map_or(at, |end| end.min(at)));
        if elapsed < 0 { None } else { self.instant(elapsed / self.step) }
    }

    fn matches(&self, _zone: &Zone, at: Timestamp) -> bool {
        let elapsed = self.micros_since_start(at);
        elapsed >= 0 && elapsed % self.step == 0 && self.up_to_end(at).is_some()
    }

    fn occurrences(&self, _zone: &Zone, first: Timestamp, to: Timestamp) -> Option<Span> {
        let to = self.end.map_or(to, |end| end.min(to));
        let before = self.micros_since_start(first) / self.step;
        let until = self.micros_since_start(to) / self.step;
        let count = u64::try_from(until.checked_sub(before)?).ok()?.checked_add(1)?;
        Some(Span { first, last: self.instant(until)?, count })
    }

    fn is_like(&self, other: &dyn Schedule) -> bool {
        other.downcast::<Self>().is_some_and(|other| {
            self.is_anchored == other.is_anchored
                && (self.is_anchored || self.start == other.start)
                && (self.step, self.end) == (other.step, other.end)
        })
    }

    fn describe(&self, _spec: &Value, _zone: &Zone) -> String {
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

    fn is_whole_seconds(&self) -> bool {
        self.step % MICROS_PER_SECOND == 0 && self.start.timestamp_micros() % MICROS_PER_SECOND == 0
    }
}
