//! The API as a server: what it allows its clients.

use std::time::Duration;

use tokio::net::TcpListener;

use super::response::ToutiaoApiError;
use super::{ApiState, router};
use crate::client::Client;
use crate::server::origin::Hosts;
use crate::server::{self, Limits};
use crate::toutiao::Toutiao;

/// Anyone may be a client here: each gets little time for every part of a request.
const LIMITS: Limits = Limits {
    connections: 512,
    reserve: 64,
    per_user: 512,
    head: Duration::from_secs(5),
    write: Duration::from_secs(10),
    drain: Duration::from_secs(10),
};

/// Answers requests until the shutdown, and then those that have begun.
pub async fn serve(
    listener: TcpListener,
    toutiao: Toutiao,
    client: Client,
    shutdown: impl Future<Output = ()>,
) {
    let address = match listener.local_addr() {
        Ok(address) => address,
        Err(error) => return tracing::error!(%error, "the toutiao API has no address"),
    };
    let hosts = Hosts::new(address, toutiao.settings().host_names());
    let router = router(ApiState { toutiao, client }, hosts);
    let error_body = |_, message: &str| ToutiaoApiError::body(message);
    server::serve(listener, router, LIMITS, error_body, shutdown).await;
}
