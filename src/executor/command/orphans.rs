//! Finding and killing the processes of a run, through `/proc`.
//!
//! A process is found by its session, which it keeps whatever it does to its environment, or by the variables of the run in
//! its environment, which it keeps when it leaves its session and its parent. A process that has left the session *and*
//! overwritten its environment is not found here, but a cgroup holds that one too.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

use super::environment::{ATTEMPT_VARIABLE, RUN_ID_VARIABLES};
use crate::run::Execution;

/// Bytes of an environment that are read, far above what the kernel lets a process have.
const ENVIRONMENT_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Rounds of finding and killing: new processes may be started while others are being killed.
const ROUNDS_MAX: usize = 50;
/// Listings of all processes in a round. There is another one only if the last one had new processes.
const LISTINGS_MAX: usize = 100;
/// How often a process without an environment is looked at again.
const RECHECKS_MAX: usize = 4;
/// Pause before such a second look, longer than an `exec` takes.
const RECHECK_PAUSE: Duration = Duration::from_millis(5);
/// How long each killed process is waited for, in each round.
const DEATH_LIMIT: Duration = Duration::from_secs(1);

/// Kills all processes on this machine that belong to these executions, and returns how many there were.
///
/// This blocks for one walk through `/proc` if there are none, otherwise until they are gone.
pub fn kill_orphans(executions: &[Execution]) -> usize {
    Markers::new(executions, []).kill_all()
}

/// Kills all processes of a run, and returns how many there were. The command must not have been reaped yet, so that the
/// id of its session cannot belong to another one.
pub(super) fn kill_run(execution: &Execution, session: Pid) -> usize {
    Markers::new(std::slice::from_ref(execution), [session]).kill_all()
}

/// Kills all processes of these sessions, and returns how many there were. A session whose first process is gone is left
/// alone, since its id may belong to another session by now.
pub(super) fn kill_sessions(sessions: &[ProcessId]) -> usize {
    let leads_session = |id: &&ProcessId| {
        ProcessStat::read(id.pid)
            .is_some_and(|stat| stat.started == id.started && stat.session == id.pid.as_raw_pid())
    };
    let same: Vec<Pid> = sessions.iter().filter(leads_session).map(|id| id.pid).collect();
    if same.is_empty() { 0 } else { Markers::new(&[], same).kill_all() }
}

/// Whether a session has a living process besides its first one.
pub(super) fn has_others(session: Pid) -> bool {
    let marks = Markers::new(&[], [session]);
    pids().any(|pid| pid != session && marks.is_in_session(pid))
}

/// What processes are recognised by: their session, or the variables of their run and attempt in their environment.
struct Markers {
    /// For each execution: the entries `NAME=value` that name its run (as a run or as a hook run), and the entry that
    /// names its attempt.
    environments: Vec<([Vec<u8>; 2], Vec<u8>)>,
    sessions: BTreeSet<i32>,
}

impl Markers {
    fn new(executions: &[Execution], sessions: impl IntoIterator<Item = Pid>) -> Self {
        let mark = |(run_id, attempt): &Execution| {
            let of_run = RUN_ID_VARIABLES.map(|name| format!("{name}={}", run_id.0).into_bytes());
            (of_run, format!("{ATTEMPT_VARIABLE}={attempt}").into_bytes())
        };
        Self {
            environments: executions.iter().map(mark).collect(),
            sessions: sessions.into_iter().map(Pid::as_raw_pid).collect(),
        }
    }

    /// Kills the processes until there are none, and returns how many there were.
    fn kill_all(&self) -> usize {
        let mut killed = BTreeSet::new();
        for _ in 0..ROUNDS_MAX {
            let living = self.find();
            if living.is_empty() {
                break;
            }
            let dying: Vec<OwnedFd> = living.iter().filter_map(|pid| self.kill(*pid)).collect();
            dying.iter().for_each(wait_for);
            killed.extend(living.into_iter().map(Pid::as_raw_pid));
        }
        killed.len()
    }

    fn is_in_session(&self, pid: Pid) -> bool {
        !self.sessions.is_empty()
            && ProcessStat::read(pid)
                .is_some_and(|stat| stat.is_alive() && self.sessions.contains(&stat.session))
    }

    /// Lists processes until a listing has no new ones, because a process may start another one and end before it is
    /// looked at. A process without an environment may be in the middle of an `exec`, and is looked at again.
    fn find(&self) -> Vec<Pid> {
        let (mut known, mut living, mut rechecks) = (BTreeSet::new(), Vec::new(), 0);
        for _ in 0..LISTINGS_MAX {
            let unknown: Vec<Pid> = pids().filter(|pid| known.insert(pid.as_raw_pid())).collect();
            if unknown.is_empty() {
                break;
            }
            let mid_exec = self.classify(&unknown, &mut living);
            if !mid_exec.is_empty() && rechecks < RECHECKS_MAX {
                rechecks += 1;
                blocking_sleep(RECHECK_PAUSE);
                known.retain(|known| mid_exec.iter().all(|pid| pid.as_raw_pid() != *known));
            }
        }
        living
    }

