//! A pool of processes: a command is a process of its own, a builtin runs in a worker process
//! that is kept for the next one.
//!
//! Each worker process has a task that looks after it ([`keep`]). They meet at the pool's desk: there are the runs that
//! wait for a worker, the workers that wait for a run, and the count of all.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::Assignment;
use super::command::{self, CommandRunner};
use super::report::{Shared, failed};
use super::worker::{Order, Spawner, StartError, WorkerProgram, keep};
use crate::job::Task;
use crate::run::Outcome;
use crate::task::context::Context;

/// Workers that wait for a run at any time, once the pool has had a builtin: this many may die at once, and the next
/// runs do not wait for others to start. Before that there is one.
const SPARE: usize = 2;

/// Workers that may fail to start, one after the other, before that costs the run that has waited longest.
const STARTS: u32 = 3;

/// A builtin's run that was handed over.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) assignment: Assignment,
    pub(super) context: Arc<Context>,
    /// Whether it was sent to a worker that ended without having read it.
    pub(super) was_sent: bool,
    /// Workers that did not start while it was the next to get one.
    failed_starts: u32,
    /// Says until when there is something to wait for at a stop.
    _token: TaskTrackerToken,
}

/// A run that waits for a worker. It is watched until this is dropped.
type Waiting = (Work, oneshot::Sender<()>);

/// A worker process as the desk knows it.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) number: u64,
    pub(super) orders: mpsc::Sender<Order>,
}

impl Seat {
    /// Tells a worker that is idle what to do.
    fn give(self, order: Order) {
        // There is room for one order, and its task takes what was given before it ends, unless the runtime has ended.
        if self.orders.try_send(order).is_err() {
            tracing::debug!("a worker process was given an order after the end of the runtime");
        }
    }
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// The one that was busy last is called first, so that the others may end.
    idle: Vec<Seat>,
    /// Workers that are not ready yet.
    starting: usize,
    /// All of them.
    workers: usize,
    max_workers: usize,
    /// Workers that there have been.
    hired: u64,
    has_had_work: bool,
    /// The last start has failed.
    is_failing: bool,
}

impl State {
    /// How many workers have to be started now.
    fn wanted(&self) -> usize {
        let spare = if self.has_had_work { SPARE } else { 1 };
        let wanted = (self.waiting.len() + spare).saturating_sub(self.idle.len() + self.starting);
        wanted.min(self.max_workers.saturating_sub(self.workers))
    }
}

/// Where runs and workers meet.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) shared: Arc<Shared>,
    pub(super) program: Arc<WorkerProgram>,
    pub(super) spawner: Spawner,
    /// The pool takes no more runs.
    closing: CancellationToken,
    /// What runs is to end.
    pub(super) stopping: CancellationToken,
    /// Wakes a start that waits before it is tried again.
    pub(super) hurry: Notify,
    state: Mutex<State>,
}

/// What a worker that is free does next.
#[derive(Debug)]
pub(super) enum Next {
    Work(Box<Work>),
    Wait,
    Leave,
}

