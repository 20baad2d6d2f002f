//! The answer to `/v1/status`. It has the same fields from the first moment of a start on; what is not known yet is null.

use serde_json::{Map, Value, json};

use super::condition::{self, Condition};
use super::health::Trouble;
use super::{DeclaredFile, Identity};
use crate::clock::{Timestamp, rfc3339};
use crate::scheduler::admission::Rules;
use crate::scheduler::handle::{Node, PoolStatus, Status};

/// Faulty jobs of the file that the status names one by one.
const FAULTS_SHOWN: usize = 100;

/// What the status is made of.
#[derive(Debug)]
pub(super) struct Standing<'a> {
    /// What the daemon does, in a word or a few.
    pub(super) state: &'static str,
    /// Why it is not ready, if it is not.
    pub(super) trouble: Option<Trouble>,
    /// Everything that is wrong.
    pub(super) conditions: &'a [Condition],
    /// How the scheduler stands.
    pub(super) scheduler: Status,
    /// Who paused the scheduler, if that is known.
    pub(super) paused_by: Option<String>,
    /// Why the store cannot be used.
    pub(super) store_error: Option<String>,
    /// How many jobs there are in each state, if that is known.
    pub(super) jobs: Option<Vec<(String, u64)>>,
    pub(super) declared: &'a DeclaredFile,
    pub(super) rules: &'a Rules,
    pub(super) identity: &'a Identity,
}

impl Standing<'_> {
    /// The JSON form.
    pub(super) fn to_value(&self, now: Timestamp) -> Value {
        let Self { scheduler, identity, rules, .. } = self;
        let executors: Vec<Value> =
            scheduler.pools.iter().map(|pool| executor(pool, rules)).collect();
        let jobs = self.jobs.as_ref().map(|counts| {
            let counts = counts.iter().map(|(state, count)| (state.clone(), (*count).into()));
            counts.collect::<Map<String, Value>>()
        });
        json!({
            "state": self.state,
            "ready": self.trouble.is_none(),
            "not_ready": self.trouble.as_ref().map(Trouble::to_value),
            "health": condition::health(self.conditions),
            "paused_since": scheduler.paused_since.map(rfc3339),
            "paused_by": self.paused_by,
            "clock_correction": scheduler.clock.map(|clock| json!({
                "recorded": rfc3339(clock.recorded),
                "found_at": rfc3339(clock.found_at),
                "jobs": clock.jobs,
                "done": clock.is_done,
            })),
            "store_error": self.store_error,
            "version": env!("CARGO_PKG_VERSION"),
            "node": identity.node,
            "pid": std::process::id(),
            "started_at": rfc3339(identity.started_at),
            "now": rfc3339(now),
            "uptime_seconds": now.signed_duration_since(identity.started_at).num_seconds(),
            "timezone": rules.zone.zone.name(),
            "timezone_source": rules.zone.source,
            "timezone_rules": identity.zone_source,
            "store": identity.store,
            "socket": identity.socket,
            "jobs": jobs,
            "declared": declared(self.declared),
            "running": scheduler.running,
            "next_wake": scheduler.next_wake.map(rfc3339),
            "executors": executors,
            "nodes": nodes(scheduler, identity, now),
        })
    }
}

/// What is known of the file that declares jobs.
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

/// The nodes on the store; this one alone where no list is kept, or it cannot be read yet.
fn nodes(scheduler: &Status, identity: &Identity, now: Timestamp) -> Vec<Value> {
    let alone = [Node {
        name: identity.node.clone(),
        beat: 0,
        started_at: identity.started_at,
        seen_at: now,
    }];
    let nodes = if scheduler.nodes.is_empty() { &alone[..] } else { &scheduler.nodes };
    let node = |node: &Node| {
        json!({"name": node.name, "started_at": rfc3339(node.started_at),
            "seen_at": rfc3339(node.seen_at), "here": node.name == identity.node})
    };
    nodes.iter().map(node).collect()
}
