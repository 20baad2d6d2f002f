//! Tasks that are run when something has happened to a job's runs.

use std::sync::Arc;

use super::Task;

/// What is to be run when.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Hooks {
    /// When a run has failed for good.
    pub on_failure: Option<Arc<Task>>,
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
            ("on_success", &self.on_success),
            ("on_missed", &self.on_missed),
        ];
        named.into_iter().filter_map(|(name, task)| Some((name, task.as_ref()?)))
    }
}
