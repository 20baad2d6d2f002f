//! Whether a run whose attempt has ended is tried again, and when. Pure.

use super::hooks;
use super::plan::hash;
use crate::clock::Timestamp;
use crate::job::Job;
use crate::run::{Outcome, Run, RunState};

/// When the run is tried again; never, if it has not failed, cannot help it, or was tried often enough.
pub(super) fn next_attempt(job: &Job, run: &Run, now: Timestamp) -> Option<Timestamp> {
    let retry = hooks::retry(job, run)?;
    let RunState::Ended { outcome, .. } = &run.state else { return None };
    let may_pass = match outcome {
        Outcome::Failed { permanent, .. } => !permanent,
        Outcome::TimedOut { .. } => true,
        Outcome::Succeeded { .. } | Outcome::Cancelled { .. } | Outcome::Lost { .. } => false,
    };
    if !may_pass || run.attempt >= retry.max_attempts {
        return None;
    }
    // Chance that every node, and every replay, finds the same.
    let mixed = hash(run.id.0.as_bytes(), i64::from(run.attempt)) >> 32;
    let chance = f64::from(u32::try_from(mixed).unwrap_or(u32::MAX)) / f64::from(u32::MAX);
    now.checked_add_signed(retry.delay_after(run.attempt, chance))
}
