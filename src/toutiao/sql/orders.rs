//! Statements on orders. Payment and expiry are one conditional update each, which names the expected status and the
//! instant. So if both happen at the same time, exactly one of them takes effect.

use sqlx::QueryBuilder;

use super::{BEGIN, CHUNK_ROWS, DatabaseError, ToutiaoDatabase};
use crate::clock::Timestamp;
use crate::toutiao::orders::{Order, OrderStatus};

/// A row of `orders`, in the order of the columns.
type OrderRow = (i64, i64, i64, String, i64, i64, Option<i64>);

impl ToutiaoDatabase {
    pub async fn insert_order(&self, order: &Order) -> Result<(), DatabaseError> {
        sqlx::query(
            "insert into orders (id, user_id, amount, status, created_at, expires_at, paid_at) \
             values (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(order.id)
        .bind(order.user_id)
        .bind(order.amount)
        .bind(order.status.word())
        .bind(order.created_at.timestamp_micros())
        .bind(order.expires_at.timestamp_micros())
        .bind(order.paid_at.map(|at| at.timestamp_micros()))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    pub async fn order(&self, id: i64) -> Result<Option<Order>, DatabaseError> {
        let row: Option<OrderRow> = sqlx::query_as(
            "select id, user_id, amount, status, created_at, expires_at, paid_at from orders where id = ?",
        )
        .bind(id)
        .fetch_optional(&self.pool)
        .await?;
        row.map(order).transpose()
    }

    /// Marks an order as paid if it is pending and has not expired at `now`. Returns whether it did.
    pub async fn pay_order(&self, id: i64, now: Timestamp) -> Result<bool, DatabaseError> {
        let done = sqlx::query(
            "update orders set status = 'paid', paid_at = ? where id = ? and status = 'pending' and expires_at > ?",
        )
        .bind(now.timestamp_micros())
        .bind(id)
        .bind(now.timestamp_micros())
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Marks an order as expired if it is pending and its time is up at `now`. Returns whether it did.
    pub async fn expire_order(&self, id: i64, now: Timestamp) -> Result<bool, DatabaseError> {
        let done = sqlx::query(
            "update orders set status = 'expired' where id = ? and status = 'pending' and expires_at <= ?",
        )
        .bind(id)
        .bind(now.timestamp_micros())
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Marks a batch of overdue orders as expired, those that are overdue longest. Returns their ids; none are left if it
    /// is empty.
    pub async fn expire_overdue_orders(&self, now: Timestamp) -> Result<Vec<i64>, DatabaseError> {
        let mut transaction = self.pool.begin_with(BEGIN).await?;
        let overdue: Vec<(i64,)> = sqlx::query_as(
            "select id from orders where status = 'pending' and expires_at <= ? order by expires_at, id limit ?",
        )
        .bind(now.timestamp_micros())
        .bind(i64::try_from(CHUNK_ROWS).unwrap_or(i64::MAX))
        .fetch_all(&mut *transaction)
        .await?;
        let ids: Vec<i64> = overdue.into_iter().map(|(id,)| id).collect();
        if ids.is_empty() {
            return Ok(ids);
        }
        let mut update =
            QueryBuilder::<sqlx::Sqlite>::new("update orders set status = 'expired' where id in (");
        let mut list = update.separated(", ");
        for id in &ids {
            list.push_bind(*id);
        }
        update.push(")");
        update.build().persistent(false).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(ids)
    }
}

fn order(row: OrderRow) -> Result<Order, DatabaseError> {
    let (id, user_id, amount, status, created_at, expires_at, paid_at) = row;
    let unreadable = |reason: String| DatabaseError::Unreadable { table: "orders", id, reason };
    let instant = |micros: i64| {
        Timestamp::from_timestamp_micros(micros)
            .ok_or_else(|| unreadable(format!("{micros} is not an instant")))
    };
    Ok(Order {
        id,
        user_id,
        amount,
        status: OrderStatus::parse(&status)
            .ok_or_else(|| unreadable(format!("unknown status \"{status}\"")))?,
        created_at: instant(created_at)?,
        expires_at: instant(expires_at)?,
        paid_at: paid_at.map(instant).transpose()?,
    })
}
