//! Lists of jobs and of runs, page by page: conditions, orders, and waiting until something has changed.

use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;

use super::Api;
use super::cursor::{ListIdentity, ListParams};
use super::error::ApiError;
use super::jobs::scheduler_pause;
use super::listener::SocketPeer;
use super::request::{check_text, page_limit};
use crate::clock::{Timestamp, rfc3339};
use crate::filter::{JobConditions, JobFilter, JobOrder, JobPosition, RunFilter, RunOrder};
use crate::instant::{Toward, parse_moment};
use crate::invalid::{Invalid, quoted};
use crate::job::{Job, JobId, JobState, JobView, Pause, PauseView};
use crate::run::{Run, RunId, RunState};
use crate::trigger::Trigger;

/// The most instants that a list shows for each job.
const UPCOMING_MAX: usize = 100;
/// How long the instants of one page may take to compute.
const UPCOMING_TIME_MAX: Duration = Duration::from_secs(2);
/// The longest time that a list may wait for a change, in seconds.
const WAIT_SECONDS_MAX: u64 = 300;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JobsQuery {
    state: Option<String>,
    tag: Option<String>,
    prefix: Option<String>,
    executor: Option<String>,
    trigger_type: Option<String>,
    since: Option<String>,
    until: Option<String>,
    order: Option<String>,
    /// How many of the next instants to show for each job.
    upcoming: Option<usize>,
    limit: Option<usize>,
    cursor: Option<String>,
    wait: Option<u64>,
    seen: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunsQuery {
    job: Option<String>,
    state: Option<String>,
    tag: Option<String>,
    prefix: Option<String>,
    executor: Option<String>,
    trigger_type: Option<String>,
    since: Option<String>,
    until: Option<String>,
    order: Option<String>,
    hooks: Option<bool>,
    limit: Option<usize>,
    cursor: Option<String>,
    wait: Option<u64>,
    seen: Option<u64>,
}

/// The conditions on jobs that a query names.
#[derive(Debug, Default)]
pub(super) struct ConditionTexts {
    pub(super) state: Option<String>,
    pub(super) tag: Option<String>,
    pub(super) prefix: Option<String>,
    pub(super) executor: Option<String>,
    pub(super) trigger_type: Option<String>,
}

impl ConditionTexts {
    /// Checks the conditions, with the states that are known.
    pub(super) fn check(self, known: &'static [&'static str]) -> Result<JobConditions, Invalid> {
        let Self { state, tag, prefix, executor, trigger_type } = self;
        check_text("tag", tag.as_deref())?;
        let prefix = prefix.filter(|prefix| !prefix.is_empty());
        check_text("prefix", prefix.as_deref())?;
        if executor.as_deref().is_some_and(str::is_empty) {
            return Err(Invalid::new("executor", "must not be empty"));
        }
        let known_type = |given: &String| Trigger::is_known_type(given);
        if let Some(given) = trigger_type.as_ref().filter(|given| !known_type(given)) {
            let message = format!(
                "unknown type {} (expected one of {})",
                quoted(given),
                Trigger::type_names().join(", ")
            );
            return Err(Invalid::new("trigger_type", message));
        }
        let states = state.map(|state| states(&state, known)).transpose()?.unwrap_or_default();
        Ok(JobConditions { states, tag, prefix, executor, trigger_type })
    }
}

/// Reads words of states with commas between them. A state that no row can have is refused: an empty list would hide the
/// mistake.
fn states(given: &str, known: &'static [&'static str]) -> Result<Vec<&'static str>, Invalid> {
    let word = |given: &str| {
        known.iter().find(|word| **word == given).copied().ok_or_else(|| {
            let message =
                format!("unknown state {} (expected one of {})", quoted(given), known.join(", "));
            Invalid::new("state", message)
        })
    };
    given.split(',').map(word).collect()
}

fn order<T>(
    given: Option<&str>,
    parse: fn(&str) -> Option<T>,
    words: &[&str],
) -> Result<Option<T>, Invalid> {
    let Some(given) = given else { return Ok(None) };
    let unknown =
        || format!("unknown order {} (expected one of {})", quoted(given), words.join(", "));
    parse(given).map(Some).ok_or_else(|| Invalid::new("order", unknown()))
}

