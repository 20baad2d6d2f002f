//! Where the scheduler's loop runs. On a SQLite file it has a thread of its own, which also writes to the file: a timer, a
//! step and its commit then follow one another on one thread, without a switch in between. On a database server the loop
//! is a task of the runtime, since its connections are too.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::SystemClock;
use crate::executor::PoolExecutor;
use crate::scheduler::Scheduler;
use crate::scheduler::serve::{Drain, Drained, LoopInputs, serve};
use crate::store::Store;
use crate::store::sql::SqlStore;

/// How the scheduler's loop ended; an error if its thread panicked.
pub(super) type SchedulerEnd = Result<std::io::Result<Drained>, oneshot::error::RecvError>;

/// A running scheduler.
#[derive(Debug)]
pub(super) struct RunningScheduler {
    pub(super) ended: oneshot::Receiver<std::io::Result<Drained>>,
    pub(super) drain: Drain,
}

/// Starts the scheduler's loop. It runs until `inlets.shutdown` is cancelled.
pub(super) fn start(
    scheduler: Scheduler<SqlStore, PoolExecutor>,
    store: &SqlStore,
    inlets: LoopInputs,
    drain_limit: Duration,
    tracker: &TaskTracker,
) -> std::io::Result<RunningScheduler> {
    let (sender, ended) = oneshot::channel();
    let drain = Drain { limit: drain_limit, hurry: CancellationToken::new() };
    let serving = serve(scheduler, SystemClock, inlets, drain.clone());
    let running = RunningScheduler { ended, drain };
    if store.is_shared() {
        tracker.spawn(async move { drop(sender.send(serving.await)) });
        return Ok(running);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new()
        .name("punctual-core".to_owned())
        .spawn(move || drop(sender.send(runtime.block_on(serving))))?;
    Ok(running)
}
