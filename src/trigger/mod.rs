//! When a job is due.
//!
//! A [`Trigger`] is compiled from its JSON form, whose keys are those of APScheduler 3. It is
//! pure: it never reads a clock, and asking it twice gives the same answer. Jitter is not its
//! business: it names the grid of occurrences, and the scheduler delays them.

mod and;
mod calendar;
mod combine;
mod cron;
mod date;
mod dst;
mod given;
mod interval;
mod likeness;
mod or;

pub use dst::Missing;

use chrono::{Datelike, TimeDelta};
use serde_json::Value;

use crate::clock::Timestamp;
use crate::invalid::{Invalid, quoted};
use crate::zone::Zone;
use and::And;
use calendar::CalendarInterval;
use combine::Place;
use cron::Cron;
use date::Date;
use given::Given;
use interval::Interval;
use or::Or;

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

impl Span {
    /// A single occurrence.
    pub fn one(at: Timestamp) -> Self {
        Self { first: at, last: at, count: 1 }
    }
}

/// Types of triggers, as they are spelled.
const TYPES: [&str; 7] = ["date", "interval", "cron", "crontab", "calendarinterval", "and", "or"];

/// The types of triggers, each with its own arithmetic.
#[derive(Debug, Clone)]
enum Kind {
    Date(Date),
    Interval(Interval),
    /// Of `cron` and `crontab` alike.
    Cron(Box<Cron>),
    Calendar(CalendarInterval),
    And(And),
    Or(Or),
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
    /// Compiles the JSON form, and refuses a trigger that can never fire. `zone` holds where no `timezone` is given,
    /// and is then written into the spec. `anchor` is when the trigger was defined: an interval without `start_date`
    /// first fires one interval after it, a `date` without `run_date` at it.
    pub fn parse(spec: &Value, zone: &Zone, anchor: Timestamp) -> Result<Self, Invalid> {
        Self::compile(spec, zone, anchor)?.unless_never()
    }

    /// The trigger, unless it can never fire.
    pub fn unless_never(self) -> Result<Self, Invalid> {
        match self.why_never() {
            Some(why) => Err(Invalid::new("", why)),
            None => Ok(self),
        }
    }

    /// The same for a trigger that may be one that can never fire.
    pub fn compile(spec: &Value, zone: &Zone, anchor: Timestamp) -> Result<Self, Invalid> {
        Self::compile_at(spec, zone, anchor, Place::default())
    }

    /// The same for one that was accepted before: whether an `and` is out of reach is not asked again at every reading.
    pub fn stored(spec: &Value, zone: &Zone, anchor: Timestamp) -> Result<Self, Invalid> {
        Self::compile_at(spec, zone, anchor, Place::of_stored())
    }

    fn compile_at(
        spec: &Value,
        zone: &Zone,
        anchor: Timestamp,
        place: Place,
    ) -> Result<Self, Invalid> {
        let mut given = Given::new(spec, zone)?;
        let jitter = given.jitter()?;
        let kind = match given.kind() {
            "date" => Kind::Date(Date::parse(&mut given, anchor)?),
            "interval" => Kind::Interval(Interval::parse(&mut given, anchor)?),
            "cron" => Kind::Cron(Box::new(Cron::parse(&mut given, anchor)?)),
            "crontab" => Kind::Cron(Box::new(Cron::parse_crontab(&mut given, anchor)?)),
            "calendarinterval" => Kind::Calendar(CalendarInterval::parse(&mut given, anchor)?),
            "and" => Kind::And(combine::and(&mut given, anchor, place)?),
            "or" => Kind::Or(combine::or(&mut given, anchor, place)?),
            other => {
                let known = TYPES.join(", ");
                let message = format!("unknown trigger type {} (known: {known})", quoted(other));
                return Err(Invalid::new("type", message));
            }
        };
        let (zone, spec) = given.finish()?;
        Ok(Self { spec, zone, jitter, kind })
    }

    /// Whether there is a type of triggers of that name.
    pub fn is_type(word: &str) -> bool {
        TYPES.contains(&word)
    }

    /// A stored trigger that can no longer be compiled: keeps what was given and never fires.
    pub fn unreadable(spec: Value) -> Self {
        Self { spec, zone: Zone::utc(), jitter: TimeDelta::zero(), kind: Kind::Unreadable }
    }

    /// The JSON form with its `timezone`: what is stored and shown.
    pub fn spec(&self) -> &Value {
        &self.spec
    }

    /// How many simple triggers it is made of: 1, unless it is an `and` or an `or`.
    fn leaves(&self) -> usize {
        match &self.kind {
            Kind::And(and) => and.members().iter().map(Self::leaves).sum(),
            Kind::Or(or) => or.members().iter().map(Self::leaves).sum(),
            Kind::Date(_)
            | Kind::Interval(_)
            | Kind::Cron(_)
            | Kind::Calendar(_)
            | Kind::Unreadable => 1,
        }
    }

