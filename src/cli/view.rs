//! Answers as people read them: local times with their zone, distances from now, no nulls.

mod runs;

use serde_json::Value;

use super::columns::Fit::{Cut, Drop, Whole};
use super::duration::relative;
use super::instant;
use super::table::{Table, state};
use super::time_context::zone_of;
use super::zones::{Zones, local, zone_of_job};
use crate::clock::Timestamp;
use crate::job::Task;
use crate::printable::{escaped, escaped_json};
use crate::trigger::Trigger;
use crate::zone::Zone;

pub(super) use runs::{finished, run, runs};

/// Faulty jobs of the file that the status shows.
const FAULTS_SHOWN: usize = 20;

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn rows<'a>(page: &'a Value, key: &str) -> &'a [Value] {
    page.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn local_option(value: &Value, key: &str, zone: &Zone) -> String {
    instant(value, key).map(|at| local(at, zone)).unwrap_or_default()
}

/// A time, and how far it is from now.
fn when(value: &Value, key: &str, zone: &Zone, now: Timestamp) -> Option<String> {
    let at = instant(value, key)?;
    Some(format!("{} ({})", local(at, zone), relative(at, now)))
}

/// A value in its JSON form, as it can be copied.
fn json(value: &Value, key: &str) -> String {
    value.get(key).map(|value| escaped_json(&unread(value)).into_owned()).unwrap_or_default()
}

/// Lines with a name and a value each, without those that have no value. A state has its colour.
fn details(width: usize, lines: &[(&str, String)]) -> String {
    let given = lines.iter().filter(|(_, value)| !value.is_empty());
    let line = |(key, value): &(&str, String)| {
        let value = escaped(value);
        let value = match (*key, value.split_once(' ')) {
            ("state", Some((word, rest))) => format!("{} {rest}", state(word)),
            ("state", None) => state(&value),
            (_, _) => value.into_owned(),
        };
        format!("{key:<width$} {value}")
    };
    given.map(line).collect::<Vec<_>>().join("\n")
}

fn trigger(job: &Value, now: Timestamp) -> String {
    let spec = job.get("trigger").cloned().unwrap_or_default();
    Trigger::compile_stored(&spec, &Zone::utc(), now)
        .map_or_else(|_| unread(&spec), |trigger| trigger.describe())
}

/// What is not understood, as it is; nothing for a job of the file that was never in order.
fn unread(value: &Value) -> String {
    if value.is_null() { String::new() } else { value.to_string() }
}

fn task(job: &Value) -> String {
    let value = job.get("task").cloned().unwrap_or_default();
    Task::parse(&value).map_or_else(|_| unread(&value), |task| task.describe())
}

fn next_page(page: &Value) -> String {
    match page.get("next_cursor").and_then(Value::as_str) {
        Some(cursor) => format!("more: --cursor '{}'\n", escaped(cursor)),
        None => String::new(),
    }
}

/// A job that was added, perhaps in the place of one that was to be replaced if it is there.
pub(super) fn added(job: &Value, replaces: bool, now: Timestamp) -> String {
    // The first definition of a job is its first revision.
    let is_first = job.get("revision").and_then(Value::as_u64) == Some(1);
    let done = if replaces && !is_first { "replaced" } else { "added" };
    let next = match when(job, "next_run_time", &zone_of_job(job).unwrap_or_else(Zone::utc), now) {
        Some(next) => format!("next run {next}"),
        None => format!("it is {}", text(job, "state")),
    };
    let added = escaped(&format!("{done} {}: {next}", text(job, "id"))).into_owned();
    let warnings = rows(job, "warnings").iter().filter_map(Value::as_str);
    let lines = warnings.map(|why| format!("warning: {}", escaped(why)));
    std::iter::once(added).chain(lines).collect::<Vec<_>>().join("\n")
}

/// When the whole scheduler was paused, and which user paused it, in an answer about jobs.
fn pause_of_all(answer: &Value, zone: &Zone, now: Timestamp) -> Option<String> {
    let pause = answer.get("scheduler_paused")?;
    let since = when(pause, "since", zone, now)?;
    Some(format!("paused since {since}{}", by(pause, "by")))
}

/// Who did something, if that is known.
fn by(value: &Value, key: &str) -> String {
    match text(value, key) {
        "" => String::new(),
        name => format!(" by {name}"),
    }
}

