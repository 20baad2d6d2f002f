//! `punctual check`: judges a file as a start would, and shows what a reload would change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Value, json};

use super::app::App;
use super::files;
use crate::cli::{self, CliError, ClientArguments};
use crate::client::{Client, ClientError};
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config};
use crate::executor::Privileges;
use crate::job::{Job, JobId};
use crate::printable::escaped;
use crate::scheduler::request::Conflict;

/// Rows of one page of the daemon's jobs.
const PAGE: usize = 1000;

/// Checks the file that was named, or the default one.
pub fn check(file: Option<PathBuf>, arguments: &ClientArguments) -> ExitCode {
    let file = file.unwrap_or_else(config::default_file);
    arguments.output().report(run(&file, arguments))
}

fn run(file: &Path, arguments: &ClientArguments) -> Result<(), CliError> {
    let config = Config::load_beside_the_service(file)?;
    for (key, place) in config.missing_secrets() {
        let what = if key.starts_with("toutiao.") { "the table [toutiao]" } else { "it" };
        cli::note(&format!("{key}: only the service has {place}, so {what} was not checked"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::Refused(error.to_string()))?;
    let state =
        config::state_directory().map_err(|invalid| CliError::Usage(invalid.to_string()))?;
    let settings = files::toutiao_settings(&config)?;
    let app = App::new(settings, &state, Arc::new(SystemClock), runtime.handle())
        .map_err(|invalid| config.error(invalid.within("toutiao")))?;
    // The daemon may have other privileges than the user who checks its file, and the same users and groups.
    let rules = files::rules(&config, app.registry(), Privileges::unknown())?;
    let declared = files::declared_jobs(&config, &rules, SystemClock.now())?;
    // A start would refuse this too.
    files::store_place(&config, &state)?;
    if !declared.faulty.is_empty() {
        let faults = declared.faulty.iter().map(|job| job.error.to_string());
        return Err(CliError::Faulty(faults.collect()));
    }
    let jobs = declared.jobs;
    let stored = cli::client(arguments, config.socket())
        .and_then(|client| Ok(runtime.block_on(Stored::read(&client, &config, &jobs))?));
    let (stored, why_not) = match stored {
        Ok(stored) => (Some(stored), String::new()),
        Err(CliError::Client(ClientError::Unreachable { .. })) => {
            (None, "no daemon is running".to_owned())
        }
        // It waits for its store, for example, and the file is as right or wrong as ever.
        Err(CliError::Client(ClientError::Refused { status: 503, message, .. })) => (None, message),
        // There may be one that cannot be asked.
        Err(why @ (CliError::Unreachable(_) | CliError::Client(ClientError::Denied { .. }))) => {
            (None, why.to_string())
        }
        Err(failure) => return Err(failure),
    };
    let compared = stored.as_ref().map(|stored| compare(stored, &jobs));
    let conflicts = stored.map(|stored| stored.conflicts).unwrap_or_default();
    let over = files::over(&jobs, SystemClock.now());
    let advice = jobs.iter().filter_map(|job| Some((job.id.clone(), job.task.advice()?)));
    let advice: Vec<(JobId, String)> = advice.collect();
    let warnings = over.iter().chain(&advice);
    let warnings: Vec<Value> =
        warnings.map(|(id, why)| json!({"job": id, "warning": why})).collect();
    let answer = json!({
        "file": file, "jobs": jobs.len(), "changes": compared, "warnings": warnings, "conflicts": conflicts,
    });
    arguments.output().show(&answer, |answer| {
        let over = over.iter().map(|(id, why)| format!("{id} will be finished: {why}"));
        let advice = advice.iter().map(|(id, why)| format!("{id}: {why}"));
        let warnings = over.chain(advice).map(|text| format!("\nwarning: {}", escaped(&text)));
        view(file, jobs.len(), answer.get("changes"), &why_not) + &warnings.collect::<String>()
    })?;
    if conflicts.is_empty() {
        return Ok(());
    }
    Err(CliError::Conflicts(conflicts.iter().map(ToString::to_string).collect()))
}

/// What the daemon has.
#[derive(Default)]
struct Stored {
    /// Its jobs, by id, that it has from its file or that are declared now.
    jobs: BTreeMap<String, Value>,
    /// Those that are declared now and that another file declares.
    conflicts: Vec<Conflict>,
}

impl Stored {
    async fn read(client: &Client, config: &Config, declared: &[Job]) -> Result<Self, ClientError> {
        let declared: BTreeSet<&str> = declared.iter().map(|job| job.id.as_str()).collect();
        let own = source(client, config).await?;
        let mut stored = Self::default();
        let mut cursor = String::new();
        loop {
            let page = client.jobs(&format!("limit={PAGE}{cursor}")).await?;
            for job in page.get("jobs").and_then(Value::as_array).into_iter().flatten() {
                stored.add(job, &declared, &own);
            }
            match page.get("next_cursor").and_then(Value::as_str) {
                Some(next) => cursor = format!("&cursor={}", crate::client::percent_encode(next)),
                None => return Ok(stored),
            }
        }
    }

    fn add(&mut self, job: &Value, declared: &BTreeSet<&str>, own: &str) {
        let text = |key| job.get(key).and_then(Value::as_str);
        let Some(id) = text("id") else { return };
        let is_declared = declared.contains(id);
        let of_file = text("origin") == Some("file");
        match text("source").filter(|other| of_file && *other != own) {
            Some(other) if is_declared => {
                let (id, other, own) = (id.to_owned(), other.to_owned(), own.to_owned());
                self.conflicts.push(Conflict { id, other, own });
            }
            None if of_file || is_declared => {
                self.jobs.insert(id.to_owned(), job.clone());
            }
            Some(_) | None => {}
        }
    }
}

/// The source of the file's jobs if this daemon had it: a file that names none has that of the daemon's own path.
async fn source(client: &Client, config: &Config) -> Result<String, ClientError> {
    if config.names_source() {
        return Ok(config.source());
    }
    let status = client.status().await?;
    let file = status.pointer("/declared/file").and_then(Value::as_str);
    Ok(file.filter(|file| !file.is_empty()).map_or_else(|| config.source(), str::to_owned))
}

fn compare(Stored { jobs: stored, conflicts }: &Stored, declared: &[Job]) -> Value {
    let is_left_alone = |job: &&Job| conflicts.iter().any(|other| other.id == job.id.as_str());
    let declared: Vec<&Job> = declared.iter().filter(|job| !is_left_alone(job)).collect();
    let is_same = |job: &Job, stored: &Value| {
        let is_broken = stored.get("state").and_then(Value::as_str) == Some("broken");
        !is_broken && stored.as_object().is_some_and(|stored| job.is_defined_as(stored))
    };
    let ids = |keep: &dyn Fn(&Job) -> bool| {
        declared.iter().filter(|job| keep(job)).map(|job| job.id.as_str()).collect::<Vec<_>>()
    };
    let added = ids(&|job| !stored.contains_key(job.id.as_str()));
    let changed =
        ids(&|job| stored.get(job.id.as_str()).is_some_and(|stored| !is_same(job, stored)));
    let removed = stored
        .keys()
        .filter(|id| declared.iter().all(|job| job.id.as_str() != *id))
        .collect::<Vec<_>>();
    json!({"added": added, "changed": changed, "removed": removed})
}

fn view(file: &Path, jobs: usize, changes: Option<&Value>, why_not: &str) -> String {
    let mut lines = vec![format!("{} is valid: {jobs} jobs", escaped(&file.display().to_string()))];
    let Some(changes) = changes.and_then(Value::as_object) else {
        let why_not = escaped(why_not);
        lines.push(format!("{why_not}, so it was not compared with what a daemon has"));
        return lines.join("\n");
    };
    for (word, ids) in changes {
        let ids: Vec<&str> =
            ids.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if !ids.is_empty() {
            lines.push(format!("a reload would have {word}: {}", escaped(&ids.join(", "))));
        }
    }
    if lines.len() == 1 {
        lines.push("a reload would change no job".to_owned());
    }
    lines.join("\n")
}
