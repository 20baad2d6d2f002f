//! The builtins that jobs of this application call by name.

use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::runtime::Handle;

use super::orders::{EXPIRE, OrderStatus};
use super::sql::DatabaseError;
use super::{Toutiao, ToutiaoError, statistics};
use crate::clock::rfc3339;
use crate::invalid::Invalid;
use crate::task::builtin::{Args, BuiltinFunction, Call, Registry, TaskError};

/// The longest settle time. A repair should not sleep half the night.
const MAX_SETTLE_SECONDS: f64 = 60.0;

/// The largest number of expired orders whose ids are in a result.
const MAX_IDS: usize = 100;

/// The largest number of batches in one sweep, of 500 orders each. The next sweep expires the rest.
const MAX_BATCHES: u32 = 1_000;

pub(super) fn register(toutiao: &Toutiao, registry: &mut Registry, runtime: &Handle) {
    let app = BlockingToutiao { toutiao: toutiao.clone(), runtime: runtime.clone() };
    registry.register(FixStatistics(app.clone()));
    registry.register(Expire(app.clone()));
    registry.register(ExpireOverdue(app));
}

/// The application, for builtins, which run on threads that may block.
#[derive(Debug, Clone)]
struct BlockingToutiao {
    toutiao: Toutiao,
    runtime: Handle,
}

impl BlockingToutiao {
    /// Blocks until the work is done or the run is cancelled. A cancel drops the work where it is, which does no more harm
    /// than a crash.
    fn block_on<T, E: Into<TaskError>>(
        &self,
        call: &Call,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, TaskError> {
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                done = work => done.map_err(Into::into),
                () = call.cancelled() => Err(TaskError::Cancelled),
            }
        })
    }
}

impl From<ToutiaoError> for TaskError {
    fn from(error: ToutiaoError) -> Self {
        match error {
            ToutiaoError::Settings(invalid) => Self::permanent(invalid.to_string()),
            ToutiaoError::Database(_) | ToutiaoError::Counters(_) => {
                Self::passing(error.to_string())
            }
        }
    }
}

impl From<DatabaseError> for TaskError {
    fn from(error: DatabaseError) -> Self {
        ToutiaoError::from(error).into()
    }
}

impl From<Invalid> for TaskError {
    fn from(invalid: Invalid) -> Self {
        Self::permanent(invalid.to_string())
    }
}

/// Makes the counters equal to the rows that they count.
struct FixStatistics(BlockingToutiao);

impl FixStatistics {
    fn settle(args: &Args) -> Result<Duration, Invalid> {
        refuse_unknown(args, &["settle_seconds"])?;
        let Some(given) = args.get("settle_seconds") else { return Ok(statistics::SETTLE_DEFAULT) };
        given
            .as_f64()
            .filter(|seconds| (0.0..=MAX_SETTLE_SECONDS).contains(seconds))
            .map(Duration::from_secs_f64)
            .ok_or_else(|| {
                Invalid::new(
                    "settle_seconds",
                    format!("must be a number from 0 to {MAX_SETTLE_SECONDS}"),
                )
            })
    }
}

impl BuiltinFunction for FixStatistics {
    fn name(&self) -> &'static str {
        "toutiao.fix_statistics"
    }

    fn check(&self, args: &Args) -> Result<(), Invalid> {
        Self::settle(args).map(drop)
    }

    fn run(&self, call: &Call) -> Result<Value, TaskError> {
        let settle = Self::settle(&call.args)?;
        let report = self.0.block_on(call, statistics::repair(&self.0.toutiao, settle))?;
        for line in report.lines() {
            call.say(&line);
        }
        if !report.failures.is_empty() {
            return Err(TaskError::passing(report.failures.join("; ")));
        }
        serde_json::to_value(&report).map_err(|error| TaskError::permanent(error.to_string()))
    }
}

/// Expires one order when its time is up.
struct Expire(BlockingToutiao);

impl Expire {
    fn order_id(args: &Args) -> Result<i64, Invalid> {
        refuse_unknown(args, &["order_id"])?;
        let given = args.get("order_id").ok_or_else(|| Invalid::new("order_id", "is missing"))?;
        let id = given.as_i64().or_else(|| given.as_str().and_then(|text| text.parse().ok()));
        id.filter(|id| *id > 0)
            .ok_or_else(|| Invalid::new("order_id", "must be an id: a whole number or its digits"))
    }

    async fn expire(&self, id: i64, call: &Call) -> Result<(bool, &'static str), DatabaseError> {
        let database = self.0.toutiao.database().await?;
        if database.expire_order(id, self.0.toutiao.now()).await? {
            call.say(&format!("order {id} has expired"));
            return Ok((true, OrderStatus::Expired.word()));
        }
        let Some(order) = database.order(id).await? else {
            // The job is registered before its order is written; there may have been a crash in between.
            call.say(&format!("there is no order {id}; nothing to do"));
            return Ok((false, "unknown"));
        };
        let status = order.status.word();
        call.say(&match order.status {
            OrderStatus::Pending => {
                format!(
                    "order {id} may be paid until {}; nothing to do yet",
                    rfc3339(order.expires_at)
                )
            }
            OrderStatus::Paid | OrderStatus::Expired | OrderStatus::Cancelled => {
                format!("order {id} is {status}; nothing to do")
            }
        });
        Ok((false, status))
    }
}

impl BuiltinFunction for Expire {
    fn name(&self) -> &'static str {
        EXPIRE
    }

    fn check(&self, args: &Args) -> Result<(), Invalid> {
        Self::order_id(args).map(drop)
    }

    fn run(&self, call: &Call) -> Result<Value, TaskError> {
        let id = Self::order_id(&call.args)?;
        let (expired, status) = self.0.block_on(call, self.expire(id, call))?;
        Ok(json!({"order_id": id.to_string(), "expired": expired, "status": status}))
    }
}

/// Expires every order whose time is up. It finds those whose job was never registered or was lost.
struct ExpireOverdue(BlockingToutiao);

impl ExpireOverdue {
    async fn sweep(&self) -> Result<(usize, Vec<i64>), DatabaseError> {
        let database = self.0.toutiao.database().await?;
        let now = self.0.toutiao.now();
        let (mut count, mut first) = (0, Vec::new());
        for _ in 0..MAX_BATCHES {
            let ids = database.expire_overdue_orders(now).await?;
            if ids.is_empty() {
                break;
            }
            count += ids.len();
            first.extend(ids.into_iter().take(MAX_IDS - first.len()));
        }
        Ok((count, first))
    }
}

impl BuiltinFunction for ExpireOverdue {
    fn name(&self) -> &'static str {
        "orders.expire_overdue"
    }

    fn check(&self, args: &Args) -> Result<(), Invalid> {
        refuse_unknown(args, &[])
    }

    fn run(&self, call: &Call) -> Result<Value, TaskError> {
        refuse_unknown(&call.args, &[])?;
        let (count, first) = self.0.block_on(call, self.sweep())?;
        call.say(&format!("{count} overdue orders have expired"));
        let ids: Vec<String> = first.iter().map(ToString::to_string).collect();
        Ok(json!({"expired": count, "order_ids": ids, "complete": ids.len() == count}))
    }
}

fn refuse_unknown(args: &Map<String, Value>, names: &[&str]) -> Result<(), Invalid> {
    match args.keys().find(|name| !names.contains(&name.as_str())) {
        Some(name) if names.is_empty() => {
            Err(Invalid::new(name, "is unknown: this builtin takes no arguments"))
        }
        Some(name) => Err(Invalid::new(name, format!("is unknown (known: {})", names.join(", ")))),
        None => Ok(()),
    }
}
