//! Rows to words and back: the only place where states become strings and instants integers.

use std::sync::Arc;

use chrono::TimeDelta;
use serde_json::Value;

use super::value::Row;
use crate::clock::Timestamp;
use crate::invalid::{self, Invalid};
use crate::job::{
    Coalesce, Due, GivenPolicy, Hooks, Job, JobId, JobState, OnCrash, Origin, Overlap, Policy, Task,
};
use crate::run::{Attempt, Cause, Cost, Event, Outcome, Run, RunId, RunState, SkipReason};
use crate::store::StoreError;
use crate::trigger::Trigger;
use crate::zone::Zone;

/// Columns of a job, in the order in which they are read.
pub(super) const JOB_COLUMNS: &str = "id, anchor, trigger_spec, task, state, reason, scheduled_at, next_run_time, name, \
    executor, misfire_grace_time, coalesce_rule, max_instances, overlap, on_crash, max_runs, options, tags, \
    description, origin, run_count, owner, revision, created_at, updated_at";

/// Columns of a run, in the order in which they are read.
pub(super) const RUN_COLUMNS: &str = "id, job_id, anchor, cause, event, subject, scheduled_at, due_at, attempt, \
    executor, node, created_at, state, last_scheduled_at, occurrences, started_at, finished_at, reason, exit_code, \
    by_signal, error, cpu_micros, peak_memory, result";

/// Columns of an attempt, in the order in which they are read.
pub(super) const ATTEMPT_COLUMNS: &str = "run_id, attempt, node, started_at, finished_at, state, reason, exit_code, \
    by_signal, error, cpu_micros, peak_memory";

