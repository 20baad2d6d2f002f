//! `punctual import --crontab`: the lines of a crontab become jobs.
//!
//! [`crontab`] reads the file as cron does, [`translate`](mod@translate) makes a definition of each line, and [`cron_times`] says when
//! cron would run it next, by a search of its own, so that a dry run compares two answers. The jobs are added in batches.
//! A job that the daemon has already as the line defines it is left alone.

mod cron_times;
mod crontab;
mod translate;

use std::io::Read;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::console::{Console, note};
use super::error::CliError;
use super::table::Fit::{Cut, Whole};
use super::table::Table;
use super::times::local;
use crate::client::Client;
use crate::clock::{Timestamp, rfc3339};
use crate::trigger::Trigger;
use crate::zone::{DefaultZone, Zone};
use crontab::{CrontabForm, LineFault};
use translate::{ImportedJob, Origins, translate};

/// The largest crontab in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Jobs of one request.
const BATCH_JOBS: usize = 1000;

/// Arguments of `import`.
#[derive(Debug, Args)]
pub struct ImportArguments {
    /// The crontab; - for standard input
    #[arg(long, value_name = "FILE")]
    crontab: PathBuf,
    /// Each line names a user before its command, as in /etc/crontab and /etc/cron.d
    #[arg(long)]
    system: bool,
    /// Run the commands as this user [default: that of commands which name none]
    #[arg(long, value_name = "NAME", conflicts_with = "system")]
    user: Option<String>,
    /// What the ids of the jobs begin with
    #[arg(long, value_name = "TEXT", default_value = "cron:")]
    prefix: String,
    /// Add nothing; show what would be added, and when cron and Punctual would run it next
    #[arg(long)]
    dry_run: bool,
    /// Import the lines that can be translated although others cannot
    #[arg(long)]
    partial: bool,
}

/// What an import does with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ImportStep {
    Add,
    Replace,
    Keep,
}

impl ImportStep {
    fn word(self) -> &'static str {
        match self {
            Self::Add => "new",
            Self::Replace => "changed",
            Self::Keep => "unchanged",
        }
    }
}

/// A job of the crontab, compared with the daemon's.
#[derive(Debug)]
struct PlannedJob {
    job: ImportedJob,
    step: ImportStep,
    /// When cron would run it next; none if that is not within the years that were searched.
    cron_next: Option<Timestamp>,
    next: Option<Timestamp>,
    zone: Zone,
}

/// Carries out `import`.
pub(super) async fn run(
    client: &Client,
    given: &ImportArguments,
    console: &Console,
    now: Timestamp,
) -> Result<(), CliError> {
    let form = if given.system { CrontabForm::System } else { CrontabForm::User };
    let (entries, mut faults) = crontab::read(&text_of(given)?, form);
    let machine = DefaultZone::of_machine();
    let machine = machine.map_err(|invalid| CliError::Refused(invalid.to_string()))?.zone;
    let origins = Origins {
        prefix: &given.prefix,
        user: given.user.as_deref(),
        file: &file_name(given),
        zone: machine.name(),
    };
    let translated = translate(entries, &origins);
    let mut planned = Vec::new();
    for job in translated.jobs {
        match plan(client, job, &machine, now).await? {
            Ok(job) => planned.push(job),
            Err(fault) => faults.push(fault),
        }
    }
    faults.sort_by_key(|fault| fault.line);
    let notes: Vec<(usize, &str)> =
        translated.notes.iter().map(|(line, text)| (*line, text.as_str())).collect();
    let refused = !faults.is_empty() && !given.partial;
    let results = if given.dry_run || refused { Vec::new() } else { add(client, &planned).await? };
    let answer = to_value(&planned, &results, &notes, &faults);
    console.show(&answer, |_| view(&planned, &results, given.dry_run || refused))?;
    if !console.is_json() {
        for (line, text) in &notes {
            note(&format!("line {line}: {text}"));
        }
        for LineFault { line, why } in &faults {
            note(&format!("line {line} is not imported: {why}"));
        }
        if refused && !given.dry_run {
            note("nothing was imported; --partial imports the other lines");
        } else if results.iter().any(|(_, result)| is_stored(result)) {
            note("cron still has these lines: remove them there, or they run twice");
        }
    }
    let failed = results.iter().any(|(_, result)| !is_stored(result));
    if refused || failed {
        return Err(CliError::Quiet("not every line was imported".to_owned()));
    }
    Ok(())
}

