//! The runs that have been started and have not ended: how to cancel them, and the output that they have written so far.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Timestamp;
use crate::output::Output;
use crate::run::{Execution, RunId};
use crate::task::context::{Context, Ending};
use crate::task::log::Log;

/// Pause between two checks for unsaved output.
const SAVE_PAUSE: Duration = Duration::from_secs(1);
/// Bytes of output that are saved at a time; the rest waits for the next time. If many runs write much, each of them is
/// saved less often.
const SAVE_BYTES_MAX: usize = 512 * 1024;

/// Which unsaved outputs to save.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saving {
    /// Those that have waited long enough, up to a number of bytes at a time.
    Due,
    /// All of them, before the daemon ends.
    All,
}

/// The contexts of the runs. The code that executes a run owns its context. Only a weak reference is kept here, so an
/// entry expires with its run, whichever way the run ends. Clones share the list.
#[derive(Debug, Clone)]
pub struct LiveRuns {
    runs: Arc<Mutex<Runs>>,
    /// Notified when a run has written something that is not saved.
    unsaved: Arc<Notify>,
}

#[derive(Debug)]
struct Runs {
    by_id: BTreeMap<RunId, (u32, Weak<Context>)>,
    /// Number of entries at which those of ended runs are removed: twice the number of runs at a time, so that this
    /// frees at least half of them.
    sweep_at: usize,
    /// The outputs of runs that a stop of the daemon interrupted, until they are saved.
    interrupted: BTreeMap<Execution, Arc<Output>>,
}

impl LiveRuns {
    /// An empty list for at most `most` runs at a time.
    pub(super) fn new(most: usize) -> Self {
        let sweep_at = most.max(1) * 2;
        let runs = Runs { by_id: BTreeMap::new(), sweep_at, interrupted: BTreeMap::new() };
        Self { runs: Arc::new(Mutex::new(runs)), unsaved: Arc::default() }
    }

    /// Changes the number of runs at a time.
    pub(super) fn resize(&self, most: usize) {
        self.lock().sweep_at = most.max(1) * 2;
    }

    /// Creates the context of a run that is being started. An earlier attempt of the run can no longer be reached.
    pub(super) fn add(&self, (run_id, attempt): Execution) -> Arc<Context> {
        let mut runs = self.lock();
        if runs.by_id.len() >= runs.sweep_at {
            runs.by_id.retain(|_, (_, context)| context.strong_count() > 0);
        }
        let log = Log::notifying(Arc::clone(&self.unsaved));
        let context = Arc::new(Context { log, ..Context::default() });
        runs.by_id.insert(run_id, (attempt, Arc::downgrade(&context)));
        context
    }

    /// The attempt number and the context of a run, unless it has ended.
    pub fn get(&self, run_id: &RunId) -> Option<(u32, Arc<Context>)> {
        let runs = self.lock();
        let (attempt, context) = runs.by_id.get(run_id)?;
        Some((*attempt, context.upgrade()?))
    }

    /// Masks these secrets in what the runs write from now on.
    pub(super) fn hide(&self, secrets: &[String]) {
        for (_, context) in self.contexts() {
            context.log.hide(secrets.iter().cloned());
        }
    }

    pub(super) fn cancel_all(&self, reason: &str) {
        for (_, context) in self.contexts() {
            context.cancellation.cancel(Ending::Cancelled(reason.to_owned()));
        }
    }

    /// Cancels a run, unless it has ended.
    pub(super) fn cancel(&self, run_id: &RunId, reason: &str) {
        if let Some((_, context)) = self.get(run_id) {
            context.cancellation.cancel(Ending::Cancelled(reason.to_owned()));
        }
    }

    /// Keeps the output of a run that a stop interrupted: such a run has no completion to carry it.
    pub(super) fn keep_interrupted(&self, execution: Execution, output: Output) {
        if !output.is_empty() {
            self.lock().interrupted.insert(execution, Arc::new(output));
        }
    }

