//! The hooks of a job: which task each is, and which of their runs are tried again. Pure.

use std::sync::Arc;

use chrono::TimeDelta;

use crate::job::{Job, Retry, Task};
use crate::run::{Cause, Event, Run};

/// When a report that could not be delivered is tried again: four times within an hour and a half.
const REPORT_RETRY: Retry = Retry {
    max_attempts: 5,
    delay: TimeDelta::seconds(30),
    backoff: 6.0,
    max_delay: TimeDelta::hours(1),
    jitter: 0.1,
};

/// The task that a job has for an event.
pub(super) fn task(job: &Job, event: Event) -> Option<&Arc<Task>> {
    let hooks = &job.policy.hooks;
    match event {
        Event::Success => hooks.on_success.as_ref(),
        Event::Failure => hooks.on_failure.as_ref(),
        Event::Recovery => hooks.on_recovery.as_ref(),
        Event::Missed => hooks.on_missed.as_ref(),
    }
}

/// By what a run of a job is tried again if it fails. A hook run is, if it sends a message, whose server may be away for a
/// moment, and if it is the only one that reports an outage.
pub(super) fn retry(job: &Job, run: &Run) -> Option<Retry> {
    match &run.cause {
        Cause::Schedule | Cause::Manual => job.policy.retry,
        Cause::Event { event, .. } => {
            let task = task(job, *event)?;
            let is_message = matches!(**task, Task::Mail(_) | Task::Http(_));
            let is_of_outage = matches!(event, Event::Failure | Event::Recovery);
            let is_only_one = job.policy.hooks.on_failure_once && is_of_outage;
            (is_message || is_only_one).then_some(REPORT_RETRY)
        }
    }
}