fn text_of(given: &ImportArguments) -> Result<String, CliError> {
    let name = file_name(given);
    let fail = |why: String| CliError::Usage(format!("{name}: {why}"));
    let is_stdin = given.crontab.as_os_str() == "-";
    let mut bytes = Vec::new();
    let read = if is_stdin {
        std::io::stdin().lock().take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)
    } else {
        let file = std::fs::File::open(&given.crontab);
        file.and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
    };
    let length = read.map_err(|error| fail(error.to_string()))?;
    if u64::try_from(length).is_ok_and(|length| length > FILE_BYTES_MAX) {
        return Err(fail(format!("is larger than {FILE_BYTES_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| fail("is not UTF-8 text".to_owned()))
}

/// The absolute path of the crontab, or a word for standard input.
fn file_name(given: &ImportArguments) -> String {
    if given.crontab.as_os_str() == "-" {
        return "standard input".to_owned();
    }
    let path = std::path::absolute(&given.crontab).unwrap_or_else(|_| given.crontab.clone());
    path.display().to_string()
}

/// Compares a job with the daemon's, and finds its next times.
async fn plan(
    client: &Client,
    job: ImportedJob,
    machine: &Zone,
    now: Timestamp,
) -> Result<Result<PlannedJob, LineFault>, CliError> {
    let trigger = job.definition.get("trigger").cloned().unwrap_or_default();
    let trigger = match Trigger::compile(&trigger, machine, now) {
        Ok(trigger) => trigger,
        Err(invalid) => return Ok(Err(LineFault { line: job.line, why: invalid.to_string() })),
    };
    let step = match client.job(&job.id).await {
        Ok(known) if is_part(&job.definition, &known) => ImportStep::Keep,
        Ok(_) => ImportStep::Replace,
        Err(error) if error.is_not_found() => ImportStep::Add,
        Err(error) => return Err(error.into()),
    };
    let zone = trigger.zone().clone();
    let cron_next = cron_times::next(&job.schedule, &zone, now);
    Ok(Ok(PlannedJob { job, step, cron_next, next: trigger.next_after(now), zone }))
}

/// Whether everything that a definition says is what a job has.
fn is_part(definition: &Value, job: &Value) -> bool {
    match (definition, job) {
        (Value::Object(given), Value::Object(known)) => given
            .iter()
            .filter(|(key, _)| *key != "replace_existing")
            .all(|(key, value)| known.get(key).is_some_and(|known| is_part(value, known))),
        (given, known) => given == known,
    }
}

/// Adds the jobs that are new or changed. The answer has the result of each with its id.
async fn add(client: &Client, planned: &[PlannedJob]) -> Result<Vec<(String, Value)>, CliError> {
    let changes: Vec<&PlannedJob> =
        planned.iter().filter(|planned| planned.step != ImportStep::Keep).collect();
    let mut results = Vec::new();
    for batch in changes.chunks(BATCH_JOBS) {
        let jobs: Vec<Value> = batch.iter().map(|planned| planned.job.definition.clone()).collect();
        let answer = client.add_all(&jobs).await?;
        let answers = answer.get("results").and_then(Value::as_array).cloned().unwrap_or_default();
        let ids = batch.iter().map(|planned| planned.job.id.clone());
        results.extend(ids.zip(answers));
    }
    Ok(results)
}

fn is_stored(result: &Value) -> bool {
    matches!(result.get("status").and_then(Value::as_str), Some("added" | "replaced"))
}

fn result_of<'a>(results: &'a [(String, Value)], id: &str) -> Option<&'a Value> {
    results.iter().find(|(known, _)| known == id).map(|(_, result)| result)
}

fn to_value(
    planned: &[PlannedJob],
    results: &[(String, Value)],
    notes: &[(usize, &str)],
    faults: &[LineFault],
) -> Value {
    let jobs = planned.iter().map(|planned| {
        let PlannedJob { job, step, cron_next, next, .. } = planned;
        json!({
            "line": job.line,
            "id": job.id,
            "change": step.word(),
            "cron_next": cron_next.map(rfc3339),
            "next": next.map(rfc3339),
            "job": job.definition,
            "result": result_of(results, &job.id),
        })
    });
    let lines = |(line, message): (usize, &str)| json!({"line": line, "message": message});
    json!({
        "jobs": jobs.collect::<Vec<_>>(),
        "notes": notes.iter().copied().map(lines).collect::<Vec<_>>(),
        "faults": faults.iter().map(|fault| lines((fault.line, &fault.why))).collect::<Vec<_>>(),
    })
}

fn view(planned: &[PlannedJob], results: &[(String, Value)], is_dry: bool) -> String {
    let columns =
        [("LINE", Whole), ("JOB", Cut), ("CHANGE", Whole), ("CRON NEXT", Whole), ("NEXT", Whole)];
    let mut table = Table::new(&columns);
    for PlannedJob { job, step, cron_next, next, zone } in planned {
        let failure = result_of(results, &job.id).filter(|result| !is_stored(result));
        let change = match failure.and_then(|result| result.pointer("/error/message")) {
            Some(message) => format!("refused: {}", message.as_str().unwrap_or_default()),
            None => step.word().to_owned(),
        };
        let shown =
            |at: &Option<Timestamp>| at.map_or_else(|| "never".to_owned(), |at| local(at, zone));
        let differs = if cron_next == next { "" } else { "  (differs)" };
        let state = if failure.is_some() { "failed" } else { "" };
        let next = format!("{}{differs}", shown(next));
        table
            .row(state, vec![job.line.to_string(), job.id.clone(), change, shown(cron_next), next]);
    }
    if table.is_empty() {
        return "the crontab has no jobs that can be imported".to_owned();
    }
    let count = |step| planned.iter().filter(|planned| planned.step == step).count();
    let (new, changed) = (count(ImportStep::Add), count(ImportStep::Replace));
    let unchanged = count(ImportStep::Keep);
    let done = if is_dry { "would be" } else { "are" };
    format!("{table}{new} {done} new, {changed} changed, {unchanged} unchanged")
}
