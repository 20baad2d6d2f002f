//! A pool of worker processes under test, and how to see what it leaves behind.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use punctual::executor::{Completion, WorkerTimes};
use punctual::run::Outcome;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::PATIENCE;
use crate::pools::Bench;

/// What a test sees of processes and open files is what its whole program has: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Times in which also a busy machine gets done what workers should do.
pub const TIMES: WorkerTimes = WorkerTimes {
    start: PATIENCE,
    keep_alive: Duration::from_millis(100),
    silence: PATIENCE,
    grace: PATIENCE,
    idle: Duration::from_millis(200),
};

/// The same for workers that do not say anything: they are not waited for.
pub const SHORT_SILENCE: WorkerTimes = WorkerTimes { silence: Duration::from_secs(2), ..TIMES };
/// The same for workers that do not end when they are asked to.
pub const SHORT_GRACE: WorkerTimes =
    WorkerTimes { grace: Duration::from_secs(1), silence: PATIENCE.saturating_mul(2), ..TIMES };

/// Runs a test for which the whole program is there: it must leave no process and no file open.
pub fn alone(test: impl Future<Output = ()>) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let observer = runtime();
    // The first process has the runtime open what it keeps for good.
    observer.block_on(async {
        assert!(tokio::process::Command::new("/bin/true").status().await.unwrap().success());
    });
    let before = (children(), open_files());
    let own = runtime();
    own.block_on(test);
    drop(own);
    // Threads that have nothing more to do may take a moment to end.
    let waiting = wait_for(|| (children(), open_files()), |after| *after == before);
    if let Err(after) = observer.block_on(waiting) {
        panic!("processes and open files were {before:?} and are {after:?}");
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Looks again and again until that is what is wanted; what it is instead, if it does not become that. It is for what
/// gives no signal when it changes.
async fn wait_for<T>(look: impl Fn() -> T, is_wanted: impl Fn(&T) -> bool) -> Result<T, T> {
    let begun = tokio::time::Instant::now();
    loop {
        let seen = look();
        if is_wanted(&seen) {
            return Ok(seen);
        }
        if begun.elapsed() > PATIENCE {
            return Err(seen);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Stops a pool of workers, after each run has ended once. No process is left.
pub async fn stop(bench: Bench) {
    bench.assert_all_ended().await;
    assert_eq!(children(), BTreeSet::new(), "processes are left");
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The processes that this one has started, and not waited for yet.
pub fn children() -> BTreeSet<i32> {
    children_of("self")
}

/// The processes that a process has started.
pub fn children_of(process: &str) -> BTreeSet<i32> {
    let mut children = BTreeSet::new();
    for thread in std::fs::read_dir(format!("/proc/{process}/task")).unwrap() {
        // A thread may end meanwhile.
        let list = std::fs::read_to_string(thread.unwrap().path().join("children"));
        let list = list.unwrap_or_default();
        children.extend(list.split_whitespace().map(|pid| pid.parse::<i32>().unwrap()));
    }
    children
}

/// Waits until the children are as wanted.
pub async fn children_become(wanted: impl Fn(&BTreeSet<i32>) -> bool) -> BTreeSet<i32> {
    let children = wait_for(children, wanted).await;
    children.unwrap_or_else(|children| panic!("the workers stay {children:?}"))
}

pub fn pid(number: i32) -> Pid {
    Pid::from_raw(number).unwrap()
}

pub fn signal(number: i32, signal: Signal) {
    kill_process(pid(number), signal).unwrap();
}

/// Waits until a process has ended, also if it is not a child of this one.
pub async fn gone(number: i32) {
    let Ok(process) = pidfd_open(pid(number), PidfdFlags::NONBLOCK) else { return };
    let waiting = tokio::task::spawn_blocking(move || {
        let limit = rustix::event::Timespec {
            tv_sec: i64::try_from(PATIENCE.as_secs()).unwrap(),
            tv_nsec: 0,
        };
        let mut ended = [rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut ended, Some(&limit)).unwrap()
    });
    assert_eq!(waiting.await.unwrap(), 1, "process {number} goes on");
}

/// What a failure says: error, exit code, signal.
pub fn failure(completion: &Completion) -> (&str, Option<i32>, Option<i32>) {
    let Outcome::Failed { error, exit_code, signal, permanent: false } = &completion.outcome else {
        panic!("{completion:?}")
    };
    (error, *exit_code, *signal)
}
