//! What must be true of jobs, ledger and processes after any crashes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use chrono::TimeDelta;
use punctual::client::Client;
use punctual::clock::{Clock, SystemClock, Timestamp};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::{Value, json};

use crate::load::{Book, EVERY_MILLIS};
use crate::{Home, PATIENCE, Signal, ended, text};

/// A job that is due again and again, all the time: milliseconds from one occurrence to the next.
pub const TICK_MILLIS: i64 = 50;
/// Looks at the jobs until all that was due has run; far more than it takes.
const LOOKS: usize = 600;

/// Rows of the ledger by job.
type Ledger<'a> = BTreeMap<&'a str, Vec<&'a Value>>;

/// All pages of a list.
pub async fn all(client: &Client, what: &str) -> Vec<Value> {
    let (mut rows, mut cursor) = (Vec::new(), String::new());
    loop {
        let query = format!("limit=1000{cursor}");
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

/// The job that is due all the time.
pub fn tick(task: &Value) -> Value {
    let seconds = json!(TimeDelta::milliseconds(TICK_MILLIS).as_seconds_f64());
    let trigger = json!({"type": "interval", "seconds": seconds, "timezone": "UTC"});
    json!({"id": "tick", "trigger": trigger, "task": task})
}

fn by_job(rows: &[Value]) -> Ledger<'_> {
    let mut jobs = Ledger::new();
    for row in rows {
        jobs.entry(text(row, "job_id")).or_default().push(row);
    }
    jobs
}

fn instant(row: &Value, key: &str) -> Option<Timestamp> {
    row[key].as_str().map(|at| at.parse().unwrap())
}

/// Every occurrence is in exactly one row, whether it ran or was skipped.
fn check_occurrences(id: &str, rows: &[&Value], millis: i64) -> usize {
    let mut spans: Vec<(Timestamp, Timestamp, i64)> = rows
        .iter()
        .filter_map(|row| {
            let first = instant(row, "scheduled_at")?;
            let last = instant(row, "last_scheduled_at").unwrap_or(first);
            Some((first, last, row["count"].as_i64().unwrap()))
        })
        .collect();
    spans.sort_unstable();
    for (first, last, count) in &spans {
        let length = last.signed_duration_since(first).num_milliseconds();
        assert_eq!(length, (count - 1) * millis, "{id}");
    }
    for pair in spans.windows(2) {
        let gap = pair[1].0.signed_duration_since(pair[0].1).num_milliseconds();
        assert_eq!(gap, millis, "{id}: between {:?} and {:?}", pair[0], pair[1]);
    }
    spans.len()
}

fn is_scheduled(row: &Value) -> bool {
    row["cause"] == "schedule"
}

/// What has to be so at any time.
pub async fn check_now(client: &Client, book: &Book) {
    book.check(&all(client, "jobs").await);
    let rows = all(client, "runs").await;
    for (id, rows) in by_job(&rows) {
        check_job(id, &rows);
    }
}

fn check_job(id: &str, rows: &[&Value]) {
    let occurrences: BTreeSet<&str> =
        rows.iter().filter(|row| is_scheduled(row)).map(|row| text(row, "scheduled_at")).collect();
    let scheduled = rows.iter().filter(|row| is_scheduled(row)).count();
    assert_eq!(scheduled, occurrences.len(), "{id} has two rows for one occurrence: {rows:?}");
    match id {
        "tick" => assert!(check_occurrences(id, rows, TICK_MILLIS) > 2, "{rows:?}"),
        "pulse" => {}
        // Only one of a few occurrences may have been skipped after an earlier one.
        _ if occurrences.len() > 1 => {
            check_occurrences(id, rows, EVERY_MILLIS);
        }
        _ => {}
    }
}

/// Which attempts of which runs have said that they ran, and on which node; no attempt may do so twice.
fn said(file: &Path) -> BTreeMap<(String, i64), String> {
    let mut seen = BTreeMap::new();
    for line in std::fs::read_to_string(file).unwrap().lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let attempt = (words[0].to_owned(), words[1].parse().unwrap());
        let before = seen.insert(attempt, words[2].to_owned());
        assert_eq!(before, None, "{line} ran twice");
    }
    seen
}

