//! The commands about runs: `run`, `cancel` and `runs`.

use serde_json::Value;

use super::arguments::RunsArguments;
use super::console::Console;
use super::error::CliError;
use super::logs::{self, check_known};
use super::time_context::daemon_zone;
use super::times::Zones;
use super::view;
use crate::client::{Client, ClientError};
use crate::clock::Timestamp;
use crate::instant::{Toward, parse_moment};
use crate::zone::Zone;

/// How long one request waits for the end of a run, in seconds, before the next one does.
const WAIT_SECONDS: u64 = 60;

/// Starts a run of a job. With `wait`, its output is shown in this form, and the run has to succeed.
pub(super) async fn start(
    client: &Client,
    id: &str,
    wait: Option<logs::Form>,
    console: &Console,
) -> Result<(), CliError> {
    let run = client.run(id).await?;
    let Some(run_id) = run.get("id").and_then(Value::as_str).map(str::to_owned) else {
        return console.show(&run, |_| String::new());
    };
    let Some(form) = wait else {
        return console.show(&run, |_| format!("started run {run_id}"));
    };
    let waited = async {
        // People see the output while it is written; a program gets one answer.
        let is_shown = !console.is_json() && logs::show_live(client, &run_id, &form).await?;
        Ok((ended(client, &run_id, run).await?, is_shown))
    };
    let goes_on = format!(
        "run {run_id} goes on (punctual logs {run_id} --follow shows its output, punctual cancel {run_id} ends it)"
    );
    let (run, is_shown) = unless_interrupted(waited, goes_on).await?;
    let output = if is_shown { Value::Null } else { client.output(&run_id).await? };
    let output = output.get("output").and_then(Value::as_str).unwrap_or_default();
    console.show(&run, |run| view::finished(run, output, form.is_raw()))?;
    match run.get("state").and_then(Value::as_str) {
        Some("succeeded") => Ok(()),
        state => Err(CliError::Quiet(format!("the run is {}", state.unwrap_or("unknown")))),
    }
}

/// Cancels a run, and waits until it has ended unless `no_wait`.
pub(super) async fn cancel(
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

/// The error for an unknown run. If the id is that of a job, it says how to find the runs of that job.
async fn no_run(client: &Client, id: &str, error: ClientError) -> CliError {
    if client.job(id).await.is_err() {
        return error.into();
    }
    CliError::NotFound(format!(
        "there is no run \"{id}\", but a job; punctual runs {id} --state running shows which of its runs can be cancelled"
    ))
}

/// Waits for the end of a run, and returns the run as it is then.
async fn ended(client: &Client, id: &str, mut run: Value) -> Result<Value, ClientError> {
    while matches!(run.get("state").and_then(Value::as_str), Some("pending" | "running")) {
        run = client.wait(id, WAIT_SECONDS).await?;
    }
    Ok(run)
}

/// Waits for something that goes on if Ctrl-C ends the wait; the error then says that it goes on.
async fn unless_interrupted<T>(
    work: impl Future<Output = Result<T, CliError>>,
    goes_on: String,
) -> Result<T, CliError> {
    tokio::select! {
        // Biased, so that it listens for the signal before it does anything else.
        biased;
        Ok(()) = tokio::signal::ctrl_c() => Err(CliError::Interrupted(goes_on)),
        done = work => done,
    }
}

/// Shows a page of runs, or one run if its id was given.
pub(super) async fn list(
    client: &Client,
    filter: &RunsArguments,
    console: &Console,
    now: Timestamp,
) -> Result<(), CliError> {
    if let Some(name) = &filter.name {
        match client.run_by_id(name).await {
            Ok(run) => {
                let zones = zones_of(client, console, [&run]).await?;
                return console.show(&run, |run| view::run(run, &zones, now));
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
        check_known(client, name).await?;
    }
    let zones = zones_of(client, console, rows).await?;
    console.show(&page, |page| view::runs(page, &zones, now))
}

/// The zones in which people see these runs. JSON needs none: its times are in UTC.
async fn zones_of(
    client: &Client,
    console: &Console,
    runs: impl IntoIterator<Item = &Value>,
) -> Result<Zones, ClientError> {
    Zones::of_runs(client, runs.into_iter().filter(|_| !console.is_json())).await
}

/// Reads `--since` in the zone of the job, if one is named, else in the daemon's.
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
    // A text that is no time in any zone is refused without a daemon.
    read(&Zone::utc())?;
    let Some(id) = job else { return read(&daemon_zone(client).await?) };
    match client.job(id).await {
        Ok(job) => read(Zones::of_job(client, &job).await?.of(&job)),
        // The job may have been removed; its runs are still there.
        Err(error) if error.is_not_found() => read(&daemon_zone(client).await?),
        Err(error) => Err(error.into()),
    }
}
