//! Calls over HTTP against a server whose every byte the test decides.

mod answers;
mod asks;
mod ends;
mod secrets;
mod tls;

use std::collections::BTreeMap;
use std::sync::Arc;

use punctual::clock::SystemClock;
use punctual::executor::{
    Assignment, Completion, Executor, ExecutorKind, PoolExecutor, PoolSettings, WorkerProgram,
};
use punctual::job::{JobId, Task};
use punctual::run::{Outcome, RunId};
use punctual::task::builtin::Registry;
use serde_json::{Value, json};
use support::PATIENCE;
use tokio::sync::mpsc;

/// The id of the run that a test makes, unless it says otherwise.
const RUN: &str = "019a2b3c-4d5e-7f60-8123-456789abcdef";

/// The pools `threads` and `processes`, each with two workers, and what comes back from them.
struct Bench {
    pools: PoolExecutor,
    completions: mpsc::Receiver<Completion>,
}

impl Bench {
    fn new() -> Self {
        let pool = |kind| PoolSettings { kind, max_workers: 2 };
        let settings = BTreeMap::from([
            ("threads".to_owned(), pool(ExecutorKind::ThreadPool)),
            ("processes".to_owned(), pool(ExecutorKind::ProcessPool)),
        ]);
        let (completions_in, completions) = mpsc::channel(100);
        // Nothing here needs a worker process. The test itself, started as one, would run its own tests.
        let none = "/nonexistent/worker".into();
        let worker = WorkerProgram { program: none, ..WorkerProgram::own(Value::Null) };
        let clock = Arc::new(SystemClock);
        let pools =
            PoolExecutor::new(&settings, Registry::default(), clock, completions_in, &worker);
        Self { pools, completions }
    }

    fn start(&mut self, assignment: Assignment) {
        self.pools.start("threads", assignment);
    }

    async fn ended(&mut self) -> Completion {
        let next = tokio::time::timeout(PATIENCE, self.completions.recv());
        next.await.expect("nothing ended").unwrap()
    }

    /// Makes a call and waits for its end.
    async fn call(&mut self, call: Value) -> Completion {
        self.start(assignment(call));
        self.ended().await
    }
}

/// The first attempt of a call.
fn assignment(mut call: Value) -> Assignment {
    call.as_object_mut().unwrap().insert("type".to_owned(), json!("http"));
    Assignment {
        run_id: RunId(RUN.into()),
        job_id: JobId::parse("job").unwrap(),
        attempt: 1,
        scheduled_at: None,
        task: Task::parse(&call).unwrap().into(),
        timeout: None,
        event: None,
        forbidden: None,
    }
}

/// The result of a run that has succeeded.
fn result(completion: &Completion) -> &Value {
    let Outcome::Succeeded { result: Some(result), .. } = &completion.outcome else {
        panic!("{completion:?}");
    };
    result
}

/// The error of a run that has failed, and whether it would fail again.
fn failure(completion: &Completion) -> (&str, bool) {
    let Outcome::Failed { error, permanent, .. } = &completion.outcome else {
        panic!("{completion:?}");
    };
    (error, *permanent)
}
