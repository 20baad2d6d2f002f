//! Requests about the daemon itself: its status, a reload, a preview.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::audit::Caller;
use super::condition::ConditionKind;
use super::error::{ApiError, JsonAnswer};
use super::request::{JSON_BYTES_MAX, NoInput, QueryParams, RawBody, json as parse_json};
use super::status::StatusReport;
use super::{Api, ReloadRequest, health};
use crate::invalid::Invalid;

/// The status of the daemon. It can be read even if the store cannot; then the number of jobs is not known.
pub(super) async fn status(State(api): State<Api>, _: NoInput) -> Json<Value> {
    let counts = api.history.job_counts().await;
    let read_error = counts.as_ref().err().map(ToString::to_string);
    let jobs = counts.ok();
    let (conditions, not_ready) = health::examine(&api, jobs.as_deref()).await;
    let scheduler = api.handle.status();
    let report = StatusReport {
        state: match scheduler.pause {
            _ if scheduler.draining => "draining",
            _ if conditions.iter().any(|found| found.kind == ConditionKind::Starting) => "starting",
            Some(_) => "paused",
            None => "running",
        },
        not_ready,
        conditions: &conditions,
        store_error: scheduler.store_error.clone().or(read_error),
        scheduler,
        jobs,
        declared: &api.declared.borrow().clone(),
        rules: &api.rules.borrow().clone(),
        info: &api.info,
    };
    Json(report.to_value(api.clock.now()))
}

pub(super) async fn preview(
    State(api): State<Api>,
    RawBody(body): RawBody<JSON_BYTES_MAX>,
) -> JsonAnswer {
    let question = parse_json(&body)?;
    drop(body);
    let zone = api.rules.borrow().zone.zone.clone();
    let preview = api.previews.compute(question, zone, api.clock.now()).await?;
    Ok(Json(preview.to_value()))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReloadQuery {
    /// See [`ReloadRequest::force`].
    #[serde(default)]
    force: bool,
}

pub(super) async fn reload(
    State(api): State<Api>,
    caller: Caller,
    QueryParams(ReloadQuery { force }): QueryParams<ReloadQuery>,
) -> JsonAnswer {
    let stopping = || ApiError::unavailable("the daemon is stopping");
    let (reply, answer) = oneshot::channel();
    api.reload.send(ReloadRequest { force, reply }).await.map_err(|_| stopping())?;
    let change = caller.begin("reload");
    let reloaded = answer.await.map_err(|_| stopping())?;
    match reloaded {
        Ok(reloaded) => {
            change.done();
            Ok(Json(json!(reloaded)))
        }
        Err(message) => Err(change.refused(Invalid::new("", message))),
    }
}