/// What becomes of a start that has failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// This run has waited for too many of them. Others may wait.
    Refuse(Box<Work>),
    /// A run waits.
    TryAgain,
    /// It is worth trying again after a pause: no run waits, or the system has no place for a process.
    Wait,
    /// The worker is not wanted any more, and not counted.
    GiveUp,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the workers that are missing.
    fn hire(self: &Arc<Self>, state: &mut State) {
        if self.closing.is_cancelled() && state.waiting.is_empty() {
            return;
        }
        for _ in 0..state.wanted() {
            state.workers += 1;
            state.starting += 1;
            state.hired += 1;
            let keeping = keep(Arc::clone(self), state.hired);
            self.shared.tracker.spawn_on(keeping, &self.shared.runtime);
        }
    }

    /// Gives a run to a worker that is idle, or has it wait for one.
    fn hand_over(self: &Arc<Self>, work: Work) {
        let mut state = self.lock();
        state.has_had_work = true;
        if let Some(seat) = state.idle.pop() {
            seat.give(Order::Work(Box::new(work)));
        } else {
            let waiting = self.watched(work);
            state.waiting.push_back(waiting);
        }
        self.hire(&mut state);
    }

    /// A run that waits for a worker can be cancelled as any other.
    fn watched(self: &Arc<Self>, work: Work) -> Waiting {
        self.hurry.notify_one();
        let (waiting, taken) = oneshot::channel();
        let (desk, context) = (Arc::clone(self), Arc::clone(&work.context));
        let execution = work.assignment.execution();
        let watching = async move {
            let ending = tokio::select! {
                ending = context.cancellation.cancelled() => ending,
                _ = taken => return,
            };
            let work = {
                let mut state = desk.lock();
                let is_it = |(work, _): &Waiting| work.assignment.execution() == execution;
                let at = state.waiting.iter().position(is_it);
                at.and_then(|at| state.waiting.remove(at))
            };
            if let Some((work, _)) = work {
                desk.refuse(work, ending.into()).await;
            }
        };
        self.shared.tracker.spawn_on(watching, &self.shared.runtime);
        (work, waiting)
    }

    /// Reports the end of a run that has not begun.
    pub(super) async fn refuse(&self, work: Work, outcome: Outcome) {
        let now = self.shared.clock.now();
        self.shared.report(&work.assignment, &work.context, now, outcome.into()).await;
    }

    /// What a worker does that is ready, for the first time or again.
    pub(super) fn next(self: &Arc<Self>, seat: &Seat) -> Next {
        let mut state = self.lock();
        if state.workers > state.max_workers {
            state.workers -= 1;
            return Next::Leave;
        }
        if let Some((work, _)) = state.waiting.pop_front() {
            return Next::Work(Box::new(work));
        }
        if self.closing.is_cancelled() {
            state.workers -= 1;
            return Next::Leave;
        }
        state.idle.push(Seat { number: seat.number, orders: seat.orders.clone() });
        Next::Wait
    }

    /// A worker is ready that was started.
    pub(super) fn started(&self) {
        let mut state = self.lock();
        state.starting -= 1;
        if std::mem::take(&mut state.is_failing) {
            tracing::info!("worker processes can be started again");
        }
    }

    /// A worker could not be started: what is to be done about it.
    pub(super) fn start_failed(&self, error: &StartError) -> Failure {
        let StartError { why, is_shortage } = error;
        let mut state = self.lock();
        let is_over = self.closing.is_cancelled() && state.waiting.is_empty();
        if is_over || self.stopping.is_cancelled() || state.workers > state.max_workers {
            state.starting -= 1;
            state.workers -= 1;
            return Failure::GiveUp;
        }
        if std::mem::replace(&mut state.is_failing, true) {
            tracing::debug!(error = %why, "a worker process could not be started");
        } else {
            tracing::error!(error = %why, "a worker process could not be started; it is tried again");
        }
        if *is_shortage {
            return Failure::Wait;
        }
        let Some((next, _)) = state.waiting.front_mut() else { return Failure::Wait };
        next.failed_starts += 1;
        if next.failed_starts < STARTS {
            return Failure::TryAgain;
        }
        let unlucky = state.waiting.pop_front();
        unlucky.map_or(Failure::Wait, |(work, _)| Failure::Refuse(Box::new(work)))
    }

    /// A worker that was idle is idle no more; false if it has been given an order.
    pub(super) fn withdraw(&self, number: u64) -> bool {
        let mut state = self.lock();
        let before = state.idle.len();
        state.idle.retain(|seat| seat.number != number);
        state.idle.len() < before
    }

    /// A worker that has been idle for long leaves, unless it is to be kept.
    pub(super) fn leave_if_spare(&self, number: u64) -> bool {
        let mut state = self.lock();
        let is_idle = state.idle.iter().any(|seat| seat.number == number);
        if !is_idle || state.idle.len() <= SPARE {
            return false;
        }
        state.idle.retain(|seat| seat.number != number);
        state.workers -= 1;
        true
    }

    /// A worker is gone. What it was given and has not read waits for another one, before all others.
    pub(super) fn gone(self: &Arc<Self>, unread: Option<Work>) {
        let mut state = self.lock();
        state.workers -= 1;
        if let Some(work) = unread {
            let waiting = self.watched(work);
            state.waiting.push_front(waiting);
        }
        self.hire(&mut state);
    }

    /// Dismisses workers that are idle and too many.
    fn dismiss(&self, state: &mut State) {
        let too_many = if self.closing.is_cancelled() {
            state.idle.len()
        } else {
            state.workers.saturating_sub(state.max_workers).min(state.idle.len())
        };
        for seat in state.idle.drain(..too_many) {
            state.workers -= 1;
            seat.give(Order::Leave);
        }
    }
}

