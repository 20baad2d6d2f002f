//! What each request does to the jobs of a step. No database and no waiting: the jobs that a
//! request speaks of have been loaded before.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::job::{Due, Job, JobId, JobState, Origin};
use crate::run::{Cause, Run, RunIds, RunState, SkipReason};
use crate::scheduler::admission::Rules;
use crate::scheduler::log::Note;
use crate::scheduler::plan;
use crate::scheduler::request::{Added, Addition, Existing, Request, RequestError, Response};
use crate::scheduler::state::capacity::{Capacity, WaitingRun};
use crate::scheduler::step::Step;
use crate::scheduler::step::overlap::OverlapRows;
use crate::store::{Change, RunPart};

/// What a request may touch.
#[derive(Debug)]
pub(crate) struct StepContext<'a> {
    pub(crate) step: &'a mut Step,
    pub(crate) capacity: &'a mut Capacity,
    pub(crate) rules: &'a mut Rules,
    pub(crate) ids: &'a mut RunIds,
    pub(crate) overlap_rows: &'a mut OverlapRows,
    pub(crate) node: &'a Arc<str>,
    /// Whether other nodes may change the same jobs at the same time.
    pub(crate) is_shared: bool,
}

impl StepContext<'_> {
    /// Applies a request to the step.
    pub(crate) fn apply(&mut self, request: Request) -> Result<Response, RequestError> {
        match request {
            Request::Add(Addition { job, existing }) => self.add(*job, existing),
            Request::AddAll(additions) => {
                let added = additions.into_iter().map(|addition| self.add_one_of_many(addition));
                Ok(Response::Added(added.collect()))
            }
            Request::Remove(id) => self.remove(&id),
            Request::Pause(id) => self.pause(&id),
            Request::Resume(id) => self.resume(&id),
            Request::Run(id) => self.run(&id),
            Request::Cancel { run, reason } => self.cancel(&run, reason),
            Request::PauseAll => Ok(self.set_paused(true)),
            Request::ResumeAll => Ok(self.set_paused(false)),
            Request::Prune { runs, parts } => {
                if parts.contains(&RunPart::Row) {
                    self.overlap_rows.forget(&runs);
                }
                for (part, run_id) in
                    parts.iter().flat_map(|part| runs.iter().map(move |run| (part, run)))
                {
                    self.step.note(Change::Prune { run_id: run_id.clone(), part: *part });
                }
                Ok(Response::Done)
            }
            Request::RemoveFinished(ids) => {
                self.remove_finished(&ids);
                Ok(Response::Done)
            }
            Request::SetRules(rules) => {
                let former = std::mem::replace(self.rules, *rules);
                // Of two changes in one step, the rules before both of them are those before the step.
                self.step.former_rules.get_or_insert(former);
                self.capacity.adapt(self.rules);
                Ok(Response::Done)
            }
            Request::Review(ids) => Ok(Response::Difference(self.review(&ids))),
            Request::Declare(jobs) => Ok(Response::Difference(self.declare(jobs))),
            Request::BreakDeclared(faults) => {
                self.break_declared(faults);
                Ok(Response::Done)
            }
            Request::Begin => Ok(Response::Done),
        }
    }

    fn known(&self, id: &JobId) -> Result<Arc<Job>, RequestError> {
        self.step.job(id).cloned().ok_or_else(|| RequestError::NotFound(id.clone()))
    }

    pub(crate) fn put(&mut self, job: Job) -> Response {
        let job = self.step.put(job);
        self.capacity.redefine(&job);
        Response::Job(job)
    }

    fn add(&mut self, job: Job, existing: Existing) -> Result<Response, RequestError> {
        let job = self.by_this_clock(job);
        let Some(known) = self.step.job(&job.id).cloned() else { return Ok(self.put(job)) };
        let redefined = match existing {
            Existing::Refuse if is_replaceable(&known) => {
                let is_failing = known.still_fails(&job);
                return Ok(self.put(Job { is_failing, ..job }));
            }
            Existing::Refuse => return Err(RequestError::Exists(job.id)),
            Existing::Redefine | Existing::Reschedule if known.origin == Origin::File => {
                return Err(self.declared_in_file(&known));
            }
            Existing::Redefine => known.redefined(job),
            Existing::Reschedule => known.rescheduled(job),
        };
        Ok(self.replace(&known, redefined))
    }

    fn add_one_of_many(
        &mut self,
        Addition { job, existing }: Addition,
    ) -> Result<Added, RequestError> {
        let known = self.step.job(&job.id);
        let is_new =
            known.is_none_or(|known| existing == Existing::Refuse && is_replaceable(known));
        self.add(*job, existing)?;
        Ok(if is_new { Added::New } else { Added::Replaced })
    }

    fn remove(&mut self, id: &JobId) -> Result<Response, RequestError> {
        let job = self.known(id)?;
        // A job of another file may go: that file may be gone for good.
        if job.origin == Origin::File && !job.is_declared_beside(&self.rules.source) {
            return Err(self.declared_in_file(&job));
        }
        if let Some(source) = job.source.clone() {
            self.step.notes.push(Note::RemovedOfAnother { job: id.clone(), source });
        }
        self.delete(id);
        Ok(Response::Job(job))
    }

    fn declared_in_file(&self, job: &Job) -> RequestError {
        let file = job.source.as_ref().unwrap_or(&self.rules.source);
        RequestError::DeclaredInFile { id: job.id.clone(), file: Arc::clone(file) }
    }

    /// Removes the jobs that are finished and have no run in flight.
    fn remove_finished(&mut self, ids: &[JobId]) {
        for id in ids {
            // A finished job that the file declares would come back with the next reload, and might run again.
            let is_over = self.step.job(id).is_some_and(|job| is_replaceable(job));
            if is_over && !self.capacity.has_in_flight(id) {
                self.step.delete(id);
            }
        }
    }

    fn pause(&mut self, id: &JobId) -> Result<Response, RequestError> {
        let job = self.known(id)?;
        let state = match &job.state {
            JobState::Active { next } => JobState::Paused { next: *next },
            JobState::Paused { .. } => return Ok(Response::Job(job)),
            JobState::Finished | JobState::Broken { .. } => return Err(wrong_state(&job)),
        };
        Ok(self.put(Job { state, updated_at: self.step.now, ..(*job).clone() }))
    }

    fn resume(&mut self, id: &JobId) -> Result<Response, RequestError> {
        let now = self.step.now;
        let job = self.known(id)?;
        let next = match &job.state {
            JobState::Paused { next } => recomputed_due(&job, next.scheduled_at),
            JobState::Active { .. } => return Ok(Response::Job(job)),
            JobState::Finished | JobState::Broken { .. } => return Err(wrong_state(&job)),
        };
        // What a pause has hidden comes to light when it ends.
        if let Err(invalid) = self.rules.check(&job) {
            return Err(RequestError::WrongState {
                id: job.id.clone(),
                state: format!("not fit to run: {invalid}"),
            });
        }
        let state = if next.due_at > now || job.trigger.is_one_shot() {
            // A one-shot whose time passed in the pause is late, not pointless: the misfire grace time decides.
            JobState::Active { next }
        } else {
            self.skip_since(&job, next.scheduled_at, SkipReason::Paused);
            state_from(&job, job.trigger.next_after(now))
        };
        Ok(self.put(Job { state, updated_at: now, ..(*job).clone() }))
    }

    fn set_paused(&mut self, paused: bool) -> Response {
        self.step.set_paused(paused);
        Response::Paused(self.step.paused_since())
    }

    fn run(&mut self, id: &JobId) -> Result<Response, RequestError> {
        let job = self.known(id)?;
        if matches!(job.state, JobState::Broken { .. }) {
            return Err(wrong_state(&job));
        }
        if !self.capacity.accepts_instance(&job) {
            let max_instances = job.policy.max_instances;
            return Err(RequestError::Busy { id: id.clone(), max_instances });
        }
        if !self.capacity.accepts_extra_run(&job.executor) {
            return Err(RequestError::QueueFull(job.executor.clone()));
        }
        let needs_cluster_check = self.is_shared && !self.capacity.has_free_instance(&job);
        self.replace_older_runs(&job, 1);
        let job = if self.is_shared {
            // Who counts the instances of a job on another node at the same time will find its revision changed.
            self.step.advance((*job).clone())
        } else {
            job
        };
        let run = Arc::new(self.pending_run(&job, Cause::Manual, None, self.step.now));
        self.step.insert_run(Arc::clone(&run));
        let waiting = WaitingRun { run: Arc::clone(&run), job, needs_cluster_check, event: None };
        self.capacity.wait(waiting, self.step.now);
        Ok(Response::Run(run))
    }

    /// A new run that waits for its place.
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
            node: Arc::clone(self.node),
            created_at: self.step.now,
            state: RunState::Pending,
        }
    }

    /// The row of occurrences that are not run.
    pub(crate) fn skipped_run(&mut self, job: &Job, skipped: plan::Skipped) -> Run {
        let plan::Skipped { reason, span } = skipped;
        let run = self.pending_run(job, Cause::Schedule, Some(span.first), span.first);
        Run {
            state: RunState::Skipped { reason, last_scheduled_at: span.last, count: span.count },
            ..run
        }
    }
}

