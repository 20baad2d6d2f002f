//! Builtins on threads of the daemon: a pool has at most `max_workers` of them, started when they
//! are needed and kept for a while. What is handed over beyond that waits here for moments only:
//! the scheduler does so where runs are so short that it could not hand them over fast enough.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::task::task_tracker::TaskTrackerToken;

use rustix::time::{ClockId, clock_gettime};

use super::Assignment;
use super::report::{Ended, Shared, failed, failed_for_good};
use super::shortage::THREAD_PAUSE;
use crate::clock::Clock;
use crate::job::Task;
use crate::run::{Cost, Outcome};
use crate::task::builtin::{Call, Registry, TaskError};
use crate::task::context::Context;

/// How long a thread waits for more before it ends.
const IDLE: Duration = Duration::from_secs(10);

/// A run that was handed over.
#[derive(Debug)]
struct Work {
    shared: Arc<Shared>,
    assignment: Assignment,
    context: Arc<Context>,
    /// Says until when there is something to wait for at a stop.
    _token: TaskTrackerToken,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Work>,
    threads: usize,
    idle: usize,
    max_workers: usize,
    /// A thread could not be started, and somebody tries again.
    is_short: bool,
}

impl Queue {
    /// Whether work waits for which there is no thread, and there may be another one.
    fn is_missing_threads(&self) -> bool {
        self.idle < self.waiting.len() && self.threads < self.max_workers
    }
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

    /// The next work for a thread; none if there was none for a while, or if there are too many threads. Then the
    /// thread is no longer counted.
    fn next(&self) -> Option<Work> {
        let mut queue = self.queue();
        queue.idle += 1;
        let has_none =
            |queue: &mut Queue| queue.waiting.is_empty() && queue.threads <= queue.max_workers;
        let waited = self.changed.wait_timeout_while(queue, IDLE, has_none);
        let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        queue.idle -= 1;
        let is_wanted = queue.threads <= queue.max_workers;
        let work = if is_wanted { queue.waiting.pop_front() } else { None };
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
}

impl ThreadPool {
    /// A pool without threads; they are started when they are needed.
    pub(super) fn new(max_workers: usize) -> Self {
        let pool = Self { desk: Arc::default() };
        pool.resize(max_workers);
        pool
    }

    /// From now on there are at most this many threads. One too many ends when it has done its work.
    pub(super) fn resize(&self, max_workers: usize) {
        let mut queue = self.desk.queue();
        queue.max_workers = max_workers;
        while queue.threads < max_workers
            && queue.threads - queue.idle < queue.waiting.len()
            && add_thread(&self.desk, &mut queue)
        {}
        drop(queue);
        self.desk.changed.notify_all();
    }

    /// Has a run executed as soon as a thread is free.
    pub(super) fn execute(
        &self,
        shared: Arc<Shared>,
        assignment: Assignment,
        context: Arc<Context>,
    ) {
        let token = shared.tracker.token();
        let work = Work { shared, assignment, context, _token: token };
        let mut queue = self.desk.queue();
        queue.waiting.push_back(work);
        if queue.is_missing_threads() {
            add_thread(&self.desk, &mut queue);
            return;
        }
        drop(queue);
        self.desk.changed.notify_one();
    }
}

/// Starts a thread. If the system has none to give, what waits is taken by the threads that there are, and another one
/// is tried later.
fn add_thread(desk: &Arc<Desk>, queue: &mut Queue) -> bool {
    let serving = Arc::clone(desk);
    let thread = std::thread::Builder::new().name("punctual-work".to_owned());
    match thread.spawn(move || serve(&serving)) {
        Ok(_) => {
            queue.threads += 1;
            true
        }
        Err(error) => {
            if let Some(work) = queue.waiting.front()
                && !std::mem::replace(&mut queue.is_short, true)
            {
                tracing::warn!(%error, threads = queue.threads, "no further thread can be started; it is tried again");
                drop(work.shared.runtime.spawn(try_again(Arc::clone(desk))));
            }
            false
        }
    }
}

/// Starts the threads that are missing, as soon as the system has some to give.
async fn try_again(desk: Arc<Desk>) {
    loop {
        tokio::time::sleep(THREAD_PAUSE).await;
        let mut queue = desk.queue();
        while queue.is_missing_threads() && add_thread(&desk, &mut queue) {}
        if !queue.is_missing_threads() {
            queue.is_short = false;
            return;
        }
    }
}

/// A thread's life: one run after the other.
fn serve(desk: &Desk) {
    while let Some(Work { shared, assignment, context, _token }) = desk.next() {
        execute(&shared, &assignment, &context);
    }
}

/// Executes a run on this thread and reports how it ended.
fn execute(shared: &Shared, assignment: &Assignment, context: &Arc<Context>) {
    let started_at = shared.clock.now();
    let ended = if let Some(ending) = context.cancellation.ending() {
        Outcome::from(ending).into()
    } else {
        let _limit = shared.limit(assignment.timeout, context);
        call(&shared.registry, assignment, context, &shared.clock)
    };
    let completion = shared.completion(assignment, context, started_at, ended);
    let Some(completion) = completion else { return };
    if shared.completions.blocking_send(completion).is_err() {
        tracing::debug!("a completion came after the scheduler had stopped");
    }
}

/// Calls the builtin of an assignment on this thread.
pub(super) fn call(
    registry: &Registry,
    assignment: &Assignment,
    context: &Arc<Context>,
    clock: &Arc<dyn Clock>,
) -> Ended {
    let Task::Builtin { name, args } = &*assignment.task else {
        return failed("a threadpool runs builtin tasks only").into();
    };
    let job_id = assignment.job_id.to_string();
    let execution = (assignment.run_id.0.to_string(), assignment.attempt);
    let call =
        Call::new(execution, job_id, args.to_map(), (Arc::clone(context), Arc::clone(clock)))
            .scheduled_at(assignment.scheduled_at)
            .telling_of(assignment.event.clone());
    let before = processor_micros();
    let result = registry.run(name, &call);
    let cpu_micros = processor_micros().checked_sub(before);
    let outcome = match result {
        Ok(result) => Outcome::Succeeded { result: Some(result), exit_code: None },
        Err(TaskError::Passing(error)) => failed(error),
        Err(TaskError::Permanent(error)) => failed_for_good(error),
        Err(TaskError::Cancelled) => match context.cancellation.ending() {
            Some(ending) => ending.into(),
            None => failed("the builtin ended as cancelled, which it was not"),
        },
    };
    Ended { outcome, cost: Cost { cpu_micros, peak_memory: None } }
}

/// How long this thread has been on a processor, in microseconds.
fn processor_micros() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let positive = |number: i64| u64::try_from(number).unwrap_or(0);
    positive(time.tv_sec) * 1_000_000 + positive(time.tv_nsec) / 1000
}
