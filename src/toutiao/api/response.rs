//! The envelope of every response, and the one place where errors become status codes.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::invalid::Invalid;
use crate::toutiao::ToutiaoError;
use crate::toutiao::counters::CounterError;
use crate::toutiao::sql::DatabaseError;

/// A successful response.
#[derive(Debug)]
pub(super) struct DataResponse {
    pub(super) status: StatusCode,
    pub(super) data: Value,
}

impl DataResponse {
    pub(super) fn ok(data: Value) -> Self {
        Self { status: StatusCode::OK, data }
    }
}

impl IntoResponse for DataResponse {
    fn into_response(self) -> Response {
        (self.status, Json(json!({"message": "OK", "data": self.data}))).into_response()
    }
}

/// An error response. Its message is a text, or an object that names the wrong argument.
#[derive(Debug)]
pub(super) struct ToutiaoApiError {
    status: StatusCode,
    message: Value,
}

impl ToutiaoApiError {
    pub(super) fn new(status: StatusCode, message: &str) -> Self {
        Self { status, message: message.into() }
    }

    pub(super) fn bad_request(message: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn not_found(message: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }
}

/// The body of an error response.
pub(super) fn error_body(message: impl Into<Value>) -> Value {
    json!({"message": message.into()})
}

impl IntoResponse for ToutiaoApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(error_body(self.message))).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
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

/// The details are logged and not sent to the client.
impl From<ToutiaoError> for ToutiaoApiError {
    fn from(error: ToutiaoError) -> Self {
        tracing::error!(%error, "a request failed");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "The service is not available at the moment.")
    }
}

impl From<DatabaseError> for ToutiaoApiError {
    fn from(error: DatabaseError) -> Self {
        ToutiaoError::from(error).into()
    }
}

impl From<CounterError> for ToutiaoApiError {
    fn from(error: CounterError) -> Self {
        ToutiaoError::from(error).into()
    }
}
