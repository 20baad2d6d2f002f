//! Whether two triggers mean the same, however they are written.
//!
//! It compares what was compiled: `8` and `"8"`, 60 minutes and 1 hour, and members of an `or` in
//! another order are the same. What a trigger takes from its definition's time (the start of an
//! interval that has none) is not compared: only whether it does so.

use std::sync::Arc;

use super::and::And;
use super::{Trigger, TriggerKind};
use crate::clock::Timestamp;

impl Trigger {
    /// Whether both fire at the same instants, if they are defined at the same time. The zone counts only where it
    /// decides on instants.
    pub fn has_same_occurrences(&self, other: &Self) -> bool {
        let same_clock = || self.zone.has_rules_of(&other.zone);
        let is_like = match (&self.kind, &other.kind) {
            (TriggerKind::Date(one), TriggerKind::Date(other)) => one.is_like(*other),
            (TriggerKind::Interval(one), TriggerKind::Interval(other)) => one.is_like(other),
            (TriggerKind::Cron(one), TriggerKind::Cron(other)) => {
                one.is_like(other) && same_clock()
            }
            (TriggerKind::Calendar(one), TriggerKind::Calendar(other)) => {
                one.is_like(other) && same_clock()
            }
            (TriggerKind::And(one), TriggerKind::And(other)) => one.is_like(other),
            (TriggerKind::Or(one), TriggerKind::Or(other)) => {
                are_alike(one.members(), other.members())
            }
            (TriggerKind::Unreadable, TriggerKind::Unreadable) => self.spec == other.spec,
            (_, _) => false,
        };
        is_like && self.jitter == other.jitter
    }

    /// Whether both mean the same in every respect: also the clock in which they are shown.
    pub fn is_equivalent(&self, other: &Self) -> bool {
        self.has_same_occurrences(other) && self.zone.has_rules_of(&other.zone)
    }

    /// This trigger as if it had been defined at another time. `known` is one that fires like it and was defined then.
    #[must_use]
    pub fn with_anchor(self: Arc<Self>, known: &Arc<Self>, anchor: Timestamp) -> Arc<Self> {
        if self.spec == known.spec {
            return Arc::clone(known);
        }
        let again = Self::compile_stored(&self.spec, &self.zone, anchor);
        again.map_or_else(|_| Arc::clone(known), Arc::new)
    }

    /// Whether it only fires at whole seconds.
    fn is_whole_seconds(&self) -> bool {
        match &self.kind {
            TriggerKind::Date(date) => date.at().timestamp_subsec_micros() == 0,
            TriggerKind::Interval(interval) => interval.is_whole_seconds(),
            TriggerKind::Cron(_) | TriggerKind::Calendar(_) | TriggerKind::Unreadable => true,
            TriggerKind::And(and) => and.members().iter().all(Self::is_whole_seconds),
            TriggerKind::Or(or) => or.members().iter().all(Self::is_whole_seconds),
        }
    }
}

impl And {
    fn is_like(&self, other: &Self) -> bool {
        if self.threshold() != other.threshold() {
            return false;
        }
        let (one, other) = (self.members(), other.members());
        // Of two agreements that are equally close the order of the members decides.
        let is_exact = self.threshold() < chrono::TimeDelta::seconds(1)
            && one.iter().chain(other).all(Trigger::is_whole_seconds);
        if is_exact {
            return are_alike(one, other);
        }
        one.len() == other.len()
            && one.iter().zip(other).all(|(one, other)| one.has_same_occurrences(other))
    }
}

/// Whether each of one list is like one of the other, and the other way round.
fn are_alike(one: &[Trigger], other: &[Trigger]) -> bool {
    let within = |list: &[Trigger], trigger: &Trigger| {
        list.iter().any(|its| its.has_same_occurrences(trigger))
    };
    one.iter().all(|its| within(other, its)) && other.iter().all(|its| within(one, its))
}
