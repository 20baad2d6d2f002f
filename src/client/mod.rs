//! A typed client of the control socket: what the command line, the applications in this
//! repository and the tests speak through. One connection per call: a Unix socket connects in
//! microseconds, and a connection that is never reused is never stale.

mod denied;
mod follow;

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use follow::ClientConnection;
pub use follow::OutputFollower;

/// How long one call may take, beyond the wait that it asks the daemon for.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of an answer that are read at most: a page of 1,000 jobs is far below it.
const ANSWER_LIMIT_BYTES: usize = 64 * 1024 * 1024;

/// Why a call did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon answers at the socket.
    #[error("no daemon answers at {}: {reason} ({help}--socket and PUNCTUAL_SOCKET choose another path)", .socket.display())]
    Unreachable {
        /// Where the daemon was looked for.
        socket: PathBuf,
        /// What the system said, and where else it was looked for.
        reason: String,
        /// How to find out more.
        help: &'static str,
    },
    /// The system refuses a connection to the socket.
    #[error("permission denied on {}: {advice}", .socket.display())]
    Denied {
        /// Where the daemon was looked for.
        socket: PathBuf,
        /// How to get access.
        advice: String,
    },
    /// The daemon refused the call.
    #[error("{}", refusal(.field.as_deref(), .message))]
    Refused {
        /// HTTP status.
        status: u16,
        /// Stable code of the error.
        code: String,
        /// What is wrong, for a person.
        message: String,
        /// The field that is wrong, if one is.
        field: Option<String>,
    },
    /// The answer was not one of this protocol.
    #[error("the daemon's answer could not be read: {0}")]
    Unreadable(String),
}

fn refusal(field: Option<&str>, message: &str) -> String {
    match field {
        Some(field) if !field.is_empty() => format!("{field}: {message}"),
        _ => message.to_owned(),
    }
}

impl ClientError {
    /// Whether no daemon could be asked: none answers, or the system refuses the connection.
    pub fn is_not_connected(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Denied { .. })
    }

    /// Whether the daemon does not know what was named.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}

/// A client of one daemon.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    /// Users that the daemon may run as; none if it may be any.
    users: Option<Vec<u32>>,
    /// Where else it was looked for in vain, as the end of a sentence.
    elsewhere: String,
    /// How to find out why it does not answer.
    help: &'static str,
}

/// What helps where a person starts the daemon.
const STARTED_BY_HAND: &str = "is `punctual serve` running? ";
/// What helps where systemd starts it.
const STARTED_BY_SYSTEMD: &str = "see `systemctl status punctual`; ";

