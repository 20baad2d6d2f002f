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
mod interval;
mod likeness;
mod or;
mod spec;

pub use dst::DstGap;

use chrono::{Datelike, TimeDelta};
use serde_json::Value;

use crate::clock::Timestamp;
use crate::invalid::{Invalid, quoted};
use crate::zone::Zone;
use and::And;
use calendar::CalendarInterval;
use combine::Nesting;
use cron::Cron;
use date::Date;
use interval::Interval;
use or::Or;
use spec::SpecReader;

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
enum TriggerKind {
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
    kind: TriggerKind,
}

impl Trigger {
    /// Compiles the JSON form, and refuses a trigger that can never fire. `zone` holds where no `timezone` is given,
    /// and is then written into the spec. `anchor` is when the trigger was defined: an interval without `start_date`
    /// first fires one interval after it, a `date` without `run_date` at it.
    pub fn parse(spec: &Value, zone: &Zone, anchor: Timestamp) -> Result<Self, Invalid> {
        Self::compile(spec, zone, anchor)?.require_occurrence()
    }

    /// The trigger, unless it can never fire.
    pub fn require_occurrence(self) -> Result<Self, Invalid> {
        match self.never_fires_reason() {
            Some(why) => Err(Invalid::new("", why)),
            None => Ok(self),
        }
    }

    /// The same for a trigger that may be one that can never fire.
    pub fn compile(spec: &Value, zone: &Zone, anchor: Timestamp) -> Result<Self, Invalid> {
        Self::compile_at(spec, zone, anchor, Nesting::default())
    }

    /// The same for one that was accepted before: whether an `and` is out of reach is not asked again at every reading.
    pub fn compile_stored(spec: &Value, zone: &Zone, anchor: Timestamp) -> Result<Self, Invalid> {
        Self::compile_at(spec, zone, anchor, Nesting::of_stored())
    }

