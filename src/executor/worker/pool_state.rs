//! Which runs of a pool wait for a worker process, and which workers wait for a run. Decisions only: nothing here starts
//! a task or waits, so that each decision is made under one lock.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::program::WorkerProgram;
use super::spawn::WorkerSpawner;
use crate::executor::assignment::Assignment;
use crate::executor::run::ExecutorServices;
use crate::job::Builtin;
use crate::run::Execution;
use crate::task::context::Context;

/// Idle workers that a pool keeps once it has had a run: this many may die at once without making the next runs wait for
/// a start. Before its first run a pool keeps one.
const SPARE: usize = 2;
/// Workers that may fail to start, one after the other, before the run that has waited longest fails.
const STARTS: u32 = 3;

/// A builtin's run that was handed to the pool.
#[derive(Debug)]
pub(super) struct QueuedRun {
    pub(super) builtin: Arc<Builtin>,
    pub(super) assignment: Assignment,
    pub(super) context: Arc<Context>,
    /// Whether it was sent to a worker that ended without having read it.
    pub(super) was_sent: bool,
    /// Workers that failed to start while it was the next run to get one.
    failed_starts: u32,
    /// Makes a stop wait until the run has ended.
    _token: TaskTrackerToken,
}

impl QueuedRun {
    pub(super) fn new(
        builtin: Arc<Builtin>,
        assignment: Assignment,
        context: Arc<Context>,
        token: TaskTrackerToken,
    ) -> Self {
        Self { builtin, assignment, context, was_sent: false, failed_starts: 0, _token: token }
    }
}

/// A run that waits for a worker. Dropping the sender ends the task that watches for its cancel.
pub(super) type CancellableRun = (QueuedRun, oneshot::Sender<()>);

/// What an idle worker is told to do.
#[derive(Debug)]
pub(super) enum SlotMessage {
    Run(Box<QueuedRun>),
    Leave,
}

/// A worker process as the pool knows it.
#[derive(Debug, Clone)]
pub(super) struct WorkerSlot {
    pub(super) number: u64,
    pub(super) messages: mpsc::Sender<SlotMessage>,
}

impl WorkerSlot {
    /// Tells an idle worker what to do.
    pub(super) fn send(&self, message: SlotMessage) {
        // The channel has room for one message, and an idle worker gets only one. Its supervisor receives it before it
        // ends, unless the runtime has ended.
        if self.messages.try_send(message).is_err() {
            tracing::debug!("a worker process was given a run after the end of the runtime");
        }
    }
}

/// What a worker does that has just started or has finished a run.
#[derive(Debug)]
pub(super) enum WorkerAction {
    Run(Box<QueuedRun>),
    /// Wait for a [`SlotMessage`].
    Wait,
    /// End. The worker is no longer counted.
    Leave,
}

/// What to do after a worker could not be started.
#[derive(Debug)]
pub(super) enum StartRetry {
    /// Fail this run, which has waited for too many starts, and try again for the others.
    Fail(Box<QueuedRun>),
    /// Try again at once: a run waits.
    Now,
    /// Try again after a pause: no run waits, or the system is short of resources.
    Later,
    /// Do not try again. The worker is no longer counted.
    GiveUp,
}

/// The runs and the workers of a pool.
#[derive(Debug, Default)]
pub(super) struct PoolState {
    pub(super) waiting: VecDeque<CancellableRun>,
    /// The worker that was busy last is used first, so that surplus ones become idle for long and end.
    idle: Vec<WorkerSlot>,
    /// Workers that are being started.
    starting: usize,
    /// All workers, including those that are being started.
    pub(super) workers: usize,
    max_workers: usize,
    /// The number that the next worker gets.
    started: u64,
    has_had_runs: bool,
    /// The last start has failed.
    is_failing: bool,
    /// The pool takes no more runs, and its workers leave when no run waits.
    is_closing: bool,
}

impl PoolState {
    /// Takes the idle worker that is to get the next run.
    pub(super) fn take_idle(&mut self) -> Option<WorkerSlot> {
        self.has_had_runs = true;
        self.idle.pop()
    }

    /// Takes back a run that still waits.
    pub(super) fn remove_waiting(&mut self, execution: &Execution) -> Option<QueuedRun> {
        let is_it = |(run, _): &CancellableRun| run.assignment.execution() == *execution;
        let position = self.waiting.iter().position(is_it)?;
        self.waiting.remove(position).map(|(run, _)| run)
    }

