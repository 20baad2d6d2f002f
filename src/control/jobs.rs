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
use super::error::ApiError;
use super::request::{Bare, Bytes, OfJob, Parameters, definition};
use crate::clock::{Timestamp, rfc3339};
use crate::filter::{JobFilter, PAGE_LIMIT};
use crate::history::PAGE_DEFAULT;
use crate::instant::{Toward, parse_moment};
use crate::invalid::Invalid;
use crate::job::{Definition, Job, JobId, Origin, Shown};
use crate::scheduler::admission::{Rules, warnings};
use crate::scheduler::request::{Addition, Existing};

/// States that a list can be asked for.
const STATES: [&str; 4] = ["active", "paused", "finished", "broken"];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParameters {
    state: Option<String>,
    tag: Option<String>,
    prefix: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

pub(super) async fn list(
    State(api): State<Api>,
    Parameters(given): Parameters<ListParameters>,
) -> Result<Response, ApiError> {
    check_state(given.state.as_deref(), &STATES)?;
    check_word("tag", given.tag.as_deref())?;
    check_word("prefix", given.prefix.as_deref().filter(|prefix| !prefix.is_empty()))?;
    check_word("cursor", given.cursor.as_deref())?;
    let filter = JobFilter {
        state: given.state,
        tag: given.tag,
        prefix: given.prefix,
        after: given.cursor,
        limit: page_limit(given.limit)?,
    };
    let page = api.history.jobs(filter).await?;
    let jobs = page.rows.iter().map(Job::shown).collect();
    let next_cursor = page.next_cursor.as_deref();
    Ok(Json(JobPage { jobs, next_cursor, scheduler_paused: pause_of_all(&api) }).into_response())
}

/// A page of jobs, which is written without a detour by values.
#[derive(Serialize)]
struct JobPage<'a> {
    jobs: Vec<Shown<'a>>,
    next_cursor: Option<&'a str>,
    scheduler_paused: Option<Pause>,
}

/// Refuses a state that no row can have: an empty list would hide the mistake.
pub(super) fn check_state(given: Option<&str>, known: &[&str]) -> Result<(), Invalid> {
    match given {
        Some(state) if !known.contains(&state) => Err(Invalid::new(
            "state",
            format!("unknown state \"{state}\" (expected one of {})", known.join(", ")),
        )),
        _ => Ok(()),
    }
}

/// Rows of a page, as many as were asked for.
pub(super) fn page_limit(given: Option<usize>) -> Result<usize, Invalid> {
    let limit = given.unwrap_or(PAGE_DEFAULT);
    if (1..=PAGE_LIMIT).contains(&limit) {
        return Ok(limit);
    }
    Err(Invalid::new("limit", format!("must be between 1 and {PAGE_LIMIT}, not {limit}")))
}

/// Refuses a text that can be no part of what it is compared with: an id, or a tag.
pub(super) fn check_word(field: &str, given: Option<&str>) -> Result<(), Invalid> {
    let checked = given.map(JobId::parse).transpose();
    checked.map(drop).map_err(|invalid| Invalid::new(field, invalid.message))
}

pub(super) async fn add(
    State(api): State<Api>,
    caller: Caller,
    Bytes(body): Bytes,
) -> Result<Response, ApiError> {
    let rules = Arc::clone(&api.rules.borrow());
    let now = api.clock.now();
    let addition = addition(definition(&body)?, &rules, now, &caller)?;
    let order = caller.orders("add").of_job(&addition.job.id);
    let job = match api.handle.add(addition).await {
        Ok(job) => job,
        Err(refusal) => return Err(order.refused(refusal)),
    };
    // A job that replaces another one keeps the time at which that one was made.
    let is_new = job.created_at == job.updated_at;
    if is_new { order } else { order.replacing() }.done();
    let warnings = warnings(&job, now);
    Ok((StatusCode::CREATED, Json(AddedJob { job: job.shown(), warnings })).into_response())
}

/// A job that was added, with what may surprise about it.
#[derive(Serialize)]
struct AddedJob<'a> {
    #[serde(flatten)]
    job: Shown<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// A definition as it is added, or which of its fields is wrong.