/// Waits until all that is due has run.
pub async fn settle(client: &Client, pulse: &mut Signal) {
    let trigger = json!({"type": "interval", "seconds": 0.1, "timezone": "UTC"});
    let job = json!({"id": "pulse", "trigger": trigger, "task": pulse.shell("pulse")});
    client.add(&job).await.unwrap();
    let mut due = Vec::new();
    for _ in 0..LOOKS {
        pulse.next().await;
        let jobs = all(client, "jobs").await;
        let later = SystemClock.now() + TimeDelta::days(1);
        due = jobs
            .iter()
            .filter(|job| job["state"] == "active" && job["id"] != "pulse")
            .filter(|job| instant(job, "next_run_time").unwrap() < later)
            .map(|job| text(job, "id").to_owned())
            .collect();
        if due.is_empty() {
            break;
        }
    }
    assert!(due.is_empty(), "these are due and do not run: {due:?}");
    client.remove("pulse").await.unwrap();
    for row in all(client, "runs").await {
        if row["finished_at"].is_null() && row["state"] != "skipped" {
            let row = ended(client, text(&row, "id")).await;
            assert!(
                row["state"] != "running" && row["state"] != "pending",
                "it does not end: {row}"
            );
        }
    }
}

/// What has to be so when all that was due has run. Gives how many runs have had a second attempt.
pub async fn check_end(client: &Client, book: &Book, file: &Path) -> usize {
    check_now(client, book).await;
    let rows = all(client, "runs").await;
    let (ledger, said) = (by_job(&rows), said(file));
    let by_id: BTreeMap<&str, &Value> = rows.iter().map(|row| (text(row, "id"), row)).collect();
    assert_eq!(by_id.len(), rows.len());
    for row in
        rows.iter().filter(|row| row["executor"] == "processpool" && row["job_id"] != "pulse")
    {
        let (id, attempt) = (text(row, "id"), row["attempt"].as_i64().unwrap());
        if row["state"] == "skipped" {
            continue;
        }
        // A run in flight whose job was removed, and whose node was killed, is not run again.
        if row["state"] == "lost" && !book.may_be_there(text(row, "job_id")) {
            continue;
        }
        if row["state"] == "cancelled" && book.cancels.contains(id) {
            continue;
        }
        assert_eq!(text(row, "state"), "succeeded", "{row}");
        assert!(said.contains_key(&(id.to_owned(), attempt)), "it never ran: {row}");
    }
    for (id, attempt) in said.keys() {
        let row =
            by_id.get(id.as_str()).unwrap_or_else(|| unreachable!("{id} is not in the ledger"));
        assert!(*attempt <= row["attempt"].as_i64().unwrap(), "{row}");
    }
    for run in &book.runs {
        assert!(by_id.contains_key(run.as_str()), "{run} was acknowledged and is lost");
    }
    for (id, stand) in book.kept() {
        let job = client.job(id).await.unwrap();
        let due = instant(&job, "next_run_time");
        let rows = ledger.get(id).map(Vec::as_slice).unwrap_or_default();
        let has_row = rows.iter().any(|row| is_scheduled(row));
        let is_far = due.is_some_and(|due| due > SystemClock.now() + TimeDelta::days(1));
        assert!(has_row || is_far || stand.is_paused, "{id} was due and has no row: {job}");
    }
    rows.iter().filter(|row| row["attempt"].as_i64().unwrap() > 1).count()
}

/// Each run that ran did so where the ledger says, and nowhere else at that attempt.
pub async fn check_nodes(client: &Client, folders: &BTreeMap<String, PathBuf>, file: &Path) {
    let said = said(file);
    for row in all(client, "runs").await {
        let attempt = (text(&row, "id").to_owned(), row["attempt"].as_i64().unwrap());
        if let Some(folder) = said.get(&attempt) {
            assert_eq!(Path::new(folder), folders[text(&row, "node")], "{row}");
        }
    }
}

/// Waits until no process of this home's daemons is left, which happens at once if they leave none.
pub fn nothing_is_left(home: &Home) {
    let mark = format!("RUNTIME_DIRECTORY={}\0", home.path().display()).into_bytes();
    let is_marked = |environment: &[u8]| environment.windows(mark.len()).any(|part| part == mark);
    for entry in std::fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path();
        let pid = path.file_name().unwrap().to_str().unwrap().parse().ok().and_then(Pid::from_raw);
        let Some(pid) = pid else { continue };
        // It is opened before it is known, so that it is that process.
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        if !std::fs::read(path.join("environ")).is_ok_and(|environment| is_marked(&environment)) {
            continue;
        }
        let patience = Timespec { tv_sec: PATIENCE.as_secs().try_into().unwrap(), tv_nsec: 0 };
        let ended = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&patience)).unwrap();
        let command = std::fs::read(path.join("cmdline")).unwrap_or_default();
        assert_eq!(ended, 1, "{} runs on", String::from_utf8_lossy(&command));
    }
}
