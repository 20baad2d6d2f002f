//! Vixie crontab expressions: five fields from the minute on, six with the second first, seven
//! with the year last, or a nickname such as `@daily`.
//!
//! The `cron` crate reads the values, names and numbers alike; weekdays are spelled for it, which
//! it counts from Sunday as 1, and crontab(5) from Sunday as 0 or 7. Lists, ranges and steps are
//! read here, because here a range may go over the end (`fri-mon`, `22-2`).

use cron::{Schedule, TimeUnitSpec};

use super::expression::{ITEMS_MAX, Item};
use super::fields::CronFields;
use super::mistake;
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

/// Years, which the crate ends too early, at 2100.
const FIRST_YEAR: u32 = 1970;
const LAST_YEAR: u32 = 9999;

/// A field, in the order in which the crate has them.
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

    /// The crate's smallest and largest number.
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

    /// What can be written, for a person.
    fn expected(self) -> String {
        let (min, max) = if self == Self::Weekday { (0, 7) } else { self.range() };
        let names = match self {
            Self::Month => ", or jan to dec",
            Self::Weekday => ", or sun to sat",
            Self::Second | Self::Minute | Self::Hour | Self::Day | Self::Year => "",
        };
        format!("{} is {min} to {max}{names}", self.name())
    }

    /// What an item of the crate's language stands for, in its numbers.
    fn read(self, item: &str) -> Option<Vec<u32>> {
        let fields = UNITS.map(|unit| if unit == self { item } else { "*" });
        let schedule: Schedule = fields.join(" ").parse().ok()?;
        Some(match self {
            Self::Second => schedule.seconds().iter().collect(),
            Self::Minute => schedule.minutes().iter().collect(),
            Self::Hour => schedule.hours().iter().collect(),
            Self::Day => schedule.days_of_month().iter().collect(),
            Self::Month => schedule.months().iter().collect(),
            Self::Weekday => schedule.days_of_week().iter().collect(),
            // Years are read as they are.
            Self::Year => return None,
        })
    }

    /// A single number or name, in the crate's numbers.
    fn value(self, text: &str) -> Option<u32> {
        let spelled = match (self, whole(text)) {
            (Self::Year, year) => {
                return year.filter(|year| (FIRST_YEAR..=LAST_YEAR).contains(year));
            }
            // Sunday is 0 or 7 here, and 1 there.
            (Self::Weekday, Some(number @ 0..=7)) => (number % 7 + 1).to_string(),
            (Self::Weekday, Some(_)) => return None,
            (_, _) => text.to_owned(),
        };
        if !spelled.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return None;
        }
        match self.read(&spelled)?.as_slice() {
            [value] => Some(*value),
            [..] => None,
        }
    }

    /// The crate's numbers as ours: its weekdays begin with Sunday as 1, ours with Monday as 0.
    fn ours(self, value: u32) -> u32 {
        if self == Self::Weekday { (value + 5) % 7 } else { value }
    }
}

/// Why an expression cannot be read.
struct CrontabError {
    why: String,
    /// At which column, counted from 0.
    at: usize,
    /// What to write instead, for a mistake that is known.
    instead: String,
}

impl CrontabError {
    fn new(why: String, at: usize) -> Self {
        Self { why, at, instead: String::new() }
    }

    /// The same fault, of a text that begins `by` columns later.
    fn moved(self, by: usize) -> Self {
        Self { at: self.at + by, ..self }
    }
}

/// An expression that was read.
#[derive(Debug)]
pub(super) struct Expression {
    pub(super) fields: CronFields,
    /// Whether the minute or the hour has a `*`: cron(8) then goes by the clock alone when that is changed.
    pub(super) has_wildcard_time: bool,
}

/// Reads an expression. The error says what to write instead, if the mistake is a known one.
pub(super) fn parse(text: &str) -> Result<Expression, String> {
    read(text).map_err(|fault| match mistake::of_expression(text.trim()) {
        Some(instead) => format!("{}: {instead}", quoted(text.trim())),
        None => fault,
    })
}

/// The same; the error only says what is wrong.
pub(super) fn read(text: &str) -> Result<Expression, String> {
    let trimmed = text.trim();
    if trimmed.starts_with('@') {
        let nickname = NICKNAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(trimmed));
        let Some((_, meaning)) = nickname else {
            let known = NICKNAMES.map(|(name, _)| name).join(", ");
            return Err(format!("{}: unknown nickname (known: {known})", quoted(text)));
        };
        return read(meaning);
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
        let items = items(wanted, word).map_err(|CrontabError { why, at, instead }| {
            format!("{}: {why}, at column {}{instead}", quoted(text), column + at + 1)
        })?;
        Ok::<_, String>((items, word.starts_with(['*', '?'])))
    };
    let ((days, any_day), (weekdays, any_weekday)) = (field(Unit::Day)?, field(Unit::Weekday)?);
    let ((years, _), (months, _)) = (field(Unit::Year)?, field(Unit::Month)?);
    let ((hours, _), (minutes, _)) = (field(Unit::Hour)?, field(Unit::Minute)?);
    let (seconds, _) = field(Unit::Second)?;
    let weeks = vec![Item::Range { first: 1, last: 53, step: 1 }];
    let fields = CronFields::new(&[years, months, days, weeks, weekdays, hours, minutes, seconds]);
    // Only if both are restricted, one of them is enough: so it is written in crontab(5).
    let fields = if any_day || any_weekday { fields } else { fields.with_either_day() };
    let has_wildcard_time =
        [Unit::Minute, Unit::Hour].iter().any(|unit| word_of(*unit).0.contains('*'));
    Ok(Expression { fields, has_wildcard_time })
}

