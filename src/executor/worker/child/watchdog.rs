//! The watchdog thread of a worker: during a long call it sends keep-alives and receives a cancel. A short call ends before
//! the watchdog takes it up, since waking another thread would cost more than the call.

use std::io::{ErrorKind, Result};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::time::{Instant, interval_at};

use super::daemon_socket::{DaemonSocket, encoded};
use crate::executor::worker::protocol::message::{CallId, WorkerMessage};
use crate::task::context::{Context, Ending};

/// A call that takes longer than this is watched.
const SHORT_CALL: Duration = Duration::from_millis(20);

/// The call that the main thread runs.
#[derive(Debug, Clone)]
pub(super) struct RunningCall {
    pub(super) id: CallId<'static>,
    pub(super) context: Arc<Context>,
}

#[derive(Debug, Default)]
struct WatchState {
    running: Option<RunningCall>,
    /// Calls that have begun, which tells one from the next.
    calls: u64,
    /// The watchdog uses the socket for the running call.
    is_watched: bool,
    /// The watchdog waits for a call to begin, because none was running when it looked.
    is_asleep: bool,
}

impl WatchState {
    /// A call begins; true if the watchdog has to be woken.
    fn begin(&mut self, running: RunningCall) -> bool {
        self.running = Some(running);
        self.calls += 1;
        std::mem::take(&mut self.is_asleep)
    }

    /// The watchdog looks, a moment after the number of calls was `calls`. It takes up the running call if that is still
    /// the same one, and falls asleep if no call is running.
    fn take_up(&mut self, calls: u64) -> Option<RunningCall> {
        if self.calls != calls {
            return None;
        }
        let running = self.running.clone();
        (self.is_watched, self.is_asleep) = (running.is_some(), running.is_none());
        running
    }
}

/// What the main thread and the watchdog thread share.
#[derive(Debug)]
pub(super) struct CallWatchdog {
    socket: Arc<DaemonSocket>,
    keep_alive: Duration,
    state: Mutex<WatchState>,
    /// Wakes the watchdog at the begin of a call.
    begun: Notify,
    /// Wakes the watchdog at the end of a call that it watches.
    ended: Notify,
    /// Wakes the main thread when the watchdog no longer uses the socket.
    released: Condvar,
}

impl CallWatchdog {
    /// Starts the thread. It has a runtime of its own: a builtin may block the others.
    pub(super) fn start(socket: Arc<DaemonSocket>, keep_alive: Duration) -> Result<Arc<Self>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let watchdog = Arc::new(Self {
            socket,
            keep_alive,
            state: Mutex::default(),
            begun: Notify::new(),
            ended: Notify::new(),
            released: Condvar::new(),
        });
        let thread = std::thread::Builder::new().name("punctual-watch".to_owned());
        let watching = Arc::clone(&watchdog);
        thread.spawn(move || {
            if let Err(error) = runtime.block_on(watching.run()) {
                tracing::debug!(%error, "the daemon can no longer be reached");
            }
            exit_at_once();
        })?;
        Ok(watchdog)
    }

    fn state(&self) -> MutexGuard<'_, WatchState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The main thread begins a call.
    pub(super) fn begin(&self, running: RunningCall) {
        if self.state().begin(running) {
            self.begun.notify_one();
        }
    }

    /// The main thread has ended its call: waits until the watchdog no longer uses the socket.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.running = None;
        if state.is_watched {
            self.ended.notify_one();
            let waited = self.released.wait_while(state, |state| state.is_watched);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }

    async fn run(&self) -> Result<()> {
        loop {
            let running = self.long_call().await;
            self.watch(running).await?;
            self.state().is_watched = false;
            self.released.notify_one();
        }
    }

    /// Waits for the next call that takes long.
    async fn long_call(&self) -> RunningCall {
        loop {
            let calls = self.state().calls;
            tokio::time::sleep(SHORT_CALL).await;
            if let Some(running) = self.state().take_up(calls) {
                return running;
            }
            if self.state().is_asleep {
                self.begun.notified().await;
            }
        }
    }

    /// Watches a call until it has ended.
    async fn watch(&self, running: RunningCall) -> Result<()> {
        let mut keep_alive = interval_at(Instant::now() + self.keep_alive, self.keep_alive);
        let mut socket = self.socket.to_async()?;
        // The main thread may have read a cancel together with its call.
        self.handle_messages(&running)?;
        loop {
            tokio::select! {
                biased;
                () = self.ended.notified() => return self.socket.set_blocking(),
                read = self.read(&socket) => {
                    read?;
                    self.handle_messages(&running)?;
                }
                _ = keep_alive.tick() => socket.write_all(&encoded(&WorkerMessage::KeepAlive)?).await?,
            }
        }
    }

    async fn read(&self, socket: &UnixStream) -> Result<()> {
        socket.readable().await?;
        let mut inbox = self.socket.inbox();
        match socket.try_read(inbox.frames.space()) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => inbox.frames.fill(count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn handle_messages(&self, running: &RunningCall) -> Result<()> {
        if self.socket.inbox().has_cancel(&running.id)? {
            running.context.cancellation.cancel(Ending::Cancelled(String::new()));
        }
        Ok(())
    }
}

/// Ends the worker: its daemon is gone, and nothing would read its answer.
#[expect(
    clippy::disallowed_methods,
    clippy::exit,
    reason = "the builtin on the main thread cannot be asked to return"
)]
fn exit_at_once() {
    std::process::exit(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(run_id: &str) -> RunningCall {
        let id = CallId { run_id: run_id.to_owned().into(), attempt: 1 };
        RunningCall { id, context: Arc::default() }
    }

    #[test]
    fn only_a_call_that_still_runs_after_a_moment_is_watched() {
        let mut state = WatchState::default();
        // No call: the watchdog falls asleep, and the next call wakes it.
        assert!(state.take_up(0).is_none() && state.is_asleep);
        assert!(state.begin(call("a")) && !state.is_asleep);
        // A short call has ended, and another one has begun, before the watchdog looks again.
        let seen = state.calls;
        state.running = None;
        assert!(!state.begin(call("b")), "it is awake");
        assert!(state.take_up(seen).is_none() && !state.is_watched && !state.is_asleep);
        // A long call is still the same one.
        let seen = state.calls;
        assert_eq!(&*state.take_up(seen).unwrap().id.run_id, "b");
        assert!(state.is_watched && !state.is_asleep);
    }
}
