//! Whether and when a run whose attempt has ended is tried again. Pure.

use super::hooks;
use crate::clock::Timestamp;
use crate::job::Job;
use crate::job::stable_hash;
use crate::run::{Outcome, Run, RunState};

/// When the next attempt is due; `None` if the attempt has not failed, cannot succeed, or was the last one allowed.
pub(super) fn next_attempt(job: &Job, run: &Run, now: Timestamp) -> Option<Timestamp> {
    let retry = hooks::retry_policy(job, run)?;
    let RunState::Ended { outcome, .. } = &run.state else { return None };
    let may_succeed = match outcome {
        Outcome::Failed { permanent, .. } => !permanent,
        Outcome::TimedOut { .. } => true,
        Outcome::Succeeded { .. } | Outcome::Cancelled { .. } | Outcome::Lost { .. } => false,
    };
    if !may_succeed || run.attempt >= retry.max_attempts {
        return None;
    }
    // The jitter is a hash, so that every node and every replay finds the same instant.
    let mixed = stable_hash(run.id.0.as_bytes(), i64::from(run.attempt)) >> 32;
    let chance = f64::from(u32::try_from(mixed).unwrap_or(u32::MAX)) / f64::from(u32::MAX);
    now.checked_add_signed(retry.delay_after(run.attempt, chance))
}
