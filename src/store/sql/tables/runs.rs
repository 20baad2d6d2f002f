//! The tables of the runs and of the attempts before a run's last one.
//!
//! A run or an attempt whose row cannot be understood is `lost`, with the column and the value as its error.

use std::sync::LazyLock;

use super::outcome::{HasOutcome, OutcomeDraft, is_permanent, outcome_columns, permanent};
use super::parse_json;
use crate::clock::Timestamp;
use crate::job::JobId;
use crate::run::{Attempt, Cause, Cost, HookEvent, Outcome, Run, RunId, RunState, SkipReason};
use crate::store::sql::row_reader::RowReader;
use crate::store::sql::table::{DecodedRow, Section, SqlTable, columns, count, read_section};
use crate::store::sql::value::SqlRow;

pub(crate) static RUNS: SqlTable<Run, RunDraft> =
    SqlTable::new("runs", &[FIXED, PROGRESS, END, OUTCOME]);

/// The section from which on an update writes a run.
pub(crate) const FROM_PROGRESS: usize = 1;

/// A run whose row is being read.
#[derive(Debug)]
pub(crate) struct RunDraft {
    run: Run,
    event: Option<HookEvent>,
    state: String,
    skip_reason: SkipReason,
    last_scheduled_at: Option<Timestamp>,
    occurrences: u64,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    outcome: OutcomeDraft,
}

impl HasOutcome for RunDraft {
    fn outcome(&mut self) -> &mut OutcomeDraft {
        &mut self.outcome
    }
}

/// Columns that never change.
const FIXED: Section<Run, RunDraft> = columns! {
    "id": |run, to| to.text(Some(&run.id.0))
        => |row, draft| draft.run.id = RunId(row.key(RowReader::text).into());
    "job_id": |run, to| to.text(Some(run.job_id.as_str()))
        => |row, draft| draft.run.job_id = JobId::stored(row.text());
    "anchor": |run, to| to.instant(Some(run.anchor))
        => |row, draft| draft.run.anchor = row.instant();
    // The check of this column is older than hooks. The run of a hook has no occurrence either, so it says "manual".
    "cause": |run, to| {
        to.text(Some(match run.cause {
            Cause::Schedule => "schedule",
            Cause::Manual | Cause::Event { .. } => "manual",
        }));
    } => |row, draft| draft.run.cause = row.word(cause, Cause::Manual);
    "event": |run, to| {
        let Cause::Event { event, .. } = &run.cause else { return to.text(None) };
        to.text(Some(event.word()));
    } => |row, draft| draft.event = row.word_option(HookEvent::parse);
    // The run that a hook reports.
    "subject": |run, to| {
        let Cause::Event { subject, .. } = &run.cause else { return to.text(None) };
        to.text(Some(&subject.0));
    } => |row, draft| match (draft.event, row.text_option()) {
        (Some(event), Some(subject)) => {
            draft.run.cause = Cause::Event { event, subject: RunId(subject.into()) };
        }
        (Some(_), None) => row.refuse("null"),
        (None, _) => {}
    };
    "scheduled_at": |run, to| to.instant(run.scheduled_at)
        => |row, draft| draft.run.scheduled_at = row.instant_option();
    "executor": |run, to| to.text(Some(&run.executor))
        => |row, draft| draft.run.executor = row.text();
    "created_at": |run, to| to.instant(Some(run.created_at))
        => |row, draft| draft.run.created_at = row.instant();
};

/// Columns that change before a run ends.
const PROGRESS: Section<Run, RunDraft> = columns! {
    "state": |run, to| to.text(Some(run.state.word()))
        => |row, draft| draft.state = row.text();
    "due_at": |run, to| to.instant(Some(run.due_at))
        => |row, draft| draft.run.due_at = row.instant();
    "attempt": |run, to| to.integer(Some(i64::from(run.attempt)))
        => |row, draft| draft.run.attempt = row.number(1);
    "crashes": |run, to| to.integer(Some(i64::from(run.crashes)))
        => |row, draft| draft.run.crashes = row.number(0);
    "node": |run, to| to.text(Some(&run.node))
        => |row, draft| draft.run.node = row.key(RowReader::text).into();
    "started_at": |run, to| {
        to.instant(match &run.state {
            RunState::Running { started_at } | RunState::Ended { started_at, .. } => {
                Some(*started_at)
            }
            RunState::Pending | RunState::Skipped { .. } => None,
        });
    } => |row, draft| draft.started_at = row.instant_option();
};

