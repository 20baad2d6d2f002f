//! Removing, pausing and resuming all jobs that meet some conditions. The jobs are changed in small transactions, so that
//! other jobs fire on time in between; a request that takes long ends with a cursor with which the next one goes on.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequest, Request, State};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Api;
use super::audit::{BulkCounts, Caller};
use super::cursor::{ListIdentity, ListParams};
use super::error::{ApiError, JsonAnswer};
use super::lists::ConditionTexts;
use super::pause::pause_terms;
use super::request::{JSON_BYTES_MAX, ReceivedBody, body, query};
use crate::filter::{JobConditions, PAGE_LIMIT};
use crate::invalid::Invalid;
use crate::job::{JobId, JobState};
use crate::scheduler::request::{BulkAction, BulkTally, RequestError};
use crate::scheduler::slices::act_in_slices;

/// How long one request works before it ends with a cursor.
const WORK_TIME: Duration = Duration::from_secs(5);
/// The most jobs that were left alone that an answer names.
const ERRORS_SHOWN: usize = 20;
/// The most ids in the answer of a dry run.
const IDS_SHOWN: usize = 1000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BulkQuery {
    state: Option<String>,
    tag: Option<String>,
    prefix: Option<String>,
    executor: Option<String>,
    trigger_type: Option<String>,
    #[serde(default)]
    all: bool,
    #[serde(default)]
    dry_run: bool,
    cursor: Option<String>,
}

impl BulkQuery {
    /// Without a condition, `all` has to say that every job is meant.
    fn conditions(self) -> Result<JobConditions, Invalid> {
        let Self { state, tag, prefix, executor, trigger_type, all, .. } = self;
        // In a script, it may be a variable that is not set.
        if prefix.as_deref().is_some_and(str::is_empty) {
            return Err(Invalid::new("prefix", "must not be empty"));
        }
        let texts = ConditionTexts { state, tag, prefix, executor, trigger_type };
        let conditions = texts.check(&JobState::WORDS)?;
        match (conditions.is_empty(), all) {
            (true, false) => Err(Invalid::new(
                "",
                "name the jobs by tag, prefix, state, executor or trigger_type, or say all=true",
            )),
            (false, true) => Err(Invalid::new("all", "means every job, so it allows no condition")),
            (true, true) | (false, false) => Ok(conditions),
        }
    }
}

/// A request to pause jobs, with the terms of the pause in its body.
#[derive(Debug)]
pub(super) struct PauseRequest {
    query: ListParams<BulkQuery>,
    body: ReceivedBody,
}

impl FromRequest<Api> for PauseRequest {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        let (list, params) = (ListIdentity::of(request.uri()), query(request.uri())?);
        let body = body(request.into_body(), JSON_BYTES_MAX, api).await?;
        Ok(Self { query: ListParams { params, list }, body })
    }
}

pub(super) async fn remove(
    State(api): State<Api>,
    caller: Caller,
    query: ListParams<BulkQuery>,
) -> JsonAnswer {
    act(&api, caller, query, &BulkAction::Remove).await
}

pub(super) async fn pause(
    State(api): State<Api>,
    caller: Caller,
    PauseRequest { query, body }: PauseRequest,
) -> JsonAnswer {
    let terms = pause_terms(&body, &api, &caller)?;
    act(&api, caller, query, &BulkAction::Pause(terms)).await
}

pub(super) async fn resume(
    State(api): State<Api>,
    caller: Caller,
    query: ListParams<BulkQuery>,
) -> JsonAnswer {
    act(&api, caller, query, &BulkAction::Resume).await
}

async fn act(
    api: &Api,
    caller: Caller,
    ListParams { params, list }: ListParams<BulkQuery>,
    action: &BulkAction,
) -> JsonAnswer {
    let after = params.cursor.as_deref().map(|cursor| list.place(cursor)).transpose()?;
    let is_dry = params.dry_run;
    let conditions = Arc::new(params.conditions()?);
    let selection = Selection { api, conditions, after: after.unwrap_or_default() };
    let Progress { mut answer, after } =
        if is_dry { selection.count().await? } else { selection.act(action, caller).await? };
    if let Some(fields) = answer.as_object_mut() {
        let cursor = after.map(|id| list.cursor(id.as_str()));
        fields.insert("next_cursor".to_owned(), json!(cursor));
    }
    Ok(Json(answer))
}

/// Jobs that meet conditions and follow an id.
struct Selection<'a> {
    api: &'a Api,
    conditions: Arc<JobConditions>,
    after: String,
}

