//! What the scheduler publishes after every step.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::job::{JobState, Pause};
use crate::store::{ATTEMPT_BYTES, Change, Node, RUN_BYTES};

pub use super::state::clock::ClockCorrection;

/// How a pool is used.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PoolStatus {
    pub name: String,
    /// Workers that run something.
    pub busy: usize,
    pub max_workers: usize,
    /// Runs that wait for a worker.
    pub waiting: usize,
    /// Runs that wait for their next attempt.
    pub retrying: usize,
    /// When the earliest of the runs that wait for a worker was due, if no worker is free.
    #[serde(skip)]
    pub waiting_since: Option<Timestamp>,
    /// How many runs may wait for a worker before jobs that are due stay in the store.
    #[serde(skip)]
    pub queue_limit: usize,
}

/// What this process has written to its store since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteCounts {
    /// New rows of the ledger.
    pub runs: u64,
    /// Bytes, by the estimate that the store makes of a row.
    pub bytes: u64,
    /// Changes of jobs that may have changed how many jobs are in each state.
    pub jobs: u64,
}

impl WriteCounts {
    /// Counts what a commit adds.
    pub(super) fn count(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::InsertRun(_) => {
                    self.runs += 1;
                    self.bytes += RUN_BYTES;
                }
                Change::InsertAttempt(_) => self.bytes += ATTEMPT_BYTES,
                Change::PutOutput { output, .. } => {
                    let kept = u64::try_from(output.kept_bytes()).unwrap_or(u64::MAX);
                    self.bytes += ATTEMPT_BYTES + kept;
                }
                Change::InsertJob(_) | Change::UpdateJob(_) | Change::DeleteJob { .. } => {
                    self.jobs += 1;
                }
                Change::AdvanceJob(job) => {
                    self.jobs += u64::from(!matches!(job.state, JobState::Active { .. }));
                }
                // The bytes of `SavePartialOutput` are counted at the end of its attempt.
                _ => {}
            }
        }
    }
}

/// How the scheduler stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Counts the steps: it changes whenever something may have changed.
    pub steps: u64,
    /// When the next step is due if nothing arrives before.
    pub next_wake: Option<Timestamp>,
    /// When the first of the jobs that this node knows is due.
    pub next_due: Option<Timestamp>,
    /// How many of the jobs that this node knows were due and had not fired: it knows the earliest, 1,000 of each pool or more.
    pub due: usize,
    /// Runs that this node has started and that have not ended.
    pub running: usize,
    /// The pause of the scheduler as a whole: no job fires.
    pub pause: Option<Arc<Pause>>,
    /// The last correction of the clock that this process has found.
    pub clock: Option<ClockCorrection>,
    pub written: WriteCounts,
    /// Why the store cannot be used, if the last step failed.
    pub store_error: Option<String>,
    /// Whether the daemon stops, so that nothing is started any more.
    pub draining: bool,
    pub pools: Vec<PoolStatus>,
    /// The nodes on a shared store, including this one.
    pub nodes: Vec<Node>,
}
