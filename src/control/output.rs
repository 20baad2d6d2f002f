//! The output of a run: all of it at once, or line by line while it is written.

use std::convert::Infallible;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::Api;
use super::error::ApiError;
use super::listener::SocketPeer;
use super::request::{QueryParams, RunPath};
use crate::clock::rfc3339;
use crate::history::{FollowEvent, History, RunFollower};
use crate::invalid::Invalid;
use crate::output::Line;
use crate::run::Run;

/// One JSON object per line.
const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OutputQuery {
    attempt: Option<u32>,
    follow: Option<String>,
}

impl OutputQuery {
    /// `?follow` without a value means true.
    fn follows(&self) -> Result<bool, Invalid> {
        match self.follow.as_deref() {
            None | Some("false") => Ok(false),
            Some("" | "true") => Ok(true),
            Some(_) => Err(Invalid::new("follow", "must be true or false")),
        }
    }
}

pub(super) async fn output(
    State(api): State<Api>,
    Extension(peer): Extension<SocketPeer>,
    RunPath(id): RunPath,
    QueryParams(given): QueryParams<OutputQuery>,
) -> Result<Response, ApiError> {
    let follows = given.follows()?;
    let run = api.history.run(&id.0).await?.ok_or_else(|| ApiError::no_run(&id.0))?;
    if given.attempt.is_some_and(|attempt| !(1..=run.attempt).contains(&attempt)) {
        let message = format!("must be between 1 and {}, the attempt that it is in", run.attempt);
        return Err(Invalid::new("attempt", message).into());
    }
    if follows {
        let follower = api.history.follow(&run, given.attempt);
        let follower = follower.map_err(|error| ApiError::unavailable(error.to_string()))?;
        let session = FollowSession { follower, peer, closing: api.closing };
        return Ok(([(header::CONTENT_TYPE, NDJSON)], session.into_body()).into_response());
    }
    Ok(Json(so_far(&api.history, &run, given.attempt.unwrap_or(run.attempt)).await?)
        .into_response())
}

async fn so_far(history: &History, run: &Run, attempt: u32) -> Result<Value, ApiError> {
    let output = history.output(&run.id, attempt).await?;
    let lines: Vec<Value> = output.lines().map(|line| line_value(&line)).collect();
    Ok(json!({
        "run_id": &*run.id.0,
        "job_id": run.job_id,
        "state": run.state.word(),
        "attempt": attempt,
        "output": output.text(),
        "lines": lines,
        "cut": output.cut,
        "cut_after": output.head.len(),
        "bytes": output.bytes,
    }))
}

fn line_value(line: &Line) -> Value {
    let mut value = json!({"at": rfc3339(line.at), "stream": line.stream, "text": line.text});
    if let (true, Some(fields)) = (line.is_open, value.as_object_mut()) {
        fields.insert("open".to_owned(), true.into());
    }
    value
}

/// An event as lines of the answer.
fn event_lines(event: &FollowEvent) -> Bytes {
    let values = match event {
        FollowEvent::Attempt(number) => vec![json!({"attempt": number})],
        FollowEvent::Missed(lines) => vec![json!({"missed": lines})],
        FollowEvent::Lines(lines) => lines.iter().map(line_value).collect(),
        FollowEvent::End(run) => vec![json!({"state": run.state.word(), "attempt": run.attempt})],
    };
    let mut text = String::new();
    for value in values {
        text.push_str(&value.to_string());
        text.push('\n');
    }
    text.into()
}

/// An answer that follows a run. The next event is awaited only when the client has taken the last one, so a slow client
/// costs no memory; and when the connection closes, all of this is dropped at once.
struct FollowSession {
    follower: RunFollower,
    peer: SocketPeer,
    /// Cancelled when the daemon stops.
    closing: CancellationToken,
}

impl FollowSession {
    fn into_body(self) -> Body {
        Body::from_stream(stream::unfold(self, Self::next))
    }

    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        let event = tokio::select! {
            event = self.follower.next() => event,
            () = self.peer.gone() => return None,
            () = self.closing.cancelled() => return None,
        };
        match event {
            Ok(event) => Some((Ok(event_lines(&event?)), self)),
            // The client sees that the last line does not say how the run ended.
            Err(error) => {
                tracing::debug!(%error, "a run cannot be followed any more");
                None
            }
        }
    }
}
