//! Ending a run before it ends by itself.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::Api;
use super::audit::Caller;
use super::error::ApiError;
use super::request::{Bytes, JSON_BYTES_MAX, OfRun, optional};
use crate::invalid::Invalid;

/// Bytes of a reason.
const REASON_BYTES_MAX: usize = 1024;

/// What may be said of a cancel.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    reason: Option<String>,
}

/// A run that waits has ended with the answer; one that runs has been asked to, and is ended if it does not.
pub(super) async fn cancel(
    State(api): State<Api>,
    caller: Caller,
    OfRun(id): OfRun,
    Bytes(body): Bytes<JSON_BYTES_MAX>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let reason = read(&body)?.reason;
    let order = caller.orders("cancel").of_run(&id);
    let run = order.end_with_run(api.handle.cancel(id, reason).await)?;
    Ok((StatusCode::ACCEPTED, Json(run.to_value())))
}

fn read(body: &[u8]) -> Result<Given, ApiError> {
    let given: Given = optional(body)?;
    if given.reason.as_deref().is_some_and(|reason| reason.len() > REASON_BYTES_MAX) {
        let message = format!("has at most {REASON_BYTES_MAX} bytes");
        return Err(Invalid::new("reason", message).into());
    }
    if given.reason.as_deref().is_some_and(|reason| reason.contains('\0')) {
        return Err(Invalid::new("reason", "must have no NUL").into());
    }
    Ok(given)
}
