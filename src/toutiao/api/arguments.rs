//! Reads the arguments of a request one by one, so that an error names the argument that is wrong.

use std::ops::RangeInclusive;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Map, Value};

use super::response::ToutiaoApiError;
use crate::invalid::Invalid;
use crate::json::{self, JsonError};

/// The largest body of a request.
const BODY_LIMIT_BYTES: usize = 64 * 1024;

/// How long a body may take to arrive after its head.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// The arguments that have not been read yet.
#[derive(Debug)]
pub(super) struct RequestArguments(Map<String, Value>);

impl RequestArguments {
    /// Reads a body that is a JSON object.
    pub(super) async fn from_body(body: Body) -> Result<Self, ToutiaoApiError> {
        let collected =
            tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, BODY_LIMIT_BYTES).collect())
                .await
                .map_err(|_| {
                    let message = "The request did not arrive in time.";
                    ToutiaoApiError::new(StatusCode::REQUEST_TIMEOUT, message)
                })?;
        let bytes = match collected {
            Ok(collected) => collected.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                let message = "The request is too large.";
                return Err(ToutiaoApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message));
            }
            Err(_) => return Err(ToutiaoApiError::bad_request("The body could not be read.")),
        };
        match json::read(&bytes) {
            Ok(Value::Object(arguments)) => Ok(Self(arguments)),
            Ok(_) => Err(ToutiaoApiError::bad_request("The body must be a JSON object.")),
            Err(JsonError::Refused(invalid)) => Err(invalid.into()),
            Err(JsonError::Syntax(error)) => {
                Err(ToutiaoApiError::bad_request(&format!("The body is not JSON: {error}.")))
            }
        }
    }

    /// Reads the query of a URL. Its values are text; one that is a whole number counts as a number.
    pub(super) fn from_query(uri: &Uri) -> Result<Self, ToutiaoApiError> {
        let Query(pairs): Query<Vec<(String, String)>> = Query::try_from_uri(uri)
            .map_err(|_| ToutiaoApiError::bad_request("The query could not be read."))?;
        let mut arguments = Map::new();
        for (name, text) in pairs {
            let value = text.parse::<i64>().map_or(Value::String(text), Value::from);
            if arguments.insert(name.clone(), value).is_some() {
                return Err(Invalid::new(name, "is given twice").into());
            }
        }
        Ok(Self(arguments))
    }

    /// Reads a required whole number.
    pub(super) fn whole(&mut self, name: &str, range: RangeInclusive<i64>) -> Result<i64, Invalid> {
        self.optional_whole(name, range)?.ok_or_else(|| Invalid::new(name, "is missing"))
    }

    /// Reads a whole number that may be absent or null.
    pub(super) fn optional_whole(
        &mut self,
        name: &str,
        range: RangeInclusive<i64>,
    ) -> Result<Option<i64>, Invalid> {
        let value = match self.0.swap_remove(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(value) => value,
        };
        let number = value.as_i64().ok_or_else(|| Invalid::new(name, "must be a whole number"))?;
        if range.contains(&number) {
            Ok(Some(number))
        } else if *range.end() == i64::MAX {
            Err(Invalid::new(name, format!("must be at least {}", range.start())))
        } else {
            Err(Invalid::new(name, format!("must be from {} to {}", range.start(), range.end())))
        }
    }

    /// Refuses arguments that have not been read.
    pub(super) fn finish(self) -> Result<(), Invalid> {
        match self.0.keys().next() {
            Some(name) => Err(Invalid::new(name, "is unknown")),
            None => Ok(()),
        }
    }
}

/// The id in a path.
#[derive(Debug, Clone, Copy)]
pub(super) struct PathId(pub(super) i64);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = ToutiaoApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ToutiaoApiError> {
        let text = Path::<String>::from_request_parts(parts, state).await;
        let id = text.ok().and_then(|Path(text)| text.parse().ok()).filter(|id| *id > 0);
        id.map(Self).ok_or_else(|| Invalid::new("id", "must be a whole number above 0").into())
    }
}
