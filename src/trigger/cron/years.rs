//! The years that a pattern allows.

use super::field_parser::Item;

/// The first year of the calendar; the last is 9999.
const FIRST_YEAR: u32 = 1970;
const YEARS: std::ops::RangeInclusive<i32> = 1970..=9999;
/// The number of words of 64 bits that hold a bit for each year.
const WORDS: usize = 126;
/// The largest number of ranges that are checked one by one. A longer list becomes a set of bits, so that it costs no
/// more than a short one.
const RANGES_MAX: usize = 4;

#[derive(Debug, Clone)]
pub(super) enum Years {
    Ranges(Vec<Item>),
    Set(Box<[u64; WORDS]>),
}

impl PartialEq for Years {
    fn eq(&self, other: &Self) -> bool {
        { YEARS }.all(|year| self.has(year) == other.has(year))
    }
}

impl Years {
    pub(super) fn new(items: &[Item]) -> Self {
        if items.len() <= RANGES_MAX {
            return Self::Ranges(items.to_vec());
        }
        let mut set = Box::new([0_u64; WORDS]);
        for (word, bit) in items.iter().flat_map(Item::values).filter_map(bit_of) {
            set.get_mut(word).into_iter().for_each(|word| *word |= bit);
        }
        Self::Set(set)
    }

    pub(super) fn has(&self, year: i32) -> bool {
        let Ok(year) = u32::try_from(year) else { return false };
        match self {
            Self::Ranges(items) => items.iter().any(|item| allows(item, year)),
            Self::Set(set) => bit_of(year)
                .is_some_and(|(word, bit)| set.get(word).is_some_and(|word| word & bit != 0)),
        }
    }

    /// A year before which none is allowed.
    pub(super) fn first(&self) -> i32 {
        let first = match self {
            Self::Ranges(items) => items.iter().filter_map(|item| item.values().next()).min(),
            Self::Set(_) => Some(FIRST_YEAR),
        };
        first.and_then(|year| i32::try_from(year).ok()).unwrap_or(i32::MAX)
    }
}

/// The number of the word that has a year's bit, and the bit.
fn bit_of(year: u32) -> Option<(usize, u64)> {
    let number = usize::try_from(year.checked_sub(FIRST_YEAR)?).ok()?;
    Some((number / 64, 1 << (number % 64)))
}

fn allows(item: &Item, year: u32) -> bool {
    match *item {
        Item::Range { first, last, step } => {
            (first..=last).contains(&year) && (year - first).is_multiple_of(step)
        }
        Item::Nth { .. } | Item::LastWeekday(_) | Item::LastDay => false,
    }
}
