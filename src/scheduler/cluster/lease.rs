//! The lease of this node: renewing it, finding nodes whose lease has expired, and giving it up at the end.

use std::sync::Arc;

use super::Cluster;
use crate::clock::Timestamp;
use crate::job::admission::Rules;
use crate::scheduler::recovery;
use crate::scheduler::state::SchedulerState;
use crate::store::{Node, Store, StoreError};

/// Renews the lease of this node, reads what the other nodes say, and removes expired nodes. The runs that those held
/// belong to nobody afterwards.
pub(crate) async fn renew<S: Store>(
    cluster: &mut Cluster,
    store: &S,
    rules: &Rules,
    state: &mut SchedulerState,
    now: Timestamp,
) -> Result<(), StoreError> {
    let me = Arc::clone(state.node());
    if cluster.peers.renewed_after(now) {
        // The clock was set back: by this clock the claimed jobs are due much later. The other nodes may take them.
        for pool in rules.executors.keys() {
            store.release_jobs(&me, pool, Timestamp::MAX_UTC).await?;
        }
    }
    let view = store.renew_lease(&me, state.identity.started_at, now).await?;
    if view.is_new && cluster.peers.has_renewed() {
        tracing::warn!(
            "this node was silent for too long: the other nodes have taken over its runs and jobs"
        );
        state.is_stale = true;
        state.metrics.lease_lost();
    }
    state.pause = view.pause.map(Arc::new);
    if state.clock.set_recorded(view.recorded_time) {
        // Another node has corrected the schedule, by a clock that may be ahead: new ids must be greater than its ids.
        recovery::follow_newest_run(store, state).await?;
    }
    cluster.cancel_requests = view.cancel_requests;
    let expired = cluster.peers.observe(now, &me, view.nodes);
    if !expired.is_empty() {
        store.remove_nodes(&expired).await?;
        state.metrics.nodes_expired(expired.len());
        for node in &expired {
            tracing::warn!(node = %node.name, seen_at = %node.seen_at, "a node is gone; its runs and jobs are taken over");
        }
    }
    // Other nodes may have changed the held jobs, or left some: they are read again.
    for pool in state.capacity.closed_pools() {
        store.release_jobs(&me, &pool, now).await?;
    }
    state.due_cache.clear();
    cluster.has_renewed = true;
    Ok(())
}

/// Gives up the lease, so that the other nodes need not wait for its end.
pub(crate) async fn give_up<S: Store>(
    cluster: &mut Cluster,
    store: &S,
    rules: &Rules,
    state: &mut SchedulerState,
    now: Timestamp,
) -> Result<(), StoreError> {
    renew(cluster, store, rules, state, now).await?;
    let me = cluster.peers.nodes().iter().filter(|node| *node.name == **state.node());
    let me: Vec<Node> = me.cloned().collect();
    store.remove_nodes(&me).await
}
