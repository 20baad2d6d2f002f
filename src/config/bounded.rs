//! Numbers of the configuration with a default and a range.

use std::fmt::Display;

use crate::invalid::Invalid;

/// A number with a default and a range.
pub(super) struct Bounded<N> {
    pub(super) default: N,
    pub(super) min: N,
    pub(super) max: N,
}

impl<N: PartialOrd + Copy + Display> Bounded<N> {
    /// The number that was given for a key, or the default. A number outside of the range is refused.
    pub(super) fn check(&self, key: &str, given: Option<N>) -> Result<N, Invalid> {
        let Self { default, min, max } = *self;
        let number = given.unwrap_or(default);
        if (min..=max).contains(&number) {
            return Ok(number);
        }
        Err(Invalid::new(key, format!("must be between {min} and {max}")))
    }
}
