//! Requests about the ledger.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::error::ApiError;
use super::jobs::check_state;
use super::request::Parameters;
use crate::clock::Timestamp;
use crate::filter::RunFilter;
use crate::history::PAGE_DEFAULT;
use crate::run::Run;

/// Seconds for which one request waits at most.
const WAIT_SECONDS_MAX: u64 = 300;

/// States that a list can be asked for.
const STATES: [&str; 7] =
    ["pending", "running", "succeeded", "failed", "cancelled", "lost", "skipped"];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParameters {
    job: Option<String>,
    state: Option<String>,
    since: Option<Timestamp>,
    limit: Option<usize>,
    cursor: Option<String>,
}

pub(super) async fn list(
    State(api): State<Api>,
    Parameters(given): Parameters<ListParameters>,
) -> Result<Json<Value>, ApiError> {
    check_state(given.state.as_deref(), &STATES)?;
    let filter = RunFilter {
        job_id: given.job,
        state: given.state,
        occurrence: None,
        since: given.since,
        before: given.cursor,
        limit: given.limit.unwrap_or(PAGE_DEFAULT),
    };
    let page = api.history.runs(filter).await?;
    let runs: Vec<Value> = page.rows.iter().map(Run::to_value).collect();
    Ok(Json(json!({"runs": runs, "next_cursor": page.next_cursor})))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShowParameters {
    wait: Option<u64>,
}

pub(super) async fn show(
    State(api): State<Api>,
    Path(id): Path<String>,
    Parameters(given): Parameters<ShowParameters>,
) -> Result<Json<Value>, ApiError> {
    let run = match given.wait {
        Some(seconds) => {
            api.history.wait(&id, Duration::from_secs(seconds.min(WAIT_SECONDS_MAX))).await?
        }
        None => api.history.run(&id).await?,
    };
    Ok(Json(run.ok_or_else(|| unknown(&id))?.to_value()))
}

pub(super) async fn output(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let run = api.history.run(&id).await?.ok_or_else(|| unknown(&id))?;
    let output = api.history.output(&id).await?;
    let (tail, bytes) = output.map_or_else(Default::default, |output| (output.tail, output.bytes));
    let state = run.state.word();
    Ok(Json(
        json!({"run_id": id, "job_id": run.job_id, "state": state, "output": tail, "bytes": bytes}),
    ))
}

fn unknown(id: &str) -> ApiError {
    ApiError::not_found(format!("there is no run \"{id}\""))
}