/// The processes of one pool.
#[derive(Debug)]
pub(super) struct ProcessPool {
    desk: Arc<Desk>,
}

impl Drop for ProcessPool {
    /// Without the pool its workers end when they have done their work.
    fn drop(&mut self) {
        self.desk.closing.cancel();
        let mut state = self.desk.lock();
        self.desk.dismiss(&mut state);
    }
}

impl ProcessPool {
    /// A pool with one worker, which is being started.
    pub(super) fn new(program: WorkerProgram, max_workers: usize, shared: Arc<Shared>) -> Self {
        let program = Arc::new(program);
        let desk = Desk {
            spawner: Spawner::new(Arc::clone(&program), shared.runtime.clone()),
            shared,
            program,
            closing: CancellationToken::new(),
            stopping: CancellationToken::new(),
            hurry: Notify::new(),
            state: Mutex::default(),
        };
        let pool = Self { desk: Arc::new(desk) };
        pool.resize(max_workers);
        pool
    }

    /// From now on there are at most this many workers. One too many ends when it has done its work.
    pub(super) fn resize(&self, max_workers: usize) {
        let mut state = self.desk.lock();
        state.max_workers = max_workers;
        self.desk.dismiss(&mut state);
        self.desk.hire(&mut state);
    }

    /// Lets all workers end that have nothing to do; the others do when they have done it.
    pub(super) fn stop(&self) {
        self.desk.closing.cancel();
        self.desk.stopping.cancel();
        let mut state = self.desk.lock();
        self.desk.dismiss(&mut state);
    }

    /// Begins to execute a run, without waiting for it.
    pub(super) fn execute(
        &self,
        commands: &Arc<CommandRunner>,
        assignment: Assignment,
        context: Arc<Context>,
    ) {
        let shared = &self.desk.shared;
        if matches!(&*assignment.task, Task::Builtin { .. }) {
            let work = Work {
                assignment,
                context,
                was_sent: false,
                failed_starts: 0,
                _token: shared.tracker.token(),
            };
            self.desk.hand_over(work);
            return;
        }
        let executing =
            execute_command(Arc::clone(shared), Arc::clone(commands), assignment, context);
        shared.tracker.spawn_on(executing, &shared.runtime);
    }
}

/// Executes a run in a process of its own and reports how it ended.
async fn execute_command(
    shared: Arc<Shared>,
    commands: Arc<CommandRunner>,
    assignment: Assignment,
    context: Arc<Context>,
) {
    let attempt = || async {
        match (&*assignment.task, context.cancellation.ending()) {
            (_, Some(ending)) => Ok(Outcome::from(ending).into()),
            (Task::Command(command), None) => {
                command::execute(&commands, command, &assignment, &context, &shared).await
            }
            (Task::Builtin { .. }, None) => Ok(failed("a builtin needs a worker process").into()),
            (Task::Http(_), None) => Ok(failed("a call over HTTP needs no process").into()),
            (Task::Mail(_), None) => Ok(failed("a mail needs no process").into()),
            (Task::Unreadable(_), None) => Ok(failed("the task cannot be read").into()),
        }
    };
    let (started_at, ended) = shared.when_possible(&assignment, &context, attempt).await;
    shared.report(&assignment, &context, started_at, ended).await;
}
