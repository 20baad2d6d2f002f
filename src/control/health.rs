//! Whether the daemon is healthy and ready. Both are judged by progress, seen from outside of the
//! scheduler's loop: a loop that hangs cannot say so.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Api;
use super::condition::{Condition, Facts, Kind, conditions};
use super::error::ApiError;
use super::request::Bare;

/// How long the loop may not go on while the daemon counts as healthy. A wait for the store does not count: a restart
/// would not bring it back.
const HEALTHY_STALL: Duration = Duration::from_mins(1);

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

/// Everything that is wrong, as far as it follows from these counts of jobs and from what others have noted.
fn found(api: &Api, jobs: Option<&[(String, u64)]>) -> Vec<Condition> {
    let (now, status) = (api.clock.now(), api.handle.status());
    let delay = api.handle.delay(now, Instant::now());
    conditions(&Facts { status: &status, delay, jobs }, &api.noted, now)
}

/// What keeps jobs from firing or requests from being stored, if anything does. A pause does not count: it was requested.
fn trouble(found: &[Condition]) -> Option<Trouble> {
    let first = found.iter().find(|condition| condition.kind < Kind::Paused)?;
    Some(Trouble::new(first.kind.word(), first.message.clone()))
}

/// Why the daemon is not ready, if it is not.
async fn readiness(api: &Api) -> Option<Trouble> {
    if let Some(trouble) = trouble(&found(api, None)) {
        return Some(trouble);
    }
    let error = api.history.read_error().await?;
    Some(Trouble::new(Kind::StoreRead.word(), error))
}

/// Everything that is wrong, and why the daemon is not ready, if it is not.
pub(super) async fn examine(
    api: &Api,
    jobs: Option<&[(String, u64)]>,
) -> (Vec<Condition>, Option<Trouble>) {
    let mut found = found(api, jobs);
    if trouble(&found).is_none()
        && let Some(error) = api.history.read_error().await
    {
        found.insert(0, Condition::new(Kind::StoreRead, &error, None));
    }
    let trouble = trouble(&found);
    (found, trouble)
}

/// Why the daemon is not healthy: its loop does not go on, and not because it waits for the store.
fn stall(api: &Api) -> Option<Trouble> {
    let message = match api.handle.delay(api.clock.now(), Instant::now()) {
        None => "the scheduler has ended".to_owned(),
        Some(delay) if delay.stalled > HEALTHY_STALL => {
            format!("the scheduler has not gone on for {} s", delay.stalled.as_secs())
        }
        Some(_) => return None,
    };
    Some(Trouble::new(Kind::Stuck.word(), message))
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
    answer("healthy", stall(&api))
}

/// Whether jobs fire and requests are kept.
pub(super) async fn readyz(State(api): State<Api>, _: Bare) -> Response {
    answer("ready", readiness(&api).await)
}
