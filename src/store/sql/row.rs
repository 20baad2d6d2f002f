//! Rows to words and back: the only place where states become strings and instants integers.

use chrono::TimeDelta;
use serde_json::Value;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::clock::Timestamp;
use crate::job::{Coalesce, Due, Job, JobId, JobState, OnCrash, Origin, Overlap, Policy, Task};
use crate::run::{Cause, Outcome, Run, RunId, RunState, SkipReason};
use crate::store::StoreError;
use crate::trigger::Trigger;
use crate::zone::Zone;

/// Columns of a job, in the order of the table.
pub(super) const JOB_COLUMNS: &str = "id, name, state, reason, trigger_spec, task, executor, misfire_grace_time, \
    coalesce_rule, max_instances, on_crash, max_runs, run_count, tags, description, origin, anchor, scheduled_at, \
    next_run_time, revision, created_at, updated_at, overlap";

/// Columns of a run, in the order of the table.
pub(super) const RUN_COLUMNS: &str = "id, job_id, anchor, cause, state, reason, scheduled_at, last_scheduled_at, \
    occurrences, due_at, attempt, executor, node, created_at, started_at, finished_at, exit_code, error, result";

fn column<'r, T>(row: &'r SqliteRow, name: &str) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    row.try_get(name).map_err(|error| StoreError::Unusable(error.to_string()))
}

fn instant(micros: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_timestamp_micros(micros)
        .ok_or_else(|| StoreError::Unusable(format!("{micros} is not an instant in microseconds")))
}

fn instant_column(row: &SqliteRow, name: &str) -> Result<Timestamp, StoreError> {
    instant(column(row, name)?)
}

fn instant_column_option(row: &SqliteRow, name: &str) -> Result<Option<Timestamp>, StoreError> {
    column::<Option<i64>>(row, name)?.map(instant).transpose()
}

fn count_column(row: &SqliteRow, name: &str) -> Result<u64, StoreError> {
    Ok(u64::try_from(column::<i64>(row, name)?).unwrap_or(0))
}

/// A count as the store keeps it.
pub(super) fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Reads a job. What can no longer be understood makes it `broken`; it is never dropped.
pub(super) fn job(row: &SqliteRow) -> Result<Job, StoreError> {
    let id: String = column(row, "id")?;
    let id = JobId::parse(&id)
        .map_err(|invalid| StoreError::Unusable(format!("job \"{id}\": {invalid}")))?;
    let anchor = instant_column(row, "anchor")?;
    let spec: Value = parse_json(&column::<String>(row, "trigger_spec")?);
    let task_value: Value = parse_json(&column::<String>(row, "task")?);
    let mut broken = None;
    let trigger = Trigger::stored(&spec, &Zone::utc(), anchor).unwrap_or_else(|invalid| {
        broken = Some(invalid.within("trigger").to_string());
        Trigger::unreadable(spec)
    });
    let task = Task::parse(&task_value).unwrap_or_else(|invalid| {
        broken = Some(invalid.within("task").to_string());
        Task::Unreadable(task_value)
    });
    let state = match broken {
        Some(reason) => {
            JobState::Broken { reason, since: instant_column_option(row, "scheduled_at")? }
        }
        None => job_state(row)?,
    };
    Ok(Job {
        id,
        name: column(row, "name")?,
        trigger,
        task,
        executor: column(row, "executor")?,
        policy: policy(row)?,
        tags: serde_json::from_str(&column::<String>(row, "tags")?).unwrap_or_default(),
        description: column(row, "description")?,
        origin: if column::<String>(row, "origin")? == "file" {
            Origin::File
        } else {
            Origin::Socket
        },
        state,
        anchor,
        run_count: count_column(row, "run_count")?,
        revision: column(row, "revision")?,
        created_at: instant_column(row, "created_at")?,
        updated_at: instant_column(row, "updated_at")?,
    })
}

fn parse_json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

