//! Orders: placed, then paid or expired, never both.
//!
//! Each order has a job of its own that expires it on time. The job is registered before the order is written, so a crash
//! in between leaves a job without an order, which does nothing, and never an order without a job. If the scheduler does
//! not respond, the order is accepted all the same, and the sweep of overdue orders expires it a little later.

use std::time::Duration;

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::{Toutiao, ToutiaoError};
use crate::client::{Client, ClientError};
use crate::clock::{Timestamp, rfc3339};
use crate::words::words;

/// The name of the builtin that expires one order.
pub(super) const EXPIRE: &str = "orders.expire";

/// How long the placement of an order waits for the scheduler. The customer waits too, and the sweep is a fallback.
const SCHEDULER_TIMEOUT: Duration = Duration::from_secs(5);

words! {
    /// The status of an order. Its word is used in the database and in responses.
    pub enum OrderStatus {
        /// It has not been paid yet.
        Pending = "pending",
        Paid = "paid",
        /// It was not paid in time.
        Expired = "expired",
        Cancelled = "cancelled",
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub id: i64,
    pub user_id: i64,
    /// The price in fen.
    pub amount: i64,
    pub status: OrderStatus,
    pub created_at: Timestamp,
    /// The end of the time for payment.
    pub expires_at: Timestamp,
    pub paid_at: Option<Timestamp>,
}

/// An order to be placed.
#[derive(Debug, Clone, Copy)]
pub struct NewOrder {
    pub user_id: i64,
    /// The price in fen, above zero.
    pub amount: i64,
    /// How long it may wait for its payment; the settings' time if `None`.
    pub expires_in: Option<TimeDelta>,
}

/// The result of a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payment {
    Accepted(Order),
    /// The order can no longer be paid.
    Refused(Order),
    /// The order does not exist.
    Unknown,
}

/// Places an order and registers the job that expires it.
pub async fn place(
    toutiao: &Toutiao,
    client: &Client,
    new: NewOrder,
) -> Result<Order, ToutiaoError> {
    let now = toutiao.now();
    let wait = new
        .expires_in
        .unwrap_or_else(|| TimeDelta::minutes(toutiao.settings().order_minutes.into()));
    let order = Order {
        id: toutiao.new_id(),
        user_id: new.user_id,
        amount: new.amount,
        status: OrderStatus::Pending,
        created_at: now,
        expires_at: now.checked_add_signed(wait).unwrap_or(now),
        paid_at: None,
    };
    if let Err(error) = register_job(client, &order).await {
        tracing::warn!(order = order.id, %error, "no job for the order; the sweep will expire it");
    }
    let written = match toutiao.database().await {
        Ok(database) => database.insert_order(&order).await,
        Err(error) => Err(error),
    };
    if let Err(error) = written {
        remove_job(client, order.id).await;
        return Err(error.into());
    }
    Ok(order)
}

/// Pays an order if it has not expired, and then removes its job.
pub async fn pay(toutiao: &Toutiao, client: &Client, id: i64) -> Result<Payment, ToutiaoError> {
    let database = toutiao.database().await?;
    let paid = database.pay_order(id, toutiao.now()).await?;
    if paid {
        remove_job(client, id).await;
    }
    Ok(match database.order(id).await? {
        Some(order) if paid => Payment::Accepted(order),
        Some(order) => Payment::Refused(order),
        None => Payment::Unknown,
    })
}

fn job_id(order_id: i64) -> String {
    format!("order:{order_id}:expire")
}

async fn register_job(client: &Client, order: &Order) -> Result<(), String> {
    let job = json!({
        "id": job_id(order.id),
        "trigger": {"type": "date", "run_date": rfc3339(order.expires_at), "timezone": "UTC"},
        "task": {"type": "builtin", "name": EXPIRE, "args": {"order_id": order.id.to_string()}},
        "tags": ["orders"],
    });
    with_timeout(client.add(&job)).await.map(|_| ())
}

/// A job that remains does nothing, so a failure is only logged.
async fn remove_job(client: &Client, order_id: i64) {
    let removal = async {
        match client.remove(&job_id(order_id)).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(Value::Null),
        }
    };
    if let Err(error) = with_timeout(removal).await {
        tracing::warn!(
            order = order_id,
            %error,
            "the order's job was not removed; it will do nothing"
        );
    }
}

async fn with_timeout(
    call: impl Future<Output = Result<Value, ClientError>>,
) -> Result<Value, String> {
    match tokio::time::timeout(SCHEDULER_TIMEOUT, call).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("the scheduler gave no answer in {} s", SCHEDULER_TIMEOUT.as_secs())),
    }
}
