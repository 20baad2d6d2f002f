//! What the log says about jobs and runs. The daemon's usual level shows what went wrong; with
//! `PUNCTUAL_LOG=info,ledger=debug` the log shows every run.

use std::sync::Arc;

use tracing::field::{DisplayValue, display};

use crate::clock::Timestamp;
use crate::job::JobId;
use crate::run::{Cause, HookEvent, Outcome, Run, RunId, RunState, SkipReason};

/// The target of log lines about runs.
const TARGET: &str = "ledger";

/// The target of log lines about who has changed what.
const AUDIT: &str = "audit";

/// A decision of a step, logged once the step is committed. A step that is not committed is decided again, and must not
/// leave a line.
#[derive(Debug)]
pub(crate) enum Note {
    /// A job cannot fire any more.
    Broken { job: JobId, reason: String },
    /// A broken job can fire again.
    Repaired { job: JobId },
    /// A request removed a job that another file declares.
    RemovedOfAnother { job: JobId, source: Arc<str> },
    /// A pause has ended by itself: of a job, or of the scheduler.
    PauseEnded { job: Option<JobId>, until: Timestamp },
    /// Occurrences were skipped.
    Skipped { job: JobId, reason: SkipReason, count: u64 },
    /// An attempt has failed, and another one follows.
    Retried { run: Box<Run>, at: Timestamp },
    /// No pool can run a hook.
    NoPoolForHook { job: JobId, event: HookEvent, subject: RunId, why: String },
}

impl Note {
    pub(super) fn log(&self) {
        match self {
            Self::Broken { job, reason } => {
                tracing::warn!(%job, error = %reason, "the job is broken; it is kept, and does not fire");
            }
            Self::Repaired { job } => tracing::info!(%job, "the job is no longer broken"),
            Self::RemovedOfAnother { job, source } => {
                tracing::warn!(%job, %source, "a job that another file declares was removed; \
                    a daemon that uses that file adds it again at its next start or reload");
            }
            Self::PauseEnded { job, until } => {
                let action = if job.is_some() { "resume" } else { "resume-all" };
                tracing::info!(target: AUDIT, %action, outcome = %"done", job = job.as_ref().map(display),
                    by = %"end of the pause", %until, "control request");
            }
            Self::Skipped { job, reason, count } => {
                tracing::info!(%job, reason = reason.word(), count, "skipped");
            }
            Self::Retried { run, at } => retried(run, *at),
            Self::NoPoolForHook { job, event, subject, why } => {
                tracing::warn!(%job, hook = event.hook(), %subject, error = %why, "the hook is not run");
            }
        }
    }
}

impl Note {
    /// The run whose attempt has failed, if another one follows.
    pub(super) fn retried_run(&self) -> Option<&Run> {
        if let Self::Retried { run, .. } = self { Some(run) } else { None }
    }
}

/// The hook of a hook run and the run that it reports; `None` for a run of the job itself.
fn of_hook(run: &Run) -> (Option<&'static str>, Option<DisplayValue<&RunId>>) {
    match &run.cause {
        Cause::Event { event, subject } => (Some(event.hook()), Some(display(subject))),
        Cause::Schedule | Cause::Manual => (None, None),
    }
}

fn retried(run: &Run, at: Timestamp) {
    let RunState::Ended { outcome, .. } = &run.state else { return };
    let (job, id, attempt) = (&run.job_id, &run.id, run.attempt);
    let (hook, subject) = of_hook(run);
    if let Outcome::Failed { error, .. } | Outcome::TimedOut { error } = outcome {
        tracing::info!(target: TARGET, %job, run = %id, hook, subject, attempt, %error, again_at = %at, "tried again");
    }
}

/// Logs the end of a run.
pub(super) fn run_ended(run: &Run) {
    let RunState::Ended { started_at, finished_at, outcome, .. } = &run.state else { return };
    let micros = |from: Timestamp, to: Timestamp| {
        to.signed_duration_since(from).num_microseconds().unwrap_or(i64::MAX)
    };
    let (late_us, took_us) = (micros(run.due_at, *started_at), micros(*started_at, *finished_at));
    let (job, id, attempt) = (&run.job_id, &run.id, run.attempt);
    let (hook, subject) = of_hook(run);
    match outcome {
        Outcome::Succeeded { .. } => {
            tracing::debug!(target: TARGET, %job, run = %id, hook, subject, late_us, took_us, "succeeded");
        }
        Outcome::Failed { error, .. } => {
            tracing::warn!(target: TARGET, %job, run = %id, hook, subject, attempt, late_us, took_us, %error, "failed");
        }
        Outcome::Cancelled { reason } => {
            tracing::info!(target: TARGET, %job, run = %id, hook, subject, attempt, late_us, took_us, %reason, "cancelled");
        }
        Outcome::TimedOut { error } => {
            tracing::warn!(target: TARGET, %job, run = %id, hook, subject, attempt, late_us, took_us, %error, "timed out");
        }
        Outcome::Lost { error } => {
            tracing::warn!(target: TARGET, %job, run = %id, hook, subject, attempt, %error, "lost");
        }
    }
}
