//! Jobs as people read them: a page of jobs, one job with its latest runs, and the answers of the commands about jobs.

use serde_json::Value;

use super::parts::{
    by, details, json, local_option, next_page, pause_end, pause_words, plain_value, reason, rows,
    text, unreadable, when,
};
use super::run::runs;
use crate::cli::table::Fit::{Cut, Drop, Whole};
use crate::cli::table::Table;
use crate::cli::times::{Zones, instant, local, relative, zone_of_job};
use crate::clock::Timestamp;
use crate::job::Task;
use crate::printable::escaped;
use crate::trigger::Trigger;
use crate::zone::Zone;

fn trigger(job: &Value, now: Timestamp) -> String {
    let spec = job.get("trigger").cloned().unwrap_or_default();
    Trigger::compile_stored(&spec, &Zone::utc(), now)
        .map_or_else(|_| unreadable(&spec), |trigger| trigger.describe())
}

fn task(job: &Value) -> String {
    let value = job.get("task").cloned().unwrap_or_default();
    Task::parse(&value).map_or_else(|_| unreadable(&value), |task| task.describe())
}

/// A job that was added, or replaced if `replaces` allows it and there was one.
pub(crate) fn added(job: &Value, replaces: bool, now: Timestamp) -> String {
    // The first definition of a job is its first revision.
    let is_first = job.get("revision").and_then(Value::as_u64) == Some(1);
    let done = if replaces && !is_first { "replaced" } else { "added" };
    with_warnings(&format!("{done} {}: {}", text(job, "id"), next_run(job, now)), job)
}

/// When a job runs next, or in which state it is.
pub(super) fn next_run(job: &Value, now: Timestamp) -> String {
    match when(job, "next_run_time", &zone_of_job(job).unwrap_or_else(Zone::utc), now) {
        Some(next) => format!("next run {next}"),
        None => format!("it is {}", text(job, "state")),
    }
}

/// A line about a job, followed by its warnings.
pub(super) fn with_warnings(line: &str, job: &Value) -> String {
    let warnings = rows(job, "warnings").iter().filter_map(Value::as_str);
    let lines = warnings.map(|why| format!("warning: {}", escaped(why)));
    std::iter::once(escaped(line).into_owned()).chain(lines).collect::<Vec<_>>().join("\n")
}

/// Since when the whole scheduler is paused, who paused it, until when and why, if an answer about jobs says so.
fn pause_of_all(answer: &Value, zone: &Zone, now: Timestamp) -> Option<String> {
    let pause = pause_words(answer.get("scheduler_paused")?, zone, now)?;
    Some(format!("paused {pause}"))
}

/// A page of jobs, in its order if somebody asked for one; `zone` is the daemon's.
pub(crate) fn jobs(page: &Value, is_ordered: bool, zone: &Zone, now: Timestamp) -> String {
    let pause = pause_of_all(page, zone, now);
    let mut jobs: Vec<&Value> = rows(page, "jobs").iter().collect();
    if !is_ordered {
        jobs.sort_by_key(|job| instant(job, "next_run_time").unwrap_or(Timestamp::MAX_UTC));
    }
    let mut columns = vec![
        ("ID", Whole),
        ("STATE", Whole),
        ("NEXT RUN", Drop(2)),
        ("", Whole),
        ("TRIGGER", Cut),
        ("TASK", Cut),
        ("EXECUTOR", Drop(1)),
    ];
    if jobs.iter().any(|job| job.get("pause").is_some_and(Value::is_object)) {
        columns.push(("PAUSED", Cut));
    }
    let mut table = Table::new(&columns);
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
                paused(job, now),
            ],
        );
    }
    let none = if table.is_empty() { "no jobs\n" } else { "" };
    format!("{table}{none}{}{}", next_page(page), note_of_pause(page, zone, now))
}

