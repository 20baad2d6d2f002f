//! A node of a world: one process after the other, each with a name of its own, a clock that may
//! be wrong, and the inputs that wait for its scheduler.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use chrono::TimeDelta;
use punctual::clock::Timestamp;
use punctual::executor::{Completion, Saving};
use punctual::job::JobId;
use punctual::job::admission::Rules;
use punctual::run::Outcome;
use punctual::scheduler::handle::PoolStatus;
use punctual::scheduler::request::{Addition, PendingRequest, Request, RequestError, Response};
use punctual::scheduler::{NodeIdentity, Scheduler};
use punctual::store::StoreError;
use support::executor::FakeExecutor;
use support::store::MemoryStore;
use support::store::layered::Layered;
use tokio::sync::oneshot;

use crate::executor::{Execution, Executions, SimExecutor, Workplace};
use crate::properties::Property;
use crate::store::{POISON, Reach, Shared, SimStore};

/// How long a node may be silent before others take over.
pub(crate) const LEASE: TimeDelta = TimeDelta::seconds(10);
/// When a step that failed is tried again.
const BACK_OFF: TimeDelta = TimeDelta::milliseconds(300);
/// Steps in a row at the same instant, each of which asks to be called again at once.
const STEPS_AT_ONCE: u32 = 60;
/// Runs that wait in a queue: those that fill it, those of one plan beyond that, and those of nodes that are gone.
const WAITING_MAX: usize = 4 * 2000;

type Core = Scheduler<SimStore, SimExecutor>;

/// Tries of the last writes of a process that stops.
const LAST_TRIES: u64 = 4;

/// What a process has done.
enum Done {
    Recovered(Result<(), StoreError>),
    Ticked(Timestamp, Result<Option<Timestamp>, StoreError>),
    Left,
}

/// How far a stop has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    No,
    /// Runs are waited for.
    Draining,
    /// The deadline has passed: the executor is stopped, and only the last writes are left.
    Over,
}

type Doing = Pin<Box<dyn Future<Output = (Box<Core>, Done)>>>;

/// Where a process stands. What it is doing goes on when it is polled, and ends with it.
enum Process {
    Dead,
    Idle(Box<Core>),
    Busy(Doing),
}

/// A request whose answer is awaited.
struct Asked {
    /// How many writes there had been then.
    writes: u64,
    request: Request,
    answer: oneshot::Receiver<Result<Response, RequestError>>,
}

/// A node.
pub(crate) struct Node {
    pub(crate) name: Arc<str>,
    /// How far its clock is off.
    pub(crate) offset: TimeDelta,
    /// Until when it is stopped.
    pub(crate) stopped_until: Option<Timestamp>,
    /// When another process is started, if this one is dead.
    pub(crate) starts_at: Option<Timestamp>,
    pub(crate) workplace: Workplace,
    /// Completions that were not reported yet.
    pub(crate) completions: Vec<Completion>,
    stop: Stop,
    /// What the process judges by.
    pub(crate) rules: Rules,
    pub(crate) failures: u32,
    process: Process,
    wake: Option<Timestamp>,
    /// Whether the clock was set during a step: the kernel then ends the next wait.
    clock_was_set: bool,
    commands: Vec<PendingRequest>,
    asked: Vec<Asked>,
    at_once: u32,
    shared: Arc<Mutex<Shared>>,
}

impl Node {
    pub(crate) fn new(shared: &Arc<Mutex<Shared>>, rules: Rules) -> Self {
        Self {
            name: "nobody".into(),
            offset: TimeDelta::zero(),
            stopped_until: None,
            starts_at: None,
            workplace: Workplace::default(),
            completions: Vec::new(),
            stop: Stop::No,
            rules,
            failures: 0,
            process: Process::Dead,
            wake: None,
            clock_was_set: false,
            commands: Vec::new(),
            asked: Vec::new(),
            at_once: 0,
            shared: Arc::clone(shared),
        }
    }

    pub(crate) fn is_alive(&self) -> bool {
        !matches!(self.process, Process::Dead)
    }

