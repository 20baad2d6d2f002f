//! What every pool shares, and how it tells the end of a run.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::http::client::Clients;
use super::shortage::{Pauses, Shortage};
use super::{Assignment, Completion, Live, STOPPED};
use crate::clock::{Clock, Timestamp, duration_words};
use crate::json::DEPTH_MAX;
use crate::run::{Cost, Outcome};
use crate::task::builtin::Registry;
use crate::task::cancellation::Ending;
use crate::task::context::Context;

/// Bytes of a builtin's result that the ledger keeps.
const RESULT_BYTES_MAX: usize = 64 * 1024;
/// Bytes of an error that the ledger keeps.
const ERROR_BYTES_MAX: usize = 8 * 1024;

/// What every pool shares.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) registry: Registry,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) completions: mpsc::Sender<Completion>,
    pub(super) tracker: TaskTracker,
    /// Where processes are supervised and limits are kept, whichever thread starts them.
    pub(super) runtime: Handle,
    pub(super) clients: Clients,
    pub(super) live: Live,
}

/// How an execution ended, and what it cost.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) outcome: Outcome,
    pub(super) cost: Cost,
}

impl From<Outcome> for Ended {
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

/// The time limit of an execution, for as long as this is held.
#[derive(Debug)]
pub(super) struct Limit(JoinHandle<()>);

impl Drop for Limit {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Shared {
    /// From now on the execution may take as long as its timeout, if it has one.
    pub(super) fn limit(&self, timeout: Option<Duration>, context: &Arc<Context>) -> Option<Limit> {
        let timeout = timeout?;
        let context = Arc::downgrade(context);
        // This clock knows no jumps.
        Some(Limit(self.runtime.spawn(async move {
            tokio::time::sleep(timeout).await;
            if let Some(context) = context.upgrade() {
                context.cancellation.cancel(Ending::TimedOut(timeout));
            }
        })))
    }

    /// Carries out a run, again and again while the system has no place for it. Nothing has begun then: the run keeps its
    /// attempt, and its time begins again. Gives back when the last attempt began.
    pub(super) async fn when_possible<T, F>(
        &self,
        assignment: &Assignment,
        context: &Arc<Context>,
        attempt: impl Fn() -> F,
    ) -> (Timestamp, T)
    where
        T: From<Outcome>,
        F: Future<Output = Result<T, Shortage>>,
    {
        let mut pauses = Pauses::default();
        loop {
            let started_at = self.clock.now();
            let limit = self.limit(assignment.timeout, context);
            let shortage = match attempt().await {
                Ok(ended) => return (started_at, ended),
                Err(shortage) => shortage,
            };
            drop(limit);
            if let Some(ending) = pauses.wait(&assignment.run_id, shortage, context).await {
                return (started_at, Outcome::from(ending).into());
            }
        }
    }

    /// The completion of a run; none for one that the stop has interrupted, since the code that records the stop decides
    /// whether the run is run again.
    pub(super) fn completion(
        &self,
        assignment: &Assignment,
        context: &Context,
        started_at: Timestamp,
        ended: Ended,
    ) -> Option<Completion> {
        let now = self.clock.now();
        let output = context.log.close(now);
        if matches!(&ended.outcome, Outcome::Cancelled { reason } if reason == STOPPED) {
            self.live.interrupted(assignment.execution(), output);
            return None;
        }
        Some(Completion {
            run_id: assignment.run_id.clone(),
            attempt: assignment.attempt,
            started_at,
            finished_at: now,
            outcome: bounded(ended.outcome, context),
            cost: ended.cost,
            output: Arc::new(output),
        })
    }

    /// Tells the end of a run.
    pub(super) async fn report(
        &self,
        assignment: &Assignment,
        context: &Context,
        started_at: Timestamp,
        ended: Ended,
    ) {
        self.tell(self.completion(assignment, context, started_at, ended)).await;
    }

    /// Tells it to the scheduler.
    pub(super) async fn tell(&self, completion: Option<Completion>) {
        let Some(completion) = completion else { return };
        // The scheduler is gone only when the daemon is: then the next start finds the run in the ledger.
        if self.completions.send(completion).await.is_err() {
            tracing::debug!("a completion came after the scheduler had stopped");
        }
    }
}

/// A failure that may pass.
pub(super) fn failed(error: impl Into<String>) -> Outcome {
    Outcome::Failed { error: error.into(), exit_code: None, signal: None, permanent: false }
}

/// A failure after which trying again cannot help.
pub(super) fn failed_for_good(error: impl Into<String>) -> Outcome {
    Outcome::Failed { error: error.into(), exit_code: None, signal: None, permanent: true }
}

/// Cuts what would not fit into a row of the ledger, and hides what must not be seen.
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

/// The result of a builtin, or what is said of one that is too large.
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

/// Levels of lists and objects in a value; none in a plain one.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}