/// What will run: the instants of the jobs of a page in the order of time; `zone` is the daemon's.
pub(crate) fn agenda(page: &Value, zone: &Zone, now: Timestamp) -> String {
    let mut entries: Vec<(Timestamp, &Value)> = Vec::new();
    let mut notes = Vec::new();
    for job in rows(page, "jobs") {
        let upcoming = job.get("upcoming").unwrap_or(&Value::Null);
        let times = rows(upcoming, "times").iter();
        let times = times.filter_map(|at| at.as_str()?.parse::<Timestamp>().ok());
        let before = entries.len();
        entries.extend(times.map(|at| (at, job)));
        if upcoming.get("more") == Some(&Value::Bool(true)) {
            let (id, count) = (escaped(text(job, "id")), entries.len() - before);
            notes.push(format!("{id} runs more often: only its first {count} times are shown\n"));
        }
    }
    entries.sort_by_key(|(at, _)| *at);
    let columns =
        [("TIME", Whole), ("", Whole), ("JOB", Whole), ("TASK", Cut), ("EXECUTOR", Drop(1))];
    let mut table = Table::new(&columns);
    for (at, job) in entries {
        let (id, executor) = (text(job, "id").to_owned(), text(job, "executor").to_owned());
        let cells = vec![local(at, zone), relative(at, now), id, task(job), executor];
        table.row(text(job, "state"), cells);
    }
    let none = if table.is_empty() { "nothing is due\n" } else { "" };
    let notes = notes.concat();
    format!("{table}{none}{notes}{}{}", next_page(page), note_of_pause(page, zone, now))
}

/// That no job fires, if the scheduler as a whole is paused.
fn note_of_pause(page: &Value, zone: &Zone, now: Timestamp) -> String {
    let Some(pause) = pause_of_all(page, zone, now) else { return String::new() };
    let line = format!("The scheduler is {pause}: no job fires before `punctual resume --all`.");
    escaped(&line).into_owned() + "\n"
}

/// Who paused a job, until when and why.
fn paused(job: &Value, now: Timestamp) -> String {
    let Some(pause) = job.get("pause") else { return String::new() };
    let zone = zone_of_job(job).unwrap_or_else(Zone::utc);
    let until = pause_end(pause, "until", &zone, now);
    format!("{}{until}{}", by(pause, "by"), reason(pause, "reason")).trim_start().to_owned()
}

/// One job, with its latest runs.
pub(crate) fn job(job: &Value, latest: &Value, zones: &Zones, now: Timestamp) -> String {
    let zone = zones.of(job);
    let mut lines = vec![
        ("id", text(job, "id").to_owned()),
        ("name", text(job, "name").to_owned()),
        ("state", text(job, "state").to_owned()),
        ("reason", text(job, "reason").to_owned()),
        (
            "paused",
            job.get("pause").and_then(|pause| pause_words(pause, zone, now)).unwrap_or_default(),
        ),
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
    let shown = ["id", "name", "state", "reason", "pause", "trigger", "task", "next_run_time"];
    let rest = job.as_object().into_iter().flatten();
    let rest = rest.filter(|(key, _)| !shown.contains(&key.as_str()) && *key != "scheduler_paused");
    lines.extend(rest.map(|(key, _)| match key.as_str() {
        "created_at" | "updated_at" => (key.trim_end_matches("_at"), local_option(job, key, zone)),
        key => (key, plain_value(job, key)),
    }));
    let latest = if rows(latest, "runs").is_empty() {
        "no runs yet\n".to_owned()
    } else {
        runs(latest, zones, now)
    };
    format!("{}\n\n{latest}", details(19, &lines))
}

/// Why a job ran or did not.
pub(crate) fn explanation(answer: &Value) -> String {
    let zone = answer.get("timezone").and_then(Value::as_str);
    let zone = zone.map(|zone| format!("Times are in the job's zone, {zone}."));
    let lines = rows(answer, "explanation").iter().filter_map(Value::as_str).map(str::to_owned);
    lines.chain(zone).map(|line| escaped(&line).into_owned()).collect::<Vec<_>>().join("\n")
}

/// What a reload changed.
pub(crate) fn difference(answer: &Value) -> String {
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
