//! A child process: awaited by its pidfd, so that a thousand of them need neither threads nor a clock.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use wait4::{ResUse, try_wait4_pid};

/// A process that leads a group of its own. Dropping it kills the group.
#[derive(Debug)]
pub(super) struct Process {
    /// Its number, and its group's. It is theirs until the process has been reaped.
    pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
    is_reaped: bool,
}

impl Process {
    /// Starts it.
    pub(super) fn start(command: &mut Command) -> io::Result<Self> {
        let mut child = command.spawn()?;
        let pid = Pid::from_child(&child);
        match watched(pid) {
            Ok(pidfd) => Ok(Self { pid, pidfd, is_reaped: false }),
            Err(error) => Err(abandon(&mut child, error)),
        }
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
                return Ok(usage);
            }
            self.exited().await?;
            tokio::task::yield_now().await;
        }
    }

    /// The number of its group.
    pub(super) fn group(&self) -> Pid {
        self.pid
    }

    /// Sends a signal to all of its group. An error means that nothing of the group is left.
    pub(super) fn signal(&self, signal: Signal) {
        if let Err(error) = kill_process_group(self.pid, signal) {
            tracing::debug!(%error, "a process group could not be signalled");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.is_reaped {
            self.signal(Signal::KILL);
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

/// Ends a process that cannot be awaited.
fn abandon(child: &mut Child, error: io::Error) -> io::Error {
    let ended = kill_process_group(Pid::from_child(child), Signal::KILL)
        .map_err(io::Error::from)
        .and_then(|()| child.wait());
    if let Err(error) = ended {
        tracing::warn!(%error, "a process that cannot be awaited could not be ended");
    }
    error
}
