//! Saving what runs write while they run, so that a crash of the daemon does not lose it.
//!
//! The executor knows what has grown and how often it may be saved; a step writes it. A write is not based on anything
//! that the rest of the step decides, so a run that another node has taken over meanwhile is left out by the store.

use std::sync::Arc;

use crate::executor::{Executor, Saving};
use crate::scheduler::Scheduler;
use crate::scheduler::step::Step;
use crate::store::{Change, Store};

impl<S: Store, X: Executor> Scheduler<S, X> {
    /// Has the next step save outputs that have grown.
    pub fn save_outputs(&mut self, saving: Saving) {
        self.to_save = Some(saving);
    }

    /// Adds outputs of runs that go on to the step, if it is to save any.
    pub(crate) fn save_outputs_of_running(&mut self, step: &mut Step) {
        let Some(saving) = self.to_save.take() else { return };
        for (execution, output) in self.executor.unsaved_outputs(step.now, saving) {
            // What has ended is saved with its end, and what another node has taken over is not written here.
            let goes_on =
                !self.unrecorded.contains_key(&execution) && self.bisection.may_save(&execution);
            if goes_on && self.executing.contains_key(&execution) {
                let (run_id, attempt) = execution.clone();
                let held_by = Arc::clone(&self.identity.node);
                let output_saved = Arc::clone(&output);
                step.note(Change::SavePartialOutput { run_id, attempt, output, held_by });
                step.saved.push((execution, output_saved));
            }
        }
    }
}
