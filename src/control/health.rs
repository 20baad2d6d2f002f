//! Whether the daemon is healthy and ready. Both are judged by the progress of the scheduler's loop, seen from outside, since
//! a loop that hangs cannot report it.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use super::Api;
use super::condition::{Condition, ConditionKind, ConditionSources, conditions};
use super::error::ApiError;
use super::request::NoInput;

/// How long the loop may make no progress while the daemon still counts as healthy. A wait for the store does not count,
/// since a restart would not bring the store back.
const HEALTHY_STALL: Duration = Duration::from_mins(1);

/// Why the daemon is not healthy or not ready.
#[derive(Debug, Serialize)]
pub(super) struct Problem {
    pub(super) reason: ConditionKind,
    pub(super) message: String,
}

impl Problem {
    pub(super) fn to_condition(&self) -> Condition {
        Condition::new(self.reason, &self.message, None)
    }
}

/// Everything that is wrong, except what only a query of the store would show.
pub(super) fn found(api: &Api, jobs: Option<&[(String, u64)]>) -> Vec<Condition> {
    let (now, status) = (api.clock.now(), api.handle.status());
    let delay = api.handle.delay(now, Instant::now());
    conditions(&ConditionSources { status: &status, delay, jobs }, &api.reported, now)
}

/// The condition that keeps jobs from firing or requests from being stored, if there is one. A pause does not count, since
/// it was requested.
pub(super) fn blocking(found: &[Condition]) -> Option<Problem> {
    let first = found.iter().find(|condition| condition.kind < ConditionKind::Paused)?;
    Some(Problem { reason: first.kind, message: first.message.clone() })
}

/// Everything that is wrong, and why the daemon is not ready, if it is not.
pub(super) async fn examine(
    api: &Api,
    jobs: Option<&[(String, u64)]>,
) -> (Vec<Condition>, Option<Problem>) {
    let mut found = found(api, jobs);
    if blocking(&found).is_none()
        && let Some(error) = api.history.read_error().await
    {
        found.insert(0, Condition::new(ConditionKind::StoreRead, &error, None));
    }
    let problem = blocking(&found);
    (found, problem)
}

/// Why the daemon is not healthy, if it is not.
fn stall(api: &Api) -> Option<Problem> {
    let message = match api.handle.delay(api.clock.now(), Instant::now()) {
        None => "the scheduler has ended".to_owned(),
        Some(delay) if delay.stalled > HEALTHY_STALL => {
            format!("the scheduler has made no progress for {} s", delay.stalled.as_secs())
        }
        Some(_) => return None,
    };
    Some(Problem { reason: ConditionKind::Stuck, message })
}

/// The answer to a probe: `{flag: true}`, or 503 with the problem.
pub(super) fn answer(flag: &str, problem: Option<Problem>) -> Response {
    let Some(problem) = problem else { return Json(json!({flag: true})).into_response() };
    let Problem { reason, message } = problem;
    let error = ApiError::unavailable(message);
    let body = json!({flag: false, "reason": reason, "error": error.to_value()});
    error.with_body(body)
}

/// Whether the scheduler makes progress. An unavailable database is no reason to restart the daemon.
pub(super) async fn healthz(State(api): State<Api>, _: NoInput) -> Response {
    answer("healthy", stall(&api))
}

/// Whether jobs fire and requests can be stored.
pub(super) async fn readyz(State(api): State<Api>, _: NoInput) -> Response {
    answer("ready", examine(&api, None).await.1)
}
