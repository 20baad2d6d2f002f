//! The real program's worker processes: that they work, are counted, and die with their daemon.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::await_holding_lock,
    reason = "a test that cannot go on ends, and has the program for itself"
)]

mod support;
#[path = "support/workers.rs"]
mod workers;

use std::time::Duration;

use punctual::executor::{Executor, WorkerProgram};
use punctual::run::Outcome;
use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Home, PROGRAM};
use workers::{Bench, TIMES, children, children_become, children_of, failure, gone, signal};

/// The program's own worker, whose builtins keep what they keep in this folder.
fn program(home: &Home) -> WorkerProgram {
    let hello = json!({"toutiao": {}, "state_directory": home.path()});
    WorkerProgram { program: PROGRAM.into(), times: TIMES, ..WorkerProgram::own(hello) }
}

#[tokio::test]
async fn a_builtin_runs_in_another_process_and_tells_what_it_came_to_and_cost() {
    let home = Home::new("");
    let mut bench = Bench::new(2, &program(&home));
    let completion = bench.run("noop", &json!({"a": [1, "x"]})).await;
    let result = Some(json!({"a": [1, "x"]}));
    assert_eq!(completion.outcome, Outcome::Succeeded { result, exit_code: None });
    assert!(completion.cost.cpu_micros.is_some());
    assert!(completion.cost.peak_memory.unwrap() > 1_000_000, "{:?}", completion.cost);
    let completion = bench.run("fail", &json!({"message": "no", "permanent": true})).await;
    let (error, exit_code, signal) = ("no".to_owned(), None, None);
    let failed = Outcome::Failed { error, exit_code, signal, permanent: true };
    assert_eq!(completion.outcome, failed);
    bench.stop().await;
}

#[tokio::test]
async fn one_worker_is_ready_before_the_first_run_and_spare_ones_after_it() {
    let home = Home::new("");
    let mut bench = Bench::new(4, &program(&home));
    let first = children_become(|workers| workers.len() == 1).await;
    bench.result("noop", &json!({})).await;
    let all = children_become(|workers| workers.len() == 2).await;
    assert!(all.is_superset(&first));
    bench.resize(1);
    children_become(|workers| workers.len() == 1).await;
    bench.resize(3);
    children_become(|workers| workers.len() == 2).await;
    bench.stop().await;
}

#[tokio::test]
async fn workers_beyond_the_spare_ones_end_when_they_have_nothing_to_do() {
    let home = Home::new("");
    let mut bench = Bench::new(6, &program(&home));
    let runs: Vec<_> =
        (0..4).map(|_| bench.start("sleep", &json!({"seconds": 600}))).collect();
    children_become(|workers| workers.len() == 6).await;
    for run in runs {
        bench.pools.cancel(&run, "enough");
        bench.ended().await;
    }
    children_become(|workers| workers.len() == 2).await;
    bench.result("noop", &json!({})).await;
    bench.stop().await;
}

#[tokio::test]
async fn idle_workers_that_die_are_replaced_and_the_next_runs_never_notice() {
    let home = Home::new("");
    let mut bench = Bench::new(2, &program(&home));
    bench.result("noop", &json!({})).await;
    for _ in 0..5 {
        let before = children_become(|workers| workers.len() == 2).await;
        before.iter().for_each(|worker| signal(*worker, Signal::KILL));
        bench.result("noop", &json!({})).await;
        let replaced = children_become(|workers| workers.len() == 2 && workers.is_disjoint(&before));
        replaced.await;
    }
    bench.stop().await;
}

#[tokio::test]
async fn a_sleep_that_is_cancelled_or_takes_too_long_ends_and_its_worker_lives_on() {
    let home = Home::new("");
    let mut bench = Bench::new(1, &program(&home));
    bench.result("noop", &json!({})).await;
    let worker = children();
    let forever = json!({"seconds": 600});
    let run = bench.start("sleep", &forever);
    // Twice the moment after which a worker hears what it is told.
    tokio::time::sleep(Duration::from_millis(50)).await;
    bench.pools.cancel(&run, "enough");
    let cancelled = Outcome::Cancelled { reason: "enough".to_owned() };
    assert_eq!(bench.ended().await.outcome, cancelled);
    bench.start_within("sleep", &forever, Some(Duration::from_millis(30)));
    let timed_out = Outcome::TimedOut { error: "it did not end within 30ms".to_owned() };
    assert_eq!(bench.ended().await.outcome, timed_out);
    assert_eq!(children(), worker);
    bench.stop().await;
}

