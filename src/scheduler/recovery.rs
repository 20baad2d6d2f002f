//! Decides about runs that were interrupted: by a crash of this daemon, by the end of another node, or by a stop.
//!
//! A run that the ledger calls `pending` was certainly not started, because a run is marked `running` before it is started.
//! A run that it calls `running` may have been started, unless this process knows that it never was.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::log::{self, Note};
use super::state::SchedulerState;
use super::step::act::CONFLICTS_MAX;
use super::step::complete;
use super::step::context::StepContext;
use super::step::{Step, is_run_of};
use crate::clock::Timestamp;
use crate::executor::Executor;
use crate::job::admission::Rules;
use crate::job::{Job, JobId, OnCrash};
use crate::output::Output;
use crate::run::{Cost, Execution, Outcome, Run, RunState};
use crate::store::{Change, Holder, Store, StoreError};

/// Attempts of a run after which it is not taken over again from a node of another machine. Such a node may only have been
/// cut off; but if the run kills the nodes that execute it, there must be an end.
const TAKEOVERS_MAX: u32 = 10;

/// Why a run is recorded as running although no daemon executes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interruption {
    /// This node has stopped.
    Stop,
    /// Its daemon has died. On a shared store, this is known of daemons of this machine only.
    Death,
    /// Its node on another machine has died or was cut off.
    Loss,
}

/// Whether an interrupted run is executed again.
#[derive(Debug)]
enum Rerun {
    Yes,
    /// With the text for the ledger, if it was interrupted too often.
    No(Option<String>),
}

/// What became of interrupted runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Runs that wait for another attempt.
    pub rerun: usize,
    /// Runs that are recorded as lost.
    pub lost: usize,
}

/// Counts how often other nodes were faster with what this node tries to do.
#[derive(Debug, Default)]
pub(super) struct ConflictRetries(u32);

impl ConflictRetries {
    /// Whether to try again: another node was faster, and that has not happened too often.
    pub(super) fn go_on<T>(&mut self, result: &Result<T, StoreError>) -> bool {
        self.0 += 1;
        matches!(result, Err(StoreError::Conflict(_))) && self.0 <= CONFLICTS_MAX
    }
}

/// The machine of a node named `MACHINE:PROCESS:NUMBER`; `None` if its name has another form.
fn machine(node: &str) -> Option<&str> {
    node.rsplitn(3, ':').nth(2)
}

fn lost(mut run: Run, started_at: Timestamp, now: Timestamp, error: String) -> Run {
    run.end(started_at, now, Outcome::Lost { error }, Cost::default());
    run
}

/// Reads the latest time that the store has recorded, and its newest run.
pub(super) async fn learn_recorded<S: Store>(
    store: &S,
    state: &mut SchedulerState,
) -> Result<(), StoreError> {
    let newest = follow_newest_run(store, state).await?;
    let recorded = store.recorded_time().await?;
    // Older versions recorded no time.
    state.clock.set_recorded(recorded.or(newest));
    Ok(())
}

/// Makes the ids of new runs greater than that of the newest run in the store. Returns when that run was created.
pub(super) async fn follow_newest_run<S: Store>(
    store: &S,
    state: &mut SchedulerState,
) -> Result<Option<Timestamp>, StoreError> {
    let Some(run) = store.newest_run().await? else { return Ok(None) };
    state.ids.follow(&run.id);
    Ok(Some(run.created_at))
}