    fn compile_at(
        spec: &Value,
        zone: &Zone,
        anchor: Timestamp,
        place: Nesting,
    ) -> Result<Self, Invalid> {
        let mut given = SpecReader::new(spec, zone)?;
        let jitter = given.jitter()?;
        let kind = match given.kind() {
            "date" => TriggerKind::Date(Date::parse(&mut given, anchor)?),
            "interval" => TriggerKind::Interval(Interval::parse(&mut given, anchor)?),
            "cron" => TriggerKind::Cron(Box::new(Cron::parse(&mut given, anchor)?)),
            "crontab" => TriggerKind::Cron(Box::new(Cron::parse_crontab(&mut given, anchor)?)),
            "calendarinterval" => {
                TriggerKind::Calendar(CalendarInterval::parse(&mut given, anchor)?)
            }
            "and" => TriggerKind::And(combine::and(&mut given, anchor, place)?),
            "or" => TriggerKind::Or(combine::or(&mut given, anchor, place)?),
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
    pub fn is_known_type(word: &str) -> bool {
        TYPES.contains(&word)
    }

    /// A stored trigger that can no longer be compiled: keeps what was given and never fires.
    pub fn unreadable(spec: Value) -> Self {
        Self { spec, zone: Zone::utc(), jitter: TimeDelta::zero(), kind: TriggerKind::Unreadable }
    }

    /// The JSON form with its `timezone`: what is stored and shown.
    pub fn spec(&self) -> &Value {
        &self.spec
    }

    /// How many simple triggers it is made of: 1, unless it is an `and` or an `or`.
    fn leaves(&self) -> usize {
        match &self.kind {
            TriggerKind::And(and) => and.members().iter().map(Self::leaves).sum(),
            TriggerKind::Or(or) => or.members().iter().map(Self::leaves).sum(),
            TriggerKind::Date(_)
            | TriggerKind::Interval(_)
            | TriggerKind::Cron(_)
            | TriggerKind::Calendar(_)
            | TriggerKind::Unreadable => 1,
        }
    }

    /// Why it has no occurrence at all, in the past or in the future, if it has none.
    pub fn never_fires_reason(&self) -> Option<String> {
        let fields = match &self.kind {
            TriggerKind::Cron(cron) => cron.never_fires_reason(),
            TriggerKind::Date(_)
            | TriggerKind::Interval(_)
            | TriggerKind::Calendar(_)
            | TriggerKind::And(_)
            | TriggerKind::Or(_)
            | TriggerKind::Unreadable => None,
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
    pub fn ended_reason(&self, now: Timestamp) -> Option<String> {
        let never = self.never_fires_reason();
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
            TriggerKind::Date(_) => true,
            TriggerKind::And(and) => and.members().iter().any(Self::is_one_shot),
            TriggerKind::Interval(_)
            | TriggerKind::Cron(_)
            | TriggerKind::Calendar(_)
            | TriggerKind::Or(_)
            | TriggerKind::Unreadable => false,
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
            TriggerKind::Or(or) => Some(or),
            TriggerKind::Date(_)
            | TriggerKind::Interval(_)
            | TriggerKind::Cron(_)
            | TriggerKind::Calendar(_)
            | TriggerKind::And(_)
            | TriggerKind::Unreadable => None,
        }
    }

    /// The instant from which on a calendar trigger may fire, if it was given.
    pub fn start(&self) -> Option<Timestamp> {
        match &self.kind {
            TriggerKind::Cron(cron) => cron.start(),
            TriggerKind::Calendar(calendar) => calendar.start(&self.zone),
            TriggerKind::Date(_)
            | TriggerKind::Interval(_)
            | TriggerKind::And(_)
            | TriggerKind::Or(_)
            | TriggerKind::Unreadable => None,
        }
    }

    /// The latest instant at which it may fire, if there is one.
    pub fn end(&self) -> Option<Timestamp> {
        match &self.kind {
            TriggerKind::Date(date) => Some(date.at()),
            TriggerKind::Interval(interval) => interval.end(),
            TriggerKind::Cron(cron) => cron.end(),
            TriggerKind::Calendar(calendar) => calendar.end(),
            TriggerKind::And(and) => and.end(),
            TriggerKind::Or(or) => or.end(),
            TriggerKind::Unreadable => None,
        }
    }

    /// The very first occurrence: from its own start on; where it has none, from its definition on.
    pub fn first(&self) -> Option<Timestamp> {
        match &self.kind {
            TriggerKind::Date(date) => Some(date.at()),
            TriggerKind::Interval(interval) => interval.first(),
            TriggerKind::Cron(cron) => cron.first(&self.zone),
            TriggerKind::Calendar(calendar) => calendar.first(&self.zone),
            TriggerKind::And(and) => and.first(),
            TriggerKind::Or(or) => or.first(),
            TriggerKind::Unreadable => None,
        }
    }

    /// The first occurrence at or after `at`. The last of all are in the year 9999.
    pub fn next_from(&self, at: Timestamp) -> Option<Timestamp> {
        let next = match &self.kind {
            TriggerKind::Date(date) => Some(date.at()).filter(|run| *run >= at),
            TriggerKind::Interval(interval) => interval.next_from(at),
            TriggerKind::Cron(cron) => cron.next_from(&self.zone, at),
            TriggerKind::Calendar(calendar) => calendar.next_from(&self.zone, at),
            TriggerKind::And(and) => and.next_from(at),
            TriggerKind::Or(or) => or.next_from(at),
            TriggerKind::Unreadable => None,
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
            TriggerKind::Date(date) => Some(date.at()).filter(|run| *run <= at),
            TriggerKind::Interval(interval) => interval.last_until(at),
            TriggerKind::Cron(cron) => cron.last_until(&self.zone, at),
            TriggerKind::Calendar(calendar) => calendar.last_until(&self.zone, at),
            TriggerKind::And(and) => and.last_until(at),
            TriggerKind::Or(or) => or.last_until(at),
            TriggerKind::Unreadable => None,
        }
    }

    /// The occurrences with `from <= t <= to`, counted without walking through them; none if there are none. The
    /// first and the last are exact; of very many of an `and` or an `or` the count may be off, so that it costs little.
    pub fn occurrences(&self, from: Timestamp, to: Timestamp) -> Option<Span> {
        let first = self.next_from(from).filter(|first| *first <= to)?;
        match &self.kind {
            TriggerKind::Date(_) | TriggerKind::Unreadable => Some(Span::one(first)),
            TriggerKind::Interval(interval) => interval.occurrences(first, to),
            TriggerKind::Cron(cron) => cron.occurrences(&self.zone, first, to),
            TriggerKind::Calendar(calendar) => calendar.occurrences(&self.zone, first, to),
            TriggerKind::And(and) => Some(and.occurrences(first, to)),
            TriggerKind::Or(or) => or.occurrences(first, to),
        }
    }

    /// Whether it fires at exactly this instant, told without looking for other occurrences.
    pub fn matches(&self, at: Timestamp) -> bool {
        match &self.kind {
            TriggerKind::Date(date) => date.at() == at,
            TriggerKind::Interval(interval) => interval.matches(at),
            TriggerKind::Cron(cron) => cron.matches(&self.zone, at),
            TriggerKind::Calendar(calendar) => calendar.matches(&self.zone, at),
            TriggerKind::And(and) => and.matches(at),
            TriggerKind::Or(or) => or.matches(at),
            TriggerKind::Unreadable => false,
        }
    }

    /// The readings that the zone's clock skips with `from < instant <= to`, in order, at most `limit`. An `and` tells
    /// none: what its members would have agreed on is not known.
    pub fn dst_gaps(&self, from: Timestamp, to: Timestamp, limit: usize) -> Vec<DstGap> {
        let zone = &self.zone;
        match &self.kind {
            TriggerKind::Cron(cron) => cron.dst_gaps(zone, from, to).take(limit).collect(),
            TriggerKind::Calendar(calendar) => {
                calendar.dst_gaps(zone, from, to).take(limit).collect()
            }
            TriggerKind::Or(or) => {
                let members = or.members().iter();
                let mut all: Vec<DstGap> =
                    members.flat_map(|member| member.dst_gaps(from, to, limit)).collect();
                all.sort_by_key(|missing| (missing.resumes, missing.first));
                all.dedup();
                all.truncate(limit);
                all
            }
            TriggerKind::Date(_)
            | TriggerKind::Interval(_)
            | TriggerKind::And(_)
            | TriggerKind::Unreadable => Vec::new(),
        }
    }

    /// The trigger in a few words, for tables and logs.
    pub fn describe(&self) -> String {
        match &self.kind {
            TriggerKind::Date(date) => {
                format!("at {}", self.zone.to_fixed(date.at()).format("%Y-%m-%d %H:%M:%S %:z"))
            }
            TriggerKind::Interval(interval) => interval.describe(),
            TriggerKind::Cron(_) | TriggerKind::Calendar(_) => spec::describe_fields(&self.spec),
            TriggerKind::And(and) => combine::describe("and", and.members()),
            TriggerKind::Or(or) => combine::describe("or", or.members()),
            TriggerKind::Unreadable => self.spec.to_string(),
        }
    }
}
