//! What every run goes through, whichever pool executes it: its timeout, the retries while the system is short of
//! resources, and its completion.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::assignment::{Assignment, Completion};
use super::deliveries::Deliveries;
use super::http::client::Clients;
use super::live::LiveRuns;
use super::shortage::{Shortage, ShortageBackoff};
use crate::clock::{Clock, Timestamp, duration_words};
use crate::json::DEPTH_MAX;
use crate::run::{Cost, Outcome};
use crate::task::builtin::Registry;
use crate::task::context::{Context, Ending};

/// The reason of the cancel that a stop of the daemon sends to every run.
pub(super) const STOPPED: &str = "the daemon stops";
/// Bytes of a builtin's result that the ledger keeps.
const RESULT_BYTES_MAX: usize = 64 * 1024;
/// Bytes of an error that the ledger keeps.
const ERROR_BYTES_MAX: usize = 8 * 1024;

/// What all pools share.
#[derive(Debug)]
pub(super) struct ExecutorServices {
    pub(super) registry: Registry,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) completions: mpsc::Sender<Completion>,
    /// Counts the runs that a stop waits for.
    pub(super) tracker: TaskTracker,
    /// The runtime of all tasks here. A run may be started from a thread that is not one of its own.
    pub(super) runtime: Handle,
    pub(super) clients: Clients,
    pub(super) live: LiveRuns,
    pub(super) deliveries: Deliveries,
}

/// How an attempt ended, and what it cost.
#[derive(Debug)]
pub(super) struct RunEnd {
    pub(super) outcome: Outcome,
    pub(super) cost: Cost,
}

impl From<Outcome> for RunEnd {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, cost: Cost::default() }
    }
}

impl From<Ending> for Outcome {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Cancelled(reason) => Self::Cancelled { reason },
            Ending::TimedOut(limit) => {
                let limit = TimeDelta::from_std(limit).unwrap_or(TimeDelta::MAX);
                Self::TimedOut { error: format!("it did not end within {}", duration_words(limit)) }
            }
        }
    }
}

impl ExecutorServices {
    /// Starts the timeout of an attempt, if it has one: the run is cancelled when the time is over. Dropping the answer
    /// stops the timer.
    pub(super) fn start_timeout(
        &self,
        timeout: Option<Duration>,
        context: &Arc<Context>,
    ) -> Option<AbortOnDropHandle<()>> {
        let timeout = timeout?;
        let context = Arc::downgrade(context);
        // `sleep` uses the monotonic clock, which does not jump when the system time is set.
        let timer = self.runtime.spawn(async move {
            tokio::time::sleep(timeout).await;
            if let Some(context) = context.upgrade() {
                context.cancellation.cancel(Ending::TimedOut(timeout));
            }
        });
        Some(AbortOnDropHandle::new(timer))
    }

    /// Executes a run, and tries again while the system is short of resources. An attempt that met a shortage has not
    /// begun: the run keeps its attempt number, and its timeout starts again. The answer says when the last try began.
    pub(super) async fn retry_on_shortage<T, F>(
        &self,
        assignment: &Assignment,
        context: &Arc<Context>,
        attempt: impl Fn() -> F,
    ) -> (Timestamp, T)
    where
        T: From<Outcome>,
        F: Future<Output = Result<T, Shortage>>,
    {
        let mut backoff = ShortageBackoff::default();
        loop {
            let started_at = self.clock.now();
            let timeout = self.start_timeout(assignment.timeout, context);
            let shortage = match attempt().await {
                Ok(end) => return (started_at, end),
                Err(shortage) => shortage,
            };
            drop(timeout);
            if let Some(ending) = backoff.wait(&assignment.run_id, shortage, context).await {
                return (started_at, Outcome::from(ending).into());
            }
        }
    }

