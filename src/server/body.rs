//! Bodies of requests and answers, watched by the server: what a handler leaves of a request's body is read and
//! dropped before the answer, so that clients which send all of it first get to see the answer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::sync::oneshot;

use super::places::Place;

/// Bytes of a body that are read and dropped at most.
const DROPPED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long a body is read and dropped at most.
const DROPPED_WITHIN: Duration = Duration::from_secs(10);

/// The body of a request, lent to a handler. What the handler does not read comes back.
#[derive(Debug)]
pub(super) struct Lent {
    /// None once it has been read to its end.
    body: Option<Incoming>,
    back: Option<oneshot::Sender<Incoming>>,
    place: Arc<Place>,
}

/// The way back of a body.
pub(super) struct Rest(oneshot::Receiver<Incoming>);

impl Lent {
    pub(super) fn new(body: Incoming, place: Arc<Place>) -> (Self, Rest) {
        let (back, rest) = oneshot::channel();
        (Self { body: Some(body), back: Some(back), place }, Rest(rest))
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(context);
        let is_over = self.is_end_stream();
        let frame = ready!(frame);
        if is_over || !matches!(frame, Some(Ok(_))) {
            self.body = None;
            self.place.set_busy();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some((body, back)) = self.body.take().zip(self.back.take()) {
            drop(back.send(body));
        }
    }
}

impl Rest {
    /// Reads and drops what was left, unless it `is_left` where it is. False if something is still there, because it is
    /// too much or takes too long: the connection cannot be used again.
    pub(super) async fn drop_it(mut self, is_left: bool) -> bool {
        let Ok(body) = self.0.try_recv() else { return true };
        if is_left {
            return false;
        }
        tokio::time::timeout(DROPPED_WITHIN, read_and_drop(body)).await.unwrap_or(false)
    }
}

async fn read_and_drop(mut body: Incoming) -> bool {
    let mut bytes = 0_usize;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        bytes = bytes.saturating_add(frame.data_ref().map_or(0, Bytes::len));
        if bytes > DROPPED_BYTES_MAX {
            return false;
        }
    }
    true
}

/// The body of an answer that goes on for as long as there is news. Its connection is busy until it ends.
#[derive(Debug)]
pub(super) struct Following {
    body: Body,
    place: Arc<Place>,
}

impl Following {
    pub(super) fn new(body: Body, place: Arc<Place>) -> Self {
        Self { body, place }
    }
}

impl HttpBody for Following {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.place.set_idle();
    }
}