/// Decides about each run in flight of `holder`, which nobody executes any more: it waits on this node from now on, or is
/// lost. `why` is the text for the ledger.
pub(super) async fn recover<S: Store, X: Executor>(
    store: &S,
    executor: &mut X,
    rules: &mut Rules,
    state: &mut SchedulerState,
    now: Timestamp,
    holder: Holder<'_>,
    why: &str,
) -> Result<Recovered, StoreError> {
    let mut runs = store.runs_in_flight(holder).await?;
    // On a shared store, another node may have the pool that this one lacks.
    runs.retain(|run| !state.is_shared || rules.executors.contains_key(&run.executor));
    let jobs = jobs_of(store, &runs).await?;
    let begun = runs.iter().filter(|run| matches!(run.state, RunState::Running { .. }));
    let begun: Vec<Execution> = begun.map(Run::execution).collect();
    if !begun.is_empty() {
        executor.kill_orphans(&begun);
    }
    let mut recovered = Recovered::default();
    let mut step = Step::new(now, Arc::clone(state.node()), None);
    for job in jobs.values() {
        step.add_loaded(job);
    }
    for mut run in runs {
        let (held_by, job) = (Arc::clone(&run.node), jobs.get(&run.job_id));
        match run.state {
            RunState::Running { started_at } => {
                let interruption = interruption(state, holder, &run);
                let crashes = u32::from(interruption == Interruption::Death);
                run.crashes = run.crashes.saturating_add(crashes);
                match may_rerun(rules, job, &run, interruption) {
                    Rerun::Yes => {
                        step.end_attempt(&lost(run.clone(), started_at, now, why.to_owned()));
                        run.retry_after_crash(now);
                        recovered.rerun += 1;
                    }
                    Rerun::No(limit) => {
                        let error = limit.unwrap_or_else(|| why.to_owned());
                        run = lost(run, started_at, now, error);
                        if let Some(job) = job.filter(|job| is_run_of(job, &run)) {
                            let output = output_to_report(store, job, &run).await?;
                            let context = &mut StepContext::new(&mut step, state, rules);
                            complete::report_end(context, job, &run, &output);
                        }
                        recovered.lost += 1;
                    }
                }
            }
            RunState::Pending if run.node == *state.node() => continue,
            RunState::Pending => {}
            // Its row was not understood: it ends as what it was read as.
            RunState::Ended { .. } | RunState::Skipped { .. } => recovered.lost += 1,
        }
        if !run.state.is_final() {
            run.node = Arc::clone(state.node());
        }
        let run = Arc::new(run);
        if run.state.is_final() {
            step.ended.push(Arc::clone(&run));
        }
        step.push(Change::UpdateRun { run, held_by });
    }
    let changes = step.take_changes(|_| None);
    if !changes.is_empty() {
        // These runs may be this node's from now on, even if the answer is lost.
        state.is_stale = true;
        store.commit(changes).await?;
    }
    step.notes.iter().for_each(Note::log);
    for run in &step.ended {
        log::run_ended(run);
        state.metrics.run_ended(run);
    }
    step.heartbeats.into_iter().for_each(|heartbeat| executor.send_heartbeat(heartbeat));
    Ok(recovered)
}

/// What a lost run had written until its daemon died, if a hook or a heartbeat reports it.
async fn output_to_report<S: Store>(
    store: &S,
    job: &Job,
    lost: &Run,
) -> Result<Output, StoreError> {
    if job.policy.on_failure.is_none() && job.policy.heartbeat.is_none() {
        return Ok(Output::default());
    }
    Ok(store.load_output(&lost.id, lost.attempt).await?.unwrap_or_default())
}

fn interruption(state: &SchedulerState, holder: Holder<'_>, run: &Run) -> Interruption {
    let machine_of_run = machine(&run.node);
    let is_here = machine_of_run.is_some() && machine_of_run == machine(state.node());
    match holder {
        Holder::Node(_) => Interruption::Stop,
        Holder::Gone { .. } if is_here || !state.is_shared => Interruption::Death,
        Holder::Gone { .. } => Interruption::Loss,
    }
}

/// Whether a run is executed again. Its count of crashes contains this interruption.
fn may_rerun(
    rules: &Rules,
    job: Option<&Arc<Job>>,
    run: &Run,
    interruption: Interruption,
) -> Rerun {
    if job.is_some_and(|job| job.unreadable.is_some()) {
        // Its `on_crash` may be "lose".
        let reason = "it was interrupted, and the row of its job cannot be read";
        return Rerun::No(Some(reason.to_owned()));
    }
    let job = job.filter(|job| job.policy.on_crash == OnCrash::Rerun && is_run_of(job, run));
    let Some(job) = job.filter(|_| rules.executors.contains_key(&run.executor)) else {
        return Rerun::No(None);
    };
    let max_attempts = job.policy.retry.map_or(0, |retry| retry.max_attempts);
    match interruption {
        Interruption::Death if run.crashes >= rules.max_crashes => {
            let times = run.crashes;
            let several = || format!("the daemon died {times} times while it ran");
            Rerun::No((times > 1).then(several))
        }
        Interruption::Loss if run.attempt >= TAKEOVERS_MAX.max(max_attempts) => {
            let attempts = run.attempt;
            Rerun::No(Some(format!("its node was gone while it ran, after {attempts} attempts")))
        }
        Interruption::Stop | Interruption::Death | Interruption::Loss => Rerun::Yes,
    }
}

/// The jobs of these runs, as the store has them.
pub(super) async fn jobs_of<S: Store>(
    store: &S,
    runs: &[Run],
) -> Result<BTreeMap<JobId, Arc<Job>>, StoreError> {
    let ids: BTreeSet<&JobId> = runs.iter().map(|run| &run.job_id).collect();
    let ids: Vec<JobId> = ids.into_iter().cloned().collect();
    if ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let jobs = store.load_jobs(&ids).await?;
    Ok(jobs.into_iter().map(|job| (job.id.clone(), Arc::new(job))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_of_a_node_is_what_stands_before_process_and_number() {
        let names = ["host:12:0a1b", "a:b:12:0a1b", ":12:0a1b", "12:0a1b", "node", ""];
        let machines = [Some("host"), Some("a:b"), Some(""), None, None, None];
        assert_eq!(names.map(machine), machines);
    }
}
