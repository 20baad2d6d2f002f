//! Reading what a client sends: bounded in size and time, every fault one clear error. Each route takes its body and its
//! parameters through one of these types, which refuses everything that it does not use.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::Uri;
use axum::http::request::Parts;
use http_body_util::BodyExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Api;
use super::budget::Share;
use super::error::ApiError;
use crate::invalid::{self, Invalid};
use crate::job::{Definition, JobId};
use crate::json::{self, JsonError};
use crate::run::RunId;

/// Bytes of a body: thousands of times a usual job.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a body that is no job: as a tree of values it may take eighty times as much memory.
pub(super) const JSON_BYTES_MAX: usize = 64 * 1024;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A body of at most this many bytes.
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
        let NoKeys {} = query(request.uri())?;
        body(request.into_body(), MAX, api).await.map(Self)
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

/// The parameters after the question mark, of a request without a body.
#[derive(Debug)]
pub(super) struct Parameters<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequest<Api> for Parameters<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        let parameters = query(request.uri())?;
        let NoKeys {} = optional(&body(request.into_body(), JSON_BYTES_MAX, api).await?)?;
        Ok(Self(parameters))
    }
}

/// A request without a body and parameters.
#[derive(Debug)]
pub(super) struct Bare;

impl FromRequest<Api> for Bare {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        Parameters::<NoKeys>::from_request(request, api).await.map(|_| Self)
    }
}

/// An object without any key.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoKeys {}

/// Reads a body that may be absent.
pub(super) fn optional<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, ApiError> {
    if body.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    let value = json(body)?;
    if !value.is_object() {
        return Err(Invalid::new("", "the body must be a JSON object, or absent").into());
    }
    Ok(invalid::read(value)?)
}

/// Reads the query of a URL; an unknown key and one that is given twice are errors.
fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, ApiError> {
    let pairs = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let mut known = BTreeSet::new();
    if let Some((key, _)) = pairs.clone().find(|(key, _)| !known.insert(key.clone())) {
        return Err(ApiError::bad_parameter(Invalid::new(key, "is given twice")));
    }
    // What no row holds, not every database can be asked for.
    if let Some((key, _)) = pairs.clone().find(|(_, value)| value.chars().any(char::is_control)) {
        return Err(Invalid::new(key, "must have no control characters").into());
    }
    let read = serde_path_to_error::deserialize(serde_urlencoded::Deserializer::new(pairs));
    read.map_err(|error| ApiError::bad_parameter(invalid::at_path(&error)))
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

async fn body(body: Body, max: usize, api: &Api) -> Result<Received, ApiError> {
    let share = Share::of_requests(&api.budget);
    tokio::time::timeout(BODY_TIMEOUT, read_body(body, max, share))
        .await
        .map_err(|_| ApiError::too_slow())?
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

/// The id of a job in the path. A path without one names the job whose id is [`BATCH`].
#[derive(Debug)]
pub(super) struct OfJob(pub(super) JobId);

/// The last word of a path that has a meaning of its own for some methods, and is a job's id for the others.
const BATCH: &str = "batch";

impl<S: Send + Sync> FromRequestParts<S> for OfJob {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let id = id_in_path(parts, state).await?;
        JobId::parse(id.as_deref().unwrap_or(BATCH)).map(Self).map_err(|_| {
            ApiError::not_found("nothing has this id: it is too long or has control characters")
        })
    }
}

/// The id of a run in the path.
#[derive(Debug)]
pub(super) struct OfRun(pub(super) RunId);

impl<S: Send + Sync> FromRequestParts<S> for OfRun {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let id = id_in_path(parts, state).await?.unwrap_or_default();
        RunId::parse(&id).map(Self).ok_or_else(|| super::runs::unknown(&id))
    }
}

async fn id_in_path<S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
) -> Result<Option<String>, ApiError> {
    let id = Option::<Path<String>>::from_request_parts(parts, state).await;
    id.map(|id| id.map(|Path(id)| id))
        .map_err(|rejection| ApiError::unreadable(rejection.body_text()))
}
