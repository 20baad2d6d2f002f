//! A child process, watched through its pidfd, so that a thousand of them need neither threads nor polling; and what it
//! cost, as the kernel counts it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::resource::{UsageWho, getrusage};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, WaitOptions, kill_process_group, pidfd_open,
    prlimit, waitpid,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use wait4::{ResUse, ResourceUsage, try_wait4_pid};

use super::spawn::Spawn;
use crate::executor::children;
use crate::run::Cost;

/// The most memory that this process has been seen to have had, in bytes.
static OWN_PEAK: AtomicU64 = AtomicU64::new(0);

/// A process that leads a session and a group of its own. It is a child of this process or of a launcher. Dropping it
/// kills the group.
#[derive(Debug)]
pub(super) struct Process {
    /// The id of the process, of its group and of its session. The kernel reuses it once the process has been reaped.
    pub(super) pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
    is_reaped: bool,
    is_own_child: bool,
}

#[derive(Debug)]
pub(super) enum SpawnError {
    /// The process was not created.
    NotStarted(io::Error),
    /// The process was created, and killed because it could not be watched.
    Unwatched(io::Error),
    /// The process may have been created, and is killed because its launcher has ended or does not answer.
    Lost(io::Error),
}

impl Process {
    /// Starts a child of this process. `files` is its limit of open files, if that is not the daemon's own.
    pub(super) fn start(spawn: &Spawn, files: Option<Rlimit>) -> Result<Self, SpawnError> {
        // Keeps a descriptor free for the pidfd.
        let reserve = File::open("/dev/null").map_err(SpawnError::NotStarted)?;
        let pid = children::start(|| spawn.start(), |pid| Some(*pid));
        let pid = pid.map_err(SpawnError::NotStarted)?;
        if let Some(limit) = files
            && let Err(error) = prlimit(Some(pid), Resource::Nofile, limit)
        {
            // The process has ended already, or it runs with the rights of another user.
            tracing::debug!(%error, "a command keeps the daemon's limit of open files");
        }
        drop(reserve);
        match watch(pid) {
            Ok(pidfd) => Ok(Self { pid, pidfd, is_reaped: false, is_own_child: true }),
            Err(error) => Err(SpawnError::Unwatched(abandon(pid, error))),
        }
    }

    /// Watches a child of a launcher, which has not reaped it yet.
    pub(super) fn of_launcher(pid: Pid) -> Result<Self, SpawnError> {
        let pidfd = watch(pid).map_err(SpawnError::Unwatched)?;
        Ok(Self { pid, pidfd, is_reaped: false, is_own_child: false })
    }

    /// To be called when its launcher has reaped it, or has ended: its id may belong to another process from now on.
    pub(super) fn forget(&mut self) {
        self.is_reaped = true;
    }

    /// Waits until it has ended. Cancel-safe.
    pub(super) async fn exited(&self) -> io::Result<()> {
        self.pidfd.readable().await.map(drop)
    }

    /// Reaps it, once it has ended.
    pub(super) async fn reap(&mut self) -> io::Result<ResUse> {
        loop {
            let id = self.pid.as_raw_pid().unsigned_abs();
            if let Some(usage) = try_wait4_pid(id)? {
                self.is_reaped = true;
                children::forget(self.pid);
                return Ok(usage);
            }
            self.exited().await?;
            tokio::task::yield_now().await;
        }
    }

    /// Sends a signal to its whole group. It is no error if nothing of the group is left.
    pub(super) fn signal(&self, signal: Signal) -> Result<(), Errno> {
        match kill_process_group(self.pid, signal) {
            Err(Errno::SRCH) => Ok(()),
            sent => sent,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.is_reaped {
            if let Err(error) = self.signal(Signal::KILL) {
                tracing::warn!(%error, pid = self.pid.as_raw_pid(), "a command could not be killed");
            }
            if self.is_own_child {
                children::forget(self.pid);
            }
        }
    }
}

fn watch(pid: Pid) -> io::Result<AsyncFd<OwnedFd>> {
    readable(pidfd_open(pid, PidfdFlags::empty())?)
}

#[expect(
    deprecated,
    reason = "its successor is unsafe; an OwnedFd that is owned here cannot be closed behind its back"
)]
pub(super) fn readable(file: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(file, Interest::READABLE)
}

/// Kills a process that cannot be watched.
fn abandon(pid: Pid, error: io::Error) -> io::Error {
    let ended = kill_process_group(pid, Signal::KILL)
        .and_then(|()| waitpid(Some(pid), WaitOptions::empty()).map(drop));
    children::forget(pid);
    if let Err(error) = ended {
        tracing::warn!(%error, "a process that cannot be watched could not be killed");
    }
    error
}

/// The cost of a process that has been reaped, and of the processes that it has reaped itself.
pub(super) fn cost(usage: &ResourceUsage) -> Cost {
    let cpu = usage.utime.saturating_add(usage.stime);
    Cost { cpu_micros: cpu.as_micros().try_into().ok(), peak_memory: peak_memory(usage.maxrss) }
}

/// A child starts in a copy of the daemon's memory, and the kernel counts that as the child's own. So a peak that is not
/// above the daemon's own peak says nothing about the command.
fn peak_memory(peak: u64) -> Option<u64> {
    // The peak that was seen before is a lower bound, which saves most of the calls below.
    if peak <= OWN_PEAK.load(Ordering::Relaxed) {
        return None;
    }
    let kibibytes = getrusage(UsageWho::RUSAGE_SELF).ok()?.max_rss();
    let own = u64::try_from(kibibytes).ok()?.saturating_mul(1024);
    OWN_PEAK.store(own, Ordering::Relaxed);
    (peak > own).then_some(peak)
}
