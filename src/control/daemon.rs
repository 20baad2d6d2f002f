//! Requests about the daemon itself.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::audit::Caller;
use super::condition::Kind;
use super::error::ApiError;
use super::request::{Bare, JsonBody, Parameters};
use super::status::Standing;
use super::{Api, ReloadOrder, health};
use crate::invalid::Invalid;

/// How the daemon stands. It answers also when its store does not: then nobody knows how many jobs there are.
pub(super) async fn status(State(api): State<Api>, _: Bare) -> Json<Value> {
    let counts = api.history.job_counts().await;
    let read_error = counts.as_ref().err().map(ToString::to_string);
    let jobs = counts.ok();
    let (conditions, trouble) = health::examine(&api, jobs.as_deref()).await;
    let scheduler = api.handle.status();
    let standing = Standing {
        state: match scheduler.paused_since {
            _ if scheduler.draining => "draining",
            _ if conditions.iter().any(|found| found.kind == Kind::Starting) => "starting",
            Some(_) => "paused",
            None => "running",
        },
        trouble,
        conditions: &conditions,
        paused_by: scheduler.paused_since.and_then(|since| api.noted.paused_by(since)),
        store_error: scheduler.store_error.clone().or(read_error),
        scheduler,
        jobs,
        declared: &api.declared.borrow().clone(),
        rules: &api.rules.borrow().clone(),
        identity: &api.identity,
    };
    Json(standing.to_value(api.clock.now()))
}

pub(super) async fn preview(
    State(api): State<Api>,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, ApiError> {
    let zone = api.rules.borrow().zone.zone.clone();
    let preview = api.previews.answer(body, zone, api.clock.now()).await?;
    Ok(Json(preview.to_value()))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReloadParameters {
    /// Whether a file that declares no jobs any more is believed.
    #[serde(default)]
    force: bool,
}

pub(super) async fn reload(
    State(api): State<Api>,
    caller: Caller,
    Parameters(ReloadParameters { force }): Parameters<ReloadParameters>,
) -> Result<Json<Value>, ApiError> {
    let stopping = || ApiError::unavailable("the daemon is stopping");
    let (reply, answer) = oneshot::channel();
    api.reload.send(ReloadOrder { force, reply }).await.map_err(|_| stopping())?;
    let order = caller.orders("reload");
    let reloaded = answer.await.map_err(|_| stopping())?;
    match reloaded {
        Ok(reloaded) => {
            order.done();
            Ok(Json(json!(reloaded)))
        }
        Err(message) => Err(order.refused(Invalid::new("", message))),
    }
}
