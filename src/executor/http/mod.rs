//! Calls over HTTP. They need neither thread nor process: a task of the runtime sends, waits and reads.

pub(super) mod client;
mod request;

pub(super) use request::url;

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Response, StatusCode};
use serde_json::json;
use tokio::sync::Semaphore;

use super::Assignment;
use super::place;
use super::report::{Shared, failed};
use super::shortage::Shortage;
use crate::job::{HttpCall, Task};
use crate::output::Stream;
use crate::run::Outcome;
use crate::task::context::Context;
use client::{Target, Unsent, innermost, is_short, words};
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
    let attempt = || async {
        let Task::Http(call) = &*assignment.task else {
            return Ok(failed("it is no call over HTTP"));
        };
        let (assignment, context) = (&assignment, &context);
        Exchange { shared: &shared, call, assignment, context }.run().await
    };
    place::execute(&shared, (&assignment, &context), &places, attempt).await;
}

/// How far a call has come.
enum Stage {
    /// Its secrets are read.
    Prepares,
    /// It waits for the head of the answer.
    Asks(Target),
    /// It reads the body of an answer with this status.
    Listens(Target, StatusCode),
}

impl Stage {
    /// What is said when the time is over.
    fn too_slow(&self, limit: Duration) -> String {
        let limit = words(limit);
        match self {
            Self::Prepares => format!("the secrets of the call could not be read within {limit}"),
            Self::Asks(target) => format!("{} did not answer within {limit}", target.name()),
            Self::Listens(target, _) => {
                format!("{} did not send its whole answer within {limit}", target.name())
            }
        }
    }

    fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Listens(_, status) => Some(*status),
            Self::Prepares | Self::Asks(_) => None,
        }
    }
}

/// A call and its answer.
struct Exchange<'a> {
    shared: &'a Arc<Shared>,
    call: &'a HttpCall,
    assignment: &'a Assignment,
    context: &'a Arc<Context>,
}

impl Exchange<'_> {
    /// Calls, within the call's time limit.
    async fn run(&self) -> Result<Outcome, Shortage> {
        let limit = self.call.timeout();
        let mut stage = Stage::Prepares;
        let ended = tokio::time::timeout(limit, self.exchange(&mut stage)).await;
        let in_time = match ended {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(Unsent::Shortage(shortage))) => return Err(shortage),
            Ok(Err(Unsent::Failed(error))) => Err(error),
            Err(_) => Err(stage.too_slow(limit)),
        };
        // Where there was a status, it says more than how the answer ended.
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

    /// Calls, and takes the answer; how many bytes its body had, as far as it was read.
    async fn exchange(&self, stage: &mut Stage) -> Result<usize, Unsent> {
        let Prepared { client, request, target, way } = self.prepare().await?;
        *stage = Stage::Asks(target.clone());
        let response = client.execute(request).await;
        let response = response.map_err(|error| {
            let why = target.failure(&error, way);
            if is_short(&error) { Unsent::Shortage(Shortage(why)) } else { Unsent::Failed(why) }
        })?;
        *stage = Stage::Listens(target.clone(), response.status());
        self.take(response).await.map_err(|error| {
            let why = innermost(&error);
            Unsent::Failed(format!("{} broke off its answer: {why}", target.name()))
        })
    }

    /// Builds the request where it may block, and hides what it found.
    async fn prepare(&self) -> Result<Prepared, Unsent> {
        let (clients, assignment) = (self.shared.clients.clone(), self.assignment.clone());
        let call = self.call.clone();
        let preparing = move || {
            let mut found = Vec::new();
            let prepared = prepare(&call, &assignment, &clients, &mut found);
            (prepared, found)
        };
        let (prepared, found) = self.shared.clients.reading.run(preparing).await?;
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

    /// Takes an answer into the output; how many bytes of its body were read.
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
