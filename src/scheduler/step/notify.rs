//! Runs that tell of others: when a run has succeeded or failed for good, or an occurrence was missed, the job may
//! have a task for that. It is a run of its own in the ledger, made in the same transaction, so that no end is told
//! twice or not at all because of a crash.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::executor::{Heartbeat, HeartbeatEvent};
use crate::job::Job;
use crate::output::{Line, Output};
use crate::run::{Cause, Event, Outcome, Run, RunState, SkipReason};
use crate::scheduler::hooks;
use crate::scheduler::log::Note;
use crate::scheduler::recovery::is_of;
use crate::scheduler::state::capacity::WaitingRun;
use crate::scheduler::step::apply::StepContext;
use crate::scheduler::step::complete::event_of;

/// How long such a run may take.
pub(crate) const HOOK_TIMEOUT: Duration = Duration::from_mins(1);
/// Bytes of an output, its last lines, that a hook is given.
pub(crate) const HOOK_OUTPUT_BYTES: usize = 16 * 1024;
/// Lines of an output, its last ones, that a heartbeat tells of.
const HEARTBEAT_LINES: usize = 50;

impl StepContext<'_> {
    /// Makes the hook runs that report the end of a run, as the job has hooks for it.
    pub(crate) fn create_end_hooks(&mut self, job: &Arc<Job>, run: &Run, output: &Output) {
        let is_hook_run = matches!(run.cause, Cause::Event { .. });
        let Some(event) = event_of(run).filter(|_| !is_hook_run) else { return };
        let hooks = &job.policy.hooks;
        let was_failing =
            hooks.need_last_end() && self.update_is_failing(run, event == Event::Failure);
        if event == Event::Failure && hooks.on_failure_once && was_failing {
            return;
        }
        self.create_hook_run(job, event, run, Some(output));
        if event == Event::Success && was_failing {
            self.create_hook_run(job, Event::Recovery, run, Some(output));
        }
    }

    /// Has a job note whether its last run has failed, if a hook depends on it. Says whether the one before had. The job was
    /// read when the step was prepared. Where other nodes may end runs of it, it is written in any case, so that the step is
    /// decided again if one of them has done so meanwhile.
    fn update_is_failing(&mut self, run: &Run, fails: bool) -> bool {
        // What was not understood stays in the store as it is.
        let may_note = |job: &&Arc<Job>| is_of(job, run) && job.unreadable.is_none();
        let needs_it = |job: &&Arc<Job>| may_note(job) && job.policy.hooks.need_last_end();
        let Some(job) = self.step.job(&run.job_id).filter(needs_it).cloned() else { return false };
        if job.is_failing != fails || self.is_shared {
            self.step.advance(Job { is_failing: fails, ..(*job).clone() });
        }
        job.is_failing
    }

    /// Makes the run that tells of another one, if the job has a task for that. The other one is no such run itself, or
    /// there would be no end to it.
    pub(crate) fn create_hook_run(
        &mut self,
        job: &Arc<Job>,
        event: Event,
        subject: &Run,
        output: Option<&Output>,
    ) {
        let Some(task) = hooks::task(job, event) else { return };
        let executor = match self.rules.executor_for(None, task) {
            Ok(executor) => executor,
            Err(invalid) => {
                let (job, why) = (job.id.clone(), invalid.to_string());
                let subject = subject.id.clone();
                self.step.notes.push(Note::NoPoolForHook { job, event, subject, why });
                return;
            }
        };
        let cause = Cause::Event { event, subject: subject.id.clone() };
        let now = self.step.now;
        let run = Run { executor, ..self.pending_run(job, cause, None, now) };
        if !self.capacity.accepts_extra_run(&run.executor) {
            let reason = SkipReason::ExecutorFull;
            let state = RunState::Skipped { reason, last_scheduled_at: now, count: 1 };
            self.step.insert_run(Arc::new(Run { state, ..run }));
            return;
        }
        let run = Arc::new(run);
        self.step.insert_run(Arc::clone(&run));
        let output = output.map(output_tail).unwrap_or_default();
        let event = Some(Arc::new(hook_event(job, event, subject, &output)));
        let waiting = WaitingRun { run, job: Arc::clone(job), needs_cluster_check: false, event };
        self.capacity.wait(waiting, now);
    }
}

impl StepContext<'_> {
    /// Has a heartbeat sent, if the job has somewhere to send it.
    pub(crate) fn send_heartbeat(
        &mut self,
        job: &Job,
        run: &Run,
        event: HeartbeatEvent,
        body: String,
    ) {
        let Some(url) = &job.policy.heartbeat else { return };
        if !self.rules.may_beat(job, url) {
            return;
        }
        if !matches!(run.cause, Cause::Event { .. }) {
            let (job_id, run_id) = (job.id.clone(), run.id.clone());
            self.step.beats.push(Heartbeat { job_id, url: url.clone(), event, run_id, body });
        }
    }

    /// Has a heartbeat sent for the end of a run: of a failure with its error, and the end of what it wrote.
    pub(crate) fn send_end_heartbeat(&mut self, job: &Job, run: &Run, output: &Output) {
        let RunState::Ended { outcome, .. } = &run.state else { return };
        match outcome {
            Outcome::Succeeded { .. } => {
                self.send_heartbeat(job, run, HeartbeatEvent::Success, String::new());
            }
            Outcome::Failed { error, .. }
            | Outcome::TimedOut { error }
            | Outcome::Lost { error } => {
                let last = output.last_lines(HEARTBEAT_LINES);
                let last = last.iter().map(|line| line.text.as_str());
                let body: Vec<&str> = std::iter::once(error.as_str()).chain(last).collect();
                self.send_heartbeat(job, run, HeartbeatEvent::Failure, body.join("\n"));
            }
            // Its work was not done, and a monitor that saw its start expects an end.
            Outcome::Cancelled { reason } => {
                self.send_heartbeat(
                    job,
                    run,
                    HeartbeatEvent::Failure,
                    format!("cancelled: {reason}"),
                );
            }
        }
    }
}

/// The last lines of an output, up to [`HOOK_OUTPUT_BYTES`].
pub(crate) fn output_tail(output: &Output) -> String {
    let mut bytes = 0;
    let last = output.last_lines(HOOK_OUTPUT_BYTES);
    let fits = |line: &&Line| {
        bytes += line.text.len() + 1;
        bytes <= HOOK_OUTPUT_BYTES
    };
    let lines: Vec<&Line> = last.iter().rev().take_while(fits).collect();
    lines.into_iter().rev().flat_map(|line| [line.text.as_str(), "\n"]).collect()
}

/// What a hook is given: what happened, on which host, to which job and run, and the end of what that run wrote.
pub(crate) fn hook_event(job: &Job, event: Event, subject: &Run, output: &str) -> Value {
    json!({
        "event": event.word(),
        "host": host_of(&subject.node),
        "job": {"id": job.id, "name": job.name, "tags": job.tags, "description": job.description},
        "run": subject.to_value(),
        "output": output,
    })
}

/// The host of a node, whose name is that of its host and two more parts.
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