/// A page of jobs; `zone` is the daemon's.
pub(super) fn jobs(page: &Value, zone: &Zone, now: Timestamp) -> String {
    let pause = pause_of_all(page, zone, now);
    let mut jobs: Vec<&Value> = rows(page, "jobs").iter().collect();
    jobs.sort_by_key(|job| instant(job, "next_run_time").unwrap_or(Timestamp::MAX_UTC));
    let mut table = Table::new(&[
        ("ID", Whole),
        ("STATE", Whole),
        ("NEXT RUN", Drop(2)),
        ("", Whole),
        ("TRIGGER", Cut),
        ("TASK", Cut),
        ("EXECUTOR", Drop(1)),
    ]);
    for job in jobs {
        let next = instant(job, "next_run_time");
        let (at, distance) = match next {
            Some(_) if pause.is_some() => ("when resumed".to_owned(), String::new()),
            Some(next) => {
                (local(next, &zone_of_job(job).unwrap_or_else(Zone::utc)), relative(next, now))
            }
            None => Default::default(),
        };
        table.row(
            text(job, "state"),
            vec![
                text(job, "id").to_owned(),
                text(job, "state").to_owned(),
                at,
                distance,
                trigger(job, now),
                task(job),
                text(job, "executor").to_owned(),
            ],
        );
    }
    let none = if table.is_empty() { "no jobs\n" } else { "" };
    let pause = pause.map(|pause| {
        let line =
            format!("The scheduler is {pause}: no job fires before `punctual resume --all`.");
        escaped(&line).into_owned() + "\n"
    });
    format!("{table}{none}{}{}", next_page(page), pause.unwrap_or_default())
}

/// One job, with its latest runs.
pub(super) fn job(job: &Value, latest: &Value, zones: &Zones, now: Timestamp) -> String {
    let zone = zones.of(job);
    let mut lines = vec![
        ("id", text(job, "id").to_owned()),
        ("name", text(job, "name").to_owned()),
        ("state", text(job, "state").to_owned()),
        ("reason", text(job, "reason").to_owned()),
        ("trigger", trigger(job, now)),
        ("", json(job, "trigger")),
        ("task", task(job)),
        ("", json(job, "task")),
    ];
    let next =
        when(job, "next_run_time", zone, now).map(|next| match pause_of_all(job, zone, now) {
            Some(pause) => format!("when the scheduler is resumed ({pause})"),
            None => next,
        });
    lines.push(("next run", next.unwrap_or_default()));
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
        "on_failure_once",
        "on_recovery",
        "on_success",
        "on_missed",
        "heartbeat",
        "on_finish",
        "run_count",
    ];
    for key in plain {
        lines.push((key, plain_value(job, key)));
    }
    for key in ["tags", "description", "origin", "source", "revision"] {
        lines.push((key, plain_value(job, key)));
    }
    lines.push(("created", local_option(job, "created_at", zone)));
    lines.push(("updated", local_option(job, "updated_at", zone)));
    let latest = if rows(latest, "runs").is_empty() {
        "no runs yet\n".to_owned()
    } else {
        runs(latest, zones, now)
    };
    format!("{}\n\n{latest}", details(19, &lines))
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
    let zone = zone_of(status).unwrap_or_else(|_| Zone::utc());
    let when = |key| when(status, key, &zone, now);
    let next = when("next_wake");
    let started = when("started_at");
    let paused = when("paused_since");
    let paused = paused.map(|paused| format!(" since {paused}{}", by(status, "paused_by")));
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

/// Since when something is so, in brackets, if that is known.
fn when_since(value: &Value, zone: &Zone, now: Timestamp) -> String {
    when(value, "since", zone, now).map(|since| format!(" (since {since})")).unwrap_or_default()
}

/// How many jobs the file declares, and which file that is.
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

/// Why a job ran or did not.
pub(super) fn explanation(answer: &Value) -> String {
    let zone = answer.get("timezone").and_then(Value::as_str);
    let zone = zone.map(|zone| format!("Times are in the job's zone, {zone}."));
    let lines = rows(answer, "explanation").iter().filter_map(Value::as_str).map(str::to_owned);
    lines.chain(zone).map(|line| escaped(&line).into_owned()).collect::<Vec<_>>().join("\n")
}

/// What a reload did.
pub(super) fn difference(answer: &Value) -> String {
    let named = |key: &str| format!("{key}: {}", escaped(&plain_value(answer, key)));
    let parts = ["added", "changed", "removed"]
        .into_iter()
        .filter(|key| !rows(answer, key).is_empty())
        .map(named);
    let unchanged = format!("unchanged: {} jobs", plain_value(answer, "unchanged"));
    let mut lines: Vec<String> = parts.chain([unchanged]).collect();
    if !rows(answer, "restart_needed").is_empty() {
        lines.push(format!(
            "take effect at the next start only: {}",
            escaped(&plain_value(answer, "restart_needed"))
        ));
    }
    lines.join("\n")
}