/// The range of times that a query names. Times without an offset are in the daemon's zone.
fn range(
    api: &Api,
    since: Option<String>,
    until: Option<String>,
    toward: Toward,
) -> Result<(Option<Timestamp>, Option<Timestamp>), Invalid> {
    let (now, zone) = (api.clock.now(), api.rules.borrow().zone.zone.clone());
    let read = |field: &str, text: Option<String>| {
        let at = text.map(|text| parse_moment(&text, &zone, now, toward)).transpose();
        at.map_err(|why| Invalid::new(field, why))
    };
    let (since, until) = (read("since", since)?, read("until", until)?);
    if since.zip(until).is_some_and(|(since, until)| since >= until) {
        return Err(Invalid::new("until", "must be after since"));
    }
    Ok((since, until))
}

/// Waits until the scheduler has made a step after the one of the number `seen`, or until the time is up. Returns the number
/// of the last step. A client that goes away gives up its slot at once.
async fn wait_for_step(
    api: &Api,
    peer: &SocketPeer,
    wait: Option<u64>,
    seen: Option<u64>,
) -> Result<u64, ApiError> {
    let (seconds, seen) = match (wait, seen) {
        (None, None) => return Ok(api.handle.status().steps),
        (Some(seconds), _) if seconds > WAIT_SECONDS_MAX => {
            let message = format!("must be at most {WAIT_SECONDS_MAX} seconds, not {seconds}");
            return Err(Invalid::new("wait", message).into());
        }
        (Some(seconds), Some(seen)) => (seconds, seen),
        (Some(_), None) => return Err(Invalid::new("seen", "is missing: wait needs it").into()),
        (None, Some(_)) => return Err(Invalid::new("wait", "is missing: seen needs it").into()),
    };
    let slot = api.history.waiter();
    let _slot = slot.map_err(|error| ApiError::unavailable(error.to_string()))?;
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let mut steps = api.handle.steps();
    loop {
        let step = steps.borrow_and_update().steps;
        if step != seen {
            return Ok(step);
        }
        let changed = tokio::select! {
            changed = tokio::time::timeout_at(deadline, steps.changed()) => changed,
            () = peer.gone() => return Err(ApiError::unavailable("the client is gone")),
            () = api.closing.cancelled() => return Err(ApiError::unavailable("the daemon is stopping")),
        };
        // The time is up, or the scheduler has ended.
        if !matches!(changed, Ok(Ok(()))) {
            return Ok(step);
        }
    }
}

/// A page of jobs. It is serialised directly, because building a JSON value first would take much more memory.
#[derive(Serialize)]
struct JobPage<'a> {
    jobs: Vec<ListedJob<'a>>,
    next_cursor: Option<String>,
    scheduler_paused: Option<PauseView<'a>>,
    step: u64,
}

#[derive(Serialize)]
struct ListedJob<'a> {
    #[serde(flatten)]
    job: JobView<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upcoming: Option<Upcoming>,
}

/// When a job is due next.
#[derive(Debug, Serialize)]
struct Upcoming {
    times: Vec<String>,
    /// Whether there are more in the range of the list.
    more: bool,
}

pub(super) async fn jobs(
    State(api): State<Api>,
    Extension(peer): Extension<SocketPeer>,
    ListParams { params, list }: ListParams<JobsQuery>,
) -> Result<Response, ApiError> {
    let JobsQuery { state, tag, prefix, executor, trigger_type, since, until, .. } = params;
    let conditions = ConditionTexts { state, tag, prefix, executor, trigger_type };
    let conditions = conditions.check(&JobState::WORDS)?;
    let (since, until) = range(&api, since, until, Toward::Future)?;
    let order = order(params.order.as_deref(), JobOrder::parse, JobOrder::WORDS)?;
    let has_range = since.is_some() || until.is_some();
    if has_range && order == Some(JobOrder::Id) {
        let message = "must be next_run_time in a list with since or until";
        return Err(Invalid::new("order", message).into());
    }
    let default = if has_range { JobOrder::NextRunTime } else { JobOrder::default() };
    let order = order.unwrap_or(default);
    if params.upcoming.is_some_and(|count| !(1..=UPCOMING_MAX).contains(&count)) {
        let message = format!("must be between 1 and {UPCOMING_MAX}");
        return Err(Invalid::new("upcoming", message).into());
    }
    let after = params.cursor.map(|cursor| job_position(list, &cursor, order)).transpose()?;
    let limit = page_limit(params.limit)?;
    let step = wait_for_step(&api, &peer, params.wait, params.seen).await?;
    let filter = JobFilter { conditions, since, until, order, after, limit };
    let mut page = api.history.jobs(filter).await?;
    let next_cursor = page.rows.last().filter(|_| page.has_more).map(|job| {
        list.cursor(&match (order, job.next()) {
            (JobOrder::NextRunTime, Some(next)) => {
                format!("{}:{}", next.due_at.timestamp_micros(), job.id)
            }
            (JobOrder::NextRunTime | JobOrder::Id, _) => job.id.to_string(),
        })
    });
    let mut upcoming = Vec::new();
    if let Some(count) = params.upcoming {
        let (jobs, now) = (std::mem::take(&mut page.rows), api.clock.now());
        // The next instants of some triggers take milliseconds to find, which must not delay other requests.
        let computing = tokio::task::spawn_blocking(move || {
            let upcoming = all_upcoming(&jobs, until, count, now);
            (jobs, upcoming)
        });
        let (jobs, computed) =
            computing.await.map_err(|error| ApiError::unavailable(error.to_string()))?;
        (page.rows, upcoming) = (jobs, computed?);
    }
    let mut upcoming = upcoming.into_iter();
    let jobs =
        page.rows.iter().map(|job| ListedJob { job: job.shown(), upcoming: upcoming.next() });
    let jobs = jobs.collect();
    let pause = scheduler_pause(&api);
    let scheduler_paused = pause.as_deref().map(Pause::shown);
    Ok(Json(JobPage { jobs, next_cursor, scheduler_paused, step }).into_response())
}

