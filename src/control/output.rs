//! What a run has written: all at once, or line by line while it is written.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::Api;
use super::error::ApiError;
use super::request::{OfRun, Parameters};
use super::unix::Peer;
use crate::clock::rfc3339;
use crate::history::{Following, History, Told};
use crate::invalid::Invalid;
use crate::output::Line;
use crate::run::Run;

/// One JSON object a line.
const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OutputParameters {
    attempt: Option<u32>,
    follow: Option<String>,
}

impl OutputParameters {
    /// `?follow` alone says yes.
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
    Extension(peer): Extension<Peer>,
    OfRun(id): OfRun,
    Parameters(given): Parameters<OutputParameters>,
) -> Result<Response, ApiError> {
    let follows = given.follows()?;
    let run = api.history.run(&id.0).await?.ok_or_else(|| super::runs::unknown(&id.0))?;
    if given.attempt.is_some_and(|attempt| !(1..=run.attempt).contains(&attempt)) {
        let message = format!("must be between 1 and {}, the attempt that it is in", run.attempt);
        return Err(Invalid::new("attempt", message).into());
    }
    if follows {
        let following = api.history.follow(&run, given.attempt);
        let following = following.map_err(|error| ApiError::unavailable(error.to_string()))?;
        let body = Body::new(Lines::new(following, peer, api.closing));
        return Ok(([(header::CONTENT_TYPE, NDJSON)], body).into_response());
    }
    Ok(Json(so_far(&api.history, &run, given.attempt.unwrap_or(run.attempt)).await?)
        .into_response())
}

async fn so_far(history: &History, run: &Run, attempt: u32) -> Result<Value, ApiError> {
    let output = history.output(&run.id, attempt).await?;
    let lines: Vec<Value> = output.lines().map(|line| value(&line)).collect();
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

fn value(line: &Line) -> Value {
    let mut value = json!({"at": rfc3339(line.at), "stream": line.stream, "text": line.text});
    if let (true, Some(fields)) = (line.is_open, value.as_object_mut()) {
        fields.insert("open".to_owned(), true.into());
    }
    value
}

/// What a follower is told, as lines.
fn words(told: &Told) -> Bytes {
    let values = match told {
        Told::Attempt(number) => vec![json!({"attempt": number})],
        Told::Missed(lines) => vec![json!({"missed": lines})],
        Told::Lines(lines) => lines.iter().map(value).collect(),
        Told::End(run) => vec![json!({"state": run.state.word(), "attempt": run.attempt})],
    };
    let mut text = String::new();
    for value in values {
        text.push_str(&value.to_string());
        text.push('\n');
    }
    text.into()
}

/// The body of an answer that goes on for as long as the run does. The next piece is only looked for when the last one
/// has been taken, so a slow reader costs no memory; and with the connection all of it goes at once.
struct Lines {
    telling: Pin<Box<dyn Future<Output = Option<Piece>> + Send>>,
}

/// What is told next, and who goes on to tell.
type Piece = (Bytes, Conversation);

/// An answer that follows a run: what it reads, its client, and how long it goes on.
struct Conversation {
    following: Following,
    peer: Peer,
    closing: CancellationToken,
}

impl Lines {
    fn new(following: Following, peer: Peer, closing: CancellationToken) -> Self {
        Self { telling: Box::pin(Conversation { following, peer, closing }.next()) }
    }
}

impl Conversation {
    async fn next(mut self) -> Option<Piece> {
        let told = tokio::select! {
            told = self.following.next() => told,
            () = self.peer.gone() => return None,
            () = self.closing.cancelled() => return None,
        };
        match told {
            Ok(told) => Some((words(&told?), self)),
            // The client sees that the end is missing.
            Err(error) => {
                tracing::debug!(%error, "a run cannot be followed any more");
                None
            }
        }
    }
}

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let told = std::task::ready!(self.telling.as_mut().poll(context));
        Poll::Ready(told.map(|(bytes, conversation)| {
            self.telling = Box::pin(conversation.next());
            Ok(Frame::data(bytes))
        }))
    }
}
