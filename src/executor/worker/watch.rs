//! What looks after a call that takes longer than a moment: gives signs of life, and hears when it is to end. A short
//! call has none of it, since every thread that it woke would cost more than the call.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::time::{Instant, interval_at};

use super::message::{Answer, Cancel, Request};
use super::serve::{Link, encoded};
use crate::run::Execution;
use crate::task::cancellation::Ending;
use crate::task::context::Context;

/// A call that takes longer than this is looked after.
const MOMENT: Duration = Duration::from_millis(20);

/// A call that runs.
#[derive(Debug, Clone)]
pub(super) struct Running {
    pub(super) execution: Execution,
    pub(super) context: Arc<Context>,
}

impl Running {
    /// Cancels the call, unless the request is for an earlier one and comes too late.
    fn cancel(&self, Cancel { run_id, attempt }: &Cancel<'_>) {
        let (running, running_attempt) = &self.execution;
        if *running.0 == **run_id && running_attempt == attempt {
            self.context.cancellation.cancel(Ending::Cancelled(String::new()));
        }
    }
}

#[derive(Debug, Default)]
struct State {
    running: Option<Running>,
    /// Calls so far, which tells one from the next.
    calls: u64,
    /// The call is looked after.
    is_watched: bool,
    /// There was no call for a moment, and the thread waits for one.
    is_asleep: bool,
}

/// Where the thread that runs builtins and the one that looks after them meet.
#[derive(Debug)]
pub(super) struct Watch {
    link: Arc<Link>,
    beat: Duration,
    state: Mutex<State>,
    /// Wake the thread that looks after calls.
    begun: Notify,
    ended: Notify,
    /// Wakes the thread that runs them.
    released: Condvar,
}

impl Watch {
    /// Starts the thread, with a runtime of its own: the others may be blocked by a builtin.
    pub(super) fn start(link: Arc<Link>, beat: Duration) -> std::io::Result<Arc<Self>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (state, released) = (Mutex::default(), Condvar::new());
        let (begun, ended) = (Notify::new(), Notify::new());
        let watch = Arc::new(Self { link, beat, state, begun, ended, released });
        let thread = std::thread::Builder::new().name("punctual-watch".to_owned());
        let watching = Arc::clone(&watch);
        thread.spawn(move || {
            if let Err(error) = runtime.block_on(watching.watch()) {
                tracing::debug!(%error, "the daemon cannot be reached any more");
            }
            leave();
        })?;
        Ok(watch)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call begins.
    pub(super) fn begin(&self, running: Running) {
        let mut state = self.lock();
        state.running = Some(running);
        state.calls += 1;
        if std::mem::take(&mut state.is_asleep) {
            self.begun.notify_one();
        }
    }

    /// The call has ended: waits until nobody else uses the socket.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.running = None;
        if state.is_watched {
            self.ended.notify_one();
            let waited = self.released.wait_while(state, |state| state.is_watched);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }

    async fn watch(&self) -> std::io::Result<()> {
        loop {
            let running = self.long_call().await;
            self.look_after(running).await?;
            self.lock().is_watched = false;
            self.released.notify_one();
        }
    }

    /// The next call that takes longer than a moment.
    async fn long_call(&self) -> Running {
        loop {
            let calls = self.lock().calls;
            tokio::time::sleep(MOMENT).await;
            if let Some(running) = self.take_up(calls) {
                return running;
            }
            if self.lock().is_asleep {
                self.begun.notified().await;
            }
        }
    }

    /// Takes up the call that runs, if it is still that one. Without a call the thread is to wait for one.
    fn take_up(&self, calls: u64) -> Option<Running> {
        let mut state = self.lock();
        if state.calls != calls {
            return None;
        }
        let running = state.running.clone();
        (state.is_watched, state.is_asleep) = (running.is_some(), running.is_none());
        running
    }

    /// Looks after a call until it has ended.
    async fn look_after(&self, running: Running) -> std::io::Result<()> {
        let mut beat = interval_at(Instant::now() + self.beat, self.beat);
        let mut socket = self.link.lend()?;
        // A cancel may have come together with its call, and have been read with it.
        self.handle_read(&running)?;
        loop {
            tokio::select! {
                biased;
                () = self.ended.notified() => return self.link.take_back(),
                heard = self.hear(&socket, &running) => heard?,
                _ = beat.tick() => socket.write_all(&encoded(&Answer::Beat)?).await?,
            }
        }
    }

    /// Waits for something from the daemon, and handles it.
    async fn hear(&self, socket: &UnixStream, running: &Running) -> std::io::Result<()> {
        socket.readable().await?;
        let mut frames = self.link.frames();
        match socket.try_read(frames.space()) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => frames.fill(count),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        drop(frames);
        self.handle_read(running)
    }

    /// Handles what has been read from the daemon.
    fn handle_read(&self, running: &Running) -> std::io::Result<()> {
        let mut frames = self.link.frames();
        while let Some(request) = frames.next().map_err(std::io::Error::other)? {
            let Request::Cancel(cancel) = request else {
                return Err(std::io::Error::other("there can be one call at a time only"));
            };
            running.cancel(&cancel);
        }
        Ok(())
    }
}

/// Ends the worker at once: its daemon is gone, and nobody would read its answer.
#[expect(
    clippy::disallowed_methods,
    clippy::exit,
    reason = "the builtin on the main thread cannot be asked to return"
)]
fn leave() {
    std::process::exit(0);
}
