//! Words to parameters: what the statements that write are given, in the order of their columns.

use super::row::count;
use super::value::Bind;
use crate::clock::Timestamp;
use crate::job::{Due, Former, Job, JobId, JobState, Origin};
use crate::run::{Attempt, Cause, Cost, Outcome, Run, RunState};

/// Columns of a job that its definition decides.
const DEFINED: [&str; 17] = [
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
    "options",
    "tags",
    "description",
    "origin",
    "source",
    "requester",
    "anchor",
];

/// Columns of a job that change when it fires or a run of it ends.
pub(super) const ADVANCED: [&str; 9] = [
    "state",
    "reason",
    "former_state",
    "scheduled_at",
    "next_run_time",
    "run_count",
    "failing",
    "owner",
    "updated_at",
];

/// All columns of a job that are ever overwritten.
pub(super) fn job_columns() -> Vec<&'static str> {
    ADVANCED.into_iter().chain(DEFINED).collect()
}

/// What tells a new job beside them.
pub(super) const NEW_JOB: [&str; 3] = ["created_at", "id", "revision"];
/// The columns that find the job to overwrite.
pub(super) const JOB_KEYS: [&str; 3] = ["id", "revision", "created_at"];

/// The columns of [`ADVANCED`].
pub(super) fn advanced(to: &mut impl Bind, job: &Job) {
    let (scheduled_at, next_run_time, reason) = match &job.state {
        JobState::Active { next } => (Some(next.scheduled_at), Some(next.due_at), None),
        // A paused job keeps its place in the schedule, but is not due.
        JobState::Paused { next: Due { scheduled_at, .. } } => (Some(*scheduled_at), None, None),
        JobState::Finished => (None, None, None),
        JobState::Broken { reason, since, .. } => (*since, None, Some(reason.as_str())),
    };
    to.text(Some(job.state.word()));
    to.text(reason);
    to.text(former(&job.state));
    to.instant(scheduled_at);
    to.instant(next_run_time);
    to.integer(Some(count(job.run_count)));
    to.integer(Some(job.is_failing.into()));
    to.text(job.owner.as_deref());
    to.instant(Some(job.updated_at));
}

/// The columns of [`job_columns`].
pub(super) fn job(to: &mut impl Bind, job: &Job) {
    advanced(to, job);
    let policy = &job.policy;
    to.text(Some(&job.name));
    to.text(Some(&json(job.trigger.spec())));
    to.text(Some(&json(&*job.task)));
    to.text(Some(&job.executor));
    to.integer(policy.misfire_grace_time.and_then(|grace| grace.num_microseconds()));
    to.text(Some(policy.coalesce.word()));
    to.integer(Some(i64::from(policy.max_instances)));
    to.text(Some(policy.overlap.word()));
    to.text(Some(policy.on_crash.word()));
    to.integer(policy.max_runs.map(count));
    let options = policy.to_stored();
    to.text(options.as_deref());
    to.text(Some(&json(&job.tags)));
    to.text(Some(&job.description));
    to.text(Some(match job.origin {
        Origin::File => "file",
        Origin::Socket => "socket",
    }));
    to.text(job.source.as_deref());
    to.integer(job.requester.map(i64::from));
    to.instant(Some(job.anchor));
}

/// What a broken job was before, unless it fired.
fn former(state: &JobState) -> Option<&'static str> {
    let JobState::Broken { former, .. } = state else { return None };
    match former {
        Former::Active => None,
        Former::Paused => Some("paused"),
        Former::Finished => Some("finished"),
    }
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

/// How an execution ended, as columns.
#[derive(Default)]
pub(super) struct OutcomeColumns<'a> {
    reason: Option<&'static str>,
    exit_code: Option<i32>,
    signal: Option<i32>,
    error: Option<&'a str>,
    result: Option<String>,
}

fn outcome_columns(outcome: &Outcome) -> OutcomeColumns<'_> {
    let blank = OutcomeColumns::default();
    match outcome {
        Outcome::Succeeded { result, exit_code } => {
            let result = result.as_ref().map(ToString::to_string);
            OutcomeColumns { result, exit_code: *exit_code, ..blank }
        }
        Outcome::Failed { error, exit_code, signal, permanent } => OutcomeColumns {
            reason: permanent.then_some("permanent"),
            error: Some(error),
            exit_code: *exit_code,
            signal: *signal,
            ..blank
        },
        Outcome::Cancelled { reason: error }
        | Outcome::TimedOut { error }
        | Outcome::Lost { error } => OutcomeColumns { error: Some(error), ..blank },
    }
}

/// The columns of a run that its state decides.
#[derive(Default)]
struct StateColumns<'a> {
    outcome: OutcomeColumns<'a>,
    last_scheduled_at: Option<Timestamp>,
    count: u64,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    cost: Cost,
}

