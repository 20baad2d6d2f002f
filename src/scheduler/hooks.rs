//! The hooks of a job: which task each event has, what a hook run is given, and when it is retried. Pure.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::job::{Job, Retry, Task};
use crate::output::{Line, Output};
use crate::run::{Cause, HookEvent, Run};

/// Timeout of a hook run.
pub(super) const HOOK_TIMEOUT: Duration = Duration::from_mins(1);
/// Bytes from the end of an output that a hook is given, in whole lines.
const OUTPUT_BYTES: usize = 16 * 1024;

/// When a report that could not be delivered is tried again: four times within an hour and a half.
const REPORT_RETRY: Retry = Retry {
    max_attempts: 5,
    delay: TimeDelta::seconds(30),
    backoff: 6.0,
    max_delay: TimeDelta::hours(1),
    jitter: 0.1,
};

/// The task that a job has for an event.
pub(super) fn task(job: &Job, event: HookEvent) -> Option<&Arc<Task>> {
    let policy = &job.policy;
    match event {
        HookEvent::Success => policy.on_success.as_ref(),
        HookEvent::Failure => policy.on_failure.as_ref(),
        HookEvent::Recovery => policy.on_recovery.as_ref(),
        HookEvent::Missed => policy.on_missed.as_ref(),
    }
}

/// The retry policy of a run. A hook run is retried if it sends a message, whose server may be away for a moment, and if
/// it is the only report of an outage.
pub(super) fn retry_policy(job: &Job, run: &Run) -> Option<Retry> {
    match &run.cause {
        Cause::Schedule | Cause::Manual => job.policy.retry,
        Cause::Event { event, .. } => {
            let task = task(job, *event)?;
            let is_message = matches!(**task, Task::Mail(_) | Task::Http(_));
            let is_of_outage = matches!(event, HookEvent::Failure | HookEvent::Recovery);
            let is_only_report = job.policy.on_failure_once && is_of_outage;
            (is_message || is_only_report).then_some(REPORT_RETRY)
        }
    }
}

/// The last lines of an output that fit into [`OUTPUT_BYTES`].
pub(super) fn output_tail(output: &Output) -> String {
    let mut bytes = 0;
    let last = output.last_lines(OUTPUT_BYTES);
    let fits = |line: &&Line| {
        bytes += line.text.len() + 1;
        bytes <= OUTPUT_BYTES
    };
    let lines: Vec<&Line> = last.iter().rev().take_while(fits).collect();
    lines.into_iter().rev().flat_map(|line| [line.text.as_str(), "\n"]).collect()
}

/// What a hook run is given: the event, the host, the job, the run that it reports, and the end of that run's output.
pub(super) fn event(job: &Job, event: HookEvent, subject: &Run, output: &str) -> Value {
    json!({
        "event": event.word(),
        "host": host_of(&subject.node),
        "job": {"id": job.id, "name": job.name, "tags": job.tags, "description": job.description},
        "run": subject.to_value(),
        "output": output,
    })
}

/// The host of a node named `HOST:PROCESS:NUMBER`.
fn host_of(node: &str) -> &str {
    node.rsplitn(3, ':').last().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_node_is_whole_also_with_colons_in_its_name() {
        let cases = [("web1:7:0f3a", "web1"), ("rack:web1:7:0f3a", "rack:web1"), ("", "")];
        for (node, host) in cases {
            assert_eq!(host_of(node), host);
        }
    }
}
