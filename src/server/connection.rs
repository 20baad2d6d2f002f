//! One connection: its requests, one after the other, until the client or the server ends it.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;

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

use super::body::{Following, Lent};
use super::places::Place;
use super::stream::Stream;
use super::{Peer, Shared};

/// Bytes that are buffered of each direction of a connection. The head of a request has to fit in.
const BUFFER_BYTES: usize = 64 * 1024;

/// Serves a connection until it ends, or its place is given to another one.
pub(super) async fn serve<S, P>(
    stream: S,
    peer: P,
    place: Place,
    shared: Shared,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    P: Peer,
{
    let Shared { router, limits, wording } = shared;
    let place = Arc::new(place);
    let router = TowerToHyperService::new(router);
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        answer(request, router.clone(), Arc::clone(&place))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(BUFFER_BYTES)
        .keep_alive(!place.is_reserve())
        // A client may close its side once it has asked, and still wants its answer.
        .half_close(true)
        .serve_connection(TokioIo::new(Stream::new(stream, limits.write, wording)), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = place.closed() => Ok(()),
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(limits.drain, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
}

async fn answer(
    request: Request<Incoming>,
    router: TowerToHyperService<axum::Router>,
    place: Arc<Place>,
) -> Result<Response<Body>, Infallible> {
    let waits_to_send = request.headers().contains_key(EXPECT);
    let (head, body) = request.into_parts();
    let mut response = if body.is_end_stream() {
        place.set_busy();
        router.call(Request::from_parts(head, Body::new(body))).await?
    } else {
        let (body, rest) = Lent::new(body, Arc::clone(&place));
        let mut response = router.call(Request::from_parts(head, Body::new(body))).await?;
        // Who waits for "100 Continue" sends nothing after a refusal, and a body that was too slow stays so.
        let is_left = waits_to_send || response.status() == StatusCode::REQUEST_TIMEOUT;
        if !rest.drop_it(is_left).await {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    };
    if response.body().size_hint().exact().is_some() {
        place.set_idle();
    } else {
        response = response.map(|body| Body::new(Following::new(body, place)));
    }
    Ok(response)
}
