//! What the clients of a world request: jobs of every kind, and every change of them.

use std::sync::Arc;

use chrono::TimeDelta;
use punctual::clock::Timestamp;
use punctual::job::admission::Rules;
use punctual::job::{Job, JobId, JobPatch, Origin, PauseTerms};
use punctual::run::RunId;
use punctual::scheduler::request::{
    Addition, Existing, InvalidDeclaration, Modification, Precondition, Request,
};
use punctual::store::Archive;
use serde_json::{Value, json};
use support::store::MemoryStore;

use crate::dice::Dice;
use crate::store::POISON;
use crate::world::now_or_never;
use support::jobs::job_at;

const JOBS: [&str; 5] = ["a", "b", "c", "d", "e"];
const DECLARED: [&str; 2] = ["file-1", "file-2"];

/// A trigger that fires every few seconds, of any type that can, or once.
fn trigger(dice: &mut Dice, seconds: u64, now: Timestamp) -> Value {
    let every = json!({"type": "interval", "seconds": seconds});
    let cron = json!({"type": "cron", "second": format!("*/{seconds}")});
    match dice.roll(8) {
        0 => cron,
        1 => json!({"type": "crontab", "expression": format!("3-58/{seconds} * * * * *")}),
        2 => json!({"type": "or", "triggers": [every, cron]}),
        3 => json!({"type": "and", "triggers": [cron, {"type": "cron", "second": "*/2"}]}),
        4 => {
            let at = now + TimeDelta::seconds(dice.below(20) - 5);
            json!({"type": "date", "run_date": at.format("%Y-%m-%d %H:%M:%S").to_string()})
        }
        _ => every,
    }
}

fn new_job(id: &str, dice: &mut Dice, now: Timestamp) -> Job {
    let coalesce = dice.pick(&["latest", "earliest", "all"]);
    // Each occurrence of an outage of an hour is run: then they are fewer.
    let seconds = if coalesce == "all" { 5 + dice.roll(20) } else { 1 + dice.roll(9) };
    let mut given = json!({
        "id": id,
        "trigger": trigger(dice, seconds, now),
        "coalesce": coalesce,
        "max_instances": 1 + dice.roll(3),
        "overlap": dice.pick(&["skip", "skip", "queue", "replace"]),
        "on_crash": dice.pick(&["rerun", "lose"]),
    });
    if dice.once_in(3) && given["trigger"]["type"] != "date" {
        given["trigger"]["jitter"] = (1 + dice.roll(5)).into();
    }
    if dice.once_in(2) {
        given["misfire_grace_time"] = (1 + dice.roll(30)).into();
    }
    if dice.once_in(5) {
        given["max_runs"] = (1 + dice.roll(10)).into();
    }
    if dice.once_in(3) {
        let (delay, most) = (1 + dice.roll(4), 2 + dice.roll(3));
        given["retry"] = json!({"max_attempts": most, "delay": delay, "max_delay": 6});
    }
    if dice.once_in(3) {
        given["priority"] = (dice.below(3) - 1).into();
    }
    for (hook, times) in
        [("on_failure", 2), ("on_recovery", 3), ("on_success", 4), ("on_missed", 4)]
    {
        if dice.once_in(times) {
            given[hook] = json!({"type": "builtin", "name": "noop"});
        }
    }
    if dice.once_in(2) {
        given["on_failure_once"] = true.into();
    }
    if dice.once_in(15) {
        given["description"] = POISON.into();
    }
    if dice.once_in(12) {
        let at = now + TimeDelta::milliseconds(dice.below(20_000) - 5000);
        given["next_run_time"] = at.format("%Y-%m-%d %H:%M:%S%.6f").to_string().into();
    }
    job_at(&given, now)
}

/// A reload as a daemon does it at its start, too: its rules, the jobs of the store that its file does not declare,
/// and those that it declares, each slice of them a request of its own. Some of those are faulty, as only a start lets
/// them be.
pub(crate) fn reload(
    dice: &mut Dice,
    store: &MemoryStore,
    rules: &Rules,
    now: Timestamp,
) -> Vec<Request> {
    let (mut jobs, mut faults) = (Vec::new(), Vec::new());
    for id in DECLARED {
        match dice.roll(8) {
            0..=3 => jobs.push(Job { origin: Origin::File, ..new_job(id, dice, now) }),
            4 => {
                let reason = format!("jobs.toml:{}:1: jobs[0].trigger: no", dice.roll(3));
                faults.push(InvalidDeclaration { id: JobId::parse(id).unwrap(), reason });
            }
            _ => {}
        }
    }
    reload_to(store, rules, jobs, faults)
}

