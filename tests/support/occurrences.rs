//! The occurrences that a row of the ledger stands for.

use punctual::clock::Timestamp;
use punctual::run::{Run, RunState};

/// The last occurrence that the row stands for; `None` for a manual run.
pub fn last_occurrence(run: &Run) -> Option<Timestamp> {
    match &run.state {
        RunState::Skipped { last_scheduled_at, .. } => run.scheduled_at.map(|_| *last_scheduled_at),
        RunState::Pending | RunState::Running { .. } | RunState::Ended { .. } => run.scheduled_at,
    }
}

/// Whether the row stands for the occurrence at `at`.
pub fn covers(run: &Run, at: Timestamp) -> bool {
    run.scheduled_at
        .zip(last_occurrence(run))
        .is_some_and(|(first, last)| first <= at && at <= last)
}
