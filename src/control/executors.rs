//! The executors: how each of them is used, what it runs, and what the other nodes of the store do in it.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Api;
use super::error::JsonAnswer;
use super::request::NoInput;
use crate::clock::rfc3339;
use crate::filter::{JobConditions, PAGE_LIMIT, RunFilter, RunOrder};
use crate::history::PoolRuns;
use crate::run::{Run, RunState};
use crate::scheduler::handle::PoolStatus;

/// All executors of this daemon, and those in which only other nodes run something.
pub(super) async fn list(State(api): State<Api>, _: NoInput) -> JsonAnswer {
    // Those that run for longest come first.
    let filter = RunFilter {
        conditions: JobConditions { states: vec!["running"], ..JobConditions::default() },
        order: RunOrder::Oldest,
        limit: PAGE_LIMIT,
        ..RunFilter::default()
    };
    let running = api.history.runs(filter).await?;
    let in_flight = api.history.in_flight().await?;
    let status = api.handle.status();
    let own: BTreeSet<&str> = status.pools.iter().map(|pool| pool.name.as_str()).collect();
    let elsewhere: BTreeSet<&str> = in_flight.iter().map(|pool| pool.executor.as_str()).collect();
    let others = elsewhere.difference(&own).map(|name| (*name, None));
    let pools = status.pools.iter().map(|pool| (pool.name.as_str(), Some(pool))).chain(others);
    let executors: Vec<Value> = pools
        .map(|(name, pool)| {
            let rows = running.rows.iter().filter(|run| run.executor == name);
            let mut executor = describe(&api, name, pool);
            if let Some(fields) = executor.as_object_mut() {
                fields.insert("running".to_owned(), rows.map(run_value).collect());
                let nodes = in_flight.iter().filter(|pool| pool.executor == name);
                fields.insert("nodes".to_owned(), nodes.map(|pool| node(&api, pool)).collect());
            }
            executor
        })
        .collect();
    Ok(Json(json!({
        "executors": executors,
        "draining": status.draining,
        "more_running": running.has_more,
    })))
}

/// How this daemon uses an executor. One that it does not have has no type and no workers here.
fn describe(api: &Api, name: &str, pool: Option<&PoolStatus>) -> Value {
    let kind = api.rules.borrow().executors.get(name).map(|settings| settings.kind);
    json!({
        "name": name,
        "type": kind,
        "max_workers": pool.map(|pool| pool.max_workers),
        "busy": pool.map(|pool| pool.busy),
        "waiting": pool.map(|pool| pool.waiting),
        "retrying": pool.map(|pool| pool.retrying),
        "waiting_since": pool.and_then(|pool| pool.waiting_since).map(rfc3339),
    })
}

fn run_value(run: &Run) -> Value {
    let started_at = match &run.state {
        RunState::Running { started_at } => Some(rfc3339(*started_at)),
        RunState::Pending | RunState::Ended { .. } | RunState::Skipped { .. } => None,
    };
    json!({
        "id": &*run.id.0,
        "job_id": run.job_id,
        "attempt": run.attempt,
        "started_at": started_at,
        "node": &*run.node,
    })
}

fn node(api: &Api, pool: &PoolRuns) -> Value {
    let is_here = pool.node == api.info.node;
    json!({"name": pool.node, "running": pool.running, "waiting": pool.waiting, "here": is_here})
}