    /// A process begins: it looks at the store, and then at its file.
    pub(crate) fn start(&mut self, store: &MemoryStore, seed: u64, now: Timestamp) {
        self.die();
        let now = now + self.offset;
        self.name = format!("node-{seed}").into();
        self.workplace = Workplace::default();
        (self.starts_at, self.stop, self.failures) = (None, Stop::No, 0);
        let (node, shared) = (Arc::clone(&self.name), Arc::clone(&self.shared));
        let executor = FakeExecutor(Executions {
            node,
            workplace: Arc::clone(&self.workplace),
            shared: Arc::clone(&shared),
        });
        let node = Arc::clone(&self.name);
        let identity =
            NodeIdentity { node: Arc::clone(&node), started_at: now, seed, lease: LEASE };
        let store = Layered(Reach { inner: store.clone(), node, shared });
        let mut core = Box::new(Scheduler::new(store, executor, self.rules.clone(), identity));
        if self.rules.executors.is_empty() {
            self.shared.lock().unwrap().ledger.without_pools.insert(Arc::clone(&self.name));
        }
        self.begins(now, "recovers");
        self.process = Process::Busy(Box::pin(async move {
            let recovered = core.recover(now, "its daemon died").await;
            (core, Done::Recovered(recovered.map(drop)))
        }));
    }

    /// The process ends at once, whatever it was doing; what it executed is gone.
    pub(crate) fn die(&mut self) {
        self.process = Process::Dead;
        self.workplace.lock().unwrap().clear();
        self.completions.clear();
        self.commands.clear();
        self.asked.clear();
        self.stopped_until = None;
    }

    /// Something that it executes ends, with a completion that comes this many times; or goes on.
    pub(crate) fn execution_ends(
        &mut self,
        execution: Execution,
        outcome: Option<Outcome>,
        times: usize,
        now: Timestamp,
    ) {
        let Some(outcome) = outcome else {
            self.workplace.lock().unwrap().push(execution);
            return;
        };
        let now = now + self.offset;
        let told = (0..times).map(|_| execution.completion(now, outcome.clone()));
        self.completions.extend(told);
    }

    pub(crate) fn ask(&mut self, request: Request) {
        let (reply, answer) = oneshot::channel();
        let writes = self.shared.lock().unwrap().ledger.writes;
        self.commands.push(PendingRequest::new(request.clone(), reply));
        self.asked.push(Asked { writes, request, answer });
    }

    /// The clock is set; the alarm of a daemon notices it.
    pub(crate) fn set_clock(&mut self, by: TimeDelta) {
        self.offset += by;
        self.wake = Some(Timestamp::MIN_UTC);
        self.clock_was_set = true;
    }

    /// Another node has said that there is something to see.
    pub(crate) fn hint(&mut self) {
        if let Process::Idle(core) = &mut self.process {
            core.hint();
            self.wake = Some(Timestamp::MIN_UTC);
        }
    }

