//! Bodies of requests and answers. What a handler leaves of a request's body is read and discarded before the answer is
//! sent: many clients send the whole body before they read, and would otherwise never see the answer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::sync::oneshot;

use super::slots::ConnectionSlot;

/// Maximum bytes of a body that are read and discarded.
const DISCARDED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Maximum time for which a body is read and discarded.
const DISCARD_LIMIT: Duration = Duration::from_secs(10);

/// The body of a request while a handler has it. The part that the handler does not read goes to [`UnreadBody`].
#[derive(Debug)]
pub(super) struct LentBody {
    /// `None` once the body has been read to its end.
    body: Option<Incoming>,
    unread: Option<oneshot::Sender<Incoming>>,
    slot: Arc<ConnectionSlot>,
}

/// Receives what a handler left unread of a [`LentBody`].
pub(super) struct UnreadBody(oneshot::Receiver<Incoming>);

impl LentBody {
    pub(super) fn new(body: Incoming, slot: Arc<ConnectionSlot>) -> (Self, UnreadBody) {
        let (unread, receiver) = oneshot::channel();
        (Self { body: Some(body), unread: Some(unread), slot }, UnreadBody(receiver))
    }
}

impl HttpBody for LentBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(context));
        if self.is_end_stream() || !matches!(frame, Some(Ok(_))) {
            self.body = None;
            self.slot.set_busy();
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

impl Drop for LentBody {
    fn drop(&mut self) {
        if let Some((body, unread)) = self.body.take().zip(self.unread.take()) {
            drop(unread.send(body));
        }
    }
}

impl UnreadBody {
    /// Reads and discards the rest of the body, if `may_read`. Returns false if something is left, because the rest is too
    /// large or takes too long: the connection cannot be used for another request then.
    pub(super) async fn discard(mut self, may_read: bool) -> bool {
        let Ok(body) = self.0.try_recv() else { return true };
        if !may_read {
            return false;
        }
        tokio::time::timeout(DISCARD_LIMIT, read_to_end(body)).await.unwrap_or(false)
    }
}

async fn read_to_end(mut body: Incoming) -> bool {
    let mut bytes = 0_usize;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        bytes = bytes.saturating_add(frame.data_ref().map_or(0, Bytes::len));
        if bytes > DISCARDED_BYTES_MAX {
            return false;
        }
    }
    true
}

/// The body of an answer whose length is not known in advance, such as a followed output. Its connection counts as busy
/// until the body is dropped.
pub(super) fn streamed(body: Body, slot: Arc<ConnectionSlot>) -> Body {
    let busy = BusyUntilDrop(slot);
    Body::new(body.map_frame(move |frame| {
        let _moved = &busy;
        frame
    }))
}

struct BusyUntilDrop(Arc<ConnectionSlot>);

impl Drop for BusyUntilDrop {
    fn drop(&mut self) {
        self.0.set_idle();
    }
}
