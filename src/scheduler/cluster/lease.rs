//! Life among other nodes: signs of life, taking over what a dead node held, and asking what runs
//! elsewhere before a job gets another run. On a store of one node, nothing of this happens.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::executor::Executor;
use crate::job::JobId;
use crate::run::SkipReason;
use crate::scheduler::recovery::{ConflictRetries, Recovered};
use crate::scheduler::request::{PendingRequest, Request};
use crate::scheduler::state::capacity::InstanceView;
use crate::scheduler::step::Step;
use crate::scheduler::{Phase, Scheduler};
use crate::store::{Holder, Store, StoreError};

/// What the ledger says of a run whose node was silent for too long and that is not run again.
const NODE_GONE: &str = "its node was gone while it ran";

impl<S: Store, X: Executor> Scheduler<S, X> {
    /// Gives a sign of life when it is time, and looks what the others are doing.
    pub(crate) async fn renew_lease_if_due(&mut self, now: Timestamp) -> Result<(), StoreError> {
        if self.is_shared && self.peers.is_due(now) {
            self.renew_lease(now).await?;
            self.take_over_runs(now, NODE_GONE).await?;
        }
        Ok(())
    }

    /// Meets the other nodes, and buries the dead.
    pub(crate) async fn renew_lease(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let me = Arc::clone(&self.identity.node);
        if self.peers.were_met_after(now) {
            // By this clock it will be long until what is held here is due; the others need not wait for that.
            for pool in self.rules.executors.keys() {
                self.store.release_jobs(&me, pool, Timestamp::MAX_UTC).await?;
            }
        }
        let meeting = self.store.heartbeat(&me, self.identity.started_at, now).await?;
        if meeting.is_new && self.peers.has_met() {
            tracing::warn!(
                "this node was silent for too long: the others have taken over what it held"
            );
            self.is_stale = true;
        }
        self.paused_since = meeting.paused_since;
        self.learn_time(meeting.recorded_time).await?;
        self.cancel_requests = meeting.cancel_requests;
        let dead = self.peers.observe(now, &me, meeting.nodes);
        if !dead.is_empty() {
            self.store.remove_nodes(&dead).await?;
            for node in &dead {
                tracing::warn!(node = %node.name, seen_at = %node.seen_at, "a node is gone; what it held is taken over");
            }
        }
        // Others may have changed what is held here, or left something: it is read again.
        for pool in self.capacity.closed_pools() {
            self.store.release_jobs(&me, &pool, now).await?;
        }
        self.due_cache.clear();
        self.has_met_now = true;
        Ok(())
    }

    /// Decides about runs in flight that no living node holds.
    pub(crate) async fn take_over_runs(
        &mut self,
        now: Timestamp,
        why: &str,
    ) -> Result<Recovered, StoreError> {
        let me = Arc::clone(&self.identity.node);
        self.recover_from(now, Holder::Gone { but: &me }, why).await
    }

    /// Looks at everything that a decision of this step needs: what is due, what runs elsewhere, and what was skipped.
    pub(crate) async fn load_due(
        &mut self,
        step: &mut Step,
        commands: &[PendingRequest],
    ) -> Result<InstanceView, StoreError> {
        self.fill_due_cache(step, commands).await?;
        let known = self.load_cluster_counts(step, commands).await?;
        self.load_overlap_rows(step, commands).await?;
        Ok(known)
    }

    /// Looks at what other nodes run and have changed, as far as this step needs it.
    async fn load_cluster_counts(
        &mut self,
        step: &mut Step,
        commands: &[PendingRequest],
    ) -> Result<InstanceView, StoreError> {
        if !self.is_shared {
            return Ok(InstanceView::AllNodes);
        }
        let has_met = std::mem::take(&mut self.has_met_now);
        let may_start = self.capacity.needs_cluster_check() && !self.unrecorded.is_empty()
            || self.capacity.newly_needs_cluster_check();
        if has_met || may_start {
            self.refresh_waiting(step).await?;
        }
        // Another node may have paused or moved what is due here.
        self.due_cache.renew(step.jobs());
        let asks_for_run =
            commands.iter().any(|command| matches!(command.request, Request::Run(_)));
        // The jobs were read before: who makes a run of one of them from now on changes its revision. Also a job that
        // is new may have runs elsewhere: those of a job that had its id and was removed.
        let fires = self.will_fire(step, commands) && self.due_jobs(step).next().is_some();
        if has_met || may_start || asks_for_run || fires {
            let elsewhere = self.store.count_in_flight_elsewhere(&self.identity.node).await?;
            self.capacity.set_other_nodes(elsewhere);
        }
        let is_known = has_met || may_start;
        Ok(if is_known { InstanceView::AllNodes } else { InstanceView::ThisNode })
    }

    /// Has waiting runs follow what other nodes have made of their jobs.
    async fn refresh_waiting(&mut self, step: &mut Step) -> Result<(), StoreError> {
        let waiting = self.capacity.waiting_jobs();
        if waiting.is_empty() || self.phase == Phase::Draining {
            return Ok(());
        }
        let ids: Vec<JobId> = waiting.into_iter().collect();
        for job in self.store.load_jobs(&ids).await? {
            step.learn(&Arc::new(job));
        }
        for id in &ids {
            if let Some(job) = step.job(id) {
                self.capacity.redefine(job);
                continue;
            }
            for waiting in self.capacity.take_waiting(id) {
                self.context(step).withdraw(waiting, SkipReason::Removed);
            }
        }
        Ok(())
    }

    /// Takes leave of the others, so that they need not wait for a lease to end.
    pub async fn leave(&mut self, now: Timestamp) -> Result<(), StoreError> {
        if !self.is_shared {
            return Ok(());
        }
        let mut tries = ConflictRetries::default();
        loop {
            // Another node may bury someone at the same moment.
            let result = self.release_lease(now).await;
            if tries.go_on(&result) {
                continue;
            }
            return match result {
                // Then the others find out by the end of the lease.
                Err(StoreError::Conflict(_)) => Ok(()),
                result => result,
            };
        }
    }

    async fn release_lease(&mut self, now: Timestamp) -> Result<(), StoreError> {
        self.renew_lease(now).await?;
        let me = self.peers.nodes().iter().filter(|node| *node.name == *self.identity.node);
        let me: Vec<_> = me.cloned().collect();
        self.store.remove_nodes(&me).await
    }
}
