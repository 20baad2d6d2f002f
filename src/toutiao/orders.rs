//! Orders: placed, then paid or expired, never both.
//!
//! Each order has a job of its own that expires it on time. The job is registered before the
//! order is written: a crash in between leaves a job without an order, which does nothing, and
//! never an order without a job. Should the scheduler not answer, the order is accepted all the
//! same, and the sweep over what is overdue expires it a little later.

use std::time::Duration;

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::{Toutiao, ToutiaoError};
use crate::client::{Client, ClientError};
use crate::clock::{Timestamp, rfc3339};

/// Name of the builtin that expires one order.
pub(super) const EXPIRE: &str = "orders.expire";

/// How long an order waits for the scheduler. Its customer waits too, and the sweep is there.
const SCHEDULER_TIMEOUT: Duration = Duration::from_secs(5);

/// Where an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderStatus {
    /// It waits for its payment.
    Pending,
    /// It was paid in time.
    Paid,
    /// It was not.
    Expired,
    /// It was withdrawn.
    Cancelled,
}

impl OrderStatus {
    const ALL: [Self; 4] = [Self::Pending, Self::Paid, Self::Expired, Self::Cancelled];

    /// Its name in the table and in answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Paid => "paid",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }
}

/// An order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Id.
    pub id: i64,
    /// Who ordered.
    pub user_id: i64,
    /// Price in fen.
    pub amount: i64,
    /// Where it stands.
    pub status: OrderStatus,
    /// When it was placed.
    pub created_at: Timestamp,
    /// Until when it must be paid.
    pub expires_at: Timestamp,
    /// When it was paid.
    pub paid_at: Option<Timestamp>,
}

/// What is ordered.
#[derive(Debug, Clone, Copy)]
pub struct NewOrder {
    /// Who orders.
    pub user_id: i64,
    /// Price in fen, above zero.
    pub amount: i64,
    /// How long it may wait for its payment; none: as the settings say.
    pub expires_in: Option<TimeDelta>,
}

/// How an attempt to pay ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payment {
    /// The order is paid now.
    Accepted(Order),
    /// The order could not be paid any more; it is as given.
    Refused(Order),
    /// There is no such order.
    Unknown,
}

/// Places an order.
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
        id: toutiao.fresh_id(),
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

/// Pays an order, if it is still time; its job is removed then.
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
    in_time(client.add(&job)).await.map(|_| ())
}

// A job that is left over finds nothing to do, so a failure is worth a line and no more.
async fn remove_job(client: &Client, order_id: i64) {
    let removal = async {
        match client.remove(&job_id(order_id)).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(Value::Null),
        }
    };
    if let Err(error) = in_time(removal).await {
        tracing::warn!(
            order = order_id,
            %error,
            "the order's job was not removed; it will do nothing"
        );
    }
}

async fn in_time(call: impl Future<Output = Result<Value, ClientError>>) -> Result<Value, String> {
    match tokio::time::timeout(SCHEDULER_TIMEOUT, call).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("the scheduler gave no answer in {} s", SCHEDULER_TIMEOUT.as_secs())),
    }
}
