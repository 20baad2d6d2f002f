//! Instants, and the one place that reads the machine's clock.
//!
//! Everything else takes time as an argument, so that tests and simulations can choose it.
//! An instant is a [`Timestamp`] in whole microseconds UTC: what the store holds, what the
//! contract shows and what a comparison means never differ by a fraction that got lost.

use chrono::{DateTime, SecondsFormat, SubsecRound, Utc};

/// An instant in UTC, in whole microseconds.
pub type Timestamp = DateTime<Utc>;

/// Microseconds in a second.
pub const MICROS_PER_SECOND: i64 = 1_000_000;

/// Tells what time it is.
pub trait Clock: std::fmt::Debug + Send + Sync + 'static {
    /// The present instant, cut to whole microseconds.
    fn now(&self) -> Timestamp;
}

/// The machine's wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now(&self) -> Timestamp {
        Utc::now().trunc_subsecs(6)
    }
}

/// An instant as the contract shows it: RFC 3339 in UTC with microseconds.
pub fn rfc3339(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}