/// Columns that say how a run ended. A run that has not ended does not need them, so a fault in them does not harm it.
const END: Section<Run, RunDraft> = columns! {
    // Why an occurrence was skipped, or whether a failure was permanent.
    "reason": |run, to| {
        to.text(match &run.state {
            RunState::Skipped { reason, .. } => Some(reason.word()),
            RunState::Ended { outcome, .. } => permanent(Some(outcome)),
            RunState::Pending | RunState::Running { .. } => None,
        });
    } => |row, draft| {
        if draft.state == "skipped" {
            draft.skip_reason = row.word(SkipReason::parse, SkipReason::Missed);
        } else {
            draft.outcome.permanent = row.word_option(is_permanent).unwrap_or_default();
        }
    };
    "last_scheduled_at": |run, to| {
        to.instant(match &run.state {
            RunState::Skipped { last_scheduled_at, .. } => Some(*last_scheduled_at),
            RunState::Pending | RunState::Running { .. } | RunState::Ended { .. } => None,
        });
    } => |row, draft| draft.last_scheduled_at = row.instant_option();
    "occurrences": |run, to| {
        to.integer(Some(match &run.state {
            RunState::Skipped { count: occurrences, .. } => count(*occurrences),
            RunState::Pending | RunState::Running { .. } | RunState::Ended { .. } => 1,
        }));
    } => |row, draft| draft.occurrences = row.number(1);
    "finished_at": |run, to| {
        to.instant(match &run.state {
            RunState::Ended { finished_at, .. } => Some(*finished_at),
            RunState::Pending | RunState::Running { .. } | RunState::Skipped { .. } => None,
        });
    } => |row, draft| draft.finished_at = row.instant_option();
    "result": |run, to| {
        let RunState::Ended { outcome: Outcome::Succeeded { result, .. }, .. } = &run.state
        else {
            return to.text(None);
        };
        to.text(result.as_ref().map(ToString::to_string).as_deref());
    } => |row, draft| draft.outcome.result = row.text_option().map(|text| parse_json(&text));
};

const OUTCOME: Section<Run, RunDraft> = &outcome_columns();

/// What a run is before the first of its columns has been read.
static BLANK: LazyLock<Run> = LazyLock::new(|| Run {
    id: RunId("".into()),
    job_id: JobId::stored(String::new()),
    anchor: Timestamp::UNIX_EPOCH,
    cause: Cause::Manual,
    scheduled_at: None,
    due_at: Timestamp::UNIX_EPOCH,
    attempt: 1,
    crashes: 0,
    executor: String::new(),
    node: "".into(),
    created_at: Timestamp::UNIX_EPOCH,
    state: RunState::Pending,
});

/// Reads a run.
pub(crate) fn run(row: SqlRow) -> DecodedRow<Run> {
    let mut reader = RowReader::new(row);
    let mut draft = RunDraft {
        run: BLANK.clone(),
        event: None,
        state: String::new(),
        skip_reason: SkipReason::Missed,
        last_scheduled_at: None,
        occurrences: 1,
        started_at: None,
        finished_at: None,
        outcome: OutcomeDraft::default(),
    };
    read_section(FIXED, &mut reader, &mut draft);
    read_section(PROGRESS, &mut reader, &mut draft);
    let fault = reader.fault().map(str::to_owned);
    read_section(END, &mut reader, &mut draft);
    read_section(OUTCOME, &mut reader, &mut draft);
    let run = draft.run(fault.as_deref(), reader.fault());
    DecodedRow::new(run, &reader)
}

