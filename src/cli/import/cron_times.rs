//! When cron would run a line next: it compares each minute with the five fields, as cron does. This shares nothing with
//! the triggers, so that a dry run of an import shows two independent answers. What cron does when the clock changes for
//! summer time is not part of it.

use chrono::{Datelike, NaiveDateTime, TimeDelta, Timelike};

use crate::clock::Timestamp;
use crate::zone::Zone;

/// How far ahead is searched: the next February 29 is at most eight years away.
const SEARCHED: TimeDelta = TimeDelta::days(8 * 366 + 2);
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// The values of one field, as bits, and whether it begins with a star.
#[derive(Debug, Clone, Copy)]
struct FieldValues {
    bits: u64,
    is_star: bool,
}

impl FieldValues {
    fn parse(text: &str, min: u32, max: u32, names: &[&str]) -> Option<Self> {
        let mut bits = 0;
        for item in text.split(',') {
            let (range, step) = match item.split_once('/') {
                Some((range, step)) => (range, step.parse().ok().filter(|step| *step > 0)?),
                None => (item, 1),
            };
            let value = |text: &str| {
                let known =
                    names.iter().zip(min..).find(|(name, _)| text.eq_ignore_ascii_case(name));
                let value = known.map_or_else(|| text.parse().ok(), |(_, value)| Some(value))?;
                (min..=max).contains(&value).then_some(value)
            };
            let (first, last) = match range.split_once('-') {
                _ if range == "*" => (min, max),
                Some((first, last)) => (value(first)?, value(last)?),
                None if step == 1 => (value(range)?, value(range)?),
                None => (value(range)?, max),
            };
            (first..=last).step_by(step).for_each(|value| bits |= 1_u64 << value);
        }
        (bits != 0).then_some(Self { bits, is_star: text.starts_with('*') })
    }

    fn has(self, value: u32) -> bool {
        self.bits & (1 << value) != 0
    }
}

#[derive(Debug)]
struct CronLine {
    minute: FieldValues,
    hour: FieldValues,
    day: FieldValues,
    month: FieldValues,
    weekday: FieldValues,
}

impl CronLine {
    fn parse(schedule: &str) -> Option<Self> {
        let schedule = match schedule.to_ascii_lowercase().as_str() {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            _ => schedule,
        };
        let fields: Vec<&str> = schedule.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else { return None };
        let mut weekday = FieldValues::parse(weekday, 0, 7, &WEEKDAYS)?;
        // 7 is Sunday, too.
        weekday.bits |= weekday.bits >> 7 & 1;
        Some(Self {
            minute: FieldValues::parse(minute, 0, 59, &[])?,
            hour: FieldValues::parse(hour, 0, 23, &[])?,
            day: FieldValues::parse(day, 1, 31, &[])?,
            month: FieldValues::parse(month, 1, 12, &MONTHS)?,
            weekday,
        })
    }

    fn has_date(&self, at: NaiveDateTime) -> bool {
        let day = self.day.has(at.day());
        let weekday = self.weekday.has(at.weekday().num_days_from_sunday());
        let is_both = self.day.is_star || self.weekday.is_star;
        self.month.has(at.month()) && if is_both { day && weekday } else { day || weekday }
    }
}

/// The first minute after `now` at which cron would run a line with this time; none if that is years away, or if cron would
/// not take the line.
pub(super) fn next(schedule: &str, zone: &Zone, now: Timestamp) -> Option<Timestamp> {
    let line = CronLine::parse(schedule)?;
    let into_minute = TimeDelta::seconds(now.timestamp().rem_euclid(60))
        + TimeDelta::nanoseconds(now.timestamp_subsec_nanos().into());
    let mut at = now - into_minute + TimeDelta::minutes(1);
    let until = now.checked_add_signed(SEARCHED)?;
    while at <= until {
        let local = zone.to_fixed(at).naive_local();
        let is_hour = line.has_date(local) && line.hour.has(local.hour());
        if is_hour && line.minute.has(local.minute()) {
            return Some(at);
        }
        // The rest of an hour without a match is stepped over. The clock may change within an hour, but at a quarter of it.
        let step = if is_hour { 1 } else { 15 - local.minute() % 15 };
        at += TimeDelta::minutes(step.into());
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::trigger::Trigger;

    fn instant(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn it_agrees_with_the_trigger() {
        let zone = Zone::parse("Europe/Berlin").unwrap();
        let now = instant("2026-11-30T00:20:31.5Z");
        for schedule in [
            "* * * * *",
            "*/15 2 * * *",
            "0 3 * * 1-5",
            "30 4 1,15 * fri",
            "0 0 29 2 *",
            "5 0-23/2 * jan-mar sun",
            "0 12 * * 7",
            "59 23 31 12 *",
            "10/20 * * * *",
            "@hourly",
            "@weekly",
            "@yearly",
        ] {
            let trigger = json!({"type": "crontab", "expression": schedule});
            let trigger = Trigger::compile(&trigger, &zone, now).unwrap();
            let found = next(schedule, &zone, now);
            assert!(found.is_some() && found == trigger.next_after(now), "{schedule}: {found:?}");
        }
    }

    #[test]
    fn what_cron_does_not_take_has_no_time() {
        let zone = Zone::utc();
        for schedule in ["", "* * * *", "60 * * * *", "* * 0 * *", "a * * * *", "*/0 * * * *", "@x"]
        {
            assert_eq!(next(schedule, &zone, instant("2026-11-30T00:00:00Z")), None, "{schedule}");
        }
        assert_eq!(next("0 0 30 2 *", &zone, instant("2026-11-30T00:00:00Z")), None);
    }
}
