//! What isolation costs: `cargo bench --bench workers`.
//!
//! Builtins that do nothing go through a pool of worker processes, beside messages of the same size that go to a
//! process and back over a bare socket pair. Both drift on a shared machine, so they take turns: compare the ratios.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "a benchmark that cannot go on ends, and it prints rounded figures"
)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use punctual::clock::SystemClock;
use punctual::executor::{
    Assignment, Completion, Executor, ExecutorKind, PoolExecutor, PoolSettings, WorkerProgram,
};
use punctual::job::{Builtin, JobId, Task};
use punctual::run::{Outcome, RunId};
use punctual::task::builtin::Registry;
use serde_json::{Map, json};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// Builtins, and bare round trips, of one measurement.
const CALLS: usize = 10_000;
/// Measurements of each, in turns.
const ROUNDS: usize = 7;
/// Workers at a time.
const WORKERS: [usize; 3] = [1, 2, 4];
/// The argument that makes this program the other end of a bare socket pair.
const ECHO: &str = "--echo";
const PROGRAM: &str = env!("CARGO_BIN_EXE_punctual");
/// How long a measurement may take.
const PATIENCE: Duration = Duration::from_mins(1);

fn main() {
    if std::env::args().any(|argument| argument == ECHO) {
        return echo();
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    println!("{CALLS} calls, {ROUNDS} rounds, medians; {} bytes a call", message().len());
    for workers in WORKERS {
        let mut bench = runtime.block_on(Bench::new(workers));
        let mut pairs: Vec<Pair> = (0..workers).map(|_| Pair::start()).collect();
        let (mut bare, mut pooled) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            bare.push(bare_rate(&mut pairs));
            let rate;
            (bench, rate) = runtime.block_on(bench.rate());
            pooled.push(rate);
        }
        runtime.block_on(bench.pools.stop());
        let ratios = bare.iter().zip(&pooled).map(|(bare, pooled)| pooled / bare).collect();
        println!(
            "{workers} workers: bare {:>7.0}/s, pool {:>7.0}/s, ratio {:.2}",
            median(bare),
            median(pooled),
            median(ratios)
        );
    }
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap()
}

/// Sends back what it reads, until there is no more.
fn echo() {
    let mut socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let mut message = message();
    while socket.read_exact(&mut message).is_ok() {
        socket.write_all(&message).unwrap();
    }
}

/// As many bytes as a call of `noop` has.
fn message() -> Vec<u8> {
    let call = json!({"call": {
        "run_id": run_id(0), "job_id": "job", "attempt": 1, "scheduled_at": null, "name": "noop", "args": {}, "event": null,
    }});
    let mut message = vec![0; 4];
    message.extend_from_slice(call.to_string().as_bytes());
    message
}

fn run_id(number: usize) -> String {
    format!("01890a5d-ac96-774b-bcce-{number:012}")
}

/// A process at the other end of a socket pair.
struct Pair {
    socket: UnixStream,
    child: Child,
}

impl Pair {
    fn start() -> Self {
        let (socket, other) = UnixStream::pair().unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .arg(ECHO)
            .stdin(Stdio::from(OwnedFd::from(other)))
            .spawn()
            .unwrap();
        Self { socket, child }
    }

    fn go(&mut self, trips: usize) {
        let mut message = message();
        for _ in 0..trips {
            self.socket.write_all(&message).unwrap();
            self.socket.read_exact(&mut message).unwrap();
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Round trips in a second, with a thread for each pair.
fn bare_rate(pairs: &mut [Pair]) -> f64 {
    let trips = CALLS / pairs.len();
    let total = trips * pairs.len();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for pair in pairs {
            scope.spawn(move || pair.go(trips));
        }
    });
    total as f64 / begun.elapsed().as_secs_f64()
}

/// A pool with as many runs under way as it has workers.
struct Bench {
    pools: PoolExecutor,
    completions: mpsc::Receiver<Completion>,
    workers: usize,
    task: Arc<Task>,
    started: usize,
    _folder: TempDir,
}

impl Bench {
    async fn new(workers: usize) -> Self {
        let folder = TempDir::new().unwrap();
        let pool = PoolSettings { kind: ExecutorKind::ProcessPool, max_workers: workers };
        let settings = BTreeMap::from([("processes".to_owned(), pool)]);
        let (completions_in, completions) = mpsc::channel(1024);
        let hello = json!({"toutiao": {}, "state_directory": folder.path()});
        let worker = WorkerProgram { program: PROGRAM.into(), ..WorkerProgram::own(hello) };
        let clock = Arc::new(SystemClock);
        let pools =
            PoolExecutor::new(&settings, Registry::default(), clock, completions_in, &worker);
        let task = Arc::new(Task::Builtin(Arc::new(Builtin {
            name: "noop".to_owned(),
            args: Map::new().into(),
        })));
        let bench = Self { pools, completions, workers, task, started: 0, _folder: folder };
        // All workers have been started when this is measured.
        bench.rate().await.0
    }

    fn start(&mut self) {
        self.started += 1;
        let assignment = Assignment {
            run_id: RunId(run_id(self.started).into()),
            job_id: JobId::parse("job").unwrap(),
            attempt: 1,
            scheduled_at: None,
            task: Arc::clone(&self.task),
            timeout: None,
            event: None,
            forbidden: None,
        };
        self.pools.start("processes", assignment);
    }

    /// Calls in a second. A task of the runtime makes them, as the scheduler's is one.
    async fn rate(mut self) -> (Self, f64) {
        let tasks = TaskTracker::new();
        let measuring = tasks.spawn(async move {
            let rate = self.measure().await;
            (self, rate)
        });
        measuring.await.unwrap()
    }

    async fn measure(&mut self) -> f64 {
        let (begun, mut ended, mut batch) = (Instant::now(), 0, Vec::new());
        let last = self.started + CALLS;
        (0..self.workers).for_each(|_| self.start());
        while ended < CALLS {
            let receiving = self.completions.recv_many(&mut batch, 1024);
            ended += tokio::time::timeout(PATIENCE, receiving).await.unwrap();
            let free = batch.len().min(last - self.started);
            (0..free).for_each(|_| self.start());
            for completion in batch.drain(..) {
                assert!(matches!(completion.outcome, Outcome::Succeeded { .. }), "{completion:?}");
            }
        }
        CALLS as f64 / begun.elapsed().as_secs_f64()
    }
}
