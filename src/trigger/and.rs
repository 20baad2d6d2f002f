//! `and`: fires when all its members do.
//!
//! The members agree in a window of time that holds an occurrence of each of them, is as short as possible, and is no
//! longer than the threshold. The beginning of the window is the occurrence of the `and`. If two windows share an
//! occurrence of a member, the shorter one counts; if they are equally long, the one that begins with the member that is
//! named first. So no occurrence of a member makes the `and` fire twice.
//!
//! The search jumps from window to window and has a limited number of steps. Members that do not agree within it count
//! as never agreeing.

use chrono::TimeDelta;
use serde_json::Value;

use super::compiled::Trigger;
use super::members;
use super::schedule::{Schedule, Span};
use super::spec::SpecReader;
use crate::clock::{MICROS_PER_SECOND, Timestamp};
use crate::invalid::Invalid;
use crate::zone::Zone;

/// The largest number of questions to simple triggers that one search or one count asks. They take some milliseconds.
const QUESTIONS_MAX: usize = 40_000;
/// The default threshold. It is less than a second, so that members that fire at whole seconds must agree exactly; only
/// the fractions of an interval's start may differ.
const THRESHOLD_MICROS: i64 = 999_999;
const MICROSECOND: TimeDelta = TimeDelta::microseconds(1);

/// At least one member.
#[derive(Debug)]
pub(super) struct And {
    members: Vec<Trigger>,
    threshold: TimeDelta,
    /// The largest number of windows that one search looks at.
    steps_max: usize,
}

/// The result of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SearchResult {
    /// The members agree at this instant.
    Found(Timestamp),
    /// A member has no further occurrence.
    Exhausted,
    /// The members did not agree within the number of steps.
    GaveUp,
}

impl SearchResult {
    fn instant(self) -> Option<Timestamp> {
        match self {
            Self::Found(at) => Some(at),
            Self::Exhausted | Self::GaveUp => None,
        }
    }
}

/// A span of time that holds an occurrence of each member, and contains no shorter such span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    from: Timestamp,
    to: Timestamp,
}

impl Window {
    fn length(self) -> TimeDelta {
        self.to.signed_duration_since(self.from)
    }
}

impl And {
    pub(super) fn parse(spec: &mut SpecReader) -> Result<Self, Invalid> {
        let nesting = spec.nesting();
        if nesting.in_and {
            // It would mean the same as its members in the outer one, and the cost of the searches would multiply.
            let message = "an and cannot be inside an and: put its triggers into the outer one";
            return Err(Invalid::new("type", message));
        }
        let is_given = spec.take("threshold").is_some();
        let micros = spec.micros("threshold", MICROS_PER_SECOND)?;
        let threshold = TimeDelta::microseconds(if is_given { micros } else { THRESHOLD_MICROS });
        let members: Vec<Trigger> = members::parse(spec, true)?;
        if let Some(number) = members.iter().position(|member| member.jitter() > TimeDelta::zero())
        {
            let message =
                "triggers that have to agree have no jitter of their own: give it to the and";
            return Err(Invalid::new(format!("triggers[{number}].jitter"), message));
        }
        // A window takes two questions to each simple trigger, and as many again to judge it.
        let questions = 4 * members::leaves(&members);
        let and = Self { members, threshold, steps_max: QUESTIONS_MAX / questions.max(1) };
        if !nesting.is_stored && and.agrees_too_seldom() {
            let steps = and.steps_max;
            let message = format!(
                "the triggers never agree, or too seldom: no common time was found in {steps} steps"
            );
            return Err(Invalid::new("triggers", message));
        }
        Ok(and)
    }

    /// Whether the search gives up before the first agreement, or before the second one. A job whose first run is found
    /// and whose second one is not would end without a reason that its owner can see.
    fn agrees_too_seldom(&self) -> bool {
        match self.search_first() {
            SearchResult::Found(first) => first
                .checked_add_signed(MICROSECOND)
                .is_some_and(|after| self.search_from(after) == SearchResult::GaveUp),
            SearchResult::Exhausted => false,
            SearchResult::GaveUp => true,
        }
    }

    /// Searches the first agreement, from the instant at which all members have begun.
    fn search_first(&self) -> SearchResult {
        match self.bounds(Trigger::first) {
            Some((_, begin)) => {
                self.search_from(begin.checked_sub_signed(self.threshold).unwrap_or(begin))
            }
            None => SearchResult::Exhausted,
        }
    }

    fn search_from(&self, at: Timestamp) -> SearchResult {
        self.search(at, &mut self.steps_max.clone())
    }

    /// Searches the first agreement at or after `at`. `steps` is the number of steps that are left; the search counts it
    /// down.
    fn search(&self, at: Timestamp, steps: &mut usize) -> SearchResult {
        let mut from = at;
        while *steps > 0 {
            *steps -= 1;
            let Some(window) = self.window_from(from) else { return SearchResult::Exhausted };
            if self.is_agreement(window) {
                return SearchResult::Found(window.from);
            }
            // The next agreement begins after this window's beginning, and at most the threshold before its end.
            let after = window.from.checked_add_signed(MICROSECOND);
            let near = window.to.checked_sub_signed(self.threshold);
            let Some(next) = after.max(near) else { return SearchResult::Exhausted };
            from = next;
        }
        SearchResult::GaveUp
    }

