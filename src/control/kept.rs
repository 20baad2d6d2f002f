//! The control socket for as long as the daemon lives: a file that somebody removes is made again. Without it no command
//! and no reload would reach the daemon.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::bind::{BindError, SocketFile, bind};
use super::condition::{Condition, Kind, Noted};
use super::unix::Listener;
use crate::clock::{Clock, Timestamp};

/// Time between two looks at the path.
const PAUSE: Duration = Duration::from_secs(1);

/// The file of the control socket. Dropping it removes the file, which nobody makes again then.
#[derive(Debug)]
pub struct KeptSocket {
    _file: Arc<Mutex<SocketFile>>,
}

/// Checks once a second that the control socket is at its path.
#[derive(Debug)]
pub struct Keeper {
    path: PathBuf,
    mode: u32,
    file: Weak<Mutex<SocketFile>>,
    /// Passes a new listener on to the server.
    listeners: mpsc::Sender<UnixListener>,
    /// Why the socket is not at its path, if that was reported.
    reported: Option<String>,
}

/// Listens at a path. The socket gets `mode`, and is kept there by the keeper.
pub fn listen(path: &Path, mode: u32) -> Result<(Listener, KeptSocket, Keeper), BindError> {
    let (listener, file) = bind(path, mode)?.publish()?;
    let (listeners, next) = mpsc::channel(1);
    let file = Arc::new(Mutex::new(file));
    let keeper = Keeper {
        path: path.to_owned(),
        mode,
        file: Arc::downgrade(&file),
        listeners,
        reported: None,
    };
    Ok((Listener::new(listener, next), KeptSocket { _file: file }, keeper))
}

impl Keeper {
    /// Keeps the socket at its path until its [`KeptSocket`] is dropped. While that fails, it is noted as a condition.
    pub async fn keep(mut self, noted: Noted, clock: Arc<dyn Clock>) {
        let mut ticks = interval(PAUSE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Some(file) = self.file.upgrade() else { return };
            match self.check(&mut lock(&file)) {
                Ok(()) => self.works(&noted),
                Err(error) => self.fails(&error.to_string(), &noted, clock.now()),
            }
        }
    }

    fn works(&mut self, noted: &Noted) {
        if self.reported.take().is_some() {
            noted.clear(Kind::Socket);
        }
    }

    fn fails(&mut self, why: &str, noted: &Noted, now: Timestamp) {
        if self.reported.as_deref() == Some(why) {
            return;
        }
        tracing::error!(error = %why, "the control socket cannot be reached");
        let message = format!("the control socket cannot be reached: {why}");
        noted.set(Condition::new(Kind::Socket, &message, Some(now)));
        self.reported = Some(why.to_owned());
    }

    /// Listens again if the socket is not at its path. What somebody else has put there stays.
    fn check(&self, file: &mut SocketFile) -> Result<(), BindError> {
        if file.is_there() {
            return Ok(());
        }
        let (listener, new) = bind(&self.path, self.mode)?.publish()?;
        // A server that is ending takes no listener; the new file goes then, too.
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
