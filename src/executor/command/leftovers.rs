//! Processes that belong to a run. Each command has a session, which its processes are in whatever they do to their
//! environment; and a process that leaves its session and its parents behind takes its environment along, which tells
//! which run it is of.
//!
//! A process that has left the session and overwritten its environment is not found so. A cgroup keeps that one too.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

use super::stat::Stat;
use crate::run::Execution;

/// Bytes of an environment that are read: the kernel lets a process have no more by far.
const ENVIRONMENT_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Times that processes are looked for: some may be started while those before are being killed.
const ROUNDS_MAX: usize = 50;
/// Lists of processes, each time: there is another one only if there were new processes.
const LISTINGS_MAX: usize = 100;
/// Times that a process may say nothing of itself before that is believed.
const DOUBTS_MAX: usize = 4;
/// Time until it is asked again: an `exec` is over in less.
const PAUSE: Duration = Duration::from_millis(5);
/// How long a process that is killed is waited for, in each round.
const DEATH_LIMIT: Duration = Duration::from_secs(1);

/// Ends by force all processes on this machine that are left over of these executions; how many there were.
///
/// It blocks: as long as one walk through `/proc` takes if there are none, and else until they are gone.
pub fn end_leftovers(executions: &[Execution]) -> usize {
    Marks::new(executions, []).end()
}

/// Ends by force all processes of a run, whose command has not been waited for yet: so the session is still its own.
pub(super) fn end_run(execution: &Execution, session: Pid) -> usize {
    Marks::new(std::slice::from_ref(execution), [session]).end()
}

/// Ends by force all processes of these sessions, each of which is known by its first process and when that was started.
/// A session whose first process is gone may be another one of the same number, and is left alone.
pub(super) fn end_sessions(sessions: &[(Pid, u64)]) -> usize {
    let is_same = |(pid, started): &&(Pid, u64)| {
        Stat::read(*pid)
            .is_some_and(|stat| stat.started == *started && stat.session == pid.as_raw_pid())
    };
    let same: Vec<Pid> = sessions.iter().filter(is_same).map(|(pid, _)| *pid).collect();
    if same.is_empty() { 0 } else { Marks::new(&[], same).end() }
}

/// Whether a process lives in a session beside the one that began it.
pub(super) fn is_inhabited(session: Pid) -> bool {
    let marks = Marks::new(&[], [session]);
    pids().any(|pid| pid != session && marks.is_in_session(pid))
}

/// What a process is known by: the variables of its run and attempt in its environment, or its session.
struct Marks {
    /// Of each run: the variable of a run or that of a hook run, and that of the attempt.
    environments: Vec<([Vec<u8>; 2], Vec<u8>)>,
    sessions: BTreeSet<i32>,
}

impl Marks {
    fn new(executions: &[Execution], sessions: impl IntoIterator<Item = Pid>) -> Self {
        let mark = |(run_id, attempt): &Execution| {
            let of_run = ["PUNCTUAL_RUN_ID", "PUNCTUAL_HOOK_RUN_ID"]
                .map(|name| format!("{name}={}", run_id.0).into_bytes());
            (of_run, format!("PUNCTUAL_ATTEMPT={attempt}").into_bytes())
        };
        Self {
            environments: executions.iter().map(mark).collect(),
            sessions: sessions.into_iter().map(Pid::as_raw_pid).collect(),
        }
    }

    /// Kills them until there are none; how many there were.
    fn end(&self) -> usize {
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
            && Stat::read(pid)
                .is_some_and(|stat| stat.is_alive() && self.sessions.contains(&stat.session))
    }

    /// Lists processes until there is none that has not been looked at: a process may start another one and end before
    /// its turn comes. One that says nothing of itself, as during an `exec`, is looked at again.
    fn find(&self) -> Vec<Pid> {
        let (mut known, mut living, mut doubts) = (BTreeSet::new(), Vec::new(), 0);
        for _ in 0..LISTINGS_MAX {
            let unknown: Vec<Pid> = pids().filter(|pid| known.insert(pid.as_raw_pid())).collect();
            if unknown.is_empty() {
                break;
            }
            let silent = self.look_at(&unknown, &mut living);
            if !silent.is_empty() && doubts < DOUBTS_MAX {
                doubts += 1;
                pause();
                known.retain(|known| silent.iter().all(|pid| pid.as_raw_pid() != *known));
            }
        }
        living
    }

    /// Adds those that are of the runs; the answer is those that say nothing of themselves.
    fn look_at(&self, pids: &[Pid], living: &mut Vec<Pid>) -> Vec<Pid> {
        let (mut silent, mut environment) = (Vec::new(), Vec::new());
        for pid in pids {
            if self.are_on(*pid, &mut environment) {
                living.push(*pid);
            } else if environment.is_empty() && !self.environments.is_empty() && is_between(*pid) {
                silent.push(*pid);
            }
        }
        silent
    }

    /// Whether a process is of one of the runs. One that has ended, or that may not be looked into, is not.
    fn are_on(&self, pid: Pid, environment: &mut Vec<u8>) -> bool {
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

    /// Kills a process, if it is still the one that was found.
    fn kill(&self, pid: Pid) -> Option<OwnedFd> {
        let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        if !self.are_on(pid, &mut Vec::new()) {
            return None;
        }
        pidfd_send_signal(&process, Signal::KILL).ok()?;
        Some(process)
    }
}

/// All processes but this one.
fn pids() -> impl Iterator<Item = Pid> {
    let own = getpid();
    let pid = |entry: fs::DirEntry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?);
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(pid).filter(move |pid| *pid != own)
}

/// Whether a process without an environment may be about to get one: it has not ended, and is none of the kernel's.
fn is_between(pid: Pid) -> bool {
    Stat::read(pid).is_some_and(|stat| stat.is_alive() && !stat.is_kernel_thread())
}

fn pause() {
    // Nothing can come: this is a sleep, on a thread that may block.
    let waited = poll(&mut [], Timespec::try_from(PAUSE).ok().as_ref());
    if let Err(error) = waited {
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
