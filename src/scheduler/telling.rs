//! Runs that tell of others: when a run has succeeded or failed for good, or an occurrence was missed, the job may
//! have a task for that. It is a run of its own in the ledger, made in the same transaction, so that no end is told
//! twice or not at all because of a crash.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::apply::Desk;
use super::ending::event_of;
use super::floor::Waiting;
use super::hook;
use super::recovery::is_of;
use super::report::Note;
use crate::executor::{Beat, Signal};
use crate::job::Job;
use crate::output::{Line, Output};
use crate::run::{Cause, Event, Outcome, Run, RunState, SkipReason};

/// How long such a run may take.
pub(super) const TELLING_LIMIT: Duration = Duration::from_mins(1);
/// Bytes of an output, its last lines, that a hook is given.
pub(super) const OUTPUT_TOLD_BYTES: usize = 16 * 1024;
/// Lines of an output, its last ones, that a heartbeat tells of.
const LINES_TOLD: usize = 50;

impl Desk<'_> {
    /// Makes the hook runs that report the end of a run, as the job has hooks for it.
    pub(super) fn tell_end(&mut self, job: &Arc<Job>, run: &Run, output: &Output) {
        let is_hook_run = matches!(run.cause, Cause::Event { .. });
        let Some(event) = event_of(run).filter(|_| !is_hook_run) else { return };
        let hooks = &job.policy.hooks;
        let was_failing = hooks.need_last_end() && self.note_end(run, event == Event::Failure);
        if event == Event::Failure && hooks.on_failure_once && was_failing {
            return;
        }
        self.tell(job, event, run, Some(output));
        if event == Event::Success && was_failing {
            self.tell(job, Event::Recovery, run, Some(output));
        }
    }

    /// Has a job note whether its last run has failed, if a hook depends on it. Says whether the one before had. The job was
    /// read when the step was prepared. Where other nodes may end runs of it, it is written in any case, so that the step is
    /// decided again if one of them has done so meanwhile.
    fn note_end(&mut self, run: &Run, fails: bool) -> bool {
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
    pub(super) fn tell(
        &mut self,
        job: &Arc<Job>,
        event: Event,
        subject: &Run,
        output: Option<&Output>,
    ) {
        let Some(task) = hook::task(job, event) else { return };
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
        if !self.floor.has_place(&run.executor) {
            let reason = SkipReason::ExecutorFull;
            let state = RunState::Skipped { reason, last_scheduled_at: now, count: 1 };
            self.step.insert_run(Arc::new(Run { state, ..run }));
            return;
        }
        let run = Arc::new(run);
        self.step.insert_run(Arc::clone(&run));
        let output = output.map(end_of).unwrap_or_default();
        let event = Some(Arc::new(facts(job, event, subject, &output)));
        let waiting = Waiting { run, job: Arc::clone(job), is_contested: false, event };
        self.floor.wait(waiting, now);
    }
}

impl Desk<'_> {
    /// Has a heartbeat sent, if the job has somewhere to send it.
    pub(super) fn beat(&mut self, job: &Job, run: &Run, signal: Signal, body: String) {
        let Some(url) = &job.policy.heartbeat else { return };
        if !self.rules.may_beat(job, url) {
            return;
        }
        if !matches!(run.cause, Cause::Event { .. }) {
            let (job_id, run_id) = (job.id.clone(), run.id.clone());
            self.step.beats.push(Beat { job_id, url: url.clone(), signal, run_id, body });
        }
    }

    /// Has a heartbeat sent for the end of a run: of a failure with its error, and the end of what it wrote.
    pub(super) fn beat_end(&mut self, job: &Job, run: &Run, output: &Output) {
        let RunState::Ended { outcome, .. } = &run.state else { return };
        match outcome {
            Outcome::Succeeded { .. } => self.beat(job, run, Signal::Success, String::new()),
            Outcome::Failed { error, .. }
            | Outcome::TimedOut { error }
            | Outcome::Lost { error } => {
                let last = output.last_lines(LINES_TOLD);
                let last = last.iter().map(|line| line.text.as_str());
                let body: Vec<&str> = std::iter::once(error.as_str()).chain(last).collect();
                self.beat(job, run, Signal::Failure, body.join("\n"));
            }
            // Its work was not done, and a monitor that saw its start expects an end.
            Outcome::Cancelled { reason } => {
                self.beat(job, run, Signal::Failure, format!("cancelled: {reason}"));
            }
        }
    }
}

/// The last lines of an output, up to [`OUTPUT_TOLD_BYTES`].
pub(super) fn end_of(output: &Output) -> String {
    let mut bytes = 0;
    let last = output.last_lines(OUTPUT_TOLD_BYTES);
    let fits = |line: &&Line| {
        bytes += line.text.len() + 1;
        bytes <= OUTPUT_TOLD_BYTES
    };
    let lines: Vec<&Line> = last.iter().rev().take_while(fits).collect();
    lines.into_iter().rev().flat_map(|line| [line.text.as_str(), "\n"]).collect()
}

/// What a hook is given: what happened, on which host, to which job and run, and the end of what that run wrote.
pub(super) fn facts(job: &Job, event: Event, subject: &Run, output: &str) -> Value {
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
