//! A child process: awaited by its pidfd, so that a thousand of them need neither threads nor a clock.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, WaitOptions, kill_process_group, pidfd_open,
    prlimit, waitpid,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use wait4::{ResUse, try_wait4_pid};

use super::launcher::Launcher;
use super::spawn::Spawn;
use crate::executor::children;

/// A process that leads a session and a group of its own. Dropping it kills the group. It is a child of this process, or
/// of a launcher.
#[derive(Debug)]
pub(super) struct Process {
    /// Its number, and its group's. It is theirs until the process has been reaped.
    pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
    is_reaped: bool,
    is_own_child: bool,
}

/// Why there is no process.
#[derive(Debug)]
pub(super) enum NoProcess {
    /// It was not created.
    NotStarted(io::Error),
    /// It was created, and ended again because it could not be watched.
    Unwatched(io::Error),
    /// It may have been created, and was ended again because its launcher has ended or does not answer.
    Lost(io::Error),
}

impl Process {
    /// Starts it, with this limit of open files if one is given.
    pub(super) fn start(spawn: &Spawn, files: Option<Rlimit>) -> Result<Self, NoProcess> {
        // Keeps a descriptor free for watching the process.
        let reserve = File::open("/dev/null").map_err(NoProcess::NotStarted)?;
        let pid = children::start(|| spawn.start(), |pid| Some(*pid));
        let pid = pid.map_err(NoProcess::NotStarted)?;
        if let Some(limit) = files
            && let Err(error) = prlimit(Some(pid), Resource::Nofile, limit)
        {
            // It has ended already, or it runs with the rights of another user.
            tracing::debug!(%error, "the limit of open files of a command stays as the daemon's");
        }
        drop(reserve);
        match watched(pid) {
            Ok(pidfd) => Ok(Self { pid, pidfd, is_reaped: false, is_own_child: true }),
            Err(error) => Err(NoProcess::Unwatched(abandon(pid, error))),
        }
    }

    /// Has a launcher start it.
    pub(super) async fn start_by(
        launcher: &mut Launcher,
        spawn: &Spawn,
    ) -> Result<Self, NoProcess> {
        let reserve = File::open("/dev/null").map_err(NoProcess::NotStarted)?;
        let pid = launcher.start(spawn).await.map_err(|error| {
            if launcher.is_silent() { NoProcess::Lost(error) } else { NoProcess::NotStarted(error) }
        })?;
        drop(reserve);
        // The launcher has not waited for it: so the number is still its own.
        let pidfd = watched(pid).map_err(NoProcess::Unwatched)?;
        Ok(Self { pid, pidfd, is_reaped: false, is_own_child: false })
    }

    /// Its launcher has waited for it, or has ended: its number means nothing from now on.
    pub(super) fn forget(&mut self) {
        self.is_reaped = true;
    }

    /// Waits until it has ended.
    pub(super) async fn exited(&self) -> io::Result<()> {
        self.pidfd.readable().await.map(drop)
    }

    /// Takes note of its end, which has come; its number means nothing from then on.
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

    /// Its number, which is also that of its group and of its session.
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends a signal to all of its group. That nothing of the group is left is no error.
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

#[expect(
    deprecated,
    reason = "its successor is unsafe; an OwnedFd that is owned here cannot be closed behind its back"
)]
fn watched(pid: Pid) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(pidfd_open(pid, PidfdFlags::empty())?, Interest::READABLE)
}

/// Ends a process that cannot be watched.
fn abandon(pid: Pid, error: io::Error) -> io::Error {
    let ended = kill_process_group(pid, Signal::KILL)
        .and_then(|()| waitpid(Some(pid), WaitOptions::empty()).map(drop));
    children::forget(pid);
    if let Err(error) = ended {
        tracing::warn!(%error, "a process that cannot be watched could not be ended");
    }
    error
}
