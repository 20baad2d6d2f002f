//! Executors as people read them.

use serde_json::Value;

use super::parts::{plain_value, rows, text};
use crate::cli::table::Fit::{Cut, Drop, Whole};
use crate::cli::table::Table;
use crate::cli::times::{Zones, instant, local, relative};
use crate::clock::Timestamp;

/// How the executors are used, and what they run.
pub(crate) fn executors(answer: &Value, zones: &Zones, now: Timestamp) -> String {
    let headings = ["EXECUTOR", "TYPE", "BUSY", "WORKERS", "WAITING", "RETRYING"];
    let mut pools = Table::new(&headings.map(|heading| (heading, Whole)));
    let mut running = Table::new(&[
        ("EXECUTOR", Drop(3)),
        ("RUN", Whole),
        ("JOB", Cut),
        ("TRY", Drop(2)),
        ("STARTED", Drop(4)),
        ("", Whole),
        ("NODE", Drop(1)),
    ]);
    let mut elsewhere =
        Table::new(&["EXECUTOR", "NODE", "RUNNING", "WAITING"].map(|heading| (heading, Whole)));
    for pool in rows(answer, "executors") {
        let name = text(pool, "name").to_owned();
        let keys = ["name", "type", "busy", "max_workers", "waiting", "retrying"];
        pools.row("", keys.map(|key| plain_value(pool, key)).to_vec());
        for run in rows(pool, "running") {
            let started = instant(run, "started_at");
            let cells = [
                name.clone(),
                text(run, "id").to_owned(),
                text(run, "job_id").to_owned(),
                plain_value(run, "attempt"),
                started.map(|at| local(at, zones.of(run))).unwrap_or_default(),
                started.map(|at| relative(at, now)).unwrap_or_default(),
                text(run, "node").to_owned(),
            ];
            running.row("", cells.to_vec());
        }
        let others = rows(pool, "nodes").iter();
        for node in others.filter(|node| node.get("here") == Some(&Value::Bool(false))) {
            let [node, runs, waiting] =
                ["name", "running", "waiting"].map(|key| plain_value(node, key));
            elsewhere.row("", vec![name.clone(), node, runs, waiting]);
        }
    }
    let note = |key, text| if answer.get(key) == Some(&Value::Bool(true)) { text } else { "" };
    let drain = note("draining", "\nThe daemon is draining: no executor starts anything.\n");
    let more = note("more_running", "more: punctual runs --state running\n");
    let titled = |title, table: &Table| {
        if table.is_empty() { String::new() } else { format!("\n{title}\n{table}") }
    };
    let (running, elsewhere) = (titled("Running", &running), titled("On other nodes", &elsewhere));
    format!("{pools}{drain}{running}{more}{elsewhere}")
}