/// An occurrence that was held back. Its delay is computed again: of what is held back, a store keeps the instant only.
pub(crate) fn recomputed_due(job: &Job, at: Timestamp) -> Due {
    // What `next_run_time` named has no delay.
    if job.trigger.matches(at) {
        plan::due(&job.id, &job.trigger, at)
    } else {
        Due { scheduled_at: at, due_at: at }
    }
}

/// The state of a job whose next occurrence is at `next`.
pub(crate) fn state_from(job: &Job, next: Option<Timestamp>) -> JobState {
    next.map_or(JobState::Finished, |at| JobState::Active {
        next: plan::due(&job.id, &job.trigger, at),
    })
}

/// Whether a job is finished and not declared by the file: its id can be used for a new one, and it can be removed. Runs
/// of it that are still in flight go on, and count as instances of a new job of the id.
pub(crate) fn is_replaceable(known: &Job) -> bool {
    known.state == JobState::Finished && known.origin == Origin::Socket
}

fn wrong_state(job: &Job) -> RequestError {
    let state = match &job.state {
        JobState::Finished => "finished: it has no occurrence left".to_owned(),
        JobState::Broken { reason, .. } => format!("broken: {reason}"),
        JobState::Active { .. } | JobState::Paused { .. } => job.state.word().to_owned(),
    };
    RequestError::WrongState { id: job.id.clone(), state }
}
