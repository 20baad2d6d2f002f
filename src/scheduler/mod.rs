//! The scheduler: [`Scheduler::tick`] takes the time and what has arrived, decides, writes it all
//! in one transaction, acts on it, and says when it wants to be called again.
//!
//! It has no clock, no timer and no lock: the caller of `tick` (the daemon's loop, a test, a
//! simulation) brings the time. Its own state can be rebuilt from the store at any moment, and is,
//! whenever a write may or may not have happened, or another node was in the way.

pub mod admission;
mod alarm;
mod backoff;
mod cluster;
pub mod declare;
mod drain;
pub mod handle;
mod hooks;
mod log;
mod plan;
pub mod pulse;
mod recovery;
pub mod request;
mod resync;
mod retry;
pub mod serve;
pub mod slices;
mod state;
mod step;
mod watched_store;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::TimeDelta;
use tokio::sync::{oneshot, watch};

use crate::clock::Timestamp;
use crate::executor::{Completion, Executor, Saving};
use crate::job::{JobId, OnFinish};
use crate::run::{Execution, Run, RunId, RunIds};
use crate::store::{Store, StoreError};
use admission::Rules;
use cluster::peers::Peers;
use handle::{Status, WriteCounts};
use log::Note;
use pulse::Pulse;
use request::{PendingRequest, Request, RequestError};
use state::bisection::{Bisection, StepInputs};
use state::capacity::Capacity;
use state::due_cache::{DueCache, NextDue};
use step::apply::{StepContext, is_replaceable};
use step::correct::ClockWatch;
use step::overlap::OverlapRows;
use step::{Step, StepReply};
use watched_store::WatchedStore;

/// Steps in a row that other nodes may undo by being faster. Each of them has then done something itself, so more of
/// it is a fault, and is treated as one.
const CONFLICTS_MAX: u32 = 10;
/// Finished jobs that one step removes, so that it stays short.
const REMOVALS_PER_STEP: usize = 500;

/// Whether runs are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing fires or starts before the jobs of the file are declared.
    Held,
    Firing,
    Draining,
}

/// Whether jobs fire in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StepKind {
    Full,
    /// Only its inputs are worked off.
    InputsOnly,
}

/// An error of a step that is not about its inputs: a value that is refused cannot be one of theirs.
fn not_of_input(error: StoreError) -> StoreError {
    match error {
        StoreError::Rejected(why) => StoreError::Unavailable(why),
        error @ (StoreError::Unavailable(_)
        | StoreError::Conflict(_)
        | StoreError::Unusable(_)
        | StoreError::Refused(_)) => error,
    }
}

/// Who a scheduler is among those of its store.
#[derive(Debug, Clone)]
pub struct NodeIdentity {
    /// The node's name: no other one has it, nor had it before. A daemon's is `MACHINE:PROCESS:NUMBER`; by that, it
    /// knows the former daemons of its machine.
    pub node: Arc<str>,
    /// When it started.
    pub started_at: Timestamp,
    /// A number that no other node has, which keeps its run ids apart from those of others.
    pub seed: u64,
    /// How long a node of a shared store may be silent before others take over what it holds.
    pub lease: TimeDelta,
}

