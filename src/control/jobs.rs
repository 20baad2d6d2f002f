//! Requests about jobs.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Api;
use super::audit::Caller;
use super::error::{ApiError, JsonAnswer};
use super::etag::{job_answer, set_etag};
use super::pause::pause_terms;
use super::precondition::{IfMatch, IfNoneMatch};
use super::request::{
    JSON_BYTES_MAX, JobAction, JobPath, NoInput, QueryParams, RawBody, definition,
};
use crate::clock::{Timestamp, rfc3339};
use crate::instant::{Toward, parse_moment};
use crate::invalid::Invalid;
use crate::job::admission::{Rules, warnings};
use crate::job::{
    Definition, Job, JobId, JobState, JobView, Origin, Pause, PauseTerms, stable_hash,
};
use crate::scheduler::request::{Addition, Existing};

pub(super) async fn add(
    State(api): State<Api>,
    caller: Caller,
    RawBody(body): RawBody,
) -> Result<Response, ApiError> {
    let rules = Arc::clone(&api.rules.borrow());
    let now = api.clock.now();
    let addition = admit(definition(&body)?, &rules, now, &caller)?;
    let change = caller.begin("add").of_job(&addition.job.id);
    let job = match api.handle.add(addition).await {
        Ok(job) => job,
        Err(refusal) => return Err(change.refused(refusal)),
    };
    // A job that replaces another one counts its revisions on.
    let is_new = job.revision == 1;
    if is_new { change } else { change.replacing() }.done();
    Ok(defined_job(StatusCode::CREATED, &job, now))
}

/// The answer to a request that has defined a job.
pub(super) fn defined_job(status: StatusCode, job: &Job, now: Timestamp) -> Response {
    let warnings = warnings(job, now);
    job_answer(status, job, DefinedJob { job: job.shown(), warnings })
}

/// A job that was defined, with warnings about what may surprise the user.
#[derive(Serialize)]
struct DefinedJob<'a> {
    #[serde(flatten)]
    job: JobView<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// Checks a definition against the daemon's rules and the rights of the client.
pub(super) fn admit(
    definition: Definition,
    rules: &Rules,
    now: Timestamp,
    caller: &Caller,
) -> Result<Addition, Invalid> {
    let existing = match (definition.replace_existing, &definition.next_run_time) {
        (false, _) => Existing::Refuse,
        (true, None) => Existing::Redefine,
        (true, Some(_)) => Existing::Reschedule,
    };
    let job = rules.admit(definition, Origin::Socket, now)?;
    rules.check_requester(&job, caller.uid())?;
    let is_paused = matches!(job.state, JobState::Paused { .. });
    let terms = PauseTerms { by: caller.name(), ..PauseTerms::default() };
    let pause = is_paused.then(|| Arc::new(Pause::new(now, terms)));
    let job = Box::new(Job { requester: caller.uid(), pause, ..job });
    Ok(Addition { job, existing })
}

pub(super) async fn find_job(api: &Api, id: &JobId) -> Result<Job, ApiError> {
    let job = api.history.job(id.as_str()).await?;
    job.ok_or_else(|| ApiError::not_found(format!("there is no job \"{id}\"")))
}

pub(super) async fn show(
    State(api): State<Api>,
    JobPath(id): JobPath,
    if_none_match: IfNoneMatch,
    _: NoInput,
) -> Result<Response, ApiError> {
    let job = find_job(&api, &id).await?;
    let pause = scheduler_pause(&api);
    let mut tag = job.version().to_string();
    let mut shown = job.to_value();
    if let (Some(pause), Some(fields)) = (pause, shown.as_object_mut()) {
        // The answer says more than the job, so the tag does too.
        tag = format!("{tag}.paused-{:x}", stable_hash(pause.to_stored().as_bytes(), 0));
        fields.insert("scheduler_paused".to_owned(), json!(pause.shown()));
    }
    let mut response = if if_none_match.has(&tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Json(shown).into_response()
    };
    set_etag(&mut response, tag);
    Ok(response)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExplainQuery {
    at: Option<String>,
}

pub(super) async fn explain(
    State(api): State<Api>,
    JobPath(id): JobPath,
    QueryParams(given): QueryParams<ExplainQuery>,
) -> JsonAnswer {
    let job = find_job(&api, &id).await?;
    let now = api.clock.now();
    let parse = |text: String| parse_moment(&text, job.trigger.zone(), now, Toward::Past);
    let asked = given.at.map(parse).transpose();
    let asked = asked.map_err(|why| Invalid::new("at", why))?.unwrap_or(now);
    let explanation = api.history.explain(&job, asked, now).await?;
    Ok(Json(explanation.to_value(&job)))
}

pub(super) async fn remove(action: JobAction) -> Result<Response, ApiError> {
    let JobAction { api, caller, id, precondition } = action;
    let change = caller.begin("remove").of_job(&id);
    let job = change.finish(api.handle.remove(id, precondition).await)?;
    Ok(job_answer(StatusCode::OK, &job, job.shown()))
}

pub(super) async fn pause(
    State(api): State<Api>,
    caller: Caller,
    JobPath(id): JobPath,
    IfMatch(precondition): IfMatch,
    RawBody(body): RawBody<JSON_BYTES_MAX>,
) -> Result<Response, ApiError> {
    let terms = pause_terms(&body, &api, &caller)?;
    let change = caller.begin("pause").of_job(&id);
    let job = change.finish(api.handle.pause(id, terms, precondition).await)?;
    Ok(job_answer(StatusCode::OK, &job, job.shown()))
}

pub(super) async fn resume(action: JobAction) -> Result<Response, ApiError> {
    let JobAction { api, caller, id, precondition } = action;
    let change = caller.begin("resume").of_job(&id);
    let job = change.finish(api.handle.resume(id, precondition).await)?;
    Ok(job_answer(StatusCode::OK, &job, job.shown()))
}

pub(super) async fn run(
    JobAction { api, caller, id, .. }: JobAction,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let change = caller.begin("run").of_job(&id);
    let run = change.finish_with_run(api.handle.run(id).await)?;
    Ok((StatusCode::ACCEPTED, Json(run.to_value())))
}

pub(super) async fn pause_all(
    State(api): State<Api>,
    caller: Caller,
    RawBody(body): RawBody<JSON_BYTES_MAX>,
) -> JsonAnswer {
    let terms = pause_terms(&body, &api, &caller)?;
    let change = caller.begin("pause-all");
    let pause = change.finish(api.handle.pause_all(terms).await)?;
    Ok(scheduler_state(pause.as_deref()))
}

pub(super) async fn resume_all(State(api): State<Api>, caller: Caller, _: NoInput) -> JsonAnswer {
    let change = caller.begin("resume-all");
    let pause = change.finish(api.handle.resume_all().await)?;
    Ok(scheduler_state(pause.as_deref()))
}

/// The state of the scheduler. The fields of its pause are those of the status.
fn scheduler_state(pause: Option<&Pause>) -> Json<Value> {
    let state = if pause.is_some() { "paused" } else { "running" };
    Json(json!({
        "state": state,
        "paused_since": pause.map(|pause| rfc3339(pause.since)),
        "paused_until": pause.and_then(|pause| pause.until).map(rfc3339),
        "paused_by": pause.and_then(|pause| pause.by.as_deref()),
        "pause_reason": pause.and_then(|pause| pause.reason.as_deref()),
    }))
}

/// The pause of the scheduler as a whole: no job fires, whatever its own state.
pub(super) fn scheduler_pause(api: &Api) -> Option<Arc<Pause>> {
    api.handle.status().pause
}
