//! Many jobs in one request: what is valid is added, slice by slice, and the rest is named.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Api;
use super::audit::{Caller, Counts};
use super::error::ApiError;
use super::jobs::addition;
use super::request::{Bytes, definition};
use crate::clock::Timestamp;
use crate::invalid::Invalid;
use crate::job::JobId;
use crate::scheduler::admission::{Rules, warnings};
use crate::scheduler::request::{Added, Addition, RequestError};
use crate::scheduler::slices::add_in_slices;

/// Jobs of one batch, at most.
const JOBS_MAX: usize = 10_000;
/// Bytes of a batch.
const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The body, job by job unread: a faulty one must not spoil the others.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenBatch<'a> {
    #[serde(borrow)]
    jobs: Vec<&'a RawValue>,
}

/// What became of a job, as far as it is known: it waits for its addition, perhaps with warnings, or was refused.
type Judged = Result<(JobId, Vec<String>), ApiError>;

pub(super) async fn add(
    State(api): State<Api>,
    caller: Caller,
    Bytes(body): Bytes<BATCH_BYTES_MAX>,
) -> Result<Json<Value>, ApiError> {
    let (rules, now) = (Arc::clone(&api.rules.borrow()), api.clock.now());
    // Thousands of jobs are milliseconds of arithmetic: they must not hold up other requests.
    // The body keeps its share of the memory until everything that was made of it is done.
    let body = Arc::new(body);
    let read = Arc::clone(&body);
    let by = caller.clone();
    let judging = tokio::task::spawn_blocking(move || judge_all(&read, &rules, now, &by));
    let judged = judging.await.map_err(|error| ApiError::unavailable(error.to_string()))?;
    let (judged, additions) = judged?;
    let order = caller.orders("add-batch");
    let added = match add_in_slices(&api.handle, additions).await {
        Ok(added) => added,
        Err(refusal) => return Err(order.refused(refusal)),
    };
    order.counting(counts(judged.len(), &added)).done();
    let mut added = added.into_iter();
    drop(body);
    let results = judged.into_iter().map(|judged| match judged {
        Ok((id, warnings)) => shown(&id, &warnings, added.next()),
        Err(error) => refused(&Value::Null, &error),
    });
    Ok(Json(json!({"results": results.collect::<Vec<_>>()})))
}

/// Counts the added, replaced and refused jobs of a batch.
fn counts(jobs: usize, added: &[Result<Added, RequestError>]) -> Counts {
    let count = |what| added.iter().filter(|added| **added == Ok(what)).count();
    let (added, replaced) = (count(Added::New), count(Added::Replaced));
    Counts { added, replaced, refused: jobs.saturating_sub(added + replaced) }
}

fn judge_all(
    body: &[u8],
    rules: &Rules,
    now: Timestamp,
    caller: &Caller,
) -> Result<(Vec<Judged>, Vec<Addition>), ApiError> {
    let batch: GivenBatch<'_> = serde_json::from_slice(body).map_err(|error| {
        ApiError::unreadable(format!("the body is no {{\"jobs\": […]}}: {error}"))
    })?;
    if batch.jobs.len() > JOBS_MAX {
        return Err(Invalid::new("jobs", format!("at most {JOBS_MAX} jobs")).into());
    }
    let mut additions = Vec::with_capacity(batch.jobs.len());
    let judged = batch.jobs.into_iter().map(|given| {
        let addition = addition(definition(given.get().as_bytes())?, rules, now, caller)?;
        let judged = (addition.job.id.clone(), warnings(&addition.job, now));
        additions.push(addition);
        Ok(judged)
    });
    let judged = judged.collect();
    Ok((judged, additions))
}

fn shown(id: &JobId, warnings: &[String], added: Option<Result<Added, RequestError>>) -> Value {
    let accepted = |status: &str| {
        let mut result = json!({"id": id, "status": status, "error": null});
        if let Some(result) = result.as_object_mut().filter(|_| !warnings.is_empty()) {
            result.insert("warnings".to_owned(), json!(warnings));
        }
        result
    };
    match added {
        Some(Ok(Added::New)) => accepted("added"),
        Some(Ok(Added::Replaced)) => accepted("replaced"),
        Some(Err(refusal)) => refused(&json!(id), &ApiError::from(refusal)),
        None => refused(&json!(id), &ApiError::unavailable("it was not answered")),
    }
}

fn refused(id: &Value, error: &ApiError) -> Value {
    json!({"id": id, "status": "error", "error": error.to_value()})
}
