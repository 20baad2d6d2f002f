//! The pools that execute runs, as the configuration describes them and admission needs to know them.

use super::Task;
use crate::words::words;

words! {
    /// What the workers of a pool are.
    pub enum ExecutorKind {
        /// Threads of the daemon, which run builtins.
        ThreadPool = "threadpool",
        /// Processes: each command is one, and builtins run in worker processes.
        ProcessPool = "processpool",
    }
}

impl ExecutorKind {
    /// Whether a pool of this kind can execute the task. HTTP calls and mails run in both, since they need no worker.
    pub fn runs(self, task: &Task) -> bool {
        task.needs_process()
            .is_some_and(|needs_process| !needs_process || self == Self::ProcessPool)
    }
}

/// A pool as it is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolSettings {
    pub kind: ExecutorKind,
    /// Runs that the pool executes at the same time.
    pub max_workers: usize,
}
