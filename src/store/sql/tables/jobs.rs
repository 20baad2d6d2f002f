//! The table of the jobs.
//!
//! A job is never dropped because of what its row holds: a value that cannot be understood makes it `broken`, with the
//! column and the value as its reason.

use std::sync::{Arc, LazyLock};

use serde_json::Value;

use super::parse_json;
use crate::clock::Timestamp;
use crate::job::{Due, Former, Job, JobId, JobState, Origin, Pause, Policy, Task};
use crate::store::sql::row_reader::RowReader;
use crate::store::sql::table::{DecodedRow, Section, SqlTable, columns, count};
use crate::store::sql::value::SqlRow;
use crate::trigger::Trigger;
use crate::zone::Zone;

pub(crate) static JOBS: SqlTable<Job, JobDraft> =
    SqlTable::new("jobs", &[FIXED, DEFINED, SCHEDULE]);

/// The section from which on an update writes a job that was defined again.
pub(crate) const FROM_DEFINED: usize = 1;
/// The section from which on an update writes a job that has only moved on in its schedule.
pub(crate) const FROM_SCHEDULE: usize = 2;

/// A job whose row is being read.
#[derive(Debug)]
pub(crate) struct JobDraft {
    job: Job,
    trigger: Value,
    task: Value,
    state: String,
    reason: Option<String>,
    former: Former,
    scheduled_at: Option<Timestamp>,
    next_run_time: Option<Timestamp>,
}

/// Columns that never change.
const FIXED: Section<Job, JobDraft> = columns! {
    "id": |job, to| to.text(Some(job.id.as_str()))
        => |row, draft| draft.job.id = JobId::stored(row.key(RowReader::text));
    "created_at": |job, to| to.instant(Some(job.created_at))
        => |row, draft| draft.job.created_at = row.key(RowReader::instant);
    // The database counts it up with every update.
    "revision": |job, to| to.integer(Some(job.revision))
        => |row, draft| draft.job.revision = row.key(|row| row.number(0));
};

/// Columns that the definition decides.
const DEFINED: Section<Job, JobDraft> = columns! {
    "name": |job, to| to.text(Some(&job.name))
        => |row, draft| draft.job.name = row.text();
    "trigger_spec": |job, to| to.text(Some(&json(job.trigger.spec())))
        => |row, draft| draft.trigger = parse_json(&row.text());
    // For lists by type. What a job is due by is the spec.
    "trigger_type": |job, to| to.text(job.trigger.type_name())
        => |row, _| drop(row.text_option());
    "task": |job, to| to.text(Some(&json(&*job.task)))
        => |row, draft| draft.task = parse_json(&row.text());
    "executor": |job, to| to.text(Some(&job.executor))
        => |row, draft| draft.job.executor = row.text();
    "policy": |job, to| to.text(job.policy.to_stored().as_deref())
        => |row, draft| match Policy::from_stored(row.text_option().as_deref()) {
            Ok(policy) => draft.job.policy = policy,
            Err(invalid) => row.refuse(&invalid.to_string()),
        };
    "tags": |job, to| to.text(Some(&json(&job.tags)))
        => |row, draft| {
            draft.job.tags = row.word(|text| serde_json::from_str(text).ok(), Vec::new());
        };
    "description": |job, to| to.text(Some(&job.description))
        => |row, draft| draft.job.description = row.text();
    "origin": |job, to| to.text(Some(job.origin.word()))
        => |row, draft| draft.job.origin = row.word(Origin::parse, Origin::Socket);
    "source": |job, to| to.text(job.source.as_deref())
        => |row, draft| draft.job.source = row.text_option().map(Into::into);
    "requester": |job, to| to.integer(job.requester.map(i64::from))
        => |row, draft| draft.job.requester = row.number_option();
    "pause": |job, to| to.text(job.pause.as_ref().map(|pause| pause.to_stored()).as_deref())
        => |row, draft| draft.job.pause = row.word_option(Pause::from_stored).map(Arc::new);
    "anchor": |job, to| to.instant(Some(job.anchor))
        => |row, draft| draft.job.anchor = row.instant();
};

