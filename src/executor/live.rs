//! The runs that were started and have not ended: how to reach them, and what they are writing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use super::Saving;
use crate::clock::Timestamp;
use crate::output::Output;
use crate::run::{Execution, RunId};
use crate::task::cancellation::Ending;
use crate::task::context::Context;
use crate::task::log::Log;

/// Time between two looks at what is to be saved.
const SAVE_PAUSE: Duration = Duration::from_secs(1);
/// Bytes of output that one look gives to be saved; more waits for the next one. With many runs that write much, each
/// is saved the less often.
const SAVE_BYTES_MAX: usize = 512 * 1024;

/// Who executes a run holds its context, and here is only a weak reference: with the end of the run it is worth
/// nothing, whichever way the run ended, and nobody has to report it. Clones share it.
#[derive(Debug, Clone)]
pub struct Live {
    runs: Arc<Mutex<Runs>>,
    /// Is told when a run has written something that is not saved.
    unsaved: Arc<Notify>,
}

#[derive(Debug)]
struct Runs {
    by_id: BTreeMap<RunId, (u32, Weak<Context>)>,
    /// Entries at which those of ended runs are swept out: twice what can run at a time, so that a sweep frees half.
    sweep_at: usize,
    /// What runs had written that a stop has interrupted, until it is saved.
    interrupted: BTreeMap<Execution, Arc<Output>>,
}

impl Live {
    /// An empty list, for at most this many runs at a time.
    pub(super) fn new(most: usize) -> Self {
        let sweep_at = most.max(1) * 2;
        let runs = Runs { by_id: BTreeMap::new(), sweep_at, interrupted: BTreeMap::new() };
        Self { runs: Arc::new(Mutex::new(runs)), unsaved: Arc::default() }
    }

    /// From now on at most this many run at a time.
    pub(super) fn resize(&self, most: usize) {
        self.lock().sweep_at = most.max(1) * 2;
    }

    /// The context of a run that is being started. An earlier attempt of the run is out of reach from then on.
    pub(super) fn add(&self, (run_id, attempt): Execution) -> Arc<Context> {
        let mut runs = self.lock();
        if runs.by_id.len() >= runs.sweep_at {
            runs.by_id.retain(|_, (_, context)| context.strong_count() > 0);
        }
        let log = Log::telling(Arc::clone(&self.unsaved));
        let context = Arc::new(Context { log, ..Context::default() });
        runs.by_id.insert(run_id, (attempt, Arc::downgrade(&context)));
        context
    }

    /// The context of a run, and which attempt it is of, if it has not ended here.
    pub fn get(&self, run_id: &RunId) -> Option<(u32, Arc<Context>)> {
        let runs = self.lock();
        let (attempt, context) = runs.by_id.get(run_id)?;
        Some((*attempt, context.upgrade()?))
    }

    /// Masks these texts in what the runs write from now on.
    pub(super) fn hide(&self, secrets: &[String]) {
        let runs = self.lock();
        let contexts = runs.by_id.values().filter_map(|(_, context)| context.upgrade());
        contexts.for_each(|context| context.log.hide(secrets.iter().cloned()));
    }

    /// Asks all runs to end that have not.
    pub(super) fn cancel_all(&self, reason: &str) {
        let runs = self.lock();
        let contexts = runs.by_id.values().filter_map(|(_, context)| context.upgrade());
        for context in contexts {
            context.cancellation.cancel(Ending::Cancelled(reason.to_owned()));
        }
    }

    /// Asks a run to end, if it has not.
    pub(super) fn cancel(&self, run_id: &RunId, reason: &str) {
        if let Some((_, context)) = self.get(run_id) {
            context.cancellation.cancel(Ending::Cancelled(reason.to_owned()));
        }
    }

    /// Keeps what a run had written that a stop has interrupted: it has no completion that could hold it.
    pub(super) fn interrupted(&self, execution: Execution, output: Output) {
        if !output.is_empty() {
            self.lock().interrupted.insert(execution, Arc::new(output));
        }
    }

    /// Waits until there may be something to save, and a moment longer: most runs end before that.
    pub async fn grown(&self) {
        loop {
            self.unsaved.notified().await;
            tokio::time::sleep(SAVE_PAUSE).await;
            if self.contexts().iter().any(|(_, context)| context.log.is_unsaved()) {
                return;
            }
        }
    }

    /// What is to be saved now: what has waited longest comes first.
    pub(super) fn unsaved_outputs(
        &self,
        now: Timestamp,
        saving: Saving,
    ) -> Vec<(Execution, Arc<Output>)> {
        let mut contexts = self.contexts();
        contexts.retain(|(_, context)| context.log.is_unsaved());
        if !contexts.is_empty() {
            // Also those that are given now are looked at again: saving them may fail.
            self.unsaved.notify_one();
        }
        if saving == Saving::Due {
            contexts.retain(|(_, context)| context.log.unsaved_since(now).is_some());
            // Each is looked at once: a run may close its log meanwhile, and an order that changes is none.
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
        let live = Live::new(100);
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
        let live = Live::new(2);
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
