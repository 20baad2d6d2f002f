//! Sets of numbers below 64, as the bits of a word. They hold the values that a calendar field allows.

use super::field_parser::Item;

/// The values of all ranges among a field's items.
pub(super) fn from_items(items: &[Item]) -> u64 {
    items.iter().flat_map(Item::values).fold(0, |bits, value| bits | 1 << value)
}

pub(super) fn has(set: u64, value: u32) -> bool {
    set.checked_shr(value).unwrap_or(0) & 1 == 1
}

/// The smallest member of a set that is at least `from`.
pub(super) fn next(set: u64, from: u32) -> Option<u32> {
    let rest = set & u64::MAX.checked_shl(from).unwrap_or(0);
    (rest != 0).then(|| rest.trailing_zeros())
}

/// The largest member of a set that is at most `until`.
pub(super) fn last(set: u64, until: u32) -> Option<u32> {
    let rest = set & (u64::MAX >> (63 - until.min(63)));
    (rest != 0).then(|| rest.ilog2())
}

/// The number of members below `limit`.
pub(super) fn count_below(set: u64, limit: u32) -> u64 {
    u64::from((set & !u64::MAX.checked_shl(limit).unwrap_or(0)).count_ones())
}
