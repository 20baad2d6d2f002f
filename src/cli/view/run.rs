//! Runs as people read them: a page of runs, one run with all of its attempts, and a run that was waited for.

use std::time::Duration;

use chrono::TimeDelta;
use serde_json::Value;

use super::parts::{details, local_option, next_page, plain_value, rows, text, when};
use crate::cli::table::Fit::{Cut, Drop, Whole};
use crate::cli::table::{Table, state};
use crate::cli::times::{Zones, instant, local, relative};
use crate::clock::{Timestamp, duration_words};
use crate::printable::{escaped, with_colors};
use crate::zone::Zone;

/// Units of memory, the largest first.
const UNITS: [(&str, u64); 4] = [("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)];

/// A page of runs.
pub(crate) fn runs(page: &Value, zones: &Zones, now: Timestamp) -> String {
    let runs = rows(page, "runs");
    // The columns of the cost are left out where no run has one.
    let costs = runs.iter().any(|run| !cpu(run).is_empty() || !memory(run).is_empty());
    let costs = if costs { &[("CPU", Drop(3)), ("MEM", Drop(2))][..] } else { &[] };
    let first = [
        ("RUN", Whole),
        ("JOB", Cut),
        ("STATE", Whole),
        ("STARTED", Drop(1)),
        ("", Drop(7)),
        ("LATE", Drop(5)),
        ("TOOK", Drop(6)),
    ];
    let mut table = Table::new(&[&first, costs, &[("TRY", Drop(4)), ("DETAIL", Cut)]].concat());
    for run in runs {
        let started = instant(run, "started_at");
        let shown = started.or_else(|| instant(run, "due_at"));
        let mut cells = vec![
            text(run, "id").to_owned(),
            text(run, "job_id").to_owned(),
            text(run, "state").to_owned(),
            shown.map(|at| local(at, zones.of(run))).unwrap_or_default(),
            shown.map(|at| relative(at, now)).unwrap_or_default(),
            between(run, "due_at", "started_at"),
            between(run, "started_at", "finished_at"),
        ];
        if !costs.is_empty() {
            cells.extend([cpu(run), memory(run)]);
        }
        cells.extend([plain_value(run, "attempt"), detail(run, zones.of(run))]);
        table.row(text(run, "state"), cells);
    }
    let none = if table.is_empty() { "no runs\n" } else { "" };
    format!("{table}{none}{}", next_page(page))
}

/// One run, with its attempts if there were several.
pub(crate) fn run(run: &Value, zones: &Zones, now: Timestamp) -> String {
    let zone = zones.of(run);
    let when = |key| when(run, key, zone, now).unwrap_or_default();
    let subject = text(run, "subject");
    let subject = if subject.is_empty() { String::new() } else { format!(" of run {subject}") };
    let lines = [
        ("run", text(run, "id").to_owned()),
        ("job", text(run, "job_id").to_owned()),
        ("state", text(run, "state").to_owned()),
        ("cause", format!("{}{subject}", text(run, "cause"))),
        ("scheduled", local_option(run, "scheduled_at", zone)),
        ("due", when("due_at")),
        ("started", when("started_at")),
        ("late", between(run, "due_at", "started_at")),
        ("finished", when("finished_at")),
        ("took", between(run, "started_at", "finished_at")),
        ("cpu", cpu(run)),
        ("memory", memory(run)),
        ("attempt", plain_value(run, "attempt")),
        ("executor", plain_value(run, "executor")),
        ("node", plain_value(run, "node")),
        ("exit code", plain_value(run, "exit_code")),
        ("signal", plain_value(run, "signal")),
        ("detail", end(run, zone)),
    ];
    format!("{}\n{}", details(10, &lines), attempts(run, zone))
}

/// All attempts of a run, including the last one.
fn attempts(run: &Value, zone: &Zone) -> String {
    let earlier = rows(run, "attempts");
    if earlier.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[
        ("TRY", Whole),
        ("STATE", Whole),
        ("STARTED", Drop(3)),
        ("TOOK", Whole),
        ("CPU", Drop(2)),
        ("MEM", Drop(1)),
        ("NODE", Cut),
        ("DETAIL", Cut),
    ]);
    for attempt in earlier.iter().chain([run]) {
        let cells = [
            plain_value(attempt, "attempt"),
            text(attempt, "state").to_owned(),
            local_option(attempt, "started_at", zone),
            between(attempt, "started_at", "finished_at"),
            cpu(attempt),
            memory(attempt),
            plain_value(attempt, "node"),
            detail(attempt, zone),
        ];
        table.row(text(attempt, "state"), cells.to_vec());
    }
    format!("\n{table}")
}

/// A run that was waited for, after its output if that has not been shown yet. `raw` shows the output as it was written.
pub(crate) fn finished(run: &Value, output: &str, raw: bool) -> String {
    let took = between(run, "started_at", "finished_at");
    let took = if took.is_empty() { took } else { format!(" after {took}") };
    let detail = escaped(&detail(run, &Zone::utc())).into_owned();
    let detail = if detail.is_empty() { detail } else { format!(": {detail}") };
    let gap = if output.is_empty() || output.ends_with('\n') { "" } else { "\n" };
    let output = if raw { output.to_owned() } else { printable_lines(output) };
    let end =
        format!("run {} {}{took}{detail}", escaped(text(run, "id")), state(text(run, "state")));
    format!("{output}{gap}{end}")
}

fn printable_lines(output: &str) -> String {
    output.split_inclusive('\n').map(with_colors).collect()
}

fn between(run: &Value, from: &str, to: &str) -> String {
    let times = instant(run, from).zip(instant(run, to));
    times.map(|(from, to)| duration_words(to.signed_duration_since(from))).unwrap_or_default()
}

fn cpu(run: &Value) -> String {
    let seconds = run.get("cpu_time").and_then(Value::as_f64);
    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.and_then(|time| TimeDelta::from_std(time).ok()).map(duration_words).unwrap_or_default()
}

fn memory(run: &Value) -> String {
    run.get("peak_memory").and_then(Value::as_u64).map(bytes_words).unwrap_or_default()
}

/// Bytes in their largest unit, with one digit after the point where that says something.
fn bytes_words(bytes: u64) -> String {
    let Some((unit, size)) = UNITS.into_iter().find(|(_, size)| bytes >= *size) else {
        return format!("{bytes}B");
    };
    match (bytes / size, bytes % size * 10 / size) {
        (whole, tenths) if whole < 10 => format!("{whole}.{tenths}{unit}"),
        (whole, _) => format!("{whole}{unit}"),
    }
}

/// The cause and the end of a run, in a few words.
fn detail(run: &Value, zone: &Zone) -> String {
    let ended = end(run, zone);
    match (plain_value(run, "subject").is_empty(), ended.is_empty()) {
        (true, _) => ended,
        (false, true) => text(run, "cause").to_owned(),
        (false, false) => format!("{}: {ended}", text(run, "cause")),
    }
}

/// How a run ended.
fn end(run: &Value, zone: &Zone) -> String {
    let count = run.get("count").and_then(Value::as_u64).unwrap_or(1);
    let (reason, error) = (text(run, "reason"), text(run, "error"));
    match run.get("result") {
        _ if text(run, "state") == "skipped" && count > 1 => {
            let last = local_option(run, "last_scheduled_at", zone);
            format!("{reason}: {count} occurrences up to {last}")
        }
        _ if text(run, "state") == "skipped" => reason.to_owned(),
        _ if !error.is_empty() => error.to_owned(),
        Some(result) if !result.is_null() => result.to_string(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_shown_in_its_largest_unit() {
        let cases = [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.0K"),
            (12 * 1024 * 1024 + 99, "12M"),
            (5_000_000_000, "4.6G"),
            (u64::MAX, "16777215T"),
        ];
        for (bytes, words) in cases {
            assert_eq!(bytes_words(bytes), words);
        }
    }
}
