//! Parses the text of one field of a `cron` trigger into items. An error names its column.

use super::field_hints;
use crate::invalid::quoted;

/// The values that a field accepts.
#[derive(Debug, Clone, Copy)]
pub(super) struct FieldShape {
    pub(super) name: &'static str,
    pub(super) min: u32,
    pub(super) max: u32,
    /// The names of the values, beginning with that of `min`; empty if the values have no names.
    pub(super) names: &'static [&'static str],
}

/// The names of the weekdays, which count from 0.
pub(super) const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// The names of the months, which count from 1.
pub(super) const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const ORDINALS: [&str; 5] = ["1st", "2nd", "3rd", "4th", "5th"];

/// The largest number of items in one list. No field has a use for more.
pub(super) const ITEMS_MAX: usize = 100;

/// One item of the list that a field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item {
    /// Every `step`th value from first to last.
    Range { first: u32, last: u32, step: u32 },
    /// The nth such weekday of the month. `n` counts from 1.
    Nth { n: u32, weekday: u32 },
    /// The last such weekday of the month.
    LastWeekday(u32),
    /// The last day of the month.
    LastDay,
}

impl Item {
    /// The values of a range; nothing for other items.
    pub(super) fn values(&self) -> impl Iterator<Item = u32> + use<> {
        let range = match *self {
            Self::Range { first, last, step } => {
                Some((first..=last).step_by(usize::try_from(step).unwrap_or(1)))
            }
            Self::Nth { .. } | Self::LastWeekday(_) | Self::LastDay => None,
        };
        range.into_iter().flatten()
    }
}

/// Parses the text of a field: a list with commas.
pub(super) fn parse(shape: &FieldShape, text: &str) -> Result<Vec<Item>, String> {
    let mut items = Vec::new();
    let mut column = 1;
    for part in text.split(',') {
        let leading = part.chars().take_while(|c| c.is_whitespace()).count();
        let item = ItemParser { shape, item: part.trim(), column: column + leading };
        items.push(item.parse().map_err(|(why, column)| {
            let hint = field_hints::for_field(shape.name, shape.min, shape.max, text);
            format!("{}: {why}, at column {column}{hint}", quoted(text))
        })?);
        column += part.chars().count() + 1;
        if items.len() > ITEMS_MAX {
            return Err(format!("more than {ITEMS_MAX} items"));
        }
    }
    Ok(items)
}

/// Why an item cannot be parsed, and the column of the error, counted from 1.
type FieldError = (String, usize);

struct ItemParser<'a> {
    shape: &'a FieldShape,
    item: &'a str,
    column: usize,
}

