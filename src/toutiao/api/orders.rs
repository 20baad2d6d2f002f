//! Orders over HTTP: place one, look at it, pay it.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::{get, post};
use chrono::TimeDelta;
use serde_json::{Value, json};

use super::ApiState;
use super::arguments::{PathId, RequestArguments};
use super::response::{DataResponse, ToutiaoApiError, Unavailable};
use crate::clock::rfc3339;
use crate::toutiao::orders::{self, NewOrder, Order, OrderStatus, Payment};

/// The longest that an order may wait for its payment, in seconds: a day.
const MAX_WAIT_SECONDS: i64 = 86_400;

pub(super) fn router() -> Router<ApiState> {
    Router::new()
        .route("/v1_0/orders", post(place))
        .route("/v1_0/orders/{id}", get(show))
        .route("/v1_0/orders/{id}/pay", post(pay))
}

async fn place(
    State(shared): State<ApiState>,
    body: Body,
) -> Result<DataResponse, ToutiaoApiError> {
    let mut arguments = RequestArguments::of_body(body).await?;
    let new = NewOrder {
        user_id: arguments.whole("user_id", 1..=i64::MAX)?,
        amount: arguments.whole("amount", 1..=i64::MAX)?,
        expires_in: arguments
            .whole_if_given("expires_in_seconds", 1..=MAX_WAIT_SECONDS)?
            .and_then(TimeDelta::try_seconds),
    };
    arguments.finish()?;
    let order =
        orders::place(&shared.toutiao, &shared.client, new).await.map_err(Unavailable::from)?;
    Ok(DataResponse::created(shown(&order)))
}

async fn show(
    State(shared): State<ApiState>,
    PathId(id): PathId,
) -> Result<DataResponse, ToutiaoApiError> {
    let database = shared.toutiao.database().await.map_err(Unavailable::from)?;
    match database.order(id).await.map_err(Unavailable::from)? {
        Some(order) => Ok(DataResponse::ok(shown(&order))),
        None => Err(unknown()),
    }
}

async fn pay(
    State(shared): State<ApiState>,
    PathId(id): PathId,
) -> Result<DataResponse, ToutiaoApiError> {
    match orders::pay(&shared.toutiao, &shared.client, id).await.map_err(Unavailable::from)? {
        Payment::Accepted(order) => Ok(DataResponse::ok(shown(&order))),
        Payment::Unknown => Err(unknown()),
        Payment::Refused(order) => Err(ToutiaoApiError::conflict(match order.status {
            OrderStatus::Paid => "The order is already paid.",
            OrderStatus::Cancelled => "The order is cancelled.",
            // One that still waits here is overdue, and its expiry just about to be recorded.
            OrderStatus::Expired | OrderStatus::Pending => "The order has expired.",
        })),
    }
}

fn unknown() -> ToutiaoApiError {
    ToutiaoApiError::not_found("The order does not exist.")
}

// The id stands twice, because many readers cannot hold it as a number.
fn shown(order: &Order) -> Value {
    json!({
        "id": order.id,
        "id_str": order.id.to_string(),
        "user_id": order.user_id,
        "amount": order.amount,
        "status": order.status.name(),
        "created_at": rfc3339(order.created_at),
        "expires_at": rfc3339(order.expires_at),
        "paid_at": order.paid_at.map(rfc3339),
    })
}
