//! The command line: what a person types, and how answers are shown. It knows the client and the
//! triggers, and nothing of the daemon behind the socket.

mod add;
mod arguments;
mod call;
mod check;
mod columns;
mod command;
mod console;
mod duration;
mod error;
mod generate;
mod log_level;
mod logs;
mod policy;
mod preview;
mod table;
mod terminal;
mod time_context;
mod value;
mod view;
mod zones;

pub use arguments::{
    AddArguments, CallArguments, CheckArguments, ChosenJobs, CliArguments, ClientArguments,
    ClientCommand, CommandArguments, LogLevelArguments, LogsArguments, MigrateArguments,
    RunsArguments, ServeArguments, Verb, parse,
};
pub use check::view_of_check;
pub use console::{Console, note, report};
pub use error::CliError;
pub use generate::{completions, man};

use std::process::ExitCode;

use serde_json::Value;

use crate::client::{Client, ClientError};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config::{self, ClientSocket};
use crate::instant::{Toward, parse_moment};
use crate::printable::escaped;
use crate::zone::Zone;
use time_context::TimeContext;
use zones::Zones;

/// How long `run --wait` waits for one answer before it asks again.
const WAIT_SECONDS: u64 = 60;

/// A client of the daemon that the arguments name; else of the one at `configured`, else of the one that is found.
pub fn client(
    arguments: &ClientArguments,
    configured: Option<ClientSocket>,
) -> Result<Client, CliError> {
    if let Some(path) = &arguments.socket {
        return Ok(Client::new(path));
    }
    let found = configured.map_or_else(config::client_socket, Ok);
    let ClientSocket { path, users, elsewhere } =
        found.map_err(|invalid| CliError::Unreachable(invalid.to_string()))?;
    let client = Client::new(path).of_users(users);
    Ok(match elsewhere {
        Some(elsewhere) => client.not_found(elsewhere, config::is_service_installed()),
        None => client,
    })
}

/// Carries out a command that speaks to a daemon, or computes a preview.
pub fn run(arguments: &ClientArguments, command: ClientCommand) -> ExitCode {
    let output = arguments.output();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::Refused(error.to_string()));
    let client = client(arguments, None);
    output.report(runtime.and_then(|runtime| {
        if let ClientCommand::Preview(preview) = &command {
            return runtime.block_on(preview::run(client.ok().as_ref(), preview, &output));
        }
        runtime.block_on(speak(&client?, command, &output))
    }))
}

async fn speak(client: &Client, command: ClientCommand, output: &Console) -> Result<(), CliError> {
    let now = SystemClock.now();
    match command {
        ClientCommand::Add(arguments) => {
            let present = TimeContext::of_job(client, &arguments, now).await?;
            let job = client.add(&add::definition(&arguments, &present)?).await?;
            output.show(&job, |job| view::added(job, arguments.replace, now))
        }
        ClientCommand::List(filter) => {
            let page = client.jobs(&filter.query()).await?;
            let is_paused = page.get("scheduler_paused").is_some_and(Value::is_object);
            let zone =
                if is_paused { time_context::daemon_zone(client).await? } else { Zone::utc() };
            output.show(&page, |page| view::jobs(page, &zone, now))
        }
        ClientCommand::Show { id } => show(client, &id, output, now).await,
        ClientCommand::Pause(ChosenJobs { all: true, .. }) => {
            let answer = client.pause_all().await?;
            output.show(&answer, |_| "paused the scheduler".to_owned())
        }
        ClientCommand::Pause(ChosenJobs { ids, .. }) => {
            for_each(&ids, output, async |id| Ok(client.pause(id).await?), "paused").await
        }
        ClientCommand::Resume(ChosenJobs { all: true, .. }) => {
            let answer = client.resume_all().await?;
            output.show(&answer, |_| "resumed the scheduler".to_owned())
        }
        ClientCommand::Resume(ChosenJobs { ids, .. }) => {
            for_each(&ids, output, async |id| Ok(client.resume(id).await?), "resumed").await
        }
        ClientCommand::Cancel { runs, reason, no_wait } => {
            let call = async |id: &str| cancel(client, id, reason.as_deref(), no_wait).await;
            for_each(&runs, output, call, if no_wait { "asked to end:" } else { "ended:" }).await
        }
        ClientCommand::Remove { ids } => {
            for_each(&ids, output, async |id| remove(client, id, output).await, "removed").await
        }
        ClientCommand::Run { id, wait, raw } => {
            let shown = wait.then(|| logs::Form::plain(raw));
            run_now(client, &id, shown, output).await
        }
        ClientCommand::Explain { id, at } => {
            let query = at.map(|at| format!("at={}", crate::client::percent_encode(&at)));
            let answer = client.explain(&id, &query.unwrap_or_default()).await?;
            output.show(&answer, view::explanation)
        }
        ClientCommand::Runs(filter) => runs(client, &filter, output, now).await,
        ClientCommand::Logs(arguments) => logs::run(client, &arguments, output).await,
        ClientCommand::Status => {
            let status = client.status().await?;
            output.show(&status, |status| view::status(status, now))?;
            match status.pointer("/health/state").and_then(Value::as_str) {
                Some("well") => Ok(()),
                _ => Err(CliError::Quiet("the daemon is degraded".to_owned())),
            }
        }
        ClientCommand::Reload { force } => {
            let answer = if force { client.force_reload().await? } else { client.reload().await? };
            output.show(&answer, view::difference)
        }
        ClientCommand::LogLevel(arguments) => log_level::run(client, &arguments, output, now).await,
        ClientCommand::Preview(arguments) => preview::run(Some(client), &arguments, output).await,
    }
}

