//! Publishes after each step how the scheduler stands, and when the next step is due.

use tokio::sync::watch;

use super::cluster::Cluster;
use super::pulse::Pulse;
use super::state::due_cache::NextDue;
use super::state::{Phase, SchedulerState};
use super::status::Status;
use crate::clock::Timestamp;
use crate::store::StoreError;

#[derive(Debug, Default)]
pub(super) struct Publisher {
    pub(super) status: watch::Sender<Status>,
    pub(super) pulse: Pulse,
}

impl Publisher {
    /// Publishes the result of a committed step.
    pub(super) fn publish(
        &self,
        state: &SchedulerState,
        cluster: Option<&Cluster>,
        now: Timestamp,
        next_wake: Option<Timestamp>,
    ) {
        self.status.send_modify(|status| {
            status.steps = status.steps.wrapping_add(1);
            status.next_wake = next_wake;
            status.next_due = state.due_cache.first_due();
            status.due = state.due_cache.count_due(now);
            status.running = state.capacity.running();
            status.pause.clone_from(&state.pause);
            status.clock = state.clock.correction;
            status.written = state.written;
            status.store_error = None;
            status.draining = state.phase == Phase::Draining;
            status.pools.clear();
            status.pools.extend(state.capacity.usage());
            if let Some(cluster) = cluster
                && status.nodes != cluster.peers.nodes()
            {
                status.nodes = cluster.peers.nodes().to_vec();
            }
        });
    }

    /// Publishes why a step failed. The step is over: a client that is answered now finds the error in the status, and no
    /// step that is late.
    pub(super) fn publish_error(&self, error: &StoreError) {
        self.status.send_modify(|status| {
            status.store_error = Some(error.to_string());
            status.next_wake = None;
        });
        self.pulse.step_ends();
    }

    /// Sets until when the loop sleeps, without waking those who wait for a step.
    pub(super) fn set_next_wake(&self, next_wake: Option<Timestamp>) {
        self.status.send_if_modified(|status| {
            status.next_wake = next_wake;
            false
        });
    }

    /// Whether the last step failed.
    pub(super) fn has_error(&self) -> bool {
        self.status.borrow().store_error.is_some()
    }
}

/// When the next step is due if nothing arrives before.
pub(super) fn next_wake(
    state: &SchedulerState,
    cluster: Option<&Cluster>,
    now: Timestamp,
) -> Option<Timestamp> {
    let lease = cluster.and_then(|cluster| cluster.peers.next_renewal());
    // In a pause its end is what to wait for, and while no queue takes more runs, a completion.
    let is_held = state.pause.is_some() || state.phase != Phase::Firing;
    let pause_end = state.pause.as_ref().and_then(|pause| pause.until);
    let pause_end = pause_end.filter(|_| state.phase == Phase::Firing);
    let due = match state.due_cache.next(&state.capacity.open_pools()) {
        _ if is_held => None,
        NextDue::Unknown => Some(now),
        NextDue::At(at) => at,
    };
    let retry = state.capacity.next_retry().filter(|_| state.phase == Phase::Firing);
    let has_input = !state.deferred.is_empty() || state.bisection.has_groups();
    let is_correcting = state.clock.is_under_way() && state.phase != Phase::Draining;
    let at_once = (has_input || is_correcting).then_some(now);
    [lease, due, pause_end, retry, at_once].into_iter().flatten().min()
}
