//! Whether the daemon's memory stays flat while runs with output come and go: `cargo bench --bench memory`.
//!
//! Its own memory is what counts; the children are as large as they are.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark that cannot go on ends, and it prints its figures"
)]

use std::time::Duration;

use serde_json::{Value, json};
use support::bench::{Caller, Daemon};

/// Runs in all, and between two looks at the memory.
const RUNS: usize = 100_000;
const RUNS_PER_LOOK: usize = 10_000;
/// Jobs of one batch.
const BATCH: usize = 1000;
/// How often the daemon is asked whether it has done all.
const LOOK: Duration = Duration::from_millis(100);

/// Jobs that run now: a command that writes some lines to both of its streams.
fn batch(number: usize) -> Value {
    let script = "for i in 1 2 3 4 5 6 7 8; do echo a line of output that is as long as lines of output are $i; done; echo an error >&2";
    let task = json!({"type": "command", "argv": ["/bin/sh", "-c", script]});
    let job = |index: usize| json!({"id": format!("job-{number}-{index}"), "trigger": {"type": "date"}, "task": task});
    json!({"jobs": (0..BATCH).map(job).collect::<Vec<_>>()})
}

/// Waits until nothing is due, waits or runs.
async fn rest(caller: &mut Caller) {
    while caller.get("/v1/jobs?state=active&limit=1").await["jobs"] != json!([])
        || caller.get("/v1/runs?state=pending&limit=1").await["runs"] != json!([])
        || caller.get("/v1/status").await["running"] != json!(0)
    {
        tokio::time::sleep(LOOK).await;
    }
}

#[tokio::main]
async fn main() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path(), "sqlite://punctual.db").await;
    let mut caller = daemon.caller();
    let mut sizes = Vec::new();
    let begun = tokio::time::Instant::now();
    println!("{:>8}  {:>6}  {:>8}", "runs", "MB", "runs/s");
    for number in 0..RUNS / BATCH {
        caller.post("/v1/jobs/batch", &batch(number)).await;
        let done = (number + 1) * BATCH;
        if done.is_multiple_of(RUNS_PER_LOOK) {
            rest(&mut caller).await;
            sizes.push(daemon.resident_megabytes());
            let rate = u128::try_from(done).unwrap() * 1000 / begun.elapsed().as_millis();
            println!("{done:>8}  {:>6}  {rate:>8}", sizes[sizes.len() - 1]);
        }
    }
    let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
    println!("from {least} to {most} MB: {} MB apart (goal: at most 20)", most - least);
    daemon.stop().await;
}
