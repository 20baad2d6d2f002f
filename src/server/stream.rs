//! The byte stream below hyper's HTTP/1.1. It limits how long a write may make no progress, and it replaces the refusals
//! that hyper sends by itself, which have no body, by ones with the body that the API documents.

use std::io::{Error, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::StatusCode;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Makes the body of a refusal from its status and message, in the format of the API.
pub type ErrorBody = fn(StatusCode, &str) -> Value;

/// Statuses that hyper sends by itself, for a request whose head it cannot parse.
const HYPER_STATUSES: [StatusCode; 3] = [
    StatusCode::BAD_REQUEST,
    StatusCode::URI_TOO_LONG,
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
];

/// A complete response that refuses a request and closes the connection.
pub(super) fn refusal(error_body: ErrorBody, status: StatusCode) -> Vec<u8> {
    let message = match status {
        StatusCode::URI_TOO_LONG => "the path and the query are too long",
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "the headers are too large",
        StatusCode::SERVICE_UNAVAILABLE => "all connections are in use",
        _ => "the request is not valid HTTP/1.1",
    };
    let body = error_body(status, message).to_string();
    let retry = if status == StatusCode::SERVICE_UNAVAILABLE { "retry-after: 1\r\n" } else { "" };
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{retry}connection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

/// The status of a response that hyper has written by itself: only those have no body.
fn hyper_status(head: &[u8]) -> Option<StatusCode> {
    let status = StatusCode::from_bytes(head.strip_prefix(b"HTTP/1.")?.get(2..5)?).ok()?;
    let is_empty = || head.windows(19).any(|part| part == b"content-length: 0\r\n");
    (HYPER_STATUSES.contains(&status) && is_empty()).then_some(status)
}

/// A client's connection with a time limit for writing.
#[derive(Debug)]
pub(super) struct ClientStream<S> {
    inner: S,
    /// Maximum time that a write may make no progress.
    limit: Duration,
    error_body: ErrorBody,
    /// The timer of a write that makes no progress.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Written in place of hyper's own refusal, after which hyper writes nothing more.
    refusal: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ClientStream<S> {
    pub(super) fn new(inner: S, limit: Duration, error_body: ErrorBody) -> Self {
        Self { inner, limit, error_body, stalled: None, refusal: Vec::new() }
    }

    fn within_limit<T>(
        &mut self,
        context: &mut Context<'_>,
        done: Poll<std::io::Result<T>>,
    ) -> Poll<std::io::Result<T>> {
        if done.is_ready() {
            self.stalled = None;
            return done;
        }
        let limit = self.limit;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the client does not read its answer")))
    }

    fn poll_refusal(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        while !self.refusal.is_empty() {
            let written = Pin::new(&mut self.inner).poll_write(context, &self.refusal);
            let written = ready!(self.within_limit(context, written))?;
            if written == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            self.refusal.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        if let Some(status) = hyper_status(bytes) {
            self.refusal = refusal(self.error_body, status);
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.within_limit(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        if let [only] = slices {
            return self.poll_write(context, only);
        }
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.within_limit(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        ready!(self.poll_refusal(context))?;
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        ready!(self.poll_refusal(context))?;
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_write_without_progress_fails_and_one_with_progress_does_not() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let error_body: ErrorBody = |_, message| message.into();
        let (near, mut far) = tokio::io::duplex(100);
        let mut stream = ClientStream::new(near, Duration::from_millis(50), error_body);
        // A client that reads at all gets everything, however long that takes.
        for _ in 0..20 {
            let mut bytes = [0; 10];
            let (written, read) =
                tokio::join!(stream.write_all(&[0; 10]), far.read_exact(&mut bytes));
            written.unwrap();
            read.unwrap();
        }
        let error = stream.write_all(&[0; 300]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn only_a_refusal_without_a_body_is_one_of_hyper() {
        let own = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        assert_eq!(hyper_status(own), Some(StatusCode::BAD_REQUEST));
        for other in [
            &b"HTTP/1.1 400 Bad Request\r\ncontent-length: 10\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 4",
            b"content-length: 0\r\n",
        ] {
            assert_eq!(hyper_status(other), None, "{}", String::from_utf8_lossy(other));
        }
    }
}
