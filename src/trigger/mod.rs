//! Triggers: when a job is due.
//!
//! A [`Trigger`] is compiled from a JSON object with the keys of APScheduler 3, which `spec` reads. It is a fixed set
//! of instants: it never reads a clock, and the same question always gets the same answer. Each type of trigger is a
//! `Schedule` in a file of its own, and `TYPES` is the only list of them. `and` and `or` are made of other
//! triggers.
//!
//! Nothing here delays an occurrence. The scheduler adds the jitter when it plans one; the functions on jitter say how
//! long it may be.

mod and;
mod calendar;
mod compiled;
mod cron;
mod date;
mod dst;
mod interval;
mod members;
mod or;
mod schedule;
mod spec;

pub use compiled::Trigger;
pub use dst::DstGap;
pub use schedule::Span;

use std::sync::Arc;

use chrono::TimeDelta;
use serde_json::Value;

use crate::clock::Timestamp;
use crate::invalid::{Invalid, quoted};
use crate::zone::Zone;
use and::And;
use calendar::CalendarInterval;
use cron::Cron;
use date::Date;
use interval::Interval;
use or::Or;
use schedule::{Schedule, Unreadable};
use spec::{Nesting, SpecReader};

/// The types of triggers by name, each with its parser. A new type needs a line here and a `Schedule` in a file of its
/// own.
const TYPES: [(&str, Parser); 7] = [
    ("date", |spec| Ok(Arc::new(Date::parse(spec)?))),
    ("interval", |spec| Ok(Arc::new(Interval::parse(spec)?))),
    ("cron", |spec| Ok(Arc::new(Cron::parse_fields(spec)?))),
    ("crontab", |spec| Ok(Arc::new(Cron::parse_crontab(spec)?))),
    ("calendarinterval", |spec| Ok(Arc::new(CalendarInterval::parse(spec)?))),
    ("and", |spec| Ok(Arc::new(And::parse(spec)?))),
    ("or", |spec| Ok(Arc::new(Or::parse(spec)?))),
];

type Parser = fn(&mut SpecReader) -> Result<Arc<dyn Schedule>, Invalid>;

impl Trigger {
    /// Compiles the JSON form. Refuses a trigger that can never fire.
    ///
    /// `zone` applies if the form has no `timezone`, and is then written into the spec. `anchor` is when the trigger was
    /// defined: a `date` without `run_date` fires at it, an interval without `start_date` one interval later.
    pub fn parse(spec: &Value, zone: &Zone, anchor: Timestamp) -> Result<Self, Invalid> {
        Self::compile(spec, zone, anchor)?.require_occurrence()
    }

    /// Compiles the JSON form. Accepts a trigger that can never fire.
    pub fn compile(spec: &Value, zone: &Zone, anchor: Timestamp) -> Result<Self, Invalid> {
        Self::compile_outermost(spec, zone, anchor, false)
    }

    /// Compiles the JSON form of a trigger that was accepted before. It skips the search that proves that the members of
    /// an `and` agree often enough: it is slow, and a stored job must not be refused by it.
    pub fn compile_stored(spec: &Value, zone: &Zone, anchor: Timestamp) -> Result<Self, Invalid> {
        Self::compile_outermost(spec, zone, anchor, true)
    }

    fn compile_outermost(
        spec: &Value,
        zone: &Zone,
        anchor: Timestamp,
        is_stored: bool,
    ) -> Result<Self, Invalid> {
        let nesting = Nesting { depth: 0, in_and: false, is_stored, compile: Self::compile_nested };
        Self::compile_nested(spec, zone, anchor, nesting)
    }

    fn compile_nested(
        spec: &Value,
        zone: &Zone,
        anchor: Timestamp,
        nesting: Nesting,
    ) -> Result<Self, Invalid> {
        let mut reader = SpecReader::new(spec, zone, anchor, nesting)?;
        let jitter = reader.jitter()?;
        let name = reader.type_name();
        let Some((_, parse)) = TYPES.iter().find(|(known, _)| *known == name) else {
            let known = TYPES.map(|(name, _)| name).join(", ");
            let message = format!("unknown trigger type {} (known: {known})", quoted(name));
            return Err(Invalid::new("type", message));
        };
        let schedule = parse(&mut reader)?;
        let (zone, spec) = reader.finish()?;
        Ok(Self { spec, zone, jitter, schedule })
    }

    /// A stored trigger that can no longer be compiled. It keeps its spec and never fires.
    pub fn unreadable(spec: Value) -> Self {
        let schedule = Arc::new(Unreadable { spec: spec.clone() });
        Self { spec, zone: Zone::utc(), jitter: TimeDelta::zero(), schedule }
    }

    /// The names of all types.
    pub fn type_names() -> [&'static str; TYPES.len()] {
        TYPES.map(|(name, _)| name)
    }

    /// Whether a type of triggers has this name.
    pub fn is_known_type(name: &str) -> bool {
        TYPES.iter().any(|(known, _)| *known == name)
    }

    /// This trigger as if it had been defined at `anchor`. `known` has the same occurrences and was defined then.
    #[must_use]
    pub fn with_anchor(self: Arc<Self>, known: &Arc<Self>, anchor: Timestamp) -> Arc<Self> {
        if self.spec == known.spec {
            return Arc::clone(known);
        }
        let again = Self::compile_stored(&self.spec, &self.zone, anchor);
        again.map_or_else(|_| Arc::clone(known), Arc::new)
    }
}