    /// Why it has no occurrence at all, in the past or in the future, if it has none.
    pub fn why_never(&self) -> Option<String> {
        let fields = match &self.kind {
            Kind::Cron(cron) => cron.why_never(),
            Kind::Date(_)
            | Kind::Interval(_)
            | Kind::Calendar(_)
            | Kind::And(_)
            | Kind::Or(_)
            | Kind::Unreadable => None,
        };
        let first = || self.first().or_else(|| self.next_from(Timestamp::default()));
        let why = match (fields, self.end()) {
            (Some(why), _) => why,
            (None, _) if first().is_some() => return None,
            (None, Some(_)) => "no time up to its end matches",
            (None, None) => "no time matches",
        };
        Some(format!("it can never fire: {why}"))
    }

    /// Why a job that is defined at `now` would not fire, if it would not: it never does, or its last occurrence has
    /// passed. A one-shot that has passed runs late.
    pub fn why_over(&self, now: Timestamp) -> Option<String> {
        let never = self.why_never();
        if never.is_some() || self.is_one_shot() || self.next_from(now).is_some() {
            return never;
        }
        let last = self.last_until(now).map(|last| {
            let last = self.zone.to_fixed(last).format("%Y-%m-%d %H:%M:%S %:z");
            format!(": its last occurrence was {last}")
        });
        Some(format!("it can never fire again{}", last.unwrap_or_default()))
    }

    /// Whether it fires at most once.
    pub fn is_one_shot(&self) -> bool {
        match &self.kind {
            Kind::Date(_) => true,
            Kind::And(and) => and.members().iter().any(Self::is_one_shot),
            Kind::Interval(_)
            | Kind::Cron(_)
            | Kind::Calendar(_)
            | Kind::Or(_)
            | Kind::Unreadable => false,
        }
    }

    /// The zone in which it is evaluated and shown.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// Upper bound of the delay of every occurrence; zero is none.
    pub fn jitter(&self) -> TimeDelta {
        self.jitter + self.union().map_or_else(TimeDelta::zero, Or::jitter)
    }

    /// Upper bound of the delay of the occurrence at `at`.
    pub fn jitter_at(&self, at: Timestamp) -> TimeDelta {
        self.jitter + self.union().map_or_else(TimeDelta::zero, |or| or.jitter_at(at))
    }

    /// The latest instant to which jitter may delay the occurrence at `at`: it lies before the next occurrence, and not
    /// beyond the end.
    pub fn latest_start(&self, at: Timestamp) -> Timestamp {
        let jitter = self.jitter_at(at);
        if jitter <= TimeDelta::zero() {
            return at;
        }
        let before_next = self.next_after(at).map(|next| next - TimeDelta::microseconds(1));
        let delayed = at.checked_add_signed(jitter);
        [delayed, before_next, self.end()].into_iter().flatten().min().map_or(at, |end| end.max(at))
    }

    /// An `or`, whose members may have a jitter of their own.
    fn union(&self) -> Option<&Or> {
        match &self.kind {
            Kind::Or(or) => Some(or),
            Kind::Date(_)
            | Kind::Interval(_)
            | Kind::Cron(_)
            | Kind::Calendar(_)
            | Kind::And(_)
            | Kind::Unreadable => None,
        }
    }

    /// The instant from which on a calendar trigger may fire, if it was given.
    pub fn start(&self) -> Option<Timestamp> {
        match &self.kind {
            Kind::Cron(cron) => cron.start(),
            Kind::Calendar(calendar) => calendar.start(&self.zone),
            Kind::Date(_) | Kind::Interval(_) | Kind::And(_) | Kind::Or(_) | Kind::Unreadable => {
                None
            }
        }
    }

    /// The latest instant at which it may fire, if there is one.
    pub fn end(&self) -> Option<Timestamp> {
        match &self.kind {
            Kind::Date(date) => Some(date.at()),
            Kind::Interval(interval) => interval.end(),
            Kind::Cron(cron) => cron.end(),
            Kind::Calendar(calendar) => calendar.end(),
            Kind::And(and) => and.end(),
            Kind::Or(or) => or.end(),
            Kind::Unreadable => None,
        }
    }

    /// The very first occurrence: from its own start on; where it has none, from its definition on.
    pub fn first(&self) -> Option<Timestamp> {
        match &self.kind {
            Kind::Date(date) => Some(date.at()),
            Kind::Interval(interval) => interval.first(),
            Kind::Cron(cron) => cron.first(&self.zone),
            Kind::Calendar(calendar) => calendar.first(&self.zone),
            Kind::And(and) => and.first(),
            Kind::Or(or) => or.first(),
            Kind::Unreadable => None,
        }
    }

