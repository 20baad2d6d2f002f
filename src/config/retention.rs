//! `[retention]`: how long and how many ended runs and finished jobs are kept. There is no value for "no limit"; a large
//! number serves as one.

use std::ops::RangeInclusive;
use std::time::Duration;

use chrono::TimeDelta;
use serde::Deserialize;

use super::range::in_range;
use crate::invalid::Invalid;
use crate::retention::{Budget, KeepFinished, KeepRuns, RetentionPolicy};

const RUNS_DAYS: u32 = 30;
const ERRORS_DAYS: u32 = 90;
const PER_JOB: u32 = 1000;
const INTERVAL_SECONDS: u32 = 3600;
const FINISHED_JOBS_SECONDS: u32 = 86_400;
const MAX_FINISHED_JOBS: u32 = 100_000;
const MAX_RUNS: u32 = 1_000_000;
const MAX_BYTES: u64 = 1 << 30;
/// Up to a century.
const DAYS_RANGE: RangeInclusive<u32> = 1..=36_500;
/// Range of everything that is counted in rows.
const ROWS_RANGE: RangeInclusive<u32> = 1..=1_000_000_000;
const INTERVAL_SECONDS_RANGE: RangeInclusive<u32> = 1..=86_400;
const FINISHED_JOBS_SECONDS_RANGE: RangeInclusive<u32> = 1..=u32::MAX;
/// From 1 MiB to 1 PiB.
const MAX_BYTES_RANGE: RangeInclusive<u64> = (1 << 20)..=(1 << 50);

/// The table `[retention]` as written in the file.
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

impl RetentionTable {
    /// Checks the table and fills in the defaults. An error names the key.
    pub(super) fn check(self) -> Result<RetentionPolicy, Invalid> {
        self.policy().map_err(|invalid| invalid.within("retention"))
    }

    fn policy(self) -> Result<RetentionPolicy, Invalid> {
        let days = |key, given: Option<u32>, default| {
            in_range(key, given, default, &DAYS_RANGE).map(|days| TimeDelta::days(days.into()))
        };
        let rows = |key, given: Option<u32>, default| in_range(key, given, default, &ROWS_RANGE);
        let runs_age = days("runs_days", self.runs_days, RUNS_DAYS)?;
        let keep = |age, key, given: Option<u32>| {
            let per_job =
                rows(key, given, PER_JOB).map(|rows| usize::try_from(rows).unwrap_or(usize::MAX));
            per_job.map(|per_job| KeepRuns { age, per_job })
        };
        let errors_age = days("errors_days", self.errors_days, ERRORS_DAYS)?;
        let output_age = self.output_days.map(|given| days("output_days", Some(given), given));
        let interval = in_range(
            "interval_seconds",
            self.interval_seconds,
            INTERVAL_SECONDS,
            &INTERVAL_SECONDS_RANGE,
        )?;
        let finished_seconds = in_range(
            "finished_jobs_seconds",
            self.finished_jobs_seconds,
            FINISHED_JOBS_SECONDS,
            &FINISHED_JOBS_SECONDS_RANGE,
        )?;
        let finished_jobs = rows("max_finished_jobs", self.max_finished_jobs, MAX_FINISHED_JOBS)?;
        Ok(RetentionPolicy {
            runs: keep(runs_age, "runs_per_job", self.runs_per_job)?,
            hooks: keep(runs_age, "hooks_per_job", self.hooks_per_job)?,
            skipped: keep(runs_age, "skipped_per_job", self.skipped_per_job)?,
            errors: keep(errors_age, "errors_per_job", self.errors_per_job)?,
            output_age: output_age.transpose()?,
            finished: KeepFinished {
                age: TimeDelta::seconds(finished_seconds.into()),
                jobs: usize::try_from(finished_jobs).unwrap_or(usize::MAX),
            },
            budget: Budget {
                runs: rows("max_runs", self.max_runs, MAX_RUNS)?.into(),
                bytes: in_range("max_bytes", self.max_bytes, MAX_BYTES, &MAX_BYTES_RANGE)?,
            },
            interval: Duration::from_secs(interval.into()),
        })
    }
}
