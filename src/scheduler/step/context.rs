//! What the phases of a step may use while they decide: the step, and the parts of memory that follow it.

use std::sync::Arc;

use super::Step;
use crate::clock::Timestamp;
use crate::job::admission::Rules;
use crate::job::{Due, Job, JobId, JobState};
use crate::run::{Cause, Run, RunIds, RunState};
use crate::scheduler::plan::Skipped;
use crate::scheduler::request::RequestError;
use crate::scheduler::state::capacity::Capacity;
use crate::scheduler::state::{OverlapRows, SchedulerState};

#[derive(Debug)]
pub(crate) struct StepContext<'a> {
    pub(crate) step: &'a mut Step,
    pub(crate) capacity: &'a mut Capacity,
    pub(crate) rules: &'a mut Rules,
    pub(crate) overlap_rows: &'a mut OverlapRows,
    ids: &'a mut RunIds,
    node: &'a Arc<str>,
    /// Whether other nodes may change the same jobs at the same time.
    pub(crate) is_shared: bool,
}

impl<'a> StepContext<'a> {
    pub(crate) fn new(
        step: &'a mut Step,
        state: &'a mut SchedulerState,
        rules: &'a mut Rules,
    ) -> Self {
        Self {
            step,
            capacity: &mut state.capacity,
            rules,
            overlap_rows: &mut state.overlap_rows,
            ids: &mut state.ids,
            node: &state.identity.node,
            is_shared: state.is_shared,
        }
    }

    pub(crate) fn node(&self) -> Arc<str> {
        Arc::clone(self.node)
    }

    pub(crate) fn find(&self, id: &JobId) -> Result<Arc<Job>, RequestError> {
        self.step.job(id).cloned().ok_or_else(|| RequestError::NotFound(id.clone()))
    }

    /// Defines a job. Its runs that wait or may be retried follow the new definition.
    pub(crate) fn put(&mut self, job: Job) -> Arc<Job> {
        let job = self.step.put(job);
        self.capacity.redefine(&job);
        job
    }

    /// A new run in state `pending`.
    pub(crate) fn pending_run(
        &mut self,
        job: &Job,
        cause: Cause,
        occurrence: Option<Timestamp>,
        due_at: Timestamp,
    ) -> Run {
        Run {
            id: self.ids.next(self.step.now),
            job_id: job.id.clone(),
            anchor: job.anchor,
            cause,
            scheduled_at: occurrence,
            due_at,
            attempt: 1,
            crashes: 0,
            executor: job.executor.clone(),
            node: self.node(),
            created_at: self.step.now,
            state: RunState::Pending,
        }
    }

    /// Adds a ledger row for occurrences that are not run.
    pub(crate) fn add_skipped(&mut self, job: &Job, skipped: Skipped) -> Arc<Run> {
        let Skipped { reason, span } = skipped;
        let run = self.pending_run(job, Cause::Schedule, Some(span.first), span.first);
        let state = RunState::Skipped { reason, last_scheduled_at: span.last, count: span.count };
        let row = Arc::new(Run { state, ..run });
        self.step.insert_run(Arc::clone(&row));
        row
    }
}

/// When an occurrence that was held back is due. Its jitter is computed again: of such an occurrence the store keeps the
/// instant only.
pub(crate) fn recomputed_due(job: &Job, at: Timestamp) -> Due {
    // A time set by `next_run_time` has no jitter.
    if job.trigger.matches(at) {
        Due::new(&job.id, &job.trigger, at)
    } else {
        Due { scheduled_at: at, due_at: at }
    }
}

/// The state of a job whose next occurrence is at `next`.
pub(crate) fn state_from(job: &Job, next: Option<Timestamp>) -> JobState {
    next.map_or(JobState::Finished, |at| JobState::Active {
        next: Due::new(&job.id, &job.trigger, at),
    })
}

/// The refusal of a request that the state of a job does not allow.
pub(super) fn wrong_state(job: &Job) -> RequestError {
    let state = match &job.state {
        JobState::Finished => "finished: it has no occurrence left".to_owned(),
        JobState::Broken { reason, .. } => format!("broken: {reason}"),
        JobState::Active { .. } | JobState::Paused { .. } => job.state.word().to_owned(),
    };
    RequestError::WrongState { id: job.id.clone(), state }
}