    /// The first occurrence at or after `at`. The last of all are in the year 9999.
    pub fn next_from(&self, at: Timestamp) -> Option<Timestamp> {
        let next = match &self.kind {
            Kind::Date(date) => Some(date.at()).filter(|run| *run >= at),
            Kind::Interval(interval) => interval.next_from(at),
            Kind::Cron(cron) => cron.next_from(&self.zone, at),
            Kind::Calendar(calendar) => calendar.next_from(&self.zone, at),
            Kind::And(and) => and.next_from(at),
            Kind::Or(or) => or.next_from(at),
            Kind::Unreadable => None,
        };
        next.filter(|next| next.year() < 9999 || self.is_in_calendar(*next))
    }

    /// Whether an instant is in the years up to 9999, for the zone's clock as in universal time.
    fn is_in_calendar(&self, at: Timestamp) -> bool {
        at.year() <= 9999 && self.zone.to_local(at).year() <= 9999
    }

    /// The first occurrence after `after`.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        self.next_from(after.checked_add_signed(TimeDelta::microseconds(1))?)
    }

    /// The last occurrence at or before `at`.
    pub fn last_until(&self, at: Timestamp) -> Option<Timestamp> {
        match &self.kind {
            Kind::Date(date) => Some(date.at()).filter(|run| *run <= at),
            Kind::Interval(interval) => interval.last_until(at),
            Kind::Cron(cron) => cron.last_until(&self.zone, at),
            Kind::Calendar(calendar) => calendar.last_until(&self.zone, at),
            Kind::And(and) => and.last_until(at),
            Kind::Or(or) => or.last_until(at),
            Kind::Unreadable => None,
        }
    }

    /// The occurrences with `from <= t <= to`, counted without walking through them; none if there are none. The
    /// first and the last are exact; of very many of an `and` or an `or` the count may be off, so that it costs little.
    pub fn occurrences(&self, from: Timestamp, to: Timestamp) -> Option<Span> {
        let first = self.next_from(from).filter(|first| *first <= to)?;
        match &self.kind {
            Kind::Date(_) | Kind::Unreadable => Some(Span::one(first)),
            Kind::Interval(interval) => interval.occurrences(first, to),
            Kind::Cron(cron) => cron.occurrences(&self.zone, first, to),
            Kind::Calendar(calendar) => calendar.occurrences(&self.zone, first, to),
            Kind::And(and) => Some(and.occurrences(first, to)),
            Kind::Or(or) => or.occurrences(first, to),
        }
    }

    /// Whether it fires at exactly this instant, told without looking for other occurrences.
    pub fn matches(&self, at: Timestamp) -> bool {
        match &self.kind {
            Kind::Date(date) => date.at() == at,
            Kind::Interval(interval) => interval.matches(at),
            Kind::Cron(cron) => cron.matches(&self.zone, at),
            Kind::Calendar(calendar) => calendar.matches(&self.zone, at),
            Kind::And(and) => and.matches(at),
            Kind::Or(or) => or.matches(at),
            Kind::Unreadable => false,
        }
    }

    /// The readings that the zone's clock skips with `from < instant <= to`, in order, at most `limit`. An `and` tells
    /// none: what its members would have agreed on is not known.
    pub fn missing(&self, from: Timestamp, to: Timestamp, limit: usize) -> Vec<Missing> {
        let zone = &self.zone;
        match &self.kind {
            Kind::Cron(cron) => cron.missing(zone, from, to).take(limit).collect(),
            Kind::Calendar(calendar) => calendar.missing(zone, from, to).take(limit).collect(),
            Kind::Or(or) => {
                let members = or.members().iter();
                let mut all: Vec<Missing> =
                    members.flat_map(|member| member.missing(from, to, limit)).collect();
                all.sort_by_key(|missing| (missing.resumes, missing.first));
                all.dedup();
                all.truncate(limit);
                all
            }
            Kind::Date(_) | Kind::Interval(_) | Kind::And(_) | Kind::Unreadable => Vec::new(),
        }
    }

    /// The trigger in a few words, for tables and logs.
    pub fn describe(&self) -> String {
        match &self.kind {
            Kind::Date(date) => {
                format!("at {}", self.zone.to_fixed(date.at()).format("%Y-%m-%d %H:%M:%S %:z"))
            }
            Kind::Interval(interval) => interval.describe(),
            Kind::Cron(_) | Kind::Calendar(_) => given::describe_fields(&self.spec),
            Kind::And(and) => combine::describe("and", and.members()),
            Kind::Or(or) => combine::describe("or", or.members()),
            Kind::Unreadable => self.spec.to_string(),
        }
    }
}