    /// Adds the processes with markers to `living`, and returns those that are in the middle of an `exec`.
    fn classify(&self, pids: &[Pid], living: &mut Vec<Pid>) -> Vec<Pid> {
        let (mut mid_exec, mut environment) = (Vec::new(), Vec::new());
        for pid in pids {
            if self.has_markers(*pid, &mut environment) {
                living.push(*pid);
            } else if environment.is_empty() && !self.environments.is_empty() && is_mid_exec(*pid) {
                mid_exec.push(*pid);
            }
        }
        mid_exec
    }

    /// False for a process that has ended, or whose environment this process may not read. `environment` is a buffer.
    fn has_markers(&self, pid: Pid, environment: &mut Vec<u8>) -> bool {
        environment.clear();
        if self.is_in_session(pid) {
            return true;
        }
        if self.environments.is_empty() {
            return false;
        }
        let path = format!("/proc/{}/environ", pid.as_raw_pid());
        let read = File::open(path)
            .and_then(|file| file.take(ENVIRONMENT_BYTES_MAX).read_to_end(environment));
        let has = |mark: &Vec<u8>| environment.split(|byte| *byte == 0).any(|entry| entry == *mark);
        read.is_ok()
            && self
                .environments
                .iter()
                .any(|(of_run, attempt)| of_run.iter().any(has) && has(attempt))
    }

    /// Kills a process, unless its id belongs to another process by now.
    fn kill(&self, pid: Pid) -> Option<OwnedFd> {
        let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        if !self.has_markers(pid, &mut Vec::new()) {
            return None;
        }
        pidfd_send_signal(&process, Signal::KILL).ok()?;
        Some(process)
    }
}

/// All processes except this one.
fn pids() -> impl Iterator<Item = Pid> {
    let own = getpid();
    let pid = |entry: fs::DirEntry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?);
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(pid).filter(move |pid| *pid != own)
}

/// Whether a process without an environment may be about to get one: it lives, and is no thread of the kernel.
fn is_mid_exec(pid: Pid) -> bool {
    ProcessStat::read(pid).is_some_and(|stat| stat.is_alive() && !stat.is_kernel_thread())
}

/// Sleeps on a thread that may block. The standard library's sleep is banned in favour of one that tests can pause.
pub(super) fn blocking_sleep(pause: Duration) {
    // A poll of nothing is a sleep.
    if let Err(error) = poll(&mut [], Timespec::try_from(pause).ok().as_ref()) {
        tracing::debug!(%error, "a pause was cut short");
    }
}

fn wait_for(process: &OwnedFd) {
    let limit = Timespec::try_from(DEATH_LIMIT).ok();
    let mut files = [PollFd::new(process, PollFlags::IN)];
    let waited = retry_on_intr(|| poll(&mut files, limit.as_ref()));
    if !matches!(waited, Ok(1)) {
        tracing::warn!("a process that was killed has not ended yet");
    }
}

/// The flag of the kernel's own threads in `/proc/PID/stat`.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// A process, for as long as the machine runs: process ids are reused, but not with the same start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProcessId {
    pub(super) pid: Pid,
    /// Clock ticks between the boot of the machine and the start of the process.
    pub(super) started: u64,
}

impl ProcessId {
    /// None if there is no process with this number.
    pub(super) fn of(pid: Pid) -> Option<Self> {
        Some(Self { pid, started: ProcessStat::read(pid)?.started })
    }
}

/// What `/proc/PID/stat` says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ProcessStat {
    state: char,
    /// The id of its session, which is the id of the session's first process.
    session: i32,
    flags: u64,
    /// See [`ProcessId::started`].
    started: u64,
}

impl ProcessStat {
    /// None if there is no such process.
    fn read(pid: Pid) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The process's name, in brackets, may contain anything.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |number: usize| fields.get(number).copied();
        Some(Self {
            state: field(0)?.chars().next()?,
            session: field(3)?.parse().ok()?,
            flags: field(6)?.parse().ok()?,
            started: field(19)?.parse().ok()?,
        })
    }

    fn is_alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X')
    }

    fn is_kernel_thread(&self) -> bool {
        self.flags & KERNEL_THREAD != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name_is() {
        let text = "4711 (a) b (c)) S 1 4700 4699 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2";
        let stat = ProcessStat::parse(text).unwrap();
        assert_eq!((stat.session, stat.started), (4699, 987_654));
        assert!(stat.is_alive() && !stat.is_kernel_thread());
        assert!(!ProcessStat::parse(&text.replace(" S ", " Z ")).unwrap().is_alive());
        assert_eq!(ProcessStat::parse("4711 (x) S 1"), None);
        let own = ProcessStat::read(getpid()).unwrap();
        assert!(own.is_alive() && own.started > 0);
    }
}