/// A count as the store keeps it.
pub(super) fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Reads a job. What can no longer be understood makes it `broken`; it is never dropped.
pub(super) fn job(mut row: Row) -> Result<Job, StoreError> {
    let bytes = row.bytes();
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
    let (name, executor) = (row.text()?, row.text()?);
    let policy = policy(&mut row)?;
    let policy = policy.unwrap_or_else(|(plain, invalid)| {
        broken = Some(invalid.to_string());
        plain
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
        name,
        executor,
        policy,
        tags: serde_json::from_str(&row.text()?).unwrap_or_default(),
        description: row.text()?,
        bytes,
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

/// Reads the policies; or those that every job has, and what is wrong with the others.
fn policy(row: &mut Row) -> Result<Result<Policy, (Policy, Invalid)>, StoreError> {
    let plain = Policy {
        misfire_grace: row.integer_option()?.map(TimeDelta::microseconds),
        coalesce: Coalesce::parse(&row.text()?).unwrap_or_default(),
        max_instances: u32::try_from(row.integer()?).unwrap_or(1),
        overlap: Overlap::parse(&row.text()?).unwrap_or_default(),
        on_crash: if row.text()? == "lose" { OnCrash::Lose } else { OnCrash::Rerun },
        max_runs: row.integer_option()?.and_then(|runs| u64::try_from(runs).ok()),
        timeout: None,
        retry: None,
        priority: 0,
        hooks: Hooks::default(),
        heartbeat: None,
        on_finish: None,
    };
    let Some(options) = row.text_option()? else { return Ok(Ok(plain)) };
    let given = invalid::read::<GivenPolicy>(parse_json(&options));
    let options = given.and_then(|given| given.complete(&GivenPolicy::default()));
    Ok(match options {
        Ok(Policy { timeout, retry, priority, hooks, heartbeat, on_finish, .. }) => {
            Ok(Policy { timeout, retry, priority, hooks, heartbeat, on_finish, ..plain })
        }
        Err(invalid) => Err((plain, invalid)),
    })
}

fn parse_json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// Reads a run.
pub(super) fn run(mut row: Row) -> Result<Run, StoreError> {
    let run = Run {
        id: RunId(row.text()?.into()),
        job_id: JobId::parse(&row.text()?)
            .map_err(|invalid| StoreError::Unusable(invalid.to_string()))?,
        anchor: row.instant()?,
        cause: cause(&mut row)?,
        scheduled_at: row.instant_option()?,
        due_at: row.instant()?,
        attempt: u32::try_from(row.integer()?).unwrap_or(1),
        executor: row.text()?,
        node: row.text()?.into(),
        created_at: row.instant()?,
        state: RunState::Pending,
    };
    Ok(Run { state: run_state(&mut row, &run)?, ..run })
}

fn cause(row: &mut Row) -> Result<Cause, StoreError> {
    let (word, event, subject) = (row.text()?, row.text_option()?, row.text_option()?);
    let event = event.as_deref().and_then(Event::parse);
    Ok(match event.zip(subject) {
        Some((event, subject)) => Cause::Event { event, subject: RunId(subject.into()) },
        None if word == "manual" => Cause::Manual,
        None => Cause::Schedule,
    })
}

fn run_state(row: &mut Row, run: &Run) -> Result<RunState, StoreError> {
    let word = row.text()?;
    let (last_scheduled_at, count) = (row.instant_option()?, row.count()?);
    let (started_at, finished_at) = (row.instant_option()?, row.instant_option()?);
    let started_at = started_at.unwrap_or(run.created_at);
    match word.as_str() {
        "pending" => return Ok(RunState::Pending),
        "running" => return Ok(RunState::Running { started_at }),
        "skipped" => {
            let reason = row.text_option()?;
            return Ok(RunState::Skipped {
                reason: reason.as_deref().and_then(SkipReason::parse).unwrap_or(SkipReason::Missed),
                last_scheduled_at: last_scheduled_at.unwrap_or(run.due_at),
                count,
            });
        }
        _ => {}
    }
    let (outcome, cost) = outcome(row, &word)?;
    let outcome = match (outcome, row.text_option()?) {
        (Outcome::Succeeded { exit_code, .. }, result) => {
            Outcome::Succeeded { result: result.map(|text| parse_json(&text)), exit_code }
        }
        (outcome, _) => outcome,
    };
    let finished_at = finished_at.unwrap_or(started_at);
    Ok(RunState::Ended { started_at, finished_at, outcome, cost })
}

/// How an execution ended, without what it answered.
fn outcome(row: &mut Row, word: &str) -> Result<(Outcome, Cost), StoreError> {
    let reason = row.text_option()?;
    let code = |number: Option<i64>| number.and_then(|code| i32::try_from(code).ok());
    let (exit_code, signal) = (code(row.integer_option()?), code(row.integer_option()?));
    let error = row.text_option()?.unwrap_or_default();
    let amount = |number: Option<i64>| number.and_then(|amount| u64::try_from(amount).ok());
    let cost = Cost {
        cpu_micros: amount(row.integer_option()?),
        peak_memory: amount(row.integer_option()?),
    };
    let outcome = match word {
        "succeeded" => Outcome::Succeeded { result: None, exit_code },
        "failed" => {
            let permanent = reason.as_deref() == Some("permanent");
            Outcome::Failed { error, exit_code, signal, permanent }
        }
        "timed_out" => Outcome::TimedOut { error },
        "cancelled" => Outcome::Cancelled { reason: error },
        "lost" => Outcome::Lost { error },
        _ => return Err(StoreError::Unusable(format!("unknown run state \"{word}\""))),
    };
    Ok((outcome, cost))
}

/// Reads an attempt.
pub(super) fn attempt(mut row: Row) -> Result<Attempt, StoreError> {
    let run_id = RunId(row.text()?.into());
    let number = u32::try_from(row.integer()?).unwrap_or(1);
    let node = row.text()?.into();
    let (started_at, finished_at) = (row.instant()?, row.instant()?);
    let word = row.text()?;
    let (outcome, cost) = outcome(&mut row, &word)?;
    Ok(Attempt { run_id, number, node, started_at, finished_at, outcome, cost })
}
