//! The eight calendar fields, compiled into sets of bits, and the search for readings of the clock that match them.

use chrono::{NaiveDateTime, TimeDelta};
use serde_json::Value;

use super::bits;
use super::dates::Dates;
use super::field_parser::{FieldShape, Item, MONTHS, WEEKDAYS, parse};
use super::times::Times;
use crate::invalid::Invalid;
use crate::trigger::spec::SpecReader;

/// The names of the fields, from the coarsest to the finest.
pub(super) const FIELD_NAMES: [&str; 8] =
    ["year", "month", "day", "week", "day_of_week", "hour", "minute", "second"];

const SHAPES: [FieldShape; 8] = [
    FieldShape { name: "year", min: 1970, max: 9999, names: &[] },
    FieldShape { name: "month", min: 1, max: 12, names: &MONTHS },
    FieldShape { name: "day", min: 1, max: 31, names: &[] },
    FieldShape { name: "week", min: 1, max: 53, names: &[] },
    FieldShape { name: "day_of_week", min: 0, max: 6, names: &WEEKDAYS },
    FieldShape { name: "hour", min: 0, max: 23, names: &[] },
    FieldShape { name: "minute", min: 0, max: 59, names: &[] },
    FieldShape { name: "second", min: 0, max: 59, names: &[] },
];

/// The sets of values that the fields allow.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CronFields {
    dates: Dates,
    times: Times,
}

/// Reads the text of a field, which may also be given as a number.
fn field_text(spec: &mut SpecReader, name: &'static str) -> Result<Option<String>, Invalid> {
    match spec.take(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Number(number)) if number.is_u64() => Ok(Some(number.to_string())),
        Some(other) => {
            Err(Invalid::new(name, format!("must be a whole number or an expression, not {other}")))
        }
    }
}

impl CronFields {
    /// Reads the fields. An absent field is `*` if it is coarser than the finest one given, else its minimum; an absent
    /// `week` or `day_of_week` is always `*`.
    pub(super) fn parse(spec: &mut SpecReader) -> Result<Self, Invalid> {
        let mut texts = Vec::new();
        for name in FIELD_NAMES {
            texts.push(field_text(spec, name)?);
        }
        let Some(finest) = texts.iter().rposition(Option::is_some) else {
            spec.refuse_unknown()?;
            let known = FIELD_NAMES.join(", ");
            return Err(Invalid::new(
                "",
                format!("a cron trigger needs at least one of its fields ({known})"),
            ));
        };
        let mut sets = Vec::new();
        for (number, (shape, text)) in SHAPES.iter().zip(&texts).enumerate() {
            let always = number < finest || matches!(shape.name, "week" | "day_of_week");
            let default = if always { "*".to_owned() } else { shape.min.to_string() };
            let items = parse(shape, text.as_ref().unwrap_or(&default));
            sets.push(items.map_err(|why| Invalid::new(shape.name, why))?);
        }
        Ok(Self::new(&sets))
    }

    /// Compiles the items of the fields, in the order of [`FIELD_NAMES`].
    pub(super) fn new(sets: &[Vec<Item>]) -> Self {
        let set = |number: usize| sets.get(number).map(Vec::as_slice).unwrap_or_default();
        let dates = Dates::new([set(0), set(1), set(2), set(3), set(4)]);
        let [hours, minutes, seconds] = [5, 6, 7].map(|number| bits::from_items(set(number)));
        Self { dates, times: Times { hours, minutes, seconds } }
    }

    /// The same fields, but a date matches if its day or its weekday matches, instead of both.
    pub(super) fn with_either_day(self) -> Self {
        Self { dates: self.dates.with_either_day(), ..self }
    }

    /// Whether a reading matches every field.
    pub(super) fn matches(&self, at: NaiveDateTime) -> bool {
        self.dates.matches(at.date()) && self.times.matches(at.time())
    }

    /// The first matching reading at or after `from`, which is a whole second.
    pub(super) fn next(&self, from: NaiveDateTime) -> Option<NaiveDateTime> {
        let (date, time) = (from.date(), from.time());
        if self.dates.contains(date)
            && let Some(time) = self.times.next(time)
        {
            return Some(date.and_time(time));
        }
        Some(self.dates.next(date.succ_opt()?)?.and_time(self.times.first()?))
    }

    /// The last matching reading before `until`, which is a whole second.
    pub(super) fn last_before(&self, until: NaiveDateTime) -> Option<NaiveDateTime> {
        let latest = until.checked_sub_signed(TimeDelta::seconds(1))?;
        if self.dates.contains(latest.date())
            && let Some(time) = self.times.last_until(latest.time())
        {
            return Some(latest.date().and_time(time));
        }
        Some(self.dates.last_until(latest.date().pred_opt()?)?.and_time(self.times.last()?))
    }

    /// The number of matching readings with `from <= reading < until`.
    pub(super) fn count(&self, from: NaiveDateTime, until: NaiveDateTime) -> u64 {
        if from >= until {
            return 0;
        }
        let before = |at: NaiveDateTime| {
            if self.dates.contains(at.date()) { self.times.count_before(at.time()) } else { 0 }
        };
        let whole_days = self.dates.count(from.date(), until.date());
        // All matches of the days, minus those before `from` on its day, plus those before `until` on its day.
        (whole_days * self.times.in_a_day() + before(until)).saturating_sub(before(from))
    }
}
