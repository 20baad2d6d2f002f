//! A typed client of the control socket, for the command line, the applications in this repository and the tests.
//!
//! Each call opens a connection of its own: a Unix socket connects in microseconds, and a connection that is never
//! reused is never stale. [`Client`] has a method for each route, `connection.rs` sends the request and reads the answer,
//! and `follow.rs` reads an answer that goes on for as long as a run does.

mod connection;
mod denied;
mod error;
mod follow;

pub use error::ClientError;
pub use follow::OutputFollower;

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use connection::{CALL_TIMEOUT, Endpoint};

/// The characters that are encoded in a path segment or a query value: all but letters, digits and these.
const ENCODED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':').remove(b'@');

/// A client of one daemon.
#[derive(Debug, Clone)]
pub struct Client {
    endpoint: Endpoint,
}

impl Client {
    /// A client of the daemon that listens at `socket`. Nothing is connected yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { endpoint: Endpoint::new(socket.into()) }
    }

    /// This client, restricted to daemons that run as one of these users. None: any user.
    #[must_use]
    pub fn of_users(mut self, users: Option<Vec<u32>>) -> Self {
        self.endpoint.users = users;
        self
    }

    /// This client, whose error says that there is no socket `elsewhere` either, and how a daemon is started: by systemd
    /// if it `is_service`.
    #[must_use]
    pub fn not_found(mut self, elsewhere: impl std::fmt::Display, is_service: bool) -> Self {
        self.endpoint.set_not_found(&elsewhere, is_service);
        self
    }

    pub fn socket(&self) -> &Path {
        &self.endpoint.socket
    }

    /// Adds a job; the answer is the job as it was stored.
    pub async fn add(&self, job: &Value) -> Result<Value, ClientError> {
        self.call(Method::POST, "/v1/jobs", Some(job)).await
    }

    /// Adds jobs: the valid ones in one transaction. The answer has a result for each, in order.
    pub async fn add_all(&self, jobs: &[Value]) -> Result<Value, ClientError> {
        let body = serde_json::json!({"jobs": jobs});
        self.call(Method::POST, "/v1/jobs/batch", Some(&body)).await
    }

    /// One job.
    pub async fn job(&self, id: &str) -> Result<Value, ClientError> {
        self.call(Method::GET, &job_path(id), None).await
    }

    /// One job, and its version for [`Client::modify`].
    pub async fn job_with_version(&self, id: &str) -> Result<(Value, String), ClientError> {
        let path = job_path(id);
        let answer = self.endpoint.request(Method::GET, &path, None, None, CALL_TIMEOUT).await;
        let (job, version) = answer?;
        let unreadable = || ClientError::Unreadable("the job has no ETag".to_owned());
        Ok((job, version.ok_or_else(unreadable)?))
    }

    /// Changes the definition of a job by a merge patch, if it has this version.
    pub async fn modify(
        &self,
        id: &str,
        patch: &Value,
        version: &str,
    ) -> Result<Value, ClientError> {
        self.patch(&job_path(id), patch, version).await
    }

    /// Says what [`Client::modify`] would do.
    pub async fn try_modify(
        &self,
        id: &str,
        patch: &Value,
        version: &str,
    ) -> Result<Value, ClientError> {
        self.patch(&format!("{}?dry_run=true", job_path(id)), patch, version).await
    }

    async fn patch(&self, path: &str, body: &Value, version: &str) -> Result<Value, ClientError> {
        let (body, version) = (Some(body), Some(version));
        let answer = self.endpoint.request(Method::PATCH, path, body, version, CALL_TIMEOUT).await;
        Ok(answer?.0)
    }

    /// Replaces the trigger of a job, which also resumes it.
    pub async fn reschedule(&self, id: &str, trigger: &Value) -> Result<Value, ClientError> {
        let body = serde_json::json!({"trigger": trigger});
        self.call(Method::POST, &format!("{}/reschedule", job_path(id)), Some(&body)).await
    }

    /// Says what [`Client::reschedule`] would do.
    pub async fn try_reschedule(&self, id: &str, trigger: &Value) -> Result<Value, ClientError> {
        let body = serde_json::json!({"trigger": trigger});
        let path = format!("{}/reschedule?dry_run=true", job_path(id));
        self.call(Method::POST, &path, Some(&body)).await
    }

    /// One page of jobs; `query` as in `state=active&limit=10`.
    pub async fn jobs(&self, query: &str) -> Result<Value, ClientError> {
        self.call(Method::GET, &format!("/v1/jobs?{query}"), None).await
    }

    /// Removes a job.
    pub async fn remove(&self, id: &str) -> Result<Value, ClientError> {
        self.call(Method::DELETE, &job_path(id), None).await
    }

    /// Removes the jobs that `query` selects, as in `tag=nightly&state=finished`; the answer says how many, and has a
    /// `next_cursor` if the daemon has not looked at all of them.
    pub async fn remove_jobs(&self, query: &str) -> Result<Value, ClientError> {
        self.call(Method::DELETE, &path_with("/v1/jobs", query), None).await
    }

    /// Pauses the jobs that `query` selects, as [`Client::remove_jobs`] removes them.
    pub async fn pause_jobs(&self, query: &str) -> Result<Value, ClientError> {
        self.call(Method::POST, &path_with("/v1/jobs/pause", query), None).await
    }

    /// The same on these terms, as [`Client::pause_with`] pauses a job.
    pub async fn pause_jobs_with(&self, query: &str, terms: &Value) -> Result<Value, ClientError> {
        self.call(Method::POST, &path_with("/v1/jobs/pause", query), Some(terms)).await
    }

    /// Resumes the jobs that `query` selects, as [`Client::remove_jobs`] removes them.
    pub async fn resume_jobs(&self, query: &str) -> Result<Value, ClientError> {
        self.call(Method::POST, &path_with("/v1/jobs/resume", query), None).await
    }

    /// Pauses a job.
    pub async fn pause(&self, id: &str) -> Result<Value, ClientError> {
        self.call(Method::POST, &format!("{}/pause", job_path(id)), None).await
    }

    /// Pauses a job on these terms: an object that may have `reason`, and `until` or `for`.
    pub async fn pause_with(&self, id: &str, terms: &Value) -> Result<Value, ClientError> {
        self.call(Method::POST, &format!("{}/pause", job_path(id)), Some(terms)).await
    }

    /// Resumes a job.
    pub async fn resume(&self, id: &str) -> Result<Value, ClientError> {
        self.call(Method::POST, &format!("{}/resume", job_path(id)), None).await
    }

    /// Why a job ran or did not run; `query` as in `at=2026-11-06T03:00:00Z`.
    pub async fn explain(&self, id: &str, query: &str) -> Result<Value, ClientError> {
        self.call(Method::GET, &format!("{}/explain?{query}", job_path(id)), None).await
    }

    /// Pauses the scheduler: no job fires.
    pub async fn pause_all(&self) -> Result<Value, ClientError> {
        self.call(Method::POST, "/v1/scheduler/pause", None).await
    }

    /// Pauses the scheduler on these terms, as [`Client::pause_with`] pauses a job.
    pub async fn pause_all_with(&self, terms: &Value) -> Result<Value, ClientError> {
        self.call(Method::POST, "/v1/scheduler/pause", Some(terms)).await
    }

    /// Resumes the scheduler.
    pub async fn resume_all(&self) -> Result<Value, ClientError> {
        self.call(Method::POST, "/v1/scheduler/resume", None).await
    }

    /// Runs a job now, in addition to its schedule; the answer is the run.
    pub async fn run(&self, id: &str) -> Result<Value, ClientError> {
        self.call(Method::POST, &format!("{}/run", job_path(id)), None).await
    }

    /// One page of the runs; `query` as in `job=ID&state=failed&limit=10`.
    pub async fn runs(&self, query: &str) -> Result<Value, ClientError> {
        self.call(Method::GET, &format!("/v1/runs?{query}"), None).await
    }

    /// One run.
    pub async fn run_by_id(&self, id: &str) -> Result<Value, ClientError> {
        self.call(Method::GET, &run_path(id), None).await
    }

    /// Waits until a run has ended, at most `seconds`; the answer is the run as it then is.
    pub async fn wait(&self, id: &str, seconds: u64) -> Result<Value, ClientError> {
        let path = format!("{}?wait={seconds}", run_path(id));
        let limit = CALL_TIMEOUT + Duration::from_secs(seconds);
        Ok(self.endpoint.request(Method::GET, &path, None, None, limit).await?.0)
    }

    /// Cancels a run; the answer is the run, which may take a while to end.
    pub async fn cancel(&self, id: &str, reason: Option<&str>) -> Result<Value, ClientError> {
        let body = serde_json::json!({"reason": reason});
        self.call(Method::POST, &format!("{}/cancel", run_path(id)), Some(&body)).await
    }

    /// The output of a run so far: that of its latest attempt.
    pub async fn output(&self, id: &str) -> Result<Value, ClientError> {
        self.output_of(id, "").await
    }

    /// The output of the attempt that `query` names, as in `attempt=1`.
    pub async fn output_of(&self, id: &str, query: &str) -> Result<Value, ClientError> {
        let path = path_with(&format!("{}/output", run_path(id)), query);
        self.call(Method::GET, &path, None).await
    }

    /// The executors, and what they run.
    pub async fn executors(&self) -> Result<Value, ClientError> {
        self.call(Method::GET, "/v1/executors", None).await
    }

    /// The state of the daemon.
    pub async fn status(&self) -> Result<Value, ClientError> {
        self.call(Method::GET, "/v1/status", None).await
    }

    /// Whether the daemon fires jobs and stores requests; it refuses the call if not.
    pub async fn ready(&self) -> Result<Value, ClientError> {
        self.call(Method::GET, "/readyz", None).await
    }

    /// The next times of a trigger.
    pub async fn preview(&self, request: &Value) -> Result<Value, ClientError> {
        self.call(Method::POST, "/v1/preview", Some(request)).await
    }

    /// Makes the daemon read its configuration again; the answer says what changed.
    pub async fn reload(&self) -> Result<Value, ClientError> {
        self.call(Method::POST, "/v1/scheduler/reload", None).await
    }

    /// As [`Client::reload`], even if the file declares no jobs any more.
    pub async fn force_reload(&self) -> Result<Value, ClientError> {
        self.call(Method::POST, "/v1/scheduler/reload?force=true", None).await
    }

    /// The filter of the daemon's log.
    pub async fn log_filter(&self) -> Result<Value, ClientError> {
        self.call(Method::GET, "/v1/log", None).await
    }

    /// Changes the filter of the daemon's log.
    pub async fn set_log_filter(&self, request: &Value) -> Result<Value, ClientError> {
        self.call(Method::PUT, "/v1/log", Some(request)).await
    }

    /// Resets the filter of the daemon's log to that of its start.
    pub async fn reset_log_filter(&self) -> Result<Value, ClientError> {
        self.call(Method::DELETE, "/v1/log", None).await
    }

    /// Follows the output of a run to its end, from its present attempt on; `query` as in `attempt=1`. There is no time
    /// limit.
    pub async fn follow(&self, id: &str, query: &str) -> Result<OutputFollower, ClientError> {
        let path = path_with(&format!("{}/output", run_path(id)), &format!("follow&{query}"));
        OutputFollower::open(self.endpoint.clone(), &path).await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        Ok(self.endpoint.request(method, path, body, None, CALL_TIMEOUT).await?.0)
    }
}

fn job_path(id: &str) -> String {
    format!("/v1/jobs/{}", percent_encode(id))
}

fn run_path(id: &str) -> String {
    format!("/v1/runs/{}", percent_encode(id))
}

fn path_with(path: &str, query: &str) -> String {
    format!("{path}?{query}").trim_end_matches(['?', '&']).to_owned()
}

/// Encodes a text for a path segment or a query value.
pub fn percent_encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_id_fits_into_a_path() {
        assert_eq!(percent_encode("order:42:expire"), "order:42:expire");
        assert_eq!(percent_encode("a/b?c d%é"), "a%2Fb%3Fc%20d%25%C3%A9");
    }
}
