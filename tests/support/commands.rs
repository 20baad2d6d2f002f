//! A pool of processes by itself, and ways to see what its runs have left on the machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use punctual::clock::{SystemClock, Timestamp};
use punctual::executor::{
    Assignment, Completion, Executor, ExecutorKind, LiveRuns, PoolExecutor, PoolSettings,
    WorkerProgram,
};
use punctual::job::{JobId, Task};
use punctual::run::{Execution, Outcome, RunId};
use punctual::task::builtin::Registry;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{PATIENCE, program};

/// Runs at a time, at most.
const RUNS_MAX: usize = 500;

/// A pool of processes, and what comes back from it.
pub struct Bench {
    pools: PoolExecutor,
    completions: mpsc::Receiver<Completion>,
    started: usize,
    /// Sets its runs apart from those of other tests: processes are known by their run.
    series: uuid::Uuid,
}

impl Bench {
    pub fn new() -> Self {
        Self::with_shim(Path::new(program()))
    }

    /// A pool that starts commands through this program where it has to.
    pub fn with_shim(shim: &Path) -> Self {
        let (completions_in, completions) = mpsc::channel(RUNS_MAX);
        let pool = PoolSettings { kind: ExecutorKind::ProcessPool, max_workers: RUNS_MAX };
        let settings = BTreeMap::from([("pool".to_owned(), pool)]);
        // Nothing here needs a worker process. The test itself, started as one, would run its own tests.
        let none = "/nonexistent/worker".into();
        let worker = WorkerProgram { program: none, ..WorkerProgram::own(Value::Null) };
        let clock = Arc::new(SystemClock);
        let pools =
            PoolExecutor::new(&settings, Registry::default(), clock, completions_in, &worker);
        let series = uuid::Uuid::now_v7();
        Self { pools: pools.with_shim(shim), completions, started: 0, series }
    }

    /// A first attempt of a new run, by hand.
    pub fn assignment(&mut self, task: &Value) -> Assignment {
        self.started += 1;
        Assignment {
            run_id: RunId(format!("{}-{}", self.series, self.started).into()),
            job_id: JobId::parse("a job").unwrap(),
            attempt: 1,
            scheduled_at: None,
            task: Task::parse(task).unwrap_or_else(|error| panic!("{task}: {error}")).into(),
            timeout: None,
            event: None,
            forbidden: None,
        }
    }

    pub fn live(&self) -> LiveRuns {
        self.pools.live()
    }

    pub fn hand_over(&mut self, assignment: Assignment) {
        self.pools.start("pool", assignment);
    }

    pub fn start(&mut self, task: &Value) -> Execution {
        let assignment = self.assignment(task);
        let execution = assignment.execution();
        self.hand_over(assignment);
        execution
    }

    pub fn cancel(&mut self, (run_id, _): &Execution) {
        self.pools.cancel(run_id, "enough");
    }

    pub async fn ended(&mut self) -> Completion {
        let next = tokio::time::timeout(PATIENCE, self.completions.recv());
        next.await.expect("nothing ended").unwrap()
    }

    /// Runs a command to its end.
    pub async fn run(&mut self, task: &Value) -> Completion {
        let execution = self.start(task);
        let completion = self.ended().await;
        assert_eq!(completion.execution(), execution);
        completion
    }

    /// Runs a command, which has to succeed, and gives what it wrote.
    pub async fn output(&mut self, task: &Value) -> String {
        let completion = self.run(task).await;
        let is_success = matches!(completion.outcome, Outcome::Succeeded { .. });
        assert!(is_success, "{task}: {:?} {}", completion.outcome, completion.output.text());
        completion.output.text()
    }

    /// Runs a command, which has to fail.
    pub async fn failure(&mut self, task: &Value) -> Failure {
        let outcome = self.run(task).await.outcome;
        let Outcome::Failed { error, exit_code, signal, permanent } = outcome else {
            panic!("{task}: {outcome:?}");
        };
        Failure { error, exit_code, signal, permanent }
    }

    /// Ends all work; whatever has not been reported by now will not be.
    pub async fn assert_nothing_more(mut self) {
        self.pools.stop().await;
        drop(self.pools);
        let next = tokio::time::timeout(PATIENCE, self.completions.recv());
        let next = next.await.expect("some work has not ended");
        assert!(next.is_none(), "{next:?}");
    }
}

/// How a command failed.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    pub error: String,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub permanent: bool,
}

pub fn shell(script: &str) -> Value {
    json!({"type": "command", "shell": script})
}

/// A command with more keys.
pub fn with(mut task: Value, more: Value) -> Value {
    let Value::Object(more) = more else { panic!("{more}") };
    task.as_object_mut().unwrap().extend(more);
    task
}

pub fn cancelled() -> Outcome {
    Outcome::Cancelled { reason: "enough".to_owned() }
}

/// Numbers of the processes that live and are of a run, as they say themselves.
pub fn living((run_id, _): &Execution) -> Vec<i32> {
    let mark = format!("PUNCTUAL_RUN_ID={}", run_id.0);
    let is_marked = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
    };
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
    processes.filter_map(|name| name.to_str()?.parse().ok()).filter(is_marked).collect()
}

/// Files of this process that a run may open: pipes, processes and memory.
pub fn open_files() -> usize {
    let kinds = ["pipe:", "pidfd", "anon_inode:[pidfd]", "/memfd:"];
    let is_of_run = |entry: &fs::DirEntry| {
        let place = fs::read_link(entry.path()).unwrap_or_default();
        kinds.iter().any(|kind| place.to_string_lossy().starts_with(kind))
    };
    fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter(|entry| is_of_run(entry.as_ref().unwrap()))
        .count()
}

/// Memory of this process, in bytes.
pub fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// An instant that stands for an occurrence.
pub fn occurrence() -> Timestamp {
    "2027-01-02T03:04:05.678901Z".parse().unwrap()
}
