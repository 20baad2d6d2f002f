//! A pool of processes: a command is a process of its own, a builtin runs in a worker process
//! that is kept for the next one.

use std::sync::{Arc, Mutex, PoisonError};

use super::worker::{Worker, WorkerProgram};
use super::{Assignment, Shared, command, failed};
use crate::job::Task;
use crate::run::Outcome;
use crate::task::cancellation::Cancellation;
use crate::task::output::Tail;

/// Worker processes that wait for work, and how to start another.
#[derive(Debug, Clone)]
pub(super) struct ProcessPool {
    /// The scheduler hands over at most `max_workers` runs, so there are never more workers than that.
    idle: Arc<Mutex<Vec<Worker>>>,
    program: Arc<WorkerProgram>,
}

impl ProcessPool {
    /// A pool without workers; they are started when they are needed.
    pub(super) fn new(program: WorkerProgram) -> Self {
        Self { idle: Arc::default(), program: Arc::new(program) }
    }

    /// Executes a run and reports how it ended.
    pub(super) async fn execute(
        &self,
        shared: &Shared,
        assignment: Assignment,
        cancellation: &Cancellation,
    ) {
        let started_at = shared.clock.now();
        let execution = assignment.execution();
        let (outcome, output) = match (&*assignment.task, cancellation.reason()) {
            (_, Some(reason)) => (Outcome::Cancelled { reason }, Tail::default()),
            (Task::Command(command), None) => {
                command::execute(command, &assignment, cancellation).await
            }
            (Task::Builtin { .. }, None) => self.call_worker(&assignment, cancellation).await,
            (Task::Unreadable(_), None) => {
                (failed("the task cannot be read", None), Tail::default())
            }
        };
        shared.report(execution, started_at, outcome, output).await;
    }

    async fn call_worker(
        &self,
        assignment: &Assignment,
        cancellation: &Cancellation,
    ) -> (Outcome, Tail) {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let started = match idle {
            Some(worker) => Ok(worker),
            None => Worker::start(&self.program).await,
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
        let called = tokio::select! {
            biased;
            called = worker.call(assignment) => called,
            reason = cancellation.cancelled() => {
                // When the run has ended, nothing of it goes on.
                worker.death().await;
                return (Outcome::Cancelled { reason }, Tail::default());
            }
        };
        match called {
            Ok(ended) => {
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(worker);
                ended
            }
            Err(_) => (failed(worker.death().await, None), Tail::default()),
        }
    }
}
