//! A pool of threads of the daemon that run builtins: at most `max_workers`, started when they are needed and kept for a
//! while. Runs beyond that wait here, but only for moments: the scheduler hands more runs over than there are threads
//! only where runs are so short that it could not keep the threads busy otherwise.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::task::task_tracker::TaskTrackerToken;

use super::assignment::Assignment;
use super::builtin_call::run_builtin;
use super::run::ExecutorServices;
use super::shortage::THREAD_PAUSE;
use crate::job::Builtin;
use crate::run::Outcome;
use crate::task::builtin::Call;
use crate::task::context::Context;

/// How long an idle thread waits for a run before it ends.
const IDLE: Duration = Duration::from_secs(10);

/// A run that waits for a thread.
#[derive(Debug)]
struct WaitingCall {
    services: Arc<ExecutorServices>,
    builtin: Arc<Builtin>,
    assignment: Assignment,
    context: Arc<Context>,
    /// Makes a stop wait until the run has ended.
    _token: TaskTrackerToken,
}

#[derive(Debug, Default)]
struct ThreadQueue {
    waiting: VecDeque<WaitingCall>,
    threads: usize,
    idle: usize,
    max_workers: usize,
    /// A thread could not be started, and a task tries again.
    is_short: bool,
}

impl ThreadQueue {
    /// Whether a run waits, no idle thread can take it, and another thread is allowed.
    fn is_missing_threads(&self) -> bool {
        self.idle < self.waiting.len() && self.threads < self.max_workers
    }
}

/// The threads of one pool. They are started when they are needed.
#[derive(Debug, Default)]
pub(super) struct ThreadPool {
    queue: Mutex<ThreadQueue>,
    /// Wakes an idle thread.
    changed: Condvar,
}

impl ThreadPool {
    fn queue(&self) -> MutexGuard<'_, ThreadQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the number of threads. A surplus thread ends after its current run.
    pub(super) fn resize(self: &Arc<Self>, max_workers: usize) {
        let mut queue = self.queue();
        queue.max_workers = max_workers;
        while queue.threads < max_workers
            && queue.threads - queue.idle < queue.waiting.len()
            && add_thread(self, &mut queue)
        {}
        drop(queue);
        self.changed.notify_all();
    }

    /// Executes a run as soon as a thread is free.
    pub(super) fn execute(
        self: &Arc<Self>,
        services: Arc<ExecutorServices>,
        builtin: Arc<Builtin>,
        assignment: Assignment,
        context: Arc<Context>,
    ) {
        let token = services.tracker.token();
        let call = WaitingCall { services, builtin, assignment, context, _token: token };
        let mut queue = self.queue();
        queue.waiting.push_back(call);
        if queue.is_missing_threads() {
            add_thread(self, &mut queue);
            return;
        }
        drop(queue);
        self.changed.notify_one();
    }

    /// Waits for the next run. `None` means that the thread has to end, and is no longer counted: no run came for a
    /// while, or the pool has too many threads.
    fn next(&self) -> Option<WaitingCall> {
        let mut queue = self.queue();
        queue.idle += 1;
        let has_none = |queue: &mut ThreadQueue| {
            queue.waiting.is_empty() && queue.threads <= queue.max_workers
        };
        let waited = self.changed.wait_timeout_while(queue, IDLE, has_none);
        let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        queue.idle -= 1;
        let is_wanted = queue.threads <= queue.max_workers;
        let call = if is_wanted { queue.waiting.pop_front() } else { None };
        if call.is_none() {
            queue.threads -= 1;
        }
        call
    }
}

/// Starts a thread; false if the system has none. Then the existing threads take what waits, and a task tries again.
fn add_thread(pool: &Arc<ThreadPool>, queue: &mut ThreadQueue) -> bool {
    let serving = Arc::clone(pool);
    let thread = std::thread::Builder::new().name("punctual-work".to_owned());
    match thread.spawn(move || run_calls(&serving)) {
        Ok(_) => {
            queue.threads += 1;
            true
        }
        Err(error) => {
            if let Some(call) = queue.waiting.front()
                && !std::mem::replace(&mut queue.is_short, true)
            {
                tracing::warn!(%error, threads = queue.threads, "no further thread could be started; trying again");
                drop(call.services.runtime.spawn(retry_threads(Arc::clone(pool))));
            }
            false
        }
    }
}

/// Starts the missing threads as soon as the system has some.
async fn retry_threads(pool: Arc<ThreadPool>) {
    loop {
        tokio::time::sleep(THREAD_PAUSE).await;
        let mut queue = pool.queue();
        while queue.is_missing_threads() && add_thread(&pool, &mut queue) {}
        if !queue.is_missing_threads() {
            queue.is_short = false;
            return;
        }
    }
}

/// The main function of a thread: runs one builtin after the other.
fn run_calls(pool: &ThreadPool) {
    while let Some(call) = pool.next() {
        execute(&call);
    }
}

/// Executes a run on this thread, and reports how it ended.
fn execute(call: &WaitingCall) {
    let WaitingCall { services, builtin, assignment, context, _token } = call;
    let started_at = services.clock.now();
    let end = if let Some(ending) = context.cancellation.ending() {
        Outcome::from(ending).into()
    } else {
        let _timeout = services.start_timeout(assignment.timeout, context);
        let call = Call {
            run_id: assignment.run_id.0.to_string(),
            job_id: assignment.job_id.to_string(),
            attempt: assignment.attempt,
            scheduled_at: assignment.scheduled_at,
            args: builtin.args.to_map(),
            event: assignment.event.clone(),
            context: Arc::clone(context),
            clock: Arc::clone(&services.clock),
        };
        run_builtin(&services.registry, &builtin.name, &call)
    };
    let completion = services.completion(assignment, context, started_at, end);
    let Some(completion) = completion else { return };
    if services.completions.blocking_send(completion).is_err() {
        tracing::debug!("a completion came after the scheduler had stopped");
    }
}