/// A reload of a file that declares these jobs, some of which are faulty.
pub(crate) fn reload_to(
    store: &MemoryStore,
    rules: &Rules,
    jobs: Vec<Job>,
    faults: Vec<InvalidDeclaration>,
) -> Vec<Request> {
    let executors: Vec<String> = rules.executors.keys().cloned().collect();
    let mut others = now_or_never(store.jobs_to_review(&executors, "", usize::MAX));
    others.retain(|other| jobs.iter().all(|job| job.id != other.id));
    others.retain(|other| faults.iter().all(|fault| fault.id != other.id));
    let reviews = others.into_iter().map(|other| Request::Review(vec![other.id]));
    let declarations = jobs.into_iter().map(|job| Request::Declare(vec![job]));
    let rules = Request::SetRules(Box::new(rules.clone()));
    let breaks = faults.into_iter().map(|fault| Request::BreakDeclared(vec![fault]));
    std::iter::once(rules).chain(reviews).chain(breaks).chain(declarations).collect()
}

/// That one of these runs is to end; most have by then.
pub(crate) fn cancel(dice: &mut Dice, runs: &[RunId]) -> Request {
    let number = dice.roll(1 + u64::try_from(runs.len()).unwrap());
    let run = runs.get(usize::try_from(number).unwrap()).cloned();
    let run = run.unwrap_or_else(|| RunId("none".into()));
    let reason = dice.pick(&[None, Some("for a test"), Some("for a test"), Some(POISON)]);
    let reason = reason.map(str::to_owned);
    Request::Cancel { run, reason }
}

/// What is asked of a pause: half of them end by themselves.
fn terms(dice: &mut Dice, now: Timestamp) -> PauseTerms {
    let until = dice.once_in(2).then(|| now + TimeDelta::milliseconds(dice.below(30_000) - 500));
    let reason = dice.pick(&[None, Some("for a test")]).map(str::to_owned);
    PauseTerms { until, by: None, reason }
}

/// A change of a job that was checked against it as it is now, if there is one that the change fits.
fn modification(
    dice: &mut Dice,
    store: &MemoryStore,
    rules: &Rules,
    id: &JobId,
    now: Timestamp,
) -> Option<Request> {
    let base = now_or_never(store.job(id.as_str()))?;
    let seconds = 1 + dice.roll(9);
    let resumes = dice.once_in(4);
    let patch = match dice.roll(5) {
        0 => json!({"trigger": trigger(dice, seconds, now)}),
        1 => json!({"max_runs": 1 + dice.roll(10), "priority": null}),
        // Half a millisecond keeps it off the grid of an interval that counts from now.
        2 => {
            let at = now + TimeDelta::microseconds((dice.below(9000) - 3000) * 1000 + 500);
            json!({"next_run_time": at.to_rfc3339()})
        }
        3 => json!({"description": dice.pick(&["", POISON])}),
        _ => {
            json!({"misfire_grace_time": seconds, "on_missed": {"type": "builtin", "name": "noop"}})
        }
    };
    let patch = if resumes && patch.get("trigger").is_some() {
        JobPatch::of_trigger(patch["trigger"].clone())
    } else {
        JobPatch::parse(patch).unwrap()
    };
    let checked = Box::new(rules.modify(&base, &patch, now).ok()?);
    let precondition = if dice.once_in(3) {
        Precondition::OneOf(vec![base.version()])
    } else {
        Precondition::None
    };
    let (patch, base, dry_run) = (Arc::new(patch), Arc::new(base), dice.once_in(5));
    Some(Request::Modify(Modification { patch, base, checked, precondition, resumes, dry_run }))
}

/// Anything, to a node that judges by these rules.
pub(crate) fn any(
    dice: &mut Dice,
    store: &MemoryStore,
    rules: &Rules,
    now: Timestamp,
) -> Vec<Request> {
    let id = if dice.once_in(6) { dice.pick(&DECLARED) } else { dice.pick(&JOBS) };
    let named = JobId::parse(id).unwrap();
    let request = match dice.roll(64) {
        0..=1 => Request::Remove(named),
        2..=6 => Request::Pause(named, terms(dice, now)),
        7..=13 => Request::Resume(named),
        14..=21 => Request::Run(named),
        22 => Request::PauseAll(terms(dice, now)),
        23..=26 => Request::ResumeAll,
        27..=28 => return reload(dice, store, rules, now),
        60..=63 => return modification(dice, store, rules, &named, now).into_iter().collect(),
        number => {
            let existing = match number {
                29..=32 => Existing::Redefine,
                33..=35 => Existing::Reschedule,
                _ => Existing::Refuse,
            };
            Request::Add(Addition { job: Box::new(new_job(id, dice, now)), existing })
        }
    };
    vec![request]
}