fn job_state(row: &SqliteRow) -> Result<JobState, StoreError> {
    let scheduled_at = instant_column_option(row, "scheduled_at")?;
    let due_at = instant_column_option(row, "next_run_time")?;
    let word: String = column(row, "state")?;
    Ok(match (word.as_str(), scheduled_at, due_at) {
        ("active", Some(scheduled_at), Some(due_at)) => {
            JobState::Active { next: Due { scheduled_at, due_at } }
        }
        ("paused", Some(scheduled_at), _) => {
            JobState::Paused { next: Due { scheduled_at, due_at: due_at.unwrap_or(scheduled_at) } }
        }
        ("finished", ..) => JobState::Finished,
        ("broken", ..) => {
            let reason = column::<Option<String>>(row, "reason")?.unwrap_or_default();
            JobState::Broken { reason, since: scheduled_at }
        }
        _ => JobState::Broken {
            since: scheduled_at,
            reason: format!("the store holds the state \"{word}\" without its instants"),
        },
    })
}

fn policy(row: &SqliteRow) -> Result<Policy, StoreError> {
    Ok(Policy {
        misfire_grace: column::<Option<i64>>(row, "misfire_grace_time")?
            .map(TimeDelta::microseconds),
        coalesce: Coalesce::parse(&column::<String>(row, "coalesce_rule")?).unwrap_or_default(),
        max_instances: u32::try_from(column::<i64>(row, "max_instances")?).unwrap_or(1),
        overlap: Overlap::parse(&column::<String>(row, "overlap")?).unwrap_or_default(),
        on_crash: if column::<String>(row, "on_crash")? == "lose" {
            OnCrash::Lose
        } else {
            OnCrash::Rerun
        },
        max_runs: column::<Option<i64>>(row, "max_runs")?.and_then(|runs| u64::try_from(runs).ok()),
    })
}

/// Reads a run.
pub(super) fn run(row: &SqliteRow) -> Result<Run, StoreError> {
    let job_id: String = column(row, "job_id")?;
    let cause: String = column(row, "cause")?;
    Ok(Run {
        id: RunId(column(row, "id")?),
        job_id: JobId::parse(&job_id)
            .map_err(|invalid| StoreError::Unusable(invalid.to_string()))?,
        anchor: instant_column(row, "anchor")?,
        cause: if cause == "manual" { Cause::Manual } else { Cause::Schedule },
        scheduled_at: instant_column_option(row, "scheduled_at")?,
        due_at: instant_column(row, "due_at")?,
        attempt: u32::try_from(column::<i64>(row, "attempt")?).unwrap_or(1),
        executor: column(row, "executor")?,
        node: column(row, "node")?,
        created_at: instant_column(row, "created_at")?,
        state: run_state(row)?,
    })
}

fn run_state(row: &SqliteRow) -> Result<RunState, StoreError> {
    let word: String = column(row, "state")?;
    let reason: Option<String> = column(row, "reason")?;
    let started_at = instant_column_option(row, "started_at")?;
    let error = || Ok::<_, StoreError>(column::<Option<String>>(row, "error")?.unwrap_or_default());
    let exit_code = || column::<Option<i32>>(row, "exit_code");
    let ended = |outcome: Outcome| {
        let created_at = instant_column(row, "created_at")?;
        let started_at = started_at.unwrap_or(created_at);
        let finished_at = instant_column_option(row, "finished_at")?.unwrap_or(started_at);
        Ok(RunState::Ended { started_at, finished_at, outcome })
    };
    match word.as_str() {
        "pending" => Ok(RunState::Pending),
        "running" => Ok(RunState::Running {
            started_at: started_at.map_or_else(|| instant_column(row, "created_at"), Ok)?,
        }),
        "succeeded" => {
            let result = column::<Option<String>>(row, "result")?.map(|text| parse_json(&text));
            ended(Outcome::Succeeded { result, exit_code: exit_code()? })
        }
        "failed" => {
            let permanent = reason.as_deref() == Some("permanent");
            ended(Outcome::Failed { error: error()?, exit_code: exit_code()?, permanent })
        }
        "cancelled" => ended(Outcome::Cancelled { reason: error()? }),
        "lost" => ended(Outcome::Lost { error: error()? }),
        "skipped" => Ok(RunState::Skipped {
            reason: reason.as_deref().and_then(SkipReason::parse).unwrap_or(SkipReason::Missed),
            last_scheduled_at: instant_column_option(row, "last_scheduled_at")?
                .map_or_else(|| instant_column(row, "due_at"), Ok)?,
            count: count_column(row, "occurrences")?,
        }),
        _ => Err(StoreError::Unusable(format!("unknown run state \"{word}\""))),
    }
}
