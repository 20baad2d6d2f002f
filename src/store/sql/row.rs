//! Rows to words and back: the only place where states become strings and instants integers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::TimeDelta;
use serde_json::Value;

use super::row_reader::RowReader;
use super::value::SqlRow;
use crate::job::{
    Coalesce, Due, Former, Job, JobId, JobState, OnCrash, Origin, Overlap, Policy, Task,
};
use crate::run::{Attempt, Cause, Cost, HookEvent, Outcome, Run, RunId, RunState, SkipReason};
use crate::store::{Node, ReviewedJob, StoreError};
use crate::trigger::Trigger;
use crate::zone::Zone;

/// Columns of a job, in the order in which they are read.
pub(super) const JOB_COLUMNS: &str = "id, anchor, trigger_spec, task, state, reason, former_state, scheduled_at, next_run_time, name, \
    executor, misfire_grace_time, coalesce_rule, max_instances, overlap, on_crash, max_runs, options, tags, \
    description, origin, source, requester, run_count, failing, owner, revision, created_at, updated_at";

/// Columns of a run, in the order in which they are read.
pub(super) const RUN_COLUMNS: &str = "id, job_id, anchor, cause, event, subject, scheduled_at, due_at, attempt, \
    crashes, executor, node, created_at, state, last_scheduled_at, occurrences, started_at, finished_at, reason, exit_code, \
    by_signal, error, cpu_micros, peak_memory, result";

/// Columns of an attempt, in the order in which they are read.
pub(super) const ATTEMPT_COLUMNS: &str = "run_id, attempt, node, started_at, finished_at, state, reason, exit_code, \
    by_signal, error, cpu_micros, peak_memory";

/// Columns of a node, in the order in which they are read.
pub(super) const NODE_COLUMNS: &str = "name, beat, started_at, seen_at";

/// A count as the store keeps it.
pub(super) fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A row as far as it can be read.
#[derive(Debug)]
pub(super) struct DecodedRow<T> {
    pub(super) value: T,
    /// Why a change cannot name the row: what tells it from others is not understood.
    key_fault: Option<String>,
}

/// Whether a row that no change can name was logged: the first one is an error in the log, others are debug lines.
static TOLD: AtomicBool = AtomicBool::new(false);

impl<T> DecodedRow<T> {
    /// The row for the core, which must be able to write it; none, and a line in the log, if it cannot.
    pub(super) fn writable(self) -> Option<T> {
        let Some(reason) = self.key_fault else { return Some(self.value) };
        if TOLD.swap(true, Ordering::Relaxed) {
            tracing::debug!(error = %reason, "a row of the store cannot be used, and is left alone");
        } else {
            tracing::error!(error = %reason, "a row of the store cannot be used, and is left alone");
        }
        None
    }
}

/// Reads a job. What can no longer be understood makes it `broken`; it is never dropped.
pub(super) fn job(row: SqlRow) -> DecodedRow<Job> {
    let bytes = row.bytes();
    let mut columns = RowReader::new(row, JOB_COLUMNS);
    let columns = &mut columns;
    let id = JobId::stored(columns.key(RowReader::text));
    let anchor = columns.instant();
    let spec: Value = parse_json(&columns.text());
    let task_value: Value = parse_json(&columns.text());
    let state = job_state(columns);
    let mut broken = None;
    let trigger = Trigger::compile_stored(&spec, &Zone::utc(), anchor).unwrap_or_else(|invalid| {
        broken = Some(invalid.within("trigger").to_string());
        Trigger::unreadable(spec)
    });
    let task = Task::parse(&task_value).unwrap_or_else(|invalid| {
        broken = Some(invalid.within("task").to_string());
        Task::Unreadable(task_value)
    });
    let job = Job {
        id,
        trigger: Arc::new(trigger),
        task: Arc::new(task),
        state,
        anchor,
        name: columns.text(),
        executor: columns.text(),
        policy: policy(columns),
        tags: columns.word(|text| serde_json::from_str(text).ok(), Vec::new()),
        description: columns.text(),
        bytes,
        origin: columns.word(origin, Origin::Socket),
        source: columns.text_option().map(Into::into),
        requester: columns.number_option(),
        run_count: columns.number(0),
        is_failing: columns.number(0_i64) != 0,
        owner: columns.text_option().map(Into::into),
        revision: columns.key(|columns| columns.number(0)),
        created_at: columns.key(RowReader::instant),
        updated_at: columns.instant(),
        unreadable: columns.fault().map(str::to_owned),
    };
    // One that says itself what is wrong with it is not expected to be understood.
    let says_why = matches!(&job.state, JobState::Broken { reason, .. } if !reason.is_empty());
    let state = match job.unreadable.clone().or(broken.filter(|_| !says_why)) {
        Some(reason) => job.state.broken(reason),
        None => job.state,
    };
    DecodedRow { value: Job { state, ..job }, key_fault: columns.key_fault().map(str::to_owned) }
}

