//! Reads the arguments of a request one by one, so that an error names the one that is wrong.

use std::ops::RangeInclusive;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::Uri;
use axum::http::request::Parts;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Map, Value};

use super::response::ToutiaoApiError;
use crate::invalid::Invalid;
use crate::json::{self, JsonError};

/// Bytes of a request's body at most.
const BODY_LIMIT_BYTES: usize = 64 * 1024;

/// How long a body may take to arrive, once its head is there.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// The arguments that have not been read yet.
#[derive(Debug)]
pub(super) struct RequestArguments(Map<String, Value>);

impl RequestArguments {
    /// Reads a body that is a JSON object.
    pub(super) async fn of_body(body: Body) -> Result<Self, ToutiaoApiError> {
        let collected =
            tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, BODY_LIMIT_BYTES).collect())
                .await
                .map_err(|_| ToutiaoApiError::too_slow())?;
        let bytes = match collected {
            Ok(collected) => collected.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return Err(ToutiaoApiError::too_large());
            }
            Err(_) => return Err(ToutiaoApiError::bad_request("The body could not be read.")),
        };
        match json::read(&bytes) {
            Ok(Value::Object(given)) => Ok(Self(given)),
            Ok(_) => Err(ToutiaoApiError::bad_request("The body must be a JSON object.")),
            Err(JsonError::Refused(invalid)) => Err(invalid.into()),
            Err(JsonError::Syntax(error)) => {
                Err(ToutiaoApiError::bad_request(&format!("The body is not JSON: {error}.")))
            }
        }
    }

    /// Reads a query, in which everything is text: what is a whole number counts as one.
    pub(super) fn of_query(uri: &Uri) -> Result<Self, ToutiaoApiError> {
        let Query(pairs): Query<Vec<(String, String)>> = Query::try_from_uri(uri)
            .map_err(|_| ToutiaoApiError::bad_request("The query could not be read."))?;
        let mut given = Map::new();
        for (name, text) in pairs {
            let value = text.parse::<i64>().map_or(Value::String(text), Value::from);
            if given.insert(name.clone(), value).is_some() {
                return Err(Invalid::new(name, "is given twice").into());
            }
        }
        Ok(Self(given))
    }

    /// A whole number that must be there.
    pub(super) fn whole(&mut self, name: &str, range: RangeInclusive<i64>) -> Result<i64, Invalid> {
        self.whole_if_given(name, range)?.ok_or_else(|| Invalid::new(name, "is missing"))
    }

    /// A whole number that may be absent or null.
    pub(super) fn whole_if_given(
        &mut self,
        name: &str,
        range: RangeInclusive<i64>,
    ) -> Result<Option<i64>, Invalid> {
        // Order does not matter for what is left: only its first name is told.
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

    /// Refuses what was given and not read.
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
