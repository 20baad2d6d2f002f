//! Executes HTTP calls, as tasks of the async runtime: prepares the [`request`], sends it with a shared [`client`], and
//! writes the response to the run's output.

pub(super) mod client;
mod request;

pub(super) use request::url;

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Response, StatusCode};
use serde_json::json;
use tokio::sync::Semaphore;

use super::assignment::Assignment;
use super::run::{ExecutorServices, failed, failure};
use super::shortage::Shortage;
use crate::job::HttpCall;
use crate::output::Stream;
use crate::run::Outcome;
use crate::task::context::Context;
use client::{SendError, TargetName, innermost, is_resource_shortage, words};
use request::{PreparedRequest, prepare};

/// Bytes of a response's head that the output keeps.
const HEAD_BYTES: usize = 16 * 1024;
/// Bytes of a response's body that the output keeps.
const BODY_BYTES: usize = 64 * 1024;
/// Bytes of a body that are read. A body is read beyond what is kept so that the connection can be reused, but not
/// without end.
const READ_BYTES: usize = 1024 * 1024;

/// Executes a call as soon as a permit is free, and reports how it ended.
pub(super) async fn execute(
    services: Arc<ExecutorServices>,
    call: Arc<HttpCall>,
    assignment: Assignment,
    context: Arc<Context>,
    permits: Arc<Semaphore>,
) {
    let attempt = || async {
        let (services, call) = (&services, &*call);
        Exchange { services, call, assignment: &assignment, context: &context }.run().await
    };
    services.execute_async(&assignment, &context, &permits, attempt).await;
}

/// How far a call has got.
enum CallStage {
    /// Its secrets are being read.
    Preparing,
    /// It waits for the head of the response.
    Waiting(TargetName),
    /// It reads the body of a response with this status.
    Reading(TargetName, StatusCode),
}

impl CallStage {
    /// The error if the call's time limit is over at this stage.
    fn timeout_error(&self, limit: Duration) -> String {
        let limit = words(limit);
        match self {
            Self::Preparing => format!("the secrets of the call could not be read within {limit}"),
            Self::Waiting(target) => format!("{} did not answer within {limit}", target.name()),
            Self::Reading(target, _) => {
                format!("{} did not send its whole answer within {limit}", target.name())
            }
        }
    }

    fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Reading(_, status) => Some(*status),
            Self::Preparing | Self::Waiting(_) => None,
        }
    }
}

/// A call in progress.
struct Exchange<'a> {
    services: &'a Arc<ExecutorServices>,
    call: &'a HttpCall,
    assignment: &'a Assignment,
    context: &'a Arc<Context>,
}

impl Exchange<'_> {
    /// Sends the request and reads the response, within the call's time limit.
    async fn run(&self) -> Result<Outcome, Shortage> {
        let limit = self.call.timeout();
        let mut stage = CallStage::Preparing;
        let ended = tokio::time::timeout(limit, self.exchange(&mut stage)).await;
        let in_time = match ended {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(SendError::Shortage(shortage))) => return Err(shortage),
            Ok(Err(SendError::Failed(error))) => Err(error),
            Err(_) => Err(stage.timeout_error(limit)),
        };
        // An unexpected status says more than how the response ended.
        Ok(match (in_time, stage.status().and_then(|status| self.unexpected(status))) {
            (_, Some(outcome)) => outcome,
            (Ok(bytes), None) => {
                let status = stage.status().map(|status| status.as_u16());
                let result = json!({"status": status, "bytes": bytes});
                Outcome::Succeeded { result: Some(result), exit_code: None }
            }
            (Err(error), None) => failed(error),
        })
    }

    /// Sends the request and reads the response. The answer is the number of body bytes that were read.
    async fn exchange(&self, stage: &mut CallStage) -> Result<usize, SendError> {
        let PreparedRequest { client, request, target, options } = self.prepare().await?;
        *stage = CallStage::Waiting(target.clone());
        let response = client.execute(request).await;
        let response = response.map_err(|error| {
            let why = target.failure(&error, options);
            if is_resource_shortage(&error) {
                SendError::Shortage(Shortage(why))
            } else {
                SendError::Failed(why)
            }
        })?;
        *stage = CallStage::Reading(target.clone(), response.status());
        self.read_response(response).await.map_err(|error| {
            let why = innermost(&error);
            SendError::Failed(format!(
                "{} ended the connection before its answer was complete: {why}",
                target.name()
            ))
        })
    }

    /// Builds the request on a thread that may block, and masks the secrets that were read.
    async fn prepare(&self) -> Result<PreparedRequest, SendError> {
        let (clients, assignment) = (self.services.clients.clone(), self.assignment.clone());
        let call = self.call.clone();
        let preparing = move || {
            let mut secrets = Vec::new();
            let prepared = prepare(&call, &assignment, &clients, &mut secrets);
            (prepared, secrets)
        };
        let (prepared, secrets) = self.services.clients.blocking.run(preparing).await?;
        self.context.log.hide(secrets);
        prepared
    }

    fn unexpected(&self, status: StatusCode) -> Option<Outcome> {
        if self.call.expects(status.as_u16()) {
            return None;
        }
        let error =
            format!("answered {} (expected {})", describe_status(status), self.call.expected());
        Some(failure(error, self.call.is_permanent(status.as_u16())))
    }

    /// Writes a response to the output. The answer is the number of body bytes that were read.
    async fn read_response(&self, mut response: Response) -> reqwest::Result<usize> {
        self.write(head(&response).as_bytes());
        let (mut bytes, mut ends_line) = (0, true);
        while let Some(chunk) = response.chunk().await? {
            let kept = chunk.len().min(BODY_BYTES.saturating_sub(bytes));
            let kept = chunk.get(..kept).unwrap_or_default();
            ends_line = kept.last().map_or(ends_line, |last| *last == b'\n');
            self.write(kept);
            bytes = bytes.saturating_add(chunk.len());
            if bytes > READ_BYTES {
                break;
            }
        }
        if bytes <= BODY_BYTES {
            return Ok(bytes);
        }
        if !ends_line {
            self.write(b"\n");
        }
        let remark = if bytes > READ_BYTES {
            format!(
                "… of the body {BODY_BYTES} bytes are kept; what follows {READ_BYTES} bytes was not read …\n"
            )
        } else {
            format!("… of the {bytes} bytes of the body {BODY_BYTES} are kept …\n")
        };
        self.write(remark.as_bytes());
        Ok(bytes)
    }

    fn write(&self, bytes: &[u8]) {
        self.context.log.write(self.services.clock.now(), Stream::Stdout, bytes);
    }
}

/// The status line, the headers, and an empty line.
fn head(response: &Response) -> String {
    let mut head = format!("{:?} {}\n", response.version(), describe_status(response.status()));
    for (name, value) in response.headers() {
        let line = format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()));
        if head.len() + line.len() > HEAD_BYTES {
            head.push_str("… further headers are not kept …\n");
            break;
        }
        head.push_str(&line);
    }
    head.push('\n');
    head
}

/// `404 Not Found`.
fn describe_status(status: StatusCode) -> String {
    let words = status.canonical_reason().unwrap_or_default();
    format!("{} {words}", status.as_str()).trim_end().to_owned()
}
