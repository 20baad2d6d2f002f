//! The intersection of several triggers: it fires when all of them do.
//!
//! Members agree if each has an occurrence within the threshold of the others', and none has a
//! closer one; the earliest of them is the instant. The search leaps from one member's next
//! occurrence to another's, and is bounded: members that do not agree in so many leaps are
//! taken not to agree at all.

use chrono::TimeDelta;

use super::{Span, Trigger};
use crate::clock::Timestamp;

/// Leaps of one search. It bounds what members that never agree can cost.
pub(super) const LEAPS_MAX: usize = 10_000;
/// Agreements that one count walks through. It bounds the time that counting takes; beyond it a count is a lower bound.
const COUNT_MAX: u64 = 10_000;
/// The threshold of members that give none: less than a second, so that whole seconds agree exactly or not at all, and
/// only the fractions of intervals are forgiven.
pub(super) const THRESHOLD_MICROS: i64 = 999_999;

/// Triggers, at least one.
#[derive(Debug, Clone)]
pub(super) struct And {
    members: Vec<Trigger>,
    threshold: TimeDelta,
}

/// Where a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// They agree here.
    At(Timestamp),
    /// One of them has no further occurrence.
    Nowhere,
    /// They did not agree in so many leaps.
    GaveUp,
}

impl Found {
    fn instant(self) -> Option<Timestamp> {
        match self {
            Self::At(found) => Some(found),
            Self::Nowhere | Self::GaveUp => None,
        }
    }
}

impl And {
    pub(super) fn new(members: Vec<Trigger>, threshold: TimeDelta) -> Self {
        Self { members, threshold }
    }

    pub(super) fn members(&self) -> &[Trigger] {
        &self.members
    }

    pub(super) fn end(&self) -> Option<Timestamp> {
        self.members.iter().filter_map(Trigger::end).min()
    }

    /// The first agreement, from where all members have begun.
    pub(super) fn first(&self) -> Option<Timestamp> {
        self.search_first().instant()
    }

    /// Whether the members never agree, as far as a search can tell.
    pub(super) fn never_agrees(&self) -> bool {
        self.search_first() == Found::GaveUp
    }

    fn search_first(&self) -> Found {
        match self.bounds(Trigger::first) {
            Some((_, begin)) => self.search(self.before(begin)),
            None => Found::Nowhere,
        }
    }

    pub(super) fn next_from(&self, at: Timestamp) -> Option<Timestamp> {
        self.search(at).instant()
    }

    /// The first agreement at or after `at`.
    fn search(&self, at: Timestamp) -> Found {
        let mut from = at;
        for _ in 0..LEAPS_MAX {
            let Some((earliest, latest)) = self.bounds(|member| member.next_from(from)) else {
                return Found::Nowhere;
            };
            if latest.signed_duration_since(earliest) > self.threshold {
                from = self.before(latest);
            } else if self.is_closest(earliest, latest) {
                return Found::At(earliest);
            } else if let Some(after) = earliest.checked_add_signed(TimeDelta::microseconds(1)) {
                from = after;
            }
        }
        Found::GaveUp
    }

    /// The last agreement at or before `at`, by leaps back.
    pub(super) fn last_until(&self, at: Timestamp) -> Option<Timestamp> {
        let mut until = at.checked_add_signed(self.threshold)?;
        for _ in 0..LEAPS_MAX {
            let (earliest, latest) = self.bounds(|member| member.last_until(until))?;
            if latest.signed_duration_since(earliest) > self.threshold {
                until = earliest.checked_add_signed(self.threshold)?;
            } else if earliest <= at && self.matches(earliest) {
                return Some(earliest);
            } else {
                until = latest.checked_sub_signed(TimeDelta::microseconds(1))?;
            }
        }
        None
    }

    pub(super) fn matches(&self, at: Timestamp) -> bool {
        let Some((_, latest)) = self.bounds(|member| member.next_from(at)) else { return false };
        latest.signed_duration_since(at) <= self.threshold && self.is_closest(at, latest)
    }

    /// The earliest and the latest of an instant that each member has to have.
    fn bounds(&self, of: impl Fn(&Trigger) -> Option<Timestamp>) -> Option<(Timestamp, Timestamp)> {
        let widest = (Timestamp::MAX_UTC, Timestamp::MIN_UTC);
        self.members.iter().try_fold(widest, |(earliest, latest), member| {
            let at = of(member)?;
            Some((earliest.min(at), latest.max(at)))
        })
    }

    /// Whether an agreement from `earliest` to `latest` holds no closer one: some member has nothing else in it.
    fn is_closest(&self, earliest: Timestamp, latest: Timestamp) -> bool {
        self.members.iter().any(|member| {
            member.matches(earliest)
                && (earliest == latest
                    || member.next_after(earliest).is_none_or(|next| next > latest))
        })
    }

    /// The occurrences from `first`, which is one, up to `to`.
    pub(super) fn occurrences(&self, first: Timestamp, to: Timestamp) -> Option<Span> {
        let (mut count, mut last, mut at) = (0_u64, first, Some(first));
        while let Some(found) = at.filter(|at| *at <= to) {
            if count == COUNT_MAX {
                last = self.last_until(to).unwrap_or(last);
                break;
            }
            (count, last) = (count + 1, found);
            at = found
                .checked_add_signed(TimeDelta::microseconds(1))
                .and_then(|after| self.next_from(after));
        }
        (count > 0).then_some(Span { first, last, count })
    }

    fn before(&self, at: Timestamp) -> Timestamp {
        at.checked_sub_signed(self.threshold).unwrap_or(at)
    }
}