    /// Waits until a run has had unsaved output for a moment. Most runs end earlier, and are saved with their end.
    pub async fn grown(&self) {
        loop {
            self.unsaved.notified().await;
            tokio::time::sleep(SAVE_PAUSE).await;
            if self.contexts().iter().any(|(_, context)| context.log.is_unsaved()) {
                return;
            }
        }
    }

    /// The outputs to save now; those that have waited longest come first.
    pub(super) fn unsaved_outputs(
        &self,
        now: Timestamp,
        saving: Saving,
    ) -> Vec<(Execution, Arc<Output>)> {
        let mut contexts = self.contexts();
        contexts.retain(|(_, context)| context.log.is_unsaved());
        if !contexts.is_empty() {
            // Saving may fail, so the outputs that are returned now are checked again too.
            self.unsaved.notify_one();
        }
        if saving == Saving::Due {
            contexts.retain(|(_, context)| context.log.unsaved_since(now).is_some());
            // The key is computed once for each: a run may close its log meanwhile, and sorting needs a stable order.
            contexts.sort_by_cached_key(|(_, context)| context.log.unsaved_since(now));
        }
        let mut bytes = 0;
        let mut outputs = Vec::new();
        for (execution, context) in contexts {
            if saving == Saving::Due && bytes >= SAVE_BYTES_MAX {
                break;
            }
            let output = context.log.to_save(now);
            bytes += output.kept_bytes();
            outputs.push((execution, Arc::new(output)));
        }
        let interrupted = self.lock().interrupted.clone();
        outputs.extend(interrupted);
        outputs
    }

    pub(super) fn output_saved(&self, execution: &Execution, output: &Output, now: Timestamp) {
        self.lock().interrupted.remove(execution);
        if let Some((attempt, context)) = self.get(&execution.0)
            && attempt == execution.1
        {
            context.log.saved(output, now);
        }
    }

    fn contexts(&self) -> Vec<(Execution, Arc<Context>)> {
        let runs = self.lock();
        let alive = runs.by_id.iter().filter_map(|(id, (attempt, context))| {
            Some(((id.clone(), *attempt), context.upgrade()?))
        });
        alive.collect()
    }

    fn lock(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Stream;

    #[test]
    fn many_runs_that_write_much_take_turns_in_being_saved() {
        let live = LiveRuns::new(100);
        let at = |second: i64| Timestamp::from_timestamp(1_800_000_000 + second, 0).unwrap();
        let id = |number: usize| RunId(format!("{number:03}").into());
        let contexts: Vec<_> = (0..40).map(|number| live.add((id(number), 1))).collect();
        let write = |second| {
            for context in &contexts {
                context.log.write(
                    at(second),
                    Stream::Stdout,
                    format!("{}\n", "x".repeat(999)).repeat(70).as_bytes(),
                );
            }
        };
        write(0);
        assert!(live.unsaved_outputs(at(0), Saving::Due).is_empty(), "they may end soon");
        assert_eq!(live.unsaved_outputs(at(0), Saving::All).len(), 40);
        let mut seen = std::collections::BTreeSet::new();
        for second in 1..=5 {
            let outputs = live.unsaved_outputs(at(second), Saving::Due);
            assert!((1..=9).contains(&outputs.len()), "{SAVE_BYTES_MAX} bytes");
            for (execution, output) in outputs {
                live.output_saved(&execution, &output, at(second));
                seen.insert(execution);
            }
            write(second);
        }
        assert_eq!(seen.len(), 40, "each had its turn");
    }

    #[test]
    fn runs_that_have_ended_are_forgotten_and_those_that_run_are_not() {
        let live = LiveRuns::new(2);
        let id = |text: &str| RunId(text.into());
        let long = live.add((id("long"), 1));
        for number in 0..1000 {
            live.add((id(&number.to_string()), 1));
            assert!(live.lock().by_id.len() <= 4);
        }
        live.cancel(&id("long"), "enough");
        let enough = Ending::Cancelled("enough".to_owned());
        assert_eq!(long.cancellation.ending(), Some(enough));
        assert_eq!(live.get(&id("long")).unwrap().0, 1);
        assert!(live.get(&id("1")).is_none());
    }
}
