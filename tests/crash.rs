//! A daemon that is killed again and again: what it has acknowledged is kept, and nothing happens twice.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on ends")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use chrono::TimeDelta;
use punctual::client::{Client, ClientError};
use punctual::clock::{Clock, SystemClock, Timestamp, rfc3339};
use serde_json::{Value, json};
use support::{Daemon, Home, ended, text};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Another seed is another order of calls and crashes.
const SEED: u64 = 20_261_106;
const ROUNDS: u64 = 6;
const CLIENTS: u64 = 4;
/// A crash comes after so many acknowledged calls, at least and at most.
const CALLS: (u64, u64) = (15, 90);
/// The clock-work job beside all others: milliseconds from one occurrence to the next.
const TICK_MILLIS: i64 = 50;
/// Jobs that are due soon are due within this.
const SOON_MILLIS: u64 = 400;

/// Numbers that look random, and are the same every time.
struct Random(u64);

impl Random {
    /// The next one, from `low` to `high`.
    fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        low + (mixed ^ (mixed >> 31)) % (high - low + 1)
    }
}

/// What a client was told, or was not told in time.
#[derive(Debug)]
enum Told {
    Added(String),
    Removed(String),
    /// The daemon was gone before it answered: it may have been done, or not.
    Unknown(String),
}

/// What is known of the jobs by the answers alone.
#[derive(Debug, Default)]
struct Known {
    added: BTreeSet<String>,
    removed: BTreeSet<String>,
    /// Jobs of calls that were never answered.
    unknown: BTreeSet<String>,
}

impl Known {
    fn note(&mut self, told: Told) {
        match told {
            Told::Added(id) => assert!(self.added.insert(id)),
            Told::Removed(id) => assert!(self.removed.insert(id)),
            Told::Unknown(id) => drop(self.unknown.insert(id)),
        }
    }

    /// Jobs that are certainly there.
    fn kept(&self) -> BTreeSet<&String> {
        let gone = |id: &&String| self.removed.contains(*id) || self.unknown.contains(*id);
        self.added.iter().filter(|id| !gone(id)).collect()
    }
}

/// A one-shot that says in a file that it ran.
fn job(id: &str, at: Timestamp) -> Value {
    let script = "echo \"$PUNCTUAL_RUN_ID $PUNCTUAL_ATTEMPT\" >> ran.txt";
    json!({
        "id": id,
        "trigger": {"type": "date", "run_date": rfc3339(at), "timezone": "UTC"},
        "task": {"type": "command", "argv": ["/bin/sh", "-c", script]},
    })
}

/// Adds and removes jobs until the daemon is gone.
async fn call_until_the_end(
    client: Client,
    name: String,
    mut random: Random,
    told: mpsc::Sender<Told>,
) {
    let mut mine: Vec<String> = Vec::new();
    for number in 0.. {
        let remove = !mine.is_empty() && random.between(0, 3) == 0;
        let (id, answer) = if remove {
            let id =
                mine.swap_remove(usize::try_from(random.between(0, 1000)).unwrap() % mine.len());
            (id.clone(), client.remove(&id).await)
        } else {
            let id = format!("{name}-{number}");
            // Long overdue, due soon, or not due in this test's life.
            let at = match random.between(0, 4) {
                0 => SystemClock.now() - TimeDelta::days(1),
                1 => SystemClock.now() + TimeDelta::days(1000),
                _ => {
                    let millis = random.between(0, SOON_MILLIS).try_into().unwrap();
                    SystemClock.now() + TimeDelta::milliseconds(millis)
                }
            };
            (id.clone(), client.add(&job(&id, at)).await)
        };
        let answer = match answer {
            Ok(_) if remove => Told::Removed(id),
            Ok(_) => {
                mine.push(id.clone());
                Told::Added(id)
            }
            // A call that was cut off may be unreadable instead of unanswered.
            Err(ClientError::Unreachable { .. } | ClientError::Unreadable(_)) => {
                drop(told.send(Told::Unknown(id)).await);
                return;
            }
            Err(error @ ClientError::Refused { .. }) => unreachable!("{id}: {error}"),
        };
        told.send(answer).await.unwrap();
    }
}

/// All pages of a list.
async fn all(client: &Client, what: &str) -> Vec<Value> {
    let (mut rows, mut cursor) = (Vec::new(), String::new());
    loop {
        let query = format!("limit=100{cursor}");
        let page = match what {
            "jobs" => client.jobs(&query).await.unwrap(),
            _ => client.runs(&query).await.unwrap(),
        };
        rows.extend(page[what].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return rows,
        }
    }
}

/// Rows of the ledger by job.
fn by_job(rows: &[Value]) -> BTreeMap<&str, Vec<&Value>> {
    let mut jobs: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for row in rows {
        jobs.entry(text(row, "job_id")).or_default().push(row);
    }
    jobs
}

