//! The routes that monitors ask, on a TCP address: `/metrics`, `/healthz` and `/readyz`. Prometheus and load balancers do
//! not speak HTTP over a Unix socket. Everybody who reaches the address may read them, and can change nothing.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::any;

use super::error::ApiError;
use super::gate::{Routes, forward};
use crate::server::Limits;
use crate::server::origin::Hosts;

const PATHS: [&str; 3] = ["/metrics", "/healthz", "/readyz"];

/// Monitors are few, and their requests are short.
pub const LIMITS: Limits = Limits {
    connections: 64,
    reserve: 8,
    per_user: 64,
    head: Duration::from_secs(10),
    write: Duration::from_secs(10),
    drain: Duration::from_secs(2),
};

#[derive(Debug, Clone)]
struct Monitoring {
    routes: Routes,
    /// The host names under which a browser may ask; none if everybody may read the metrics.
    hosts: Option<Hosts>,
}

/// The routes of the TCP address `listen`, which pass requests on to those of the control socket. On a loopback address,
/// pages of other sites must not read them through a browser.
pub fn monitoring(routes: Routes, listen: SocketAddr) -> Routes {
    let hosts = listen.ip().is_loopback().then(|| Hosts::new(listen, []));
    Router::new().fallback(any(pass)).with_state(Monitoring { routes, hosts })
}

async fn pass(State(monitoring): State<Monitoring>, request: Request) -> Response {
    let Monitoring { routes, hosts } = monitoring;
    let checked = hosts.map_or(Ok(()), |hosts| hosts.check(request.uri(), request.headers()));
    if let Err(foreign) = checked {
        let error = ApiError::of_status(StatusCode::FORBIDDEN, &foreign.to_string());
        return error.into_response();
    }
    if !PATHS.contains(&request.uri().path()) {
        let message = "there is nothing at this path; the API is on the control socket";
        return ApiError::not_found(message).into_response();
    }
    forward(routes, request).await
}