/// Columns that change when the job fires, or when a run of it ends.
const SCHEDULE: Section<Job, JobDraft> = columns! {
    "state": |job, to| to.text(Some(job.state.word()))
        => |row, draft| draft.state = row.text();
    "reason": |job, to| {
        let JobState::Broken { reason, .. } = &job.state else { return to.text(None) };
        to.text(Some(reason));
    } => |row, draft| draft.reason = row.text_option();
    // What a broken job was before; null if it was active.
    "former_state": |job, to| {
        to.text(match job.state {
            JobState::Broken { former: Former::Paused, .. } => Some("paused"),
            JobState::Broken { former: Former::Finished, .. } => Some("finished"),
            _ => None,
        });
    } => |row, draft| draft.former = row.word_option(former).unwrap_or(Former::Active);
    "scheduled_at": |job, to| {
        to.instant(match &job.state {
            JobState::Active { next } | JobState::Paused { next } => Some(next.scheduled_at),
            JobState::Broken { since, .. } => *since,
            JobState::Finished => None,
        });
    } => |row, draft| draft.scheduled_at = row.instant_option();
    // A paused job is looked at when its pause ends.
    "next_run_time": |job, to| to.instant(job.wakes_at())
        => |row, draft| draft.next_run_time = row.instant_option();
    "run_count": |job, to| to.integer(Some(count(job.run_count)))
        => |row, draft| draft.job.run_count = row.number(0);
    "failing": |job, to| to.integer(Some(job.is_failing.into()))
        => |row, draft| draft.job.is_failing = row.flag();
    "owner": |job, to| to.text(job.owner.as_deref())
        => |row, draft| draft.job.owner = row.text_option().map(Into::into);
    "updated_at": |job, to| to.instant(Some(job.updated_at))
        => |row, draft| draft.job.updated_at = row.instant();
};

/// What a job is before the first of its columns has been read.
static BLANK: LazyLock<Job> = LazyLock::new(|| {
    Job::undefined(JobId::stored(String::new()), String::new(), Timestamp::UNIX_EPOCH)
});

/// Reads a job.
pub(crate) fn job(row: SqlRow) -> DecodedRow<Job> {
    let bytes = row.bytes();
    let mut reader = RowReader::new(row);
    let mut draft = JobDraft {
        job: Job { bytes, ..BLANK.clone() },
        trigger: Value::Null,
        task: Value::Null,
        state: String::new(),
        reason: None,
        former: Former::Active,
        scheduled_at: None,
        next_run_time: None,
    };
    JOBS.read(&mut reader, &mut draft);
    DecodedRow::new(draft.job(reader.fault()), &reader)
}

impl JobDraft {
    fn job(mut self, fault: Option<&str>) -> Job {
        let state = self.state();
        let Self { mut job, trigger, task, .. } = self;
        let mut invalid = None;
        let parsed = Trigger::compile_stored(&trigger, &Zone::utc(), job.anchor);
        job.trigger = Arc::new(parsed.unwrap_or_else(|error| {
            invalid = Some(error.within("trigger").to_string());
            Trigger::unreadable(trigger)
        }));
        job.task = Arc::new(Task::parse(&task).unwrap_or_else(|error| {
            invalid = Some(error.within("task").to_string());
            Task::Unreadable(task)
        }));
        job.unreadable = fault.map(str::to_owned);
        // A job that is broken with a reason of its own is not expected to be readable.
        let has_reason = matches!(&state, JobState::Broken { reason, .. } if !reason.is_empty());
        job.state = match job.unreadable.clone().or(invalid.filter(|_| !has_reason)) {
            Some(reason) => state.broken(reason),
            None => state,
        };
        job
    }

    fn state(&mut self) -> JobState {
        let (since, former) = (self.scheduled_at, self.former);
        match (self.state.as_str(), self.scheduled_at, self.next_run_time) {
            ("active", Some(scheduled_at), Some(due_at)) => {
                JobState::Active { next: Due { scheduled_at, due_at } }
            }
            ("paused", Some(scheduled_at), _) => {
                JobState::Paused { next: Due { scheduled_at, due_at: scheduled_at } }
            }
            ("finished", ..) => JobState::Finished,
            ("broken", ..) => {
                JobState::Broken { reason: self.reason.take().unwrap_or_default(), since, former }
            }
            (word, ..) => {
                let reason = format!("the store holds the state \"{word}\" without its instants");
                JobState::Broken { reason, since, former }
            }
        }
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

/// What has a structure is stored as JSON text.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
