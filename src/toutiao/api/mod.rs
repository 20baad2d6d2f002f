//! The HTTP API: a small part of the application's, under its paths and in its envelope.
//!
//! This version knows no authentication: the user is named in the request. It therefore belongs
//! behind a gateway, or on the loopback address. Requests that a foreign web page has a browser send are refused.

mod arguments;
mod orders;
mod response;
mod serve;
mod users;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use hyper::body::Body as _;

use self::response::ToutiaoApiError;
pub use self::serve::serve;
use super::Toutiao;
use crate::client::Client;
use crate::server::origin::{Hosts, is_json};

/// What the handlers share.
#[derive(Debug, Clone)]
struct ApiState {
    toutiao: Toutiao,
    client: Client,
}

fn router(shared: ApiState, hosts: Hosts) -> Router {
    Router::new()
        .merge(orders::router())
        .merge(users::router())
        .fallback(async || ToutiaoApiError::not_found("The page does not exist."))
        .method_not_allowed_fallback(async || ToutiaoApiError::method_not_allowed())
        .layer(from_fn_with_state(hosts, check_sender))
        .with_state(shared)
}

/// Refuses what a foreign page may have sent through someone's browser.
async fn check_sender(
    State(hosts): State<Hosts>,
    request: Request,
    next: Next,
) -> Result<Response, ToutiaoApiError> {
    hosts
        .check(request.uri(), request.headers())
        .map_err(|foreign| ToutiaoApiError::forbidden(&foreign.to_string()))?;
    if !request.body().is_end_stream() && !is_json(request.headers()) {
        return Err(ToutiaoApiError::not_json());
    }
    Ok(next.run(request).await)
}
