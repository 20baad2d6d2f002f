//! A pool of processes: a command is a process of its own, a builtin runs in a worker process
//! that is kept for the next one.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::worker::Worker;
use super::{Assignment, Shared, command, failed};
use crate::job::Task;
use crate::run::Outcome;
use crate::task::output::Tail;

/// Worker processes that wait for work, and how to start another.
#[derive(Debug, Clone)]
pub(super) struct ProcessPool {
    /// The scheduler hands over at most `max_workers` runs, so there are never more workers than that.
    idle: Arc<Mutex<Vec<Worker>>>,
    hello: Arc<Value>,
}

impl ProcessPool {
    /// A pool without workers; they are started when they are needed.
    pub(super) fn new(hello: Value) -> Self {
        Self { idle: Arc::default(), hello: Arc::new(hello) }
    }

    /// Executes a run and reports how it ended; says nothing if the pool is stopped meanwhile.
    pub(super) async fn execute(&self, shared: &Shared, assignment: Assignment) {
        let started_at = shared.clock.now();
        let run_id = assignment.run_id.clone();
        let ended = match &assignment.task {
            Task::Command(command) => command::execute(command, &assignment, &shared.stop).await,
            Task::Builtin { .. } => tokio::select! {
                ended = self.call_worker(&assignment) => Some(ended),
                // Dropping the worker kills it.
                () = shared.stop.cancelled() => None,
            },
            Task::Unreadable(_) => Some((failed("the task cannot be read", None), Tail::default())),
        };
        if let Some((outcome, output)) = ended {
            shared.report(run_id, started_at, outcome, output).await;
        }
    }

    async fn call_worker(&self, assignment: &Assignment) -> (Outcome, Tail) {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let started = match idle {
            Some(worker) => Ok(worker),
            None => Worker::start(&self.hello).await,
        };
        let mut worker = match started {
            Ok(worker) => worker,
            Err(error) => {
                return (
                    failed(format!("a worker process could not be started: {error}"), None),
                    Tail::default(),
                );
            }
        };
        match worker.call(assignment).await {
            Ok(ended) => {
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(worker);
                ended
            }
            Err(_) => (failed(worker.death().await, None), Tail::default()),
        }
    }
}
