//! Processes that belong to a run, wherever they have gone: a process that leaves its group, its session and its
//! parents behind takes its environment along, and that tells which run it is of.
//!
//! A process that has overwritten its environment is not found so. A cgroup keeps that one too.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

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
/// How the kernel marks its own threads.
const KERNEL_THREAD: u64 = 0x0020_0000;
/// How long a process that is killed is waited for, in each round.
const DEATH_LIMIT: Duration = Duration::from_secs(1);

/// Ends by force all processes on this machine that are left over of these executions; how many there were.
///
/// It blocks: as long as one walk through `/proc` takes if there are none, and else until they are gone.
pub fn end_leftovers(executions: &[Execution]) -> usize {
    let marks = Marks::new(executions);
    let mut killed = BTreeSet::new();
    for _ in 0..ROUNDS_MAX {
        let living = marks.find();
        if living.is_empty() {
            break;
        }
        let dying: Vec<OwnedFd> = living.iter().filter_map(|pid| marks.kill(*pid)).collect();
        dying.iter().for_each(wait_for);
        killed.extend(living.into_iter().map(Pid::as_raw_pid));
    }
    killed.len()
}

/// Processes of an execution that live.
pub(super) fn find(execution: &Execution) -> Vec<Pid> {
    Marks::new(std::slice::from_ref(execution)).find()
}

/// What the environment of a process says of its run: both variables.
struct Marks(Vec<[Vec<u8>; 2]>);

impl Marks {
    fn new(executions: &[Execution]) -> Self {
        let mark = |(run_id, attempt): &Execution| {
            let run_id = format!("PUNCTUAL_RUN_ID={}", run_id.0);
            [run_id.into_bytes(), format!("PUNCTUAL_ATTEMPT={attempt}").into_bytes()]
        };
        Self(executions.iter().map(mark).collect())
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
            } else if environment.is_empty() && is_between(*pid) {
                silent.push(*pid);
            }
        }
        silent
    }

    /// Whether a process is of one of the runs. One that has ended, or that may not be looked into, is not.
    fn are_on(&self, pid: Pid, environment: &mut Vec<u8>) -> bool {
        environment.clear();
        let path = format!("/proc/{}/environ", pid.as_raw_pid());
        let read = File::open(path)
            .and_then(|file| file.take(ENVIRONMENT_BYTES_MAX).read_to_end(environment));
        let has = |mark: &Vec<u8>| environment.split(|byte| *byte == 0).any(|entry| entry == *mark);
        read.is_ok() && self.0.iter().any(|[run_id, attempt]| has(run_id) && has(attempt))
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
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).unwrap_or_default();
    // The name in brackets may hold anything.
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let state = fields.next().unwrap_or("X");
    let flags = fields.nth(5).and_then(|flags| flags.parse::<u64>().ok()).unwrap_or(KERNEL_THREAD);
    !matches!(state, "Z" | "X") && flags & KERNEL_THREAD == 0
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
    let waited = poll(&mut [PollFd::new(process, PollFlags::IN)], limit.as_ref());
    if !matches!(waited, Ok(1)) {
        tracing::warn!("a process that was killed has not ended yet");
    }
}
