//! `punctual check`: checks a file as a start would, and finds out what a reload would change. It is here rather than in
//! `cli` because it needs the builtins of the application and the rules of the scheduler; `cli` renders the answer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Value, json};

use super::file_jobs::FileJobs;
use super::settings;
use super::startup_error::{refused, unusable};
use crate::cli::{self, CliError, ClientArguments};
use crate::client::{Client, ClientError};
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config};
use crate::executor::Privileges;
use crate::job::{Job, JobId};
use crate::scheduler::request::Conflict;

/// Number of jobs per request to the daemon.
const PAGE: usize = 1000;

/// Checks the given file, or the default one.
pub fn check(file: Option<PathBuf>, arguments: &ClientArguments) -> ExitCode {
    let file = file.unwrap_or_else(config::default_file);
    arguments.console().report(run(&file, arguments))
}

fn run(file: &Path, arguments: &ClientArguments) -> Result<(), CliError> {
    let config = Config::load_beside_the_service(file)?;
    for (key, place) in config.missing_secrets() {
        let what = if key.starts_with("toutiao.") { "the table [toutiao]" } else { "it" };
        cli::note(&format!("{key}: only the service has {place}, so {what} was not checked"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| refused(&error))?;
    let state = config::state_directory().map_err(|invalid| unusable(&invalid))?;
    let application = settings::application(&config, &state, runtime.handle())?;
    // The daemon may have other privileges than the user who checks its file; users and groups are the same.
    let rules =
        settings::rules(&config, Arc::new(application.registry.clone()), Privileges::unknown())?;
    let jobs = FileJobs::judge(&config, &rules, SystemClock.now())?;
    // A start would refuse an invalid URL too.
    settings::store_place(&config, &state)?;
    if !jobs.faulty.is_empty() {
        let faults = jobs.faulty.iter().map(|job| job.error.to_string());
        return Err(CliError::Faulty(faults.collect()));
    }
    let over = jobs.finished(SystemClock.now());
    let jobs = jobs.valid;
    let stored = cli::client(arguments, config.socket())
        .and_then(|client| Ok(runtime.block_on(DaemonJobs::read(&client, &config, &jobs))?));
    let (stored, why_not) = match stored {
        Ok(stored) => (Some(stored), String::new()),
        Err(CliError::Client(ClientError::Unreachable { .. })) => {
            (None, "no daemon is running".to_owned())
        }
        // The daemon may be waiting for its store, which says nothing about the file.
        Err(CliError::Client(ClientError::Refused { status: 503, message, .. })) => (None, message),
        // There may be a daemon that this user cannot ask.
        Err(why @ (CliError::Unreachable(_) | CliError::Client(ClientError::Denied { .. }))) => {
            (None, why.to_string())
        }
        Err(failure) => return Err(failure),
    };
    let compared = stored.as_ref().map(|stored| compare(stored, &jobs));
    let conflicts = stored.map(|stored| stored.conflicts).unwrap_or_default();
    let advice = jobs.iter().filter_map(|job| Some((job.id.clone(), job.task.advice()?)));
    let advice: Vec<(JobId, String)> = advice.collect();
    let warnings = over.iter().chain(&advice);
    let warnings: Vec<Value> =
        warnings.map(|(id, why)| json!({"job": id, "warning": why})).collect();
    let answer = json!({
        "file": file.display().to_string(), "jobs": jobs.len(), "changes": compared, "warnings": warnings, "conflicts": conflicts,
    });
    arguments.console().show(&answer, |answer| {
        let over = over.iter().map(|(id, why)| format!("{id} will be finished: {why}"));
        let advice = advice.iter().map(|(id, why)| format!("{id}: {why}"));
        cli::view_of_check(answer, &why_not, over.chain(advice))
    })?;
    if conflicts.is_empty() {
        return Ok(());
    }
    Err(CliError::Conflicts(conflicts.iter().map(ToString::to_string).collect()))
}

/// The jobs of a running daemon that this file concerns.
#[derive(Default)]
struct DaemonJobs {
    /// By id, those that the daemon has from this file or that the file declares now.
    jobs: BTreeMap<String, Value>,
    /// Those that the file declares now and another file declares too.
    conflicts: Vec<Conflict>,
}

impl DaemonJobs {
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

/// The source of the file's jobs. If the file names none, it is the path of the running daemon's file, which this file is
/// to replace.
async fn source(client: &Client, config: &Config) -> Result<String, ClientError> {
    if config.names_source() {
        return Ok(config.source());
    }
    let status = client.status().await?;
    let file = status.pointer("/declared/file").and_then(Value::as_str);
    Ok(file.filter(|file| !file.is_empty()).map_or_else(|| config.source(), str::to_owned))
}

fn compare(DaemonJobs { jobs: stored, conflicts }: &DaemonJobs, declared: &[Job]) -> Value {
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
