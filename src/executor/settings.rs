//! What the configuration says about a pool.

use std::collections::BTreeMap;

pub use crate::job::{ExecutorKind, PoolSettings};

/// The largest `max_workers` of a pool.
pub const WORKERS_MAX: usize = 1000;
/// Runs that a thread pool may be given in addition to those that its workers execute.
pub const AHEAD_MAX: usize = 500;

/// The largest number of runs that pools with these settings hold at the same time.
pub fn handed_over_max(settings: &BTreeMap<String, PoolSettings>) -> usize {
    settings.values().map(|pool| pool.max_workers + AHEAD_MAX).sum()
}
