//! What a file does to its jobs in a step: those that it declares become what it says, those whose declarations are
//! faulty are broken, those that it no longer declares go. Jobs that another file declares are left alone.

use std::sync::Arc;

use crate::job::{Job, JobId, JobState, Origin};
use crate::run::SkipReason;
use crate::scheduler::log::Note;
use crate::scheduler::request::{Conflict, Difference, InvalidDeclaration};
use crate::scheduler::step::apply::{StepContext, recomputed_due, state_from};

impl StepContext<'_> {
    pub(crate) fn review(&mut self, ids: &[JobId]) -> Difference {
        let mut difference = Difference::default();
        for id in ids {
            let Some(job) = self.step.job(id).cloned() else { continue };
            if job.is_declared_beside(&self.rules.source) {
                continue;
            }
            if job.origin == Origin::File {
                difference.removed.push(id.to_string());
                self.delete(id);
            } else {
                self.recheck(&job);
            }
        }
        difference
    }

    pub(crate) fn declare(&mut self, jobs: Vec<Job>) -> Difference {
        let mut difference = Difference::default();
        for job in jobs {
            let source = Some(Arc::clone(&self.rules.source));
            let job = Job { source, ..self.by_this_clock(job) };
            let id = job.id.to_string();
            match self.step.job(&job.id).cloned() {
                None => {
                    difference.added.push(id);
                    self.put(job);
                }
                Some(known) if known.is_declared_beside(&self.rules.source) => {
                    difference.conflicts.push(self.conflict(&known));
                }
                Some(known) if is_as_declared(&known, &job) => difference.unchanged += 1,
                // What is stored and shown follows the file's own words.
                Some(known) if is_like_declared(&known, &job) => {
                    difference.unchanged += 1;
                    self.replace(&known, known.redefined(job));
                }
                Some(known) => {
                    difference.changed.push(id);
                    self.replace(&known, known.redefined(job));
                }
            }
        }
        difference
    }

    fn conflict(&self, known: &Job) -> Conflict {
        let other = known.source.as_deref().unwrap_or_default().to_owned();
        Conflict { id: known.id.to_string(), other, own: self.rules.source.to_string() }
    }

    /// Breaks jobs of this file. Their definitions stay, so that their schedules can go on.
    pub(crate) fn break_declared(&mut self, faults: Vec<InvalidDeclaration>) {
        let now = self.step.now;
        for InvalidDeclaration { id, reason } in faults {
            let source = Some(Arc::clone(&self.rules.source));
            let broken = match self.step.job(&id).cloned() {
                None => Job { source, ..Job::undefined(id, reason, now) },
                // What this file did not declare before goes on as it is.
                Some(known) if known.origin == Origin::Socket => continue,
                Some(known) if known.is_declared_beside(&self.rules.source) => continue,
                Some(known) => {
                    let state = known.state.broken(reason);
                    Job { state, source, updated_at: now, ..(*known).clone() }
                }
            };
            let is_known = self.step.job(&broken.id).is_some_and(|known| {
                (&known.state, &known.source) == (&broken.state, &broken.source)
            });
            if !is_known {
                self.put(broken);
            }
        }
    }

    /// Breaks an active job that the rules no longer allow, and mends one that they allow again.
    fn recheck(&mut self, job: &Arc<Job>) {
        let now = self.step.now;
        let state = match (self.rules.check(job), &job.state) {
            (Err(invalid), JobState::Active { .. }) => {
                let reason = invalid.to_string();
                let note = Note::Broken { job: job.id.clone(), reason: reason.clone() };
                self.step.notes.push(note);
                job.state.broken(reason)
            }
            (Ok(()), JobState::Broken { .. }) => {
                self.step.notes.push(Note::Repaired { job: job.id.clone() });
                self.repaired_state(&Job { state: job.state.unbroken(), ..(**job).clone() })
            }
            (Err(_) | Ok(()), _) => return,
        };
        self.put(Job { state, updated_at: now, ..(**job).clone() });
    }

    /// The state of a job that was broken and is whole again; it is in the state that it had before. What it missed is
    /// accounted for.
    pub(crate) fn repaired_state(&mut self, job: &Job) -> JobState {
        let now = self.step.now;
        let held = match &job.state {
            JobState::Active { next } => next.scheduled_at,
            JobState::Broken { .. } if job.trigger.is_one_shot() => {
                return state_from(job, job.trigger.first());
            }
            JobState::Broken { .. } => return state_from(job, job.trigger.next_after(now)),
            JobState::Paused { .. } | JobState::Finished => return job.state.clone(),
        };
        // A one-shot is late. If the clock was set back meanwhile, what came before has its rows, and this is to come.
        if job.trigger.is_one_shot() || held > now {
            return JobState::Active { next: recomputed_due(job, held) };
        }
        self.skip_since(job, held, SkipReason::Broken);
        state_from(job, job.trigger.next_after(now))
    }
}

/// Whether a job is stored just as it is declared.
fn is_as_declared(known: &Job, declared: &Job) -> bool {
    let broken = matches!(known.state, JobState::Broken { .. });
    let same_file = known.origin == Origin::File && known.source == declared.source;
    same_file && !broken && known.same_definition(declared)
}

/// Whether a job means what is declared, also if it came over the socket or is written otherwise.
fn is_like_declared(known: &Job, declared: &Job) -> bool {
    let broken = matches!(known.state, JobState::Broken { .. });
    !broken && declared.is_defined_as(&known.definition())
}
