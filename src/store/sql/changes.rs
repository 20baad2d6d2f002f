//! The statements of a commit: one for each kind of change, in a few sizes.

use std::collections::BTreeMap;

use super::bind::{
    ADVANCED, ATTEMPT, JOB_KEYS, NEW_JOB, NEW_RUN, RUN, RUN_KEYS, SPAN, SPAN_KEYS, job_columns,
};
use super::dialect::{Dialect, Update};
use crate::store::{Change, RunPart};

/// Rows of one statement, the most first. There are few sizes, so that each statement is prepared once and kept.
pub(super) const ROWS: [usize; 8] = [ROWS_MAX, 64, 32, 16, 8, 4, 2, 1];
const ROWS_MAX: usize = 256;

/// A row of the ledger that may still change.
const IN_FLIGHT: &str = "runs.state in ('pending', 'running')";

/// Columns of the output of an attempt.
const OUTPUT: [&str; 4] = ["run_id", "attempt", "kept", "bytes"];
const OUTPUT_KEYS: [&str; 2] = ["run_id", "attempt"];

/// What a statement does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum StatementKind {
    InsertJob,
    UpdateJob,
    AdvanceJob,
    DeleteJob,
    InsertRun,
    UpdateRun,
    ExtendSkipped,
    InsertAttempt,
    PutOutput,
    SavePartialOutput,
    CancelJobRuns,
    CancelRun,
    PutSetting,
    DeleteSetting,
    PruneOutputs,
    PruneAttempts,
    PruneRuns,
}

const KINDS: [StatementKind; 17] = [
    StatementKind::InsertJob,
    StatementKind::UpdateJob,
    StatementKind::AdvanceJob,
    StatementKind::DeleteJob,
    StatementKind::InsertRun,
    StatementKind::UpdateRun,
    StatementKind::ExtendSkipped,
    StatementKind::InsertAttempt,
    StatementKind::PutOutput,
    StatementKind::SavePartialOutput,
    StatementKind::CancelJobRuns,
    StatementKind::CancelRun,
    StatementKind::PutSetting,
    StatementKind::DeleteSetting,
    StatementKind::PruneOutputs,
    StatementKind::PruneAttempts,
    StatementKind::PruneRuns,
];

impl StatementKind {
    pub(super) fn of(change: &Change) -> Self {
        match change {
            Change::InsertJob(_) => Self::InsertJob,
            Change::UpdateJob(_) => Self::UpdateJob,
            Change::AdvanceJob(_) => Self::AdvanceJob,
            Change::DeleteJob { .. } => Self::DeleteJob,
            Change::InsertRun(_) => Self::InsertRun,
            Change::UpdateRun { .. } => Self::UpdateRun,
            Change::ExtendSkipped { .. } => Self::ExtendSkipped,
            Change::InsertAttempt(_) => Self::InsertAttempt,
            Change::PutOutput { .. } => Self::PutOutput,
            Change::SavePartialOutput { .. } => Self::SavePartialOutput,
            Change::CancelJobRuns { .. } => Self::CancelJobRuns,
            Change::CancelRun { .. } => Self::CancelRun,
            Change::SetPaused(Some(_)) | Change::RecordTime(_) => Self::PutSetting,
            Change::SetPaused(None) => Self::DeleteSetting,
            Change::Prune { part: RunPart::Outputs, .. } => Self::PruneOutputs,
            Change::Prune { part: RunPart::Attempts, .. } => Self::PruneAttempts,
            Change::Prune { part: RunPart::Row, .. } => Self::PruneRuns,
        }
    }

    /// Whether several of the kind can share a statement.
    pub(super) fn is_shared(self) -> bool {
        !matches!(
            self,
            Self::DeleteJob
                | Self::SavePartialOutput
                | Self::CancelJobRuns
                | Self::CancelRun
                | Self::PutSetting
                | Self::DeleteSetting
        )
    }

    /// Whether there must be a row for each change.
    pub(super) fn must_write(self) -> bool {
        !matches!(
            self,
            Self::PutOutput
                | Self::SavePartialOutput
                | Self::CancelJobRuns
                | Self::CancelRun
                | Self::PutSetting
                | Self::DeleteSetting
                | Self::PruneOutputs
                | Self::PruneAttempts
                | Self::PruneRuns
        )
    }