    pub(crate) fn drain(&mut self) {
        if let Process::Idle(core) = &mut self.process {
            core.drain();
            self.stop = Stop::Draining;
            self.shared.lock().unwrap().draining.insert(Arc::clone(&self.name));
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.stop != Stop::No
    }

    /// The deadline of a stop passes: what is executed is ended by force, and some of it says so.
    pub(crate) fn ends_drain(&mut self, now: Timestamp) {
        if self.stop != Stop::Draining || !matches!(self.process, Process::Idle(_)) {
            return;
        }
        self.stop = Stop::Over;
        let now = now + self.offset;
        let ended = std::mem::take(&mut *self.workplace.lock().unwrap());
        let told = ended.into_iter().filter(|_| self.shared.lock().unwrap().dice.once_in(2));
        let reason = "the daemon stops";
        let told =
            told.map(|run| run.completion(now, Outcome::Cancelled { reason: reason.to_owned() }));
        self.completions.extend(told);
        self.wake = Some(Timestamp::MIN_UTC);
    }

    /// When it wants to be called of itself, by the world's time.
    pub(crate) fn wakes_at(&self) -> Option<Timestamp> {
        let is_idle = self.stopped_until.is_none() && matches!(self.process, Process::Idle(_));
        self.wake
            .filter(|_| is_idle)
            .map(|wake| wake.checked_sub_signed(self.offset).unwrap_or(wake))
    }

    /// Whether it has something to do.
    pub(crate) fn is_ready(&self, now: Timestamp) -> bool {
        let has_arrived = !self.commands.is_empty() || !self.completions.is_empty();
        let is_due = self.wakes_at().is_some_and(|wake| wake <= now);
        match &self.process {
            _ if self.stopped_until.is_some() => false,
            Process::Dead => false,
            Process::Busy(_) => true,
            Process::Idle(_) => has_arrived || is_due,
        }
    }

    /// Goes on with what it does, or begins a step.
    pub(crate) fn go_on(&mut self, now: Timestamp) {
        match std::mem::replace(&mut self.process, Process::Dead) {
            Process::Dead => {}
            Process::Idle(core) => self.process = Process::Busy(self.step(core, now)),
            Process::Busy(mut doing) => {
                let mut context = Context::from_waker(Waker::noop());
                match doing.as_mut().poll(&mut context) {
                    Poll::Pending => self.process = Process::Busy(doing),
                    Poll::Ready((core, done)) => self.has_done(core, done, now),
                }
            }
        }
    }

    fn begins(&self, now: Timestamp, what: &str) {
        let mut shared = self.shared.lock().unwrap();
        shared.note(|| format!("{} {what} at {}", self.name, now.format("%H:%M:%S%.6f")));
        shared.ledger.begins(&self.name, now);
    }

    fn step(&mut self, mut core: Box<Core>, now: Timestamp) -> Doing {
        let now = now + self.offset;
        self.begins(now, "ticks");
        self.clock_was_set = false;
        if self.shared.lock().unwrap().dice.once_in(3) {
            core.save_outputs(Saving::Due);
        }
        let commands = std::mem::take(&mut self.commands);
        let completions = std::mem::take(&mut self.completions);
        if self.stop == Stop::Over {
            return self.last_writes(core, now, completions);
        }
        // A stop does not wait for a store that hangs.
        let may_drop = self.is_draining() && commands.is_empty();
        let patience = if may_drop { self.shared.lock().unwrap().dice.roll(8) } else { u64::MAX };
        Box::pin(async move {
            let next = impatient(core.tick(now, commands, completions), patience).await;
            let next = next.unwrap_or_else(|| {
                core.forget_step();
                Err(StoreError::Unavailable("it hangs".to_owned()))
            });
            (core, Done::Ticked(now, next))
        })
    }

    /// The end of a stop: what can be recorded is, in a few tries.
    fn last_writes(
        &self,
        mut core: Box<Core>,
        now: Timestamp,
        completions: Vec<Completion>,
    ) -> Doing {
        let patience: Vec<u64> = {
            let mut shared = self.shared.lock().unwrap();
            (0..LAST_TRIES).map(|_| shared.dice.pick(&[3, 10, u64::MAX])).collect()
        };
        Box::pin(async move {
            try_to_finish(&mut core, now, completions, &patience).await;
            (core, Done::Left)
        })
    }

    /// Nothing fails in a calm world, but for a call that the wild one has failed before.
    fn may_fail(&self, error: &StoreError) {
        let was_failed = matches!(error, StoreError::Unavailable(_));
        let is_wild = self.shared.lock().unwrap().is_wild;
        Property::Recovers.holds(is_wild || was_failed, || format!("{}: {error}", self.name));
    }

    fn has_done(&mut self, core: Box<Core>, done: Done, now: Timestamp) {
        let is_well = matches!(done, Done::Ticked(_, Ok(_)));
        match done {
            // A start that fails is a start again.
            Done::Recovered(Err(error)) => {
                self.may_fail(&error);
                self.die();
                self.starts_at = Some(now);
                return;
            }
            Done::Left => return self.die(),
            Done::Recovered(Ok(())) => self.wake = Some(now + self.offset),
            Done::Ticked(at, Ok(next)) => {
                let again = next.is_some_and(|next| next <= at);
                self.at_once = if again { self.at_once + 1 } else { 0 };
                let rests = self.at_once < STEPS_AT_ONCE;
                Property::Rests.holds(rests, || format!("{} at {at}: {next:?}", self.name));
                (self.wake, self.failures) = (next, 0);
            }
            Done::Ticked(at, Err(error)) => {
                self.wake = Some(at + BACK_OFF);
                self.failures += 1;
                self.may_fail(&error);
            }
        }
        if self.clock_was_set {
            self.wake = Some(Timestamp::MIN_UTC);
        }
        self.take_answers();
        for pool in &core.status().borrow().pools {
            let is_short = pool.waiting <= WAITING_MAX;
            Property::Queues.holds(is_short, || format!("{}: {pool:?}", self.name));
        }
        self.process = if self.stop == Stop::Draining && is_well && core.running() == 0 {
            self.stop = Stop::Over;
            Process::Busy(self.last_writes(core, now + self.offset, Vec::new()))
        } else {
            Process::Idle(core)
        };
    }

    /// Of what one step did to a job, the last word counts.
    fn take_answers(&mut self) {
        let mut last: Vec<(Option<JobId>, Asked, Response)> = Vec::new();
        let mut reloads = false;
        for mut asked in std::mem::take(&mut self.asked) {
            match asked.answer.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => self.asked.push(asked),
                Err(oneshot::error::TryRecvError::Closed) => {
                    // A stop that drops a step that hangs drops what was asked in it.
                    let is_dropped = self.is_draining();
                    Property::Answered.holds(is_dropped, || format!("{:?}", asked.request));
                }
                Ok(Err(RequestError::Rejected(_))) => {
                    let is_poison = format!("{:?}", asked.request).contains(POISON);
                    Property::Answered.holds(is_poison, || format!("{:?}", asked.request));
                }
                Ok(Err(_)) => {}
                Ok(Ok(answer)) => {
                    let id = job_of(&asked.request);
                    reloads |= matches!(
                        asked.request,
                        Request::Review(_) | Request::Declare(_) | Request::BreakDeclared(_)
                    );
                    last.retain(|(known, ..)| known.is_none() || *known != id);
                    last.push((id, asked, answer));
                }
            }
        }
        let shared = self.shared.lock().unwrap();
        // A reload changes many jobs; what else was asked in its step is not the last word.
        for (_, asked, answer) in last.into_iter().filter(|(id, ..)| id.is_none() || !reloads) {
            shared.ledger.answered(asked.writes, &asked.request, &answer);
        }
    }

