//! What a daemon does in a second, measured over its real socket: `cargo bench --bench load`.
//!
//! Every figure stands beside what the disk and a bare SQLite allow in the same run, because on a
//! shared machine both drift: compare the ratios.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a benchmark that cannot go on ends, and it prints rounded figures"
)]

mod disk;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use punctual::clock::{Clock, SystemClock};
use serde_json::{Value, json};
use support::bench::{Caller, Daemon};
use support::servers::postgres::PostgresServer;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// How long each rate of adds is measured.
const ADD_TIME: Duration = Duration::from_secs(4);
/// Jobs of one batch, and batches.
const BATCH_JOBS: usize = 1000;
const BATCHES: usize = 50;
/// Jobs that wait, in another batch for each second.
const WAITING: usize = 1_000_000;
/// How long an idle daemon is watched.
const IDLE: Duration = Duration::from_secs(5);
/// One-shots that fall due together.
const BURST: usize = 20_000;
/// Commands that fall due together.
const COMMANDS: usize = 500;
/// Single jobs on an idle daemon.
const SINGLES: i64 = 200;

fn once(id: &str, at: DateTime<Utc>, task: &Value) -> Value {
    json!({"id": id, "trigger": {"type": "date", "run_date": at.to_rfc3339()}, "task": task})
}

fn noop() -> Value {
    json!({"type": "builtin", "name": "noop"})
}

fn report(what: &str, figure: &str, goal: &str) {
    println!("{what:<52} {figure:<44} {goal}");
}

