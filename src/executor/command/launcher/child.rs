//! The process of a launcher: this program, started as `punctual launch`. It enters a cgroup and starts commands there, one
//! after the other. It has one thread and no async runtime, and ends with its daemon.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;

use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{
    Pid, Resource, Rlimit, WaitId, WaitIdOptions, getpid, getrlimit, setrlimit, waitid,
};
use wait4::{ResUse, try_wait4_pid};

use super::protocol::{LauncherReply, LauncherRequest, receive, send};
use crate::executor::command::process::cost;
use crate::executor::command::spawn::Spawn;

/// Bytes of `cgroup.procs` that are read: enough to see whether it lists a process besides this one.
const LIST_BYTES: usize = 64;

struct EnteredCgroup {
    folder: PathBuf,
    /// `folder` itself, opened.
    itself: File,
    /// The file `cgroup.procs`, opened.
    processes: File,
}

/// Starts commands for the daemon, which is at the other end of stdin, until the daemon is gone.
pub fn launch() -> Result<(), String> {
    let not_by_hand = |error: io::Error| format!("only the daemon starts this ({error})");
    let socket = io::stdin().as_fd().try_clone_to_owned().map_err(not_by_hand)?;
    let first = receive(&socket, RecvFlags::empty()).map_err(not_by_hand)?;
    let Some((LauncherRequest::Enter { folder, files }, _)) = first else {
        return Err("the daemon named no cgroup".to_owned());
    };
    let entered = match enter(folder, files) {
        Ok(entered) => entered,
        Err(error) => return answer(&socket, &LauncherReply::failed(&error)),
    };
    let served = answer(&socket, &LauncherReply::Entered).and_then(|()| serve(&socket, &entered));
    // The commands end with the daemon, and so does this process, which is in the cgroup too.
    let killed = fs::write(entered.folder.join("cgroup.kill"), "1");
    served.and(killed.map_err(|error| format!("the cgroup cannot be killed: {error}")))
}

fn answer(socket: &OwnedFd, reply: &LauncherReply) -> Result<(), String> {
    let sent = send(socket, reply, &[], SendFlags::empty());
    sent.map_err(|error| format!("the daemon cannot be answered: {error}"))
}

fn enter(folder: PathBuf, files: Option<u64>) -> io::Result<EnteredCgroup> {
    if let Some(soft) = files {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(soft), maximum })?;
    }
    fs::write(folder.join("cgroup.procs"), "0")?;
    let (itself, processes) = (File::open(&folder)?, File::open(folder.join("cgroup.procs"))?);
    Ok(EnteredCgroup { folder, itself, processes })
}

/// Answers the daemon's requests until the daemon is gone.
fn serve(socket: &OwnedFd, cgroup: &EnteredCgroup) -> Result<(), String> {
    let mut command = None;
    loop {
        let (request, files) = match receive(socket, RecvFlags::empty()) {
            Ok(Some(received)) => received,
            Ok(None) => return Ok(()),
            Err(error) => {
                answer(socket, &LauncherReply::failed(&error))?;
                continue;
            }
        };
        let done = match (request, command) {
            (LauncherRequest::Start, None) => start(files).map(|pid| {
                command = Some(pid);
                LauncherReply::Started(pid.as_raw_pid())
            }),
            (LauncherRequest::Reap, Some(pid)) => reap(pid).map(|ended| {
                command = None;
                let (status, cost) = (ended.status.into_raw(), cost(&ended.rusage));
                LauncherReply::Ended { status, cost, is_alone: cgroup.is_alone() }
            }),
            (request, _) => Err(io::Error::other(format!("{request:?} is not possible now"))),
        };
        answer(socket, &done.unwrap_or_else(|error| LauncherReply::failed(&error)))?;
    }
}

/// Starts the command that the first file describes, with the other files as its stdin, stdout and stderr.
fn start(files: Vec<OwnedFd>) -> io::Result<Pid> {
    let [description, stdin, stdout, stderr] =
        files.try_into().map_err(|_| io::Error::other("a command comes with four files"))?;
    Spawn::read(&File::from(description), [stdin, stdout, stderr])?.start()
}

/// Reaps a child that has ended.
fn reap(pid: Pid) -> io::Result<ResUse> {
    loop {
        if let Some(ended) = try_wait4_pid(pid.as_raw_pid().unsigned_abs())? {
            return Ok(ended);
        }
        waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
    }
}

impl EnteredCgroup {
    /// Whether nothing else is in the cgroup: no other process, and no other cgroup, which would add to the link count.
    fn is_alone(&self) -> bool {
        let mut list = [0; LIST_BYTES];
        let own = format!("{}\n", getpid().as_raw_pid());
        let length = self.processes.read_at(&mut list, 0);
        length.is_ok_and(|length| list.get(..length) == Some(own.as_bytes()))
            && self.itself.metadata().is_ok_and(|metadata| metadata.nlink() == 2)
    }
}