impl RunDraft {
    /// The run. `fault` is the first one of the columns before its end, `any_fault` the first one of all columns.
    fn run(self, fault: Option<&str>, any_fault: Option<&str>) -> Run {
        let Self { mut run, state: word, outcome, .. } = self;
        let started_at = self.started_at.unwrap_or(run.created_at);
        let finished_at = self.finished_at.unwrap_or(started_at);
        let is_open = matches!(word.as_str(), "pending" | "running");
        run.state = match (word.as_str(), if is_open { fault } else { any_fault }) {
            (_, Some(fault)) => {
                let outcome = Outcome::Lost { error: fault.to_owned() };
                RunState::Ended { started_at, finished_at, outcome, cost: Cost::default() }
            }
            ("pending", None) => RunState::Pending,
            ("running", None) => RunState::Running { started_at },
            ("skipped", None) => RunState::Skipped {
                reason: self.skip_reason,
                last_scheduled_at: self.last_scheduled_at.unwrap_or(run.due_at),
                count: self.occurrences,
            },
            (word, None) => {
                let cost = outcome.cost;
                RunState::Ended { started_at, finished_at, outcome: outcome.outcome(word), cost }
            }
        };
        run
    }
}

fn cause(word: &str) -> Option<Cause> {
    match word {
        "manual" => Some(Cause::Manual),
        "schedule" => Some(Cause::Schedule),
        _ => None,
    }
}

pub(crate) static ATTEMPTS: SqlTable<Attempt, AttemptDraft> =
    SqlTable::new("attempts", &[ATTEMPT, ATTEMPT_OUTCOME]);

/// An attempt whose row is being read.
#[derive(Debug)]
pub(crate) struct AttemptDraft {
    attempt: Attempt,
    state: String,
    outcome: OutcomeDraft,
}

impl HasOutcome for AttemptDraft {
    fn outcome(&mut self) -> &mut OutcomeDraft {
        &mut self.outcome
    }
}

const ATTEMPT: Section<Attempt, AttemptDraft> = columns! {
    "run_id": |attempt, to| to.text(Some(&attempt.run_id.0))
        => |row, draft| draft.attempt.run_id = RunId(row.text().into());
    "attempt": |attempt, to| to.integer(Some(i64::from(attempt.number)))
        => |row, draft| draft.attempt.number = row.number(1);
    "node": |attempt, to| to.text(Some(&attempt.node))
        => |row, draft| draft.attempt.node = row.text().into();
    "state": |attempt, to| to.text(Some(attempt.outcome.word()))
        => |row, draft| draft.state = row.text();
    "reason": |attempt, to| to.text(permanent(Some(&attempt.outcome)))
        => |row, draft| draft.outcome.permanent = row.word_option(is_permanent).unwrap_or_default();
    "started_at": |attempt, to| to.instant(Some(attempt.started_at))
        => |row, draft| draft.attempt.started_at = row.instant();
    "finished_at": |attempt, to| to.instant(Some(attempt.finished_at))
        => |row, draft| draft.attempt.finished_at = row.instant();
};

const ATTEMPT_OUTCOME: Section<Attempt, AttemptDraft> = &outcome_columns();

/// Reads an attempt.
pub(crate) fn attempt(row: SqlRow) -> Attempt {
    let mut reader = RowReader::new(row);
    let blank = Attempt {
        run_id: RunId("".into()),
        number: 1,
        node: "".into(),
        started_at: Timestamp::UNIX_EPOCH,
        finished_at: Timestamp::UNIX_EPOCH,
        outcome: Outcome::Lost { error: String::new() },
        cost: Cost::default(),
    };
    let outcome = OutcomeDraft::default();
    let mut draft = AttemptDraft { attempt: blank, state: String::new(), outcome };
    ATTEMPTS.read(&mut reader, &mut draft);
    let AttemptDraft { attempt, state, outcome } = draft;
    let cost = outcome.cost;
    let lost = |fault: &str| Outcome::Lost { error: fault.to_owned() };
    let outcome = reader.fault().map_or_else(|| outcome.outcome(&state), lost);
    Attempt { outcome, cost, ..attempt }
}
