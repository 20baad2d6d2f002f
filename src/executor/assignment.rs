//! A run as the scheduler hands it to an executor, and as the executor hands it back.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::clock::Timestamp;
use crate::job::{JobId, Task};
use crate::output::Output;
use crate::run::{Cost, Execution, Outcome, RunId, traceparent};

/// An attempt of a run that is to be executed.
#[derive(Debug, Clone)]
pub struct Assignment {
    pub run_id: RunId,
    pub job_id: JobId,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// The occurrence that the run serves; `None` for a manual run.
    pub scheduled_at: Option<Timestamp>,
    pub task: Arc<Task>,
    /// How long the attempt may take; `None` for no limit.
    pub timeout: Option<Duration>,
    /// The report of another run, if this run is a hook.
    pub event: Option<Arc<Value>>,
    /// If set, the task is not executed: the run fails with this error.
    pub forbidden: Option<String>,
}

impl Assignment {
    pub fn execution(&self) -> Execution {
        (self.run_id.clone(), self.attempt)
    }

    /// The trace id of the attempt in the form of the W3C header `traceparent`.
    pub fn traceparent(&self) -> String {
        traceparent(&self.run_id.0, self.attempt)
    }
}

/// How an attempt ended.
#[derive(Debug)]
pub struct Completion {
    pub run_id: RunId,
    pub attempt: u32,
    /// When the work itself began, which is later than the start of the run if it had to wait for a worker.
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    pub outcome: Outcome,
    pub cost: Cost,
    /// The part of its output that is kept.
    pub output: Arc<Output>,
}

impl Completion {
    pub fn execution(&self) -> Execution {
        (self.run_id.clone(), self.attempt)
    }
}
