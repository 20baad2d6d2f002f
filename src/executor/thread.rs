//! Builtins on threads of the daemon. The runtime's blocking threads carry them: as many as the
//! scheduler hands over, which is at most `max_workers` of each pool.

use std::sync::Arc;

use super::{Assignment, Shared, failed};
use crate::job::Task;
use crate::run::Outcome;
use crate::task::builtin::{Call, Registry, TaskError};
use crate::task::cancellation::Cancellation;
use crate::task::output::Tail;

/// Executes a run on this thread and reports how it ended.
pub(super) fn execute(shared: &Shared, assignment: Assignment, cancellation: &Arc<Cancellation>) {
    let started_at = shared.clock.now();
    let execution = assignment.execution();
    let (outcome, output) = match cancellation.reason() {
        Some(reason) => (Outcome::Cancelled { reason }, Tail::default()),
        None => call(&shared.registry, assignment, cancellation),
    };
    let completion = shared.completion(execution, started_at, outcome, output);
    if shared.completions.blocking_send(completion).is_err() {
        tracing::debug!("a completion came after the scheduler had stopped");
    }
}

/// Calls the builtin of an assignment on this thread.
pub(super) fn call(
    registry: &Registry,
    assignment: Assignment,
    cancellation: &Arc<Cancellation>,
) -> (Outcome, Tail) {
    let Task::Builtin { name, args } = assignment.task else {
        return (failed("a threadpool runs builtin tasks only", None), Tail::default());
    };
    let job_id = assignment.job_id.to_string();
    let call = Call::new(assignment.run_id.0.to_string(), job_id, assignment.attempt, args)
        .scheduled_at(assignment.scheduled_at)
        .cancelled_by(Arc::clone(cancellation));
    let outcome = match registry.run(&name, &call) {
        Ok(result) => Outcome::Succeeded { result: Some(result), exit_code: None },
        Err(TaskError::Passing(error)) => failed(error, None),
        Err(TaskError::Permanent(error)) => {
            Outcome::Failed { error, exit_code: None, permanent: true }
        }
        Err(TaskError::Cancelled) => match cancellation.reason() {
            Some(reason) => Outcome::Cancelled { reason },
            None => failed("the builtin ended as cancelled, which it was not", None),
        },
    };
    (outcome, call.take_output())
}
