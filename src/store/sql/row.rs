//! Rows to words and back: the only place where states become strings and instants integers.

use std::sync::Arc;

use chrono::TimeDelta;
use serde_json::Value;

use super::value::Row;
use crate::clock::Timestamp;
use crate::job::{Coalesce, Due, Job, JobId, JobState, OnCrash, Origin, Overlap, Policy, Task};
use crate::run::{Cause, Outcome, Run, RunId, RunState, SkipReason};
use crate::store::StoreError;
use crate::trigger::Trigger;
use crate::zone::Zone;

/// Columns of a job, in the order in which they are read.
pub(super) const JOB_COLUMNS: &str = "id, anchor, trigger_spec, task, state, reason, scheduled_at, next_run_time, name, \
    executor, misfire_grace_time, coalesce_rule, max_instances, overlap, on_crash, max_runs, tags, description, \
    origin, run_count, owner, revision, created_at, updated_at";

/// Columns of a run, in the order in which they are read.
pub(super) const RUN_COLUMNS: &str = "id, job_id, anchor, cause, scheduled_at, due_at, attempt, executor, node, \
    created_at, state, reason, last_scheduled_at, occurrences, started_at, finished_at, exit_code, error, result";

/// A count as the store keeps it.
pub(super) fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Reads a job. What can no longer be understood makes it `broken`; it is never dropped.
pub(super) fn job(mut row: Row) -> Result<Job, StoreError> {
    let id = row.text()?;
    let id = JobId::parse(&id)
        .map_err(|invalid| StoreError::Unusable(format!("job \"{id}\": {invalid}")))?;
    let anchor = row.instant()?;
    let spec: Value = parse_json(&row.text()?);
    let task_value: Value = parse_json(&row.text()?);
    let stored_state = job_state(&mut row)?;
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
        Some(reason) => JobState::Broken { reason, since: stored_state.scheduled_at },
        None => stored_state.state,
    };
    Ok(Job {
        id,
        trigger: Arc::new(trigger),
        task: Arc::new(task),
        state,
        anchor,
        name: row.text()?,
        executor: row.text()?,
        policy: policy(&mut row)?,
        tags: serde_json::from_str(&row.text()?).unwrap_or_default(),
        description: row.text()?,
        origin: if row.text()? == "file" { Origin::File } else { Origin::Socket },
        run_count: row.count()?,
        owner: row.text_option()?.map(Into::into),
        revision: row.integer()?,
        created_at: row.instant()?,
        updated_at: row.instant()?,
    })
}

struct StoredState {
    state: JobState,
    scheduled_at: Option<Timestamp>,
}

fn job_state(row: &mut Row) -> Result<StoredState, StoreError> {
    let (word, reason) = (row.text()?, row.text_option()?);
    let (scheduled_at, due_at) = (row.instant_option()?, row.instant_option()?);
    let state = match (word.as_str(), scheduled_at, due_at) {
        ("active", Some(scheduled_at), Some(due_at)) => {
            JobState::Active { next: Due { scheduled_at, due_at } }
        }
        ("paused", Some(scheduled_at), _) => {
            JobState::Paused { next: Due { scheduled_at, due_at: due_at.unwrap_or(scheduled_at) } }
        }
        ("finished", ..) => JobState::Finished,
        ("broken", ..) => {
            JobState::Broken { reason: reason.unwrap_or_default(), since: scheduled_at }
        }
        _ => JobState::Broken {
            since: scheduled_at,
            reason: format!("the store holds the state \"{word}\" without its instants"),
        },
    };
    Ok(StoredState { state, scheduled_at })
}

fn policy(row: &mut Row) -> Result<Policy, StoreError> {
    Ok(Policy {
        misfire_grace: row.integer_option()?.map(TimeDelta::microseconds),
        coalesce: Coalesce::parse(&row.text()?).unwrap_or_default(),
        max_instances: u32::try_from(row.integer()?).unwrap_or(1),
        overlap: Overlap::parse(&row.text()?).unwrap_or_default(),
        on_crash: if row.text()? == "lose" { OnCrash::Lose } else { OnCrash::Rerun },
        max_runs: row.integer_option()?.and_then(|runs| u64::try_from(runs).ok()),
    })
}

fn parse_json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// Reads a run.
pub(super) fn run(mut row: Row) -> Result<Run, StoreError> {
    Ok(Run {
        id: RunId(row.text()?.into()),
        job_id: JobId::parse(&row.text()?)
            .map_err(|invalid| StoreError::Unusable(invalid.to_string()))?,
        anchor: row.instant()?,
        cause: if row.text()? == "manual" { Cause::Manual } else { Cause::Schedule },
        scheduled_at: row.instant_option()?,
        due_at: row.instant()?,
        attempt: u32::try_from(row.integer()?).unwrap_or(1),
        executor: row.text()?,
        node: row.text()?.into(),
        created_at: row.instant()?,
        state: RunState::Pending,
    })
    .and_then(|run| Ok(Run { state: run_state(&mut row, &run)?, ..run }))
}

fn run_state(row: &mut Row, run: &Run) -> Result<RunState, StoreError> {
    let (word, reason) = (row.text()?, row.text_option()?);
    let (last_scheduled_at, count) = (row.instant_option()?, row.count()?);
    let (started_at, finished_at) = (row.instant_option()?, row.instant_option()?);
    let exit_code = row.integer_option()?.and_then(|code| i32::try_from(code).ok());
    let (error, result) = (row.text_option()?, row.text_option()?);
    let started_at = started_at.unwrap_or(run.created_at);
    let error = || error.unwrap_or_default();
    let outcome = match word.as_str() {
        "pending" => return Ok(RunState::Pending),
        "running" => return Ok(RunState::Running { started_at }),
        "skipped" => {
            return Ok(RunState::Skipped {
                reason: reason.as_deref().and_then(SkipReason::parse).unwrap_or(SkipReason::Missed),
                last_scheduled_at: last_scheduled_at.unwrap_or(run.due_at),
                count,
            });
        }
        "succeeded" => {
            Outcome::Succeeded { result: result.map(|text| parse_json(&text)), exit_code }
        }
        "failed" => {
            let permanent = reason.as_deref() == Some("permanent");
            Outcome::Failed { error: error(), exit_code, permanent }
        }
        "cancelled" => Outcome::Cancelled { reason: error() },
        "lost" => Outcome::Lost { error: error() },
        _ => return Err(StoreError::Unusable(format!("unknown run state \"{word}\""))),
    };
    Ok(RunState::Ended { started_at, finished_at: finished_at.unwrap_or(started_at), outcome })
}