/// Reads what a start or a reload asks of a job.
pub(super) fn reviewed(mut row: SqlRow) -> Result<ReviewedJob, StoreError> {
    Ok(ReviewedJob {
        id: JobId::stored(row.text()?),
        is_declared: origin(&row.text()?) == Some(Origin::File),
        source: row.text_option()?,
    })
}

fn origin(word: &str) -> Option<Origin> {
    match word {
        "file" => Some(Origin::File),
        "socket" => Some(Origin::Socket),
        _ => None,
    }
}

fn former(word: &str) -> Option<Former> {
    match word {
        "active" => Some(Former::Active),
        "paused" => Some(Former::Paused),
        "finished" => Some(Former::Finished),
        _ => None,
    }
}

/// The state of a job.
fn job_state(columns: &mut RowReader<'_>) -> JobState {
    let (word, reason) = (columns.text(), columns.text_option());
    let former = columns.word_option(former).unwrap_or(Former::Active);
    let (scheduled_at, due_at) = (columns.instant_option(), columns.instant_option());
    match (word.as_str(), scheduled_at, due_at) {
        ("active", Some(scheduled_at), Some(due_at)) => {
            JobState::Active { next: Due { scheduled_at, due_at } }
        }
        ("paused", Some(scheduled_at), _) => {
            JobState::Paused { next: Due { scheduled_at, due_at: due_at.unwrap_or(scheduled_at) } }
        }
        ("finished", ..) => JobState::Finished,
        ("broken", ..) => {
            JobState::Broken { reason: reason.unwrap_or_default(), since: scheduled_at, former }
        }
        _ => JobState::Broken {
            since: scheduled_at,
            former,
            reason: format!("the store holds the state \"{word}\" without its instants"),
        },
    }
}

/// Reads the policies.
fn policy(columns: &mut RowReader<'_>) -> Policy {
    let default = Policy::default();
    let columns_only = Policy {
        misfire_grace_time: misfire_grace(columns),
        coalesce: columns.word(Coalesce::parse, default.coalesce),
        max_instances: columns.number::<NonZeroInstances>(NonZeroInstances(1)).0,
        overlap: columns.word(Overlap::parse, default.overlap),
        on_crash: columns.word(OnCrash::parse, default.on_crash),
        max_runs: columns.number_option(),
        ..default
    };
    match Policy::from_stored(columns.text_option().as_deref()) {
        Ok(stored) => Policy {
            misfire_grace_time: columns_only.misfire_grace_time,
            coalesce: columns_only.coalesce,
            max_instances: columns_only.max_instances,
            overlap: columns_only.overlap,
            on_crash: columns_only.on_crash,
            max_runs: columns_only.max_runs,
            ..stored
        },
        Err(invalid) => {
            columns.refuse(&invalid.to_string());
            columns_only
        }
    }
}

fn misfire_grace(columns: &mut RowReader<'_>) -> Option<TimeDelta> {
    let micros = columns.number_option::<u64>().and_then(|micros| i64::try_from(micros).ok());
    micros.map(TimeDelta::microseconds)
}

/// How many runs of a job may be in flight: at least one.
struct NonZeroInstances(u32);

impl TryFrom<i64> for NonZeroInstances {
    type Error = ();

    fn try_from(number: i64) -> Result<Self, ()> {
        u32::try_from(number).ok().filter(|number| *number > 0).map(Self).ok_or(())
    }
}

fn parse_json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// Reads a run. One whose row cannot be understood is `lost`, and says what was not understood.
pub(super) fn run(row: SqlRow) -> DecodedRow<Run> {
    let mut columns = RowReader::new(row, RUN_COLUMNS);
    let columns = &mut columns;
    let run = Run {
        id: RunId(columns.key(RowReader::text).into()),
        job_id: JobId::stored(columns.text()),
        anchor: columns.instant(),
        cause: cause(columns),
        scheduled_at: columns.instant_option(),
        due_at: columns.instant(),
        attempt: columns.number(1),
        crashes: columns.number(0),
        executor: columns.text(),
        node: columns.key(RowReader::text).into(),
        created_at: columns.instant(),
        state: RunState::Pending,
    };
    let state = run_state(columns, &run);
    DecodedRow { value: Run { state, ..run }, key_fault: columns.key_fault().map(str::to_owned) }
}

