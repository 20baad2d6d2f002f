//! What a scheduler does because other nodes use the same store. The scheduler of a single-node store has no [`Cluster`],
//! and calls nothing of this folder.
//!
//! A node renews its lease every second ([`lease`]), and takes over what expired nodes held. It takes jobs of the store a
//! few seconds before they are due ([`fetch_window`]), and before a run may exceed `max_instances` it asks what the other
//! nodes run ([`view`]). What it believes about other nodes ([`peers`]) only saves time: every write is guarded by the
//! revision of the job or by the node that holds the run.

pub(crate) mod lease;
mod peers;
pub(crate) mod view;

use std::sync::Arc;

use chrono::TimeDelta;

use super::state::SchedulerState;
use super::state::due_cache::{CACHED_JOBS, FetchWindow};
use crate::clock::Timestamp;
use crate::job::Job;
use crate::job::admission::Rules;
use crate::run::RunId;
use peers::Peers;

/// How far ahead a node takes jobs of a shared store: long enough that a job is there in time, and short enough that the
/// nodes share what is due.
const CLAIM_AHEAD: TimeDelta = TimeDelta::seconds(5);
/// Jobs of a pool that a node takes from a shared store at once. A pool of many workers takes four jobs per worker.
const CLAIM_JOBS: usize = 256;

#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) peers: Peers,
    /// Runs of this node that another node asks to cancel, with the reason, since the last step.
    cancel_requests: Vec<(RunId, String)>,
    /// Whether the lease was renewed since the last step, so that the step looks at what the other nodes have changed.
    has_renewed: bool,
}

impl Cluster {
    /// `lease` is how long a node may be silent.
    pub(crate) fn new(lease: TimeDelta) -> Self {
        Self { peers: Peers::new(lease), cancel_requests: Vec::new(), has_renewed: false }
    }

    /// The names of the live nodes.
    pub(crate) fn live(&self) -> Vec<String> {
        self.peers.nodes().iter().map(|node| node.name.clone()).collect()
    }

    /// Takes the runs that other nodes have asked this one to cancel.
    pub(crate) fn take_cancel_requests(&mut self) -> Vec<(RunId, String)> {
        std::mem::take(&mut self.cancel_requests)
    }
}

/// Which jobs of a pool this node takes.
pub(crate) fn fetch_window(rules: &Rules, pool: &str, now: Timestamp) -> FetchWindow {
    let workers = rules.executors.get(pool).map_or(0, |pool| pool.max_workers);
    FetchWindow {
        until: now.checked_add_signed(CLAIM_AHEAD),
        limit: workers.saturating_mul(4).clamp(CLAIM_JOBS, CACHED_JOBS),
    }
}

/// The node that holds a job from now on: this one, if it has the job in memory.
pub(crate) fn owner(state: &SchedulerState, job: &Job) -> Option<Arc<str>> {
    let wakes_at = job.wakes_at()?;
    let holds = state.due_cache.reaches(&job.executor, wakes_at);
    holds.then(|| Arc::clone(state.node()))
}
