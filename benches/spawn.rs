//! What a run of a command costs beside the process itself: a bare loop of spawn and wait in N threads, and a pool of
//! processes with N runs in flight, in turn on the same machine. `cargo bench --bench spawn [-- RUNS [ROUNDS]]`
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench that cannot go on ends, and this one tells its figures"
)]

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use punctual::clock::SystemClock;
use punctual::executor::{
    Assignment, Completion, Executor, ExecutorKind, PoolSettings, Pools, WorkerProgram,
};
use punctual::job::{JobId, Task};
use punctual::run::{Outcome, RunId};
use punctual::task::builtin::Registry;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The allocator of the daemon.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PROGRAM: &str = "/bin/true";
/// Processes at a time.
const PARALLEL: [usize; 3] = [1, 5, 20];

/// Threads that do nothing but spawn and wait.
fn bare(parallel: usize, runs: usize) -> Duration {
    let left = AtomicUsize::new(runs);
    let begun = Instant::now();
    let take = || {
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    };
    let work = || {
        while take() {
            let mut child = Command::new(PROGRAM).stdin(Stdio::null()).spawn().unwrap();
            assert!(child.wait().unwrap().success());
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..parallel {
            scope.spawn(work);
        }
    });
    begun.elapsed()
}

/// A pool of processes that is always full.
struct Pool {
    pools: Pools,
    completions: mpsc::Receiver<Completion>,
    task: Arc<Task>,
    started: usize,
}

impl Pool {
    fn new(parallel: usize, task: &Value) -> Self {
        let (completions_in, completions) = mpsc::channel(parallel);
        let settings = PoolSettings { kind: ExecutorKind::ProcessPool, max_workers: parallel };
        let settings = BTreeMap::from([("pool".to_owned(), settings)]);
        let clock = Arc::new(SystemClock);
        // Nothing here needs a worker process. The test itself, started as one, would run its own tests.
        let none = "/nonexistent/worker".into();
        let worker = WorkerProgram { program: none, ..WorkerProgram::own(Value::Null) };
        let pools = Pools::new(&settings, Registry::default(), clock, completions_in, &worker)
            .with_shim(env!("CARGO_BIN_EXE_punctual"));
        Self { pools, completions, task: Task::parse(task).unwrap().into(), started: 0 }
    }

    fn start(&mut self) {
        self.started += 1;
        let run_id = format!("019ab7c2-0000-7000-8000-{:012}", self.started);
        let assignment = Assignment {
            run_id: RunId(run_id.into()),
            job_id: JobId::parse("bench").unwrap(),
            attempt: 1,
            scheduled_at: None,
            task: Arc::clone(&self.task),
            timeout: None,
            event: None,
        };
        self.pools.start("pool", assignment);
    }

    async fn run(&mut self, parallel: usize, runs: usize) -> Duration {
        let begun = Instant::now();
        (0..parallel.min(runs)).for_each(|_| self.start());
        for ended in 0..runs {
            let completion = self.completions.recv().await.unwrap();
            let is_success = matches!(completion.outcome, Outcome::Succeeded { .. });
            assert!(is_success, "{:?}", completion.outcome);
            if ended + parallel < runs {
                self.start();
            }
        }
        begun.elapsed()
    }
}

fn rate(runs: usize, took: Duration) -> f64 {
    f64::from(u32::try_from(runs).unwrap()) / took.as_secs_f64()
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    *numbers.get(numbers.len() / 2).unwrap()
}

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse().ok());
    let (runs, rounds) = (numbers.next().unwrap_or(1000), numbers.next().unwrap_or(5));
    let runtime = Runtime::new().unwrap();
    let guard = runtime.enter();
    println!("{runs} x {PROGRAM} per round, {rounds} rounds in turn, medians in runs per second");
    println!("parallel     bare     pool    ratio   through the shim");
    for parallel in PARALLEL {
        let plain = json!({"type": "command", "argv": [PROGRAM]});
        let niced = json!({"type": "command", "argv": [PROGRAM], "umask": "022"});
        let mut pools = [Pool::new(parallel, &plain), Pool::new(parallel, &niced)];
        let mut rates = [const { Vec::new() }; 4];
        for _ in 0..rounds {
            let bare = rate(runs, bare(parallel, runs));
            let [pool, shim] = &mut pools;
            // Not on the thread that waits: a runtime's own threads do the work in the daemon.
            let pool = rate(runs, runtime.block_on(pool.run(parallel, runs)));
            let shim = rate(runs, runtime.block_on(shim.run(parallel, runs)));
            for (all, one) in rates.iter_mut().zip([bare, pool, pool / bare, shim]) {
                all.push(one);
            }
        }
        let [bare, pool, ratio, shim] = rates.map(median);
        println!("{parallel:>8} {bare:>8.0} {pool:>8.0} {ratio:>8.2} {shim:>18.0}");
    }
    drop(guard);
}
