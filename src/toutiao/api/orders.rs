//! Orders over HTTP: place, show and pay.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use chrono::TimeDelta;
use serde_json::{Value, json};

use super::ApiState;
use super::arguments::{PathId, RequestArguments};
use super::response::{DataResponse, ToutiaoApiError};
use crate::clock::rfc3339;
use crate::toutiao::orders::{self, NewOrder, Order, OrderStatus, Payment};

/// The longest time that an order may wait for its payment: a day.
const MAX_WAIT_SECONDS: i64 = 86_400;

pub(super) fn router() -> Router<ApiState> {
    Router::new()
        .route("/v1_0/orders", post(place))
        .route("/v1_0/orders/{id}", get(show))
        .route("/v1_0/orders/{id}/pay", post(pay))
}

async fn place(State(state): State<ApiState>, body: Body) -> Result<DataResponse, ToutiaoApiError> {
    let mut arguments = RequestArguments::from_body(body).await?;
    let new = NewOrder {
        user_id: arguments.whole("user_id", 1..=i64::MAX)?,
        amount: arguments.whole("amount", 1..=i64::MAX)?,
        expires_in: arguments
            .optional_whole("expires_in_seconds", 1..=MAX_WAIT_SECONDS)?
            .and_then(TimeDelta::try_seconds),
    };
    arguments.finish()?;
    let order = orders::place(&state.toutiao, &state.client, new).await?;
    Ok(DataResponse { status: StatusCode::CREATED, data: to_value(&order) })
}

async fn show(
    State(state): State<ApiState>,
    PathId(id): PathId,
) -> Result<DataResponse, ToutiaoApiError> {
    let order = state.toutiao.database().await?.order(id).await?;
    order.map(|order| DataResponse::ok(to_value(&order))).ok_or_else(unknown)
}

async fn pay(
    State(state): State<ApiState>,
    PathId(id): PathId,
) -> Result<DataResponse, ToutiaoApiError> {
    match orders::pay(&state.toutiao, &state.client, id).await? {
        Payment::Accepted(order) => Ok(DataResponse::ok(to_value(&order))),
        Payment::Unknown => Err(unknown()),
        Payment::Refused(order) => {
            let message = match order.status {
                OrderStatus::Paid => "The order is already paid.",
                OrderStatus::Cancelled => "The order is cancelled.",
                // A pending order that is refused is overdue; its expiry is about to be recorded.
                OrderStatus::Expired | OrderStatus::Pending => "The order has expired.",
            };
            Err(ToutiaoApiError::new(StatusCode::CONFLICT, message))
        }
    }
}

fn unknown() -> ToutiaoApiError {
    ToutiaoApiError::not_found("The order does not exist.")
}

fn to_value(order: &Order) -> Value {
    json!({
        "id": order.id,
        // Many clients read numbers as doubles, which cannot hold the id.
        "id_str": order.id.to_string(),
        "user_id": order.user_id,
        "amount": order.amount,
        "status": order.status.word(),
        "created_at": rfc3339(order.created_at),
        "expires_at": rfc3339(order.expires_at),
        "paid_at": order.paid_at.map(rfc3339),
    })
}
