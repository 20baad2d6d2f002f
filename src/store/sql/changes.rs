//! How each [`Change`] is written: its statement, its parameters, and what a failure of it is called.
//!
//! A new kind of change has one arm in each of the three functions that match on [`Change`] here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::dialect::{Dialect, Update};
use super::table::count;
use super::tables::jobs::{FROM_DEFINED, FROM_SCHEDULE, JOBS};
use super::tables::runs::{ATTEMPTS, FROM_PROGRESS, RUNS};
use super::value::Bind;
use crate::clock::Timestamp;
use crate::job::JobId;
use crate::run::{Run, RunState};
use crate::store::{Change, RunPart};

/// The setting that holds the pause of the scheduler: a JSON object, or since when it is paused, in microseconds.
pub(super) const PAUSE: &str = "paused_since";
/// The setting that says what time it was when a step was last written, to within some minutes: an instant in
/// microseconds.
pub(super) const RECORDED_TIME: &str = "recorded_time";

/// Finds the job that an update overwrites.
const JOB_KEYS: [&str; 3] = ["id", "revision", "created_at"];
/// Finds the run that an update overwrites: a node writes only runs that it holds.
const RUN_KEYS: [&str; 2] = ["id", "node"];
/// A run that may still change.
const IN_FLIGHT: &str = "runs.state in ('pending', 'running')";

const OUTPUTS: &str = "attempt_outputs";
const OUTPUT: [&str; 4] = ["run_id", "attempt", "kept", "bytes"];
const OUTPUT_KEYS: [&str; 2] = ["run_id", "attempt"];

/// The statement that writes changes of one kind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Statement {
    /// Tells it from the statements of other kinds.
    name: &'static str,
    /// Its text for this many changes.
    pub(super) text: fn(&dyn Dialect, usize) -> String,
    /// Whether it can take several changes.
    pub(super) is_batched: bool,
    /// Whether it must write one row for each change; if it does not, someone else has changed what the change is based on.
    pub(super) must_write: bool,
    /// Whether other nodes are sent a hint, so that they look at the change at once.
    pub(super) sends_hint: bool,
}

impl PartialEq for Statement {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Statement {
    /// A statement for one change, which may find no row.
    fn single(name: &'static str, text: fn(&dyn Dialect, usize) -> String) -> Self {
        Self { name, text, is_batched: false, must_write: false, sends_hint: false }
    }

    fn batched(self) -> Self {
        Self { is_batched: true, ..self }
    }

    fn must_write(self) -> Self {
        Self { must_write: true, ..self }
    }

    fn sends_hint(self) -> Self {
        Self { sends_hint: true, ..self }
    }

