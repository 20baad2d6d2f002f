//! Builtins on threads of the daemon. The runtime's blocking threads carry them: as many as the
//! scheduler hands over, which is at most `max_workers` of each pool.

use super::{Assignment, Shared, failed};
use crate::job::Task;
use crate::run::Outcome;
use crate::task::builtin::{Call, Registry};
use crate::task::output::Tail;

/// Executes a run on this thread and reports how it ended.
pub(super) fn execute(shared: &Shared, assignment: Assignment) {
    let started_at = shared.clock.now();
    let run_id = assignment.run_id.clone();
    let (outcome, output) = call(&shared.registry, assignment);
    let completion = shared.completion(run_id, started_at, outcome, output);
    if shared.completions.blocking_send(completion).is_err() {
        tracing::debug!("a completion came after the scheduler had stopped");
    }
}

/// Calls the builtin of an assignment on this thread.
pub(super) fn call(registry: &Registry, assignment: Assignment) -> (Outcome, Tail) {
    let Task::Builtin { name, args } = assignment.task else {
        return (failed("a threadpool runs builtin tasks only", None), Tail::default());
    };
    let job_id = assignment.job_id.to_string();
    let call = Call::new(assignment.run_id.0.to_string(), job_id, assignment.attempt, args)
        .scheduled_at(assignment.scheduled_at);
    let outcome = match registry.run(&name, &call) {
        Ok(result) => Outcome::Succeeded { result: Some(result), exit_code: None },
        Err(error) => {
            Outcome::Failed { error: error.message, exit_code: None, permanent: error.permanent }
        }
    };
    (outcome, call.take_output())
}
