//! Calls a builtin on the current thread: a pool's, or the main thread of a worker process.

use rustix::time::{ClockId, clock_gettime};

use super::run::{RunEnd, failed, failure};
use crate::run::{Cost, Outcome};
use crate::task::builtin::{Call, Registry, TaskError};

/// The error of a builtin that returned [`TaskError::Cancelled`] although its run was not cancelled.
pub(super) const NOT_CANCELLED: &str =
    "the builtin ended as cancelled, but its run was not cancelled";

/// Runs the builtin `name`. The cost is the CPU time of this thread.
pub(super) fn run_builtin(registry: &Registry, name: &str, call: &Call) -> RunEnd {
    let before = cpu_micros();
    let result = registry.run(name, call);
    let cpu_micros = cpu_micros().checked_sub(before);
    let outcome = match result {
        Ok(result) => Outcome::Succeeded { result: Some(result), exit_code: None },
        Err(TaskError::Passing(error)) => failed(error),
        Err(TaskError::Permanent(error)) => failure(error, true),
        Err(TaskError::Cancelled) => {
            call.context.cancellation.ending().map_or_else(|| failed(NOT_CANCELLED), Into::into)
        }
    };
    RunEnd { outcome, cost: Cost { cpu_micros, peak_memory: None } }
}

/// The CPU time that this thread has used, in microseconds.
fn cpu_micros() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let positive = |number: i64| u64::try_from(number).unwrap_or(0);
    positive(time.tv_sec) * 1_000_000 + positive(time.tv_nsec) / 1000
}