    /// Where nothing is in flight, nothing is counted as if it were.
    pub(crate) fn check_leaks(&self) {
        let Process::Idle(core) = &self.process else { return };
        let status = core.status().borrow().clone();
        let is_free = |pool: &PoolStatus| pool.busy + pool.waiting + pool.retrying == 0;
        let is_free = status.pools.iter().all(is_free);
        Property::NothingLeaks.holds(is_free && status.running == 0, || format!("{status:?}"));
    }

    /// Whether everything that was asked is answered.
    pub(crate) fn owes_answers(&self) -> bool {
        !self.asked.is_empty()
    }
}

/// Makes the last writes, in as many tries as there are limits of patience.
async fn try_to_finish(
    core: &mut Core,
    now: Timestamp,
    mut completions: Vec<Completion>,
    patience: &[u64],
) {
    for patience in patience {
        let completions = std::mem::take(&mut completions);
        let finished = impatient(core.finish(now, completions), *patience).await;
        if matches!(finished, Some(Ok(_))) {
            return;
        }
        core.forget_step();
    }
}

/// Awaits something, but gives up and drops it when it was polled this often and has not ended.
async fn impatient<T>(work: impl Future<Output = T>, patience: u64) -> Option<T> {
    let (mut work, mut polls) = (std::pin::pin!(work), 0);
    std::future::poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if polls >= patience => Poll::Ready(None),
        Poll::Pending => {
            polls += 1;
            Poll::Pending
        }
    })
    .await
}

fn job_of(request: &Request) -> Option<JobId> {
    match request {
        Request::Add(Addition { job, .. }) => Some(job.id.clone()),
        Request::Remove(id) | Request::Pause(id, _) | Request::Resume(id) | Request::Run(id) => {
            Some(id.clone())
        }
        Request::IfVersion { job, .. } => Some(job.clone()),
        Request::Modify(modification) => Some(modification.base.id.clone()),
        Request::AddAll(_)
        | Request::Bulk { .. }
        | Request::Cancel { .. }
        | Request::PauseAll(_)
        | Request::ResumeAll
        | Request::Prune { .. }
        | Request::RemoveFinished(_)
        | Request::SetRules(_)
        | Request::Review(_)
        | Request::Declare(_)
        | Request::BreakDeclared(_)
        | Request::Begin => None,
    }
}
