//! The hooks of a job: which task each is, and which of their runs are tried again. Pure.

use std::sync::Arc;

use chrono::TimeDelta;

use crate::job::{Job, Retry, Task};
use crate::run::{Cause, Event, Run};

/// When a mail that its server did not take is sent again: four times within an hour and a half.
const MAIL_RETRY: Retry = Retry {
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

/// By what a run of a job is tried again if it fails; a hook run is not, unless it sends a mail.
pub(super) fn retry(job: &Job, run: &Run) -> Option<Retry> {
    match &run.cause {
        Cause::Schedule | Cause::Manual => job.policy.retry,
        Cause::Event { event, .. } => {
            let is_mail = task(job, *event).is_some_and(|task| matches!(**task, Task::Mail(_)));
            is_mail.then_some(MAIL_RETRY)
        }
    }
}
