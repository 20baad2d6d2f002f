//! The envelope of every answer, and the one place where failures become status codes.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::invalid::Invalid;
use crate::toutiao::ToutiaoError;

/// A good answer: its data goes into the envelope.
#[derive(Debug)]
pub(super) struct DataResponse {
    status: StatusCode,
    data: Value,
}

impl DataResponse {
    pub(super) fn ok(data: Value) -> Self {
        Self { status: StatusCode::OK, data }
    }

    pub(super) fn created(data: Value) -> Self {
        Self { status: StatusCode::CREATED, data }
    }
}

impl IntoResponse for DataResponse {
    fn into_response(self) -> Response {
        (self.status, Json(json!({"message": "OK", "data": self.data}))).into_response()
    }
}

/// A failure: a status, and a text or the argument that is wrong.
#[derive(Debug)]
pub(super) struct ToutiaoApiError {
    status: StatusCode,
    message: Value,
}

impl ToutiaoApiError {
    fn new(status: StatusCode, message: &str) -> Self {
        Self { status, message: message.into() }
    }

    /// The body of the answer.
    pub(super) fn body(message: impl Into<Value>) -> Value {
        json!({"message": message.into()})
    }

    pub(super) fn forbidden(message: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    pub(super) fn not_json() -> Self {
        let message = "The body must be JSON, and the header Content-Type say application/json.";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
    }

    pub(super) fn bad_request(message: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn not_found(message: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(super) fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "The method is not allowed here.")
    }

    pub(super) fn conflict(message: &str) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    pub(super) fn too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "The request did not arrive in time.")
    }

    pub(super) fn too_large() -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "The request is too large.")
    }
}

impl From<Invalid> for ToutiaoApiError {
    fn from(invalid: Invalid) -> Self {
        if invalid.field.is_empty() {
            return Self::bad_request(&invalid.message);
        }
        Self { status: StatusCode::BAD_REQUEST, message: json!({invalid.field: invalid.message}) }
    }
}

impl<E: Into<ToutiaoError>> From<E> for Unavailable {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

/// A failure of what the API stands on. The details are for the log, not for the client.
#[derive(Debug)]
pub(super) struct Unavailable(ToutiaoError);

impl From<Unavailable> for ToutiaoApiError {
    fn from(Unavailable(error): Unavailable) -> Self {
        tracing::error!(%error, "a request failed");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "The service is not available at the moment.")
    }
}

impl IntoResponse for ToutiaoApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(Self::body(self.message))).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
