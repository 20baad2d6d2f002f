//! Orders over HTTP: place one, look at it, pay it.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::{get, post};
use chrono::TimeDelta;
use serde_json::{Value, json};

use super::Shared;
use super::answer::{Answer, Failure, Unavailable};
use super::arguments::{Arguments, Id};
use crate::clock::rfc3339;
use crate::toutiao::orders::{self, NewOrder, Order, Payment, Status};

/// The longest that an order may wait for its payment, in seconds: a day.
const MAX_WAIT_SECONDS: i64 = 86_400;

pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/v1_0/orders", post(place))
        .route("/v1_0/orders/{id}", get(show))
        .route("/v1_0/orders/{id}/pay", post(pay))
}

async fn place(State(shared): State<Shared>, body: Body) -> Result<Answer, Failure> {
    let mut arguments = Arguments::of_body(body).await?;
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
    Ok(Answer::created(shown(&order)))
}

async fn show(State(shared): State<Shared>, Id(id): Id) -> Result<Answer, Failure> {
    let database = shared.toutiao.database().await.map_err(Unavailable::from)?;
    match database.order(id).await.map_err(Unavailable::from)? {
        Some(order) => Ok(Answer::ok(shown(&order))),
        None => Err(unknown()),
    }
}

async fn pay(State(shared): State<Shared>, Id(id): Id) -> Result<Answer, Failure> {
    match orders::pay(&shared.toutiao, &shared.client, id).await.map_err(Unavailable::from)? {
        Payment::Accepted(order) => Ok(Answer::ok(shown(&order))),
        Payment::Unknown => Err(unknown()),
        Payment::Refused(order) => Err(Failure::conflict(match order.status {
            Status::Paid => "The order is already paid.",
            Status::Cancelled => "The order is cancelled.",
            // One that still waits here is overdue, and its expiry just about to be recorded.
            Status::Expired | Status::Pending => "The order has expired.",
        })),
    }
}

fn unknown() -> Failure {
    Failure::not_found("The order does not exist.")
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