/// Shows a job, to people with its latest runs.
async fn show(client: &Client, id: &str, output: &Console, now: Timestamp) -> Result<(), CliError> {
    let job = client.job(id).await?;
    if output.is_json() {
        return output.show(&job, |_| String::new());
    }
    let id = crate::client::percent_encode(id);
    let runs = client.runs(&format!("limit=5&hooks=false&job={id}")).await?;
    let zones = Zones::of_job(client, &job).await?;
    output.show(&job, |job| view::job(job, &runs, &zones, now))
}

/// Removes a job. If another file declares it, people are told that it may come back; in JSON, the job has its source.
async fn remove(client: &Client, id: &str, output: &Console) -> Result<Value, CliError> {
    let job = client.remove(id).await?;
    let source = job.get("source").and_then(Value::as_str).filter(|_| !output.is_json());
    if let Some(source) = source {
        note(&format!(
            "{id} was declared by {source}; a daemon that uses that file adds it again at its next start or reload"
        ));
    }
    Ok(job)
}

/// Asks a run to end, and waits until it has.
async fn cancel(
    client: &Client,
    id: &str,
    reason: Option<&str>,
    no_wait: bool,
) -> Result<Value, CliError> {
    let run = match client.cancel(id, reason).await {
        Err(error) if error.is_not_found() => return Err(no_run(client, id, error).await),
        run => run?,
    };
    if no_wait {
        return Ok(run);
    }
    let goes_on = format!("run {id} was asked to end, and may go on for a while");
    unless_interrupted(async { Ok(ended(client, id, run).await?) }, goes_on).await
}

/// Why there is no run of this id. If it is the id of a job, the failure says how to find its runs.
async fn no_run(client: &Client, id: &str, error: ClientError) -> CliError {
    if client.job(id).await.is_err() {
        return error.into();
    }
    CliError::NotFound(format!(
        "there is no run \"{id}\", but a job; punctual runs {id} --state running shows which of its runs can be cancelled"
    ))
}

/// The run as it is when it has ended.
async fn ended(client: &Client, id: &str, mut run: Value) -> Result<Value, ClientError> {
    while is_in_flight(&run) {
        run = client.wait(id, WAIT_SECONDS).await?;
    }
    Ok(run)
}

/// Waits for something that goes on if Ctrl-C ends the wait, which the failure then says.
async fn unless_interrupted<T>(
    work: impl Future<Output = Result<T, CliError>>,
    goes_on: String,
) -> Result<T, CliError> {
    tokio::select! {
        // It listens for the signal before it does anything else.
        biased;
        Ok(()) = tokio::signal::ctrl_c() => Err(CliError::Interrupted(goes_on)),
        done = work => done,
    }
}

fn is_in_flight(run: &Value) -> bool {
    matches!(run.get("state").and_then(Value::as_str), Some("pending" | "running"))
}