fn state_columns(state: &RunState) -> StateColumns<'_> {
    let blank = StateColumns { count: 1, ..StateColumns::default() };
    match state {
        RunState::Pending => blank,
        RunState::Running { started_at } => StateColumns { started_at: Some(*started_at), ..blank },
        RunState::Skipped { reason, last_scheduled_at, count } => StateColumns {
            outcome: OutcomeColumns { reason: Some(reason.word()), ..OutcomeColumns::default() },
            last_scheduled_at: Some(*last_scheduled_at),
            count: *count,
            ..blank
        },
        RunState::Ended { started_at, finished_at, outcome, cost } => StateColumns {
            outcome: outcome_columns(outcome),
            started_at: Some(*started_at),
            finished_at: Some(*finished_at),
            cost: *cost,
            ..blank
        },
    }
}

/// Columns of a run that change.
pub(super) const RUN: [&str; 16] = [
    "state",
    "reason",
    "last_scheduled_at",
    "occurrences",
    "due_at",
    "attempt",
    "crashes",
    "started_at",
    "finished_at",
    "exit_code",
    "by_signal",
    "error",
    "result",
    "cpu_micros",
    "peak_memory",
    "node",
];

/// Columns of a run that never change.
pub(super) const NEW_RUN: [&str; 9] = [
    "id",
    "job_id",
    "anchor",
    "cause",
    "event",
    "subject",
    "scheduled_at",
    "executor",
    "created_at",
];

/// The columns that find the run to overwrite.
pub(super) const RUN_KEYS: [&str; 2] = ["id", "node"];

/// The columns of [`RUN`].
pub(super) fn run(to: &mut impl Bind, run: &Run) {
    let columns = state_columns(&run.state);
    to.text(Some(run.state.word()));
    to.text(columns.outcome.reason);
    to.instant(columns.last_scheduled_at);
    to.integer(Some(count(columns.count)));
    to.instant(Some(run.due_at));
    to.integer(Some(i64::from(run.attempt)));
    to.integer(Some(i64::from(run.crashes)));
    to.instant(columns.started_at);
    to.instant(columns.finished_at);
    to.integer(columns.outcome.exit_code.map(i64::from));
    to.integer(columns.outcome.signal.map(i64::from));
    to.text(columns.outcome.error);
    to.text(columns.outcome.result.as_deref());
    cost(to, columns.cost);
    to.text(Some(&run.node));
}

/// Columns of a row of skipped occurrences that change when it takes in more of them.
pub(super) const SPAN: [&str; 2] = ["last_scheduled_at", "occurrences"];

/// What tells which row takes in more occurrences.
pub(super) const SPAN_KEYS: [&str; 2] = ["id", "last_scheduled_at"];

/// The columns of [`SPAN`] and [`SPAN_KEYS`].
pub(super) fn span(to: &mut impl Bind, run: &Run, former_last: Timestamp) {
    let columns = state_columns(&run.state);
    to.instant(columns.last_scheduled_at);
    to.integer(Some(count(columns.count)));
    to.text(Some(&run.id.0));
    to.instant(Some(former_last));
}

fn cost(to: &mut impl Bind, cost: Cost) {
    to.integer(cost.cpu_micros.map(count));
    to.integer(cost.peak_memory.map(count));
}

/// The columns of [`RUN`] and [`NEW_RUN`].
pub(super) fn new_run(to: &mut impl Bind, new: &Run) {
    run(to, new);
    to.text(Some(&new.id.0));
    to.text(Some(new.job_id.as_str()));
    to.instant(Some(new.anchor));
    // Runs that tell of others are newer than the check of this column, and have no occurrence either.
    let (cause, event, subject) = match &new.cause {
        Cause::Schedule => ("schedule", None, None),
        Cause::Manual => ("manual", None, None),
        Cause::Event { event, subject } => ("manual", Some(event.word()), Some(&*subject.0)),
    };
    to.text(Some(cause));
    to.text(event);
    to.text(subject);
    to.instant(new.scheduled_at);
    to.text(Some(&new.executor));
    to.instant(Some(new.created_at));
}

/// The columns of [`RUN_KEYS`].
pub(super) fn run_keys(to: &mut impl Bind, run: &Run, held_by: &str) {
    to.text(Some(&run.id.0));
    to.text(Some(held_by));
}

/// Columns of an attempt.
pub(super) const ATTEMPT: [&str; 12] = [
    "run_id",
    "attempt",
    "node",
    "state",
    "reason",
    "started_at",
    "finished_at",
    "exit_code",
    "by_signal",
    "error",
    "cpu_micros",
    "peak_memory",
];

/// The columns of [`ATTEMPT`].
pub(super) fn attempt(to: &mut impl Bind, attempt: &Attempt) {
    let columns = outcome_columns(&attempt.outcome);
    to.text(Some(&attempt.run_id.0));
    to.integer(Some(i64::from(attempt.number)));
    to.text(Some(&attempt.node));
    to.text(Some(attempt.outcome.word()));
    to.text(columns.reason);
    to.instant(Some(attempt.started_at));
    to.instant(Some(attempt.finished_at));
    to.integer(columns.exit_code.map(i64::from));
    to.integer(columns.signal.map(i64::from));
    to.text(columns.error);
    cost(to, attempt.cost);
}
