//! Executors for tests of the scheduler: they execute nothing.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use punctual::clock::Timestamp;
use punctual::executor::{Assignment, Executor, Heartbeat, PoolSettings, Saving};
use punctual::output::Output;
use punctual::run::{Execution, RunId};

/// What a fake executor does when it is called. A method that is not implemented does nothing.
pub trait Fake: Debug + Send + 'static {
    fn start(&mut self, _pool: &str, _assignment: Assignment) {}

    fn cancel(&mut self, _run_id: &RunId, _reason: &str) {}

    fn unsaved_outputs(&mut self) -> Vec<(Execution, Arc<Output>)> {
        Vec::new()
    }

    fn output_saved(&mut self, _execution: &Execution, _output: &Output) {}

    fn send_heartbeat(&mut self, _heartbeat: Heartbeat) {}
}

/// An executor that executes nothing, and does what its fake wants instead.
#[derive(Debug)]
pub struct FakeExecutor<F>(pub F);

impl<F: Fake> Executor for FakeExecutor<F> {
    fn start(&mut self, pool: &str, assignment: Assignment) {
        self.0.start(pool, assignment);
    }

    fn cancel(&mut self, run_id: &RunId, reason: &str) {
        self.0.cancel(run_id, reason);
    }

    fn unsaved_outputs(&mut self, _: Timestamp, _: Saving) -> Vec<(Execution, Arc<Output>)> {
        self.0.unsaved_outputs()
    }

    fn output_saved(&mut self, execution: &Execution, output: &Output, _: Timestamp) {
        self.0.output_saved(execution, output);
    }

    fn send_heartbeat(&mut self, heartbeat: Heartbeat) {
        self.0.send_heartbeat(heartbeat);
    }

    fn kill_orphans(&mut self, _: &[Execution]) {}

    fn resize(&mut self, _: &BTreeMap<String, PoolSettings>) {}

    async fn stop(&mut self) {}
}

/// Forgets what it is given, as an executor does whose process dies at once.
#[derive(Debug)]
pub struct Forgetful;

impl Fake for Forgetful {}

/// Panics when it is given a run: for tests in which nothing is due.
#[derive(Debug)]
pub struct Unused;

impl Fake for Unused {
    fn start(&mut self, _: &str, assignment: Assignment) {
        panic!("{assignment:?} is not due");
    }

    fn send_heartbeat(&mut self, heartbeat: Heartbeat) {
        panic!("{heartbeat:?} has no run");
    }
}