    /// Counts the workers that have to be started now, and returns their numbers.
    pub(super) fn add_missing(&mut self) -> Range<u64> {
        let spare = if self.has_had_runs { SPARE } else { 1 };
        let wanted = (self.waiting.len() + spare).saturating_sub(self.idle.len() + self.starting);
        let mut missing = wanted.min(self.max_workers.saturating_sub(self.workers));
        if self.is_closing && self.waiting.is_empty() {
            missing = 0;
        }
        self.workers += missing;
        self.starting += missing;
        let first = self.started;
        self.started += u64::try_from(missing).unwrap_or(u64::MAX);
        first..self.started
    }

    /// What a worker does that has just started or has finished a run.
    pub(super) fn next_action(&mut self, slot: &WorkerSlot) -> WorkerAction {
        if self.workers > self.max_workers {
            self.workers -= 1;
            return WorkerAction::Leave;
        }
        if let Some((run, _)) = self.waiting.pop_front() {
            return WorkerAction::Run(Box::new(run));
        }
        if self.is_closing {
            self.workers -= 1;
            return WorkerAction::Leave;
        }
        self.idle.push(slot.clone());
        WorkerAction::Wait
    }

    /// A worker has been started and is ready.
    pub(super) fn start_succeeded(&mut self) {
        self.starting -= 1;
        if std::mem::take(&mut self.is_failing) {
            tracing::info!("worker processes can be started again");
        }
    }

    /// A worker could not be started.
    pub(super) fn start_failed(&mut self, why: &str, is_shortage: bool) -> StartRetry {
        let is_needed = !self.is_closing || !self.waiting.is_empty();
        if !is_needed || self.workers > self.max_workers {
            return self.give_up_start();
        }
        if std::mem::replace(&mut self.is_failing, true) {
            tracing::debug!(error = why, "a worker process could not be started");
        } else {
            tracing::error!(error = why, "a worker process could not be started; trying again");
        }
        if is_shortage {
            return StartRetry::Later;
        }
        let Some((next, _)) = self.waiting.front_mut() else { return StartRetry::Later };
        next.failed_starts += 1;
        if next.failed_starts < STARTS {
            return StartRetry::Now;
        }
        let failed = self.waiting.pop_front();
        failed.map_or(StartRetry::Later, |(run, _)| StartRetry::Fail(Box::new(run)))
    }

    pub(super) fn give_up_start(&mut self) -> StartRetry {
        self.starting -= 1;
        self.workers -= 1;
        StartRetry::GiveUp
    }

    /// Takes a worker out of the idle ones; false if it has already been sent a message.
    pub(super) fn withdraw(&mut self, number: u64) -> bool {
        let before = self.idle.len();
        self.idle.retain(|slot| slot.number != number);
        self.idle.len() < before
    }

    /// Whether a worker that has been idle for long has to leave. Then it is no longer counted.
    pub(super) fn leave_if_surplus(&mut self, number: u64) -> bool {
        let leaves = self.idle.len() > SPARE && self.withdraw(number);
        self.workers -= usize::from(leaves);
        leaves
    }

    pub(super) fn resize(&mut self, max_workers: usize) {
        self.max_workers = max_workers;
        self.dismiss_surplus();
    }

    pub(super) fn close(&mut self) {
        self.is_closing = true;
        self.dismiss_surplus();
    }

    /// Lets idle workers end that are too many.
    fn dismiss_surplus(&mut self) {
        let surplus = if self.is_closing {
            self.idle.len()
        } else {
            self.workers.saturating_sub(self.max_workers).min(self.idle.len())
        };
        for slot in self.idle.drain(..surplus) {
            self.workers -= 1;
            slot.send(SlotMessage::Leave);
        }
    }
}

/// What a pool and the supervisors of its workers share.
#[derive(Debug)]
pub(super) struct PoolShared {
    pub(super) services: Arc<ExecutorServices>,
    pub(super) program: Arc<WorkerProgram>,
    pub(super) spawner: WorkerSpawner,
    /// Cancelled when the daemon stops: workers that are being started are given up.
    pub(super) stopping: CancellationToken,
    /// Ends the pause before a start is tried again, because a run waits.
    pub(super) retry_start: Notify,
    state: Mutex<PoolState>,
}

