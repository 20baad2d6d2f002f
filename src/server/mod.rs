//! An HTTP/1.1 server with limits, over any listener. It serves the control socket and the application's API.
//!
//! [`serve`] accepts connections. [`slots`] decides which ones stay open: their number is bounded, and when slots run
//! out, the connection that has been idle for longest is closed, so clients that only hold a connection lock nobody out.
//! [`connection`] runs the requests of one connection, one after the other. [`stream`] below it limits how long a client
//! may go without reading, and [`body`] lets every answer arrive by reading what the handler left of the request's body.
//! [`origin`] refuses requests that a foreign web page makes a browser send.
//!
//! Every wait for a client has a time limit.

mod body;
mod connection;
mod limits;
pub mod origin;
mod slots;
mod stream;

use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::StatusCode;
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use connection::ConnectionService;
use slots::ConnectionSlots;

pub use connection::PeerUser;
pub use limits::Limits;
pub use stream::ErrorBody;

/// Serves requests until `shutdown` resolves, then finishes the open ones within `limits.drain`.
///
/// A handler finds the client's address, as the listener reports it, among the extensions of the request. `error_body`
/// words the refusals that are sent before any route sees the request.
pub async fn serve<L: Listener<Addr: PeerUser>>(
    mut listener: L,
    router: Router,
    limits: Limits,
    error_body: ErrorBody,
    shutdown: impl Future<Output = ()>,
) {
    let limits = limits.within_descriptors();
    let service = ConnectionService { router, limits, error_body };
    let slots = ConnectionSlots::new(limits);
    let connections = TaskTracker::new();
    let stop = CancellationToken::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let (mut stream, peer) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        let Some(slot) = slots.take(peer.user()) else {
            let busy = stream::refusal(error_body, StatusCode::SERVICE_UNAVAILABLE);
            // The socket buffer of a new connection is empty, so one poll writes it. A client that has left misses nothing.
            drop(tokio::time::timeout(Duration::ZERO, stream.write_all(&busy)).await);
            continue;
        };
        connections.spawn(connection::serve(stream, peer, slot, service.clone(), stop.clone()));
    }
    stop.cancel();
    connections.close();
    connections.wait().await;
}