impl ItemParser<'_> {
    fn parse(&self) -> Result<Item, FieldError> {
        let lower = self.item.to_lowercase();
        let (min, max) = (self.shape.min, self.shape.max);
        if lower.is_empty() {
            return self.error("an item is missing".to_owned(), 0);
        }
        if let Some(rest) = lower.strip_prefix('*') {
            if rest.is_empty() {
                return Ok(Item::Range { first: min, last: max, step: 1 });
            }
            let Some(step) = rest.strip_prefix('/') else {
                return self.error(format!("unexpected {} after *", quoted(rest)), 1);
            };
            return Ok(Item::Range { first: min, last: max, step: self.step(step, max - min, 2)? });
        }
        let is_number = lower.starts_with(|c: char| c.is_ascii_digit());
        let space = lower.chars().position(char::is_whitespace);
        let first = lower.split_whitespace().next().unwrap_or_default();
        if is_number && !ORDINALS.contains(&first) {
            return match space {
                Some(at) => self.error("unexpected space".to_owned(), at),
                None => self.number(&lower),
            };
        }
        if self.shape.name == "day" { self.weekday_of_month(&lower) } else { self.named(&lower) }
    }

    /// Parses `a`, `a-b`, `a-b/c` or `a/c`.
    fn number(&self, text: &str) -> Result<Item, FieldError> {
        let (range, step) =
            text.split_once('/').map_or((text, None), |(range, step)| (range, Some(step)));
        let (first, last) =
            range.split_once('-').map_or((range, None), |(first, last)| (first, Some(last)));
        let first_value = self.value(first, 0)?;
        let last_value = match (last, step) {
            (Some(last), _) => self.value(last, first.len() + 1)?,
            (None, Some(_)) => self.shape.max,
            (None, None) => first_value,
        };
        if last_value < first_value {
            return self.error(format!("the range {range} goes backwards"), 0);
        }
        let step =
            step.map_or(Ok(1), |step| self.step(step, last_value - first_value, range.len() + 1))?;
        Ok(Item::Range { first: first_value, last: last_value, step })
    }

    fn value(&self, text: &str, at: usize) -> Result<u32, FieldError> {
        let (name, min, max) = (self.shape.name, self.shape.min, self.shape.max);
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let value = if digits {
            text.parse::<u32>().ok()
        } else {
            return self.error(format!("{} is not a number", quoted(text)), at);
        };
        match value.filter(|value| (min..=max).contains(value)) {
            Some(value) => Ok(value),
            None => self.error(format!("{text} is out of range ({name} is {min} to {max})"), at),
        }
    }

    fn step(&self, text: &str, width: u32, at: usize) -> Result<u32, FieldError> {
        let step = Some(text)
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|text| text.parse().ok());
        match step {
            Some(step) if (1..=width).contains(&step) => Ok(step),
            Some(step) => self.error(
                format!("the step {step} is not between 1 and {width}, the width of its range"),
                at,
            ),
            None => self.error(format!("{} is not a step", quoted(text)), at),
        }
    }

    /// Parses a name or a range of names, such as `mon` or `feb-dec`.
    fn named(&self, text: &str) -> Result<Item, FieldError> {
        let step = text.chars().position(|c| c == '/');
        if let Some(at) = step.filter(|_| !self.shape.names.is_empty()) {
            return self.error("a name, or a range of names, takes no step".to_owned(), at);
        }
        let (first, last) =
            text.split_once('-').map_or((text, None), |(first, last)| (first, Some(last)));
        let first_value = self.name(first, 0)?;
        let last_at = first.chars().count() + 1;
        if last.is_some_and(|last| last.starts_with(|c: char| c.is_ascii_digit())) {
            return self
                .error("a range is of names or of numbers, not of both".to_owned(), last_at);
        }
        let last_value = last.map_or(Ok(first_value), |last| self.name(last, last_at))?;
        if last_value < first_value {
            return self.error(format!("the range {text} goes backwards"), 0);
        }
        Ok(Item::Range { first: first_value, last: last_value, step: 1 })
    }

    fn name(&self, text: &str, at: usize) -> Result<u32, FieldError> {
        let (names, min) = (self.shape.names, self.shape.min);
        match (position(names, text), names) {
            (Some(position), _) => Ok(min + position),
            (None, [first, .., last]) => {
                let what = if names.len() == WEEKDAYS.len() { "weekday" } else { "month" };
                self.error(
                    format!(
                        "unknown {what} {} (expected {first}…{last}, or a number)",
                        quoted(text)
                    ),
                    at,
                )
            }
            (None, _) => self.error(format!("{} is not a number, a range or *", quoted(text)), at),
        }
    }

    /// Parses `last`, `3rd fri` or `last fri`.
    fn weekday_of_month(&self, text: &str) -> Result<Item, FieldError> {
        let mut words = text.split_whitespace();
        let first = words.next().unwrap_or_default();
        let ordinal = position(&ORDINALS, first).map(|at| at + 1);
        if ordinal.is_none() && first != "last" {
            return self.error(
                format!("unknown {} (expected a number, 1st…5th or last)", quoted(first)),
                0,
            );
        }
        let Some(name) = words.next() else {
            return if ordinal.is_none() {
                Ok(Item::LastDay)
            } else {
                self.error("a weekday is missing".to_owned(), first.len())
            };
        };
        let Some(weekday) = position(&WEEKDAYS, name) else {
            return self.error(
                format!("unknown weekday {} (expected mon…sun)", quoted(name)),
                column_of(text, 1),
            );
        };
        if let Some(more) = words.next() {
            return self.error(format!("unexpected {}", quoted(more)), column_of(text, 2));
        }
        Ok(ordinal.map_or(Item::LastWeekday(weekday), |n| Item::Nth { n, weekday }))
    }

    fn error<T>(&self, why: String, at: usize) -> Result<T, FieldError> {
        Err((why, self.column + at))
    }
}

/// The column at which the nth word of a text begins. Words and columns count from 0.
fn column_of(text: &str, nth: usize) -> usize {
    let mut after_space = true;
    let begins = |(at, c): (usize, char)| {
        let is_begin = after_space && !c.is_whitespace();
        after_space = c.is_whitespace();
        is_begin.then_some(at)
    };
    text.chars().enumerate().filter_map(begins).nth(nth).unwrap_or(0)
}

/// The position of a word in a list.
fn position(words: &[&str], word: &str) -> Option<u32> {
    words.iter().position(|known| *known == word).and_then(|at| u32::try_from(at).ok())
}