    /// The statement of a change.
    pub(super) fn of(change: &Change) -> Self {
        match change {
            Change::InsertJob(_) => Self::single("insert job", |dialect, rows| {
                dialect.insert(JOBS.name, &JOBS.names(0), rows)
            })
            .batched()
            .must_write(),
            Change::UpdateJob(_) => Self::single("update job", |dialect, rows| {
                dialect.update(&update_job(FROM_DEFINED), rows)
            })
            .batched()
            .must_write()
            .sends_hint(),
            Change::AdvanceJob(_) => Self::single("advance job", |dialect, rows| {
                dialect.update(&update_job(FROM_SCHEDULE), rows)
            })
            .batched()
            .must_write(),
            Change::DeleteJob { .. } => {
                Self::single("delete job", |dialect, _| dialect.delete(JOBS.name, &JOB_KEYS))
                    .must_write()
                    .sends_hint()
            }
            Change::InsertRun(_) => Self::single("insert run", |dialect, rows| {
                dialect.insert(RUNS.name, &RUNS.names(0), rows)
            })
            .batched()
            .must_write(),
            Change::UpdateRun { .. } => Self::single("update run", |dialect, rows| {
                let update = RUNS.update(FROM_PROGRESS, &RUN_KEYS);
                dialect.update(&Update { only: Some(IN_FLIGHT), ..update }, rows)
            })
            .batched()
            .must_write(),
            Change::ExtendSkipped { .. } => Self::single("extend skipped", |dialect, rows| {
                let columns = vec!["last_scheduled_at", "occurrences"];
                let only = Some("runs.state = 'skipped'");
                let keys = &["id", "last_scheduled_at"];
                dialect
                    .update(&Update { table: RUNS.name, columns, keys, count_up: None, only }, rows)
            })
            .batched()
            .must_write(),
            Change::InsertAttempt(_) => Self::single("insert attempt", |dialect, rows| {
                dialect.insert(ATTEMPTS.name, &ATTEMPTS.names(0), rows)
            })
            .batched()
            .must_write(),
            Change::PutOutput { .. } => Self::single("put output", |dialect, rows| {
                dialect.upsert(OUTPUTS, &OUTPUT_KEYS, &OUTPUT, rows)
            })
            .batched(),
            Change::SavePartialOutput { .. } => {
                Self::single("save partial output", |dialect, _| save_partial_output(dialect))
            }
            Change::CancelJobRuns { .. } => Self::single("cancel runs of job", |dialect, _| {
                cancel(dialect, &["job_id"], "runs.state = 'running' and runs.node <> ")
                    + &dialect.placeholder(3)
            })
            .sends_hint(),
            Change::CancelRun { .. } => {
                Self::single("cancel run", |dialect, _| cancel(dialect, &["id"], IN_FLIGHT))
                    .sends_hint()
            }
            Change::SetPause(Some(_)) => Self::single("pause", put_setting).sends_hint(),
            Change::SetPause(None) => {
                Self::single("resume", |dialect, _| dialect.delete("settings", &["name"]))
                    .sends_hint()
            }
            Change::EndPause(_) => Self::single("end pause", |dialect, _| {
                dialect.delete("settings", &["name", "value"])
            })
            .must_write()
            .sends_hint(),
            Change::RecordTime(_) => Self::single("record time", put_setting),
            Change::Prune { part: RunPart::Outputs, .. } => {
                Self::single("prune outputs", |dialect, rows| prune(dialect, OUTPUTS, rows))
                    .batched()
            }
            Change::Prune { part: RunPart::Attempts, .. } => {
                Self::single("prune attempts", |dialect, rows| prune(dialect, ATTEMPTS.name, rows))
                    .batched()
            }
            Change::Prune { part: RunPart::Row, .. } => {
                Self::single("prune runs", |dialect, rows| {
                    dialect.delete_all(RUNS.name, "id", rows) + " and not " + IN_FLIGHT
                })
                .batched()
            }
        }
    }
}

fn update_job(first_section: usize) -> Update {
    Update { count_up: Some("revision"), ..JOBS.update(first_section, &JOB_KEYS) }
}

/// Writes the output of an attempt if its run is running on this node.
fn save_partial_output(dialect: &dyn Dialect) -> String {
    let placeholder = |number| dialect.placeholder(number);
    let values = format!("runs.id, {}, {}, {}", placeholder(1), placeholder(2), placeholder(3));
    let (id, attempt, node) = (placeholder(4), placeholder(5), placeholder(6));
    let insert = format!(
        "insert into {OUTPUTS} ({}) select {values} from runs \
         where runs.id = {id} and runs.attempt = {attempt} and runs.node = {node} and runs.state = 'running'",
        OUTPUT.join(", ")
    );
    dialect.or_update(&insert, &OUTPUT_KEYS, &OUTPUT)
}

/// Deletes what belongs to runs that have ended.
fn prune(dialect: &dyn Dialect, table: &str, rows: usize) -> String {
    let delete = dialect.delete_all(table, "run_id", rows);
    format!(
        "{delete} and exists (select 1 from runs where runs.id = {table}.run_id and not {IN_FLIGHT})"
    )
}

/// Asks the nodes that hold runs to cancel them.
fn cancel(dialect: &dyn Dialect, keys: &'static [&'static str], only: &'static str) -> String {
    let (columns, only) = (vec!["end_reason"], Some(only));
    dialect.update(&Update { table: RUNS.name, columns, keys, count_up: None, only }, 1)
}

fn put_setting(dialect: &dyn Dialect, _: usize) -> String {
    dialect.upsert("settings", &["name"], &["name", "value"], 1)
}

