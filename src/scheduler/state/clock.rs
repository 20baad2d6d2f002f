//! Detects that the clock was set back by hours, and how far the correction of the schedule has come.
//!
//! A clock that was ahead has carried every recurring job along: the next occurrence lies beyond the wrong time. So when
//! the clock is found more than [`BEHIND_MAX`] behind the latest instant that this process has seen or the store has
//! recorded, all jobs are looked at, a page per step (`step/correct.rs`).

use chrono::TimeDelta;

use crate::clock::Timestamp;
use crate::job::JobId;
use crate::store::{Change, Node};

/// How far the clock may be behind a recorded instant. More is a correction of the clock, as for cron(8); less is waited
/// for.
const BEHIND_MAX: TimeDelta = TimeDelta::hours(3);
/// How often the current time is recorded in the store, together with a step that writes anyway.
const RECORD_EVERY: TimeDelta = TimeDelta::minutes(10);
/// The beginning of 2026, in seconds. A clock that shows an earlier time is itself wrong, like that of a machine without
/// a battery before it is set: nothing continues from there.
const PLAUSIBLE_FROM: i64 = 1_767_225_600;

/// A correction of the clock, as the status shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockCorrection {
    /// The latest instant that was known before.
    pub recorded: Timestamp,
    /// When it was found, by the corrected clock.
    pub found_at: Timestamp,
    /// How many recurring jobs continue from then.
    pub jobs: u64,
    /// Whether all jobs were looked at.
    pub is_done: bool,
}

/// A page of jobs that a step has looked at because the clock was corrected.
#[derive(Debug, Default)]
pub(crate) struct CorrectedPage {
    /// How many of them continue from now.
    pub(crate) moved: u64,
    pub(crate) last: Option<JobId>,
    pub(crate) is_last: bool,
}

#[derive(Debug, Default)]
pub(crate) struct ClockWatch {
    /// The latest instant that the store has recorded.
    recorded: Option<Timestamp>,
    /// The latest instant that this process has seen.
    seen: Option<Timestamp>,
    /// The last correction that this process has found.
    pub(crate) correction: Option<ClockCorrection>,
    /// The last job that the correction has looked at.
    pub(crate) looked_at: Option<JobId>,
    /// Whether the log says already that another node's clock is ahead.
    has_warned: bool,
    /// The last instant to which a definition was dated back.
    pub(crate) dated_back: Option<Timestamp>,
}

impl ClockWatch {
    /// Takes over the latest instant that the store has recorded. Returns true if it is earlier than before: then another
    /// node has corrected the schedule.
    pub(crate) fn set_recorded(&mut self, recorded: Option<Timestamp>) -> bool {
        let former = self.recorded;
        self.recorded = recorded.or(former);
        former > self.recorded
    }

    /// Whether a correction still has jobs to look at.
    pub(crate) fn is_under_way(&self) -> bool {
        self.correction.is_some_and(|correction| !correction.is_done)
    }

    /// Takes note of the time of a step, and begins a correction if one is needed.
    pub(crate) fn observe(&mut self, now: Timestamp, me: &str, nodes: &[Node]) {
        let latest = self.recorded.max(self.seen);
        self.seen = self.seen.max(Some(now));
        let Some(recorded) = latest.filter(|latest| is_behind(now, *latest)) else { return };
        if self.is_under_way() || now.timestamp() < PLAUSIBLE_FROM {
            return;
        }
        // Which clock is right is unknown while a node lives whose clock is ahead: it goes on firing by that clock.
        let mut others = nodes.iter().filter(|node| node.name != me);
        if let Some(node) = others.find(|node| is_behind(now, node.seen_at)) {
            if !std::mem::replace(&mut self.has_warned, true) {
                tracing::warn!(node = %node.name, its_clock = %node.seen_at,
                    "the clock of another node is hours ahead of this one; recurring jobs stay as they are planned until it is set, or the node ends");
            }
            return;
        }
        (self.has_warned, self.looked_at) = (false, None);
        self.correction =
            Some(ClockCorrection { recorded, found_at: now, jobs: 0, is_done: false });
    }

    /// Adds the current time to the changes of a step if the store's record is old. Returns whether it did.
    pub(crate) fn record(&self, now: Timestamp, changes: &mut Vec<Change>) -> bool {
        let is_fresh = |recorded: Timestamp| now.signed_duration_since(recorded) < RECORD_EVERY;
        if changes.is_empty() || self.recorded.is_some_and(is_fresh) {
            return false;
        }
        changes.push(Change::RecordTime(now));
        true
    }

    /// A step is committed: with the page that it has looked at, and with the current time if `has_time`.
    pub(crate) fn committed(
        &mut self,
        now: Timestamp,
        page: Option<CorrectedPage>,
        dated_back: Option<Timestamp>,
        has_time: bool,
    ) {
        self.dated_back = dated_back;
        let is_last = page.as_ref().is_some_and(|page| page.is_last);
        if has_time || is_last {
            self.recorded = Some(now);
        }
        let (Some(page), Some(correction)) = (page, &mut self.correction) else { return };
        correction.jobs += page.moved;
        self.looked_at = page.last;
        if is_last {
            correction.is_done = true;
            self.seen = Some(now);
            let ClockCorrection { recorded, jobs, .. } = *correction;
            tracing::warn!(it_was = %recorded, jobs,
                "the clock was set back by hours: recurring jobs continue from now");
        }
    }
}

/// Whether the clock is so far behind an instant that it must have been corrected.
pub(crate) fn is_behind(now: Timestamp, latest: Timestamp) -> bool {
    latest.signed_duration_since(now) > BEHIND_MAX
}
