//! Reads what a client sends, within limits of size and time. Each route takes its path, query and body through one of these
//! types, which refuse everything that the route does not use, so that each mistake gets one clear error.

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
use super::audit::Caller;
use super::budget::BudgetShare;
use super::error::ApiError;
use super::precondition::IfMatch;
use crate::filter::PAGE_LIMIT;
use crate::history::PAGE_DEFAULT;
use crate::invalid::{self, Invalid};
use crate::job::{Definition, JobId};
use crate::json::{self, JsonError};
use crate::run::RunId;
use crate::scheduler::request::Precondition;

/// Size limit of a job's definition in bytes, thousands of times that of a usual job.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Size limit of any other body in bytes. It is lower because a JSON value in memory may take eighty times as much.
pub(super) const JSON_BYTES_MAX: usize = 64 * 1024;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A body of at most `MAX` bytes, in a request without a query.
#[derive(Debug)]
pub(super) struct RawBody<const MAX: usize = BODY_BYTES_MAX>(pub(super) ReceivedBody);

/// A body and its share of the memory budget.
#[derive(Debug)]
pub(super) struct ReceivedBody {
    bytes: Vec<u8>,
    _share: BudgetShare,
}

impl Deref for ReceivedBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl<const MAX: usize> FromRequest<Api> for RawBody<MAX> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        let NoKeys {} = query(request.uri())?;
        body(request.into_body(), MAX, api).await.map(Self)
    }
}

/// The query, in a request without a body.
#[derive(Debug)]
pub(super) struct QueryParams<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequest<Api> for QueryParams<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        let parameters = query(request.uri())?;
        let NoKeys {} = optional(&body(request.into_body(), JSON_BYTES_MAX, api).await?)?;
        Ok(Self(parameters))
    }
}

/// A body, in a request whose query may say `dry_run=true`: then nothing is changed, and the answer says what would be.
#[derive(Debug)]
pub(super) struct DryRunBody {
    pub(super) dry_run: bool,
    pub(super) body: ReceivedBody,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DryRunQuery {
    #[serde(default)]
    dry_run: bool,
}

impl FromRequest<Api> for DryRunBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        let DryRunQuery { dry_run } = query(request.uri())?;
        let body = body(request.into_body(), BODY_BYTES_MAX, api).await?;
        Ok(Self { dry_run, body })
    }
}

/// A request without a query and without a body.
#[derive(Debug)]
pub(super) struct NoInput;

impl FromRequest<Api> for NoInput {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        QueryParams::<NoKeys>::from_request(request, api).await.map(|_| Self)
    }
}

/// An object without keys.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoKeys {}

/// Parses a body that may be absent.
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

/// Parses the query of a URL. An unknown key and a key that is given twice are errors.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, ApiError> {
    let pairs = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let mut known = BTreeSet::new();
    if let Some((key, _)) = pairs.clone().find(|(key, _)| !known.insert(key.clone())) {
        return Err(ApiError::bad_parameter(Invalid::new(key, "is given twice")));
    }
    // No row holds control characters, and not every database accepts them in a query.
    if let Some((key, _)) = pairs.clone().find(|(_, value)| value.chars().any(char::is_control)) {
        return Err(Invalid::new(key, "must have no control characters").into());
    }
    let read = serde_path_to_error::deserialize(serde_urlencoded::Deserializer::new(pairs));
    read.map_err(|error| ApiError::bad_parameter(invalid::at_path(&error)))
}

/// Parses a body as JSON.
pub(super) fn json(bytes: &[u8]) -> Result<Value, ApiError> {
    json::read(bytes).map_err(|error| match error {
        JsonError::Refused(invalid) => invalid.into(),
        JsonError::Syntax(_) if bytes.is_empty() => {
            ApiError::unreadable("the body is not JSON: it is empty")
        }
        JsonError::Syntax(error) => ApiError::unreadable(format!("the body is not JSON: {error}")),
    })
}