/// Decides what runs when.
#[derive(Debug)]
pub struct Scheduler<S, X> {
    store: WatchedStore<S>,
    executor: X,
    rules: Rules,
    ids: RunIds,
    identity: NodeIdentity,
    /// Whether other nodes work on the same store.
    is_shared: bool,
    peers: Peers,
    capacity: Capacity,
    /// Runs that this process has started and not yet recorded the end of.
    executing: BTreeMap<Execution, Arc<Run>>,
    /// Runs that this process still executes though another node has taken them over.
    abandoned: BTreeMap<Execution, Arc<Run>>,
    /// Completions that are not yet in the ledger: one that is told twice counts once.
    unrecorded: BTreeMap<Execution, Completion>,
    due_cache: DueCache,
    overlap_rows: OverlapRows,
    clock: ClockWatch,
    /// The pools that have room, as of the last look.
    open_pools: Vec<String>,
    is_stale: bool,
    /// Whether the other nodes were met in this step.
    has_met_now: bool,
    /// Steps in a row that another node has undone.
    conflicts: u32,
    /// What was asked in them.
    deferred: Vec<PendingRequest>,
    phase: Phase,
    /// Since when no job fires, if someone paused the scheduler.
    paused_since: Option<Timestamp>,
    /// Runs that another node has asked to end, and why.
    cancel_requests: Vec<(RunId, String)>,
    /// Jobs that fired in the last step if it failed, and attempts whose output it saved.
    last_failed: (Vec<JobId>, Vec<Execution>),
    /// What is tried in parts because the database refuses a value of it.
    bisection: Bisection,
    /// Finished jobs that are to be removed once none of their runs is in flight.
    finished: BTreeSet<JobId>,
    written: WriteCounts,
    /// Which outputs the next step saves, if any.
    to_save: Option<Saving>,
    status: watch::Sender<Status>,
}

impl<S: Store, X: Executor> Scheduler<S, X> {
    /// A scheduler that has not looked at its store yet.
    pub fn new(store: S, executor: X, rules: Rules, identity: NodeIdentity) -> Self {
        let is_shared = store.is_shared();
        Self {
            capacity: Capacity::new(&rules, is_shared),
            peers: Peers::new(identity.lease),
            ids: RunIds::new(identity.seed),
            store: WatchedStore { store, pulse: Pulse::default() },
            executor,
            rules,
            identity,
            is_shared,
            executing: BTreeMap::new(),
            abandoned: BTreeMap::new(),
            unrecorded: BTreeMap::new(),
            due_cache: DueCache::default(),
            overlap_rows: OverlapRows::default(),
            clock: ClockWatch::default(),
            open_pools: Vec::new(),
            is_stale: false,
            has_met_now: false,
            conflicts: 0,
            deferred: Vec::new(),
            phase: Phase::Firing,
            paused_since: None,
            cancel_requests: Vec::new(),
            last_failed: Default::default(),
            bisection: Bisection::default(),
            finished: BTreeSet::new(),
            written: WriteCounts::default(),
            to_save: None,
            status: watch::Sender::new(Status::default()),
        }
    }

    /// Where the scheduler tells, after every step, how it stands.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// The same scheduler, which gives its signs of life here.
    #[must_use]
    pub fn with_pulse(mut self, pulse: Pulse) -> Self {
        self.store.pulse = pulse;
        self
    }

    /// Where the scheduler gives its signs of life.
    pub fn pulse(&self) -> Pulse {
        self.store.pulse.clone()
    }

    /// Says until when the loop waits for something to do.
    fn wakes_at(&self, next_wake: Option<Timestamp>) {
        self.status.send_if_modified(|status| {
            status.next_wake = next_wake;
            false
        });
    }

    /// What runs are executed with.
    pub fn executor(&mut self) -> &mut X {
        &mut self.executor
    }

    /// Fires and starts nothing until it is asked to begin.
    pub fn hold(&mut self) {
        self.phase = Phase::Held;
    }

    /// From now on nothing is started; what runs may end.
    pub fn drain(&mut self) {
        self.phase = Phase::Draining;
    }

    /// The store has said that there is something to see: what another node has changed, or that the store of this
    /// one node may be lost.
    pub fn hint(&mut self) {
        self.peers.hint();
        if !self.is_shared {
            self.is_stale = true;
        }
    }

    /// Whether something is being tried in parts, because the database refuses a value of it.
    fn is_isolating(&self) -> bool {
        self.bisection.has_groups()
    }

    /// Runs that were started and whose end is not recorded.
    pub fn running(&self) -> usize {
        self.capacity.running()
    }

    /// Keeps what has ended until a step has recorded it.
    fn take_completions(&mut self, completions: Vec<Completion>) {
        for completion in completions {
            self.unrecorded.entry(completion.execution()).or_insert(completion);
        }
    }

