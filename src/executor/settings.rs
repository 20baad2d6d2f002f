//! What the configuration says about a pool.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::job::Task;

/// The largest `max_workers` of a pool.
pub const WORKERS_MAX: usize = 1000;
/// Runs that a thread pool may be given in addition to those that its workers execute.
pub const AHEAD_MAX: usize = 500;

/// What the workers of a pool are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExecutorKind {
    /// Threads of the daemon, which run builtins.
    ThreadPool,
    /// Processes: each command is one, and builtins run in worker processes.
    ProcessPool,
}

impl ExecutorKind {
    /// Whether a pool of this kind can execute the task. HTTP calls and mails run in both, since they need no worker.
    pub fn runs(self, task: &Task) -> bool {
        match (self, task) {
            (_, Task::Builtin(_) | Task::Http(_) | Task::Mail(_))
            | (Self::ProcessPool, Task::Command(_)) => true,
            (Self::ThreadPool, Task::Command(_)) | (_, Task::Unreadable(_)) => false,
        }
    }

    /// The kind as the configuration and the API spell it.
    pub fn word(self) -> &'static str {
        match self {
            Self::ThreadPool => "threadpool",
            Self::ProcessPool => "processpool",
        }
    }
}

/// A pool as it is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolSettings {
    pub kind: ExecutorKind,
    /// Runs that the pool executes at the same time.
    pub max_workers: usize,
}

/// The largest number of runs that pools with these settings hold at the same time.
pub fn handed_over_max(settings: &BTreeMap<String, PoolSettings>) -> usize {
    settings.values().map(|pool| pool.max_workers + AHEAD_MAX).sum()
}
