//! `[retention]`: how long and how many ended runs and finished jobs are kept. There is no value for "no limit"; a large
//! number serves as one.

use std::time::Duration;

use chrono::TimeDelta;
use serde::Deserialize;

use super::bounded::Bounded;
use crate::invalid::Invalid;
use crate::retention::{Budget, KeepFinished, KeepRuns, RetentionPolicy};

/// A century.
const DAYS_MAX: u32 = 36_500;
const ROWS_MAX: u32 = 1_000_000_000;
const RUNS_DAYS: Bounded<u32> = Bounded { default: 30, min: 1, max: DAYS_MAX };
const ERRORS_DAYS: Bounded<u32> = Bounded { default: 90, min: 1, max: DAYS_MAX };
const PER_JOB: Bounded<u32> = Bounded { default: 1000, min: 1, max: ROWS_MAX };
const INTERVAL_SECONDS: Bounded<u32> = Bounded { default: 3600, min: 1, max: 86_400 };
const FINISHED_SECONDS: Bounded<u32> = Bounded { default: 86_400, min: 1, max: u32::MAX };
const MAX_FINISHED_JOBS: Bounded<u32> = Bounded { default: 100_000, min: 1, max: ROWS_MAX };
const MAX_RUNS: Bounded<u32> = Bounded { default: 1_000_000, min: 1, max: ROWS_MAX };
/// From 1 MiB to 1 PiB.
const MAX_BYTES: Bounded<u64> = Bounded { default: 1 << 30, min: 1 << 20, max: 1 << 50 };

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
        let days = |days: u32| TimeDelta::days(days.into());
        let keep = |age, key, given| {
            let per_job =
                PER_JOB.check(key, given).map(|rows| usize::try_from(rows).unwrap_or(usize::MAX));
            per_job.map(|per_job| KeepRuns { age, per_job })
        };
        let runs_age = days(RUNS_DAYS.check("runs_days", self.runs_days)?);
        let errors_age = days(ERRORS_DAYS.check("errors_days", self.errors_days)?);
        let output_days = self.output_days;
        let output_days = output_days.map(|_| RUNS_DAYS.check("output_days", output_days));
        let interval = INTERVAL_SECONDS.check("interval_seconds", self.interval_seconds)?;
        let finished_seconds =
            FINISHED_SECONDS.check("finished_jobs_seconds", self.finished_jobs_seconds)?;
        let finished_jobs = MAX_FINISHED_JOBS.check("max_finished_jobs", self.max_finished_jobs)?;
        Ok(RetentionPolicy {
            runs: keep(runs_age, "runs_per_job", self.runs_per_job)?,
            hooks: keep(runs_age, "hooks_per_job", self.hooks_per_job)?,
            skipped: keep(runs_age, "skipped_per_job", self.skipped_per_job)?,
            errors: keep(errors_age, "errors_per_job", self.errors_per_job)?,
            output_age: output_days.transpose()?.map(days),
            finished: KeepFinished {
                age: TimeDelta::seconds(finished_seconds.into()),
                jobs: usize::try_from(finished_jobs).unwrap_or(usize::MAX),
            },
            budget: Budget {
                runs: MAX_RUNS.check("max_runs", self.max_runs)?.into(),
                bytes: MAX_BYTES.check("max_bytes", self.max_bytes)?,
            },
            interval: Duration::from_secs(interval.into()),
        })
    }
}