fn cause(columns: &mut RowReader<'_>) -> Cause {
    let plain = |word: &str| match word {
        "manual" => Some(Cause::Manual),
        "schedule" => Some(Cause::Schedule),
        _ => None,
    };
    let cause = columns.word(plain, Cause::Manual);
    let event = columns.text_option();
    let known = event.as_deref().map(HookEvent::parse);
    if known == Some(None) {
        columns.refuse(&format!("\"{}\"", event.unwrap_or_default()));
    }
    let subject = columns.text_option();
    match (known.flatten(), subject) {
        (Some(event), Some(subject)) => Cause::Event { event, subject: RunId(subject.into()) },
        (Some(_), None) => {
            columns.refuse("null");
            cause
        }
        (None, _) => cause,
    }
}

fn run_state(columns: &mut RowReader<'_>, run: &Run) -> RunState {
    let word = columns.text();
    // What follows is about ends; a run that has not ended does not need it.
    let fault = columns.fault().map(str::to_owned);
    let (last_scheduled_at, count) = (columns.instant_option(), columns.number(1));
    let (started_at, finished_at) = (columns.instant_option(), columns.instant_option());
    let started_at = started_at.unwrap_or(run.created_at);
    let finished_at = finished_at.unwrap_or(started_at);
    let lost = |error: &str| RunState::Ended {
        started_at,
        finished_at,
        outcome: Outcome::Lost { error: error.to_owned() },
        cost: Cost::default(),
    };
    match (word.as_str(), fault) {
        ("pending" | "running", Some(fault)) => return lost(&fault),
        ("pending", None) => return RunState::Pending,
        ("running", None) => return RunState::Running { started_at },
        _ => {}
    }
    let state = if word == "skipped" {
        RunState::Skipped {
            reason: columns.word(SkipReason::parse, SkipReason::Missed),
            last_scheduled_at: last_scheduled_at.unwrap_or(run.due_at),
            count,
        }
    } else {
        let (mut outcome, cost) = outcome(columns, &word);
        let answer = columns.text_option();
        if let Outcome::Succeeded { result, .. } = &mut outcome {
            *result = answer.map(|text| parse_json(&text));
        }
        RunState::Ended { started_at, finished_at, outcome, cost }
    };
    columns.fault().map_or(state, lost)
}

/// How an execution ended, without what it answered.
fn outcome(columns: &mut RowReader<'_>, word: &str) -> (Outcome, Cost) {
    let reason = columns.text_option();
    let permanent = reason.as_deref() == Some("permanent");
    if let Some(reason) = reason.filter(|_| !permanent) {
        columns.refuse(&format!("\"{reason}\""));
    }
    let (exit_code, signal) = (columns.number_option(), columns.number_option());
    let error = columns.text_option().unwrap_or_default();
    let cost = Cost { cpu_micros: columns.number_option(), peak_memory: columns.number_option() };
    let outcome = match word {
        "succeeded" => Outcome::Succeeded { result: None, exit_code },
        "failed" => Outcome::Failed { error, exit_code, signal, permanent },
        "timed_out" => Outcome::TimedOut { error },
        "cancelled" => Outcome::Cancelled { reason: error },
        "lost" => Outcome::Lost { error },
        _ => Outcome::Lost { error: format!("the store holds the unknown state \"{word}\"") },
    };
    (outcome, cost)
}

/// Reads an attempt. One whose row cannot be understood is `lost`, and says what was not understood.
pub(super) fn attempt(row: SqlRow) -> Attempt {
    let mut columns = RowReader::new(row, ATTEMPT_COLUMNS);
    let columns = &mut columns;
    let run_id = RunId(columns.text().into());
    let number = columns.number(1);
    let node = columns.text().into();
    let (started_at, finished_at) = (columns.instant(), columns.instant());
    let word = columns.text();
    let (outcome, cost) = outcome(columns, &word);
    let lost = |error: &str| Outcome::Lost { error: error.to_owned() };
    let outcome = columns.fault().map_or(outcome, lost);
    Attempt { run_id, number, node, started_at, finished_at, outcome, cost }
}

/// Reads a node. Its instants are for people; whether it lives is seen from its beat.
pub(super) fn node(row: SqlRow) -> DecodedRow<Node> {
    let mut columns = RowReader::new(row, NODE_COLUMNS);
    let value = Node {
        name: columns.key(RowReader::text),
        beat: columns.key(|columns| columns.number(0)),
        started_at: columns.instant(),
        seen_at: columns.instant(),
    };
    DecodedRow { value, key_fault: columns.key_fault().map(str::to_owned) }
}
