//! Numbers of the configuration that have a range.

use std::fmt::Display;
use std::ops::RangeInclusive;

use crate::invalid::Invalid;

/// The number that was given for a key, or its default. A number outside of the range is refused.
pub(super) fn in_range<N: PartialOrd + Copy + Display>(
    key: &str,
    given: Option<N>,
    default: N,
    range: &RangeInclusive<N>,
) -> Result<N, Invalid> {
    let number = given.unwrap_or(default);
    if range.contains(&number) {
        return Ok(number);
    }
    let message = format!("must be between {} and {}", range.start(), range.end());
    Err(Invalid::new(key, message))
}
