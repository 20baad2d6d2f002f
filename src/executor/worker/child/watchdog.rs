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
        let watchdog = Arc::new(Self::new(socket, keep_alive));
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

    fn new(socket: Arc<DaemonSocket>, keep_alive: Duration) -> Self {
        let (state, released) = (Mutex::default(), Condvar::new());
        Self { socket, keep_alive, state, begun: Notify::new(), ended: Notify::new(), released }
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
    use std::io::{Read, Write};

    use serde_json::json;

    use super::*;
    use crate::executor::worker::child::inbox::Inbox;
    use crate::executor::worker::protocol::frame::encode;

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

    /// The bytes of a message of the daemon about attempt 1 of a run.
    fn message(kind: &str, run_id: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let message = json!({kind: {
            "run_id": run_id, "job_id": "job", "attempt": 1, "scheduled_at": null, "name": "noop",
            "args": {}, "event": null,
        }});
        encode(&message, &mut bytes).unwrap();
        bytes
    }

    #[tokio::test]
    async fn a_watched_call_gets_its_cancel_whenever_that_was_read() {
        // Bytes that the main thread reads with the call, and bytes that come later.
        let cases = [
            (message("cancel", "a"), vec![], true),
            (vec![], message("cancel", "a"), true),
            (vec![], [message("cancel", "b"), message("cancel", "a")].concat(), true),
            (message("cancel", "b"), vec![], false),
            (vec![], message("cancel", "b"), false),
        ];
        for (early, late, is_cancelled) in cases {
            assert_eq!(is_cancelled_after(&early, &late, is_cancelled).await, is_cancelled);
        }
    }

    /// Whether the watched call `a` is cancelled by what the daemon sends with it and later.
    async fn is_cancelled_after(early: &[u8], late: &[u8], waits_for_cancel: bool) -> bool {
        let (mut daemon, worker) = std::os::unix::net::UnixStream::pair().unwrap();
        let socket = Arc::new(DaemonSocket::new(worker));
        daemon.write_all(&[&message("call", "a"), early].concat()).unwrap();
        socket.receive(Inbox::next_call).unwrap().unwrap();
        let watchdog = CallWatchdog::new(Arc::clone(&socket), Duration::from_millis(20));
        let running = call("a");
        let ending = async {
            daemon.write_all(late).unwrap();
            if waits_for_cancel {
                running.context.cancellation.cancelled().await;
            }
            // A keep-alive says that the watchdog has read what was sent.
            daemon.set_nonblocking(true).unwrap();
            while daemon.read(&mut [0; 64]).is_err() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            watchdog.ended.notify_one();
        };
        let (watched, ()) = tokio::join!(watchdog.watch(running.clone()), ending);
        watched.unwrap();
        running.context.cancellation.is_cancelled()
    }

    #[tokio::test]
    async fn a_watched_call_notices_that_its_daemon_is_gone_or_sends_garbage() {
        for bytes in [vec![], message("call", "b"), b"\0\0\0\x07garbage".to_vec()] {
            let (mut daemon, worker) = std::os::unix::net::UnixStream::pair().unwrap();
            let socket = Arc::new(DaemonSocket::new(worker));
            daemon.write_all(&bytes).unwrap();
            drop(daemon);
            let watchdog = CallWatchdog::new(socket, Duration::from_mins(1));
            watchdog.watch(call("a")).await.unwrap_err();
        }
    }
}
