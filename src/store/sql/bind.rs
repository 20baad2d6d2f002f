//! Words to parameters: what the statements that write are given, in the order of their columns.

use super::row::count;
use super::value::Bind;
use crate::clock::Timestamp;
use crate::job::{Due, Job, JobId, JobState, Origin};
use crate::run::{Outcome, Run, RunState};

/// Columns of a job that its definition decides.
const DEFINED: [&str; 15] = [
    "name",
    "trigger_spec",
    "task",
    "executor",
    "misfire_grace_time",
    "coalesce_rule",
    "max_instances",
    "overlap",
    "on_crash",
    "max_runs",
    "tags",
    "description",
    "origin",
    "anchor",
    "updated_at",
];

/// Columns of a job that change whenever it fires.
pub(super) const ADVANCED: [&str; 6] =
    ["state", "reason", "scheduled_at", "next_run_time", "run_count", "owner"];

/// All columns of a job that are ever written anew.
pub(super) fn job_columns() -> Vec<&'static str> {
    ADVANCED.into_iter().chain(DEFINED).collect()
}

/// What tells a new job beside them.
pub(super) const NEW_JOB: [&str; 3] = ["created_at", "id", "revision"];
/// What tells which job is written anew.
pub(super) const JOB_KEYS: [&str; 3] = ["id", "revision", "created_at"];

/// The columns of [`ADVANCED`].
pub(super) fn advanced(to: &mut impl Bind, job: &Job) {
    let (scheduled_at, next_run_time, reason) = match &job.state {
        JobState::Active { next } => (Some(next.scheduled_at), Some(next.due_at), None),
        // A paused job keeps its place in the schedule, but is not due.
        JobState::Paused { next: Due { scheduled_at, .. } } => (Some(*scheduled_at), None, None),
        JobState::Finished => (None, None, None),
        JobState::Broken { reason, since } => (*since, None, Some(reason.as_str())),
    };
    to.text(Some(job.state.word()));
    to.text(reason);
    to.instant(scheduled_at);
    to.instant(next_run_time);
    to.integer(Some(count(job.run_count)));
    to.text(job.owner.as_deref());
}

/// The columns of [`job_columns`].
pub(super) fn job(to: &mut impl Bind, job: &Job) {
    advanced(to, job);
    let policy = &job.policy;
    to.text(Some(&job.name));
    to.text(Some(&json(job.trigger.spec())));
    to.text(Some(&json(&*job.task)));
    to.text(Some(&job.executor));
    to.integer(policy.misfire_grace.and_then(|grace| grace.num_microseconds()));
    to.text(Some(policy.coalesce.word()));
    to.integer(Some(i64::from(policy.max_instances)));
    to.text(Some(policy.overlap.word()));
    to.text(Some(policy.on_crash.word()));
    to.integer(policy.max_runs.map(count));
    to.text(Some(&json(&job.tags)));
    to.text(Some(&job.description));
    to.text(Some(match job.origin {
        Origin::File => "file",
        Origin::Socket => "socket",
    }));
    to.instant(Some(job.anchor));
    to.instant(Some(job.updated_at));
}

/// What has a structure is JSON text.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// The columns of [`NEW_JOB`].
pub(super) fn new_job(to: &mut impl Bind, job: &Job) {
    self::job(to, job);
    to.instant(Some(job.created_at));
    to.text(Some(job.id.as_str()));
    to.integer(Some(job.revision));
}

/// The columns of [`JOB_KEYS`].
pub(super) fn job_keys(to: &mut impl Bind, id: &JobId, revision: i64, created_at: Timestamp) {
    to.text(Some(id.as_str()));
    to.integer(Some(revision));
    to.instant(Some(created_at));
}

/// The columns of a run that its state decides.
#[derive(Default)]
struct StateColumns<'a> {
    reason: Option<&'static str>,
    last_scheduled_at: Option<Timestamp>,
    count: u64,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    exit_code: Option<i32>,
    error: Option<&'a str>,
    result: Option<String>,
}

fn state_columns(state: &RunState) -> StateColumns<'_> {
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
                    error: Some(error),
                    exit_code: *exit_code,
                    ..ended
                },
                Outcome::Cancelled { reason: error } | Outcome::Lost { error } => {
                    StateColumns { error: Some(error), ..ended }
                }
            }
        }
    }
}

/// Columns of a run that change.
pub(super) const RUN: [&str; 11] = [
    "state",
    "reason",
    "last_scheduled_at",
    "occurrences",
    "attempt",
    "started_at",
    "finished_at",
    "exit_code",
    "error",
    "result",
    "node",
];

/// Columns of a run that never change.
pub(super) const NEW_RUN: [&str; 8] =
    ["id", "job_id", "anchor", "cause", "scheduled_at", "due_at", "executor", "created_at"];

/// What tells which run is written anew.
pub(super) const RUN_KEYS: [&str; 2] = ["id", "node"];

/// The columns of [`RUN`].
pub(super) fn run(to: &mut impl Bind, run: &Run) {
    let columns = state_columns(&run.state);
    to.text(Some(run.state.word()));
    to.text(columns.reason);
    to.instant(columns.last_scheduled_at);
    to.integer(Some(count(columns.count)));
    to.integer(Some(i64::from(run.attempt)));
    to.instant(columns.started_at);
    to.instant(columns.finished_at);
    to.integer(columns.exit_code.map(i64::from));
    to.text(columns.error);
    to.text(columns.result.as_deref());
    to.text(Some(&run.node));
}

/// The columns of [`RUN`] and [`NEW_RUN`].
pub(super) fn new_run(to: &mut impl Bind, new: &Run) {
    run(to, new);
    to.text(Some(&new.id.0));
    to.text(Some(new.job_id.as_str()));
    to.instant(Some(new.anchor));
    to.text(Some(new.cause.word()));
    to.instant(new.scheduled_at);
    to.instant(Some(new.due_at));
    to.text(Some(&new.executor));
    to.instant(Some(new.created_at));
}

/// The columns of [`RUN_KEYS`].
pub(super) fn run_keys(to: &mut impl Bind, run: &Run, held_by: &str) {
    to.text(Some(&run.id.0));
    to.text(Some(held_by));
}
