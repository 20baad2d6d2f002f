//! Serves the requests of one connection, one after the other, until the client or the server closes it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, EXPECT, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::body::{LentBody, streamed};
use super::limits::Limits;
use super::slots::ConnectionSlot;
use super::stream::{ClientStream, ErrorBody};

/// Buffer size in bytes for each direction of a connection. The head of a request has to fit in.
const BUFFER_BYTES: usize = 64 * 1024;

/// The address of a client, which may tell its user.
pub trait PeerUser: Clone + Send + Sync + 'static {
    /// The user that the client runs as; `None` where the listener cannot know it.
    fn user(&self) -> Option<u32>;
}

impl PeerUser for SocketAddr {
    fn user(&self) -> Option<u32> {
        None
    }
}

/// What all connections of a server share.
#[derive(Debug, Clone)]
pub(super) struct ConnectionService {
    pub(super) router: Router,
    pub(super) limits: Limits,
    pub(super) error_body: ErrorBody,
}

/// Serves a connection until it ends, the server stops, or the slot is taken away in favour of another connection.
pub(super) async fn serve<S, P>(
    stream: S,
    peer: P,
    slot: ConnectionSlot,
    service: ConnectionService,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    P: PeerUser,
{
    let ConnectionService { router, limits, error_body } = service;
    let slot = Arc::new(slot);
    let router = TowerToHyperService::new(router);
    let handler = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        answer(request, router.clone(), Arc::clone(&slot))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(BUFFER_BYTES)
        .keep_alive(!slot.is_reserve())
        // A client may shut down its sending side after the request and still wait for the answer.
        .half_close(true)
        .serve_connection(TokioIo::new(ClientStream::new(stream, limits.write, error_body)), handler);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = slot.closed() => Ok(()),
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(limits.drain, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection failed");
    }
}

async fn answer(
    request: Request<Incoming>,
    router: TowerToHyperService<Router>,
    slot: Arc<ConnectionSlot>,
) -> Result<Response<Body>, Infallible> {
    let expects_continue = request.headers().contains_key(EXPECT);
    let (head, body) = request.into_parts();
    let mut response = if body.is_end_stream() {
        slot.set_busy();
        router.call(Request::from_parts(head, Body::new(body))).await?
    } else {
        let (body, unread) = LentBody::new(body, Arc::clone(&slot));
        let mut response = router.call(Request::from_parts(head, Body::new(body))).await?;
        // A client that waits for "100 Continue" sends no body after a refusal, and a body that was too slow stays slow.
        let may_read = !expects_continue && response.status() != StatusCode::REQUEST_TIMEOUT;
        if !unread.discard(may_read).await {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    };
    if response.body().size_hint().exact().is_some() {
        slot.set_idle();
    } else {
        response = response.map(|body| streamed(body, slot));
    }
    Ok(response)
}
