//! Once, at one instant: `run_date`, or the moment at which the trigger was defined.

use super::given::Given;
use crate::clock::Timestamp;
use crate::invalid::Invalid;

/// A single instant.
#[derive(Debug, Clone, Copy)]
pub(super) struct Date {
    at: Timestamp,
}

impl Date {
    pub(super) fn parse(given: &mut Given, anchor: Timestamp) -> Result<Self, Invalid> {
        Ok(Self { at: given.instant("run_date")?.unwrap_or(anchor) })
    }

    pub(super) fn at(self) -> Timestamp {
        self.at
    }
}
