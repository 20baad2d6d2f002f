//! A pool of processes: a command is a process of its own, a builtin runs in a worker process
//! that is kept for the next one.

use std::sync::{Arc, Mutex, PoisonError};

use super::Assignment;
use super::command::Commands;
use super::report::{Shared, failed};
use super::worker::{Worker, WorkerProgram};
use crate::job::Task;
use crate::output::Stream;
use crate::run::Outcome;
use crate::task::context::Context;

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
        commands: &Commands,
        assignment: Assignment,
        context: Arc<Context>,
    ) {
        let started_at = shared.clock.now();
        let _limit = shared.limit(assignment.timeout, &context);
        let ended = match (&*assignment.task, context.cancellation.ending()) {
            (_, Some(ending)) => Outcome::from(ending).into(),
            (Task::Command(command), None) => {
                commands.execute(command, &assignment, &context, &shared.clock).await
            }
            (Task::Builtin { .. }, None) => {
                self.call_worker(shared, &assignment, &context).await.into()
            }
            (Task::Http(_), None) => failed("a call over HTTP needs no process").into(),
            (Task::Unreadable(_), None) => failed("the task cannot be read").into(),
        };
        shared.report(&assignment, &context, started_at, ended).await;
    }

    async fn call_worker(
        &self,
        shared: &Shared,
        assignment: &Assignment,
        context: &Context,
    ) -> Outcome {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let started = match idle {
            Some(worker) => Ok(worker),
            None => Worker::start(&self.program).await,
        };
        let mut worker = match started {
            Ok(worker) => worker,
            Err(error) => {
                return failed(format!("a worker process could not be started: {error}"));
            }
        };
        let called = tokio::select! {
            biased;
            called = worker.call(assignment) => called,
            ending = context.cancellation.cancelled() => {
                // When the run has ended, nothing of it goes on.
                worker.death().await;
                return ending.into();
            }
        };
        match called {
            Ok((outcome, output)) => {
                context.log.write(shared.clock.now(), Stream::Stdout, output.as_bytes());
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(worker);
                outcome
            }
            Err(_) => failed(worker.death().await),
        }
    }
}
