//! `or`: fires when any of its members does, and once if several do at the same instant.
//!
//! Each member keeps its own grid: an occurrence of one does not move another.

use chrono::TimeDelta;
use serde_json::Value;

use super::compiled::Trigger;
use super::dst::DstGap;
use super::members;
use super::schedule::{Schedule, Span};
use super::spec::SpecReader;
use crate::clock::Timestamp;
use crate::invalid::Invalid;
use crate::zone::Zone;

/// The largest number of questions to simple triggers that one count asks. Beyond it, occurrences of two members at the
/// same instant count twice.
const QUESTIONS_MAX: usize = 20_000;

/// At least one member.
#[derive(Debug)]
pub(super) struct Or {
    members: Vec<Trigger>,
}

impl Or {
    pub(super) fn parse(spec: &mut SpecReader) -> Result<Self, Invalid> {
        Ok(Self { members: members::parse(spec, false)? })
    }
}

impl Schedule for Or {
    fn first(&self, _zone: &Zone) -> Option<Timestamp> {
        self.members.iter().filter_map(Trigger::first).min()
    }

    fn end(&self) -> Option<Timestamp> {
        let ends: Option<Vec<Timestamp>> = self.members.iter().map(Trigger::end).collect();
        ends?.into_iter().max()
    }

    fn next_from(&self, _zone: &Zone, at: Timestamp) -> Option<Timestamp> {
        self.members.iter().filter_map(|member| member.next_from(at)).min()
    }

    fn last_until(&self, _zone: &Zone, at: Timestamp) -> Option<Timestamp> {
        self.members.iter().filter_map(|member| member.last_until(at)).max()
    }

    fn matches(&self, _zone: &Zone, at: Timestamp) -> bool {
        self.members.iter().any(|member| member.matches(at))
    }

    /// Counts the member that has the most occurrences, and looks through the others for those that they add.
    fn occurrences(&self, _zone: &Zone, first: Timestamp, to: Timestamp) -> Option<Span> {
        let mut counted: Vec<(Span, &Trigger)> = self
            .members
            .iter()
            .filter_map(|member| Some((member.occurrences(first, to)?, member)))
            .collect();
        counted.sort_by_key(|(span, _)| std::cmp::Reverse(span.count));
        let last = counted.iter().map(|(span, _)| span.last).max()?;
        let (mut count, mut comparisons) = (0_u64, QUESTIONS_MAX / self.leaves().max(1));
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

    fn is_like(&self, other: &dyn Schedule) -> bool {
        let other = other.downcast::<Self>();
        other.is_some_and(|other| members::are_alike(&self.members, &other.members))
    }

    fn describe(&self, _spec: &Value, _zone: &Zone) -> String {
        members::describe("or", &self.members)
    }

    fn is_whole_seconds(&self) -> bool {
        self.members.iter().all(Trigger::is_whole_seconds)
    }

    fn leaves(&self) -> usize {
        members::leaves(&self.members)
    }

    fn member_jitter(&self) -> TimeDelta {
        self.members.iter().map(Trigger::jitter).max().unwrap_or_default()
    }

    fn member_jitter_at(&self, at: Timestamp) -> TimeDelta {
        let firing = self.members.iter().filter(|member| member.matches(at));
        firing.map(|member| member.jitter_at(at)).max().unwrap_or_default()
    }

    fn dst_gaps(&self, _zone: &Zone, from: Timestamp, to: Timestamp, limit: usize) -> Vec<DstGap> {
        let members = self.members.iter();
        let mut all: Vec<DstGap> =
            members.flat_map(|member| member.dst_gaps(from, to, limit)).collect();
        all.sort_by_key(|gap| (gap.resumes, gap.first));
        all.dedup();
        all.truncate(limit);
        all
    }
}
