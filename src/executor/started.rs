//! How to reach the runs that were started and have not ended.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use crate::run::RunId;
use crate::task::cancellation::Cancellation;

/// The runs that can be cancelled. Who executes a run holds its cancellation, and here is only a weak reference: with
/// the end of the run it is worth nothing, whichever way the run ended, and nobody has to report it.
#[derive(Debug)]
pub(super) struct Started {
    runs: BTreeMap<RunId, Weak<Cancellation>>,
    /// Entries at which those of ended runs are swept out: twice what can run at a time, so that a sweep frees half.
    sweep_at: usize,
}

impl Started {
    /// None yet, of at most so many at a time.
    pub(super) fn new(most: usize) -> Self {
        Self { runs: BTreeMap::new(), sweep_at: most.max(1) * 2 }
    }

    /// The cancellation of a run that is being started. An earlier attempt of the run is out of reach from then on.
    pub(super) fn add(&mut self, run_id: RunId) -> Arc<Cancellation> {
        if self.runs.len() >= self.sweep_at {
            self.runs.retain(|_, cancellation| cancellation.strong_count() > 0);
        }
        let cancellation = Arc::new(Cancellation::default());
        self.runs.insert(run_id, Arc::downgrade(&cancellation));
        cancellation
    }

    /// Asks all runs to end that have not.
    pub(super) fn cancel_all(&self, reason: &str) {
        self.runs.values().filter_map(Weak::upgrade).for_each(|run| run.cancel(reason));
    }

    /// Asks a run to end, if it has not.
    pub(super) fn cancel(&self, run_id: &RunId, reason: &str) {
        if let Some(cancellation) = self.runs.get(run_id).and_then(Weak::upgrade) {
            cancellation.cancel(reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_have_ended_are_forgotten_and_those_that_run_are_not() {
        let mut started = Started::new(2);
        let long = started.add(RunId("long".into()));
        for number in 0..1000 {
            started.add(RunId(number.to_string().into()));
            assert!(started.runs.len() <= 4);
        }
        started.cancel(&RunId("long".into()), "enough");
        assert_eq!(long.reason().as_deref(), Some("enough"));
    }
}