    /// The first window that begins at or after `at`.
    fn window_from(&self, at: Timestamp) -> Option<Window> {
        let (earliest, to) = self.bounds(|member| member.next_from(at))?;
        if earliest == to {
            return Some(Window { from: to, to });
        }
        // The end of the window is known now; its beginning moves as close to the end as possible.
        let (from, _) = self.bounds(|member| member.last_until(to))?;
        Some(Window { from, to })
    }

    /// The last window that ends at or before `at`.
    fn window_until(&self, at: Timestamp) -> Option<Window> {
        let (from, latest) = self.bounds(|member| member.last_until(at))?;
        if from == latest {
            return Some(Window { from, to: from });
        }
        let (_, to) = self.bounds(|member| member.next_from(from))?;
        Some(Window { from, to })
    }

    /// Whether a window is an agreement: it is short enough, and no better window shares an occurrence with it.
    fn is_agreement(&self, window: Window) -> bool {
        if window.length() > self.threshold {
            return false;
        }
        if window.from == window.to {
            return true;
        }
        let before = window.to.checked_sub_signed(MICROSECOND);
        let previous = before.and_then(|at| self.window_until(at));
        let after = window.from.checked_add_signed(MICROSECOND);
        let next = after.and_then(|at| self.window_from(at));
        let overlapping_previous = previous.filter(|previous| previous.to >= window.from);
        let overlapping_next = next.filter(|next| next.from <= window.to);
        let rank = |window: Window| (window.length(), self.first_member_at(window.from));
        let mut others = overlapping_previous.into_iter().chain(overlapping_next);
        others.all(|other| rank(window) <= rank(other))
    }

    /// The number of the first member that fires at `at`.
    fn first_member_at(&self, at: Timestamp) -> Option<usize> {
        self.members.iter().position(|member| member.matches(at))
    }

    /// The earliest and the latest of one instant of each member; `None` if a member does not have it.
    fn bounds(
        &self,
        instant: impl Fn(&Trigger) -> Option<Timestamp>,
    ) -> Option<(Timestamp, Timestamp)> {
        let widest = (Timestamp::MAX_UTC, Timestamp::MIN_UTC);
        self.members.iter().try_fold(widest, |(earliest, latest), member| {
            let at = instant(member)?;
            Some((earliest.min(at), latest.max(at)))
        })
    }
}

impl Schedule for And {
    fn first(&self, _zone: &Zone) -> Option<Timestamp> {
        self.search_first().instant()
    }

    fn end(&self) -> Option<Timestamp> {
        self.members.iter().filter_map(Trigger::end).min()
    }

    fn next_from(&self, _zone: &Zone, at: Timestamp) -> Option<Timestamp> {
        self.search_from(at).instant()
    }

    fn last_until(&self, _zone: &Zone, at: Timestamp) -> Option<Timestamp> {
        let mut until = at.checked_add_signed(self.threshold)?;
        for _ in 0..self.steps_max {
            let window = self.window_until(until)?;
            if window.from <= at && self.is_agreement(window) {
                return Some(window.from);
            }
            let before = window.to.checked_sub_signed(MICROSECOND)?;
            let near = window.from.checked_add_signed(self.threshold)?;
            until = before.min(near);
        }
        None
    }

    fn matches(&self, _zone: &Zone, at: Timestamp) -> bool {
        self.window_from(at).is_some_and(|window| window.from == at && self.is_agreement(window))
    }

    /// Counts with the steps of one search. When they are used up, the count is a lower bound.
    fn occurrences(&self, zone: &Zone, first: Timestamp, to: Timestamp) -> Option<Span> {
        let (mut span, mut steps) = (Span::one(first), self.steps_max);
        while let Some(after) = span.last.checked_add_signed(MICROSECOND) {
            match self.search(after, &mut steps) {
                SearchResult::Found(found) if found <= to => {
                    span = Span { last: found, count: span.count.saturating_add(1), ..span };
                }
                SearchResult::Found(_) | SearchResult::Exhausted => break,
                SearchResult::GaveUp => {
                    span.last = self.last_until(zone, to).unwrap_or(span.last);
                    break;
                }
            }
        }
        Some(span)
    }

    fn is_like(&self, other: &dyn Schedule) -> bool {
        let Some(other) = other.downcast::<Self>() else { return false };
        if self.threshold != other.threshold {
            return false;
        }
        let (own, others) = (&self.members, &other.members);
        // If the members must agree exactly, their order makes no difference. Otherwise it decides between two
        // agreements that are equally close.
        let must_be_exact = self.threshold < TimeDelta::seconds(1)
            && own.iter().chain(others).all(Trigger::is_whole_seconds);
        if must_be_exact {
            return members::are_alike(own, others);
        }
        own.len() == others.len()
            && own.iter().zip(others).all(|(own, other)| own.has_same_occurrences(other))
    }

    fn describe(&self, _spec: &Value, _zone: &Zone) -> String {
        members::describe("and", &self.members)
    }

    fn is_one_shot(&self) -> bool {
        self.members.iter().any(Trigger::is_one_shot)
    }

    fn is_whole_seconds(&self) -> bool {
        self.members.iter().all(Trigger::is_whole_seconds)
    }

    fn leaves(&self) -> usize {
        members::leaves(&self.members)
    }
}
