//! Instants, and the only place that reads the machine's clock.
//!
//! All other code takes the time as an argument, so that tests and simulations can choose it. An instant is a [`Timestamp`]
//! in whole microseconds UTC everywhere: in the store, in the API and in comparisons. So they never differ by a lost
//! fraction.

use chrono::{DateTime, SecondsFormat, SubsecRound, TimeDelta, Utc};

/// An instant in UTC, in whole microseconds.
pub type Timestamp = DateTime<Utc>;

pub const MICROS_PER_SECOND: i64 = 1_000_000;

/// A source of the current time.
pub trait Clock: std::fmt::Debug + Send + Sync + 'static {
    /// The current instant, truncated to whole microseconds.
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

/// An instant in the form of the API: RFC 3339 in UTC with microseconds.
pub fn rfc3339(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// A duration for people, in at most two units: `1h 5m`, `340ms`, `12µs`.
pub fn duration_words(duration: TimeDelta) -> String {
    let micros = duration.num_microseconds().map_or(u64::MAX, i64::unsigned_abs);
    let (millis, seconds) = (micros / 1000, micros / 1_000_000);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match micros {
        0..1000 => format!("{micros}µs"),
        1000..1_000_000 => format!("{millis}ms"),
        _ if seconds < 10 => format!("{}.{}s", seconds, millis % 1000 / 100),
        _ if minutes == 0 => format!("{seconds}s"),
        _ if hours == 0 => format!("{minutes}m {}s", seconds % 60),
        _ if days == 0 => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_shown_in_two_units_at_most() {
        let cases = [
            (12, "12µs"),
            (340_000, "340ms"),
            (2_500_000, "2.5s"),
            (65_000_000, "1m 5s"),
            (7_500_000_000, "2h 5m"),
        ];
        for (micros, text) in cases {
            assert_eq!(duration_words(TimeDelta::microseconds(micros)), text);
        }
    }
}