fn job_position(list: ListIdentity, cursor: &str, order: JobOrder) -> Result<JobPosition, Invalid> {
    let place = list.place(cursor)?;
    let position = match order {
        JobOrder::Id => Some(JobPosition { due_at: None, id: place }),
        JobOrder::NextRunTime => place.split_once(':').and_then(|(micros, id)| {
            let due_at = Timestamp::from_timestamp_micros(micros.parse().ok()?)?;
            Some(JobPosition { due_at: Some(due_at), id: id.to_owned() })
        }),
    };
    let position = position.filter(|position| JobId::parse(&position.id).is_ok());
    position.ok_or_else(|| Invalid::new("cursor", "is not one of this list"))
}

fn all_upcoming(
    jobs: &[Job],
    until: Option<Timestamp>,
    count: usize,
    now: Timestamp,
) -> Result<Vec<Upcoming>, Invalid> {
    let begun = Instant::now();
    let upcoming = jobs.iter().map(|job| {
        if begun.elapsed() > UPCOMING_TIME_MAX {
            let message = format!(
                "takes longer than {UPCOMING_TIME_MAX:?}: ask for fewer jobs or fewer times"
            );
            return Err(Invalid::new("upcoming", message));
        }
        // One more shows whether there are more.
        let mut times = job.upcoming(until, count + 1, now);
        let more = times.len() > count;
        times.truncate(count);
        Ok(Upcoming { times: times.into_iter().map(rfc3339).collect(), more })
    });
    upcoming.collect()
}

/// A page of runs.
#[derive(Serialize)]
struct RunPage {
    runs: Vec<Value>,
    next_cursor: Option<String>,
    step: u64,
}

pub(super) async fn runs(
    State(api): State<Api>,
    Extension(peer): Extension<SocketPeer>,
    ListParams { params, list }: ListParams<RunsQuery>,
) -> Result<Response, ApiError> {
    let RunsQuery { state, tag, prefix, executor, trigger_type, since, until, .. } = params;
    check_text("job", params.job.as_deref())?;
    let conditions = ConditionTexts { state, tag, prefix, executor, trigger_type };
    let conditions = conditions.check(&RunState::WORDS)?;
    let (since, until) = range(&api, since, until, Toward::Past)?;
    let order = order(params.order.as_deref(), RunOrder::parse, RunOrder::WORDS)?;
    let after = params.cursor.map(|cursor| list.place(&cursor)).transpose()?;
    if after.as_deref().is_some_and(|id| RunId::parse(id).is_none()) {
        return Err(Invalid::new("cursor", "is not one of this list").into());
    }
    let limit = page_limit(params.limit)?;
    let step = wait_for_step(&api, &peer, params.wait, params.seen).await?;
    let filter = RunFilter {
        job_id: params.job,
        conditions,
        without_hooks: params.hooks == Some(false),
        occurrence: None,
        since,
        until,
        order: order.unwrap_or_default(),
        after,
        limit,
    };
    let page = api.history.runs(filter).await?;
    let last = page.rows.last().filter(|_| page.has_more);
    let next_cursor = last.map(|run| list.cursor(&run.id.0));
    let runs = page.rows.iter().map(Run::to_value).collect();
    Ok(Json(RunPage { runs, next_cursor, step }).into_response())
}
