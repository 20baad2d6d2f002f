//! The API as a server: what it allows its clients.

use std::time::Duration;

use tokio::net::TcpListener;

use super::{Shared, router};
use crate::client::Client;
use crate::server::{self, Limits};
use crate::toutiao::Toutiao;

/// Clients are strangers here: they get little time for the head of a request.
const LIMITS: Limits =
    Limits { connections: 512, head: Duration::from_secs(5), drain: Duration::from_secs(10) };

/// Answers requests until the shutdown, and then those that have begun.
pub async fn serve(
    listener: TcpListener,
    toutiao: Toutiao,
    client: Client,
    shutdown: impl Future<Output = ()>,
) {
    server::serve(listener, router(Shared { toutiao, client }), LIMITS, shutdown).await;
}
