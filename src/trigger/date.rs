//! `date`: one instant, which is `run_date` or, without it, the instant of the definition.

use serde_json::Value;

use super::schedule::{Schedule, Span};
use super::spec::SpecReader;
use crate::clock::Timestamp;
use crate::invalid::Invalid;
use crate::zone::Zone;

#[derive(Debug)]
pub(super) struct Date {
    at: Timestamp,
    /// Whether `at` is the instant of the definition.
    is_anchored: bool,
}

impl Date {
    pub(super) fn parse(spec: &mut SpecReader) -> Result<Self, Invalid> {
        let run_date = spec.instant("run_date")?;
        Ok(Self { at: run_date.unwrap_or(spec.anchor()), is_anchored: run_date.is_none() })
    }
}

impl Schedule for Date {
    fn first(&self, _zone: &Zone) -> Option<Timestamp> {
        Some(self.at)
    }

    fn end(&self) -> Option<Timestamp> {
        Some(self.at)
    }

    fn next_from(&self, _zone: &Zone, at: Timestamp) -> Option<Timestamp> {
        Some(self.at).filter(|run| *run >= at)
    }

    fn last_until(&self, _zone: &Zone, at: Timestamp) -> Option<Timestamp> {
        Some(self.at).filter(|run| *run <= at)
    }

    fn matches(&self, _zone: &Zone, at: Timestamp) -> bool {
        self.at == at
    }

    fn occurrences(&self, _zone: &Zone, first: Timestamp, _to: Timestamp) -> Option<Span> {
        Some(Span::one(first))
    }

    fn is_like(&self, other: &dyn Schedule) -> bool {
        other.downcast::<Self>().is_some_and(|other| {
            self.is_anchored == other.is_anchored && (self.is_anchored || self.at == other.at)
        })
    }

    fn describe(&self, _spec: &Value, zone: &Zone) -> String {
        format!("at {}", zone.to_fixed(self.at).format("%Y-%m-%d %H:%M:%S %:z"))
    }

    fn is_one_shot(&self) -> bool {
        true
    }

    fn is_whole_seconds(&self) -> bool {
        self.at.timestamp_subsec_micros() == 0
    }
}
