//! Calls over HTTP. They need neither thread nor process: a task of the runtime sends, waits and reads.

pub(super) mod client;
mod request;

pub(super) use request::url;

use std::sync::Arc;

use reqwest::{Response, StatusCode};
use serde_json::json;
use tokio::sync::Semaphore;

use super::Assignment;
use super::report::{Shared, failed};
use crate::job::{Http, Task};
use crate::output::Stream;
use crate::run::Outcome;
use crate::task::context::Context;
use client::{innermost, words};
use request::{Prepared, prepare};

/// Bytes of an answer's head that the output gets.
const HEAD_BYTES: usize = 16 * 1024;
/// Bytes of an answer's body that the output gets.
const BODY_BYTES: usize = 64 * 1024;
/// Bytes of a body that are read at all, so that the connection can be used again; beyond that it is given up.
const READ_BYTES: usize = 1024 * 1024;

/// Executes a call as soon as there is a place for it, and reports how it ended.
pub(super) async fn execute(
    shared: Arc<Shared>,
    assignment: Assignment,
    context: Arc<Context>,
    places: Arc<Semaphore>,
) {
    let mut started_at = shared.clock.now();
    let task = Arc::clone(&assignment.task);
    let outcome = match (&*task, context.cancellation.ending()) {
        (_, Some(ending)) => ending.into(),
        (Task::Http(call), None) => {
            let exchange =
                Exchange { shared: &shared, call, assignment: &assignment, context: &context };
            let calling = async {
                // Nobody closes it.
                let _place = places.acquire().await;
                started_at = shared.clock.now();
                let _limit = shared.limit(assignment.timeout, &context);
                exchange.run().await
            };
            tokio::select! {
                biased;
                outcome = calling => outcome,
                ending = context.cancellation.cancelled() => ending.into(),
            }
        }
        (Task::Builtin { .. } | Task::Command(_) | Task::Unreadable(_), None) => {
            failed("it is no call over HTTP")
        }
    };
    shared.report(&assignment, &context, started_at, outcome.into()).await;
}

/// A call and its answer.
struct Exchange<'a> {
    shared: &'a Arc<Shared>,
    call: &'a Http,
    assignment: &'a Assignment,
    context: &'a Context,
}

impl Exchange<'_> {
    /// Calls, within the call's time limit.
    async fn run(&self) -> Outcome {
        let Prepared { client, request, target, way } = match self.prepare().await {
            Ok(prepared) => prepared,
            Err(error) => return failed(error),
        };
        let limit = self.call.timeout();
        let mut status = None;
        let answering = async {
            let response = client.execute(request).await;
            let response = response.map_err(|error| target.failure(&error, way))?;
            status = Some(response.status());
            let read = self.take(response).await;
            read.map_err(|error| {
                format!("{} broke off its answer: {}", target.name(), innermost(&error))
            })
        };
        let answered = tokio::time::timeout(limit, answering).await;
        let unexpected = status.and_then(|status| self.unexpected(status));
        match (answered, unexpected) {
            // The status says more than how the answer ended.
            (_, Some(outcome)) => outcome,
            (Ok(Ok(bytes)), None) => {
                let status = status.map(|status| status.as_u16());
                let result = json!({"status": status, "bytes": bytes});
                Outcome::Succeeded { result: Some(result), exit_code: None }
            }
            (Ok(Err(error)), None) => failed(error),
            (Err(_), None) => {
                let what = if status.is_some() { "send its whole answer" } else { "answer" };
                failed(format!("{} did not {what} within {}", target.name(), words(limit)))
            }
        }
    }

    /// Builds the request where it may block, and hides what it found.
    async fn prepare(&self) -> Result<Prepared, String> {
        let (shared, assignment) = (Arc::clone(self.shared), self.assignment.clone());
        let call = self.call.clone();
        let preparing = self.shared.runtime.spawn_blocking(move || {
            let mut found = Vec::new();
            let prepared = prepare(&call, &assignment, &shared.clients, &mut found);
            (prepared, found)
        });
        let prepared = preparing.await;
        let (prepared, found) =
            prepared.map_err(|error| format!("the call could not be prepared: {error}"))?;
        self.context.log.hide(found);
        prepared
    }

    fn unexpected(&self, status: StatusCode) -> Option<Outcome> {
        if self.call.expects(status.as_u16()) {
            return None;
        }
        Some(Outcome::Failed {
            error: format!("answered {} (expected {})", in_words(status), self.call.expected()),
            exit_code: None,
            signal: None,
            permanent: self.call.is_permanent(status.as_u16()),
        })
    }

    /// Takes an answer into the output; how many bytes its body had, as far as it was read.
    async fn take(&self, mut response: Response) -> reqwest::Result<usize> {
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
        self.context.log.write(self.shared.clock.now(), Stream::Stdout, bytes);
    }
}

/// The answer's first line, its headers, and an empty line.
fn head(response: &Response) -> String {
    let mut head = format!("{:?} {}\n", response.version(), in_words(response.status()));
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

/// A status with the words that it usually has.
fn in_words(status: StatusCode) -> String {
    let words = status.canonical_reason().unwrap_or_default();
    format!("{} {words}", status.as_str()).trim_end().to_owned()
}
