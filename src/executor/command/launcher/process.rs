//! A launcher: this program, as a small process that stays in a cgroup and starts commands there, one after the other.
//!
//! A new process is in the cgroup of its parent at no cost; moving it there later takes the kernel about 10 ms. A
//! launcher has one thread and no async runtime, and ends with its daemon.

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

use super::protocol::{Reply, Request, receive, send};
use crate::executor::command::cost::cost;
use crate::executor::command::spawn::Spawn;

/// Bytes of `cgroup.procs` that are read: enough to see whether it lists a process besides this one.
const LIST_BYTES: usize = 64;

/// The cgroup that a launcher has entered.
struct Place {
    folder: PathBuf,
    /// The cgroup itself, and the list of its processes.
    itself: File,
    processes: File,
}

/// Starts commands for the daemon at the other end of the standard input, until it is gone.
pub fn launch() -> Result<(), String> {
    let not_for_people = |error: io::Error| format!("only the daemon starts this ({error})");
    let socket = io::stdin().as_fd().try_clone_to_owned().map_err(not_for_people)?;
    let first = receive(&socket, RecvFlags::empty()).map_err(not_for_people)?;
    let Some((Request::Enter { folder, files }, _)) = first else {
        return Err("the daemon named no cgroup".to_owned());
    };
    let place = match enter(folder, files) {
        Ok(place) => place,
        Err(error) => return answer(&socket, &Reply::failed(&error)),
    };
    let served = answer(&socket, &Reply::Entered).and_then(|()| serve(&socket, &place));
    // What runs ends with the daemon, and this process with it.
    let killed = fs::write(place.folder.join("cgroup.kill"), "1");
    served.and(killed.map_err(|error| format!("the cgroup cannot be killed: {error}")))
}

fn answer(socket: &OwnedFd, reply: &Reply) -> Result<(), String> {
    let sent = send(socket, reply, &[], SendFlags::empty());
    sent.map_err(|error| format!("the daemon cannot be answered: {error}"))
}

fn enter(folder: PathBuf, files: Option<u64>) -> io::Result<Place> {
    if let Some(soft) = files {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(soft), maximum })?;
    }
    fs::write(folder.join("cgroup.procs"), "0")?;
    let (itself, processes) = (File::open(&folder)?, File::open(folder.join("cgroup.procs"))?);
    Ok(Place { folder, itself, processes })
}

/// Does what the daemon asks for, until it is gone.
fn serve(socket: &OwnedFd, place: &Place) -> Result<(), String> {
    let mut command = None;
    loop {
        let (request, files) = match receive(socket, RecvFlags::empty()) {
            Ok(Some(received)) => received,
            Ok(None) => return Ok(()),
            Err(error) => {
                answer(socket, &Reply::failed(&error))?;
                continue;
            }
        };
        let done = match (request, command) {
            (Request::Start, None) => start(files).map(|pid| {
                command = Some(pid);
                Reply::Started(pid.as_raw_pid())
            }),
            (Request::Reap, Some(pid)) => reap(pid).map(|ended| {
                command = None;
                let (status, cost) = (ended.status.into_raw(), cost(&ended.rusage));
                Reply::Ended { status, cost, is_alone: place.is_alone() }
            }),
            (request, _) => Err(io::Error::other(format!("{request:?} is not possible now"))),
        };
        answer(socket, &done.unwrap_or_else(|error| Reply::failed(&error)))?;
    }
}

/// Starts the command that is described in the first file, with the others as its standard files.
fn start(files: Vec<OwnedFd>) -> io::Result<Pid> {
    let [description, stdin, stdout, stderr] =
        files.try_into().map_err(|_| io::Error::other("a command comes with four files"))?;
    Spawn::read(&File::from(description), [stdin, stdout, stderr])?.start()
}

/// Waits for a child that has ended.
fn reap(pid: Pid) -> io::Result<ResUse> {
    loop {
        if let Some(ended) = try_wait4_pid(pid.as_raw_pid().unsigned_abs())? {
            return Ok(ended);
        }
        waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
    }
}

impl Place {
    /// Whether nothing else is in the cgroup: no process, and no cgroup, which counts as a link to this one.
    fn is_alone(&self) -> bool {
        let mut list = [0; LIST_BYTES];
        let own = format!("{}\n", getpid().as_raw_pid());
        let length = self.processes.read_at(&mut list, 0);
        length.is_ok_and(|length| list.get(..length) == Some(own.as_bytes()))
            && self.itself.metadata().is_ok_and(|metadata| metadata.nlink() == 2)
    }
}
