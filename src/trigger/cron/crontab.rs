//! Parses crontab(5) expressions: five fields from minute to weekday, six with a leading second, seven with a trailing
//! year, or a nickname such as `@daily`.
//!
//! The `cron` crate parses numbers and names. Lists, ranges and steps are parsed here, because here a range may wrap
//! around (`fri-mon`, `22-2`). The crate counts weekdays from Sunday as 1, which crontab(5) has as 0 or 7 and the
//! compiled fields as 6.

use cron::{Schedule, TimeUnitSpec};

use super::field_hints;
use super::field_parser::{ITEMS_MAX, Item};
use super::fields::CronFields;
use crate::invalid::quoted;
use crate::zone::whole;

/// Nicknames, and what they stand for.
const NICKNAMES: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

const FIRST_YEAR: u32 = 1970;
const LAST_YEAR: u32 = 9999;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Second,
    Minute,
    Hour,
    Day,
    Month,
    Weekday,
    Year,
}

const UNITS: [Unit; 7] =
    [Unit::Second, Unit::Minute, Unit::Hour, Unit::Day, Unit::Month, Unit::Weekday, Unit::Year];

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
            Self::Weekday => "weekday",
            Self::Year => "year",
        }
    }

    /// The smallest and the largest value.
    fn range(self) -> (u32, u32) {
        match self {
            Self::Second | Self::Minute => (0, 59),
            Self::Hour => (0, 23),
            Self::Day => (1, 31),
            Self::Month => (1, 12),
            Self::Weekday => (1, 7),
            Self::Year => (FIRST_YEAR, LAST_YEAR),
        }
    }

    /// The accepted values, for an error message.
    fn expected(self) -> String {
        let (min, max) = if self == Self::Weekday { (0, 7) } else { self.range() };
        let names = match self {
            Self::Month => ", or jan to dec",
            Self::Weekday => ", or sun to sat",
            Self::Second | Self::Minute | Self::Hour | Self::Day | Self::Year => "",
        };
        format!("{} is {min} to {max}{names}", self.name())
    }

    /// Parses a single number or name.
    fn value(self, text: &str) -> Option<u32> {
        let text = match (self, whole(text)) {
            // The crate's years end at 2100.
            (Self::Year, year) => {
                return year.filter(|year| (FIRST_YEAR..=LAST_YEAR).contains(year));
            }
            // Sunday is 0 or 7 in crontab(5).
            (Self::Weekday, Some(number @ 0..=7)) => (number % 7 + 1).to_string(),
            (Self::Weekday, Some(_)) => return None,
            (_, _) => text.to_owned(),
        };
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return None;
        }
        let fields = UNITS.map(|unit| if unit == self { text.as_str() } else { "*" });
        let schedule: Schedule = fields.join(" ").parse().ok()?;
        let ordinals = match self {
            Self::Second => schedule.seconds().iter().collect::<Vec<_>>(),
            Self::Minute => schedule.minutes().iter().collect(),
            Self::Hour => schedule.hours().iter().collect(),
            Self::Day => schedule.days_of_month().iter().collect(),
            Self::Month => schedule.months().iter().collect(),
            Self::Weekday => schedule.days_of_week().iter().collect(),
            Self::Year => schedule.years().iter().collect(),
        };
        // A single letter such as `l` or `w` may stand for several values.
        let [value] = ordinals.as_slice() else { return None };
        Some(*value)
    }

    /// Converts a value into one of [`CronFields`], whose weekdays begin with Monday as 0.
    fn to_field_value(self, value: u32) -> u32 {
        if self == Self::Weekday { (value + 5) % 7 } else { value }
    }
}

/// Why an expression cannot be parsed.
struct CrontabError {
    why: String,
    /// The column, counted from 0.
    at: usize,
    /// What to write instead, if the mistake is a known one; appended to the message.
    hint: String,
}

