//! Changes of a job's definition: `PATCH` with a merge patch, and `reschedule` with another trigger.
//!
//! A change is checked here against the job as it is, with the rights of the client. The scheduler applies it to the job
//! as it is by then, and lets it be checked again if the task has changed meanwhile.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Api;
use super::audit::Caller;
use super::error::ApiError;
use super::etag::set_etag;
use super::jobs::{defined_job, find_job};
use super::precondition::IfMatch;
use super::request::{DryRunBody, JobPath, json};
use crate::clock::{Timestamp, rfc3339};
use crate::invalid::{self, Invalid};
use crate::job::admission::warnings;
use crate::job::{Job, JobId, JobPatch, JobView};
use crate::scheduler::request::{Modification, Modified, Precondition, RequestError};

/// How often a change is checked, while other requests change the task of the job in between.
const CHECKS_MAX: usize = 50;
/// The next times of a job that a dry run shows.
const TIMES_SHOWN: usize = 5;

pub(super) async fn patch(
    State(api): State<Api>,
    caller: Caller,
    JobPath(id): JobPath,
    IfMatch(precondition): IfMatch,
    DryRunBody { dry_run, body }: DryRunBody,
) -> Result<Response, ApiError> {
    let patch = Arc::new(JobPatch::parse(json(&body)?)?);
    let change =
        RequestedChange { action: "modify", id, patch, precondition, resumes: false, dry_run };
    change.carry_out(&api, caller).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RescheduleBody {
    trigger: Value,
}

pub(super) async fn reschedule(
    State(api): State<Api>,
    caller: Caller,
    JobPath(id): JobPath,
    IfMatch(precondition): IfMatch,
    DryRunBody { dry_run, body }: DryRunBody,
) -> Result<Response, ApiError> {
    let value = json(&body)?;
    if !value.is_object() {
        return Err(Invalid::new("", "the body is an object with a \"trigger\"").into());
    }
    let RescheduleBody { trigger } = invalid::read(value)?;
    let (action, patch) = ("reschedule", Arc::new(JobPatch::of_trigger(trigger)));
    let change = RequestedChange { action, id, patch, precondition, resumes: true, dry_run };
    change.carry_out(&api, caller).await
}

/// A change of one job, as it was requested.
struct RequestedChange {
    action: &'static str,
    id: JobId,
    patch: Arc<JobPatch>,
    precondition: Precondition,
    resumes: bool,
    dry_run: bool,
}

impl RequestedChange {
    async fn carry_out(self, api: &Api, caller: Caller) -> Result<Response, ApiError> {
        if self.dry_run {
            let modified = self.modify(api, &caller).await??;
            return Ok(
                DryRunAnswer::new(&modified, api.clock.now()).into_response(&modified.before)
            );
        }
        let change = caller.clone().begin(self.action).of_job(&self.id);
        let modified = match self.modify(api, &caller).await {
            Ok(Ok(modified)) => modified,
            Ok(Err(refusal)) => return Err(change.refused(refusal)),
            Err(error) => return Err(change.refused(error)),
        };
        let Modified { before, after } = &modified;
        change.changing(&changed(before, after)).done();
        Ok(defined_job(StatusCode::OK, after, api.clock.now()))
    }

    /// Checks the change and has it made. The outer error is one of this door, the inner one of the scheduler.
    async fn modify(
        &self,
        api: &Api,
        caller: &Caller,
    ) -> Result<Result<Modified, RequestError>, ApiError> {
        for _ in 0..CHECKS_MAX {
            let base = Arc::new(find_job(api, &self.id).await?);
            if let Err(refusal) = self.precondition.check(&base) {
                return Ok(Err(refusal));
            }
            let rules = Arc::clone(&api.rules.borrow());
            let checked = rules.modify(&base, &self.patch, api.clock.now())?;
            rules.check_requester(&checked, caller.uid())?;
            let modification = Modification {
                patch: Arc::clone(&self.patch),
                base,
                checked: Box::new(Job { requester: caller.uid(), ..checked }),
                precondition: self.precondition.clone(),
                resumes: self.resumes,
                dry_run: self.dry_run,
            };
            match api.handle.modify(modification).await {
                Err(RequestError::Outpaced(_)) => {}
                result => return Ok(result),
            }
        }
        Ok(Err(RequestError::Outpaced(self.id.clone())))
    }
}

/// What a change has changed: options, and what follows from them.
fn changed(before: &Job, after: &Job) -> Vec<String> {
    let mut changed = before.changed_options(after);
    if before.state.word() != after.state.word() {
        changed.push("state".to_owned());
    }
    if before.next() != after.next() {
        changed.push("next_run_time".to_owned());
    }
    changed
}

/// The answer to a dry run.
#[derive(Serialize)]
struct DryRunAnswer<'a> {
    before: DryRunJob<'a>,
    after: DryRunJob<'a>,
    changed: Vec<String>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct DryRunJob<'a> {
    #[serde(flatten)]
    job: JobView<'a>,
    /// The next times at which it runs.
    next_run_times: Vec<String>,
}

impl<'a> DryRunAnswer<'a> {
    fn new(Modified { before, after }: &'a Modified, now: Timestamp) -> Self {
        let shown = |job: &'a Job| {
            let times = job.upcoming(None, TIMES_SHOWN, now);
            DryRunJob { job: job.shown(), next_run_times: times.into_iter().map(rfc3339).collect() }
        };
        Self {
            before: shown(before),
            after: shown(after),
            changed: changed(before, after),
            warnings: warnings(after, now),
        }
    }

    fn into_response(self, before: &Job) -> Response {
        let mut response = Json(self).into_response();
        set_etag(&mut response, before.version());
        response
    }
}
