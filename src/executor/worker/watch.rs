//! What looks after a call that takes longer than a moment: sends on what it says, gives signs of life, and hears when it
//! is to end. A short call has none of it, since every thread that it woke would cost more than the call.

use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::time::{Instant, interval_at};

use super::message::{Answer, Cancel, Lines, Request};
use super::serve::{Link, encoded};
use crate::clock::Timestamp;
use crate::output::Line;
use crate::run::Execution;
use crate::task::cancellation::Ending;
use crate::task::context::Context;
use crate::task::log::{Follower, Log};

/// A call that takes longer than this is looked after.
const MOMENT: Duration = Duration::from_millis(20);

/// A call that runs.
#[derive(Debug, Clone)]
pub(super) struct Running {
    pub(super) execution: Execution,
    pub(super) context: Arc<Context>,
}

#[derive(Debug, Default)]
struct State {
    running: Option<Running>,
    /// Calls so far, which tells one from the next.
    calls: u64,
    /// The call is looked after.
    is_watched: bool,
    /// Bytes that the call has said and that were sent on.
    sent: u64,
    /// There was no call for a moment, and the thread waits for one.
    is_asleep: bool,
}

/// Where the thread that runs builtins and the one that looks after them meet.
#[derive(Debug)]
pub(super) struct Watch {
    link: Arc<Link>,
    beat: Duration,
    state: Mutex<State>,
    /// Wakes the thread that looks after calls.
    begun: Notify,
    /// Wakes the thread that runs them.
    released: Condvar,
}

/// The log of a context, as something of its own.
struct LogOf(Arc<Context>);

impl Deref for LogOf {
    type Target = Log;

    fn deref(&self) -> &Log {
        &self.0.log
    }
}

impl Watch {
    /// Starts the thread, with a runtime of its own: the others may be blocked by a builtin.
    pub(super) fn start(link: Arc<Link>, beat: Duration) -> std::io::Result<Arc<Self>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (state, begun, released) = (Mutex::default(), Notify::new(), Condvar::new());
        let watch = Arc::new(Self { link, beat, state, begun, released });
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

    /// The call has ended: what it has said and was not sent on.
    pub(super) fn end(&self, log: &Log, now: Timestamp) -> Vec<Answer> {
        let is_watched = {
            let mut state = self.lock();
            state.running = None;
            state.is_watched
        };
        let output = log.close(now);
        if is_watched {
            // It sees that the log is closed, and sends the rest on.
            let wanting = |state: &mut State| state.is_watched;
            let waited = self.released.wait_while(self.lock(), wanting);
            let sent = waited.unwrap_or_else(PoisonError::into_inner).sent;
            return answers(0, Vec::new(), output.bytes.saturating_sub(sent));
        }
        let mut answers = answers(0, output.head, output.bytes);
        answers.extend(self::answers(output.cut, output.tail, 0));
        answers
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
        state.sent = 0;
        running
    }

    /// Looks after a call until its log is closed.
    async fn look_after(&self, running: Running) -> std::io::Result<()> {
        let mut follower = Follower::new(LogOf(Arc::clone(&running.context)));
        let mut beat = interval_at(Instant::now() + self.beat, self.beat);
        let mut socket = self.link.lend()?;
        let mut is_over = false;
        while !is_over {
            let answers = tokio::select! {
                biased;
                heard = self.hear(&socket, &running) => {
                    heard?;
                    continue;
                }
                _ = beat.tick() => vec![Answer::Beat],
                news = follower.next() => {
                    is_over = news.is_last;
                    let bytes = bytes(&news.lines);
                    self.lock().sent += bytes;
                    answers(news.missed, news.lines, bytes)
                }
            };
            socket.write_all(&encoded(&answers)?).await?;
        }
        self.link.take_back()
    }

    /// Waits for something from the daemon, and heeds it.
    async fn hear(&self, socket: &UnixStream, running: &Running) -> std::io::Result<()> {
        socket.readable().await?;
        let mut frames = self.link.frames();
        match socket.try_read(frames.space()) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => frames.fill(count),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        while let Some(request) = frames.next().map_err(std::io::Error::other)? {
            match request {
                Request::Cancel(Cancel { run_id, attempt }) => {
                    if (&*running.execution.0.0, running.execution.1) == (&*run_id, attempt) {
                        running.context.cancellation.cancel(Ending::Cancelled(String::new()));
                    }
                }
                Request::Hello(_) | Request::Call(_) => {
                    return Err(std::io::Error::other("there can be one call at a time only"));
                }
            }
        }
        Ok(())
    }
}

/// Bytes of these lines; their line breaks are counted at the end, since a long line was cut into several.
fn bytes(lines: &[Line]) -> u64 {
    lines.iter().map(|line| u64::try_from(line.text.len()).unwrap_or(u64::MAX)).sum()
}

/// The message that has these lines, if there is something to say.
fn answers(missed: u64, lines: Vec<Line>, bytes: u64) -> Vec<Answer> {
    if missed == 0 && lines.is_empty() && bytes == 0 {
        return Vec::new();
    }
    vec![Answer::Lines(Lines::new(missed, lines, bytes))]
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
