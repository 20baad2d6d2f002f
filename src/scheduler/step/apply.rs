//! Applies requests to the jobs of a step. The jobs and runs that a request names have been loaded before, so nothing here
//! waits for the store.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::complete::cancel;
use super::context::{StepContext, wrong_state};
use super::correct::by_this_clock;
use super::declared::{break_declared, declare, review};
use super::fire::replace_older_runs;
use super::modify::modify;
use super::pause::{pause, pause_scheduler, resume, resume_scheduler};
use super::redefine::{declared_in_file, delete, is_replaceable, replace};
use super::{Step, StepReply};
use crate::filter::JobConditions;
use crate::job::admission::Rules;
use crate::job::{Job, JobId, JobState, Origin};
use crate::run::Cause;
use crate::scheduler::log::Note;
use crate::scheduler::request::{
    Added, Addition, BulkAction, BulkTally, Existing, Modified, PendingRequest, Request,
    RequestError, Response,
};
use crate::scheduler::state::capacity::WaitingRun;
use crate::scheduler::state::{Phase, SchedulerState};
use crate::store::{Change, RunPart};

/// Applies the requests of a step in order. Their answers are sent once it is committed.
pub(crate) fn apply_requests(
    step: &mut Step,
    state: &mut SchedulerState,
    rules: &mut Rules,
    requests: Vec<PendingRequest>,
) {
    for PendingRequest { request, reply } in requests {
        step.requests.push(request.clone());
        if state.phase == Phase::Held && matches!(request, Request::Begin) {
            state.phase = Phase::Firing;
        }
        let answer = match state.phase {
            Phase::Held | Phase::Firing => {
                apply(&mut StepContext::new(step, state, rules), request)
            }
            Phase::Draining => Err(RequestError::Stopping),
        };
        step.replies.push(StepReply { to: reply, answer });
    }
    answer_with_final_jobs(step);
}

/// Several requests of a step may change the same job, and make one revision of it. Each of them is answered with the job
/// as the step writes it, so that no two answers show a revision differently. What came before a removal is over.
fn answer_with_final_jobs(step: &mut Step) {
    let mut replies = std::mem::take(&mut step.replies);
    let mut removed = BTreeSet::new();
    for StepReply { answer, .. } in replies.iter_mut().rev() {
        match answer {
            Ok(Response::Removed(job)) => {
                removed.insert(job.id.clone());
            }
            Ok(Response::Job(job) | Response::Modified(Modified { after: job, .. })) => {
                let last = step.job(&job.id).filter(|_| !removed.contains(&job.id));
                if let Some(last) = last {
                    *job = Arc::clone(last);
                }
            }
            _ => {}
        }
    }
    step.replies = replies;
}

fn apply(context: &mut StepContext<'_>, request: Request) -> Result<Response, RequestError> {
    let done = match request {
        Request::Add(Addition { job, existing }) => return add(context, *job, existing),
        Request::AddAll(additions) => {
            let added = additions.into_iter().map(|addition| add_one_of_many(context, addition));
            Response::Added(added.collect())
        }
        Request::Remove(id) => return remove(context, &id),
        Request::Pause(id, terms) => return pause(context, &id, terms),
        Request::Resume(id) => return resume(context, &id),
        Request::IfVersion { job, precondition, request } => {
            let known = context.find(&job)?;
            precondition.check(&known)?;
            return apply(context, *request);
        }
        Request::Modify(modification) => return modify(context, modification),
        Request::Bulk { action, ids, conditions } => {
            Response::Bulk(act_on_all(context, &action, ids, &conditions))
        }
        Request::Run(id) => return run_now(context, &id),
        Request::Cancel { run, reason } => return cancel(context, &run, reason),
        Request::PauseAll(terms) => pause_scheduler(context, terms),
        Request::ResumeAll => resume_scheduler(context),
        Request::Prune { runs, parts } => {
            if parts.contains(&RunPart::Row) {
                context.overlap_rows.forget(&runs);
            }
            for part in parts {
                for run_id in &runs {
                    context.step.push(Change::Prune { run_id: run_id.clone(), part: *part });
                }
            }
            Response::Done
        }
        Request::RemoveFinished(ids) => {
            remove_finished(context, &ids);
            Response::Done
        }
        Request::SetRules(rules) => {
            let former = std::mem::replace(context.rules, *rules);
            // If a step changes the rules twice, an abort restores those before the first change.
            context.step.former_rules.get_or_insert(former);
            context.capacity.adapt(&context.rules.executors, context.rules.max_crashes);
            Response::Done
        }
        Request::Review(ids) => Response::Difference(review(context, &ids)),
        Request::Declare(jobs) => Response::Difference(declare(context, jobs)),
        Request::BreakDeclared(invalid) => {
            break_declared(context, invalid);
            Response::Done
        }
        Request::Begin => Response::Done,
    };
    Ok(done)
}

