//! The runs that were started and have not ended: how to reach them, and what they are writing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::run::{Execution, RunId};
use crate::task::cancellation::Ending;
use crate::task::context::Context;

/// Who executes a run holds its context, and here is only a weak reference: with the end of the run it is worth
/// nothing, whichever way the run ended, and nobody has to report it. Clones share it.
#[derive(Debug, Clone)]
pub struct Live {
    runs: Arc<Mutex<Runs>>,
}

#[derive(Debug)]
struct Runs {
    by_id: BTreeMap<RunId, (u32, Weak<Context>)>,
    /// Entries at which those of ended runs are swept out: twice what can run at a time, so that a sweep frees half.
    sweep_at: usize,
}

impl Live {
    /// None yet, of at most so many at a time.
    pub(super) fn new(most: usize) -> Self {
        let runs = Runs { by_id: BTreeMap::new(), sweep_at: most.max(1) * 2 };
        Self { runs: Arc::new(Mutex::new(runs)) }
    }

    /// From now on at most so many run at a time.
    pub(super) fn resize(&self, most: usize) {
        self.lock().sweep_at = most.max(1) * 2;
    }

    /// The context of a run that is being started. An earlier attempt of the run is out of reach from then on.
    pub(super) fn add(&self, (run_id, attempt): Execution) -> Arc<Context> {
        let mut runs = self.lock();
        if runs.by_id.len() >= runs.sweep_at {
            runs.by_id.retain(|_, (_, context)| context.strong_count() > 0);
        }
        let context = Arc::new(Context::default());
        runs.by_id.insert(run_id, (attempt, Arc::downgrade(&context)));
        context
    }

    /// The context of a run, and which attempt it is of, if it has not ended here.
    pub fn get(&self, run_id: &RunId) -> Option<(u32, Arc<Context>)> {
        let runs = self.lock();
        let (attempt, context) = runs.by_id.get(run_id)?;
        Some((*attempt, context.upgrade()?))
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

    fn lock(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
