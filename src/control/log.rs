//! What the daemon logs, shown and changed while it runs.

use std::fmt;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use chrono::TimeDelta;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

use super::Api;
use super::audit::Caller;
use super::error::ApiError;
use super::request::{Bare, Bytes, JSON_BYTES_MAX, json as read_json};
use crate::clock::{Timestamp, rfc3339};
use crate::invalid::{self, Invalid};

/// The longest time for which a filter can be set: a week. Beyond that, a restart would end it anyway.
const LIMIT_SECONDS_MAX: f64 = 7.0 * 24.0 * 3600.0;

/// The filter of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Filter {
    /// The directives that hold.
    pub filter: String,
    /// The directives that the daemon was started with.
    pub start_filter: String,
    /// When those hold again; none if there is no limit.
    #[serde(serialize_with = "moment")]
    pub until: Option<Timestamp>,
}

/// What a change of the filter did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// The directives that held before.
    pub previous: String,
    /// The filter that holds now.
    #[serde(flatten)]
    pub now: Filter,
}

/// How long a change holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// The time from now on.
    pub time: Duration,
    /// When it is over.
    pub until: Timestamp,
}

/// Why the filter was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// The filter that was asked for is not taken.
    #[error("{0}")]
    Refused(String),
    /// The daemon could not change it.
    #[error("{0}")]
    Failed(String),
}

/// The filter of the log, and the way to change it.
pub trait LogFilter: fmt::Debug + Send + Sync {
    /// The filter as it is.
    fn current(&self) -> Filter;

    /// Changes it to these directives, or to those of the start. Directives that would hide audit lines, warnings or errors
    /// that the filter of the start shows are refused. `tell` logs the change.
    fn change(
        &self,
        filter: Option<&str>,
        limit: Option<Limit>,
        tell: &dyn Fn(&Changed),
    ) -> Result<Changed, FilterError>;
}

#[expect(clippy::ref_option, reason = "the shape that serde asks for")]
fn moment<S: Serializer>(until: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    until.map(rfc3339).serialize(serializer)
}

pub(super) async fn show(State(api): State<Api>, _: Bare) -> Json<Value> {
    Json(json!(api.log.current()))
}

/// What is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    filter: String,
    /// Seconds after which the filter of the start holds again.
    #[serde(rename = "for")]
    seconds: Option<f64>,
}

pub(super) async fn change(
    State(api): State<Api>,
    caller: Caller,
    Bytes(body): Bytes<JSON_BYTES_MAX>,
) -> Result<Json<Value>, ApiError> {
    let Given { filter, seconds } = invalid::read(read_json(&body)?)?;
    let limit = seconds.map(|seconds| limit(seconds, api.clock.now())).transpose()?;
    let changed =
        api.log.change(Some(&filter), limit, &|changed| caller.changed_log_filter(changed));
    Ok(Json(json!(changed?)))
}

fn limit(seconds: f64, now: Timestamp) -> Result<Limit, Invalid> {
    let time = Duration::try_from_secs_f64(seconds).ok();
    let time =
        time.filter(|time| *time > Duration::ZERO && time.as_secs_f64() <= LIMIT_SECONDS_MAX);
    let limit = time.and_then(|time| {
        let until = now.checked_add_signed(TimeDelta::from_std(time).ok()?)?;
        Some(Limit { time, until })
    });
    limit.ok_or_else(|| {
        Invalid::new("for", format!("must be above 0 and at most {LIMIT_SECONDS_MAX} seconds"))
    })
}

pub(super) async fn reset(
    State(api): State<Api>,
    caller: Caller,
    _: Bare,
) -> Result<Json<Value>, ApiError> {
    let changed = api.log.change(None, None, &|changed| caller.changed_log_filter(changed));
    Ok(Json(json!(changed?)))
}

impl From<FilterError> for ApiError {
    fn from(error: FilterError) -> Self {
        match error {
            FilterError::Refused(why) => Invalid::new("filter", why).into(),
            FilterError::Failed(why) => Self::internal(why),
        }
    }
}
