//! The pools of an executor by themselves, and what comes back from them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use punctual::clock::SystemClock;
use punctual::executor::{
    Assignment, Completion, Executor, ExecutorKind, LiveRuns, PoolExecutor, PoolSettings,
    WorkerProgram,
};
use punctual::job::{JobId, Task};
use punctual::run::{Execution, Outcome, RunId};
use punctual::task::builtin::Registry;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::{PATIENCE, program};

/// Upper bound on the runs of a test that are in progress at a time.
const RUNS_MAX: usize = 500;

/// The id of the run that a test of HTTP calls makes, unless it sets another one.
pub const RUN: &str = "019a2b3c-4d5e-7f60-8123-456789abcdef";

/// Pools under test, and what comes back from them.
pub struct Bench {
    pub pools: PoolExecutor,
    pub completions: mpsc::Receiver<Completion>,
    /// The pool of runs that are started without the name of one.
    pool: &'static str,
    pub started: usize,
    pub ended: usize,
    /// Sets its runs apart from those of other tests: processes are known by their run.
    series: uuid::Uuid,
}

/// A pool with this many workers.
fn pool(kind: ExecutorKind, max_workers: usize) -> PoolSettings {
    PoolSettings { kind, max_workers }
}

/// The pool `pool` of processes.
fn processes(max_workers: usize) -> BTreeMap<String, PoolSettings> {
    BTreeMap::from([("pool".to_owned(), pool(ExecutorKind::ProcessPool, max_workers))])
}

/// For tests that need no worker process. This program itself, started as one, would run its own tests.
pub fn no_worker() -> WorkerProgram {
    WorkerProgram { program: "/nonexistent/worker".into(), ..WorkerProgram::own(Value::Null) }
}

impl Bench {
    fn new(
        settings: &BTreeMap<String, PoolSettings>,
        pool: &'static str,
        registry: Registry,
        worker: &WorkerProgram,
    ) -> Self {
        let (completions_in, completions) = mpsc::channel(RUNS_MAX);
        let clock = Arc::new(SystemClock);
        let pools = PoolExecutor::new(settings, registry, clock, completions_in, worker);
        let series = uuid::Uuid::now_v7();
        Self { pools, completions, pool, started: 0, ended: 0, series }
    }

    /// A pool of processes for commands.
    pub fn commands() -> Self {
        Self::commands_through(Path::new(program()))
    }

    /// The same, whose commands are started through this program where they have to be.
    pub fn commands_through(shim: &Path) -> Self {
        let settings = processes(RUNS_MAX);
        let mut bench = Self::new(&settings, "pool", Registry::default(), &no_worker());
        bench.pools = bench.pools.with_shim(shim);
        bench
    }

    /// The pools `threads` and `processes` with two workers each. Runs are started in `threads`, unless they say where.
    pub fn two_pools(registry: Registry) -> Self {
        let settings = BTreeMap::from([
            ("threads".to_owned(), pool(ExecutorKind::ThreadPool, 2)),
            ("processes".to_owned(), pool(ExecutorKind::ProcessPool, 2)),
        ]);
        Self::new(&settings, "threads", registry, &no_worker())
    }

    /// A pool of this many processes of this worker.
    pub fn workers(max_workers: usize, worker: &WorkerProgram) -> Self {
        Self::new(&processes(max_workers), "pool", Registry::default(), worker)
    }

    pub fn resize(&mut self, max_workers: usize) {
        self.pools.resize(&processes(max_workers));
    }

    /// A first attempt of a new run.
    pub fn assignment(&mut self, task: &Value) -> Assignment {
        self.started += 1;
        let run_id = format!("{}-{}", self.series, self.started);
        assignment(&run_id, "a job", task)
    }

    pub fn live(&self) -> LiveRuns {
        self.pools.live()
    }

    pub fn hand_over(&mut self, assignment: Assignment) {
        self.pools.start(self.pool, assignment);
    }

    pub fn start(&mut self, task: &Value) -> Execution {
        let assignment = self.assignment(task);
        let execution = assignment.execution();
        self.hand_over(assignment);
        execution
    }

    /// Starts a run in a pool.
    pub fn start_in(&mut self, pool: &str, task: &Value) -> RunId {
        let assignment = self.assignment(task);
        let run_id = assignment.run_id.clone();
        self.pools.start(pool, assignment);
        run_id
    }

    pub fn start_builtin(&mut self, name: &str, args: &Value) -> RunId {
        self.start_builtin_within(name, args, None)
    }

    pub fn start_builtin_within(
        &mut self,
        name: &str,
        args: &Value,
        timeout: Option<Duration>,
    ) -> RunId {
        let task = json!({"type": "builtin", "name": name, "args": args});
        let assignment = Assignment { timeout, ..self.assignment(&task) };
        let run_id = assignment.run_id.clone();
        self.hand_over(assignment);
        run_id
    }

    pub fn cancel(&mut self, (run_id, _): &Execution) {
        self.pools.cancel(run_id, "enough");
    }

    pub async fn ended(&mut self) -> Completion {
        let next = timeout(PATIENCE, self.completions.recv());
        let completion = next.await.expect("nothing ended").unwrap();
        self.ended += 1;
        completion
    }

    /// Runs a task to its end.
    pub async fn run(&mut self, task: &Value) -> Completion {
        let execution = self.start(task);
        let completion = self.ended().await;
        assert_eq!(completion.execution(), execution);
        completion
    }

    /// Makes an HTTP call, and waits for its end.
    pub async fn call(&mut self, call: Value) -> Completion {
        self.hand_over(http_call(call));
        self.ended().await
    }

    /// Runs a builtin to its end.
    pub async fn run_builtin(&mut self, name: &str, args: &Value) -> Completion {
        let run_id = self.start_builtin(name, args);
        let completion = self.ended().await;
        assert_eq!(completion.run_id, run_id);
        completion
    }

    /// Runs a builtin, which has to succeed, and gives its result.
    pub async fn result(&mut self, name: &str, args: &Value) -> Value {
        let completion = self.run_builtin(name, args).await;
        let Outcome::Succeeded { result: Some(result), .. } = completion.outcome else {
            panic!("{name}: {completion:?}")
        };
        result
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

    /// Stops the pools. What has not been reported by then is not reported any more.
    pub async fn assert_nothing_more(mut self) {
        timeout(PATIENCE, self.pools.stop()).await.expect("the pools do not stop");
        drop(self.pools);
        let next = timeout(PATIENCE, self.completions.recv());
        let next = next.await.expect("some work has not ended");
        assert!(next.is_none(), "{next:?}");
    }

    /// Stops the pools, after each run has ended once.
    pub async fn assert_all_ended(self) {
        assert_eq!(self.started, self.ended, "runs that were started, and that have ended");
        self.assert_nothing_more().await;
    }
}

/// The first attempt of a run of a task.
fn assignment(run_id: &str, job_id: &str, task: &Value) -> Assignment {
    Assignment {
        run_id: RunId(run_id.into()),
        job_id: JobId::parse(job_id).unwrap(),
        attempt: 1,
        scheduled_at: None,
        task: Task::parse(task).unwrap_or_else(|error| panic!("{task}: {error}")).into(),
        timeout: None,
        event: None,
        forbidden: None,
    }
}

/// The first attempt of an HTTP call.
pub fn http_call(mut call: Value) -> Assignment {
    call.as_object_mut().unwrap().insert("type".to_owned(), json!("http"));
    assignment(RUN, "job", &call)
}

/// How a command failed.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    pub error: String,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub permanent: bool,
}