impl PoolShared {
    pub(super) fn new(program: WorkerProgram, services: Arc<ExecutorServices>) -> Self {
        let program = Arc::new(program);
        Self {
            spawner: WorkerSpawner::new(Arc::clone(&program), services.runtime.clone()),
            services,
            program,
            stopping: CancellationToken::new(),
            retry_start: Notify::new(),
            state: Mutex::default(),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::job::{JobId, Task};
    use crate::run::RunId;

    fn run(id: &str) -> CancellableRun {
        let task = serde_json::json!({"type": "builtin", "name": "noop"});
        let Task::Builtin(builtin) = Task::parse(&task).unwrap() else { panic!("{task}") };
        let assignment = Assignment {
            run_id: RunId(id.into()),
            job_id: JobId::parse("job").unwrap(),
            attempt: 1,
            scheduled_at: None,
            task: Arc::new(Task::Builtin(Arc::clone(&builtin))),
            timeout: None,
            event: None,
            forbidden: None,
        };
        let token = TaskTracker::new().token();
        (QueuedRun::new(builtin, assignment, Arc::default(), token), oneshot::channel().0)
    }

    fn slot(number: u64) -> (WorkerSlot, mpsc::Receiver<SlotMessage>) {
        let (messages, receiver) = mpsc::channel(1);
        (WorkerSlot { number, messages }, receiver)
    }

    fn started(state: &mut PoolState) -> u64 {
        let numbers = state.add_missing();
        numbers.end - numbers.start
    }

    #[test]
    fn a_pool_starts_one_worker_at_first_and_keeps_spare_ones_after_its_first_run() {
        let mut state = PoolState { max_workers: 4, ..PoolState::default() };
        assert_eq!((started(&mut state), started(&mut state)), (1, 0));
        state.start_succeeded();
        let (first, mut messages) = slot(0);
        assert!(matches!(state.next_action(&first), WorkerAction::Wait));
        assert_eq!(state.take_idle().map(|slot| slot.number), Some(0));
        assert_eq!(started(&mut state), 2, "spare ones");
        assert!(state.take_idle().is_none());
        state.waiting.push_back(run("a"));
        state.waiting.push_back(run("b"));
        assert_eq!(started(&mut state), 1, "the limit");
        assert!(
            matches!(state.next_action(&first), WorkerAction::Run(run) if &*run.assignment.run_id.0 == "a")
        );
        state.resize(1);
        assert!(matches!(state.next_action(&first), WorkerAction::Leave), "there are too many");
        assert!(messages.try_recv().is_err());
    }

    #[test]
    fn a_surplus_worker_leaves_and_a_spare_one_stays() {
        let mut state = PoolState { max_workers: 9, workers: 3, ..PoolState::default() };
        let slots: Vec<_> = (0..3).map(slot).collect();
        for (slot, _) in &slots {
            assert!(matches!(state.next_action(slot), WorkerAction::Wait));
        }
        assert!(state.leave_if_surplus(1) && !state.leave_if_surplus(0));
        assert!(state.withdraw(0) && !state.withdraw(0), "it is no longer idle");
        state.close();
        let [.., (_, mut messages)] = <[_; 3]>::try_from(slots).unwrap();
        assert!(matches!(messages.try_recv(), Ok(SlotMessage::Leave)));
        assert_eq!((state.workers, started(&mut state)), (1, 0));
    }

    #[test]
    fn only_the_run_that_waits_longest_fails_after_three_failed_starts() {
        let mut state = PoolState { max_workers: 1, ..PoolState::default() };
        assert_eq!(started(&mut state), 1);
        assert!(matches!(state.start_failed("why", false), StartRetry::Later), "no run waits");
        state.waiting.push_back(run("a"));
        state.waiting.push_back(run("b"));
        assert!(matches!(state.start_failed("why", true), StartRetry::Later), "a shortage");
        assert!(matches!(state.start_failed("why", false), StartRetry::Now));
        assert!(matches!(state.start_failed("why", false), StartRetry::Now));
        let StartRetry::Fail(failed) = state.start_failed("why", false) else {
            panic!("no failure")
        };
        assert_eq!(&*failed.assignment.run_id.0, "a");
        assert!(matches!(state.start_failed("why", false), StartRetry::Now));
        let (left, _) = run("b");
        assert!(state.remove_waiting(&left.assignment.execution()).is_some());
        state.close();
        assert!(matches!(state.start_failed("why", false), StartRetry::GiveUp));
        assert_eq!(state.workers, 0);
    }
}