fn add(
    context: &mut StepContext<'_>,
    job: Job,
    existing: Existing,
) -> Result<Response, RequestError> {
    let job = by_this_clock(context, job);
    let Some(known) = context.step.job(&job.id).cloned() else {
        return Ok(Response::Job(context.put(job)));
    };
    let redefined = match existing {
        Existing::Refuse if is_replaceable(&known) => {
            let is_failing = known.still_fails(&job);
            return Ok(Response::Job(context.put(Job { is_failing, ..job })));
        }
        Existing::Refuse => return Err(RequestError::Exists(job.id)),
        Existing::Redefine | Existing::Reschedule if known.origin == Origin::File => {
            return Err(declared_in_file(context, &known));
        }
        Existing::Redefine => known.redefined(job),
        Existing::Reschedule => known.rescheduled(job),
    };
    Ok(Response::Job(replace(context, &known, redefined)))
}

fn add_one_of_many(
    context: &mut StepContext<'_>,
    Addition { job, existing }: Addition,
) -> Result<Added, RequestError> {
    let known = context.step.job(&job.id);
    let is_new = known.is_none_or(|known| existing == Existing::Refuse && is_replaceable(known));
    add(context, *job, existing)?;
    Ok(if is_new { Added::New } else { Added::Replaced })
}

fn remove(context: &mut StepContext<'_>, id: &JobId) -> Result<Response, RequestError> {
    let job = context.find(id)?;
    // A job of another file may be removed: that file may be gone for good.
    if job.origin == Origin::File && !job.is_declared_elsewhere(&context.rules.source) {
        return Err(declared_in_file(context, &job));
    }
    if let Some(source) = job.source.clone() {
        context.step.notes.push(Note::RemovedOfAnother { job: id.clone(), source });
    }
    delete(context, id);
    Ok(Response::Removed(job))
}

/// Does the same to all jobs that still meet the conditions.
fn act_on_all(
    context: &mut StepContext<'_>,
    action: &BulkAction,
    ids: Vec<JobId>,
    conditions: &JobConditions,
) -> BulkTally {
    let mut tally = BulkTally::default();
    for id in ids {
        let job = context.step.job(&id).filter(|job| conditions.are_met_by(job)).cloned();
        let Some(job) = job else { continue };
        let result = match (action, &job.state) {
            (BulkAction::Pause(_) | BulkAction::Resume, JobState::Finished) => {
                tally.unchanged += 1;
                continue;
            }
            // Also if it is another file: that the file is gone is known of a single job at most.
            (BulkAction::Remove, _) if job.origin == Origin::File => {
                Err(declared_in_file(context, &job))
            }
            (BulkAction::Remove, _) => remove(context, &id),
            (BulkAction::Pause(terms), _) => pause(context, &id, terms.clone()),
            (BulkAction::Resume, _) => resume(context, &id),
        };
        let is_same = context.step.job(&id).is_some_and(|now| Arc::ptr_eq(now, &job));
        match result {
            Ok(_) if is_same => tally.unchanged += 1,
            Ok(_) => tally.changed += 1,
            Err(error) => tally.refused.push((id, error)),
        }
    }
    tally
}

/// Removes the jobs that are finished and have no run in flight.
fn remove_finished(context: &mut StepContext<'_>, ids: &[JobId]) {
    for id in ids {
        // The next reload would add a finished job of the file again, and it might run again.
        let is_over = context.step.job(id).is_some_and(|job| is_replaceable(job));
        if is_over && !context.capacity.has_in_flight(id) {
            context.step.delete(id);
        }
    }
}

fn run_now(context: &mut StepContext<'_>, id: &JobId) -> Result<Response, RequestError> {
    let job = context.find(id)?;
    if matches!(job.state, JobState::Broken { .. }) {
        return Err(wrong_state(&job));
    }
    if !context.capacity.accepts_instance(&job) {
        let max_instances = job.policy.max_instances;
        return Err(RequestError::Busy { id: id.clone(), max_instances });
    }
    if !context.capacity.accepts_extra_run(&job.executor) {
        return Err(RequestError::QueueFull(job.executor.clone()));
    }
    let needs_cluster_check = context.is_shared && !context.capacity.has_free_instance(&job);
    replace_older_runs(context, &job, 1);
    let job = if context.is_shared {
        // A node that counts the instances of the job at the same time finds its revision changed.
        context.step.advance((*job).clone())
    } else {
        job
    };
    let run = Arc::new(context.pending_run(&job, Cause::Manual, None, context.step.now));
    context.step.insert_run(Arc::clone(&run));
    let waiting = WaitingRun { run: Arc::clone(&run), job, needs_cluster_check, event: None };
    context.capacity.wait(waiting, context.step.now);
    Ok(Response::Run(run))
}
