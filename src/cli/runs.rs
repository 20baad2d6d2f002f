//! The commands about single runs: `run` and `cancel`.

use serde_json::Value;

use super::console::Console;
use super::error::CliError;
use super::logs;
use super::view;
use crate::client::{Client, ClientError};

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
    // The id may have been given in part.
    let id = run.get("id").and_then(Value::as_str).unwrap_or(id).to_owned();
    let goes_on = format!("run {id} was asked to end, and may go on for a while");
    unless_interrupted(async { Ok(ended(client, &id, run).await?) }, goes_on).await
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
