//! The attempts that this process executes.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::executor::Completion;
use crate::run::{Execution, Run};

#[derive(Debug, Default)]
pub(crate) struct Executions {
    /// Attempts that were started here and whose end is not in the ledger.
    pub(crate) started: BTreeMap<Execution, Arc<Run>>,
    /// Attempts that still run here although another node has taken the run over.
    pub(crate) abandoned: BTreeMap<Execution, Arc<Run>>,
    /// Completions that are not in the ledger yet. One that arrives twice counts once.
    pub(crate) completions: BTreeMap<Execution, Completion>,
}

impl Executions {
    /// Keeps completions until a step has recorded them.
    pub(crate) fn add_completions(&mut self, completions: Vec<Completion>) {
        for completion in completions {
            self.completions.entry(completion.execution()).or_insert(completion);
        }
    }

    /// How many attempts were started here and have not ended.
    pub(crate) fn in_progress(&self) -> usize {
        let started = self.started.keys();
        started.filter(|execution| !self.completions.contains_key(*execution)).count()
    }
}
