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
/// Walks through the processes: some may be started while those before are being killed.
const ROUNDS_MAX: usize = 10;
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
        for process in &dying {
            wait_for(process);
        }
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

    fn find(&self) -> Vec<Pid> {
        let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
        let own = getpid();
        let pid = |entry: fs::DirEntry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?);
        let pids = processes.filter_map(Result::ok).filter_map(pid).filter(|pid| *pid != own);
        let mut environment = Vec::new();
        pids.filter(|pid| self.are_on(*pid, &mut environment)).collect()
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

fn wait_for(process: &OwnedFd) {
    let limit = Timespec::try_from(DEATH_LIMIT).ok();
    let waited = poll(&mut [PollFd::new(process, PollFlags::IN)], limit.as_ref());
    if !matches!(waited, Ok(1)) {
        tracing::warn!("a process that was killed has not ended yet");
    }
}
