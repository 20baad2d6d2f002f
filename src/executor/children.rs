//! The processes that this daemon has started itself, and, where it is the init process of a container, the reaping of
//! those that it was given: a process whose parent has ended becomes a child of init, and stays as a zombie until init
//! has waited for it. The exit status of one of our own must not be taken that way, so these are known here.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use rustix::process::{Pid, child_subreaper, getpid};
use tokio::signal::unix::{SignalKind, signal};

/// Time until it is looked again while a child of our own has ended and was not waited for yet.
const PAUSE: Duration = Duration::from_millis(100);

/// Held for reading while a child is started and not known yet, and for writing while adopted ones are reaped.
static STARTING: RwLock<()> = RwLock::new(());
/// Our own children that have not been waited for.
static OWN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

fn own() -> MutexGuard<'static, BTreeSet<i32>> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a child; `pid_of` says which process it is.
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

/// A child of our own has been waited for: its number may become that of another process.
pub(super) fn forget(pid: Pid) {
    own().remove(&pid.as_raw_pid());
}

/// Whether processes that have lost their parent become children of this one.
pub fn adopts_processes() -> bool {
    getpid().is_init() || child_subreaper().is_ok_and(|pid| pid.is_some())
}

/// Waits for adopted processes as they end. It returns only if that is not possible.
pub async fn reap_adopted() -> io::Error {
    let mut ended = match signal(SignalKind::child()) {
        Ok(ended) => ended,
        Err(error) => return error,
    };
    loop {
        match reap() {
            Ok(Look::Done) => {
                ended.recv().await;
            }
            Ok(Look::Again) => tokio::time::sleep(PAUSE).await,
            Err(error) => return error,
        }
    }
}

/// When to look again.
enum Look {
    /// When another child has ended.
    Done,
    /// Soon: the first child that has ended is our own, and the kernel shows no other before it has been waited for.
    Again,
}

fn reap() -> io::Result<Look> {
    let _nobody_starts = STARTING.write().unwrap_or_else(PoisonError::into_inner);
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
    loop {
        let pid = match waitid(Id::All, flags | WaitPidFlag::WNOWAIT) {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) => pid,
            Ok(_) | Err(Errno::ECHILD) => return Ok(Look::Done),
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        };
        if own().contains(&pid.as_raw()) {
            return Ok(Look::Again);
        }
        match waitid(Id::Pid(pid), flags) {
            Ok(_) => tracing::debug!(%pid, "reaped an adopted process"),
            Err(Errno::ECHILD | Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
