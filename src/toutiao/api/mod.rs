//! The HTTP API: a small part of the application's, under its paths and in its envelope.
//!
//! This version knows no authentication: the user is named in the request. It therefore belongs
//! behind a gateway, or on the loopback address.

mod answer;
mod arguments;
mod orders;
mod serve;
mod users;

use axum::Router;

use self::answer::Failure;
pub use self::serve::serve;
use super::Toutiao;
use crate::client::Client;

/// What the handlers share.
#[derive(Debug, Clone)]
struct Shared {
    toutiao: Toutiao,
    client: Client,
}

fn router(shared: Shared) -> Router {
    Router::new()
        .merge(orders::router())
        .merge(users::router())
        .fallback(async || Failure::not_found("The page does not exist."))
        .method_not_allowed_fallback(async || Failure::method_not_allowed())
        .with_state(shared)
}
