//! Shows and changes what the daemon logs, while it runs.

use std::fmt;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use chrono::TimeDelta;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

use super::Api;
use super::audit::Caller;
use super::error::{ApiError, JsonAnswer};
use super::request::{JSON_BYTES_MAX, NoInput, RawBody, json as read_json};
use crate::clock::{Timestamp, rfc3339};
use crate::invalid::{self, Invalid};

/// The longest time limit of a filter: a week. Beyond that, a restart of the daemon would end the filter anyway.
const LIMIT_SECONDS_MAX: f64 = 7.0 * 24.0 * 3600.0;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ActiveFilter {
    /// The directives that apply now.
    pub filter: String,
    /// The directives that the daemon was started with.
    pub start_filter: String,
    /// When the directives of the start apply again; none if there is no limit.
    #[serde(serialize_with = "moment")]
    pub until: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FilterChange {
    /// The directives that applied before.
    pub previous: String,
    #[serde(flatten)]
    pub now: ActiveFilter,
}

/// How long a change applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterExpiry {
    /// From now.
    pub time: Duration,
    pub until: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// The filter is not acceptable.
    #[error("{0}")]
    Refused(String),
    /// The daemon could not change it.
    #[error("{0}")]
    Failed(String),
}

/// The log filter, as the part of the daemon that logs offers it.
pub trait LogFilter: fmt::Debug + Send + Sync {
    fn current(&self) -> ActiveFilter;

    /// Changes the filter to these directives, or to those of the start if `filter` is none. Directives that would hide
    /// audit lines, warnings or errors that the filter of the start shows are refused. `log` is called to log the change.
    fn change(
        &self,
        filter: Option<&str>,
        limit: Option<FilterExpiry>,
        log: &dyn Fn(&FilterChange),
    ) -> Result<FilterChange, FilterError>;
}

#[expect(clippy::ref_option, reason = "the shape that serde asks for")]
fn moment<S: Serializer>(until: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    until.map(rfc3339).serialize(serializer)
}

pub(super) async fn show(State(api): State<Api>, _: NoInput) -> Json<Value> {
    Json(json!(api.log.current()))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FilterBody {
    filter: String,
    /// Seconds after which the filter of the start applies again.
    #[serde(rename = "for")]
    seconds: Option<f64>,
}

pub(super) async fn change(
    State(api): State<Api>,
    caller: Caller,
    RawBody(body): RawBody<JSON_BYTES_MAX>,
) -> JsonAnswer {
    let FilterBody { filter, seconds } = invalid::read(read_json(&body)?)?;
    let limit = seconds.map(|seconds| expiry(seconds, api.clock.now())).transpose()?;
    set(&api, &caller, Some(&filter), limit)
}

pub(super) async fn reset(State(api): State<Api>, caller: Caller, _: NoInput) -> JsonAnswer {
    set(&api, &caller, None, None)
}

fn set(
    api: &Api,
    caller: &Caller,
    filter: Option<&str>,
    limit: Option<FilterExpiry>,
) -> JsonAnswer {
    let log = |change: &FilterChange| {
        caller.changed_log_filter(&change.now.filter, &change.previous);
    };
    Ok(Json(json!(api.log.change(filter, limit, &log)?)))
}

fn expiry(seconds: f64, now: Timestamp) -> Result<FilterExpiry, Invalid> {
    let time = Duration::try_from_secs_f64(seconds).ok();
    let time =
        time.filter(|time| *time > Duration::ZERO && time.as_secs_f64() <= LIMIT_SECONDS_MAX);
    let limit = time.and_then(|time| {
        let until = now.checked_add_signed(TimeDelta::from_std(time).ok()?)?;
        Some(FilterExpiry { time, until })
    });
    limit.ok_or_else(|| {
        Invalid::new("for", format!("must be above 0 and at most {LIMIT_SECONDS_MAX} seconds"))
    })
}

impl From<FilterError> for ApiError {
    fn from(error: FilterError) -> Self {
        match error {
            FilterError::Refused(why) => Invalid::new("filter", why).into(),
            FilterError::Failed(why) => Self::internal(why),
        }
    }
}