    /// One step: records what has ended, does what was asked, fires what is due, starts what has a place. All of it
    /// is written in one transaction before anything is started or answered. Returns when to call again.
    pub async fn tick(
        &mut self,
        now: Timestamp,
        commands: Vec<PendingRequest>,
        completions: Vec<Completion>,
    ) -> Result<Option<Timestamp>, StoreError> {
        self.take_completions(completions);
        let mut asked = std::mem::take(&mut self.deferred);
        asked.extend(commands);
        if self.bisection.has_groups() {
            self.bisection.add(asked, self.unrecorded.keys());
            return self.try_group(now).await;
        }
        let inputs =
            StepInputs { commands: asked, executions: self.unrecorded.keys().cloned().collect() };
        self.try_all(now, inputs).await
    }

    /// Finds out what a failed step means. `Ok` says that it is tried again at once.
    fn classify_failure(&mut self, error: StoreError) -> Result<(), StoreError> {
        if let StoreError::Conflict(what) = &error
            && self.conflicts < CONFLICTS_MAX
        {
            self.conflicts += 1;
            tracing::debug!(%what, "another node was faster; looking again");
            return Ok(());
        }
        // The next step has to find out whether the store can be read and written, also if it has nothing to do.
        self.is_stale = true;
        self.peers.hint();
        self.publish_error(&error);
        Err(error)
    }

    /// Decides, commits, acts and answers. Where `fires` says no, nothing fires and nothing starts.
    async fn step(
        &mut self,
        now: Timestamp,
        StepInputs { commands, executions }: StepInputs,
        kind: StepKind,
    ) -> Result<Option<Timestamp>, StoreError> {
        self.last_failed = Default::default();
        let (mut step, page) = match self.load(now, &commands, &executions).await {
            Ok(prepared) => prepared,
            Err(error) => {
                self.reject_requests(commands, &error);
                return Err(error);
            }
        };
        self.record_completions(&mut step, &executions);
        if kind == StepKind::Full {
            self.save_outputs_of_running(&mut step);
        }
        self.apply_cancel_requests(&mut step);
        self.capacity.queue_due_retries(now);
        let known = match self.load_due(&mut step, &commands).await {
            Ok(known) => known,
            Err(error) => {
                let error = not_of_input(error);
                self.reject_requests(commands, &error);
                return Err(self.abort_step(step, error));
            }
        };
        if let Some(page) = page {
            self.context(&mut step).correct(page);
        }
        self.apply_commands(&mut step, commands);
        if kind == StepKind::Full {
            self.fire_due(&mut step);
            self.start_waiting(&mut step, known);
        }
        let mut changes = step.changes(|job| self.owner_of(job));
        let has_time = self.clock.record(now, &mut changes);
        let mut written = self.written;
        written.count(&changes);
        if !changes.is_empty()
            && let Err(error) = self.store.commit(changes).await
        {
            return Err(self.abort_step(step, error));
        }
        self.written = written;
        self.clock.committed(&mut step, has_time);
        for execution in &executions {
            self.unrecorded.remove(execution);
        }
        self.bisection.recorded(&executions);
        if kind == StepKind::Full {
            self.bisection.fired(&step.fired);
        }
        self.conflicts = 0;
        let replies = self.act(step);
        let next = self.next_wake(now);
        // Who is answered may look at the status, and has to find it as it was answered. A part of the inputs that was
        // tried alone is followed by the rest of this tick.
        self.publish(next);
        if kind == StepKind::Full {
            self.store.pulse.step_ends();
        }
        for StepReply { to, answer } in replies {
            // Nobody may be waiting any more; what was asked is done all the same.
            drop(to.send(answer));
        }
        Ok(next)
    }

