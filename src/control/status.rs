//! The answer to `/v1/status`. It has the same fields from the beginning of a start; what is not known yet is null.

use serde_json::{Map, Value, json};

use super::condition::{self, Condition};
use super::health::Problem;
use super::{DaemonInfo, DeclaredFile};
use crate::clock::{Timestamp, rfc3339};
use crate::job::admission::Rules;
use crate::scheduler::handle::{Node, PoolStatus, Status};

/// The most faulty jobs of the file that the status lists.
const FAULTS_SHOWN: usize = 100;

#[derive(Debug)]
pub(super) struct StatusReport<'a> {
    /// What the daemon does, such as `running`.
    pub(super) state: &'static str,
    /// Why the daemon is not ready, if it is not.
    pub(super) not_ready: Option<Problem>,
    /// Everything that is wrong.
    pub(super) conditions: &'a [Condition],
    pub(super) scheduler: Status,
    /// Why the store cannot be used, if it cannot.
    pub(super) store_error: Option<String>,
    /// How many jobs are in each state; none if that is not known.
    pub(super) jobs: Option<Vec<(String, u64)>>,
    pub(super) declared: &'a DeclaredFile,
    pub(super) rules: &'a Rules,
    pub(super) info: &'a DaemonInfo,
}

impl StatusReport<'_> {
    pub(super) fn to_value(&self, now: Timestamp) -> Value {
        let Self { scheduler, info, rules, .. } = self;
        let pause = scheduler.pause.as_deref();
        let executors: Vec<Value> =
            scheduler.pools.iter().map(|pool| executor(pool, rules)).collect();
        let jobs = self.jobs.as_ref().map(|counts| {
            let counts = counts.iter().map(|(state, count)| (state.clone(), (*count).into()));
            counts.collect::<Map<String, Value>>()
        });
        json!({
            "state": self.state,
            "ready": self.not_ready.is_none(),
            "not_ready": self.not_ready,
            "health": condition::health(self.conditions),
            "paused_since": pause.map(|pause| rfc3339(pause.since)),
            "paused_until": pause.and_then(|pause| pause.until).map(rfc3339),
            "paused_by": pause.and_then(|pause| pause.by.as_deref()),
            "pause_reason": pause.and_then(|pause| pause.reason.as_deref()),
            "clock_correction": scheduler.clock.map(|clock| json!({
                "recorded": rfc3339(clock.recorded),
                "found_at": rfc3339(clock.found_at),
                "jobs": clock.jobs,
                "done": clock.is_done,
            })),
            "store_error": self.store_error,
            "version": env!("CARGO_PKG_VERSION"),
            "node": info.node,
            "pid": std::process::id(),
            "started_at": rfc3339(info.started_at),
            "now": rfc3339(now),
            "uptime_seconds": now.signed_duration_since(info.started_at).num_seconds(),
            "timezone": rules.zone.zone.name(),
            "timezone_source": rules.zone.source,
            "timezone_rules": info.zone_source,
            "store": info.store,
            "socket": info.socket,
            "jobs": jobs,
            "declared": declared(self.declared),
            "running": scheduler.running,
            "next_wake": scheduler.next_wake.map(rfc3339),
            "executors": executors,
            "nodes": nodes(scheduler, info, now),
        })
    }
}

fn declared(file: &DeclaredFile) -> Value {
    let faults: Vec<_> = file.faults.iter().take(FAULTS_SHOWN).collect();
    json!({"file": file.path, "source": file.source, "jobs": file.jobs, "faulty": file.faults.len(),
        "faults": faults})
}

fn executor(pool: &PoolStatus, rules: &Rules) -> Value {
    let kind = rules.executors.get(&pool.name).map(|settings| settings.kind);
    json!({"name": pool.name, "type": kind, "busy": pool.busy, "max_workers": pool.max_workers,
        "waiting": pool.waiting, "retrying": pool.retrying})
}

/// The nodes on the store; only this one if the store keeps no list, or the list has not been read yet.
fn nodes(scheduler: &Status, info: &DaemonInfo, now: Timestamp) -> Vec<Value> {
    let alone =
        [Node { name: info.node.clone(), beat: 0, started_at: info.started_at, seen_at: now }];
    let nodes = if scheduler.nodes.is_empty() { &alone[..] } else { &scheduler.nodes };
    let node = |node: &Node| {
        json!({"name": node.name, "started_at": rfc3339(node.started_at),
            "seen_at": rfc3339(node.seen_at), "here": node.name == info.node})
    };
    nodes.iter().map(node).collect()
}
