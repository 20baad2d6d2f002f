//! An HTTP server with limits, over any listener: bounded in connections, and none of them held
//! for ever by half a request. The control socket and the application's API are served by it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What a server allows.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at the same time; others wait to be accepted.
    pub connections: usize,
    /// How long the head of a request may take to arrive, and a connection may lie idle.
    pub head: Duration,
    /// How long open requests may go on after the shutdown began.
    pub drain: Duration,
}

/// Answers requests until `shutdown`, and then those that have begun.
pub async fn serve<L: Listener>(
    mut listener: L,
    router: Router,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let connections = TaskTracker::new();
    let stop = CancellationToken::new();
    let mut shutdown = pin!(shutdown);
    loop {
        // The place comes first, so that no connection is taken before it can be served.
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await.0, place)
        };
        let (stream, place) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = accepted => accepted,
        };
        let conversation = converse(stream, router.clone(), limits, stop.clone());
        connections.spawn(async move {
            conversation.await;
            drop(place);
        });
    }
    stop.cancel();
    connections.close();
    connections.wait().await;
}

async fn converse<S>(stream: S, router: Router, limits: Limits, stop: CancellationToken)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        // A client may close its side once it has asked, and still wants its answer.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(limits.drain, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
}
