//! The child processes of the daemon. Where the daemon is the init process of a container, it also has to reap processes
//! that it did not start: a process whose parent has ended becomes a child of init, and stays a zombie until init waits
//! for it. Reaping must not take the exit status of a child that the daemon started itself, so those are registered here.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use rustix::process::{Pid, child_subreaper, getpid};
use tokio::signal::unix::{SignalKind, signal};

/// Pause while a child of our own has ended and has not been waited for.
const PAUSE: Duration = Duration::from_millis(100);

/// Held for reading while a child is started and not yet registered, and for writing while adopted ones are reaped.
static STARTING: RwLock<()> = RwLock::new(());
/// Process ids of our own children that have not been waited for.
static OWN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

fn own() -> MutexGuard<'static, BTreeSet<i32>> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a child with `start` and registers it; `pid_of` reads its process id.
pub(super) fn start<T>(
    start: impl FnOnce() -> io::Result<T>,
    pid_of: impl FnOnce(&T) -> Option<Pid>,
) -> io::Result<T> {
    let _starting = STARTING.read().unwrap_or_else(PoisonError::into_inner);
    let child = start()?;
    if let Some(pid) = pid_of(&child) {
        own().insert(pid.as_raw_pid());
    }
    Ok(child)
}

/// Removes a child that has been waited for: its process id may be used for another process.
pub(super) fn forget(pid: Pid) {
    own().remove(&pid.as_raw_pid());
}

/// Whether processes that have lost their parent become children of this process.
pub fn adopts_processes() -> bool {
    getpid().is_init() || child_subreaper().is_ok_and(|pid| pid.is_some())
}

/// Reaps adopted processes as they end. It returns only if that is impossible.
pub async fn reap_adopted() -> io::Error {
    let mut ended = match signal(SignalKind::child()) {
        Ok(ended) => ended,
        Err(error) => return error,
    };
    loop {
        match reap() {
            Ok(NextReap::AtNextExit) => {
                ended.recv().await;
            }
            Ok(NextReap::Soon) => tokio::time::sleep(PAUSE).await,
            Err(error) => return error,
        }
    }
}

/// When to try to reap again.
enum NextReap {
    /// When another child ends.
    AtNextExit,
    /// Soon: the first ended child is our own, and the kernel shows no other one until it has been waited for.
    Soon,
}

fn reap() -> io::Result<NextReap> {
    let _no_start = STARTING.write().unwrap_or_else(PoisonError::into_inner);
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
    loop {
        let pid = match waitid(Id::All, flags | WaitPidFlag::WNOWAIT) {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) => pid,
            Ok(_) | Err(Errno::ECHILD) => return Ok(NextReap::AtNextExit),
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        };
        if own().contains(&pid.as_raw()) {
            return Ok(NextReap::Soon);
        }
        match waitid(Id::Pid(pid), flags) {
            Ok(_) => tracing::debug!(%pid, "reaped an adopted process"),
            Err(Errno::ECHILD | Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
