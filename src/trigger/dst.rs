//! Readings of the wall clock that it skips when it is set forward (a gap), or shows twice when it is set back (a
//! fold).

use chrono::{NaiveDateTime, TimeDelta};

use crate::clock::Timestamp;
use crate::zone::{Local, Zone};

/// The longest change of the clock that cron(8) takes for summer time. A longer one is a correction of the clock, after
/// which the new time counts as it is.
const SUMMER_TIME_MAX: TimeDelta = TimeDelta::hours(3);

/// What happens to an occurrence whose reading is in a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GapPolicy {
    /// It does not exist.
    Skip,
    /// It moves to the first instant after the gap.
    Shift,
    /// `Shift` in a gap of at most [`SUMMER_TIME_MAX`], else `Skip`.
    ShiftInSummerTime,
}

/// What happens to an occurrence whose reading is in a fold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FoldPolicy {
    /// It exists twice.
    Both,
    /// It exists the first time only.
    First,
    /// `First` in a fold of at most [`SUMMER_TIME_MAX`], else `Both`.
    FirstInSummerTime,
}

/// How a trigger treats changes of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DstPolicy {
    pub(super) gap: GapPolicy,
    pub(super) fold: FoldPolicy,
}

impl DstPolicy {
    /// What cron(8) does with a job that has a fixed minute and hour.
    pub(super) const CRON_FIXED: Self =
        Self { gap: GapPolicy::ShiftInSummerTime, fold: FoldPolicy::FirstInSummerTime };
    /// What cron(8) does with a job that has a `*` in its minute or hour.
    pub(super) const CRON_WILDCARD: Self = Self { gap: GapPolicy::Skip, fold: FoldPolicy::Both };

    /// Whether a reading in a gap of this length moves to the first instant after it.
    pub(super) fn shifts(self, length: TimeDelta) -> bool {
        match self.gap {
            GapPolicy::Skip => false,
            GapPolicy::Shift => true,
            GapPolicy::ShiftInSummerTime => length <= SUMMER_TIME_MAX,
        }
    }

    /// Whether a reading that stands for the instants `first` and `second` exists twice.
    pub(super) fn repeats(self, first: Timestamp, second: Timestamp) -> bool {
        match self.fold {
            FoldPolicy::Both => true,
            FoldPolicy::First => false,
            FoldPolicy::FirstInSummerTime => second.signed_duration_since(first) > SUMMER_TIME_MAX,
        }
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

/// The occurrences of a trigger whose readings are in one gap of its zone's clock.
#[derive(Debug, Clone, PartialEq)]
pub struct DstGap {
    pub zone: Zone,
    /// The reading of the first of these occurrences.
    pub first: NaiveDateTime,
    /// The number of these occurrences.
    pub count: u64,
    /// The first reading that the clock skips.
    pub from: NaiveDateTime,
    /// The reading that it shows after the gap.
    pub until: NaiveDateTime,
    /// The first instant after the gap.
    pub resumes: Timestamp,
    /// Whether the trigger fires at `resumes` in place of these occurrences, and would not fire then otherwise.
    pub shifted: bool,
}

/// The readings that a clock skips when it is set forward.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClockGap {
    /// The first skipped reading.
    pub(super) from: NaiveDateTime,
    /// The reading after the gap.
    pub(super) until: NaiveDateTime,
    /// The first instant after the gap.
    pub(super) resumes: Timestamp,
}

impl ClockGap {
    pub(super) fn length(self) -> TimeDelta {
        self.until - self.from
    }

    /// The `count` occurrences of a trigger in this gap, the first of which is at `first`.
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

/// The gap that ends at an instant, if there is one.
pub(super) fn gap_at(zone: &Zone, at: Timestamp) -> Option<ClockGap> {
    let before = zone.to_local(at.checked_sub_signed(TimeDelta::seconds(1))?);
    let from = before.checked_add_signed(TimeDelta::seconds(1))?;
    let until = zone.to_local(at);
    (from < until).then_some(ClockGap { from, until, resumes: at })
}

/// The gaps that end within `from < instant <= to`, in order.
pub(super) fn gaps(zone: &Zone, from: Timestamp, to: Timestamp) -> impl Iterator<Item = ClockGap> {
    let next = move |at: &Timestamp| zone.transition_after(*at);
    std::iter::successors(next(&from), next)
        .take_while(move |at| *at <= to)
        .filter_map(move |at| gap_at(zone, at))
}