#[tokio::test]
async fn a_run_can_be_cancelled_at_any_instant() {
    let home = Home::new("");
    let mut bench = Bench::new(1, &program(&home));
    for micros in (0..40_000).step_by(500) {
        let run = bench.start("sleep", &json!({"seconds": 600}));
        tokio::time::sleep(Duration::from_micros(micros)).await;
        bench.pools.cancel(&run, "enough");
        let cancelled = Outcome::Cancelled { reason: "enough".to_owned() };
        assert_eq!(bench.ended().await.outcome, cancelled, "after {micros} µs");
    }
    bench.stop().await;
}

#[tokio::test]
async fn a_worker_that_is_stopped_costs_its_run_and_nothing_else() {
    let home = Home::new("");
    let mut bench = Bench::new(2, &program(&home));
    bench.result("noop", &json!({})).await;
    children_become(|workers| workers.len() == 2).await;
    let run = bench.start("sleep", &json!({"seconds": 600}));
    // A worker that is busy is not told from the other: both are stopped, and the idle one costs nothing.
    tokio::time::sleep(Duration::from_millis(50)).await;
    children().into_iter().for_each(|worker| signal(worker, Signal::STOP));
    let completion = bench.ended().await;
    assert_eq!(completion.run_id, run);
    let silent = "the worker process did not answer for 2s";
    assert_eq!(failure(&completion), (silent, None, Some(9)));
    // Either it gets the fresh worker, or the stopped one, which certainly has not read it.
    assert_eq!(bench.result("noop", &json!({"a": 1})).await, json!({"a": 1}));
    assert_eq!(bench.result("noop", &json!({"a": 2})).await, json!({"a": 2}));
    bench.stop().await;
}

const CONFIG: &str = "[executors.processpool]\ntype = \"processpool\"\nmax_workers = 2\n";

/// A daemon with a worker that sleeps and one that does not, killed after `prepare` was done to its workers.
async fn nothing_outlives_a_killed_daemon(prepare: impl Fn(i32)) {
    let home = Home::new(CONFIG);
    let (daemon, client) = (home.start(), home.client());
    let sleep = json!({
        "id": "sleep", "executor": "processpool",
        "trigger": {"type": "date", "run_date": "2100-01-01 00:00:00"},
        "task": {"type": "builtin", "name": "sleep", "args": {"seconds": 600}},
    });
    client.add(&sleep).await.unwrap();
    client.run("sleep").await.unwrap();
    let daemon_pid = daemon.pid().as_raw_nonzero().to_string();
    let workers = loop {
        let workers = children_of(&daemon_pid);
        if workers.len() == 2 {
            break workers;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    workers.iter().copied().for_each(prepare);
    daemon.kill();
    for worker in workers {
        gone(worker).await;
    }
}

#[tokio::test]
async fn no_worker_outlives_a_daemon_that_is_killed() {
    nothing_outlives_a_killed_daemon(|_| ()).await;
}

#[tokio::test]
async fn no_worker_outlives_a_daemon_that_is_killed_even_one_that_is_stopped() {
    nothing_outlives_a_killed_daemon(|worker| signal(worker, Signal::STOP)).await;
}

#[tokio::test]
async fn workers_end_with_a_daemon_that_is_stopped_and_are_waited_for() {
    let home = Home::new(CONFIG);
    let (daemon, client) = (home.start(), home.client());
    let noop = json!({
        "id": "noop", "executor": "processpool",
        "trigger": {"type": "date", "run_date": "2100-01-01 00:00:00"},
        "task": {"type": "builtin", "name": "noop"},
    });
    client.add(&noop).await.unwrap();
    let run: Value = support::run_to_end(&client, "noop").await;
    assert_eq!(run["state"], "succeeded");
    let workers = children_of(&daemon.pid().as_raw_nonzero().to_string());
    assert!(!workers.is_empty());
    assert!(daemon.stop().success());
    for worker in workers {
        gone(worker).await;
    }
}