    fn record_completions(&mut self, step: &mut Step, executions: &[Execution]) {
        let unrecorded = std::mem::take(&mut self.unrecorded);
        for execution in executions {
            let Some(completion) = unrecorded.get(execution) else { continue };
            if let Some(run) = self.executing.get(execution).cloned() {
                let took = completion.finished_at - completion.started_at;
                let freed = self.capacity.free(&run.id, Some(took));
                self.context(step).end(&run, freed, completion);
            } else if self.abandoned.remove(execution).is_some() {
                self.capacity.remove_abandoned(execution);
            }
        }
        self.unrecorded = unrecorded;
    }

    /// Ends what other nodes have asked this one to end.
    fn apply_cancel_requests(&mut self, step: &mut Step) {
        for (run_id, reason) in std::mem::take(&mut self.cancel_requests) {
            // One that runs is asked again at each meeting until it has ended, and one that has ended needs no answer.
            if self.capacity.is_running(&run_id) {
                step.cancels.push((run_id, reason));
            } else {
                drop(self.context(step).cancel(&run_id, Some(reason)));
            }
        }
    }

    fn context<'a>(&'a mut self, step: &'a mut Step) -> StepContext<'a> {
        StepContext {
            step,
            capacity: &mut self.capacity,
            rules: &mut self.rules,
            ids: &mut self.ids,
            overlap_rows: &mut self.overlap_rows,
            node: &self.identity.node,
            is_shared: self.is_shared,
        }
    }

    fn apply_commands(&mut self, step: &mut Step, commands: Vec<PendingRequest>) {
        for PendingRequest { request, reply } in commands {
            step.asked.push(request.clone());
            if self.phase == Phase::Held && matches!(request, Request::Begin) {
                self.phase = Phase::Firing;
            }
            let answer = match self.phase {
                Phase::Held | Phase::Firing => self.context(step).apply(request),
                Phase::Draining => Err(RequestError::Stopping),
            };
            step.replies.push(StepReply { to: reply, answer });
        }
    }

    /// The step is written: starts what it starts, and returns the answers to send.
    fn act(&mut self, mut step: Step) -> Vec<StepReply> {
        self.paused_since = step.paused_since();
        for execution in &step.recorded {
            self.executing.remove(execution);
        }
        for (execution, output) in &step.saved {
            self.executor.output_saved(execution, output, step.now);
        }
        step.notes.iter().for_each(Note::log);
        step.ended.iter().for_each(|run| log::ended(run));
        if step.former_rules.is_some() {
            self.executor.resize(&self.rules.executors);
        }
        for (id, job) in step.written() {
            let Some(job) = job else {
                self.due_cache.remove(&id);
                continue;
            };
            self.executor.note_secrets(&job);
            if is_replaceable(&job) && job.policy.on_finish == Some(OnFinish::Remove) {
                self.finished.insert(id);
            }
            self.due_cache.put(job);
        }
        self.request_removals();
        for (pool, assignment) in step.starts {
            self.executor.start(&pool, assignment);
        }
        step.beats.into_iter().for_each(|beat| self.executor.send_heartbeat(beat));
        for (run_id, reason) in step.cancels {
            self.executor.cancel(&run_id, &reason);
        }
        step.replies
    }

    /// Asks itself to remove the finished jobs whose last run has ended. It is a request of the next step, which reads
    /// the jobs as the store has them.
    fn request_removals(&mut self) {
        let capacity = &self.capacity;
        let over = self.finished.extract_if(.., |id| !capacity.has_in_flight(id));
        let over: Vec<JobId> = over.take(REMOVALS_PER_STEP).collect();
        if !over.is_empty() {
            let (reply, _) = oneshot::channel();
            self.deferred.push(PendingRequest::new(Request::RemoveFinished(over), reply));
        }
    }

    /// Remembers the finished jobs that requests were to remove and that nobody will ask for again.
    fn keep_removals(&mut self, requests: &[Request]) {
        for request in requests {
            if let Request::RemoveFinished(ids) = request {
                self.finished.extend(ids.iter().cloned());
            }
        }
    }