/// How far a request has come.
struct Progress {
    answer: Value,
    /// The last job, if the time was up before all jobs were looked at.
    after: Option<JobId>,
}

impl Selection<'_> {
    /// The next jobs; none after the last one.
    async fn next(&mut self) -> Result<Vec<JobId>, ApiError> {
        let ids = self.api.history.job_ids(&self.conditions, &self.after, PAGE_LIMIT).await?;
        if let Some(last) = ids.last() {
            last.as_str().clone_into(&mut self.after);
        }
        Ok(ids)
    }

    /// Counts the jobs.
    async fn count(mut self) -> Result<Progress, ApiError> {
        let begun = Instant::now();
        let (mut matched, mut shown, mut after) = (0, Vec::new(), None);
        loop {
            let ids = self.next().await?;
            matched += ids.len();
            let is_over = ids.len() < PAGE_LIMIT;
            after = ids.last().cloned().or(after);
            shown.extend(ids.into_iter().take(IDS_SHOWN - shown.len()));
            if is_over {
                after = None;
            }
            if is_over || begun.elapsed() >= WORK_TIME {
                let answer = json!({"dry_run": true, "matched": matched, "ids": shown});
                return Ok(Progress { answer, after });
            }
        }
    }

    /// Changes the jobs.
    async fn act(mut self, action: &BulkAction, caller: Caller) -> Result<Progress, ApiError> {
        let begun = Instant::now();
        let word = match action {
            BulkAction::Remove => "remove-jobs",
            BulkAction::Pause(_) => "pause-jobs",
            BulkAction::Resume => "resume-jobs",
        };
        let mut change = caller.begin(word).of_jobs(describe(&self.conditions));
        let mut total = Total::default();
        loop {
            let ids = match self.next().await {
                Ok(ids) => ids,
                Err(error) if total.matched == 0 => return Err(change.refused(error)),
                Err(error) => {
                    change.done();
                    return Err(error.after(&total.to_string()));
                }
            };
            let (is_over, last) = (ids.len() < PAGE_LIMIT, ids.last().cloned());
            let conditions = &self.conditions;
            let (tally, error) = act_in_slices(&self.api.handle, action, ids, conditions).await;
            total.add(tally);
            change = change.counting_jobs(total.counts());
            match error {
                Some(error) if total.matched == 0 => return Err(change.refused(error)),
                Some(error) => {
                    change.done();
                    return Err(ApiError::from(error).after(&total.to_string()));
                }
                None if is_over || begun.elapsed() >= WORK_TIME => {
                    change.done();
                    let after = last.filter(|_| !is_over);
                    return Ok(Progress { answer: total.to_value(), after });
                }
                None => {}
            }
        }
    }
}

/// What a request has done.
#[derive(Debug, Default)]
struct Total {
    matched: usize,
    changed: usize,
    unchanged: usize,
    refused: usize,
    /// The first jobs that were left alone, and why.
    errors: Vec<(JobId, RequestError)>,
}

impl Total {
    fn add(&mut self, tally: BulkTally) {
        self.matched += tally.matched();
        self.changed += tally.changed;
        self.unchanged += tally.unchanged;
        self.refused += tally.refused.len();
        let room = ERRORS_SHOWN.saturating_sub(self.errors.len());
        self.errors.extend(tally.refused.into_iter().take(room));
    }

    fn counts(&self) -> BulkCounts {
        let Self { changed, unchanged, refused, .. } = *self;
        BulkCounts { changed, unchanged, refused }
    }

    fn to_value(&self) -> Value {
        let errors = self.errors.iter().map(
            |(id, error)| json!({"id": id, "error": ApiError::from(error.clone()).to_value()}),
        );
        json!({
            "dry_run": false,
            "matched": self.matched,
            "changed": self.changed,
            "unchanged": self.unchanged,
            "refused": self.refused,
            "errors": errors.collect::<Vec<_>>(),
        })
    }
}

impl std::fmt::Display for Total {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} jobs were changed before this", self.changed)
    }
}

/// The conditions in a line of the log.
fn describe(conditions: &JobConditions) -> String {
    let JobConditions { states, tag, prefix, executor, trigger_type } = conditions;
    let states = Some(states.join(",")).filter(|states| !states.is_empty());
    let given = [
        ("tag", tag),
        ("prefix", prefix),
        ("state", &states),
        ("executor", executor),
        ("trigger_type", trigger_type),
    ];
    let given = given.iter().filter_map(|(key, value)| Some(format!("{key}={}", value.as_ref()?)));
    let given: Vec<String> = given.collect();
    if given.is_empty() { "all".to_owned() } else { given.join(" ") }
}
