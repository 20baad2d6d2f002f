//! An executor that only notes what it is given. Its executions live and die with their process,
//! and end when the world says so.

use std::sync::{Arc, Mutex};

use punctual::clock::Timestamp;
use punctual::executor::{Assignment, Completion};
use punctual::output::{Line, Output, Stream};
use punctual::run::{Cost, Execution as Run, Outcome, RunId};

use support::executor::{Fake, FakeExecutor};

use crate::properties::Property;
use crate::store::Shared;

/// A run that is being executed.
#[derive(Debug, Clone)]
pub(crate) struct Execution {
    pub(crate) run_id: RunId,
    pub(crate) attempt: u32,
    /// Whether it reports another run.
    pub(crate) is_hook: bool,
    /// It ends only with its process, or when the world comes to rest.
    pub(crate) is_stuck: bool,
    /// Why it was asked to end.
    pub(crate) cancelled: Option<String>,
}

impl Execution {
    /// The completion that the scheduler gets.
    pub(crate) fn completion(&self, now: Timestamp, outcome: Outcome) -> Completion {
        Completion {
            run_id: self.run_id.clone(),
            attempt: self.attempt,
            started_at: now,
            finished_at: now,
            outcome,
            cost: Cost::default(),
            output: Arc::default(),
        }
    }
}

/// What an attempt writes: it names itself.
pub(crate) fn written((run_id, attempt): &Run) -> Arc<Output> {
    let text = format!("{attempt} of {run_id}");
    let bytes = u64::try_from(text.len()).unwrap();
    let line = Line { at: Timestamp::UNIX_EPOCH, stream: Stream::Stdout, text, is_open: false };
    Arc::new(Output { head: [line].into_iter().collect(), bytes, ..Output::default() })
}

/// What one process executes; the world looks into it.
pub(crate) type Workplace = Arc<Mutex<Vec<Execution>>>;

/// The executor of one process.
pub(crate) type SimExecutor = FakeExecutor<Executions>;

/// What one process does with its executions.
#[derive(Debug)]
pub(crate) struct Executions {
    pub(crate) node: Arc<str>,
    pub(crate) workplace: Workplace,
    pub(crate) shared: Arc<Mutex<Shared>>,
}

impl Fake for Executions {
    fn start(&mut self, pool: &str, assignment: Assignment) {
        let mut shared = self.shared.lock().unwrap();
        let mut workplace = self.workplace.lock().unwrap();
        shared.note(|| {
            format!("{} starts {} of {}", self.node, assignment.attempt, assignment.job_id)
        });
        let stops = shared.draining.contains(&self.node);
        Property::Drains.holds(!stops, || format!("{} starts {}", self.node, assignment.run_id));
        shared.ledger.started(&self.node, pool, &assignment, workplace.len());
        let is_stuck = shared.is_wild && shared.dice.once_in(12);
        let Assignment { run_id, attempt, event, .. } = assignment;
        let is_hook = event.is_some();
        workplace.push(Execution { run_id, attempt, is_hook, is_stuck, cancelled: None });
    }

    fn cancel(&mut self, run_id: &RunId, reason: &str) {
        let mut workplace = self.workplace.lock().unwrap();
        for execution in workplace.iter_mut().filter(|execution| execution.run_id == *run_id) {
            execution.cancelled = Some(reason.to_owned());
        }
    }

    fn unsaved_outputs(&mut self) -> Vec<(Run, Arc<Output>)> {
        let workplace = self.workplace.lock().unwrap();
        let execution = |execution: &Execution| (execution.run_id.clone(), execution.attempt);
        workplace.iter().map(|run| (execution(run), written(&execution(run)))).collect()
    }
}
