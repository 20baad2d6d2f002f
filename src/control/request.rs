//! Reading what a client sends: bounded in size and time, every fault one clear error.

use std::ops::Deref;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Api;
use super::budget::Share;
use super::error::ApiError;
use crate::invalid::Invalid;
use crate::job::{Definition, JOB_ID_BYTES};
use crate::json::{self, JsonError};

/// Bytes of a body: thousands of times a usual job.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a body that is no job: as a tree of values it may take eighty times as much memory.
pub(super) const JSON_BYTES_MAX: usize = 64 * 1024;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A body of at most so many bytes.
#[derive(Debug)]
pub(super) struct Bytes<const MAX: usize = BODY_BYTES_MAX>(pub(super) Received);

/// A body that was received. It has a share of the budget for as long as it is kept.
#[derive(Debug)]
pub(super) struct Received {
    bytes: Vec<u8>,
    _share: Share,
}

impl Deref for Received {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl<const MAX: usize> FromRequest<Api> for Bytes<MAX> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        let share = Share::of_requests(&api.budget);
        tokio::time::timeout(BODY_TIMEOUT, read_body(request.into_body(), MAX, share))
            .await
            .map_err(|_| ApiError::too_slow())?
            .map(Self)
    }
}

/// A JSON body.
#[derive(Debug)]
pub(super) struct JsonBody(pub(super) Value);

impl FromRequest<Api> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        let Bytes(bytes) = Bytes::<JSON_BYTES_MAX>::from_request(request, api).await?;
        json(&bytes).map(Self)
    }
}

/// A body as JSON.
pub(super) fn json(bytes: &[u8]) -> Result<Value, ApiError> {
    json::read(bytes).map_err(|error| match error {
        JsonError::Refused(invalid) => invalid.into(),
        JsonError::Syntax(_) if bytes.is_empty() => {
            ApiError::unreadable("the body is not JSON: it is empty")
        }
        JsonError::Syntax(error) => ApiError::unreadable(format!("the body is not JSON: {error}")),
    })
}

/// A body as a job's definition; an error names the field.
pub(super) fn definition(bytes: &[u8]) -> Result<Definition, ApiError> {
    match Definition::read(bytes) {
        Some(definition) => Ok(definition),
        None => Ok(Definition::parse(json(bytes)?)?),
    }
}

async fn read_body(mut body: Body, max: usize, mut share: Share) -> Result<Received, ApiError> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| ApiError::unreadable(format!("the body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len().saturating_add(data.len()) > max {
            return Err(ApiError::too_large(max));
        }
        share.grow(data.len())?;
        bytes.extend_from_slice(&data);
    }
    Ok(Received { bytes, _share: share })
}

/// The id in the path, decoded.
#[derive(Debug)]
pub(super) struct Id(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let id = Path::<String>::from_request_parts(parts, state).await;
        let Path(id) = id.map_err(|rejection| ApiError::unreadable(rejection.body_text()))?;
        // No job and no run has such an id, and not every database can be asked for it.
        if id.len() > JOB_ID_BYTES || id.chars().any(char::is_control) {
            return Err(ApiError::not_found(
                "nothing has this id: it is too long or has control characters",
            ));
        }
        Ok(Self(id))
    }
}

/// The parameters after the question mark; an unknown one is an error.
#[derive(Debug)]
pub(super) struct Parameters<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let unreadable = |rejection: QueryRejection| ApiError::unreadable(rejection.body_text());
        // What no row holds, not every database can be asked for.
        let values = Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let Query(values) = values.map_err(unreadable)?;
        if let Some((name, _)) =
            values.iter().find(|(_, value)| value.chars().any(char::is_control))
        {
            return Err(Invalid::new(name.as_str(), "must have no control characters").into());
        }
        let query = Query::<T>::from_request_parts(parts, state).await;
        query
            .map(|Query(value)| Self(value))
            .map_err(|rejection| ApiError::unreadable(rejection.body_text()))
    }
}
