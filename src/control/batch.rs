//! Many jobs in one request: the valid ones are added, slice by slice, and the others are reported.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Api;
use super::audit::{BatchCounts, Caller};
use super::error::{ApiError, JsonAnswer};
use super::jobs::admit;
use super::request::{RawBody, definition};
use crate::clock::Timestamp;
use crate::invalid::Invalid;
use crate::job::JobId;
use crate::job::admission::{Rules, warnings};
use crate::scheduler::request::{Added, Addition, RequestError};
use crate::scheduler::slices::add_in_slices;

const JOBS_MAX: usize = 10_000;
const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The body. Each job is parsed on its own, so that a faulty one does not spoil the others.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchBody<'a> {
    #[serde(borrow)]
    jobs: Vec<&'a RawValue>,
}

/// The id of a job that was admitted and its warnings, or why it was refused.
type Admission = Result<(JobId, Vec<String>), ApiError>;

pub(super) async fn add(
    State(api): State<Api>,
    caller: Caller,
    RawBody(body): RawBody<BATCH_BYTES_MAX>,
) -> JsonAnswer {
    let (rules, now) = (Arc::clone(&api.rules.borrow()), api.clock.now());
    // Parsing thousands of jobs takes milliseconds, which must not delay other requests.
    // The body keeps its share of the memory budget until everything that was made of it is done.
    let body = Arc::new(body);
    let read = Arc::clone(&body);
    let by = caller.clone();
    let admitting = tokio::task::spawn_blocking(move || admit_all(&read, &rules, now, &by));
    let admitted = admitting.await.map_err(|error| ApiError::unavailable(error.to_string()))?;
    let (admissions, additions) = admitted?;
    let change = caller.begin("add-batch");
    let added = match add_in_slices(&api.handle, additions).await {
        Ok(added) => added,
        Err(refusal) => return Err(change.refused(refusal)),
    };
    change.counting(counts(admissions.len(), &added)).done();
    let mut added = added.into_iter();
    drop(body);
    let results = admissions.into_iter().map(|admission| match admission {
        Ok((id, warnings)) => result(&id, &warnings, added.next()),
        Err(error) => refused(&Value::Null, &error),
    });
    Ok(Json(json!({"results": results.collect::<Vec<_>>()})))
}

fn counts(jobs: usize, added: &[Result<Added, RequestError>]) -> BatchCounts {
    let count = |what| added.iter().filter(|added| **added == Ok(what)).count();
    let (added, replaced) = (count(Added::New), count(Added::Replaced));
    BatchCounts { added, replaced, refused: jobs.saturating_sub(added + replaced) }
}

fn admit_all(
    body: &[u8],
    rules: &Rules,
    now: Timestamp,
    caller: &Caller,
) -> Result<(Vec<Admission>, Vec<Addition>), ApiError> {
    let batch: BatchBody<'_> = serde_json::from_slice(body).map_err(|error| {
        ApiError::unreadable(format!("the body is no {{\"jobs\": […]}}: {error}"))
    })?;
    if batch.jobs.len() > JOBS_MAX {
        return Err(Invalid::new("jobs", format!("at most {JOBS_MAX} jobs")).into());
    }
    let mut additions = Vec::with_capacity(batch.jobs.len());
    let admissions = batch.jobs.into_iter().map(|given| {
        let addition = admit(definition(given.get().as_bytes())?, rules, now, caller)?;
        let admitted = (addition.job.id.clone(), warnings(&addition.job, now));
        additions.push(addition);
        Ok(admitted)
    });
    let admissions = admissions.collect();
    Ok((admissions, additions))
}

fn result(id: &JobId, warnings: &[String], added: Option<Result<Added, RequestError>>) -> Value {
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