impl CrontabError {
    fn new(why: String, at: usize) -> Self {
        Self { why, at, hint: String::new() }
    }

    /// The same error in a text that begins `by` columns earlier.
    fn shifted(self, by: usize) -> Self {
        Self { at: self.at + by, ..self }
    }
}

/// A parsed expression.
#[derive(Debug)]
pub(super) struct Expression {
    pub(super) fields: CronFields,
    /// Whether the minute or the hour has a `*`. This decides how cron(8) treats changes of the clock.
    pub(super) has_wildcard_time: bool,
}

/// Parses an expression. The error says what is wrong and where.
pub(super) fn parse(text: &str) -> Result<Expression, String> {
    let trimmed = text.trim();
    if trimmed.starts_with('@') {
        let nickname = NICKNAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(trimmed));
        let Some((_, meaning)) = nickname else {
            let known = NICKNAMES.map(|(name, _)| name).join(", ");
            return Err(format!("{}: unknown nickname (known: {known})", quoted(text)));
        };
        return parse(meaning);
    }
    let words = words(text);
    let units = match words.len() {
        5 => UNITS.get(1..6),
        6 => UNITS.get(..6),
        7 => Some(&UNITS[..]),
        _ => None,
    };
    let Some(units) = units else {
        return Err(format!(
            "{} has {} fields (expected 5: minute hour day month weekday; 6 with the second first; 7 with the \
             year last; or a nickname such as @daily)",
            quoted(text),
            words.len()
        ));
    };
    let word_of = |wanted: Unit| {
        let given = units.iter().zip(&words).find(|(unit, _)| **unit == wanted);
        let default = if wanted == Unit::Second { "0" } else { "*" };
        given.map_or((default, 0), |(_, (word, column))| (*word, *column))
    };
    let field = |wanted: Unit| {
        let (word, column) = word_of(wanted);
        let items = items(wanted, word).map_err(|CrontabError { why, at, hint }| {
            format!("{}: {why}, at column {}{hint}", quoted(text), column + at + 1)
        })?;
        Ok::<_, String>((items, word.starts_with(['*', '?'])))
    };
    let ((days, any_day), (weekdays, any_weekday)) = (field(Unit::Day)?, field(Unit::Weekday)?);
    let ((years, _), (months, _)) = (field(Unit::Year)?, field(Unit::Month)?);
    let ((hours, _), (minutes, _)) = (field(Unit::Hour)?, field(Unit::Minute)?);
    let (seconds, _) = field(Unit::Second)?;
    let weeks = vec![Item::Range { first: 1, last: 53, step: 1 }];
    let fields = CronFields::new(&[years, months, days, weeks, weekdays, hours, minutes, seconds]);
    // If both the day and the weekday are restricted, one of them is enough, as crontab(5) says.
    let fields = if any_day || any_weekday { fields } else { fields.with_either_day() };
    let has_wildcard_time =
        [Unit::Minute, Unit::Hour].iter().any(|unit| word_of(*unit).0.contains('*'));
    Ok(Expression { fields, has_wildcard_time })
}

/// The words of a text, each with its column.
fn words(text: &str) -> Vec<(&str, usize)> {
    let mut column = 0;
    let mut words = Vec::new();
    for part in text.split(char::is_whitespace) {
        if !part.is_empty() {
            words.push((part, column));
        }
        column += part.chars().count() + 1;
    }
    words
}

/// Parses a field: a list with commas.
fn items(unit: Unit, text: &str) -> Result<Vec<Item>, CrontabError> {
    let (mut items, mut column) = (Vec::new(), 0);
    for (number, part) in text.split(',').enumerate() {
        if number >= ITEMS_MAX {
            return Err(CrontabError::new(format!("more than {ITEMS_MAX} items"), column));
        }
        items.extend(item(unit, part).map_err(|error| error.shifted(column))?);
        column += part.chars().count() + 1;
    }
    Ok(items)
}

