//! The columns that say how an execution ended, which runs and attempts have in common.

use serde_json::Value;

use crate::run::{Attempt, Cost, Outcome, Run, RunState};
use crate::store::sql::table::{Column, column_list, count};

/// What has ended, or may have.
pub(super) trait Ended {
    fn outcome(&self) -> Option<&Outcome>;
    fn cost(&self) -> Cost;
}

impl Ended for Attempt {
    fn outcome(&self) -> Option<&Outcome> {
        Some(&self.outcome)
    }

    fn cost(&self) -> Cost {
        self.cost
    }
}

impl Ended for Run {
    fn outcome(&self) -> Option<&Outcome> {
        if let RunState::Ended { outcome, .. } = &self.state { Some(outcome) } else { None }
    }

    fn cost(&self) -> Cost {
        if let RunState::Ended { cost, .. } = &self.state { *cost } else { Cost::default() }
    }
}

/// The values of these columns.
#[derive(Debug, Default, Clone)]
pub(super) struct OutcomeDraft {
    pub(super) permanent: bool,
    pub(super) exit_code: Option<i32>,
    pub(super) signal: Option<i32>,
    pub(super) error: Option<String>,
    pub(super) result: Option<Value>,
    pub(super) cost: Cost,
}

impl OutcomeDraft {
    /// The outcome of an execution whose state has this word.
    pub(super) fn outcome(self, word: &str) -> Outcome {
        let Self { permanent, exit_code, signal, error, result, cost: _ } = self;
        let error = error.unwrap_or_default();
        match word {
            "succeeded" => Outcome::Succeeded { result, exit_code },
            "failed" => Outcome::Failed { error, exit_code, signal, permanent },
            "timed_out" => Outcome::TimedOut { error },
            "cancelled" => Outcome::Cancelled { reason: error },
            "lost" => Outcome::Lost { error },
            _ => Outcome::Lost { error: format!("the store holds the unknown state \"{word}\"") },
        }
    }
}

/// A draft that has an outcome.
pub(super) trait HasOutcome {
    fn outcome(&mut self) -> &mut OutcomeDraft;
}

/// The word in the column `reason` of a failure that is not tried again.
const PERMANENT: &str = "permanent";

/// Whether a failure was permanent, as the column `reason` says.
pub(super) fn permanent(outcome: Option<&Outcome>) -> Option<&'static str> {
    matches!(outcome, Some(Outcome::Failed { permanent: true, .. })).then_some(PERMANENT)
}

/// Whether the column `reason` says so.
pub(super) fn is_permanent(word: &str) -> Option<bool> {
    (word == PERMANENT).then_some(true)
}

/// The columns themselves.
pub(super) const fn outcome_columns<T: Ended, D: HasOutcome>() -> [Column<T, D>; 5] {
    column_list! {
        "exit_code": |ended, to| {
            let code = match ended.outcome() {
                Some(Outcome::Succeeded { exit_code, .. } | Outcome::Failed { exit_code, .. }) => {
                    *exit_code
                }
                _ => None,
            };
            to.integer(code.map(i64::from));
        } => |row, draft| draft.outcome().exit_code = row.number_option();
        "by_signal": |ended, to| {
            let signal = match ended.outcome() {
                Some(Outcome::Failed { signal, .. }) => *signal,
                _ => None,
            };
            to.integer(signal.map(i64::from));
        } => |row, draft| draft.outcome().signal = row.number_option();
        "error": |ended, to| {
            to.text(match ended.outcome() {
                None | Some(Outcome::Succeeded { .. }) => None,
                Some(
                    Outcome::Failed { error, .. }
                    | Outcome::TimedOut { error }
                    | Outcome::Cancelled { reason: error }
                    | Outcome::Lost { error },
                ) => Some(error),
            });
        } => |row, draft| draft.outcome().error = row.text_option();
        "cpu_micros": |ended, to| to.integer(ended.cost().cpu_micros.map(count))
            => |row, draft| draft.outcome().cost.cpu_micros = row.number_option();
        "peak_memory": |ended, to| to.integer(ended.cost().peak_memory.map(count))
            => |row, draft| draft.outcome().cost.peak_memory = row.number_option();
    }
}
