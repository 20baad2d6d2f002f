//! Changes of jobs as people read them: what has changed, and what would change.

use serde_json::Value;

use super::job::{next_run, with_warnings};
use super::parts::{rows, text};
use crate::cli::table::Fit::Whole;
use crate::cli::table::Table;
use crate::cli::times::{local, relative, zone_of_job};
use crate::clock::Timestamp;
use crate::printable::{escaped, escaped_json};
use crate::zone::Zone;

/// What the daemon shows with a job besides its definition.
const NOT_DEFINED: [&str; 11] = [
    "pause",
    "state",
    "reason",
    "next_run_time",
    "run_count",
    "origin",
    "source",
    "revision",
    "created_at",
    "updated_at",
    "scheduler_paused",
];

/// Whether a key of a job that is shown is an option of its definition.
pub(crate) fn is_defined(key: &str) -> bool {
    !NOT_DEFINED.contains(&key)
}

/// A job that was modified.
pub(crate) fn modified(before: &Value, after: &Value, now: Timestamp) -> String {
    let is_changed = |(key, value): &(&String, &Value)| {
        *key != "warnings" && is_defined(key) && before.get(*key) != Some(*value)
    };
    let members = after.as_object().into_iter().flatten();
    let mut changed: Vec<&str> = members.filter(is_changed).map(|(key, _)| key.as_str()).collect();
    if changed.is_empty() && before.get("next_run_time") != after.get("next_run_time") {
        changed.push("next_run_time");
    }
    let id = text(after, "id");
    if changed.is_empty() {
        return escaped(&format!("{id} is like this already")).into_owned();
    }
    let line = format!("modified {id} ({}): {}", changed.join(", "), next_run(after, now));
    with_warnings(&line, after)
}

/// A job that was rescheduled.
pub(crate) fn rescheduled(job: &Value, now: Timestamp) -> String {
    with_warnings(&format!("rescheduled {}: {}", text(job, "id"), next_run(job, now)), job)
}

/// What a change would change, and the next times before and after it.
pub(crate) fn dry_run(dry_run: &Value, now: Timestamp) -> String {
    let null = Value::Null;
    let (before, after) =
        (dry_run.get("before").unwrap_or(&null), dry_run.get("after").unwrap_or(&null));
    let id = escaped(text(before, "id"));
    let changed: Vec<&str> = rows(dry_run, "changed").iter().filter_map(Value::as_str).collect();
    if changed.is_empty() {
        return format!("{id} is like this already");
    }
    let mut values = Table::new(&[("OPTION", Whole), ("BEFORE", Whole), ("AFTER", Whole)]);
    for key in changed.iter().filter(|key| **key != "next_run_time") {
        let shown = |job: &Value| {
            let value = job.get(*key).unwrap_or(&null).to_string();
            escaped_json(&value).into_owned()
        };
        values.row("", vec![(*key).to_owned(), shown(before), shown(after)]);
    }
    let mut times = Table::new(&[("NEXT RUNS BEFORE", Whole), ("NEXT RUNS AFTER", Whole)]);
    let (old, new) = (next_runs(before, now), next_runs(after, now));
    for row in 0..old.len().max(new.len()) {
        let cell = |times: &[String]| times.get(row).cloned().unwrap_or_default();
        times.row("", vec![cell(&old), cell(&new)]);
    }
    let values = if values.is_empty() { String::new() } else { format!("{values}\n") };
    let table = format!("{id} would change; nothing was changed.\n\n{values}{times}");
    let warnings = rows(dry_run, "warnings").iter().filter_map(Value::as_str);
    warnings.fold(table, |text, why| format!("{text}warning: {}\n", escaped(why)))
}

/// The next runs of a job, or its state if it has none.
fn next_runs(job: &Value, now: Timestamp) -> Vec<String> {
    let zone = zone_of_job(job).unwrap_or_else(Zone::utc);
    let times = rows(job, "next_run_times").iter().filter_map(|time| time.as_str()?.parse().ok());
    let times: Vec<String> =
        times.map(|at| format!("{} ({})", local(at, &zone), relative(at, now))).collect();
    if times.is_empty() { vec![format!("it is {}", text(job, "state"))] } else { times }
}
