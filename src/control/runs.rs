//! Requests about runs: one run with its attempts, waiting for a run to end, cancelling it.

use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::Api;
use super::audit::Caller;
use super::error::{ApiError, JsonAnswer};
use super::listener::SocketPeer;
use super::request::{JSON_BYTES_MAX, QueryParams, RawBody, RunPath, optional};
use crate::invalid::Invalid;
use crate::run::{Attempt, Run};

/// The longest time that a request may wait for the end of a run, in seconds.
const WAIT_SECONDS_MAX: u64 = 300;

/// Length limit of the reason of a cancel, in bytes.
const REASON_BYTES_MAX: usize = 1024;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunQuery {
    wait: Option<u64>,
}

pub(super) async fn show(
    State(api): State<Api>,
    Extension(peer): Extension<SocketPeer>,
    RunPath(id): RunPath,
    QueryParams(given): QueryParams<RunQuery>,
) -> JsonAnswer {
    let run = match given.wait {
        Some(seconds) if seconds > WAIT_SECONDS_MAX => {
            let message = format!("must be at most {WAIT_SECONDS_MAX} seconds, not {seconds}");
            return Err(Invalid::new("wait", message).into());
        }
        Some(seconds) => wait(&api, &peer, &id.0, seconds).await?,
        None => api.history.run(&id.0).await?,
    };
    let mut shown = run.ok_or_else(|| ApiError::no_run(&id.0))?.to_value();
    let attempts = api.history.attempts(&id.0).await?;
    if let Value::Object(map) = &mut shown {
        map.insert("attempts".to_owned(), attempts.iter().map(Attempt::to_value).collect());
    }
    Ok(Json(shown))
}

/// Waits until the run has ended or the time is up. A client that goes away gives up its slot at once.
async fn wait(
    api: &Api,
    peer: &SocketPeer,
    id: &str,
    seconds: u64,
) -> Result<Option<Run>, ApiError> {
    let waiter = api.history.waiter();
    let waiter = waiter.map_err(|error| ApiError::unavailable(error.to_string()))?;
    tokio::select! {
        run = waiter.wait(id, Duration::from_secs(seconds)) => Ok(run?),
        () = peer.gone() => Err(ApiError::unavailable("the client is gone")),
    }
}

/// The body of a cancel.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct CancelBody {
    reason: Option<String>,
}

impl CancelBody {
    fn read(body: &[u8]) -> Result<Self, ApiError> {
        let given: Self = optional(body)?;
        let reason = given.reason.as_deref().unwrap_or_default();
        if reason.len() > REASON_BYTES_MAX {
            let message = format!("has at most {REASON_BYTES_MAX} bytes");
            return Err(Invalid::new("reason", message).into());
        }
        if reason.contains('\0') {
            return Err(Invalid::new("reason", "must have no NUL").into());
        }
        Ok(given)
    }
}

/// Cancels a run. A run that waits has ended with the answer; one that is executed has been asked to end.
pub(super) async fn cancel(
    State(api): State<Api>,
    caller: Caller,
    RunPath(id): RunPath,
    RawBody(body): RawBody<JSON_BYTES_MAX>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let CancelBody { reason } = CancelBody::read(&body)?;
    let change = caller.begin("cancel").of_run(&id);
    let run = change.finish_with_run(api.handle.cancel(id, reason).await)?;
    Ok((StatusCode::ACCEPTED, Json(run.to_value())))
}
