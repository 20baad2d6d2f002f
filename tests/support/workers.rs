//! A pool of worker processes under test, and how to see what it leaves behind.
#![allow(clippy::allow_attributes, dead_code, reason = "each test file uses its own part")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests: they may end a test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use punctual::clock::SystemClock;
use punctual::executor::{
    Assignment, Completion, Executor, ExecutorKind, PoolSettings, Pools, WorkerProgram, WorkerTimes,
};
use punctual::job::{JobId, Task};
use punctual::run::{Outcome, RunId};
use punctual::task::builtin::Registry;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::support::PATIENCE;

/// What a test sees of processes and open files is what its whole program has: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Waits that are short enough for a test, and long enough for a busy machine.
pub(crate) const TIMES: WorkerTimes = WorkerTimes {
    start: Duration::from_secs(5),
    beat: Duration::from_millis(100),
    silence: Duration::from_secs(2),
    grace: Duration::from_secs(1),
    idle: Duration::from_millis(200),
};

/// The pool `pool`, and what comes back from it.
pub(crate) struct Bench {
    pub(crate) pools: Pools,
    completions: mpsc::Receiver<Completion>,
    started: u32,
    ended: u32,
    files: usize,
    _alone: MutexGuard<'static, ()>,
}

impl Bench {
    /// A pool of so many workers.
    pub(crate) fn new(max_workers: usize, worker: &WorkerProgram) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (files, settings) = (open_files(), settings(max_workers));
        assert_eq!(children(), BTreeSet::new(), "a former test has left processes");
        let (completions_in, completions) = mpsc::channel(64);
        let (registry, clock) = (Registry::default(), Arc::new(SystemClock));
        let pools = Pools::new(&settings, registry, clock, completions_in, worker);
        Self { pools, completions, started: 0, ended: 0, files, _alone: alone }
    }

    pub(crate) fn resize(&mut self, max_workers: usize) {
        self.pools.resize(&settings(max_workers));
    }

    pub(crate) fn start(&mut self, name: &str, args: &Value) -> RunId {
        self.start_within(name, args, None)
    }

    pub(crate) fn start_within(
        &mut self,
        name: &str,
        args: &Value,
        timeout: Option<Duration>,
    ) -> RunId {
        self.started += 1;
        let run_id = RunId(format!("run-{}", self.started).into());
        let task = json!({"type": "builtin", "name": name, "args": args});
        let assignment = Assignment {
            run_id: run_id.clone(),
            job_id: JobId::parse("job").unwrap(),
            attempt: 1,
            scheduled_at: None,
            task: Task::parse(&task).unwrap().into(),
            timeout,
            event: None,
        };
        self.pools.start("pool", assignment);
        run_id
    }

    pub(crate) async fn ended(&mut self) -> Completion {
        let next = timeout(PATIENCE, self.completions.recv());
        let completion = next.await.expect("nothing ended").unwrap();
        self.ended += 1;
        completion
    }

    /// Runs a builtin to its end.
    pub(crate) async fn run(&mut self, name: &str, args: &Value) -> Completion {
        let run_id = self.start(name, args);
        let completion = self.ended().await;
        assert_eq!(completion.run_id, run_id);
        completion
    }

    /// Runs a builtin that succeeds, and gives its result.
    pub(crate) async fn result(&mut self, name: &str, args: &Value) -> Value {
        let completion = self.run(name, args).await;
        match completion.outcome {
            Outcome::Succeeded { result: Some(result), .. } => result,
            other => panic!("{name}: {other:?}, {:?}", completion.output),
        }
    }

    /// Each run has ended once; nothing is left of the pool after its stop: no run, no process, no open file.
    pub(crate) async fn stop(mut self) {
        timeout(PATIENCE, self.pools.stop()).await.expect("the pool does not stop");
        drop(self.pools);
        let more = timeout(PATIENCE, self.completions.recv()).await.expect("some work goes on");
        assert!(more.is_none(), "{more:?}");
        assert_eq!(self.started, self.ended, "runs that were started, and that have ended");
        assert_eq!(children(), BTreeSet::new(), "processes are left");
        assert_eq!(open_files(), self.files, "files are left open");
    }
}

fn settings(max_workers: usize) -> BTreeMap<String, PoolSettings> {
    let pool = PoolSettings { kind: ExecutorKind::ProcessPool, max_workers };
    BTreeMap::from([("pool".to_owned(), pool)])
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The processes that this one has started, and not waited for yet.
pub(crate) fn children() -> BTreeSet<i32> {
    children_of("self")
}

/// The processes that a process has started.
pub(crate) fn children_of(process: &str) -> BTreeSet<i32> {
    let mut children = BTreeSet::new();
    for thread in std::fs::read_dir(format!("/proc/{process}/task")).unwrap() {
        // A thread may end meanwhile.
        let list = std::fs::read_to_string(thread.unwrap().path().join("children"));
        let list = list.unwrap_or_default();
        children.extend(list.split_whitespace().map(|pid| pid.parse::<i32>().unwrap()));
    }
    children
}

/// Waits until the children are as wanted; they tell nobody when they come.
pub(crate) async fn children_become(wanted: impl Fn(&BTreeSet<i32>) -> bool) -> BTreeSet<i32> {
    let looking = async {
        loop {
            let children = children();
            if wanted(&children) {
                return children;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let children = timeout(PATIENCE, looking).await;
    children.unwrap_or_else(|_| panic!("the workers stay {:?}", self::children()))
}

pub(crate) fn pid(number: i32) -> Pid {
    Pid::from_raw(number).unwrap()
}

pub(crate) fn signal(number: i32, signal: Signal) {
    kill_process(pid(number), signal).unwrap();
}

/// Waits until a process has ended, whoever's child it is.
pub(crate) async fn gone(number: i32) {
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
pub(crate) fn failure(completion: &Completion) -> (&str, Option<i32>, Option<i32>) {
    match &completion.outcome {
        Outcome::Failed { error, exit_code, signal, permanent: false } => {
            (error, *exit_code, *signal)
        }
        other => panic!("{other:?}"),
    }
}
