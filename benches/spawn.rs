//! What a run of a command costs beside the process itself: a bare loop of spawn and wait in N threads, and pools of
//! processes with N runs in flight, in turn on the same machine. There are two pools: one as the daemon has it without
//! cgroups, and one where each command gets a cgroup of its own, as under the shipped unit (`Delegate=yes`). Each pool is
//! in a process of its own. The second one divides the cgroup that the bench is started in, which takes root, or a unit:
//!
//! `cargo bench --bench spawn [-- RUNS [ROUNDS]]`, or
//! `systemd-run --wait --pipe -p Delegate=yes -p User=… target/release/deps/spawn-… [RUNS [ROUNDS]]`
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench that cannot go on ends, and this one tells its figures"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use punctual::clock::SystemClock;
use punctual::executor::{
    Assignment, Completion, Executor, ExecutorKind, PoolExecutor, PoolSettings,
};
use punctual::job::{JobId, Task};
use punctual::run::{Outcome, RunId};
use punctual::task::builtin::Registry;
use serde_json::{Value, json};
use support::pools::no_worker;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The allocator of the daemon.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PROGRAM: &str = "/bin/true";
/// The argument that makes this program a helper.
const SERVE: &str = "--serve";
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
    pools: PoolExecutor,
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
        let pools =
            PoolExecutor::new(&settings, Registry::default(), clock, completions_in, &no_worker())
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
            forbidden: None,
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

    /// Of one more run.
    async fn exit_code(&mut self) -> i32 {
        self.start();
        let outcome = self.completions.recv().await.unwrap().outcome;
        let Outcome::Succeeded { exit_code: Some(code), .. } = outcome else { return -1 };
        code
    }
}

fn rate(runs: usize, took: Duration) -> f64 {
    f64::from(u32::try_from(runs).unwrap()) / took.as_secs_f64()
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    *numbers.get(numbers.len() / 2).unwrap()
}

/// Another process of this program, which runs commands when it is asked to.
struct Helper {
    child: Child,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Helper {
    /// With cgroups for its commands, or without.
    fn start(cgroups: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(SERVE)
            .env("PUNCTUAL_CGROUP", cgroups)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, answers }
    }

    fn ask(&mut self, question: &str) -> String {
        writeln!(self.child.stdin.as_mut().unwrap(), "{question}").unwrap();
        self.answers.next().unwrap().unwrap()
    }

    /// Runs per second of a kind of command.
    fn measure(&mut self, kind: &str, parallel: usize, runs: usize) -> f64 {
        self.ask(&format!("{kind} {parallel} {runs}")).parse().unwrap()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

fn task(kind: &str) -> Value {
    match kind {
        "plain" => json!({"type": "command", "argv": [PROGRAM]}),
        "shim" => json!({"type": "command", "argv": [PROGRAM], "umask": "022"}),
        // It succeeds if it is in a cgroup that the pool has made.
        _ => json!({"type": "command", "success_codes": [0, 1],
            "argv": ["grep", "-q", "/commands-", "/proc/self/cgroup"]}),
    }
}

/// Answers what the helper's starter asks.
fn serve(runtime: &Runtime) {
    let mut pools = BTreeMap::new();
    for question in std::io::stdin().lines() {
        let question = question.unwrap();
        let [kind, parallel, runs] = question.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let (parallel, runs) = (parallel.parse().unwrap(), runs.parse().unwrap());
        let pool = pools.entry((kind.to_owned(), parallel)).or_insert_with(|| {
            let mut pool = Pool::new(parallel, &task(kind));
            // What is made once is there when it is measured.
            runtime.block_on(pool.run(parallel, 2 * parallel));
            pool
        });
        if kind == "where" {
            println!("{}", runtime.block_on(pool.exit_code()));
            continue;
        }
        // Not on the thread that waits: a runtime's own threads do the work in the daemon.
        println!("{}", rate(runs, runtime.block_on(pool.run(parallel, runs))));
    }
}

fn main() {
    let runtime = Runtime::new().unwrap();
    let guard = runtime.enter();
    if std::env::args().any(|argument| argument == SERVE) {
        serve(&runtime);
        return;
    }
    drop(guard);
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse().ok());
    let (runs, rounds) = (numbers.next().unwrap_or(1000), numbers.next().unwrap_or(5));
    let mut helpers = [Helper::start("0"), Helper::start("1")];
    let [_, cgroups] = &mut helpers;
    if cgroups.ask("where 1 1") != "0" {
        println!(
            "NO CGROUPS: the cgroup of this process cannot be divided; the last columns are without, too"
        );
    }
    println!("{runs} x {PROGRAM} per round, {rounds} rounds in turn, medians in runs per second");
    println!(
        "parallel     bare     pool    ratio   through the shim   in cgroups   of pool   of bare   and shim   of shim"
    );
    for parallel in PARALLEL {
        let mut rates = [const { Vec::new() }; 9];
        for _ in 0..rounds {
            let bare = rate(runs, bare(parallel, runs));
            let [pool, shim] = {
                let [without, _] = &mut helpers;
                ["plain", "shim"].map(|kind| without.measure(kind, parallel, runs))
            };
            let [within, within_shim] = {
                let [_, with] = &mut helpers;
                ["plain", "shim"].map(|kind| with.measure(kind, parallel, runs))
            };
            let round = [
                bare,
                pool,
                pool / bare,
                shim,
                within,
                within / pool,
                within / bare,
                within_shim,
                within_shim / shim,
            ];
            for (all, one) in rates.iter_mut().zip(round) {
                all.push(one);
            }
        }
        let [bare, pool, ratio, shim, within, of_pool, of_bare, within_shim, of_shim] =
            rates.map(median);
        println!(
            "{parallel:>8} {bare:>8.0} {pool:>8.0} {ratio:>8.2} {shim:>18.0} {within:>12.0} {of_pool:>9.2} {of_bare:>9.2} {within_shim:>10.0} {of_shim:>9.2}"
        );
    }
}