/// Parses a body as a job's definition. An error names the field.
pub(super) fn definition(bytes: &[u8]) -> Result<Definition, ApiError> {
    match Definition::read(bytes) {
        Some(definition) => Ok(definition),
        None => Ok(Definition::parse(json(bytes)?)?),
    }
}

pub(super) async fn body(body: Body, max: usize, api: &Api) -> Result<ReceivedBody, ApiError> {
    let share = BudgetShare::of_requests(&api.budget);
    tokio::time::timeout(BODY_TIMEOUT, read_body(body, max, share))
        .await
        .map_err(|_| ApiError::too_slow())?
}

async fn read_body(
    mut body: Body,
    max: usize,
    mut share: BudgetShare,
) -> Result<ReceivedBody, ApiError> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| ApiError::unreadable(format!("the body is incomplete: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len().saturating_add(data.len()) > max {
            return Err(ApiError::too_large(max));
        }
        share.grow(data.len())?;
        bytes.extend_from_slice(&data);
    }
    Ok(ReceivedBody { bytes, _share: share })
}

/// The id of a job in the path. In a path with a word in its place, such as `/v1/jobs/batch`, that word is the id: with
/// other methods than POST it is a job like any other.
#[derive(Debug)]
pub(super) struct JobPath(pub(super) JobId);

impl<S: Send + Sync> FromRequestParts<S> for JobPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let id = id_in_path(parts, state).await?;
        let word = parts.uri.path().rsplit('/').next().unwrap_or_default();
        JobId::parse(id.as_deref().unwrap_or(word)).map(Self).map_err(|_| {
            ApiError::not_found("nothing has this id: it is too long or has control characters")
        })
    }
}

/// A request that changes one job and has no other input.
pub(super) struct JobAction {
    pub(super) api: Api,
    pub(super) caller: Caller,
    pub(super) id: JobId,
    pub(super) precondition: Precondition,
}

impl FromRequest<Api> for JobAction {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let caller = Caller::from_request_parts(&mut parts, api).await?;
        let JobPath(id) = JobPath::from_request_parts(&mut parts, api).await?;
        let IfMatch(precondition) = IfMatch::from_request_parts(&mut parts, api).await?;
        NoInput::from_request(Request::from_parts(parts, body), api).await?;
        Ok(Self { api: api.clone(), caller, id, precondition })
    }
}

/// The id of a run in the path, which may be only its beginning or its end if that names one run.
#[derive(Debug)]
pub(super) struct RunPath(pub(super) RunId);

impl FromRequestParts<Api> for RunPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let id = id_in_path(parts, api).await?.unwrap_or_default();
        if let Some(id) = RunId::parse(&id) {
            return Ok(Self(id));
        }
        if !RunId::is_part(&id) {
            return Err(ApiError::no_run(&id));
        }
        let found = api.history.run_ids(&id).await?;
        if let [one] = &found[..] {
            return Ok(Self(one.clone()));
        }
        let mut candidates = Vec::new();
        for id in &found {
            candidates.extend(api.history.run(&id.0).await?);
        }
        // Runs may have been removed since their ids were found.
        if candidates.is_empty() {
            return Err(ApiError::no_run(&id));
        }
        Err(ApiError::ambiguous_run(&id, &candidates))
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

/// Refuses a text that can be no part of what it is compared with: an id, or a tag.
pub(super) fn check_text(field: &str, given: Option<&str>) -> Result<(), Invalid> {
    let checked = given.map(JobId::parse).transpose();
    checked.map(drop).map_err(|invalid| Invalid::new(field, invalid.message))
}

/// The number of rows of a page.
pub(super) fn page_limit(given: Option<usize>) -> Result<usize, Invalid> {
    let limit = given.unwrap_or(PAGE_DEFAULT);
    if (1..=PAGE_LIMIT).contains(&limit) {
        return Ok(limit);
    }
    Err(Invalid::new("limit", format!("must be between 1 and {PAGE_LIMIT}, not {limit}")))
}
