//! The scheduler's place. On a file it has a thread of its own, which is also the one that writes to
//! the file: a timer, a step and its commit are then one walk of one thread, and nobody has to be
//! woken in between. On a server it is a task among others, since its connections are too.

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

/// How the scheduler ended; an error where its thread panicked.
pub(super) type Stopped = Result<std::io::Result<Drained>, oneshot::error::RecvError>;

/// A scheduler that works.
#[derive(Debug)]
pub(super) struct Serving {
    /// Its end.
    pub(super) ended: oneshot::Receiver<std::io::Result<Drained>>,
    /// How it stops.
    pub(super) drain: Drain,
}

/// Lets the scheduler work until its inlets say that it is to end.
pub(super) fn start(
    scheduler: Scheduler<SqlStore, PoolExecutor>,
    store: &SqlStore,
    inlets: LoopInputs,
    drain_limit: Duration,
    tracker: &TaskTracker,
) -> std::io::Result<Serving> {
    let (tell, ended) = oneshot::channel();
    let drain = Drain { limit: drain_limit, hurry: CancellationToken::new() };
    let working = serve(scheduler, SystemClock, inlets, drain.clone());
    let serving = Serving { ended, drain };
    if store.is_shared() {
        tracker.spawn(async move { drop(tell.send(working.await)) });
        return Ok(serving);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new()
        .name("punctual-core".to_owned())
        .spawn(move || drop(tell.send(runtime.block_on(working))))?;
    Ok(serving)
}