impl Client {
    /// A client of the daemon that listens at `socket`. Nothing is connected yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        let (users, elsewhere) = (None, String::new());
        Self { socket: socket.into(), users, elsewhere, help: STARTED_BY_HAND }
    }

    /// The same client, which only speaks to a daemon of one of these users.
    #[must_use]
    pub fn of_users(self, users: Option<Vec<u32>>) -> Self {
        Self { users, ..self }
    }

    /// The same client, for its error: no socket was found here or elsewhere, and systemd may be what starts the daemon.
    #[must_use]
    pub fn not_found(self, elsewhere: impl std::fmt::Display, is_service: bool) -> Self {
        let help = if is_service { STARTED_BY_SYSTEMD } else { STARTED_BY_HAND };
        Self { elsewhere: format!(", nor at {elsewhere}"), help, ..self }
    }

    /// The socket's path.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Adds a job; the answer is the job as it was stored.
    pub async fn add(&self, job: &Value) -> Result<Value, ClientError> {
        self.call(Method::POST, "/v1/jobs", Some(job)).await
    }

    /// Adds jobs: what is valid is added together, and the answer tells of each in order.
    pub async fn add_all(&self, jobs: &[Value]) -> Result<Value, ClientError> {
        let body = serde_json::json!({"jobs": jobs});
        self.call(Method::POST, "/v1/jobs/batch", Some(&body)).await
    }

    /// One job.
    pub async fn job(&self, id: &str) -> Result<Value, ClientError> {
        self.call(Method::GET, &job_path(id), None).await
    }

    /// One page of jobs; `query` as in `state=active&limit=10`.
    pub async fn jobs(&self, query: &str) -> Result<Value, ClientError> {
        self.call(Method::GET, &format!("/v1/jobs?{query}"), None).await
    }

    /// Removes a job.
    pub async fn remove(&self, id: &str) -> Result<Value, ClientError> {
        self.call(Method::DELETE, &job_path(id), None).await
    }

    /// Pauses a job.
    pub async fn pause(&self, id: &str) -> Result<Value, ClientError> {
        self.call(Method::POST, &format!("{}/pause", job_path(id)), None).await
    }

    /// Resumes a job.
    pub async fn resume(&self, id: &str) -> Result<Value, ClientError> {
        self.call(Method::POST, &format!("{}/resume", job_path(id)), None).await
    }

    /// Why a job ran or did not; `query` as in `at=2026-11-06T03:00:00Z`.
    pub async fn explain(&self, id: &str, query: &str) -> Result<Value, ClientError> {
        self.call(Method::GET, &format!("{}/explain?{query}", job_path(id)), None).await
    }

    /// Pauses the scheduler: no job fires.
    pub async fn pause_all(&self) -> Result<Value, ClientError> {
        self.call(Method::POST, "/v1/scheduler/pause", None).await
    }

    /// Resumes the scheduler.
    pub async fn resume_all(&self) -> Result<Value, ClientError> {
        self.call(Method::POST, "/v1/scheduler/resume", None).await
    }

    /// Runs a job now, beside its schedule; the answer is the run.
    pub async fn run(&self, id: &str) -> Result<Value, ClientError> {
        self.call(Method::POST, &format!("{}/run", job_path(id)), None).await
    }

    /// One page of the ledger; `query` as in `job=ID&state=failed&limit=10`.
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
        self.call_within(Method::GET, &path, None, CALL_TIMEOUT + Duration::from_secs(seconds))
            .await
    }

    /// Asks a run to end; the answer is the run as it is then.
    pub async fn cancel(&self, id: &str, reason: Option<&str>) -> Result<Value, ClientError> {
        let body = serde_json::json!({"reason": reason});
        self.call(Method::POST, &format!("{}/cancel", run_path(id)), Some(&body)).await
    }

    /// The output of a run: of its latest attempt, as far as it is written.
    pub async fn output(&self, id: &str) -> Result<Value, ClientError> {
        self.output_of(id, "").await
    }

    /// The same; `query` as in `attempt=1`.
    pub async fn output_of(&self, id: &str, query: &str) -> Result<Value, ClientError> {
        let path = path_with(&format!("{}/output", run_path(id)), query);
        self.call(Method::GET, &path, None).await
    }

    /// What the daemon is and does.
    pub async fn status(&self) -> Result<Value, ClientError> {
        self.call(Method::GET, "/v1/status", None).await
    }

    /// Whether jobs are fired and requests are kept.
    pub async fn ready(&self) -> Result<Value, ClientError> {
        self.call(Method::GET, "/readyz", None).await
    }

    /// The next times of a trigger.
    pub async fn preview(&self, request: &Value) -> Result<Value, ClientError> {
        self.call(Method::POST, "/v1/preview", Some(request)).await
    }

    /// Reads the configuration again; the answer tells what changed.
    pub async fn reload(&self) -> Result<Value, ClientError> {
        self.call(Method::POST, "/v1/scheduler/reload", None).await
    }

    /// The same, also where the file declares no jobs any more.
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

    /// Makes the filter of the daemon's log that of its start again.
    pub async fn reset_log_filter(&self) -> Result<Value, ClientError> {
        self.call(Method::DELETE, "/v1/log", None).await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        self.call_within(method, path, body, CALL_TIMEOUT).await
    }

    async fn call_within(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        limit: Duration,
    ) -> Result<Value, ClientError> {
        let exchange = self.exchange(method, path, body);
        tokio::time::timeout(limit, exchange)
            .await
            .unwrap_or_else(|_| Err(self.unreachable("no answer in time")))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        let (response, mut connection) = self.begin(method, path, body).await?;
        let status = response.status();
        let body = connection.during(read_body(response)).await;
        read_answer(status, &body.map_err(|error| ClientError::Unreadable(error.to_string()))?)
    }

    /// Asks, and returns when the answer begins.
    async fn begin(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(Response<Incoming>, ClientConnection), ClientError> {
        let stream = UnixStream::connect(&self.socket).await;
        let stream = stream.map_err(|error| self.not_connected(&error))?;
        let user = stream.peer_cred().map_err(|error| self.unreachable(error))?.uid();
        if self.users.as_ref().is_some_and(|users| !users.contains(&user)) {
            let why =
                format!("it runs as user {user}, neither as root nor as you, and was not chosen");
            return Err(self.unreachable(why));
        }
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.unreachable(error))?;
        let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "punctual")
            .header("content-type", "application/json")
            .body(Full::new(bytes))
            .map_err(|error| ClientError::Unreadable(error.to_string()))?;
        let mut connection = ClientConnection(Some(Box::pin(connection)));
        let response = connection.during(sender.send_request(request)).await;
        Ok((response.map_err(|error| self.unreachable(error))?, connection))
    }

    fn not_connected(&self, error: &std::io::Error) -> ClientError {
        if error.kind() != std::io::ErrorKind::PermissionDenied {
            return self.unreachable(error);
        }
        ClientError::Denied { socket: self.socket.clone(), advice: denied::advice(&self.socket) }
    }

    fn unreachable(&self, reason: impl std::fmt::Display) -> ClientError {
        let reason = format!("{reason}{}", self.elsewhere);
        ClientError::Unreachable { socket: self.socket.clone(), reason, help: self.help }
    }
}

async fn read_body(
    response: Response<Incoming>,
) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
    let body = Limited::new(response.into_body(), ANSWER_LIMIT_BYTES);
    body.collect().await.map(http_body_util::Collected::to_bytes)
}

fn read_answer(status: StatusCode, body: &[u8]) -> Result<Value, ClientError> {
    let value = if body.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(body).map_err(|error| ClientError::Unreadable(error.to_string()))?
    };
    if status.is_success() {
        return Ok(value);
    }
    let text = |key: &str| {
        value.pointer(&format!("/error/{key}")).and_then(Value::as_str).map(str::to_owned)
    };
    Err(ClientError::Refused {
        status: status.as_u16(),
        code: text("code").unwrap_or_else(|| status.as_str().to_owned()),
        message: text("message").unwrap_or_else(|| format!("refused with {status}")),
        field: text("field"),
    })
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

/// Encodes what may not stand in a path segment or a query value.
pub fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:@".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.extend(format!("{byte:02X}").chars());
        }
    }
    encoded
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
