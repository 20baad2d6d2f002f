//! `[retention]`: how long runs that have ended and finished jobs are kept, and how much of them.
//! A limit that should never be reached is a large number; no value means "without limit".

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use chrono::TimeDelta;
use serde::Deserialize;

use crate::invalid::Invalid;

const RUNS_DAYS: u32 = 30;
const ERRORS_DAYS: u32 = 90;
const PER_JOB: u32 = 1000;
const INTERVAL_SECONDS: u32 = 3600;
const FINISHED_JOBS_SECONDS: u32 = 86_400;
const MAX_FINISHED_JOBS: u32 = 100_000;
const MAX_RUNS: u32 = 1_000_000;
const MAX_BYTES: u64 = 1 << 30;
/// A century.
const DAYS_RANGE: RangeInclusive<u32> = 1..=36_500;
const PER_JOB_RANGE: RangeInclusive<u32> = 1..=1_000_000_000;
const INTERVAL_SECONDS_RANGE: RangeInclusive<u32> = 1..=86_400;
const FINISHED_JOBS_SECONDS_RANGE: RangeInclusive<u32> = 1..=u32::MAX;
const MAX_FINISHED_JOBS_RANGE: RangeInclusive<u32> = 1..=1_000_000_000;
const MAX_RUNS_RANGE: RangeInclusive<u32> = 1..=1_000_000_000;
/// From 1 MiB to 1 PiB.
const MAX_BYTES_RANGE: RangeInclusive<u64> = (1 << 20)..=(1 << 50);

/// The table, as it is given.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RetentionTable {
    runs_days: Option<u32>,
    errors_days: Option<u32>,
    output_days: Option<u32>,
    runs_per_job: Option<u32>,
    errors_per_job: Option<u32>,
    hooks_per_job: Option<u32>,
    skipped_per_job: Option<u32>,
    interval_seconds: Option<u32>,
    finished_jobs_seconds: Option<u32>,
    max_finished_jobs: Option<u32>,
    max_runs: Option<u32>,
    max_bytes: Option<u64>,
}

/// How much of a kind of runs is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// For so long after the end.
    pub age: TimeDelta,
    /// Of each job this many, the newest.
    pub per_job: usize,
}

/// The budget of the whole history: what all ended runs of all jobs may take together, with their attempts and outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Rows of the ledger.
    pub runs: u64,
    /// Bytes, by the estimate of the store.
    pub bytes: u64,
}

/// How much is kept of finished jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepFinished {
    /// How long after the end.
    pub age: TimeDelta,
    /// How many of them, the newest.
    pub jobs: usize,
}

/// What is kept of runs that have ended, and of finished jobs. Within the budget, the last success and the last failure
/// of a job that exists are kept in any case, with their outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Runs that succeeded or were cancelled.
    pub runs: Keep,
    /// Runs that failed, timed out or were lost.
    pub errors: Keep,
    /// Runs of hooks. They are kept for as long as `runs`.
    pub hooks: Keep,
    /// Rows of skipped occurrences. They are kept for as long as `runs`.
    pub skipped: Keep,
    /// Outputs, where they go before their runs.
    pub output_age: Option<TimeDelta>,
    /// Finished jobs whose `on_finish` says nothing else.
    pub finished: KeepFinished,
    /// The budget of the whole history.
    pub budget: Budget,
    /// Time between two looks at what may go.
    pub interval: Duration,
}

impl RetentionTable {
    /// The checked settings; an error names the key.
    pub(super) fn check(self) -> Result<Retention, Invalid> {
        let days = |key, given: Option<u32>, default| {
            let days = checked(key, given, default, &DAYS_RANGE)?;
            Ok(TimeDelta::days(days.into()))
        };
        let per_job = |key, given: Option<u32>| {
            let count = checked(key, given, PER_JOB, &PER_JOB_RANGE)?;
            Ok(usize::try_from(count).unwrap_or(usize::MAX))
        };
        let interval = checked(
            "interval_seconds",
            self.interval_seconds,
            INTERVAL_SECONDS,
            &INTERVAL_SECONDS_RANGE,
        )?;
        let age = days("runs_days", self.runs_days, RUNS_DAYS)?;
        Ok(Retention {
            runs: Keep { age, per_job: per_job("runs_per_job", self.runs_per_job)? },
            hooks: Keep { age, per_job: per_job("hooks_per_job", self.hooks_per_job)? },
            skipped: Keep { age, per_job: per_job("skipped_per_job", self.skipped_per_job)? },
            errors: Keep {
                age: days("errors_days", self.errors_days, ERRORS_DAYS)?,
                per_job: per_job("errors_per_job", self.errors_per_job)?,
            },
            output_age: self
                .output_days
                .map(|given| days("output_days", Some(given), given))
                .transpose()?,
            finished: self.finished()?,
            budget: Budget {
                runs: checked("max_runs", self.max_runs, MAX_RUNS, &MAX_RUNS_RANGE)?.into(),
                bytes: checked("max_bytes", self.max_bytes, MAX_BYTES, &MAX_BYTES_RANGE)?,
            },
            interval: Duration::from_secs(interval.into()),
        })
    }

    fn finished(&self) -> Result<KeepFinished, Invalid> {
        let seconds = checked(
            "finished_jobs_seconds",
            self.finished_jobs_seconds,
            FINISHED_JOBS_SECONDS,
            &FINISHED_JOBS_SECONDS_RANGE,
        )?;
        let jobs = checked(
            "max_finished_jobs",
            self.max_finished_jobs,
            MAX_FINISHED_JOBS,
            &MAX_FINISHED_JOBS_RANGE,
        )?;
        Ok(KeepFinished {
            age: TimeDelta::seconds(seconds.into()),
            jobs: usize::try_from(jobs).unwrap_or(usize::MAX),
        })
    }
}

fn checked<N: PartialOrd + Copy + Display>(
    key: &str,
    given: Option<N>,
    default: N,
    range: &RangeInclusive<N>,
) -> Result<N, Invalid> {
    let given = given.unwrap_or(default);
    if range.contains(&given) {
        return Ok(given);
    }
    let (least, most) = (range.start(), range.end());
    let message = format!("must be between {least} and {most}");
    Err(Invalid::new(format!("retention.{key}"), message))
}
