//! When a job is due.
//!
//! A [`Trigger`] is compiled from its JSON form, whose keys are those of APScheduler 3. It is
//! pure: it never reads a clock, and asking it twice gives the same answer. Jitter is not its
//! business: it names the grid of occurrences, and the scheduler delays them.

mod cron;
mod date;
mod given;
mod interval;

use chrono::TimeDelta;
use serde_json::Value;

use crate::clock::Timestamp;
use crate::invalid::Invalid;
use crate::zone::Zone;
use cron::Cron;
use date::Date;
use given::Given;
use interval::Interval;

/// A range of occurrences: the first, the last and how many there are, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The earliest occurrence.
    pub first: Timestamp,
    /// The latest occurrence.
    pub last: Timestamp,
    /// How many occurrences there are from first to last.
    pub count: u64,
}

/// The types of triggers, each with its own arithmetic.
#[derive(Debug, Clone)]
enum Kind {
    Date(Date),
    Interval(Interval),
    Cron(Box<Cron>),
    /// Stored, and no longer understood: it never fires.
    Unreadable,
}

/// When a job is due: what was given, and the compiled form that answers questions.
#[derive(Debug, Clone)]
pub struct Trigger {
    spec: Value,
    zone: Zone,
    jitter: TimeDelta,
    kind: Kind,
}

impl Trigger {
    /// Compiles the JSON form. `zone` holds where no `timezone` is given, and is then written into the spec.
    /// `anchor` is when the trigger was defined: an interval without `start_date` first fires one interval after it,
    /// a `date` without `run_date` at it. A trigger that can never fire is refused.
    pub fn parse(spec: &Value, zone: &Zone, anchor: Timestamp) -> Result<Self, Invalid> {
        let mut given = Given::new(spec, zone)?;
        let jitter = given.jitter()?;
        let kind = match given.kind() {
            "date" => Kind::Date(Date::parse(&mut given, anchor)?),
            "interval" => Kind::Interval(Interval::parse(&mut given, anchor)?),
            "cron" => Kind::Cron(Box::new(Cron::parse(&mut given, anchor)?)),
            other => {
                let message =
                    format!("unknown trigger type \"{other}\" (known: date, interval, cron)");
                return Err(Invalid::new("type", message));
            }
        };
        let (zone, spec) = given.finish()?;
        let trigger = Self { spec, zone, jitter, kind };
        if trigger.first().is_none() {
            return Err(Invalid::new("", "it can never fire: no time matches"));
        }
        Ok(trigger)
    }

    /// A stored trigger that can no longer be compiled: keeps what was given and never fires.
    pub fn unreadable(spec: Value) -> Self {
        Self { spec, zone: Zone::utc(), jitter: TimeDelta::zero(), kind: Kind::Unreadable }
    }

    /// The JSON form with its `timezone`: what is stored and shown, and what tells whether two triggers are the same.
    pub fn spec(&self) -> &Value {
        &self.spec
    }

    /// Whether it fires exactly once.
    pub fn is_one_shot(&self) -> bool {
        matches!(self.kind, Kind::Date(_))
    }

    /// The zone in which it is evaluated and shown.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// Upper bound of the delay of each occurrence; zero is none.
    pub fn jitter(&self) -> TimeDelta {
        self.jitter
    }

    /// The latest instant at which it may fire, if there is one.
    pub fn end(&self) -> Option<Timestamp> {
        match &self.kind {
            Kind::Date(date) => Some(date.at()),
            Kind::Interval(interval) => interval.end(),
            Kind::Cron(cron) => cron.end(),
            Kind::Unreadable => None,
        }
    }

    /// The very first occurrence.
    pub fn first(&self) -> Option<Timestamp> {
        match &self.kind {
            Kind::Date(date) => Some(date.at()),
            Kind::Interval(interval) => interval.first(),
            Kind::Cron(cron) => cron.first(&self.zone),
            Kind::Unreadable => None,
        }
    }

    /// The first occurrence at or after `at`.
    pub fn next_from(&self, at: Timestamp) -> Option<Timestamp> {
        match &self.kind {
            Kind::Date(date) => Some(date.at()).filter(|run| *run >= at),
            Kind::Interval(interval) => interval.next_from(at),
            Kind::Cron(cron) => cron.next_from(&self.zone, at),
            Kind::Unreadable => None,
        }
    }

    /// The first occurrence after `after`.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        self.next_from(after.checked_add_signed(TimeDelta::microseconds(1))?)
    }

    /// The occurrences with `from <= t <= to`, counted without walking through them; none if there are none.
    pub fn occurrences(&self, from: Timestamp, to: Timestamp) -> Option<Span> {
        let first = self.next_from(from).filter(|first| *first <= to)?;
        match &self.kind {
            Kind::Date(_) | Kind::Unreadable => Some(Span { first, last: first, count: 1 }),
            Kind::Interval(interval) => interval.occurrences(first, to),
            Kind::Cron(cron) => cron.occurrences(&self.zone, first, to),
        }
    }

    /// Whether it fires at exactly this instant, told without looking for other occurrences.
    pub fn matches(&self, at: Timestamp) -> bool {
        match &self.kind {
            Kind::Date(date) => date.at() == at,
            Kind::Interval(interval) => interval.matches(at),
            Kind::Cron(cron) => cron.matches(&self.zone, at),
            Kind::Unreadable => false,
        }
    }

    /// The trigger in a few words, for tables and logs.
    pub fn describe(&self) -> String {
        match &self.kind {
            Kind::Date(date) => {
                format!("at {}", self.zone.to_fixed(date.at()).format("%Y-%m-%d %H:%M:%S %:z"))
            }
            Kind::Interval(interval) => interval.describe(),
            Kind::Cron(_) => given::describe_fields(&self.spec, &cron::FIELD_NAMES),
            Kind::Unreadable => self.spec.to_string(),
        }
    }
}