    fn text(self, dialect: Dialect, rows: usize) -> String {
        let all = job_columns();
        let update_jobs = |columns| Update {
            table: "jobs",
            columns,
            keys: &JOB_KEYS,
            count_up: Some("revision"),
            only: None,
        };
        match self {
            Self::InsertJob => {
                let columns: Vec<&str> = all.into_iter().chain(NEW_JOB).collect();
                dialect.insert("jobs", &columns, rows)
            }
            Self::UpdateJob => dialect.update(&update_jobs(&all), rows),
            Self::AdvanceJob => dialect.update(&update_jobs(&ADVANCED), rows),
            Self::DeleteJob => dialect.delete("jobs", &JOB_KEYS),
            Self::InsertRun => {
                let columns: Vec<&str> = RUN.into_iter().chain(NEW_RUN).collect();
                dialect.insert("runs", &columns, rows)
            }
            Self::UpdateRun => {
                let only = Some(IN_FLIGHT);
                let update =
                    Update { table: "runs", columns: &RUN, keys: &RUN_KEYS, count_up: None, only };
                dialect.update(&update, rows)
            }
            Self::ExtendSkipped => {
                let update = Update {
                    table: "runs",
                    columns: &SPAN,
                    keys: &SPAN_KEYS,
                    count_up: None,
                    only: Some("runs.state = 'skipped'"),
                };
                dialect.update(&update, rows)
            }
            Self::InsertAttempt => dialect.insert("attempts", &ATTEMPT, rows),
            Self::PutOutput => dialect.upsert("attempt_outputs", &OUTPUT_KEYS, &OUTPUT, rows),
            Self::SavePartialOutput => save_output(dialect),
            Self::CancelJobRuns => {
                ask_to_end(dialect, "job_id", "runs.state = 'running' and runs.node <> ")
                    + &dialect.placeholder(3)
            }
            Self::CancelRun => ask_to_end(dialect, "id", IN_FLIGHT),
            Self::PutSetting => dialect.upsert("settings", &["name"], &["name", "value"], 1),
            Self::DeleteSetting => dialect.delete("settings", &["name"]),
            Self::PruneOutputs => prune(dialect, "attempt_outputs", rows),
            Self::PruneAttempts => prune(dialect, "attempts", rows),
            Self::PruneRuns => dialect.delete_all("runs", "id", rows) + " and not " + IN_FLIGHT,
        }
    }
}

/// Writes the output of an attempt if its run is running here.
fn save_output(dialect: Dialect) -> String {
    let placeholder = |number| dialect.placeholder(number);
    let values = format!("runs.id, {}, {}, {}", placeholder(1), placeholder(2), placeholder(3));
    let (id, attempt, node) = (placeholder(4), placeholder(5), placeholder(6));
    let insert = format!(
        "insert into attempt_outputs ({}) select {values} from runs \
         where runs.id = {id} and runs.attempt = {attempt} and runs.node = {node} and runs.state = 'running'",
        OUTPUT.join(", ")
    );
    dialect.or_update(&insert, &OUTPUT_KEYS, &OUTPUT)
}

/// Deletes what belongs to runs that have ended.
fn prune(dialect: Dialect, table: &str, rows: usize) -> String {
    let delete = dialect.delete_all(table, "run_id", rows);
    format!(
        "{delete} and exists (select 1 from runs where runs.id = {table}.run_id and not {IN_FLIGHT})"
    )
}

fn ask_to_end(dialect: Dialect, key: &str, only: &str) -> String {
    let columns = &["end_reason"];
    let only = Some(only);
    dialect.update(&Update { table: "runs", columns, keys: &[key], count_up: None, only }, 1)
}

/// The text of every statement that a commit needs.
#[derive(Debug)]
pub(super) struct Statements {
    pub(super) dialect: Dialect,
    /// By kind and number of rows.
    texts: BTreeMap<(StatementKind, usize), String>,
}

impl Statements {
    pub(super) fn new(dialect: Dialect) -> Self {
        let sizes = |kind: StatementKind| {
            // SQLite is written row by row.
            let is_shared = kind.is_shared() && dialect != Dialect::Sqlite;
            ROWS.into_iter().filter(move |rows| is_shared || *rows == 1)
        };
        let keys = KINDS.into_iter().flat_map(|kind| sizes(kind).map(move |rows| (kind, rows)));
        let texts = keys.map(|(kind, rows)| ((kind, rows), kind.text(dialect, rows))).collect();
        Self { dialect, texts }
    }

    pub(super) fn text(&self, kind: StatementKind, rows: usize) -> &str {
        self.texts.get(&(kind, rows)).map_or("", String::as_str)
    }
}
