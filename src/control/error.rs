//! Errors as the contract shows them: the one place where they become status codes.

use std::fmt;

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::etag::set_etag;
use crate::history::HistoryError;
use crate::invalid::{Invalid, quoted};
use crate::job::JobVersion;
use crate::run::Run;
use crate::scheduler::request::RequestError;

/// The most runs that an error names.
const CANDIDATES_SHOWN: usize = 5;
/// Seconds after which a client may try again.
const RETRY_AFTER_SECONDS: &str = "1";

pub(super) type JsonAnswer = Result<Json<Value>, ApiError>;

/// An answer that is an error.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    field: Option<String>,
    /// The present version of the job, if the client meant another one.
    version: Option<(i64, JobVersion)>,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), field: None, version: None }
    }

    /// The request cannot be parsed.
    pub(super) fn unreadable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "unreadable", message)
    }

    /// A request that was refused before a route has seen it.
    pub(super) fn of_status(status: StatusCode, message: &str) -> Self {
        let code = match status {
            StatusCode::SERVICE_UNAVAILABLE => "unavailable",
            StatusCode::FORBIDDEN => "forbidden",
            StatusCode::URI_TOO_LONG | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "too_large",
            _ => "unreadable",
        };
        Self::new(status, code, message)
    }

    pub(super) fn body(&self) -> Value {
        json!({"error": self.to_value()})
    }

    /// A parameter of the query is wrong.
    pub(super) fn bad_parameter(invalid: Invalid) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: "unreadable", ..Self::from(invalid) }
    }

    pub(super) fn to_value(&self) -> Value {
        let mut value = json!({"code": self.code, "message": self.message, "field": self.field});
        if let (Some((revision, _)), Some(keys)) = (self.version, value.as_object_mut()) {
            keys.insert("revision".to_owned(), revision.into());
        }
        value
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// There is no such run.
    pub(super) fn no_run(id: &str) -> Self {
        Self::not_found(format!("there is no run {}", quoted(id)))
    }

    /// Several runs have an id that begins or ends like this.
    pub(super) fn ambiguous_run(part: &str, candidates: &[Run]) -> Self {
        let named = candidates.iter().take(CANDIDATES_SHOWN).map(|run| {
            let Run { id, job_id, state, .. } = run;
            format!("{id} ({job_id}, {})", state.word())
        });
        let more = if candidates.len() > CANDIDATES_SHOWN { ", and others" } else { "" };
        let named = named.collect::<Vec<_>>().join(", ");
        let message =
            format!("{} is the beginning or the end of several runs: {named}{more}", quoted(part));
        Self::new(StatusCode::CONFLICT, "ambiguous", message)
    }

    /// The same error, of a request that has done a part of its work before.
    pub(super) fn after(self, done: &str) -> Self {
        Self { message: format!("{}; {done}", self.message), ..self }
    }

    pub(super) fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "this path does not take this method",
        )
    }

    /// The body is larger than `limit` bytes.
    pub(super) fn too_large(limit: usize) -> Self {
        let message = format!("the body is larger than {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    pub(super) fn too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "too_slow", "the body did not arrive in time")
    }

    /// The daemon has a fault, which is logged.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        let message = message.into();
        tracing::error!(error = %message, "a request could not be answered");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    /// The database refuses a value.
    fn rejected(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "rejected", message)
    }

    /// The daemon cannot do it now.
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.field {
            Some(field) => write!(formatter, "{field}: {}", self.message),
            None => formatter.write_str(&self.message),
        }
    }
}

impl From<Invalid> for ApiError {
    fn from(invalid: Invalid) -> Self {
        let field = Some(invalid.field).filter(|field| !field.is_empty());
        Self { field, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", invalid.message) }
    }
}

impl From<HistoryError> for ApiError {
    fn from(error: HistoryError) -> Self {
        if error.is_rejected() {
            return Self::rejected(error.to_string());
        }
        Self::unavailable(error.to_string())
    }
}

impl From<RequestError> for ApiError {
    fn from(refusal: RequestError) -> Self {
        let message = refusal.to_string();
        let conflict = |code, field: Option<&str>| Self {
            field: field.map(str::to_owned),
            ..Self::new(StatusCode::CONFLICT, code, message.clone())
        };
        match refusal {
            RequestError::NotFound(_) | RequestError::NoRun(_) => Self::not_found(message),
            RequestError::RunEnded { .. } => conflict("run_ended", None),
            RequestError::Exists(_) => conflict("exists", Some("id")),
            RequestError::DeclaredInFile { .. } => conflict("declared_in_file", Some("id")),
            RequestError::WrongState { .. } => conflict("wrong_state", None),
            RequestError::Busy { .. } => conflict("max_instances", None),
            RequestError::QueueFull(_) => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", message)
            }
            RequestError::Invalid(invalid) => invalid.into(),
            RequestError::PreconditionFailed { revision, version, .. } => Self {
                version: Some((revision, version)),
                ..Self::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", message)
            },
            RequestError::Unavailable(_) | RequestError::Stopping | RequestError::Outpaced(_) => {
                Self::unavailable(message)
            }
            RequestError::Rejected(_) => Self::rejected(message),
            RequestError::Internal(_) => Self::internal(message),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = self.body();
        self.with_body(body)
    }
}

impl ApiError {
    /// An answer with the status of the error and another body.
    pub(super) fn with_body(self, body: Value) -> Response {
        let mut response = (self.status, Json(body)).into_response();
        if matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            let value = header::HeaderValue::from_static(RETRY_AFTER_SECONDS);
            response.headers_mut().insert(header::RETRY_AFTER, value);
        }
        if let Some((_, version)) = self.version {
            set_etag(&mut response, version);
        }
        response
    }
}
