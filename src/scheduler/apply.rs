//! What each request does to the jobs of a step. No database and no waiting: the jobs that a
//! request speaks of have been loaded before.

use std::sync::Arc;

use super::admission::Rules;
use super::command::{Added, Addition, Answer, Existing, Refusal, Request};
use super::floor::{Floor, Waiting};
use super::overlap::Overlaps;
use super::plan;
use super::report::Note;
use super::step::Step;
use crate::clock::Timestamp;
use crate::job::{Due, Job, JobId, JobState, Origin};
use crate::run::{Cause, Run, RunIds, RunState, SkipReason};
use crate::store::{Change, Part};

/// What a request may touch.
#[derive(Debug)]
pub(super) struct Desk<'a> {
    pub(super) step: &'a mut Step,
    pub(super) floor: &'a mut Floor,
    pub(super) rules: &'a mut Rules,
    pub(super) ids: &'a mut RunIds,
    pub(super) overlaps: &'a mut Overlaps,
    pub(super) node: &'a Arc<str>,
    /// Whether other nodes may change the same jobs at the same time.
    pub(super) is_shared: bool,
}

impl Desk<'_> {
    /// Applies a request to the step.
    pub(super) fn apply(&mut self, request: Request) -> Result<Answer, Refusal> {
        match request {
            Request::Add(Addition { job, existing }) => self.add(*job, existing),
            Request::AddAll(additions) => {
                let added = additions.into_iter().map(|addition| self.add_one_of_many(addition));
                Ok(Answer::Added(added.collect()))
            }
            Request::Remove(id) => self.remove(&id),
            Request::Pause(id) => self.pause(&id),
            Request::Resume(id) => self.resume(&id),
            Request::Run(id) => self.run(&id),
            Request::Cancel { run, reason } => self.cancel(&run, reason),
            Request::PauseAll => Ok(self.set_paused(true)),
            Request::ResumeAll => Ok(self.set_paused(false)),
            Request::Prune { runs, parts } => {
                if parts.contains(&Part::Row) {
                    self.overlaps.forget(&runs);
                }
                for (part, run_id) in
                    parts.iter().flat_map(|part| runs.iter().map(move |run| (part, run)))
                {
                    self.step.note(Change::Prune { run_id: run_id.clone(), part: *part });
                }
                Ok(Answer::Done)
            }
            Request::RemoveFinished(ids) => {
                self.remove_finished(&ids);
                Ok(Answer::Done)
            }
            Request::SetRules(rules) => {
                let former = std::mem::replace(self.rules, *rules);
                // Of two changes in one step, the rules before both of them are those before the step.
                self.step.former_rules.get_or_insert(former);
                self.floor.adapt(self.rules);
                Ok(Answer::Done)
            }
            Request::Review(ids) => Ok(Answer::Difference(self.review(&ids))),
            Request::Declare(jobs) => Ok(Answer::Difference(self.declare(jobs))),
            Request::BreakDeclared(faults) => {
                self.break_declared(faults);
                Ok(Answer::Done)
            }
            Request::Begin => Ok(Answer::Done),
        }
    }

    fn known(&self, id: &JobId) -> Result<Arc<Job>, Refusal> {
        self.step.job(id).cloned().ok_or_else(|| Refusal::NotFound(id.clone()))
    }

    pub(super) fn put(&mut self, job: Job) -> Answer {
        let job = self.step.put(job);
        self.floor.redefine(&job);
        Answer::Job(job)
    }

    fn add(&mut self, job: Job, existing: Existing) -> Result<Answer, Refusal> {
        let job = self.by_this_clock(job);
        let Some(known) = self.step.job(&job.id).cloned() else { return Ok(self.put(job)) };
        let redefined = match existing {
            Existing::Refuse if is_free_again(&known) => {
                let is_failing = known.still_fails(&job);
                return Ok(self.put(Job { is_failing, ..job }));
            }
            Existing::Refuse => return Err(Refusal::Exists(job.id)),
            Existing::Redefine | Existing::Reschedule if known.origin == Origin::File => {
                return Err(self.declared_in_file(&known));
            }
            Existing::Redefine => known.redefined(job),
            Existing::Reschedule => known.rescheduled(job),
        };
        Ok(self.replace(&known, redefined))
    }

    fn add_one_of_many(&mut self, Addition { job, existing }: Addition) -> Result<Added, Refusal> {
        let known = self.step.job(&job.id);
        let is_new = known.is_none_or(|known| existing == Existing::Refuse && is_free_again(known));
        self.add(*job, existing)?;
        Ok(if is_new { Added::New } else { Added::Replaced })
    }

    fn remove(&mut self, id: &JobId) -> Result<Answer, Refusal> {
        let job = self.known(id)?;
        // A job of another file may go: that file may be gone for good.
        if job.origin == Origin::File && !job.is_declared_beside(&self.rules.source) {
            return Err(self.declared_in_file(&job));
        }
        if let Some(source) = job.source.clone() {
            self.step.notes.push(Note::RemovedOfAnother { job: id.clone(), source });
        }
        self.delete(id);
        Ok(Answer::Job(job))
    }

    fn declared_in_file(&self, job: &Job) -> Refusal {
        let file = job.source.as_ref().unwrap_or(&self.rules.source);
        Refusal::DeclaredInFile { id: job.id.clone(), file: Arc::clone(file) }
    }

    /// Removes the jobs that are finished and have no run in flight.
    fn remove_finished(&mut self, ids: &[JobId]) {
        for id in ids {
            // A finished job that the file declares would come back with the next reload, and might run again.
            let is_over = self.step.job(id).is_some_and(|job| is_free_again(job));
            if is_over && !self.floor.has_in_flight(id) {
                self.step.delete(id);
            }
        }
    }

    fn pause(&mut self, id: &JobId) -> Result<Answer, Refusal> {
        let job = self.known(id)?;
        let state = match &job.state {
            JobState::Active { next } => JobState::Paused { next: *next },
            JobState::Paused { .. } => return Ok(Answer::Job(job)),
            JobState::Finished | JobState::Broken { .. } => return Err(wrong_state(&job)),
        };
        Ok(self.put(Job { state, updated_at: self.step.now, ..(*job).clone() }))
    }

    fn resume(&mut self, id: &JobId) -> Result<Answer, Refusal> {
        let now = self.step.now;
        let job = self.known(id)?;
        let next = match &job.state {
            JobState::Paused { next } => due_again(&job, next.scheduled_at),
            JobState::Active { .. } => return Ok(Answer::Job(job)),
            JobState::Finished | JobState::Broken { .. } => return Err(wrong_state(&job)),
        };
        // What a pause has hidden comes to light when it ends.
        if let Err(invalid) = self.rules.check(&job) {
            return Err(Refusal::WrongState {
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

    fn set_paused(&mut self, paused: bool) -> Answer {
        self.step.set_paused(paused);
        Answer::Paused(self.step.paused_since())
    }

    fn run(&mut self, id: &JobId) -> Result<Answer, Refusal> {
        let job = self.known(id)?;
        if matches!(job.state, JobState::Broken { .. }) {
            return Err(wrong_state(&job));
        }
        if !self.floor.admits(&job) {
            let max_instances = job.policy.max_instances;
            return Err(Refusal::Busy { id: id.clone(), max_instances });
        }
        if !self.floor.has_place(&job.executor) {
            return Err(Refusal::QueueFull(job.executor.clone()));
        }
        let is_contested = self.is_shared && !self.floor.is_free(&job);
        self.make_room(&job, 1);
        let job = if self.is_shared {
            // Who counts the instances of a job on another node at the same time will find its revision changed.
            self.step.advance((*job).clone())
        } else {
            job
        };
        let run = Arc::new(self.pending_run(&job, Cause::Manual, None, self.step.now));
        self.step.insert_run(Arc::clone(&run));
        let waiting = Waiting { run: Arc::clone(&run), job, is_contested, event: None };
        self.floor.wait(waiting, self.step.now);
        Ok(Answer::Run(run))
    }

    /// A new run that waits for its place.
    pub(super) fn pending_run(
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
    pub(super) fn skipped_run(&mut self, job: &Job, skipped: plan::Skipped) -> Run {
        let plan::Skipped { reason, span } = skipped;
        let run = self.pending_run(job, Cause::Schedule, Some(span.first), span.first);
        Run {
            state: RunState::Skipped { reason, last_scheduled_at: span.last, count: span.count },
            ..run
        }
    }
}

/// An occurrence that was held back. Its delay is computed again: of what is held back, a store keeps the instant only.
pub(super) fn due_again(job: &Job, at: Timestamp) -> Due {
    // What `next_run_time` named has no delay.
    if job.trigger.matches(at) {
        plan::due(&job.id, &job.trigger, at)
    } else {
        Due { scheduled_at: at, due_at: at }
    }
}

/// The state of a job whose next occurrence is at `next`.
pub(super) fn state_from(job: &Job, next: Option<Timestamp>) -> JobState {
    next.map_or(JobState::Finished, |at| JobState::Active {
        next: plan::due(&job.id, &job.trigger, at),
    })
}

/// Whether a job is finished and not declared by the file: its id can be used for a new one, and it can be removed. Runs
/// of it that are still in flight go on, and count as instances of a new job of the id.
pub(super) fn is_free_again(known: &Job) -> bool {
    known.state == JobState::Finished && known.origin == Origin::Socket
}

fn wrong_state(job: &Job) -> Refusal {
    let state = match &job.state {
        JobState::Finished => "finished: it has no occurrence left".to_owned(),
        JobState::Broken { reason, .. } => format!("broken: {reason}"),
        JobState::Active { .. } | JobState::Paused { .. } => job.state.word().to_owned(),
    };
    Refusal::WrongState { id: job.id.clone(), state }
}