pub(super) fn addition(
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
    let job = Box::new(Job { requester: caller.uid(), ..job });
    Ok(Addition { job, existing })
}

/// The job of that id.
async fn known(api: &Api, id: &JobId) -> Result<Job, ApiError> {
    let job = api.history.job(id.as_str()).await?;
    job.ok_or_else(|| ApiError::not_found(format!("there is no job \"{id}\"")))
}

pub(super) async fn show(
    State(api): State<Api>,
    OfJob(id): OfJob,
    _: Bare,
) -> Result<Json<Value>, ApiError> {
    let mut job = known(&api, &id).await?.to_value();
    if let (Some(pause), Some(fields)) = (pause_of_all(&api), job.as_object_mut()) {
        fields.insert("scheduler_paused".to_owned(), json!(pause));
    }
    Ok(Json(job))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExplainParameters {
    at: Option<String>,
}

pub(super) async fn explain(
    State(api): State<Api>,
    OfJob(id): OfJob,
    Parameters(given): Parameters<ExplainParameters>,
) -> Result<Json<Value>, ApiError> {
    let job = known(&api, &id).await?;
    let now = api.clock.now();
    let read = |text: String| parse_moment(&text, job.trigger.zone(), now, Toward::Past);
    let asked = given.at.map(read).transpose();
    let asked = asked.map_err(|why| Invalid::new("at", why))?.unwrap_or(now);
    let explanation = api.history.explain(&job, asked, now).await?;
    Ok(Json(explanation.to_value(&job)))
}

pub(super) async fn remove(
    State(api): State<Api>,
    caller: Caller,
    OfJob(id): OfJob,
    _: Bare,
) -> Result<Json<Value>, ApiError> {
    let order = caller.orders("remove").of_job(&id);
    Ok(Json(order.end(api.handle.remove(id).await)?.to_value()))
}

pub(super) async fn pause(
    State(api): State<Api>,
    caller: Caller,
    OfJob(id): OfJob,
    _: Bare,
) -> Result<Json<Value>, ApiError> {
    let order = caller.orders("pause").of_job(&id);
    Ok(Json(order.end(api.handle.pause(id).await)?.to_value()))
}

pub(super) async fn resume(
    State(api): State<Api>,
    caller: Caller,
    OfJob(id): OfJob,
    _: Bare,
) -> Result<Json<Value>, ApiError> {
    let order = caller.orders("resume").of_job(&id);
    Ok(Json(order.end(api.handle.resume(id).await)?.to_value()))
}

pub(super) async fn run(
    State(api): State<Api>,
    caller: Caller,
    OfJob(id): OfJob,
    _: Bare,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let order = caller.orders("run").of_job(&id);
    let run = order.end_with_run(api.handle.run(id).await)?;
    Ok((StatusCode::ACCEPTED, Json(run.to_value())))
}

pub(super) async fn pause_all(
    State(api): State<Api>,
    caller: Caller,
    _: Bare,
) -> Result<Json<Value>, ApiError> {
    let by = caller.name();
    let order = caller.orders("pause-all");
    let since = order.end(api.handle.pause_all().await)?;
    if let (Some(since), Some(by)) = (since, by) {
        api.noted.paused(since, by);
    }
    Ok(paused(since))
}

pub(super) async fn resume_all(
    State(api): State<Api>,
    caller: Caller,
    _: Bare,
) -> Result<Json<Value>, ApiError> {
    let order = caller.orders("resume-all");
    Ok(paused(order.end(api.handle.resume_all().await)?))
}

fn paused(since: Option<Timestamp>) -> Json<Value> {
    let state = if since.is_some() { "paused" } else { "running" };
    Json(json!({"state": state, "paused_since": since.map(rfc3339)}))
}

/// The pause of the scheduler as a whole, if there is one: then no job fires, whatever its own state.
#[derive(Serialize)]
struct Pause {
    since: String,
    by: Option<String>,
}

fn pause_of_all(api: &Api) -> Option<Pause> {
    let since = api.handle.status().paused_since?;
    Some(Pause { since: rfc3339(since), by: api.noted.paused_by(since) })
}
