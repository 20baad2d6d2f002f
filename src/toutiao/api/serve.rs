//! The loop that accepts connections: bounded in number, and none may be held by half a request.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Shared, router};
use crate::client::Client;
use crate::toutiao::Toutiao;

/// Connections at a time; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 512;

/// How long the head of a request may take to arrive, and a connection may wait for its next one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long requests may take to end after the shutdown began.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause after a failed accept: descriptors that ran out come back when connections close.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers requests until the shutdown, and then those that have begun.
pub async fn serve(
    listener: TcpListener,
    toutiao: Toutiao,
    client: Client,
    shutdown: impl Future<Output = ()>,
) {
    let service = TowerToHyperService::new(router(Shared { toutiao, client }));
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    let stop = CancellationToken::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = accept(&listener, &permits) => accepted,
        };
        match accepted {
            Ok((stream, permit)) => {
                drop(connections.spawn(converse(stream, service.clone(), stop.clone(), permit)));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    stop.cancel();
    connections.close();
    connections.wait().await;
}

// The permit comes first, so that a connection is not taken before it can be served.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

async fn converse(
    stream: TcpStream,
    service: TowerToHyperService<Router>,
    stop: CancellationToken,
    _permit: OwnedSemaphorePermit,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(DRAIN_TIMEOUT, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
}
