//! `[retention]`: for how long the ledger keeps what has ended, and how much of it for each job.
//! A limit that is never to be met is a large number; there is no word for "for ever".

use std::ops::RangeInclusive;
use std::time::Duration;

use chrono::TimeDelta;
use serde::Deserialize;

use crate::invalid::Invalid;

const RUNS_DAYS: u32 = 30;
const ERRORS_DAYS: u32 = 90;
const PER_JOB: u32 = 1000;
const INTERVAL_SECONDS: u32 = 3600;
/// A century.
const DAYS_RANGE: RangeInclusive<u32> = 1..=36_500;
const PER_JOB_RANGE: RangeInclusive<u32> = 1..=1_000_000_000;
const INTERVAL_SECONDS_RANGE: RangeInclusive<u32> = 1..=86_400;

/// The table, as it is given.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RetentionTable {
    runs_days: Option<u32>,
    errors_days: Option<u32>,
    output_days: Option<u32>,
    runs_per_job: Option<u32>,
    errors_per_job: Option<u32>,
    interval_seconds: Option<u32>,
}

/// How much of a kind of runs is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// For so long after the end.
    pub age: TimeDelta,
    /// Of each job so many, the newest.
    pub per_job: usize,
}

/// What is kept of runs that have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Runs that succeeded or were cancelled, and what was skipped.
    pub runs: Keep,
    /// Runs that failed, timed out or were lost.
    pub errors: Keep,
    /// Outputs, where they go before their runs.
    pub output_age: Option<TimeDelta>,
    /// Time between two looks at what may go.
    pub interval: Duration,
}

impl RetentionTable {
    /// The checked settings; an error names the key.
    pub(super) fn check(self) -> Result<Retention, Invalid> {
        let days = |key, given: Option<u32>, default| {
            let days = checked(key, given.unwrap_or(default), &DAYS_RANGE)?;
            Ok(TimeDelta::days(days.into()))
        };
        let per_job = |key, given: Option<u32>| {
            let count = checked(key, given.unwrap_or(PER_JOB), &PER_JOB_RANGE)?;
            Ok(usize::try_from(count).unwrap_or(usize::MAX))
        };
        let interval = self.interval_seconds.unwrap_or(INTERVAL_SECONDS);
        let interval = checked("interval_seconds", interval, &INTERVAL_SECONDS_RANGE)?;
        Ok(Retention {
            runs: Keep {
                age: days("runs_days", self.runs_days, RUNS_DAYS)?,
                per_job: per_job("runs_per_job", self.runs_per_job)?,
            },
            errors: Keep {
                age: days("errors_days", self.errors_days, ERRORS_DAYS)?,
                per_job: per_job("errors_per_job", self.errors_per_job)?,
            },
            output_age: self
                .output_days
                .map(|given| days("output_days", Some(given), given))
                .transpose()?,
            interval: Duration::from_secs(interval.into()),
        })
    }
}

fn checked(key: &str, given: u32, range: &RangeInclusive<u32>) -> Result<u32, Invalid> {
    if range.contains(&given) {
        return Ok(given);
    }
    let (least, most) = (range.start(), range.end());
    let message = format!("must be between {least} and {most}");
    Err(Invalid::new(format!("retention.{key}"), message))
}