/// Writes the parameters of a change.
pub(super) fn bind(to: &mut dyn Bind, change: &Change) {
    match change {
        Change::InsertJob(job) => JOBS.bind(0, job, to),
        Change::UpdateJob(job) => {
            JOBS.bind(FROM_DEFINED, job, to);
            job_keys(to, &job.id, job.revision - 1, job.created_at);
        }
        Change::AdvanceJob(job) => {
            JOBS.bind(FROM_SCHEDULE, job, to);
            job_keys(to, &job.id, job.revision - 1, job.created_at);
        }
        Change::DeleteJob { id, revision, created_at } => job_keys(to, id, *revision, *created_at),
        Change::InsertRun(run) => RUNS.bind(0, run, to),
        Change::UpdateRun { run, held_by } => {
            RUNS.bind(FROM_PROGRESS, run, to);
            to.text(Some(&run.id.0));
            to.text(Some(held_by));
        }
        Change::ExtendSkipped { run, former_last } => skipped_span(to, run, *former_last),
        Change::InsertAttempt(attempt) => ATTEMPTS.bind(0, attempt, to),
        Change::PutOutput { run_id, attempt, output } => {
            to.text(Some(&run_id.0));
            to.integer(Some(i64::from(*attempt)));
            to.text(Some(&output.to_json()));
            to.integer(Some(count(output.bytes)));
        }
        Change::SavePartialOutput { run_id, attempt, output, held_by } => {
            to.integer(Some(i64::from(*attempt)));
            to.text(Some(&output.to_json()));
            to.integer(Some(count(output.bytes)));
            to.text(Some(&run_id.0));
            to.integer(Some(i64::from(*attempt)));
            to.text(Some(held_by));
        }
        Change::CancelJobRuns { job_id, reason, except_node } => {
            to.text(Some(reason));
            to.text(Some(job_id.as_str()));
            to.text(Some(except_node));
        }
        Change::CancelRun { run_id, reason } => {
            to.text(Some(reason));
            to.text(Some(&run_id.0));
        }
        Change::Prune { run_id, .. } => to.text(Some(&run_id.0)),
        Change::RecordTime(at) => setting(to, RECORDED_TIME, &at.timestamp_micros().to_string()),
        Change::SetPause(Some(pause)) | Change::EndPause(pause) => {
            setting(to, PAUSE, &pause.to_stored());
        }
        Change::SetPause(None) => to.text(Some(PAUSE)),
    }
}

/// The parameters of [`JOB_KEYS`].
fn job_keys(to: &mut dyn Bind, id: &JobId, revision: i64, created_at: Timestamp) {
    to.text(Some(id.as_str()));
    to.integer(Some(revision));
    to.instant(Some(created_at));
}

fn skipped_span(to: &mut dyn Bind, run: &Run, former_last: Timestamp) {
    let (last, occurrences) = match &run.state {
        RunState::Skipped { last_scheduled_at, count, .. } => (Some(*last_scheduled_at), *count),
        RunState::Pending | RunState::Running { .. } | RunState::Ended { .. } => (None, 1),
    };
    to.instant(last);
    to.integer(Some(count(occurrences)));
    to.text(Some(&run.id.0));
    to.instant(Some(former_last));
}

fn setting(to: &mut dyn Bind, name: &str, value: &str) {
    to.text(Some(name));
    to.text(Some(value));
}

/// What someone else has changed, if a change could not be written.
pub(super) fn subject(change: &Change) -> String {
    match change {
        Change::InsertJob(job) | Change::UpdateJob(job) | Change::AdvanceJob(job) => {
            format!("job \"{}\"", job.id)
        }
        Change::DeleteJob { id, .. } => format!("job \"{id}\""),
        Change::InsertRun(run) => format!("an occurrence of job \"{}\"", run.job_id),
        Change::UpdateRun { run, .. } | Change::ExtendSkipped { run, .. } => {
            format!("run {}", run.id)
        }
        Change::InsertAttempt(attempt) => format!("an attempt of run {}", attempt.run_id),
        Change::PutOutput { run_id, .. } | Change::SavePartialOutput { run_id, .. } => {
            format!("the output of run {run_id}")
        }
        Change::CancelRun { run_id, .. } | Change::Prune { run_id, .. } => format!("run {run_id}"),
        Change::CancelJobRuns { job_id, .. } => format!("runs of job \"{job_id}\""),
        Change::SetPause(_) | Change::EndPause(_) => "the pause".to_owned(),
        Change::RecordTime(_) => "the recorded time".to_owned(),
    }
}

/// The texts of the statements in one dialect. Each is built when it is first needed, and kept.
#[derive(Debug)]
pub(super) struct StatementTexts {
    pub(super) dialect: &'static dyn Dialect,
    /// By the name of the statement and the number of changes.
    texts: Mutex<BTreeMap<(&'static str, usize), Arc<str>>>,
}

impl StatementTexts {
    pub(super) fn new(dialect: &'static dyn Dialect) -> Self {
        Self { dialect, texts: Mutex::default() }
    }

    /// The text of a statement for this many changes.
    pub(super) fn text(&self, statement: Statement, changes: usize) -> Arc<str> {
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        let text = texts.entry((statement.name, changes));
        Arc::clone(text.or_insert_with(|| (statement.text)(self.dialect, changes).into()))
    }
}
