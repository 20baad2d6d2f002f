//! A pool of worker processes for builtins. It queues the runs, hands each to an idle worker, and starts a supervisor
//! for each worker that it needs.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::pool_state::{CancellableRun, PoolShared, PoolState, QueuedRun, SlotMessage};
use super::program::WorkerProgram;
use super::supervisor::{SupervisorEnd, supervise};
use crate::executor::assignment::Assignment;
use crate::executor::run::ExecutorServices;
use crate::job::Builtin;
use crate::task::context::Context;

/// The worker processes of one pool.
#[derive(Debug)]
pub(crate) struct ProcessPool {
    shared: Arc<PoolShared>,
}

impl Drop for ProcessPool {
    /// Without the pool its workers end after their current runs.
    fn drop(&mut self) {
        self.shared.state().close();
    }
}

impl ProcessPool {
    /// Creates a pool and starts its first worker.
    pub(crate) fn new(
        program: WorkerProgram,
        max_workers: usize,
        services: Arc<ExecutorServices>,
    ) -> Self {
        let pool = Self { shared: Arc::new(PoolShared::new(program, services)) };
        pool.resize(max_workers);
        pool
    }

    /// Changes the number of workers. A surplus worker ends after its current run.
    pub(crate) fn resize(&self, max_workers: usize) {
        let mut state = self.shared.state();
        state.resize(max_workers);
        start_missing(&self.shared, &mut state);
    }

    /// Lets all workers end: the idle ones now, the others after their current runs.
    pub(crate) fn stop(&self) {
        self.shared.stopping.cancel();
        self.shared.state().close();
    }

    /// Gives a run to an idle worker, or makes it wait for one.
    pub(crate) fn execute(
        &self,
        builtin: Arc<Builtin>,
        assignment: Assignment,
        context: Arc<Context>,
    ) {
        let token = self.shared.services.tracker.token();
        let run = QueuedRun::new(builtin, assignment, context, token);
        let mut state = self.shared.state();
        if let Some(slot) = state.take_idle() {
            slot.send(SlotMessage::Run(Box::new(run)));
        } else {
            state.waiting.push_back(cancellable(&self.shared, run));
        }
        start_missing(&self.shared, &mut state);
    }
}

/// Starts a supervisor for each worker that the pool needs now.
fn start_missing(pool: &Arc<PoolShared>, state: &mut PoolState) {
    for number in state.add_missing() {
        let services = Arc::clone(&pool.services);
        let pool = Arc::clone(pool);
        let supervising = async move {
            match supervise(&pool, number).await {
                SupervisorEnd::Left => {}
                SupervisorEnd::Lost => replace_lost(&pool, None),
                SupervisorEnd::LostUnread(run) => replace_lost(&pool, Some(run)),
                SupervisorEnd::LostWith(_run, completion) => {
                    replace_lost(&pool, None);
                    pool.services.send_completion(completion).await;
                }
            }
        };
        services.tracker.spawn_on(supervising, &services.runtime);
    }
}

/// Replaces a worker that has ended unexpectedly. The run that it was given and has not read goes before all others.
fn replace_lost(pool: &Arc<PoolShared>, unread: Option<Box<QueuedRun>>) {
    let mut state = pool.state();
    state.workers -= 1;
    if let Some(run) = unread {
        state.waiting.push_front(cancellable(pool, *run));
    }
    start_missing(pool, &mut state);
}

/// Makes a run cancellable while it waits for a worker.
fn cancellable(pool: &Arc<PoolShared>, run: QueuedRun) -> CancellableRun {
    pool.retry_start.notify_one();
    let (waiting, taken) = oneshot::channel();
    let context = Arc::clone(&run.context);
    let execution = run.assignment.execution();
    let services = Arc::clone(&pool.services);
    let pool = Arc::clone(pool);
    let watching = async move {
        let ending = tokio::select! {
            ending = context.cancellation.cancelled() => ending,
            _ = taken => return,
        };
        let run = pool.state().remove_waiting(&execution);
        if let Some(QueuedRun { assignment, context, .. }) = run {
            pool.services.refuse(&assignment, &context, ending.into()).await;
        }
    };
    services.tracker.spawn_on(watching, &services.runtime);
    (run, waiting)
}