/// Parses `*`, `a` or `a-b`, with or without `/step`.
fn item(unit: Unit, text: &str) -> Result<Vec<Item>, CrontabError> {
    let (range, step) =
        text.split_once('/').map_or((text, None), |(range, step)| (range, Some(step)));
    let step_at = range.chars().count() + 1;
    let (min, max) = unit.range();
    if range == "*" || (range == "?" && matches!(unit, Unit::Day | Unit::Weekday)) {
        let step = self::step(step, unit, min, max - min + 1, step_at)?;
        return Ok(self::range(unit, min, max, step));
    }
    let (first, last) =
        range.split_once('-').map_or((range, None), |(first, last)| (first, Some(last)));
    let last_at = first.chars().count() + 1;
    let first_value = value(unit, first, 0)?;
    let is_seven = |text: &str| unit == Unit::Weekday && whole(text) == Some(7);
    let last_value = match (last, step) {
        // As the end of a range, 7 comes after 6, even if the range begins with Sunday.
        (Some(last), _) if is_seven(last) && first_value == min && !is_seven(first) => max,
        (Some(last), _) => value(unit, last, last_at)?,
        (None, Some(_)) if !is_seven(first) => max,
        (None, _) => first_value,
    };
    if first_value <= last_value {
        let step = self::step(step, unit, first_value, last_value - first_value + 1, step_at)?;
        return Ok(self::range(unit, first_value, last_value, step));
    }
    if unit == Unit::Year {
        return Err(CrontabError::new(format!("the range {range} goes backwards"), 0));
    }
    let wrapped: Vec<u32> = (first_value..=max).chain(min..=last_value).collect();
    let width = u32::try_from(wrapped.len()).unwrap_or(u32::MAX);
    let step = self::step(step, unit, first_value, width, step_at)?;
    let step = usize::try_from(step).unwrap_or(1);
    Ok(wrapped.into_iter().step_by(step).map(|value| single(unit.to_field_value(value))).collect())
}

fn single(value: u32) -> Item {
    Item::Range { first: value, last: value, step: 1 }
}

/// Converts a range of values.
fn range(unit: Unit, first: u32, last: u32, step: u32) -> Vec<Item> {
    if unit == Unit::Weekday {
        let by = usize::try_from(step).unwrap_or(1);
        return (first..=last)
            .step_by(by)
            .map(|value| single(unit.to_field_value(value)))
            .collect();
    }
    vec![Item::Range { first, last, step }]
}

fn value(unit: Unit, text: &str, at: usize) -> Result<u32, CrontabError> {
    if text.is_empty() {
        return Err(CrontabError::new("an item is missing".to_owned(), at));
    }
    unit.value(text).ok_or_else(|| CrontabError {
        why: format!("unknown {} ({})", quoted(text), unit.expected()),
        at,
        hint: field_hints::for_value(text).to_owned(),
    })
}

/// Parses the step of a range of `values` values that begins with `first`. A step that is larger than the range would
/// not mean what it seems to say, so it is refused.
fn step(
    text: Option<&str>,
    unit: Unit,
    first: u32,
    values: u32,
    at: usize,
) -> Result<u32, CrontabError> {
    let Some(text) = text else { return Ok(1) };
    match whole(text) {
        Some(step) if (1..=values).contains(&step) => Ok(step),
        Some(step) => {
            let (min, max) = unit.range();
            let is_whole_range = first == min && values == max - min + 1;
            // The message has the number that crontab(5) gives a weekday.
            let first = if unit == Unit::Weekday { (first + 6) % 7 } else { first };
            let too_large = step > values;
            Err(CrontabError {
                why: format!(
                    "the step {step} is not between 1 and {values}, the values of its range"
                ),
                at,
                hint: if too_large {
                    field_hints::for_step(unit.name(), first, step, is_whole_range)
                } else {
                    String::new()
                },
            })
        }
        None => Err(CrontabError::new(format!("{} is not a step", quoted(text)), at)),
    }
}
