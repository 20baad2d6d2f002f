//! A compiled trigger, and the questions that it answers.

use std::sync::Arc;

use chrono::{Datelike, TimeDelta};
use serde_json::Value;

use super::dst::DstGap;
use super::schedule::{Schedule, Span};
use crate::clock::Timestamp;
use crate::invalid::Invalid;
use crate::zone::Zone;

/// When a job is due: the JSON form, and the compiled form that answers questions.
#[derive(Debug, Clone)]
pub struct Trigger {
    pub(super) spec: Value,
    pub(super) zone: Zone,
    /// The trigger's own jitter, without that of its members.
    pub(super) jitter: TimeDelta,
    pub(super) schedule: Arc<dyn Schedule>,
}

impl Trigger {
    /// The JSON form, which always has a `timezone`. This is what is stored and shown.
    pub fn spec(&self) -> &Value {
        &self.spec
    }

    /// The name of its type. A stored trigger that cannot be read may have none.
    pub fn type_name(&self) -> Option<&str> {
        self.spec.get("type").and_then(Value::as_str)
    }

    /// The zone in which it is evaluated and shown.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// Refuses a trigger that can never fire.
    pub fn require_occurrence(self) -> Result<Self, Invalid> {
        match self.never_fires_reason() {
            Some(why) => Err(Invalid::new("", why)),
            None => Ok(self),
        }
    }

    /// Why it has no occurrence, neither in the past nor in the future; `None` if it has one.
    pub fn never_fires_reason(&self) -> Option<String> {
        let first = || self.first().or_else(|| self.next_from(Timestamp::default()));
        let why = match (self.schedule.never_fires_reason(), self.end()) {
            (Some(why), _) => why,
            (None, _) if first().is_some() => return None,
            (None, Some(_)) => "no time up to its end matches",
            (None, None) => "no time matches",
        };
        Some(format!("it can never fire: {why}"))
    }

    /// Why a job that is defined at `now` would never run: the trigger never fires, or its last occurrence has passed.
    /// `None` if the job would run. A one-shot that has passed runs late.
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
        self.schedule.is_one_shot()
    }

    /// The longest delay that jitter can give to any occurrence; zero without jitter.
    pub fn jitter(&self) -> TimeDelta {
        self.jitter + self.schedule.member_jitter()
    }

    /// The latest instant to which jitter may delay the occurrence at `at`: before the next occurrence, and not after
    /// the end.
    pub fn latest_start(&self, at: Timestamp) -> Timestamp {
        let jitter = self.jitter_at(at);
        if jitter <= TimeDelta::zero() {
            return at;
        }
        let before_next = self.next_after(at).map(|next| next - TimeDelta::microseconds(1));
        let delayed = at.checked_add_signed(jitter);
        [delayed, before_next, self.end()].into_iter().flatten().min().map_or(at, |end| end.max(at))
    }

    /// The start that was given, for types that follow the calendar. They do not fire before it.
    pub fn start(&self) -> Option<Timestamp> {
        self.schedule.start(&self.zone)
    }

    /// An upper bound of all occurrences, if there is one.
    pub fn end(&self) -> Option<Timestamp> {
        self.schedule.end()
    }

    /// The very first occurrence: from the trigger's start, or from its definition if it has no start.
    pub fn first(&self) -> Option<Timestamp> {
        self.schedule.first(&self.zone)
    }

    /// The first occurrence at or after `at`. The calendar ends with the year 9999.
    pub fn next_from(&self, at: Timestamp) -> Option<Timestamp> {
        let next = self.schedule.next_from(&self.zone, at);
        next.filter(|next| next.year() < 9999 || self.is_in_calendar(*next))
    }

    /// Whether an instant is at most in the year 9999, both in universal time and in the zone.
    fn is_in_calendar(&self, at: Timestamp) -> bool {
        at.year() <= 9999 && self.zone.to_local(at).year() <= 9999
    }

    /// The first occurrence after `after`.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        self.next_from(after.checked_add_signed(TimeDelta::microseconds(1))?)
    }

    /// The last occurrence at or before `at`.
    pub fn last_until(&self, at: Timestamp) -> Option<Timestamp> {
        self.schedule.last_until(&self.zone, at)
    }

    /// The occurrences with `from <= t <= to`, counted without listing them; `None` if there are none. The first and the
    /// last are exact. The count of an `and` or an `or` may be off if there are very many, which bounds its cost.
    pub fn occurrences(&self, from: Timestamp, to: Timestamp) -> Option<Span> {
        let first = self.next_from(from).filter(|first| *first <= to)?;
        self.schedule.occurrences(&self.zone, first, to)
    }

    /// Whether `at` is an occurrence, decided without searching for others.
    pub fn matches(&self, at: Timestamp) -> bool {
        self.schedule.matches(&self.zone, at)
    }

    /// The occurrences that are missing or moved because the clock was set forward, with `from < instant <= to`, in
    /// order, at most `limit`. Empty for an `and`: its members might not have agreed on them.
    pub fn dst_gaps(&self, from: Timestamp, to: Timestamp, limit: usize) -> Vec<DstGap> {
        self.schedule.dst_gaps(&self.zone, from, to, limit)
    }

    /// A few words for tables and logs.
    pub fn describe(&self) -> String {
        self.schedule.describe(&self.spec, &self.zone)
    }

    /// Whether both have the same occurrences, if they are defined at the same time. It compares the compiled forms: `8`
    /// and `"8"`, 60 minutes and 1 hour, or the members of an `or` in another order make no difference. The zone counts
    /// only if the occurrences depend on it.
    pub fn has_same_occurrences(&self, other: &Self) -> bool {
        let same_zone = || !self.schedule.follows_zone() || self.zone.has_rules_of(&other.zone);
        self.jitter == other.jitter && self.schedule.is_like(&*other.schedule) && same_zone()
    }

    /// Whether both mean the same in every respect, including the clock in which they are shown.
    pub fn is_equivalent(&self, other: &Self) -> bool {
        self.has_same_occurrences(other) && self.zone.has_rules_of(&other.zone)
    }

    /// The longest delay that jitter can give to the occurrence at `at`.
    pub fn jitter_at(&self, at: Timestamp) -> TimeDelta {
        self.jitter + self.schedule.member_jitter_at(at)
    }

    /// The number of simple triggers that it consists of.
    pub(super) fn leaves(&self) -> usize {
        self.schedule.leaves()
    }

    /// Whether all its occurrences are whole seconds.
    pub(super) fn is_whole_seconds(&self) -> bool {
        self.schedule.is_whole_seconds()
    }
}
