//! The scheduler's place. On a file it has a thread of its own, which is also the one that writes to
//! the file: a timer, a step and its commit are then one walk of one thread, and nobody has to be
//! woken in between. On a server it is a task among others, since its connections are too.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use crate::clock::SystemClock;
use crate::executor::Pools;
use crate::scheduler::Scheduler;
use crate::scheduler::serve::{Drained, Inlets, ServeError, serve};
use crate::store::Store;
use crate::store::sql::SqlStore;

/// How the scheduler ended, once it has.
pub(super) type Ended = oneshot::Receiver<Result<Drained, ServeError>>;

/// Lets the scheduler work until its inlets say that it is to end.
pub(super) fn start(
    scheduler: Scheduler<SqlStore, Pools>,
    store: &SqlStore,
    inlets: Inlets,
    drain_limit: Duration,
    tracker: &TaskTracker,
) -> std::io::Result<Ended> {
    let (tell, ended) = oneshot::channel();
    let working = serve(scheduler, SystemClock, inlets, drain_limit);
    if store.is_shared() {
        tracker.spawn(async move { drop(tell.send(working.await)) });
        return Ok(ended);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new()
        .name("punctual-core".to_owned())
        .spawn(move || drop(tell.send(runtime.block_on(working))))?;
    Ok(ended)
}
