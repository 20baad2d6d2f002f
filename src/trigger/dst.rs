//! What becomes of a reading of the wall clock that it skips in spring, or shows twice in autumn.

use chrono::{NaiveDateTime, TimeDelta};

use super::spec::SpecReader;
use crate::clock::Timestamp;
use crate::invalid::Invalid;
use crate::zone::{Local, Zone};

/// Longest change of the clock that cron(8) takes for summer time. A longer one corrects the clock, and the new time
/// counts as it is.
const CRON_CHANGE_MAX: TimeDelta = TimeDelta::hours(3);

/// What happens to a reading that the clock skips.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GapPolicy {
    /// It does not exist.
    Skip,
    /// It is the first instant after the gap.
    Shift,
    /// The same as `Shift` in a gap of at most three hours, else the same as `Skip`.
    ShiftInSummerTime,
}

/// What happens to a reading that the clock shows twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FoldPolicy {
    /// It happens twice.
    Both,
    /// It happens the first time only.
    First,
    /// The same as `First` in a fold of at most three hours, else the same as `Both`.
    FirstInSummerTime,
}

/// A trigger's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DstPolicy {
    pub(super) gap: GapPolicy,
    pub(super) fold: FoldPolicy,
}

impl DstPolicy {
    /// What cron(8) does with a job of a fixed minute and hour.
    pub(super) const CRON_FIXED: Self =
        Self { gap: GapPolicy::ShiftInSummerTime, fold: FoldPolicy::FirstInSummerTime };
    /// What cron(8) does with a job that has a `*` in its minute or hour.
    pub(super) const CRON_WILDCARD: Self = Self { gap: GapPolicy::Skip, fold: FoldPolicy::Both };

    /// Whether a reading in a gap of this length is the first instant after it.
    pub(super) fn shifts(self, length: TimeDelta) -> bool {
        match self.gap {
            GapPolicy::Skip => false,
            GapPolicy::Shift => true,
            GapPolicy::ShiftInSummerTime => length <= CRON_CHANGE_MAX,
        }
    }

    /// Whether a reading in a fold of this length happens twice.
    pub(super) fn repeats(self, first: Timestamp, second: Timestamp) -> bool {
        match self.fold {
            FoldPolicy::Both => true,
            FoldPolicy::First => false,
            FoldPolicy::FirstInSummerTime => second.signed_duration_since(first) > CRON_CHANGE_MAX,
        }
    }

    /// Reads `dst_gap` and `dst_fold`; `self` is what holds where they are not given.
    pub(super) fn or_given(self, given: &mut SpecReader) -> Result<Self, Invalid> {
        let gap = match given.word("dst_gap", &["skip", "shift"])? {
            Some("shift") => GapPolicy::Shift,
            Some(_) => GapPolicy::Skip,
            None => self.gap,
        };
        let fold = match given.word("dst_fold", &["both", "first"])? {
            Some("first") => FoldPolicy::First,
            Some(_) => FoldPolicy::Both,
            None => self.fold,
        };
        Ok(Self { gap, fold })
    }

    /// The instants of a reading, in order.
    pub(super) fn instants(
        self,
        zone: &Zone,
        reading: NaiveDateTime,
    ) -> impl Iterator<Item = Timestamp> + use<> {
        let (first, second) = match zone.resolve(reading) {
            Local::Single(at) => (Some(at), None),
            Local::Fold { first, second } => {
                (Some(first), Some(second).filter(|_| self.repeats(first, second)))
            }
            Local::Gap { end, length, .. } => (Some(end).filter(|_| self.shifts(length)), None),
        };
        first.into_iter().chain(second)
    }
}

/// Readings of a trigger that the clock skips at one change.
#[derive(Debug, Clone, PartialEq)]
pub struct DstGap {
    /// The zone whose clock it is.
    pub zone: Zone,
    /// The first of them.
    pub first: NaiveDateTime,
    /// How many there are.
    pub count: u64,
    /// What the clock skips: from this reading.
    pub from: NaiveDateTime,
    /// To this one, which it shows next.
    pub until: NaiveDateTime,
    /// The instant at which it goes on.
    pub resumes: Timestamp,
    /// Whether the trigger fires at that instant instead, and would not otherwise.
    pub shifted: bool,
}

/// Readings that the clock skipped: from the first, to before the last.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClockGap {
    pub(super) from: NaiveDateTime,
    pub(super) until: NaiveDateTime,
    /// The instant at which the clock goes on.
    pub(super) resumes: Timestamp,
}

impl ClockGap {
    /// By how much the clock was set forward.
    pub(super) fn length(self) -> TimeDelta {
        self.until - self.from
    }

    /// What a trigger misses of them: `count` readings from `first` on, for which it may fire when the clock resumes.
    pub(super) fn of_trigger(
        self,
        zone: &Zone,
        first: NaiveDateTime,
        count: u64,
        shifted: bool,
    ) -> DstGap {
        let Self { from, until, resumes } = self;
        DstGap { zone: zone.clone(), first, count, from, until, resumes, shifted }
    }
}

/// The readings that the clock skips at an instant, if it does.
pub(super) fn gap_at(zone: &Zone, at: Timestamp) -> Option<ClockGap> {
    let before = zone.to_local(at.checked_sub_signed(TimeDelta::seconds(1))?);
    let from = before.checked_add_signed(TimeDelta::seconds(1))?;
    let until = zone.to_local(at);
    (from < until).then_some(ClockGap { from, until, resumes: at })
}

/// The gaps of a zone's clock with `from < instant <= to`, in order.
pub(super) fn gaps(zone: &Zone, from: Timestamp, to: Timestamp) -> impl Iterator<Item = ClockGap> {
    let next = move |at: &Timestamp| zone.transition_after(*at);
    std::iter::successors(next(&from), next)
        .take_while(move |at| *at <= to)
        .filter_map(move |at| gap_at(zone, at))
}
