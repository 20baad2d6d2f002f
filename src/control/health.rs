//! Whether the daemon is healthy and ready. Both are judged by progress, seen from outside of the
//! scheduler's loop: a loop that hangs cannot say so.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Api;
use super::error::ApiError;
use super::request::Bare;

/// How late the loop may be with a step, or with waking up, while it counts as ready.
const READY_LATENESS: Duration = Duration::from_secs(5);
/// The same for healthy. A database server that has vanished keeps a step waiting for less than this, and a restart
/// would not bring it back.
const HEALTHY_LATENESS: Duration = Duration::from_mins(1);

/// Why jobs would not fire now, or requests would not be kept.
#[derive(Debug)]
pub(super) struct Trouble {
    reason: &'static str,
    message: String,
}

impl Trouble {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// What the contract shows of it.
    pub(super) fn to_value(&self) -> Value {
        json!({"reason": self.reason, "message": self.message})
    }
}

/// Why the loop does not go on, if it is later than `limit`.
fn stuck(api: &Api, limit: Duration) -> Option<Trouble> {
    let lateness = api.handle.lateness(api.clock.now(), Instant::now());
    let message = match lateness {
        Duration::MAX => "the scheduler has ended".to_owned(),
        late if late > limit => {
            format!("the scheduler has not made a step for {} s", late.as_secs())
        }
        _ => return None,
    };
    Some(Trouble::new("stuck", message))
}

/// Why the daemon is not ready, if it is not.
pub(super) async fn readiness(api: &Api) -> Option<Trouble> {
    let status = api.handle.status();
    if status.draining {
        return Some(Trouble::new("stopping", "the daemon is stopping"));
    }
    if let Some(trouble) = stuck(api, READY_LATENESS) {
        return Some(trouble);
    }
    if let Some(error) = status.store_error {
        return Some(Trouble::new("store", error));
    }
    if status.starting {
        return Some(Trouble::new("starting", "the jobs of the file are being declared"));
    }
    api.history.read_error().await.map(|error| Trouble::new("store_read", error))
}

pub(super) fn answer(flag: &str, trouble: Option<Trouble>) -> Response {
    let Some(trouble) = trouble else { return Json(json!({flag: true})).into_response() };
    let Trouble { reason, message } = trouble;
    let error = ApiError::unavailable(message);
    let body = json!({flag: false, "reason": reason, "error": error.to_value()});
    error.with_body(body)
}

/// Whether the scheduler goes on at all. A database that is away is no reason to restart the daemon.
pub(super) async fn healthz(State(api): State<Api>, _: Bare) -> Response {
    answer("healthy", stuck(&api, HEALTHY_LATENESS))
}

/// Whether jobs fire and requests are kept.
pub(super) async fn readyz(State(api): State<Api>, _: Bare) -> Response {
    answer("ready", readiness(&api).await)
}
