//! Once, at one instant: `run_date`, or the moment at which the trigger was defined.

use super::spec::SpecReader;
use crate::clock::Timestamp;
use crate::invalid::Invalid;

/// A single instant.
#[derive(Debug, Clone, Copy)]
pub(super) struct Date {
    at: Timestamp,
    /// Whether that is the moment of its definition.
    is_now: bool,
}

impl Date {
    pub(super) fn parse(given: &mut SpecReader, anchor: Timestamp) -> Result<Self, Invalid> {
        let given = given.instant("run_date")?;
        Ok(Self { at: given.unwrap_or(anchor), is_now: given.is_none() })
    }

    /// Whether another one means the same.
    pub(super) fn is_like(self, other: Self) -> bool {
        self.is_now == other.is_now && (self.is_now || self.at == other.at)
    }

    pub(super) fn at(self) -> Timestamp {
        self.at
    }
}