/// Does the same to several jobs. One that fails does not keep the others from being done.
async fn for_each(
    ids: &[String],
    output: &Console,
    call: impl AsyncFn(&str) -> Result<Value, CliError>,
    done: &str,
) -> Result<(), CliError> {
    let mut failed = Vec::new();
    for id in ids {
        match call(id).await {
            Ok(job) => output.show(&job, |_| format!("{done} {}", escaped(id)))?,
            Err(failure) if failure.ends_all() || ids.len() == 1 => return Err(failure),
            Err(failure) => {
                output.complain(&failure);
                failed.push(id.as_str());
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(CliError::Quiet(failed.join(", "))) }
}

async fn run_now(
    client: &Client,
    id: &str,
    wait: Option<logs::Form>,
    output: &Console,
) -> Result<(), CliError> {
    let run = client.run(id).await?;
    let Some(run_id) = run.get("id").and_then(Value::as_str).map(str::to_owned) else {
        return output.show(&run, |_| String::new());
    };
    let Some(form) = wait else {
        return output.show(&run, |_| format!("started run {run_id}"));
    };
    let waited = async {
        // People see what it writes as it comes; a program gets one answer.
        let is_shown = !output.is_json() && logs::show_live(client, &run_id, &form).await?;
        Ok((ended(client, &run_id, run).await?, is_shown))
    };
    let goes_on = format!(
        "run {run_id} goes on (punctual logs {run_id} --follow shows its output, punctual cancel {run_id} ends it)"
    );
    let (run, is_shown) = unless_interrupted(waited, goes_on).await?;
    let written = if is_shown { Value::Null } else { client.output(&run_id).await? };
    let written = written.get("output").and_then(Value::as_str).unwrap_or_default();
    output.show(&run, |run| view::finished(run, written, form.is_raw()))?;
    match run.get("state").and_then(Value::as_str) {
        Some("succeeded") => Ok(()),
        state => Err(CliError::Quiet(format!("the run is {}", state.unwrap_or("unknown")))),
    }
}

/// A page of the ledger, or one run if its id was given.
async fn runs(
    client: &Client,
    filter: &RunsArguments,
    output: &Console,
    now: Timestamp,
) -> Result<(), CliError> {
    if let Some(name) = &filter.name {
        match client.run_by_id(name).await {
            Ok(run) => {
                let zones = zones_of(client, output, [&run]).await?;
                return output.show(&run, |run| view::run(run, &zones, now));
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    let since = match &filter.since {
        Some(text) => Some(since(client, text, filter.name.as_deref(), now).await?),
        None => None,
    };
    let page = client.runs(&filter.query(since)).await?;
    let rows = page.get("runs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if let Some(name) = filter.name.as_ref().filter(|_| rows.is_empty()) {
        known(client, name).await?;
    }
    let zones = zones_of(client, output, rows).await?;
    output.show(&page, |page| view::runs(page, &zones, now))
}

/// The zones in which people are shown these runs. In JSON, times are in UTC.
async fn zones_of(
    client: &Client,
    output: &Console,
    runs: impl IntoIterator<Item = &Value>,
) -> Result<Zones, ClientError> {
    Zones::of_runs(client, runs.into_iter().filter(|_| !output.is_json())).await
}

/// Makes sure that there is a job of this id, or was one that has left runs.
async fn known(client: &Client, id: &str) -> Result<(), CliError> {
    match client.job(id).await {
        Ok(_) => return Ok(()),
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    let query = format!("limit=1&job={}", crate::client::percent_encode(id));
    let page = client.runs(&query).await?;
    match page.pointer("/runs/0") {
        Some(_) => Ok(()),
        None => Err(CliError::NotFound(format!("there is no job and no run \"{id}\""))),
    }
}

/// Reads `--since`, in the zone of the job, if one is named, else in the daemon's.
async fn since(
    client: &Client,
    text: &str,
    job: Option<&str>,
    now: Timestamp,
) -> Result<Timestamp, CliError> {
    let read = |zone: &Zone| {
        let at = parse_moment(text, zone, now, Toward::Past);
        at.map_err(|why| CliError::Usage(format!("--since: {why}")))
    };
    // What is no time in any zone needs no daemon to be refused.
    read(&Zone::utc())?;
    let Some(id) = job else { return read(&time_context::daemon_zone(client).await?) };
    match client.job(id).await {
        Ok(job) => read(Zones::of_job(client, &job).await?.of(&job)),
        // Its runs outlive a job.
        Err(error) if error.is_not_found() => read(&time_context::daemon_zone(client).await?),
        Err(error) => Err(error.into()),
    }
}

/// Reads an instant of an answer.
fn instant(value: &Value, key: &str) -> Option<Timestamp> {
    value.get(key)?.as_str()?.parse().ok()
}
