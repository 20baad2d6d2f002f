//! Entity tags: an answer that is one job has its version as `ETag`.

use std::fmt::Display;

use axum::Json;
use axum::http::header::ETAG;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::job::Job;

/// An answer that is this job, shown as `body`.
pub(super) fn job_answer(status: StatusCode, job: &Job, body: impl Serialize) -> Response {
    let mut response = (status, Json(body)).into_response();
    set_etag(&mut response, job.version());
    response
}

/// Sets the header `ETag` to a strong tag.
pub(super) fn set_etag(response: &mut Response, version: impl Display) {
    if let Ok(value) = HeaderValue::try_from(format!("\"{version}\"")) {
        response.headers_mut().insert(ETAG, value);
    }
}
