//! Toutiao's HTTP API: a small part of the original backend's API, with its paths and its envelope.
//!
//! This version has no authentication: the request names the user. It therefore belongs behind a gateway or on the
//! loopback address. Requests that a browser sends on behalf of another site's page are refused.

mod arguments;
mod orders;
mod response;
mod users;

use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use hyper::body::Body as _;
use tokio::net::TcpListener;

use self::response::ToutiaoApiError;
use super::Toutiao;
use crate::client::Client;
use crate::server::origin::{Hosts, is_json};
use crate::server::{self, Limits};

/// Anyone may be a client, so each part of a request gets little time.
const LIMITS: Limits = Limits {
    connections: 512,
    reserve: 64,
    per_user: 512,
    head: Duration::from_secs(5),
    write: Duration::from_secs(10),
    drain: Duration::from_secs(10),
};

/// What the request handlers need.
#[derive(Debug, Clone)]
struct ApiState {
    toutiao: Toutiao,
    client: Client,
}

/// Serves requests until the shutdown, and then finishes those that have begun.
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
    let error_body = |_, message: &str| response::error_body(message);
    server::serve(listener, router, LIMITS, error_body, shutdown).await;
}

fn router(state: ApiState, hosts: Hosts) -> Router {
    Router::new()
        .merge(orders::router())
        .merge(users::router())
        .fallback(async || ToutiaoApiError::not_found("The page does not exist."))
        .method_not_allowed_fallback(async || {
            let message = "The method is not allowed here.";
            ToutiaoApiError::new(StatusCode::METHOD_NOT_ALLOWED, message)
        })
        .layer(from_fn_with_state(hosts, check_origin))
        .with_state(state)
}

/// Refuses requests that another site's page may have made a browser send.
async fn check_origin(
    State(hosts): State<Hosts>,
    request: Request,
    next: Next,
) -> Result<Response, ToutiaoApiError> {
    hosts
        .check(request.uri(), request.headers())
        .map_err(|foreign| ToutiaoApiError::new(StatusCode::FORBIDDEN, &foreign.to_string()))?;
    if !request.body().is_end_stream() && !is_json(request.headers()) {
        return Err(ToutiaoApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "The body must be JSON, and the header Content-Type say application/json.",
        ));
    }
    Ok(next.run(request).await)
}