/// The value below which this share of the sorted values lies.
fn quantile<T: Copy>(sorted: &[T], share: f64) -> T {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

#[tokio::main]
async fn main() {
    // Cargo passes `--bench` on; what is left names the stores to measure.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let wants = |store: &str| wanted.is_empty() || wanted.iter().any(|word| word == store);
    if wants("sqlite") {
        println!("SQLite");
        report("disk", &disk::probe().await, "");
        measure("sqlite://punctual.db").await;
        report("disk, again", &disk::probe().await, "");
    }
    if wants("postgres") {
        println!("PostgreSQL");
        let Some(server) = PostgresServer::start() else { return };
        report("server", &disk::probe_postgres(&server.url()).await, "");
        measure(&server.database("load")).await;
        report("server, again", &disk::probe_postgres(&server.url()).await, "");
    }
}

/// All figures, with one store.
async fn measure(store: &str) {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let daemon = Daemon::start(home.path(), store).await;
    for (clients, goal) in [(1, "≥ 3.5 k/s"), (8, "≥ 15 k/s"), (64, "≥ 50 k/s, p99 ≤ 5 ms")]
    {
        adds(&daemon, clients, goal).await;
    }
    batches(&daemon).await;
    lateness(&daemon).await;
    burst(&daemon).await;
    commands(&daemon).await;
    waiting(daemon, home.path(), store).await;
}

/// Durable adds in batches, through one client and through two.
async fn batches(daemon: &Daemon) {
    for clients in [1, 2] {
        let mut adding = Vec::new();
        let mut ready = Vec::new();
        for client in 0..clients {
            // What a caller needs to write a batch down is not the daemon's time.
            let bodies: Vec<String> = (0..BATCHES / clients)
                .map(|batch| batch_of(&format!("batch-{clients}-{client}-{batch}"), 0))
                .collect();
            ready.push((daemon.adder().await, bodies));
        }
        let (tracker, began) = (TaskTracker::new(), Instant::now());
        for (mut adder, bodies) in ready {
            adding.push(
                tracker.spawn(async move { adder.post_all("/v1/jobs/batch", &bodies).await }),
            );
        }
        for added in adding {
            added.await.unwrap();
        }
        let rate = (BATCHES * BATCH_JOBS) as f64 / began.elapsed().as_secs_f64();
        let what = format!("durable adds, batches of 1,000, {clients} client(s)");
        report(&what, &format!("{rate:.0}/s"), "≥ 250 k/s");
    }
}

/// A batch of jobs that are due in the far future, and this many seconds.
fn batch_of(prefix: &str, seconds: i64) -> String {
    let far = DateTime::from_timestamp(4_102_444_800 + seconds, 0).unwrap();
    let job = |number| once(&format!("{prefix}-{number}"), far, &noop());
    json!({"jobs": (0..BATCH_JOBS).map(job).collect::<Vec<_>>()}).to_string()
}

/// Durable adds, each client one after the other.
async fn adds(daemon: &Daemon, clients: usize, goal: &str) {
    let far = DateTime::from_timestamp(4_102_444_800, 0).unwrap();
    let tracker = TaskTracker::new();
    let until = Instant::now() + ADD_TIME;
    let mut adding = Vec::new();
    for client in 0..clients {
        let mut adder = daemon.adder().await;
        adding.push(tracker.spawn(async move {
            let (mut times, mut number) = (Vec::new(), 0);
            while Instant::now() < until {
                let job = once(&format!("add-{clients}-{client}-{number}"), far, &noop());
                let body = job.to_string();
                let began = Instant::now();
                adder.post("/v1/jobs", &body).await;
                times.push(began.elapsed());
                number += 1;
            }
            times
        }));
    }
    let mut times = Vec::new();
    for added in adding {
        times.extend(added.await.unwrap());
    }
    times.sort_unstable();
    let rate = times.len() as f64 / ADD_TIME.as_secs_f64();
    let (p50, p99) = (quantile(&times, 0.5), quantile(&times, 0.99));
    let figure = format!("{rate:.0}/s, p50 {p50:.2?}, p99 {p99:.2?}");
    report(&format!("durable adds, {clients} client(s)"), &figure, goal);
}

/// Adds jobs that are due at the instants, through many clients at a time.
async fn schedule(daemon: &Daemon, prefix: &'static str, due: Vec<DateTime<Utc>>, task: &Value) {
    let tracker = TaskTracker::new();
    let chunks = due.len().div_ceil(64);
    let mut adding = Vec::new();
    for (chunk, instants) in due.chunks(chunks).enumerate() {
        let (mut caller, instants, task) = (daemon.caller(), instants.to_vec(), task.clone());
        adding.push(tracker.spawn(async move {
            for (number, at) in instants.into_iter().enumerate() {
                let job = once(&format!("{prefix}-{chunk}-{number}"), at, &task);
                caller.post("/v1/jobs", &job).await;
            }
        }));
    }
    for added in adding {
        added.await.unwrap();
    }
}

/// What became of the runs of these jobs: how late each started and when the last one ended, in microseconds.
#[derive(Debug)]
struct Ledger {
    late: Vec<i64>,
    last_end: DateTime<Utc>,
    last_start: DateTime<Utc>,
}

/// Waits until this many runs of a kind have ended.
async fn ledger(caller: &mut Caller, prefix: &str, count: usize, from: DateTime<Utc>) -> Ledger {
    let instant =
        |run: &Value, key: &str| run[key].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let (mut runs, mut cursor) = (Vec::new(), String::new());
        loop {
            let since = (from - TimeDelta::hours(1)).format("%Y-%m-%dT%H:%M:%SZ");
            let page = caller
                .get(&format!("/v1/runs?state=succeeded&limit=1000&since={since}{cursor}"))
                .await;
            runs.extend(page["runs"].as_array().unwrap().iter().cloned());
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        runs.retain(|run| run["job_id"].as_str().unwrap().starts_with(prefix));
        if runs.len() < count {
            continue;
        }
        assert_eq!(runs.len(), count, "each ran once");
        let mut late: Vec<i64> = runs
            .iter()
            .map(|run| {
                (instant(run, "started_at") - instant(run, "scheduled_at"))
                    .num_microseconds()
                    .unwrap()
            })
            .collect();
        late.sort_unstable();
        let last = |key: &str| runs.iter().map(|run| instant(run, key)).max().unwrap();
        return Ledger { late, last_end: last("finished_at"), last_start: last("started_at") };
    }
}

fn seconds(from: DateTime<Utc>, to: DateTime<Utc>) -> f64 {
    (to - from).num_microseconds().unwrap() as f64 / 1e6
}

async fn lateness(daemon: &Daemon) {
    let begin = SystemClock.now() + TimeDelta::seconds(2);
    let due = (0..SINGLES).map(|number| begin + TimeDelta::milliseconds(37 * number)).collect();
    schedule(daemon, "single", due, &noop()).await;
    let found = ledger(&mut daemon.caller(), "single", SINGLES as usize, begin).await;
    let (p50, p99) = (quantile(&found.late, 0.5), quantile(&found.late, 0.99));
    let figure = format!("p50 {p50} µs, p99 {p99} µs, earliest {} µs", found.late[0]);
    report(
        "lateness of one job on an idle daemon",
        &figure,
        "p50 ≤ 500 µs, p99 ≤ 2 ms, never early",
    );
}

async fn burst(daemon: &Daemon) {
    let at = SystemClock.now() + TimeDelta::seconds(12);
    schedule(daemon, "burst", vec![at; BURST], &noop()).await;
    assert!(SystemClock.now() < at, "adding took too long to measure what is due together");
    let found = ledger(&mut daemon.caller(), "burst", BURST, at).await;
    let rate = BURST as f64 / seconds(at, found.last_start);
    let end = (found.last_end - found.last_start).num_milliseconds();
    let figure = format!("{rate:.0}/s to the last start, last end {end} ms later");
    report(&format!("{BURST} one-shots due at once"), &figure, "≥ 75 k/s, ≤ 50 ms later");
}

async fn commands(daemon: &Daemon) {
    let at = SystemClock.now() + TimeDelta::seconds(3);
    let task = json!({"type": "command", "argv": ["/bin/true"]});
    schedule(daemon, "command", vec![at; COMMANDS], &task).await;
    let found = ledger(&mut daemon.caller(), "command", COMMANDS, at).await;
    let rate = COMMANDS as f64 / seconds(at, found.last_end);
    let figure = format!("{rate:.0}/s, the first after {} µs", found.late[0]);
    report(
        &format!("{COMMANDS} commands due at once"),
        &figure,
        "≥ 2,000/s, the first within 5 ms",
    );
}

/// Many jobs that wait: what they cost a daemon that starts, and one that does nothing.
async fn waiting(daemon: Daemon, home: &std::path::Path, store: &str) {
    let (mut adder, mut caller) = (daemon.adder().await, daemon.caller());
    let began = Instant::now();
    for batch in 0..WAITING / BATCH_JOBS {
        let body = batch_of(&format!("waiting-{batch}"), i64::try_from(batch).unwrap());
        adder.post("/v1/jobs/batch", &body).await;
    }
    let adding = began.elapsed();
    let jobs = caller.get("/v1/status").await["jobs"]["active"].as_u64().unwrap();
    daemon.stop().await;
    let began = Instant::now();
    let daemon = Daemon::start(home, store).await;
    let ready = began.elapsed();
    let mut caller = daemon.caller();
    let mut time = async |path: &str| {
        let began = Instant::now();
        caller.get(path).await;
        began.elapsed()
    };
    let list = time("/v1/jobs?limit=100&prefix=waiting-7").await;
    let show = time("/v1/jobs/waiting-500-500").await;
    let status = time("/v1/status").await;
    let before = daemon.processor_ticks();
    tokio::time::sleep(IDLE).await;
    let idle = daemon.processor_ticks() - before;
    let resident = daemon.resident_megabytes();
    let figure = format!("ready after {ready:.0?}, {resident} MB resident");
    report(&format!("{jobs} jobs waiting"), &figure, "1 M: ≤ 1 s, ≤ 100 MB");
    let figure = format!("list of 100 {list:.1?}, show {show:.1?}, status {status:.1?}");
    report("  the same, reading", &figure, "");
    let share = idle as f64 / IDLE.as_secs_f64();
    let figure = format!("{share:.1} % of a processor; {WAITING} were added in {adding:.0?}");
    report("  the same, idle", &figure, "no wake-up, no query");
    daemon.stop().await;
}