/// The words of a text, each with the column at which it begins.
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

/// Reads a field: a list with commas.
fn items(unit: Unit, text: &str) -> Result<Vec<Item>, CrontabError> {
    let (mut items, mut column) = (Vec::new(), 0);
    for (number, part) in text.split(',').enumerate() {
        if number >= ITEMS_MAX {
            return Err(CrontabError::new(format!("more than {ITEMS_MAX} items"), column));
        }
        items.extend(item(unit, part).map_err(|fault| fault.moved(column))?);
        column += part.chars().count() + 1;
    }
    Ok(items)
}

/// Reads `*`, `a`, `a-b`, each with `/step` or without.
fn item(unit: Unit, text: &str) -> Result<Vec<Item>, CrontabError> {
    let (range, step) =
        text.split_once('/').map_or((text, None), |(range, step)| (range, Some(step)));
    let step_at = range.chars().count() + 1;
    let (min, max) = unit.range();
    if range == "*" || (range == "?" && matches!(unit, Unit::Day | Unit::Weekday)) {
        let step = self::step(step, unit, (min, max - min + 1), step_at)?;
        return Ok(weekday_or_range(unit, (min, max), step));
    }
    let (first, last) =
        range.split_once('-').map_or((range, None), |(first, last)| (first, Some(last)));
    let last_at = first.chars().count() + 1;
    let first_value = value(unit, first, 0)?;
    let is_seven = |text: &str| unit == Unit::Weekday && whole(text) == Some(7);
    let last_value = match (last, step) {
        // As the end of a range 7 comes after 6, also for one that begins with Sunday.
        (Some(last), _) if is_seven(last) && first_value == min && !is_seven(first) => max,
        (Some(last), _) => value(unit, last, last_at)?,
        (None, Some(_)) if !is_seven(first) => max,
        (None, _) => first_value,
    };
    if first_value <= last_value {
        let step = self::step(step, unit, (first_value, last_value - first_value + 1), step_at)?;
        return Ok(weekday_or_range(unit, (first_value, last_value), step));
    }
    if unit == Unit::Year {
        return Err(CrontabError::new(format!("the range {range} goes backwards"), 0));
    }
    let over_the_end: Vec<u32> = (first_value..=max).chain(min..=last_value).collect();
    let width = u32::try_from(over_the_end.len()).unwrap_or(u32::MAX);
    let step = self::step(step, unit, (first_value, width), step_at)?;
    let step = usize::try_from(step).unwrap_or(1);
    Ok(over_the_end.into_iter().step_by(step).map(|value| single(unit.ours(value))).collect())
}

fn single(value: u32) -> Item {
    Item::Range { first: value, last: value, step: 1 }
}

/// A range in the crate's numbers as ours.
fn weekday_or_range(unit: Unit, (first, last): (u32, u32), step: u32) -> Vec<Item> {
    if unit == Unit::Weekday {
        let by = usize::try_from(step).unwrap_or(1);
        return (first..=last).step_by(by).map(|value| single(unit.ours(value))).collect();
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
        instead: mistake::of_value(text).to_owned(),
    })
}

/// A step over this many values from the first one on. A larger one than there are values would be taken for what it is
/// not.
fn step(
    text: Option<&str>,
    unit: Unit,
    (first, values): (u32, u32),
    at: usize,
) -> Result<u32, CrontabError> {
    let Some(text) = text else { return Ok(1) };
    match whole(text) {
        Some(step) if (1..=values).contains(&step) => Ok(step),
        Some(step) => {
            let (min, max) = unit.range();
            let is_whole_range = first == min && values == max - min + 1;
            // As people write it: the crate has Sunday as 1.
            let first = if unit == Unit::Weekday { (first + 6) % 7 } else { first };
            let too_large = step > values;
            Err(CrontabError {
                why: format!(
                    "the step {step} is not between 1 and {values}, the values of its range"
                ),
                at,
                instead: if too_large {
                    mistake::of_step(unit.name(), first, step, is_whole_range)
                } else {
                    String::new()
                },
            })
        }
        None => Err(CrontabError::new(format!("{} is not a step", quoted(text)), at)),
    }
}
