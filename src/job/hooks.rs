//! Tasks that are run when something has happened to a job's runs.

use std::sync::Arc;

use super::Task;

/// What is to be run when.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Hooks {
    /// When a run has failed for good.
    pub on_failure: Option<Arc<Task>>,
    /// Whether `on_failure` is run only for the first failure since a run has succeeded.
    pub on_failure_once: bool,
    /// When a run has succeeded after one that failed.
    pub on_recovery: Option<Arc<Task>>,
    /// When a run has succeeded.
    pub on_success: Option<Arc<Task>>,
    /// When an occurrence was too late to run.
    pub on_missed: Option<Arc<Task>>,
}

impl Hooks {
    /// All that are set, with their names.
    pub fn tasks(&self) -> impl Iterator<Item = (&'static str, &Arc<Task>)> {
        let named = [
            ("on_failure", &self.on_failure),
            ("on_recovery", &self.on_recovery),
            ("on_success", &self.on_success),
            ("on_missed", &self.on_missed),
        ];
        named.into_iter().filter_map(|(name, task)| Some((name, task.as_ref()?)))
    }

    /// Whether the run that ended before decides which of them are run.
    pub fn need_last_end(&self) -> bool {
        self.on_recovery.is_some() || self.on_failure_once && self.on_failure.is_some()
    }
}
