//! Requests about the daemon itself.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use super::audit::Caller;
use super::condition::{self, Kind};
use super::error::ApiError;
use super::request::{Bare, JsonBody, Parameters};
use super::{Api, Identity, ReloadOrder, health};
use crate::clock::{Timestamp, rfc3339};
use crate::invalid::Invalid;
use crate::scheduler::handle::Node;
use crate::zone::DefaultZone;

/// Faulty jobs of the file that the status names one by one.
const FAULTS_SHOWN: usize = 100;

/// How the daemon stands. It answers also when its store does not: then nobody knows how many jobs there are.
pub(super) async fn status(State(api): State<Api>, _: Bare) -> Json<Value> {
    let (now, identity, rules) = (api.clock.now(), &api.identity, api.rules.borrow().clone());
    let counts = api.history.job_counts().await;
    let read_error = counts.as_ref().err().map(ToString::to_string);
    let counts = counts.ok();
    let (conditions, trouble) = health::examine(&api, counts.as_deref()).await;
    let status = api.handle.status();
    let jobs: Option<Map<String, Value>> = counts
        .map(|counts| counts.into_iter().map(|(state, count)| (state, count.into())).collect());
    let executors: Vec<Value> = status
        .pools
        .iter()
        .map(|pool| {
            let kind = rules.executors.get(&pool.name).map(|settings| settings.kind);
            json!({"name": pool.name, "type": kind, "busy": pool.busy, "max_workers": pool.max_workers,
                "waiting": pool.waiting, "retrying": pool.retrying})
        })
        .collect();
    // A store of one node keeps no list.
    let alone = Node {
        name: identity.node.clone(),
        beat: 0,
        started_at: identity.started_at,
        seen_at: now,
    };
    let nodes = if status.nodes.is_empty() { vec![alone] } else { status.nodes };
    let nodes: Vec<Value> = nodes
        .iter()
        .map(|node| {
            json!({"name": node.name, "started_at": rfc3339(node.started_at),
                "seen_at": rfc3339(node.seen_at), "here": node.name == identity.node})
        })
        .collect();
    let state = json!({
        "state": match status.paused_since {
            _ if status.draining => "draining",
            _ if conditions.iter().any(|found| found.kind == Kind::Starting) => "starting",
            Some(_) => "paused",
            None => "running",
        },
        "ready": trouble.is_none(),
        "not_ready": trouble.map(|trouble| trouble.to_value()),
        "health": condition::health(&conditions),
        "paused_since": status.paused_since.map(rfc3339),
        "paused_by": status.paused_since.and_then(|since| api.noted.paused_by(since)),
        "clock_correction": status.clock.map(|clock| json!({
            "recorded": rfc3339(clock.recorded),
            "found_at": rfc3339(clock.found_at),
            "jobs": clock.jobs,
            "done": clock.is_done,
        })),
        "store_error": status.store_error.or(read_error),
    });
    let rest = json!({
        "jobs": jobs,
        "declared": declared(&api),
        "running": status.running,
        "next_wake": status.next_wake.map(rfc3339),
        "executors": executors,
        "nodes": nodes,
    });
    Json(joined([state, identity.facts(&rules.zone, now), rest]))
}

impl Identity {
    /// The keys of `/v1/status` that are known without a store.
    pub(super) fn facts(&self, zone: &DefaultZone, now: Timestamp) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "node": self.node,
            "pid": std::process::id(),
            "started_at": rfc3339(self.started_at),
            "now": rfc3339(now),
            "uptime_seconds": now.signed_duration_since(self.started_at).num_seconds(),
            "timezone": zone.zone.name(),
            "timezone_source": zone.source,
            "timezone_rules": self.zone_source,
            "store": self.store,
            "socket": self.socket,
        })
    }
}

/// One object with the keys of all of these, in their order.
pub(super) fn joined(parts: [Value; 3]) -> Value {
    let mut joined = Map::new();
    for part in parts {
        if let Value::Object(mut keys) = part {
            joined.append(&mut keys);
        }
    }
    Value::Object(joined)
}

/// What is known of the file that declares jobs.
fn declared(api: &Api) -> Value {
    let file = api.declared.borrow();
    let faults: Vec<_> = file.faults.iter().take(FAULTS_SHOWN).collect();
    json!({"file": file.path, "source": file.source, "jobs": file.jobs, "faulty": file.faults.len(),
        "faults": faults})
}

pub(super) async fn preview(
    State(api): State<Api>,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, ApiError> {
    let zone = api.rules.borrow().zone.zone.clone();
    let preview = api.previews.answer(body, zone, api.clock.now()).await?;
    Ok(Json(preview.to_value()))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReloadParameters {
    /// Whether a file that declares no jobs any more is believed.
    #[serde(default)]
    force: bool,
}

pub(super) async fn reload(
    State(api): State<Api>,
    caller: Caller,
    Parameters(ReloadParameters { force }): Parameters<ReloadParameters>,
) -> Result<Json<Value>, ApiError> {
    let stopping = || ApiError::unavailable("the daemon is stopping");
    let (reply, answer) = oneshot::channel();
    api.reload.send(ReloadOrder { force, reply }).await.map_err(|_| stopping())?;
    let order = caller.orders("reload");
    let reloaded = answer.await.map_err(|_| stopping())?;
    match reloaded {
        Ok(reloaded) => {
            order.done();
            Ok(Json(json!(reloaded)))
        }
        Err(message) => Err(order.refused(Invalid::new("", message))),
    }
}
