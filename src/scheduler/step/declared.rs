//! What a file does to its jobs: declared jobs are defined as the file says, jobs with an invalid declaration are broken,
//! and jobs that the file no longer declares are removed. Jobs that another file declares are left alone.

use std::sync::Arc;

use super::context::StepContext;
use super::correct::by_this_clock;
use super::redefine::{delete, repaired_state, replace};
use crate::job::{Job, JobId, JobState, Origin};
use crate::scheduler::log::Note;
use crate::scheduler::request::{Conflict, Difference, InvalidDeclaration};

/// Checks jobs that the file does not declare: those that it declared before are removed, others are checked again.
pub(crate) fn review(context: &mut StepContext<'_>, ids: &[JobId]) -> Difference {
    let mut difference = Difference::default();
    for id in ids {
        let Some(job) = context.step.job(id).cloned() else { continue };
        if job.is_declared_elsewhere(&context.rules.source) {
            continue;
        }
        if job.origin == Origin::File {
            difference.removed.push(id.to_string());
            delete(context, id);
        } else {
            recheck(context, &job);
        }
    }
    difference
}

/// Defines jobs as this file declares them.
pub(crate) fn declare(context: &mut StepContext<'_>, jobs: Vec<Job>) -> Difference {
    let mut difference = Difference::default();
    for job in jobs {
        let source = Some(Arc::clone(&context.rules.source));
        let job = Job { source, ..by_this_clock(context, job) };
        let id = job.id.to_string();
        match context.step.job(&job.id).cloned() {
            None => {
                difference.added.push(id);
                context.put(job);
            }
            Some(known) if known.is_declared_elsewhere(&context.rules.source) => {
                difference.conflicts.push(conflict(context, &known));
            }
            Some(known) if is_as_declared(&known, &job) => difference.unchanged += 1,
            // It means the same, but is stored and shown as the file spells it.
            Some(known) if is_like_declared(&known, &job) => {
                difference.unchanged += 1;
                replace(context, &known, known.redefined(job));
            }
            Some(known) => {
                difference.changed.push(id);
                replace(context, &known, known.redefined(job));
            }
        }
    }
    difference
}

fn conflict(context: &StepContext<'_>, known: &Job) -> Conflict {
    let other = known.source.as_deref().unwrap_or_default().to_owned();
    Conflict { id: known.id.to_string(), other, own: context.rules.source.to_string() }
}

/// Breaks jobs of this file. They keep their definitions, so that their schedules can go on later.
pub(crate) fn break_declared(context: &mut StepContext<'_>, invalid: Vec<InvalidDeclaration>) {
    let now = context.step.now;
    for InvalidDeclaration { id, reason } in invalid {
        let source = Some(Arc::clone(&context.rules.source));
        let broken = match context.step.job(&id).cloned() {
            None => Job { source, ..Job::undefined(id, reason, now) },
            // A job that this file did not declare before stays as it is.
            Some(known) if known.origin == Origin::Socket => continue,
            Some(known) if known.is_declared_elsewhere(&context.rules.source) => continue,
            Some(known) => {
                let state = known.state.broken(reason);
                Job { state, source, updated_at: now, ..(*known).clone() }
            }
        };
        let is_known = context
            .step
            .job(&broken.id)
            .is_some_and(|known| (&known.state, &known.source) == (&broken.state, &broken.source));
        if !is_known {
            context.put(broken);
        }
    }
}

/// Breaks an active job that the rules no longer allow, and repairs a broken one that they allow again.
fn recheck(context: &mut StepContext<'_>, job: &Arc<Job>) {
    let now = context.step.now;
    let state = match (context.rules.check(job), &job.state) {
        (Err(invalid), JobState::Active { .. }) => {
            let reason = invalid.to_string();
            let note = Note::Broken { job: job.id.clone(), reason: reason.clone() };
            context.step.notes.push(note);
            job.state.broken(reason)
        }
        (Ok(()), JobState::Broken { .. }) => {
            context.step.notes.push(Note::Repaired { job: job.id.clone() });
            repaired_state(context, &Job { state: job.state.unbroken(), ..(**job).clone() })
        }
        (Err(_) | Ok(()), _) => return,
    };
    context.put(Job { state, updated_at: now, ..(**job).clone() });
}

/// Whether a job is stored just as it is declared.
fn is_as_declared(known: &Job, declared: &Job) -> bool {
    let broken = matches!(known.state, JobState::Broken { .. });
    let same_file = known.origin == Origin::File && known.source == declared.source;
    same_file && !broken && known.same_definition(declared)
}

/// Whether a job means what is declared, even if it came over the socket or is spelt differently.
fn is_like_declared(known: &Job, declared: &Job) -> bool {
    let broken = matches!(known.state, JobState::Broken { .. });
    !broken && declared.is_defined_as(&known.definition())
}
