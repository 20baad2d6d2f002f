//! The union of several triggers: it fires when any of them does, and once when several do.
//!
//! Each member keeps its own grid: what fires because of one does not move another.

use chrono::TimeDelta;

use super::{Span, Trigger};
use crate::clock::Timestamp;

/// Questions to simple triggers that counting a union asks at most. Beyond it, occurrences of two members at the same
/// instant count twice.
const QUESTIONS_MAX: usize = 20_000;

/// Triggers, at least one.
#[derive(Debug, Clone)]
pub(super) struct Or {
    members: Vec<Trigger>,
}

impl Or {
    pub(super) fn new(members: Vec<Trigger>) -> Self {
        Self { members }
    }

    pub(super) fn members(&self) -> &[Trigger] {
        &self.members
    }

    pub(super) fn end(&self) -> Option<Timestamp> {
        let ends: Option<Vec<Timestamp>> = self.members.iter().map(Trigger::end).collect();
        ends?.into_iter().max()
    }

    pub(super) fn first(&self) -> Option<Timestamp> {
        self.members.iter().filter_map(Trigger::first).min()
    }

    pub(super) fn next_from(&self, at: Timestamp) -> Option<Timestamp> {
        self.members.iter().filter_map(|member| member.next_from(at)).min()
    }

    pub(super) fn last_until(&self, at: Timestamp) -> Option<Timestamp> {
        self.members.iter().filter_map(|member| member.last_until(at)).max()
    }

    pub(super) fn matches(&self, at: Timestamp) -> bool {
        self.members.iter().any(|member| member.matches(at))
    }

    /// Upper bound of the delay of any occurrence.
    pub(super) fn jitter(&self) -> TimeDelta {
        self.members.iter().map(Trigger::jitter).max().unwrap_or_default()
    }

    /// Upper bound of the delay of one occurrence: that of the members that it comes from.
    pub(super) fn jitter_at(&self, at: Timestamp) -> TimeDelta {
        let from = self.members.iter().filter(|member| member.matches(at));
        from.map(|member| member.jitter_at(at)).max().unwrap_or_default()
    }

    /// The occurrences from `first`, which is one, up to `to`. The member that has the most is counted, the others
    /// are looked through for what they add.
    pub(super) fn occurrences(&self, first: Timestamp, to: Timestamp) -> Option<Span> {
        let mut counted: Vec<(Span, &Trigger)> = self
            .members
            .iter()
            .filter_map(|member| Some((member.occurrences(first, to)?, member)))
            .collect();
        counted.sort_by_key(|(span, _)| std::cmp::Reverse(span.count));
        let last = counted.iter().map(|(span, _)| span.last).max()?;
        let questions = self.members.iter().map(Trigger::leaves).sum::<usize>();
        let (mut count, mut comparisons) = (0_u64, QUESTIONS_MAX / questions.max(1));
        for (number, (span, member)) in counted.iter().enumerate() {
            count = count.saturating_add(span.count);
            let denser = counted.get(..number).unwrap_or_default();
            let mut at = Some(span.first).filter(|_| !denser.is_empty());
            while let Some(own) = at.filter(|at| *at <= span.last && comparisons > 0) {
                comparisons -= 1;
                count -= u64::from(denser.iter().any(|(_, other)| other.matches(own)));
                at = member.next_after(own);
            }
        }
        Some(Span { first, last, count })
    }
}
