//! The interface that every trigger type implements.
//!
//! A schedule is a fixed set of instants. Whether an instant is one of them ([`Schedule::matches`]) and the searches are
//! implemented independently of each other, so that tests can check one against the other.

use std::any::Any;
use std::fmt::Debug;

use chrono::TimeDelta;
use serde_json::Value;

use super::dst::DstGap;
use crate::clock::Timestamp;
use crate::zone::Zone;

/// A range of occurrences, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub first: Timestamp,
    pub last: Timestamp,
    /// Number of occurrences from first to last.
    pub count: u64,
}

impl Span {
    /// A single occurrence.
    pub fn one(at: Timestamp) -> Self {
        Self { first: at, last: at, count: 1 }
    }
}

/// A trigger type. `zone` is the time zone of the trigger; only types that follow the wall clock use it.
pub(super) trait Schedule: Any + Debug + Send + Sync {
    /// The very first occurrence: from the schedule's start, or from its definition if it has no start.
    fn first(&self, zone: &Zone) -> Option<Timestamp>;

    /// An upper bound of all occurrences, if there is one.
    fn end(&self) -> Option<Timestamp>;

    /// The first occurrence at or after `at`.
    fn next_from(&self, zone: &Zone, at: Timestamp) -> Option<Timestamp>;

    /// The last occurrence at or before `at`.
    fn last_until(&self, zone: &Zone, at: Timestamp) -> Option<Timestamp>;

    /// Whether `at` is an occurrence, decided without searching for others.
    fn matches(&self, zone: &Zone, at: Timestamp) -> bool;

    /// The occurrences from `first`, which is one, up to `to`.
    fn occurrences(&self, zone: &Zone, first: Timestamp, to: Timestamp) -> Option<Span>;

    /// Whether `other` has the same occurrences, if both are defined at the same time and in the same zone.
    fn is_like(&self, other: &dyn Schedule) -> bool;

    /// A few words for tables and logs. `spec` is the trigger's JSON form.
    fn describe(&self, spec: &Value, zone: &Zone) -> String;

    /// The given start, if the schedule follows the calendar and has one.
    fn start(&self, _zone: &Zone) -> Option<Timestamp> {
        None
    }

    /// Why it can never fire, in any zone, if that is known without searching.
    fn never_fires_reason(&self) -> Option<&'static str> {
        None
    }

    /// Whether it fires at most once.
    fn is_one_shot(&self) -> bool {
        false
    }

    /// Whether its occurrences depend on the zone.
    fn follows_zone(&self) -> bool {
        false
    }

    /// Whether all its occurrences are whole seconds.
    fn is_whole_seconds(&self) -> bool {
        true
    }

    /// The number of simple triggers that it consists of.
    fn leaves(&self) -> usize {
        1
    }

    /// The longest jitter of its members, if it has members.
    fn member_jitter(&self) -> TimeDelta {
        TimeDelta::zero()
    }

    /// The longest jitter of those of its members that fire at `at`.
    fn member_jitter_at(&self, _at: Timestamp) -> TimeDelta {
        TimeDelta::zero()
    }

    /// The occurrences that are missing or moved because the clock was set forward, with `from < instant <= to`, in
    /// order, at most `limit`.
    fn dst_gaps(
        &self,
        _zone: &Zone,
        _from: Timestamp,
        _to: Timestamp,
        _limit: usize,
    ) -> Vec<DstGap> {
        Vec::new()
    }
}

impl dyn Schedule {
    /// This schedule, if it is of type `S`.
    pub(super) fn downcast<S: Schedule>(&self) -> Option<&S> {
        let any: &dyn Any = self;
        any.downcast_ref()
    }
}

/// The schedule of a stored trigger that can no longer be compiled: it never fires.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) spec: Value,
}

impl Schedule for Unreadable {
    fn first(&self, _zone: &Zone) -> Option<Timestamp> {
        None
    }

    fn end(&self) -> Option<Timestamp> {
        None
    }

    fn next_from(&self, _zone: &Zone, _at: Timestamp) -> Option<Timestamp> {
        None
    }

    fn last_until(&self, _zone: &Zone, _at: Timestamp) -> Option<Timestamp> {
        None
    }

    fn matches(&self, _zone: &Zone, _at: Timestamp) -> bool {
        false
    }

    fn occurrences(&self, _zone: &Zone, _first: Timestamp, _to: Timestamp) -> Option<Span> {
        None
    }

    fn is_like(&self, other: &dyn Schedule) -> bool {
        other.downcast::<Self>().is_some_and(|other| self.spec == other.spec)
    }

    fn describe(&self, spec: &Value, _zone: &Zone) -> String {
        spec.to_string()
    }
}
