//! Requests about the ledger.

use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::error::ApiError;
use super::jobs::{check_state, check_word, page_limit};
use super::request::{OfRun, Parameters};
use super::unix::Peer;
use crate::filter::RunFilter;
use crate::instant::{Toward, parse_moment};
use crate::invalid::{Invalid, quoted};
use crate::run::{Attempt, Run, RunId};

/// Seconds for which one request waits at most.
const WAIT_SECONDS_MAX: u64 = 300;

/// States that a list can be asked for.
const STATES: [&str; 8] =
    ["pending", "running", "succeeded", "failed", "timed_out", "cancelled", "lost", "skipped"];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParameters {
    job: Option<String>,
    state: Option<String>,
    since: Option<String>,
    hooks: Option<bool>,
    limit: Option<usize>,
    cursor: Option<String>,
}

pub(super) async fn list(
    State(api): State<Api>,
    Parameters(given): Parameters<ListParameters>,
) -> Result<Json<Value>, ApiError> {
    check_state(given.state.as_deref(), &STATES)?;
    check_word("job", given.job.as_deref())?;
    let is_run = |cursor: &String| RunId::parse(cursor).is_some();
    if let Some(cursor) = given.cursor.as_ref().filter(|cursor| !is_run(cursor)) {
        let message = format!("{} is not the id of a run", quoted(cursor));
        return Err(Invalid::new("cursor", message).into());
    }
    let (now, zone) = (api.clock.now(), api.rules.borrow().zone.zone.clone());
    let since = given.since.map(|text| parse_moment(&text, &zone, now, Toward::Past)).transpose();
    let since = since.map_err(|why| Invalid::new("since", why))?;
    let filter = RunFilter {
        job_id: given.job,
        state: given.state,
        without_hooks: given.hooks == Some(false),
        occurrence: None,
        since,
        before: given.cursor,
        limit: page_limit(given.limit)?,
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
    Extension(peer): Extension<Peer>,
    OfRun(id): OfRun,
    Parameters(given): Parameters<ShowParameters>,
) -> Result<Json<Value>, ApiError> {
    let run = match given.wait {
        Some(seconds) if seconds > WAIT_SECONDS_MAX => {
            let message = format!("must be at most {WAIT_SECONDS_MAX} seconds, not {seconds}");
            return Err(Invalid::new("wait", message).into());
        }
        Some(seconds) => wait(&api, &peer, &id.0, seconds).await?,
        None => api.history.run(&id.0).await?,
    };
    let mut shown = run.ok_or_else(|| unknown(&id.0))?.to_value();
    let attempts = api.history.attempts(&id.0).await?;
    if let Value::Object(map) = &mut shown {
        map.insert("attempts".to_owned(), attempts.iter().map(Attempt::to_value).collect());
    }
    Ok(Json(shown))
}

/// A run, once it has ended or the time is up. A client that goes away gives up its place at once.
async fn wait(api: &Api, peer: &Peer, id: &str, seconds: u64) -> Result<Option<Run>, ApiError> {
    let waiter = api.history.waiter();
    let waiter = waiter.map_err(|error| ApiError::unavailable(error.to_string()))?;
    tokio::select! {
        run = waiter.wait(id, Duration::from_secs(seconds)) => Ok(run?),
        () = peer.gone() => Err(ApiError::unavailable("the client is gone")),
    }
}

/// There is no such run.
pub(super) fn unknown(id: &str) -> ApiError {
    ApiError::not_found(format!("there is no run {}", quoted(id)))
}
