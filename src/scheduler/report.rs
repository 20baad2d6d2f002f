//! What the log says of runs. A daemon's usual level shows what went wrong; with
//! `PUNCTUAL_LOG=info,ledger=debug` it shows every run.

use crate::clock::Timestamp;
use crate::job::JobId;
use crate::run::{Outcome, Run, RunState};

/// The target under which runs are logged.
const TARGET: &str = "ledger";

/// Reports that a job cannot fire any more.
pub(super) fn broken(job: &JobId, reason: &str) {
    tracing::warn!(%job, %reason, "the job is broken; it is kept, and does not fire");
}

/// Reports that an attempt has failed and is followed by another one.
pub(super) fn tried_again(run: &Run, at: Timestamp) {
    let RunState::Ended { outcome, .. } = &run.state else { return };
    let (job, id, attempt) = (&run.job_id, &run.id, run.attempt);
    if let Outcome::Failed { error, .. } | Outcome::TimedOut { error } = outcome {
        tracing::info!(target: TARGET, %job, run = %id, attempt, %error, again_at = %at, "tried again");
    }
}

/// Reports the end of a run.
pub(super) fn ended(run: &Run) {
    let RunState::Ended { started_at, finished_at, outcome, .. } = &run.state else { return };
    let micros = |from: Timestamp, to: Timestamp| {
        to.signed_duration_since(from).num_microseconds().unwrap_or(i64::MAX)
    };
    let (late_us, took_us) = (micros(run.due_at, *started_at), micros(*started_at, *finished_at));
    let (job, id, attempt) = (&run.job_id, &run.id, run.attempt);
    match outcome {
        Outcome::Succeeded { .. } => {
            tracing::debug!(target: TARGET, %job, run = %id, late_us, took_us, "succeeded");
        }
        Outcome::Failed { error, .. } => {
            tracing::warn!(target: TARGET, %job, run = %id, attempt, late_us, took_us, %error, "failed");
        }
        Outcome::Cancelled { reason } => {
            tracing::info!(target: TARGET, %job, run = %id, attempt, late_us, took_us, %reason, "cancelled");
        }
        Outcome::TimedOut { error } => {
            tracing::warn!(target: TARGET, %job, run = %id, attempt, late_us, took_us, %error, "timed out");
        }
        Outcome::Lost { error } => {
            tracing::warn!(target: TARGET, %job, run = %id, attempt, %error, "lost");
        }
    }
}
