//! Words to parameters: what the statements that write are given, in their order.

use sqlx::Sqlite;

use super::row::count;
use crate::clock::Timestamp;
use crate::job::{Due, Job, JobState, Origin};
use crate::run::{Outcome, Run, RunState};

pub(super) type Query<'q> = sqlx::query::Query<'q, Sqlite, sqlx::sqlite::SqliteArguments>;

/// A job's columns, in the order of the statements; its id is the last.
pub(super) fn job<'q>(query: Query<'q>, job: &Job) -> Query<'q> {
    let (next, reason) = match &job.state {
        JobState::Active { next } => ((Some(next.scheduled_at), Some(next.due_at)), None),
        // A paused job keeps its place in the schedule, but is not due.
        JobState::Paused { next: Due { scheduled_at, .. } } => ((Some(*scheduled_at), None), None),
        JobState::Finished => ((None, None), None),
        JobState::Broken { reason, since } => ((*since, None), Some(reason.clone())),
    };
    let origin = match job.origin {
        Origin::File => "file",
        Origin::Socket => "socket",
    };
    query
        .bind(job.name.clone())
        .bind(job.state.word())
        .bind(reason)
        .bind(job.trigger.spec().to_string())
        .bind(job.task.to_value().to_string())
        .bind(job.executor.clone())
        .bind(job.policy.misfire_grace.and_then(|grace| grace.num_microseconds()))
        .bind(job.policy.coalesce.word())
        .bind(i64::from(job.policy.max_instances))
        .bind(job.policy.on_crash.word())
        .bind(job.policy.max_runs.map(count))
        .bind(count(job.run_count))
        .bind(serde_json::Value::from(job.tags.clone()).to_string())
        .bind(job.description.clone())
        .bind(origin)
        .bind(job.anchor.timestamp_micros())
        .bind(next.0.map(|at| at.timestamp_micros()))
        .bind(next.1.map(|at| at.timestamp_micros()))
        .bind(job.created_at.timestamp_micros())
        .bind(job.updated_at.timestamp_micros())
        .bind(job.policy.overlap.word())
        .bind(job.id.as_str().to_owned())
}

/// The columns of a run that its state decides.
#[derive(Default)]
struct StateColumns {
    reason: Option<&'static str>,
    last_scheduled_at: Option<Timestamp>,
    count: u64,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    exit_code: Option<i32>,
    error: Option<String>,
    result: Option<String>,
}

fn state_columns(state: &RunState) -> StateColumns {
    let blank = StateColumns { count: 1, ..StateColumns::default() };
    match state {
        RunState::Pending => blank,
        RunState::Running { started_at } => StateColumns { started_at: Some(*started_at), ..blank },
        RunState::Skipped { reason, last_scheduled_at, count } => StateColumns {
            reason: Some(reason.word()),
            last_scheduled_at: Some(*last_scheduled_at),
            count: *count,
            ..blank
        },
        RunState::Ended { started_at, finished_at, outcome } => {
            let ended = StateColumns {
                started_at: Some(*started_at),
                finished_at: Some(*finished_at),
                ..blank
            };
            match outcome {
                Outcome::Succeeded { result, exit_code } => {
                    let result = result.as_ref().map(ToString::to_string);
                    StateColumns { result, exit_code: *exit_code, ..ended }
                }
                Outcome::Failed { error, exit_code, permanent } => StateColumns {
                    reason: permanent.then_some("permanent"),
                    error: Some(error.clone()),
                    exit_code: *exit_code,
                    ..ended
                },
                Outcome::Cancelled { reason: error } | Outcome::Lost { error } => {
                    StateColumns { error: Some(error.clone()), ..ended }
                }
            }
        }
    }
}

/// The columns of a run that change, and its id.
pub(super) fn run<'q>(query: Query<'q>, run: &Run) -> Query<'q> {
    let columns = state_columns(&run.state);
    query
        .bind(run.state.word())
        .bind(columns.reason)
        .bind(columns.last_scheduled_at.map(|at| at.timestamp_micros()))
        .bind(count(columns.count))
        .bind(i64::from(run.attempt))
        .bind(columns.started_at.map(|at| at.timestamp_micros()))
        .bind(columns.finished_at.map(|at| at.timestamp_micros()))
        .bind(columns.exit_code)
        .bind(columns.error)
        .bind(columns.result)
        .bind(run.node.clone())
        .bind(run.id.0.clone())
}

/// All columns of a run.
pub(super) fn new_run<'q>(query: Query<'q>, new: &Run) -> Query<'q> {
    run(query, new)
        .bind(new.job_id.as_str().to_owned())
        .bind(new.anchor.timestamp_micros())
        .bind(new.cause.word())
        .bind(new.scheduled_at.map(|at| at.timestamp_micros()))
        .bind(new.due_at.timestamp_micros())
        .bind(new.executor.clone())
        .bind(new.created_at.timestamp_micros())
}