    /// The step could not be written, and memory is no longer trusted. Where another node was faster, or the database
    /// refused a value, what was asked is asked again; else nobody gets what was asked for.
    fn abort_step(&mut self, mut step: Step, error: StoreError) -> StoreError {
        self.is_stale = true;
        let saved = step.saved.iter().map(|(execution, _)| execution.clone());
        self.last_failed = (std::mem::take(&mut step.fired), saved.collect());
        if let Some(rules) = step.former_rules {
            self.rules = rules;
        }
        for (_, assignment) in &step.starts {
            self.executing.remove(&assignment.execution());
        }
        if self.may_be_tried_again(&error) {
            let asked = step.asked.into_iter().zip(step.replies);
            let again =
                asked.map(|(request, StepReply { to, .. })| PendingRequest::new(request, to));
            self.deferred.extend(again);
            return error;
        }
        self.publish_error(&error);
        self.keep_removals(&step.asked);
        for StepReply { to, answer } in step.replies {
            let answer = answer.and_then(|_| Err(RequestError::Unavailable(error.to_string())));
            drop(to.send(answer));
        }
        error
    }

    /// Commands that could not be looked at.
    fn reject_requests(&mut self, commands: Vec<PendingRequest>, error: &StoreError) {
        if self.may_be_tried_again(error) {
            self.deferred.extend(commands);
            return;
        }
        self.publish_error(error);
        for command in commands {
            self.keep_removals(std::slice::from_ref(&command.request));
            drop(command.reply.send(Err(RequestError::Unavailable(error.to_string()))));
        }
    }

    /// Has the status say what is wrong. The step is over: who is answered now finds the error, and no step that is late.
    fn publish_error(&self, error: &StoreError) {
        self.status.send_modify(|status| {
            status.store_error = Some(error.to_string());
            status.next_wake = None;
        });
        self.store.pulse.step_ends();
    }

    /// Whether another node was faster, or the database refuses a value: then what was asked is tried again at once.
    fn may_be_tried_again(&self, error: &StoreError) -> bool {
        match error {
            StoreError::Conflict(_) => self.is_shared && self.conflicts < CONFLICTS_MAX,
            StoreError::Rejected(_) => true,
            StoreError::Unavailable(_) | StoreError::Unusable(_) | StoreError::Refused(_) => false,
        }
    }

    /// When to be called again, if nothing arrives before.
    fn next_wake(&self, now: Timestamp) -> Option<Timestamp> {
        let meeting = self.peers.next().filter(|_| self.is_shared);
        // Without a pool that has room a completion is what to wait for, in a pause its end.
        let is_held = self.paused_since.is_some() || self.phase != Phase::Firing;
        let due = match self.due_cache.next(&self.capacity.open_pools()) {
            _ if is_held => None,
            NextDue::Unknown => Some(now),
            NextDue::At(at) => at,
        };
        let retry = self.capacity.next_retry().filter(|_| self.phase == Phase::Firing);
        let goes_on = !self.deferred.is_empty() || self.bisection.has_groups();
        let deferred = goes_on.then_some(now);
        let is_correcting = self.clock.is_under_way() && self.phase != Phase::Draining;
        let correction = is_correcting.then_some(now);
        [meeting, due, retry, deferred, correction].into_iter().flatten().min()
    }

    fn publish(&self, next_wake: Option<Timestamp>) {
        self.status.send_modify(|status| {
            status.steps = status.steps.wrapping_add(1);
            status.next_wake = next_wake;
            status.next_due = self.due_cache.first_due();
            status.running = self.capacity.running();
            status.paused_since = self.paused_since;
            status.clock = self.clock.correction();
            status.written = self.written;
            status.store_error = None;
            status.draining = self.phase == Phase::Draining;
            status.pools.clear();
            status.pools.extend(self.capacity.usage().map(handle::PoolStatus::from));
            if status.nodes != self.peers.nodes() {
                status.nodes = self.peers.nodes().to_vec();
            }
        });
    }
}
