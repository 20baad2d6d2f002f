//! The state of the daemon as people read it.

use serde_json::Value;

use super::parts::{by, details, local_option, pause_end, plain_value, reason, rows, text, when};
use crate::cli::table::Fit::{Drop, Whole};
use crate::cli::table::Table;
use crate::cli::time_context::zone_of;
use crate::cli::times::{instant, relative};
use crate::clock::Timestamp;
use crate::zone::Zone;

/// The most faulty jobs of the file that are named.
const FAULTS_SHOWN: usize = 20;

/// The state of the daemon.
pub(crate) fn status(status: &Value, now: Timestamp) -> String {
    let jobs = match status.get("jobs").and_then(Value::as_object) {
        None => "unknown".to_owned(),
        Some(jobs) if jobs.is_empty() => "none".to_owned(),
        Some(jobs) => {
            let counts = jobs.iter().map(|(state, count)| format!("{count} {state}"));
            counts.collect::<Vec<_>>().join(", ")
        }
    };
    let zone = zone_of(status).unwrap_or_else(|_| Zone::utc());
    let when = |key| when(status, key, &zone, now);
    let next = when("next_wake");
    let started = when("started_at");
    let paused = when("paused_since").map(|since| {
        let until = pause_end(status, "paused_until", &zone, now);
        format!(
            " since {since}{}{until}{}",
            by(status, "paused_by"),
            reason(status, "pause_reason")
        )
    });
    let clock = status.get("clock_correction").filter(|clock| clock.is_object());
    let clock = clock.map(|clock| {
        let at = |key| local_option(clock, key, &zone);
        let jobs = plain_value(clock, "jobs");
        format!("set back from {}; {jobs} jobs continue from {}", at("recorded"), at("found_at"))
    });
    let ready = match status.pointer("/not_ready/message").and_then(Value::as_str) {
        Some(message) => format!("no: {message}"),
        None => "yes".to_owned(),
    };
    let reasons = status.pointer("/health/reasons").and_then(Value::as_array);
    let reasons = reasons.into_iter().flatten().map(|reason| {
        let since = when_since(reason, &zone, now);
        ("", format!("{}{since}", text(reason, "message")))
    });
    let health = status.get("health").map(|health| text(health, "state").to_owned());
    let declared = status.get("declared").cloned().unwrap_or_default();
    let mut lines = vec![
        ("state", text(status, "state").to_owned() + &paused.unwrap_or_default()),
        ("health", health.unwrap_or_default()),
    ];
    lines.extend(reasons);
    lines.extend([
        ("ready", ready),
        ("version", text(status, "version").to_owned()),
        ("node", format!("{} (pid {})", text(status, "node"), plain_value(status, "pid"))),
        ("started", started.unwrap_or_default()),
        ("clock", clock.unwrap_or_default()),
        ("store", text(status, "store").to_owned()),
        ("socket", text(status, "socket").to_owned()),
        ("time zone", zone_source(status)),
        ("jobs", jobs),
        ("declared", declared_by(&declared)),
        ("running", plain_value(status, "running")),
        ("next wake-up", next.unwrap_or_else(|| "none".to_owned())),
    ]);
    lines.extend(faults(&declared));
    let headings = ["EXECUTOR", "TYPE", "BUSY", "WORKERS", "WAITING", "RETRYING"];
    let mut table = Table::new(&headings.map(|heading| (heading, Whole)));
    for pool in rows(status, "executors") {
        table.row(
            "",
            ["name", "type", "busy", "max_workers", "waiting", "retrying"]
                .map(|key| plain_value(pool, key))
                .to_vec(),
        );
    }
    let nodes = nodes(rows(status, "nodes"), &zone, now);
    format!("{}\n\n{table}{nodes}", details(13, &lines))
}

/// Since when a reason applies, in brackets, if that is known.
fn when_since(value: &Value, zone: &Zone, now: Timestamp) -> String {
    when(value, "since", zone, now).map(|since| format!(" (since {since})")).unwrap_or_default()
}

/// How many jobs the file declares, and which file it is.
fn declared_by(declared: &Value) -> String {
    let (file, source) = (text(declared, "file"), text(declared, "source"));
    if file.is_empty() {
        return String::new();
    }
    let source = if source == file { String::new() } else { format!(" (source {source})") };
    format!("{} by {file}{source}", plain_value(declared, "jobs"))
}

/// The jobs of the file that could not be declared.
fn faults(declared: &Value) -> Vec<(&'static str, String)> {
    let faults = rows(declared, "faults");
    let count = declared.get("faulty").and_then(Value::as_u64).unwrap_or_default();
    let named = faults.iter().take(FAULTS_SHOWN);
    let mut lines: Vec<_> = named
        .map(|fault| ("faulty", format!("{}: {}", text(fault, "job"), text(fault, "error"))))
        .collect();
    let more = usize::try_from(count).unwrap_or(usize::MAX).saturating_sub(FAULTS_SHOWN);
    if more > 0 {
        lines.push(("", format!("and {more} more: punctual check names them all")));
    }
    lines
}

/// The daemon's time zone, where it was found, and where its rules come from.
fn zone_source(status: &Value) -> String {
    let [name, source, rules] =
        ["timezone", "timezone_source", "timezone_rules"].map(|key| text(status, key));
    format!("{name} (from {source}; {rules})")
}

/// The daemons that share the store, if there are several.
fn nodes(nodes: &[Value], zone: &Zone, now: Timestamp) -> String {
    if nodes.len() < 2 {
        return String::new();
    }
    let mut table = Table::new(&[("NODE", Whole), ("STARTED", Drop(1)), ("SEEN", Whole)]);
    for node in nodes {
        let here = if node.get("here") == Some(&true.into()) { " (here)" } else { "" };
        let seen = instant(node, "seen_at").map(|at| relative(at, now)).unwrap_or_default();
        let name = format!("{}{here}", text(node, "name"));
        table.row("", vec![name, local_option(node, "started_at", zone), seen]);
    }
    format!("\n{table}")
}
