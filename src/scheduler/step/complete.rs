//! What the end of an attempt leads to: another attempt, or the end of its run with its hook and heartbeat. And requests
//! to end a run.

use std::sync::Arc;

use crate::executor::Completion;
use crate::job::Job;
use crate::output::Output;
use crate::run::{Event, Outcome, Run, RunId, RunState, SkipReason};
use crate::scheduler::log::Note;
use crate::scheduler::request::{RequestError, Response};
use crate::scheduler::retry;
use crate::scheduler::state::capacity::{FreedRun, WaitingRun};
use crate::scheduler::step::apply::StepContext;
use crate::store::Change;

/// What the ledger says of a run that was cancelled without a reason.
const CANCELLED: &str = "cancelled on request";

impl StepContext<'_> {
    /// Records the end of an attempt, by its job as it is now, if that is not gone.
    pub(crate) fn end(&mut self, run: &Run, freed: FreedRun, completion: &Completion) {
        let FreedRun { job, event } = freed;
        let mut run = run.clone();
        self.step.recorded.push(run.execution());
        let Completion { started_at, finished_at, outcome, cost, .. } = completion;
        run.end(*started_at, *finished_at, outcome.clone(), *cost);
        if !completion.output.is_empty() {
            let (run_id, output) = (run.id.clone(), Arc::clone(&completion.output));
            self.step.note(Change::PutOutput { run_id, attempt: run.attempt, output });
        }
        let now = self.step.now;
        let again = job.as_ref().and_then(|job| retry::next_attempt(job, &run, now));
        match (job, again) {
            (Some(job), Some(due_at)) => {
                self.step.notes.push(Note::TriedAgain { run: Box::new(run.clone()), at: due_at });
                self.step.end_attempt(&run);
                run.retry(due_at);
                let run = Arc::new(run);
                self.step.update_run(Arc::clone(&run));
                let needs_cluster_check = self.is_shared;
                self.capacity.wait(WaitingRun { run, job, needs_cluster_check, event }, now);
            }
            (job, _) => {
                let run = Arc::new(run);
                self.step.update_run(Arc::clone(&run));
                self.step.ended.push(Arc::clone(&run));
                let Some(job) = job else { return };
                self.create_end_hooks(&job, &run, &completion.output);
                self.send_end_heartbeat(&job, &run, &completion.output);
            }
        }
    }

    /// Takes back a waiting run that will not be started any more.
    pub(crate) fn withdraw(&mut self, waiting: WaitingRun, reason: SkipReason) {
        let WaitingRun { mut run, job, .. } = waiting;
        Arc::make_mut(&mut run).skip(self.step.now, reason);
        self.step.update_run(Arc::clone(&run));
        self.send_withdrawn_heartbeat(&job, &run);
    }

    /// Sends the end of a run that waited for another attempt to its heartbeat, which knows of its start.
    fn send_withdrawn_heartbeat(&mut self, job: &Job, run: &Run) {
        if run.attempt > 1 {
            self.send_end_heartbeat(job, run, &Output::default());
        }
    }

    /// Ends a run on request: at once if it waits, and else by asking its executor.
    pub(crate) fn cancel(
        &mut self,
        id: &RunId,
        reason: Option<String>,
    ) -> Result<Response, RequestError> {
        let reason = reason.unwrap_or_else(|| CANCELLED.to_owned());
        if let Some(WaitingRun { mut run, job, .. }) = self.capacity.take_run(id) {
            Arc::make_mut(&mut run).cancel_pending(self.step.now, reason);
            self.step.update_run(Arc::clone(&run));
            self.step.ended.push(Arc::clone(&run));
            self.send_withdrawn_heartbeat(&job, &run);
            return Ok(Response::Run(run));
        }
        let ended = self.step.ended.iter().find(|run| run.id == *id).or(self.step.run(id));
        let run = ended.cloned().ok_or_else(|| RequestError::NoRun(id.to_string()))?;
        if run.state.is_final() {
            let state = run.state.word();
            return Err(RequestError::RunEnded { id: id.to_string(), state });
        }
        if self.capacity.is_running(id) {
            self.step.cancels.push((id.clone(), reason));
        } else {
            self.step.note(Change::CancelRun { run_id: id.clone(), reason });
        }
        Ok(Response::Run(run))
    }
}

/// What the end of a run is to those who want to be told.
pub(crate) fn event_of(run: &Run) -> Option<Event> {
    let RunState::Ended { outcome, .. } = &run.state else { return None };
    match outcome {
        Outcome::Succeeded { .. } => Some(Event::Success),
        Outcome::Failed { .. } | Outcome::TimedOut { .. } | Outcome::Lost { .. } => {
            Some(Event::Failure)
        }
        Outcome::Cancelled { .. } => None,
    }
}
