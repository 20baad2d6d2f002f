//! An HTTP server with limits, over any listener. The control socket and the application's API are served by it.
//!
//! The number of connections is bounded, and every wait for a client has a time limit. When places run out, the
//! connection that has been idle for longest is closed, so clients that only hold a connection lock nobody out.

mod body;
mod connection;
pub mod origin;
mod places;
mod stream;

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::StatusCode;
use rustix::process::{Resource, getrlimit};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use places::Places;

/// The largest part of the process's file descriptors that the connections of one server may use: one in three.
const DESCRIPTOR_SHARE: u64 = 3;

/// What a server allows its clients.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at the same time. When all are taken, the one that has been idle for longest is closed.
    pub connections: usize,
    /// Connections beyond these, for clients that come while all others are busy. Each serves one request. A quarter
    /// of them is kept for root and the daemon's own user.
    pub reserve: usize,
    /// Connections of one user other than root and the daemon's own, where the listener knows users.
    pub per_user: usize,
    /// How long the head of a request may take to arrive, and how long a connection may be idle.
    pub head: Duration,
    /// How long a client may go without reading any part of its answer.
    pub write: Duration,
    /// How long open requests may go on after the shutdown began.
    pub drain: Duration,
}

impl Limits {
    /// These limits, but never more connections than a share of the descriptors that the process may open.
    fn within_descriptors(self) -> Self {
        let Some(descriptors) = getrlimit(Resource::Nofile).current else { return self };
        let share = usize::try_from(descriptors / DESCRIPTOR_SHARE).unwrap_or(usize::MAX).max(1);
        let connections = self.connections.min(share);
        Self { connections, reserve: self.reserve.min(share / 4 + 1), ..self }
    }
}

/// How an API words the refusals that are sent before any route sees the request.
pub type Wording = fn(StatusCode, &str) -> Value;

/// A client, as far as its listener knows it.
pub trait Peer: Clone + Send + Sync + 'static {
    /// The user that the client runs as; none where the listener cannot know.
    fn user(&self) -> Option<u32>;
}

impl Peer for SocketAddr {
    fn user(&self) -> Option<u32> {
        None
    }
}

/// What all connections of a server share.
#[derive(Debug, Clone)]
struct Shared {
    router: Router,
    limits: Limits,
    wording: Wording,
}

/// Answers requests until `shutdown`, and then those that have begun.
///
/// A request finds its peer, as the listener has it, among its extensions.
pub async fn serve<L: Listener<Addr: Peer>>(
    mut listener: L,
    router: Router,
    (limits, wording): (Limits, Wording),
    shutdown: impl Future<Output = ()>,
) {
    let limits = limits.within_descriptors();
    let shared = Shared { router, limits, wording };
    let places = Places::new(limits);
    let connections = TaskTracker::new();
    let stop = CancellationToken::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let (mut stream, peer) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        let Some(place) = places.take(peer.user()) else {
            let busy = stream::refusal(wording, StatusCode::SERVICE_UNAVAILABLE);
            // The client's buffer is empty, so this does not wait; who has gone already misses nothing.
            drop(tokio::time::timeout(Duration::ZERO, stream.write_all(&busy)).await);
            continue;
        };
        connections.spawn(connection::serve(stream, peer, place, shared.clone(), stop.clone()));
    }
    stop.cancel();
    connections.close();
    connections.wait().await;
}
