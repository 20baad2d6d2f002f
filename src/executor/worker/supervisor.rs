//! The task that supervises one worker process: starts it, gives it one run after the other, and reports to the pool how
//! the worker ended.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::error::WorkerError;
use super::handle::WorkerHandle;
use super::pool_state::{PoolShared, QueuedRun, SlotMessage, StartRetry, WorkerAction, WorkerSlot};
use crate::clock::Timestamp;
use crate::executor::assignment::Completion;
use crate::executor::run::failed;
use crate::executor::shortage::is_shortage;
use crate::output::Stream;
use crate::run::Outcome;
use crate::task::log::Log;

/// First pause after a failed start for which no run waits, doubled up to the last one.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_LAST: Duration = Duration::from_mins(1);
/// The longest pause while the system is short of resources, since runs may wait then.
const BACKOFF_SHORTAGE: Duration = Duration::from_secs(5);

/// How a worker ended.
#[derive(Debug)]
pub(super) enum SupervisorEnd {
    /// As the pool wanted: the pool no longer counts the worker.
    Left,
    /// Unexpectedly while it was idle: the pool has to replace it.
    Lost,
    /// Unexpectedly, and it has certainly not read the run that it was given.
    LostUnread(Box<QueuedRun>),
    /// Unexpectedly, and this run has failed with it.
    LostWith(Box<QueuedRun>, Option<Completion>),
}

/// Supervises a worker from its start to its end.
pub(super) async fn supervise(pool: &PoolShared, number: u64) -> SupervisorEnd {
    let Some(mut worker) = start(pool).await else { return SupervisorEnd::Left };
    let (sender, mut messages) = mpsc::channel(1);
    let slot = WorkerSlot { number, messages: sender };
    let mut action = {
        let mut state = pool.state();
        state.start_succeeded();
        state.next_action(&slot)
    };
    loop {
        let run = match action {
            WorkerAction::Run(run) => run,
            WorkerAction::Wait => match wait(pool, &mut worker, number, &mut messages).await {
                WaitEnd::Run(run) => run,
                WaitEnd::Leave => {
                    worker.dismiss().await;
                    return SupervisorEnd::Left;
                }
                WaitEnd::WorkerLost(error, unread) => {
                    let exit = worker.end(|_, _| ()).await;
                    let how = error.describe(&exit.status);
                    tracing::debug!(how, "an idle worker process is gone");
                    return unread.map_or(SupervisorEnd::Lost, SupervisorEnd::LostUnread);
                }
            },
            WorkerAction::Leave => {
                worker.dismiss().await;
                return SupervisorEnd::Left;
            }
        };
        let started_at = pool.services.clock.now();
        let completion = match execute(pool, &mut worker, &run, started_at).await {
            Ok(completion) => completion,
            Err(error) => return end_lost(pool, worker, run, started_at, error).await,
        };
        // The worker becomes idle before the scheduler hears of it, which may then hand the next run over.
        action = pool.state().next_action(&slot);
        pool.services.send_completion(completion).await;
    }
}

/// Has a worker execute a run. After an error the worker can no longer be used.
async fn execute(
    pool: &PoolShared,
    worker: &mut WorkerHandle,
    run: &QueuedRun,
    started_at: Timestamp,
) -> Result<Option<Completion>, WorkerError> {
    let (services, QueuedRun { builtin, assignment, context, .. }) = (&pool.services, run);
    let end = if let Some(ending) = context.cancellation.ending() {
        Outcome::from(ending).into()
    } else {
        let _timeout = services.start_timeout(assignment.timeout, context);
        worker.call(builtin, assignment, context, &services.clock).await?
    };
    Ok(services.completion(assignment, context, started_at, end))
}

/// Ends a worker that failed during a run. The run fails with it, unless the worker has certainly not read the whole
/// call: then the run waits for another worker, but only once.
async fn end_lost(
    pool: &PoolShared,
    worker: WorkerHandle,
    mut run: Box<QueuedRun>,
    started_at: Timestamp,
    error: WorkerError,
) -> SupervisorEnd {
    let (services, log) = (&pool.services, &run.context.log);
    let exit = worker.end(|stream, bytes| log.write(services.clock.now(), stream, bytes)).await;
    let is_unread = matches!(error, WorkerError::EndedUnread) || exit.left_unread;
    if is_unread && !run.was_sent && !matches!(error, WorkerError::Cancelled(_)) {
        run.was_sent = true;
        return SupervisorEnd::LostUnread(run);
    }
    let outcome = error.into_outcome(&exit.status);
    tracing::warn!(run = %run.assignment.run_id.0, ?outcome, "a worker process ended during a run");
    let completion = services.completion(&run.assignment, &run.context, started_at, outcome.into());
    SupervisorEnd::LostWith(run, completion)
}

