//! The intersection of several triggers: it fires when all of them do.
//!
//! An agreement is a window that holds an occurrence of every member, as short as it can be, and
//! no longer than the threshold; the earliest of them is the instant. Of agreements that share an
//! occurrence the shortest counts, of equal ones the one that begins with the member that is
//! named first: so no occurrence makes the whole fire twice.
//!
//! The search leaps from window to window. It is bounded in work: members that do not agree within
//! this many questions are taken not to agree at all.

use chrono::TimeDelta;

use super::{Span, Trigger};
use crate::clock::Timestamp;

/// Questions to simple triggers that one search, or one count, asks at most: some milliseconds.
const QUESTIONS_MAX: usize = 40_000;
/// The threshold of members that give none: less than a second, so that whole seconds agree exactly or not at all, and
/// only the fractions of intervals are forgiven.
pub(super) const THRESHOLD_MICROS: i64 = 999_999;
const MICROSECOND: TimeDelta = TimeDelta::microseconds(1);

/// Triggers, at least one.
#[derive(Debug, Clone)]
pub(super) struct And {
    members: Vec<Trigger>,
    threshold: TimeDelta,
    /// Windows that one search looks at.
    leaps_max: usize,
}

/// Where a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SearchResult {
    /// They agree here.
    At(Timestamp),
    /// One of them has no further occurrence.
    Nowhere,
    /// They did not agree in this many leaps.
    GaveUp,
}

impl SearchResult {
    fn instant(self) -> Option<Timestamp> {
        match self {
            Self::At(found) => Some(found),
            Self::Nowhere | Self::GaveUp => None,
        }
    }
}

/// A stretch of time that holds an occurrence of every member, and none shorter within it does.
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
    pub(super) fn new(members: Vec<Trigger>, threshold: TimeDelta) -> Self {
        // A window takes two questions to each simple trigger, and as many again to judge it.
        let questions = 4 * members.iter().map(Trigger::leaves).sum::<usize>();
        Self { members, threshold, leaps_max: QUESTIONS_MAX / questions.max(1) }
    }

    pub(super) fn members(&self) -> &[Trigger] {
        &self.members
    }

    pub(super) fn threshold(&self) -> TimeDelta {
        self.threshold
    }

    pub(super) fn leaps_max(&self) -> usize {
        self.leaps_max
    }

    pub(super) fn end(&self) -> Option<Timestamp> {
        self.members.iter().filter_map(Trigger::end).min()
    }

    /// The first agreement, from where all members have begun.
    pub(super) fn first(&self) -> Option<Timestamp> {
        self.search_first().instant()
    }

    /// Whether a search gives up on the first agreement, or on the one after it. What is found now and not again would
    /// end a job without a word.
    pub(super) fn is_out_of_reach(&self) -> bool {
        let second = |first: Timestamp| {
            let after = first.checked_add_signed(MICROSECOND)?;
            Some(self.search(after, &mut self.leaps_max.clone()))
        };
        match self.search_first() {
            SearchResult::At(first) => second(first) == Some(SearchResult::GaveUp),
            SearchResult::Nowhere => false,
            SearchResult::GaveUp => true,
        }
    }

    fn search_first(&self) -> SearchResult {
        match self.bounds(Trigger::first) {
            Some((_, begin)) => {
                let begin = begin.checked_sub_signed(self.threshold).unwrap_or(begin);
                self.search(begin, &mut self.leaps_max.clone())
            }
            None => SearchResult::Nowhere,
        }
    }

    pub(super) fn next_from(&self, at: Timestamp) -> Option<Timestamp> {
        self.search(at, &mut self.leaps_max.clone()).instant()
    }

    /// The first agreement at or after `at`; `leaps` is what is left of the work that may be spent.
    fn search(&self, at: Timestamp, leaps: &mut usize) -> SearchResult {
        let mut from = at;
        while *leaps > 0 {
            *leaps -= 1;
            let Some(window) = self.window_from(from) else { return SearchResult::Nowhere };
            if self.is_agreement(window) {
                return SearchResult::At(window.from);
            }
            // Whatever agrees next begins after this window, and no earlier than the threshold before its end.
            let after = window.from.checked_add_signed(MICROSECOND);
            let near = window.to.checked_sub_signed(self.threshold);
            let Some(next) = after.max(near) else { return SearchResult::Nowhere };
            from = next;
        }
        SearchResult::GaveUp
    }

    /// The last agreement at or before `at`, by leaps back.
    pub(super) fn last_until(&self, at: Timestamp) -> Option<Timestamp> {
        let mut until = at.checked_add_signed(self.threshold)?;
        for _ in 0..self.leaps_max {
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

    pub(super) fn matches(&self, at: Timestamp) -> bool {
        self.window_from(at).is_some_and(|window| window.from == at && self.is_agreement(window))
    }

    /// The first window that begins at or after `at`.
    fn window_from(&self, at: Timestamp) -> Option<Window> {
        let (earliest, to) = self.bounds(|member| member.next_from(at))?;
        if earliest == to {
            return Some(Window { from: to, to });
        }
        // From its end the window is drawn up as far as it goes.
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

    /// Whether the members agree in a window: it is short enough, and no better one shares an occurrence with it.
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
        let shares_previous = previous.filter(|previous| previous.to >= window.from);
        let shares_next = next.filter(|next| next.from <= window.to);
        let rank = |window: Window| (window.length(), self.begins_with(window));
        shares_previous.into_iter().chain(shares_next).all(|other| rank(window) <= rank(other))
    }

    /// The first of the members that a window begins with.
    fn begins_with(&self, window: Window) -> Option<usize> {
        self.members.iter().position(|member| member.matches(window.from))
    }

    /// The earliest and the latest of an instant that each member has to have.
    fn bounds(&self, of: impl Fn(&Trigger) -> Option<Timestamp>) -> Option<(Timestamp, Timestamp)> {
        let widest = (Timestamp::MAX_UTC, Timestamp::MIN_UTC);
        self.members.iter().try_fold(widest, |(earliest, latest), member| {
            let at = of(member)?;
            Some((earliest.min(at), latest.max(at)))
        })
    }

    /// The occurrences from `first`, which is one, up to `to`. The work of one search is spent on counting; beyond it
    /// the count is a lower bound.
    pub(super) fn occurrences(&self, first: Timestamp, to: Timestamp) -> Span {
        let (mut span, mut leaps) = (Span::one(first), self.leaps_max);
        while let Some(after) = span.last.checked_add_signed(MICROSECOND) {
            match self.search(after, &mut leaps) {
                SearchResult::At(found) if found <= to => {
                    span = Span { last: found, count: span.count.saturating_add(1), ..span };
                }
                SearchResult::At(_) | SearchResult::Nowhere => return span,
                SearchResult::GaveUp => {
                    return Span { last: self.last_until(to).unwrap_or(span.last), ..span };
                }
            }
        }
        span
    }
}
