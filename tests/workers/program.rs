//! The real program's worker processes: that they work, are counted, and die with their daemon.

use std::collections::BTreeSet;
use std::time::Duration;

use punctual::client::Client;
use punctual::executor::{Executor, WorkerProgram};
use punctual::run::Outcome;
use rustix::process::Signal;
use serde_json::{Value, json};
use support::pools::Bench;
use support::workers::{TIMES, alone, children, children_become, children_of, gone, signal, stop};
use support::{Daemon, Home};

/// The program's own worker, whose builtins keep what they keep in this folder.
fn program(home: &Home) -> WorkerProgram {
    let hello = json!({"toutiao": {}, "state_directory": home.path()});
    WorkerProgram { program: support::program().into(), times: TIMES, ..WorkerProgram::own(hello) }
}

#[test]
fn a_builtin_runs_in_another_process_and_reports_its_outcome_and_cost() {
    alone(async {
        let home = Home::new("");
        let mut bench = Bench::workers(2, &program(&home));
        let completion = bench.run_builtin("noop", &json!({"a": [1, "x"]})).await;
        let result = Some(json!({"a": [1, "x"]}));
        assert_eq!(completion.outcome, Outcome::Succeeded { result, exit_code: None });
        assert!(completion.cost.cpu_micros.is_some());
        assert!(completion.cost.peak_memory.unwrap() > 1_000_000, "{:?}", completion.cost);
        let completion =
            bench.run_builtin("fail", &json!({"message": "no", "permanent": true})).await;
        let (error, exit_code, signal) = ("no".to_owned(), None, None);
        let failed = Outcome::Failed { error, exit_code, signal, permanent: true };
        assert_eq!(completion.outcome, failed);
        stop(bench).await;
    });
}

#[test]
fn one_worker_is_ready_before_the_first_run_and_spare_ones_after_it() {
    alone(async {
        let home = Home::new("");
        let mut bench = Bench::workers(4, &program(&home));
        children_become(|workers| workers.len() == 1).await;
        bench.result("noop", &json!({})).await;
        children_become(|workers| workers.len() == 2).await;
        bench.resize(1);
        children_become(|workers| workers.len() == 1).await;
        bench.resize(3);
        children_become(|workers| workers.len() == 2).await;
        stop(bench).await;
    });
}

#[test]
fn workers_beyond_the_spare_ones_end_when_they_have_nothing_to_do() {
    alone(async {
        let home = Home::new("");
        let mut bench = Bench::workers(6, &program(&home));
        let runs: Vec<_> =
            (0..4).map(|_| bench.start_builtin("sleep", &json!({"seconds": 600}))).collect();
        children_become(|workers| workers.len() == 6).await;
        for run in runs {
            bench.pools.cancel(&run, "enough");
            bench.ended().await;
        }
        children_become(|workers| workers.len() == 2).await;
        bench.result("noop", &json!({})).await;
        stop(bench).await;
    });
}

#[test]
fn idle_workers_that_die_are_replaced_and_the_next_runs_never_notice() {
    alone(async {
        let home = Home::new("");
        let mut bench = Bench::workers(2, &program(&home));
        bench.result("noop", &json!({})).await;
        for _ in 0..5 {
            let before = children_become(|workers| workers.len() == 2).await;
            for worker in &before {
                signal(*worker, Signal::KILL);
            }
            bench.result("noop", &json!({})).await;
            let replaced =
                children_become(|workers| workers.len() == 2 && workers.is_disjoint(&before));
            replaced.await;
        }
        stop(bench).await;
    });
}

#[test]
fn a_sleep_that_is_cancelled_or_takes_too_long_ends_and_its_worker_lives_on() {
    alone(async {
        let home = Home::new("");
        let mut bench = Bench::workers(1, &program(&home));
        bench.result("noop", &json!({})).await;
        let worker = children();
        let forever = json!({"seconds": 600});
        let run = bench.start_builtin("sleep", &forever);
        // Twice the time after which a worker reads its messages.
        tokio::time::sleep(Duration::from_millis(50)).await;
        bench.pools.cancel(&run, "enough");
        let cancelled = Outcome::Cancelled { reason: "enough".to_owned() };
        assert_eq!(bench.ended().await.outcome, cancelled);
        bench.start_builtin_within("sleep", &forever, Some(Duration::from_millis(30)));
        let timed_out = Outcome::TimedOut { error: "it did not end within 30ms".to_owned() };
        assert_eq!(bench.ended().await.outcome, timed_out);
        assert_eq!(children(), worker);
        stop(bench).await;
    });
}

#[test]
fn a_run_can_be_cancelled_at_any_instant() {
    alone(async {
        let home = Home::new("");
        let mut bench = Bench::workers(1, &program(&home));
        bench.result("noop", &json!({})).await;
        let worker = children();
        for micros in (0..40_000).step_by(500) {
            let run = bench.start_builtin("sleep", &json!({"seconds": 600}));
            // Without a pause the call and the cancel can reach the worker together.
            tokio::time::sleep(Duration::from_micros(micros)).await;
            bench.pools.cancel(&run, "enough");
            let cancelled = Outcome::Cancelled { reason: "enough".to_owned() };
            assert_eq!(bench.ended().await.outcome, cancelled, "after {micros} µs");
        }
        assert_eq!(children(), worker, "it has ended each run by itself");
        stop(bench).await;
    });
}

const CONFIG: &str = "[executors.processpool]\ntype = \"processpool\"\nmax_workers = 1\n";

/// A job of the pool of processes that is not due.
fn job(name: &str, args: &Value) -> Value {
    json!({
        "id": name, "executor": "processpool",
        "trigger": {"type": "date", "run_date": "2100-01-01 00:00:00"},
        "task": {"type": "builtin", "name": name, "args": args},
    })
}

/// The workers of a daemon, once one of them has done a run.
async fn workers_of(daemon: &Daemon, client: &Client) -> BTreeSet<i32> {
    client.add(&job("noop", &json!({}))).await.unwrap();
    assert_eq!(support::run_to_end(client, "noop").await["state"], "succeeded");
    let workers = children_of(&daemon.pid().as_raw_nonzero().to_string());
    assert_eq!(workers.len(), 1);
    workers
}

/// A daemon that is killed after `prepare` was done to its worker, which has a run.
async fn nothing_outlives_a_killed_daemon(prepare: impl Fn(i32)) {
    let home = Home::new(CONFIG);
    let (daemon, client) = (home.start(), home.client());
    let workers = workers_of(&daemon, &client).await;
    client.add(&job("sleep", &json!({"seconds": 600}))).await.unwrap();
    client.run("sleep").await.unwrap();
    workers.iter().copied().for_each(prepare);
    daemon.kill();
    for worker in workers {
        gone(worker).await;
    }
}

#[test]
fn no_worker_outlives_a_daemon_that_is_killed() {
    alone(async {
        nothing_outlives_a_killed_daemon(|_| ()).await;
    });
}

#[test]
fn no_worker_outlives_a_daemon_that_is_killed_even_one_that_is_stopped() {
    alone(async {
        nothing_outlives_a_killed_daemon(|worker| signal(worker, Signal::STOP)).await;
    });
}

#[test]
fn workers_end_with_a_daemon_that_is_stopped_and_are_waited_for() {
    alone(async {
        let home = Home::new(CONFIG);
        let (daemon, client) = (home.start(), home.client());
        let workers = workers_of(&daemon, &client).await;
        assert!(daemon.stop().success());
        for worker in workers {
            gone(worker).await;
        }
    });
}
