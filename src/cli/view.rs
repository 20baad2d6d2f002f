//! Answers as people read them: local times with their zone, distances from now, no nulls.

mod runs;

use chrono::{DateTime, FixedOffset};
use serde_json::Value;

use super::duration::relative;
use super::table::{Table, state};
use super::{MACHINE_ZONE, instant};
use crate::clock::Timestamp;
use crate::job::Task;
use crate::trigger::Trigger;
use crate::zone::Zone;

pub(super) use runs::{finished, run, runs};

/// Characters of a task or an error in a table.
const CELL_CHARS: usize = 48;

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn rows<'a>(page: &'a Value, key: &str) -> &'a [Value] {
    page.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn shorten(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= CELL_CHARS {
        return line.to_owned();
    }
    let head: String = line.chars().take(CELL_CHARS - 1).collect();
    format!("{head}…")
}

/// An instant in the machine's zone.
fn local(at: Timestamp) -> String {
    in_machine_zone(at).format("%Y-%m-%d %H:%M:%S %:z").to_string()
}

fn in_machine_zone(at: Timestamp) -> DateTime<FixedOffset> {
    // A machine without a zone was refused before.
    MACHINE_ZONE.as_ref().map_or_else(|_| at.fixed_offset(), |zone| zone.to_fixed(at))
}

/// The same, to the millisecond.
pub(super) fn local_millis(at: Timestamp) -> String {
    in_machine_zone(at).format("%Y-%m-%d %H:%M:%S%.3f").to_string()
}

fn local_option(value: &Value, key: &str) -> String {
    instant(value, key).map(local).unwrap_or_default()
}

fn trigger(job: &Value, now: Timestamp) -> String {
    let spec = job.get("trigger").cloned().unwrap_or_default();
    Trigger::stored(&spec, &Zone::utc(), now)
        .map_or_else(|_| spec.to_string(), |trigger| trigger.describe())
}

fn task(job: &Value) -> String {
    let value = job.get("task").cloned().unwrap_or_default();
    Task::parse(&value).map_or_else(|_| value.to_string(), |task| task.describe())
}

fn next_page(page: &Value) -> String {
    match page.get("next_cursor").and_then(Value::as_str) {
        Some(cursor) => format!("more: --cursor '{cursor}'\n"),
        None => String::new(),
    }
}

/// A job that was added.
pub(super) fn added(job: &Value, now: Timestamp) -> String {
    let next = match instant(job, "next_run_time") {
        Some(at) => format!("next run {} ({})", local(at), relative(at, now)),
        None => format!("it is {}", text(job, "state")),
    };
    format!("added {}: {next}", text(job, "id"))
}

/// A page of jobs.
pub(super) fn jobs(page: &Value, now: Timestamp) -> String {
    let mut jobs: Vec<&Value> = rows(page, "jobs").iter().collect();
    jobs.sort_by_key(|job| instant(job, "next_run_time").unwrap_or(Timestamp::MAX_UTC));
    let mut table = Table::new(&["ID", "STATE", "NEXT RUN", "", "TRIGGER", "TASK", "EXECUTOR"]);
    for job in jobs {
        let next = instant(job, "next_run_time");
        table.row(
            text(job, "state"),
            vec![
                text(job, "id").to_owned(),
                text(job, "state").to_owned(),
                next.map(local).unwrap_or_default(),
                next.map(|at| relative(at, now)).unwrap_or_default(),
                shorten(&trigger(job, now)),
                shorten(&task(job)),
                text(job, "executor").to_owned(),
            ],
        );
    }
    let none = if table.is_empty() { "no jobs\n" } else { "" };
    format!("{table}{none}{}", next_page(page))
}

/// One job, with its latest runs.
pub(super) fn job(job: &Value, latest: &Value, now: Timestamp) -> String {
    let mut lines = vec![
        ("id", text(job, "id").to_owned()),
        ("name", text(job, "name").to_owned()),
        ("state", state(text(job, "state"))),
        ("reason", text(job, "reason").to_owned()),
        ("trigger", trigger(job, now)),
        ("", job.get("trigger").map(ToString::to_string).unwrap_or_default()),
        ("task", task(job)),
        ("", job.get("task").map(ToString::to_string).unwrap_or_default()),
    ];
    if let Some(at) = instant(job, "next_run_time") {
        lines.push(("next run", format!("{} ({})", local(at), relative(at, now))));
    }
    let plain = [
        "executor",
        "misfire_grace_time",
        "coalesce",
        "max_instances",
        "overlap",
        "on_crash",
        "max_runs",
        "timeout",
        "retry",
        "priority",
        "on_failure",
        "on_success",
        "on_missed",
        "heartbeat",
        "on_finish",
        "run_count",
    ];
    for key in plain {
        lines.push((key, plain_value(job, key)));
    }
    for key in ["tags", "description", "origin", "revision"] {
        lines.push((key, plain_value(job, key)));
    }
    lines.push(("created", local_option(job, "created_at")));
    lines.push(("updated", local_option(job, "updated_at")));
    let given = lines.iter().filter(|(_, value)| !value.is_empty());
    let lines: Vec<String> = given.map(|(key, value)| format!("{key:<19} {value}")).collect();
    let latest = if rows(latest, "runs").is_empty() {
        "no runs yet\n".to_owned()
    } else {
        runs(latest, now)
    };
    format!("{}\n\n{latest}", lines.join("\n"))
}