/// Starts a worker, and tries again as often as needed. `None` if the pool no longer wants it.
async fn start(pool: &PoolShared) -> Option<WorkerHandle> {
    let mut backoff = BACKOFF_FIRST;
    loop {
        let (error, is_shortage) = match try_start(pool).await {
            Ok(worker) => return Some(worker),
            Err(error) => error,
        };
        let retry = {
            let mut state = pool.state();
            if pool.stopping.is_cancelled() {
                state.give_up_start()
            } else {
                state.start_failed(&error, is_shortage)
            }
        };
        match retry {
            StartRetry::GiveUp => return None,
            StartRetry::Now => continue,
            StartRetry::Fail(run) => {
                let error = failed(format!("a worker process could not be started: {error}"));
                pool.services.refuse(&run.assignment, &run.context, error).await;
                continue;
            }
            StartRetry::Later => {}
        }
        if is_shortage {
            backoff = backoff.min(BACKOFF_SHORTAGE);
        }
        tokio::select! {
            () = tokio::time::sleep(backoff) => {}
            () = pool.retry_start.notified() => {}
            () = pool.stopping.cancelled() => {}
        }
        backoff = (backoff * 2).min(BACKOFF_LAST);
    }
}

/// Starts a worker. The error comes with whether the reason is a shortage of the system, not a fault of the program.
async fn try_start(pool: &PoolShared) -> Result<WorkerHandle, (String, bool)> {
    let (program, clock) = (&pool.program, &pool.services.clock);
    let spawned = WorkerHandle::spawn(&pool.spawner, program.times).await;
    let mut worker = spawned.map_err(|error| {
        (format!("{}: {error}", program.program.display()), is_shortage(&error))
    })?;
    let log = Log::default();
    let greeted = tokio::select! {
        greeted = worker.greet(program, &log, clock) => greeted,
        () = pool.stopping.cancelled() => Err(WorkerError::Ended),
    };
    let Err(error) = greeted else { return Ok(worker) };
    let exit = worker.end(|stream, bytes| log.write(clock.now(), stream, bytes)).await;
    let how = error.describe(&exit.status);
    // The last line on stderr usually says the reason.
    let output = log.close(clock.now());
    let last = output.lines().filter(|line| line.stream == Stream::Stderr).last();
    let last = last.map(|line| format!(" ({})", line.text)).unwrap_or_default();
    Err((format!("it {how}{last}"), false))
}

/// Why a worker is no longer idle.
enum WaitEnd {
    Run(Box<QueuedRun>),
    /// The worker has to end, and is no longer counted.
    Leave,
    /// The worker can no longer be used, and the run that it was given has not reached it.
    WorkerLost(WorkerError, Option<Box<QueuedRun>>),
}

/// Watches an idle worker until it gets a run or has to end.
async fn wait(
    pool: &PoolShared,
    worker: &mut WorkerHandle,
    number: u64,
    messages: &mut mpsc::Receiver<SlotMessage>,
) -> WaitEnd {
    let mut until = Some(Instant::now() + pool.program.times.idle);
    loop {
        let error = tokio::select! {
            biased;
            message = messages.recv() => return match message {
                Some(SlotMessage::Run(run)) => WaitEnd::Run(run),
                Some(SlotMessage::Leave) | None => WaitEnd::Leave,
            },
            error = worker.idle(until) => error,
        };
        let Some(error) = error else {
            if pool.state().leave_if_surplus(number) {
                return WaitEnd::Leave;
            }
            until = None;
            continue;
        };
        if pool.state().withdraw(number) {
            return WaitEnd::WorkerLost(error, None);
        }
        // The pool has just sent a message to this worker.
        return match messages.recv().await {
            Some(SlotMessage::Run(run)) => WaitEnd::WorkerLost(error, Some(run)),
            Some(SlotMessage::Leave) | None => WaitEnd::Leave,
        };
    }
}
