//! The HTTP API: a small part of the application's, under its paths and in its envelope.
//!
//! This version knows no authentication: the user is named in the request. It therefore belongs
//! behind a gateway, or on the loopback address. Requests that a foreign web page has a browser send are refused.

mod answer;
mod arguments;
mod orders;
mod serve;
mod users;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use hyper::body::Body as _;

use self::answer::Failure;
pub use self::serve::serve;
use super::Toutiao;
use crate::client::Client;
use crate::server::origin::{Hosts, is_json};

/// What the handlers share.
#[derive(Debug, Clone)]
struct Shared {
    toutiao: Toutiao,
    client: Client,
}

fn router(shared: Shared, hosts: Hosts) -> Router {
    Router::new()
        .merge(orders::router())
        .merge(users::router())
        .fallback(async || Failure::not_found("The page does not exist."))
        .method_not_allowed_fallback(async || Failure::method_not_allowed())
        .layer(from_fn_with_state(hosts, check_sender))
        .with_state(shared)
}

/// Refuses what a foreign page may have sent through someone's browser.
async fn check_sender(
    State(hosts): State<Hosts>,
    request: Request,
    next: Next,
) -> Result<Response, Failure> {
    hosts
        .check(request.uri(), request.headers())
        .map_err(|foreign| Failure::forbidden(&foreign.to_string()))?;
    if !request.body().is_end_stream() && !is_json(request.headers()) {
        return Err(Failure::not_json());
    }
    Ok(next.run(request).await)
}
