//! The output of a run: as far as it is written, or line by line to its end.

use serde_json::Value;

use super::output::{Output, Reader, print};
use super::view::local_millis;
use super::{Failure, LogsArguments, instant, table};
use crate::client::{Client, ClientError, percent_encode};

/// Rows of a job in which its latest run is looked for: it may have skipped some occurrences since.
const LATEST_ROWS: usize = 50;

/// How lines are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// As JSON.
    Json,
    /// As they were written.
    Plain,
    /// With their time and stream.
    Stamped,
}

/// What following has led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Followed {
    /// The run has ended in this state.
    Ended(String),
    /// Nobody reads any more what is printed.
    Unread,
    /// The daemon has ended it.
    BrokenOff,
}

/// Carries out `logs`.
pub(super) async fn run(
    client: &Client,
    arguments: &LogsArguments,
    output: &Output,
) -> Result<(), Failure> {
    let style = match (output.is_json(), arguments.timestamps) {
        (true, _) => Style::Json,
        (false, false) => Style::Plain,
        (false, true) => Style::Stamped,
    };
    if !arguments.follow {
        let call = async |id: &str| client.output_of(id, &arguments.query()).await;
        let answer = of_run_or_job(client, &arguments.run, call).await?;
        return output.show(&answer, |answer| shown(answer, style));
    }
    let call = async |id: &str| client.follow(id, &arguments.query()).await;
    let lines = of_run_or_job(client, &arguments.run, call).await?;
    match follow(lines, style).await? {
        Followed::Unread => Ok(()),
        Followed::Ended(state) if state == "succeeded" => Ok(()),
        Followed::Ended(state) if output.is_json() => Err(Failure::Quiet(state)),
        Followed::Ended(state) => Err(Failure::Refused(format!("the run is {state}"))),
        Followed::BrokenOff => {
            Err(Failure::Unreachable("the daemon stopped before the run had ended".to_owned()))
        }
    }
}

/// Asks for something of a run; of a job's latest run, if a job is named.
async fn of_run_or_job<T>(
    client: &Client,
    name: &str,
    call: impl AsyncFn(&str) -> Result<T, ClientError>,
) -> Result<T, Failure> {
    match call(name).await {
        Err(error) if error.is_not_found() => {}
        other => return Ok(other?),
    }
    let query = format!("limit={LATEST_ROWS}&job={}", percent_encode(name));
    let runs = client.runs(&query).await?;
    let rows = runs.get("runs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let executed =
        rows.iter().find(|run| run.get("state").and_then(Value::as_str) != Some("skipped"));
    let latest = executed.and_then(|run| run.get("id")).and_then(Value::as_str);
    let latest = latest.ok_or_else(|| {
        Failure::Refused(format!("there is no run and no job with runs \"{name}\""))
    })?;
    Ok(call(latest).await?)
}

/// Prints lines as they come.
pub(super) async fn follow(
    mut lines: crate::client::Lines,
    style: Style,
) -> Result<Followed, Failure> {
    while let Some(told) = lines.next().await? {
        let state = told.get("state").and_then(Value::as_str);
        let text = match (style, state) {
            (Style::Json, _) => told.to_string(),
            (_, Some(state)) => return Ok(Followed::Ended(state.to_owned())),
            (_, None) => words(&told, style),
        };
        if print(&text)? == Reader::Gone {
            return Ok(Followed::Unread);
        }
        if let Some(state) = state {
            return Ok(Followed::Ended(state.to_owned()));
        }
    }
    Ok(Followed::BrokenOff)
}

/// An output, as far as it is written.
fn shown(answer: &Value, style: Style) -> String {
    let text = |key: &str| answer.get(key).and_then(Value::as_str).unwrap_or_default();
    let number = |key: &str| answer.get(key).and_then(Value::as_u64).unwrap_or(0);
    let lines = answer.get("lines").and_then(Value::as_array).map(Vec::as_slice);
    let lines = lines.unwrap_or_default();
    if lines.is_empty() {
        let (run, job, state) = (text("run_id"), text("job_id"), text("state"));
        return format!("run {run} of {job} has no output ({state})");
    }
    let mut shown: Vec<String> = lines.iter().map(|line| words(line, style)).collect();
    if number("cut") > 0 {
        let after = usize::try_from(number("cut_after")).unwrap_or(usize::MAX);
        shown.insert(after.min(shown.len()), cut(number("cut")));
    }
    shown.join("\n")
}

/// A line, or what is said between lines.
fn words(told: &Value, style: Style) -> String {
    let text = |key: &str| told.get(key).and_then(Value::as_str).unwrap_or_default();
    let number = |key: &str| told.get(key).and_then(Value::as_u64);
    if let Some(missed) = number("missed") {
        return cut(missed);
    }
    if let Some(attempt) = number("attempt") {
        return table::noted(&format!("… attempt {attempt} …"));
    }
    let stamp = match style {
        Style::Stamped => {
            let at = instant(told, "at").map(local_millis).unwrap_or_default();
            format!("{at} {} ", text("stream"))
        }
        Style::Json | Style::Plain => String::new(),
    };
    let line = format!("{stamp}{}", text("text"));
    if text("stream") == "stderr" { table::warned(&line) } else { line }
}

fn cut(lines: u64) -> String {
    table::noted(&format!("… {lines} lines are not kept …"))
}

/// Prints the output of a run that is awaited, as it comes. Whether that was done.
pub(super) async fn show_live(client: &Client, run_id: &str) -> Result<bool, Failure> {
    match client.follow(run_id, "").await {
        Ok(lines) => follow(lines, Style::Plain).await.map(|_| true),
        // There is no place for another follower: it is shown at the end.
        Err(ClientError::Refused { status: 503, .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