    /// Executes a run that needs neither a thread nor a process, once one of the pool's `permits` is free, and reports
    /// how it ended. The timeout starts with the attempt, not with the wait. A cancel or a timeout drops the attempt.
    pub(super) async fn execute_async<F>(
        &self,
        assignment: &Assignment,
        context: &Arc<Context>,
        permits: &Semaphore,
        attempt: impl Fn() -> F,
    ) where
        F: Future<Output = Result<Outcome, Shortage>>,
    {
        let cancellation = &context.cancellation;
        let until_cancelled = || async {
            if let Some(ending) = cancellation.ending() {
                return Ok(ending.into());
            }
            tokio::select! {
                biased;
                outcome = attempt() => outcome,
                ending = cancellation.cancelled() => Ok(ending.into()),
            }
        };
        let (started_at, outcome) = tokio::select! {
            biased;
            ending = cancellation.cancelled() => (self.clock.now(), ending.into()),
            // The semaphore is never closed.
            _permit = permits.acquire() => {
                self.retry_on_shortage(assignment, context, until_cancelled).await
            }
        };
        self.report(assignment, context, started_at, outcome.into()).await;
    }

    /// Builds the completion of a run. A run that the stop of the daemon interrupted has none: the code that records the
    /// stop decides whether the run is run again.
    pub(super) fn completion(
        &self,
        assignment: &Assignment,
        context: &Context,
        started_at: Timestamp,
        end: RunEnd,
    ) -> Option<Completion> {
        let now = self.clock.now();
        let output = context.log.close(now);
        if matches!(&end.outcome, Outcome::Cancelled { reason } if reason == STOPPED) {
            self.live.keep_interrupted(assignment.execution(), output);
            return None;
        }
        Some(Completion {
            run_id: assignment.run_id.clone(),
            attempt: assignment.attempt,
            started_at,
            finished_at: now,
            outcome: bounded(end.outcome, context),
            cost: end.cost,
            output: Arc::new(output),
        })
    }

    /// Reports the end of a run to the scheduler.
    pub(super) async fn report(
        &self,
        assignment: &Assignment,
        context: &Context,
        started_at: Timestamp,
        end: RunEnd,
    ) {
        self.send_completion(self.completion(assignment, context, started_at, end)).await;
    }

    /// Reports the end of a run that has not begun.
    pub(super) async fn refuse(
        &self,
        assignment: &Assignment,
        context: &Context,
        outcome: Outcome,
    ) {
        self.report(assignment, context, self.clock.now(), outcome.into()).await;
    }

    pub(super) async fn send_completion(&self, completion: Option<Completion>) {
        let Some(completion) = completion else { return };
        // The scheduler is gone only when the daemon stops; the next start finds the run in the ledger.
        if self.completions.send(completion).await.is_err() {
            tracing::debug!("a completion came after the scheduler had stopped");
        }
    }
}

/// A failure that a retry may cure.
pub(super) fn failed(error: impl Into<String>) -> Outcome {
    failure(error, false)
}

/// A failure that no retry can cure if it is `permanent`.
pub(super) fn failure(error: impl Into<String>, permanent: bool) -> Outcome {
    Outcome::Failed { error: error.into(), exit_code: None, signal: None, permanent }
}

/// Shortens an outcome to what the ledger keeps of it, and masks the secrets of the run.
pub(super) fn bounded(outcome: Outcome, context: &Context) -> Outcome {
    let text = |text: String| bounded_text(context.log.masked(text));
    match outcome {
        Outcome::Succeeded { result: Some(result), exit_code } => {
            Outcome::Succeeded { result: Some(bounded_result(result)), exit_code }
        }
        Outcome::Failed { error, exit_code, signal, permanent } => {
            Outcome::Failed { error: text(error), exit_code, signal, permanent }
        }
        Outcome::Cancelled { reason } => Outcome::Cancelled { reason: text(reason) },
        other @ (Outcome::Succeeded { .. } | Outcome::TimedOut { .. } | Outcome::Lost { .. }) => {
            other
        }
    }
}

/// The result of a builtin, or a note about its size if it is too large to keep.
fn bounded_result(result: Value) -> Value {
    let (bytes, depth) = (result.to_string().len(), depth(&result));
    if bytes > RESULT_BYTES_MAX || depth > DEPTH_MAX {
        return json!({"cut": true, "bytes": bytes, "depth": depth});
    }
    result
}

fn bounded_text(mut text: String) -> String {
    if text.len() > ERROR_BYTES_MAX {
        text.truncate(text.floor_char_boundary(ERROR_BYTES_MAX));
        text.push('…');
    }
    text
}

/// Levels of nested lists and objects in a value; 0 for a plain value.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}