fn plain_value(value: &Value, key: &str) -> String {
    match value.get(key) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
            .collect::<Vec<_>>()
            .join(", "),
        Some(other) => other.to_string(),
    }
}

/// The daemon.
pub(super) fn status(status: &Value, now: Timestamp) -> String {
    let jobs = match status.get("jobs").and_then(Value::as_object) {
        None => "unknown".to_owned(),
        Some(jobs) if jobs.is_empty() => "none".to_owned(),
        Some(jobs) => {
            let counts = jobs.iter().map(|(state, count)| format!("{count} {state}"));
            counts.collect::<Vec<_>>().join(", ")
        }
    };
    let next =
        instant(status, "next_wake").map(|at| format!("{} ({})", local(at), relative(at, now)));
    let started =
        instant(status, "started_at").map(|at| format!("{} ({})", local(at), relative(at, now)));
    let paused = instant(status, "paused_since")
        .map(|at| format!(" since {} ({})", local(at), relative(at, now)));
    let trouble = text(status, "store_error");
    let ready = match status.pointer("/not_ready/message").and_then(Value::as_str) {
        Some(message) => format!("no: {message}"),
        None => "yes".to_owned(),
    };
    let lines = [
        ("state", state(text(status, "state")) + &paused.unwrap_or_default()),
        ("ready", ready),
        ("version", text(status, "version").to_owned()),
        ("node", format!("{} (pid {})", text(status, "node"), plain_value(status, "pid"))),
        ("started", started.unwrap_or_default()),
        ("store", format!("{} {trouble}", text(status, "store")).trim_end().to_owned()),
        ("socket", text(status, "socket").to_owned()),
        ("time zone", zone(status)),
        ("jobs", jobs),
        ("running", plain_value(status, "running")),
        ("next wake-up", next.unwrap_or_else(|| "none".to_owned())),
    ];
    let lines: Vec<String> =
        lines.iter().map(|(key, value)| format!("{key:<13} {value}")).collect();
    let mut table = Table::new(&["EXECUTOR", "TYPE", "BUSY", "WORKERS", "WAITING", "RETRYING"]);
    for pool in rows(status, "executors") {
        table.row(
            "",
            ["name", "type", "busy", "max_workers", "waiting", "retrying"]
                .map(|key| plain_value(pool, key))
                .to_vec(),
        );
    }
    format!("{}\n\n{table}{}", lines.join("\n"), nodes(rows(status, "nodes"), now))
}

/// The daemon's time zone, where it was found, and where its rules come from.
fn zone(status: &Value) -> String {
    let [name, source, rules] =
        ["timezone", "timezone_source", "timezone_rules"].map(|key| text(status, key));
    format!("{name} (from {source}; {rules})")
}

/// The daemons that share the store, if there are several.
fn nodes(nodes: &[Value], now: Timestamp) -> String {
    if nodes.len() < 2 {
        return String::new();
    }
    let mut table = Table::new(&["NODE", "STARTED", "SEEN"]);
    for node in nodes {
        let here = if node.get("here") == Some(&true.into()) { " (here)" } else { "" };
        let seen = instant(node, "seen_at").map(|at| relative(at, now)).unwrap_or_default();
        let name = format!("{}{here}", text(node, "name"));
        table.row("", vec![name, local_option(node, "started_at"), seen]);
    }
    format!("\n{table}")
}

/// Why a job ran or did not.
pub(super) fn explanation(answer: &Value) -> String {
    rows(answer, "explanation").iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
}

/// What a reload did.
pub(super) fn difference(answer: &Value) -> String {
    let named = |key: &str| format!("{key}: {}", plain_value(answer, key));
    let parts = ["added", "changed", "removed"]
        .into_iter()
        .filter(|key| !rows(answer, key).is_empty())
        .map(named);
    let unchanged = format!("unchanged: {} jobs", plain_value(answer, "unchanged"));
    let mut lines: Vec<String> = parts.chain([unchanged]).collect();
    if !rows(answer, "restart_needed").is_empty() {
        lines.push(format!(
            "take effect at the next start only: {}",
            plain_value(answer, "restart_needed")
        ));
    }
    lines.join("\n")
}
