//! Makes the control socket again if its file is removed: without it, no client could reach the daemon.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::bind::{BindError, SocketFile, bind};
use super::condition::{Condition, ConditionKind, ReportedConditions};
use super::listener::Listener;
use crate::clock::{Clock, Timestamp};

/// Time between two checks of the path.
const PAUSE: Duration = Duration::from_secs(1);

/// Owns the file of the control socket. Dropping it removes the file, and the watcher ends.
#[derive(Debug)]
pub struct SocketGuard {
    _file: Arc<Mutex<SocketFile>>,
}

#[derive(Debug)]
pub struct SocketWatcher {
    path: PathBuf,
    mode: u32,
    file: Weak<Mutex<SocketFile>>,
    /// The server takes new listeners from this channel.
    listeners: mpsc::Sender<UnixListener>,
    /// The error that was reported last, until the socket is at its path again.
    last_error: Option<String>,
}

/// Listens at a path. The socket has the permissions `mode`.
pub fn listen(path: &Path, mode: u32) -> Result<(Listener, SocketGuard, SocketWatcher), BindError> {
    let (listener, file) = bind(path, mode)?.publish()?;
    let (listeners, next) = mpsc::channel(1);
    let file = Arc::new(Mutex::new(file));
    let watcher = SocketWatcher {
        path: path.to_owned(),
        mode,
        file: Arc::downgrade(&file),
        listeners,
        last_error: None,
    };
    Ok((Listener::new(listener, next), SocketGuard { _file: file }, watcher))
}

impl SocketWatcher {
    /// Checks once a second that the socket is at its path, until its [`SocketGuard`] is dropped. While the socket cannot be
    /// made again, that is reported as a condition.
    pub async fn watch(mut self, reported: ReportedConditions, clock: Arc<dyn Clock>) {
        let mut ticks = interval(PAUSE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Some(file) = self.file.upgrade() else { return };
            match self.check(&mut lock(&file)) {
                Ok(()) => self.succeeded(&reported),
                Err(error) => self.failed(&error.to_string(), &reported, clock.now()),
            }
        }
    }

    fn succeeded(&mut self, reported: &ReportedConditions) {
        if self.last_error.take().is_some() {
            reported.clear(ConditionKind::Socket);
        }
    }

    fn failed(&mut self, why: &str, reported: &ReportedConditions, now: Timestamp) {
        if self.last_error.as_deref() == Some(why) {
            return;
        }
        tracing::error!(error = %why, "the control socket cannot be reached");
        let message = format!("the control socket cannot be reached: {why}");
        reported.set(Condition::new(ConditionKind::Socket, &message, Some(now)));
        self.last_error = Some(why.to_owned());
    }

    /// Listens again if the socket is not at its path. A file that another process has put there stays.
    fn check(&self, file: &mut SocketFile) -> Result<(), BindError> {
        if file.is_there() {
            return Ok(());
        }
        let (listener, new) = bind(&self.path, self.mode)?.publish()?;
        // A server that is shutting down takes no listener. Then the new file is dropped and so removed.
        if self.listeners.try_send(listener).is_ok() {
            *file = new;
            tracing::warn!(socket = %self.path.display(), "the control socket was removed, and was made again");
        }
        Ok(())
    }
}

fn lock(file: &Mutex<SocketFile>) -> MutexGuard<'_, SocketFile> {
    file.lock().unwrap_or_else(PoisonError::into_inner)
}