/// What has to be so after every crash.
async fn check(client: &Client, known: &Known) {
    let jobs = all(client, "jobs").await;
    let jobs: BTreeSet<&str> = jobs.iter().map(|job| text(job, "id")).collect();
    let rows = all(client, "runs").await;
    let ledger = by_job(&rows);
    for id in known.kept() {
        assert!(jobs.contains(id.as_str()), "{id} was acknowledged and is lost");
    }
    for id in &known.removed {
        assert!(!jobs.contains(id.as_str()), "{id} was removed and is back");
    }
    for (id, rows) in ledger {
        assert!(id == "tick" || rows.len() == 1, "{id} has more than one row: {rows:?}");
    }
}

/// Every occurrence of the clock-work job is in exactly one row, whether it ran or was skipped.
fn check_ticks(rows: &[&Value]) {
    let at = |row: &Value, key: &str| row[key].as_str().map(|at| at.parse::<Timestamp>().unwrap());
    let mut spans: Vec<(Timestamp, Timestamp, i64)> = rows
        .iter()
        .map(|row| {
            let first = at(row, "scheduled_at").unwrap();
            let last = at(row, "last_scheduled_at").unwrap_or(first);
            (first, last, row["count"].as_i64().unwrap())
        })
        .collect();
    spans.sort_unstable();
    assert!(spans.len() > 10, "{spans:?}");
    for (first, last, count) in &spans {
        assert_eq!(last.signed_duration_since(first).num_milliseconds(), (count - 1) * TICK_MILLIS);
    }
    for pair in spans.windows(2) {
        let gap = pair[1].0.signed_duration_since(pair[0].1).num_milliseconds();
        assert_eq!(gap, TICK_MILLIS, "between {:?} and {:?}", pair[0], pair[1]);
    }
}

/// Which attempts of which runs have said that they ran; no attempt may do so twice.
fn said(folder: &Path) -> BTreeSet<String> {
    let lines = std::fs::read_to_string(folder.join("ran.txt")).unwrap();
    let mut seen = BTreeSet::new();
    for line in lines.lines() {
        assert!(seen.insert(line.to_owned()), "{line} ran twice");
    }
    seen
}

/// Lets clients call until the daemon is killed.
async fn work_and_crash(
    home: &Home,
    daemon: Daemon,
    round: u64,
    random: &mut Random,
    known: &mut Known,
) {
    let (tell, mut told) = mpsc::channel(1);
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let name = format!("round-{round}-client-{number}");
        let own = Random(random.between(0, u64::MAX - 1));
        clients.spawn(call_until_the_end(home.client(), name, own, tell.clone()));
    }
    drop(tell);
    for _ in 0..random.between(CALLS.0, CALLS.1) {
        known.note(told.recv().await.unwrap());
    }
    daemon.kill();
    while let Some(last) = told.recv().await {
        known.note(last);
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
}

/// What has to be so when all that is due has run.
async fn check_end(home: &Home, known: &Known) {
    let client = home.client();
    let rows = all(&client, "runs").await;
    let ledger = by_job(&rows);
    check_ticks(&ledger["tick"]);
    let said = said(home.path());
    for id in known.kept() {
        let stored = client.job(id).await.unwrap();
        let Some(runs) = ledger.get(id.as_str()) else {
            let due: Timestamp = text(&stored, "next_run_time").parse().unwrap();
            assert!(due > SystemClock.now() + TimeDelta::days(1), "{id} is due and has no row");
            continue;
        };
        assert_eq!(
            (text(runs[0], "state"), text(&stored, "state")),
            ("succeeded", "finished"),
            "{id}"
        );
        let attempt = runs[0]["attempt"].as_i64().unwrap();
        assert!(said.contains(&format!("{} {attempt}", text(runs[0], "id"))), "{id} never ran");
    }
    let ids: BTreeSet<&str> = rows.iter().map(|row| text(row, "id")).collect();
    for line in &said {
        assert!(ids.contains(line.split(' ').next().unwrap()), "{line} is not in the ledger");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_outlives_any_crash_and_nothing_runs_twice() {
    let home = Home::new("");
    let client = home.client();
    let mut random = Random(SEED);
    let mut known = Known::default();
    for round in 0..ROUNDS {
        let daemon = home.start();
        check(&client, &known).await;
        if round == 0 {
            let every = json!({"type": "interval", "seconds": 0.05, "timezone": "UTC"});
            let task = json!({"type": "builtin", "name": "noop"});
            client.add(&json!({"id": "tick", "trigger": every, "task": task})).await.unwrap();
        }
        work_and_crash(&home, daemon, round, &mut random, &mut known).await;
    }
    let daemon = home.start();
    check(&client, &known).await;
    // All that was due soon is due before this one, so it is in the ledger when this one runs.
    let mut signal = home.signal("last");
    let soon = SystemClock.now() + TimeDelta::milliseconds(i64::try_from(SOON_MILLIS).unwrap());
    let mut last = job("last", soon);
    last["task"] = signal.shell("last");
    client.add(&last).await.unwrap();
    assert_eq!(signal.next().await, "last");
    client.pause("tick").await.unwrap();
    for row in all(&client, "runs").await {
        ended(&client, text(&row, "id")).await;
    }
    check(&client, &known).await;

    check_end(&home, &known).await;
    assert!(known.kept().len() > 100 && known.removed.len() > 20, "there was load");
    assert!(daemon.stop().success());
}
