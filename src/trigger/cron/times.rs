//! The times of day that the fields hour, minute and second allow.

use chrono::{NaiveTime, Timelike};

use super::bits;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Times {
    pub(super) hours: u64,
    pub(super) minutes: u64,
    pub(super) seconds: u64,
}

impl Times {
    pub(super) fn matches(self, time: NaiveTime) -> bool {
        bits::has(self.hours, time.hour())
            && bits::has(self.minutes, time.minute())
            && bits::has(self.seconds, time.second())
    }

    /// The number of matching times in a day.
    pub(super) fn in_a_day(self) -> u64 {
        u64::from(self.hours.count_ones() * self.minutes.count_ones() * self.seconds.count_ones())
    }

    pub(super) fn first(self) -> Option<NaiveTime> {
        self.next(NaiveTime::MIN)
    }

    pub(super) fn last(self) -> Option<NaiveTime> {
        self.last_until(NaiveTime::from_hms_opt(23, 59, 59)?)
    }

    /// The first matching time at or after `from`.
    pub(super) fn next(self, from: NaiveTime) -> Option<NaiveTime> {
        let (hour, minute, second) = (from.hour(), from.minute(), from.second());
        let first_minute = bits::next(self.minutes, 0)?;
        let first_second = bits::next(self.seconds, 0)?;
        if bits::has(self.hours, hour) {
            let in_minute =
                bits::next(self.seconds, second).filter(|_| bits::has(self.minutes, minute));
            if let Some(second) = in_minute {
                return NaiveTime::from_hms_opt(hour, minute, second);
            }
            if let Some(minute) = bits::next(self.minutes, minute + 1) {
                return NaiveTime::from_hms_opt(hour, minute, first_second);
            }
        }
        NaiveTime::from_hms_opt(bits::next(self.hours, hour + 1)?, first_minute, first_second)
    }

    /// The last matching time at or before `until`.
    pub(super) fn last_until(self, until: NaiveTime) -> Option<NaiveTime> {
        let (hour, minute, second) = (until.hour(), until.minute(), until.second());
        let last_minute = bits::last(self.minutes, 59)?;
        let last_second = bits::last(self.seconds, 59)?;
        if bits::has(self.hours, hour) {
            let in_minute =
                bits::last(self.seconds, second).filter(|_| bits::has(self.minutes, minute));
            if let Some(second) = in_minute {
                return NaiveTime::from_hms_opt(hour, minute, second);
            }
            let earlier = minute.checked_sub(1).and_then(|until| bits::last(self.minutes, until));
            if let Some(minute) = earlier {
                return NaiveTime::from_hms_opt(hour, minute, last_second);
            }
        }
        let hour = bits::last(self.hours, hour.checked_sub(1)?)?;
        NaiveTime::from_hms_opt(hour, last_minute, last_second)
    }

    /// The number of matching times before `time`.
    pub(super) fn count_before(self, time: NaiveTime) -> u64 {
        let (minutes, seconds) =
            (u64::from(self.minutes.count_ones()), u64::from(self.seconds.count_ones()));
        let mut count = bits::count_below(self.hours, time.hour()) * minutes * seconds;
        if bits::has(self.hours, time.hour()) {
            count += bits::count_below(self.minutes, time.minute()) * seconds;
            if bits::has(self.minutes, time.minute()) {
                count += bits::count_below(self.seconds, time.second());
            }
        }
        count
    }
}
