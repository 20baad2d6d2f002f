//! Builtins on threads of the daemon: a pool has at most `max_workers` of them, started when they
//! are needed and kept for a while. What is handed over beyond that waits here for moments only:
//! the scheduler does so where runs are so short that it could not hand them over fast enough.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::task::task_tracker::TaskTrackerToken;

use super::{Assignment, Shared, failed};
use crate::job::Task;
use crate::run::Outcome;
use crate::task::builtin::{Call, Registry, TaskError};
use crate::task::cancellation::Cancellation;
use crate::task::output::Tail;

/// How long a thread waits for more before it ends.
const IDLE: Duration = Duration::from_secs(10);

/// A run that was handed over.
#[derive(Debug)]
struct Work {
    shared: Arc<Shared>,
    assignment: Assignment,
    cancellation: Arc<Cancellation>,
    /// Says until when there is something to wait for at a stop.
    _token: TaskTrackerToken,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Work>,
    threads: usize,
    idle: usize,
}

#[derive(Debug, Default)]
struct Desk {
    queue: Mutex<Queue>,
    /// Wakes a thread that is idle.
    changed: Condvar,
}

impl Desk {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next work for a thread; none if there was none for a while, and then the thread is no longer counted.
    fn next(&self) -> Option<Work> {
        let mut queue = self.queue();
        queue.idle += 1;
        let has_none = |queue: &mut Queue| queue.waiting.is_empty();
        let waited = self.changed.wait_timeout_while(queue, IDLE, has_none);
        let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        queue.idle -= 1;
        let work = queue.waiting.pop_front();
        if work.is_none() {
            queue.threads -= 1;
        }
        work
    }
}

/// The threads of one pool.
#[derive(Debug)]
pub(super) struct ThreadPool {
    desk: Arc<Desk>,
    max_workers: usize,
}

impl ThreadPool {
    /// A pool without threads; they are started when they are needed.
    pub(super) fn new(max_workers: usize) -> Self {
        Self { desk: Arc::default(), max_workers }
    }

    /// Has a run executed as soon as a thread is free.
    pub(super) fn execute(
        &self,
        shared: Arc<Shared>,
        assignment: Assignment,
        cancellation: Arc<Cancellation>,
    ) {
        let token = shared.tracker.token();
        let work = Work { shared, assignment, cancellation, _token: token };
        let mut queue = self.desk.queue();
        queue.waiting.push_back(work);
        if queue.idle >= queue.waiting.len() || queue.threads >= self.max_workers {
            drop(queue);
            self.desk.changed.notify_one();
            return;
        }
        queue.threads += 1;
        let desk = Arc::clone(&self.desk);
        let name = "punctual-work".to_owned();
        let spawned = std::thread::Builder::new().name(name).spawn(move || serve(&desk));
        if let Err(error) = spawned {
            queue.threads -= 1;
            tracing::error!(%error, threads = queue.threads, "no further thread could be started");
        }
    }
}

/// A thread's life: one run after the other.
fn serve(desk: &Desk) {
    while let Some(Work { shared, assignment, cancellation, _token }) = desk.next() {
        execute(&shared, &assignment, &cancellation);
    }
}

/// Executes a run on this thread and reports how it ended.
fn execute(shared: &Shared, assignment: &Assignment, cancellation: &Arc<Cancellation>) {
    let started_at = shared.clock.now();
    let (outcome, output) = match cancellation.reason() {
        Some(reason) => (Outcome::Cancelled { reason }, Tail::default()),
        None => call(&shared.registry, assignment, cancellation),
    };
    let completion = shared.completion(assignment.execution(), started_at, outcome, output);
    let Some(completion) = completion else { return };
    if shared.completions.blocking_send(completion).is_err() {
        tracing::debug!("a completion came after the scheduler had stopped");
    }
}

/// Calls the builtin of an assignment on this thread.
pub(super) fn call(
    registry: &Registry,
    assignment: &Assignment,
    cancellation: &Arc<Cancellation>,
) -> (Outcome, Tail) {
    let Task::Builtin { name, args } = &*assignment.task else {
        return (failed("a threadpool runs builtin tasks only", None), Tail::default());
    };
    let job_id = assignment.job_id.to_string();
    let call = Call::new(assignment.run_id.0.to_string(), job_id, assignment.attempt, args.clone())
        .scheduled_at(assignment.scheduled_at)
        .cancelled_by(Arc::clone(cancellation));
    let outcome = match registry.run(name, &call) {
        Ok(result) => Outcome::Succeeded { result: Some(result), exit_code: None },
        Err(TaskError::Passing(error)) => failed(error, None),
        Err(TaskError::Permanent(error)) => {
            Outcome::Failed { error, exit_code: None, permanent: true }
        }
        Err(TaskError::Cancelled) => match cancellation.reason() {
            Some(reason) => Outcome::Cancelled { reason },
            None => failed("the builtin ended as cancelled, which it was not", None),
        },
    };
    (outcome, call.take_output())
}
