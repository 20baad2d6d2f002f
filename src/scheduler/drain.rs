//! The end of the loop. Nothing is started any more, and running attempts may end until a deadline; then the executor is
//! stopped, and the ends are recorded. A store that fails does not prevent this: writes are tried again, and a step that
//! hangs is dropped at the deadline. That is safe at any of its awaits, because completions stay in memory until a commit is
//! known to have succeeded, and memory is rebuilt from the ledger after a step whose fate is unknown.

use std::time::Duration;

use chrono::TimeDelta;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Scheduler;
use super::alarm::Alarm;
use super::backoff::Backoff;
use super::inputs::{BATCH, LoopInputs, refuse, take_completions};
use super::recovery::Recovered;
use crate::clock::Clock;
use crate::executor::{Completion, Executor, STOP_LIMIT, Saving};
use crate::store::{Store, StoreError};

/// Longest pause between two tries of a store that fails, because somebody waits for the stop.
const PAUSE_MAX: TimeDelta = TimeDelta::seconds(1);
/// How long the last writes are tried again after running attempts were interrupted. With the default drain of 30 s and
/// [`STOP_LIMIT`] the sum stays below the 60 s of the systemd unit.
const LAST_WRITES: Duration = Duration::from_secs(8);
/// How long the only try of the last writes may take when nothing was interrupted.
const LAST_TRY: Duration = Duration::from_secs(3);
/// Pause between two tries of the last writes.
const LAST_PAUSE: Duration = Duration::from_millis(250);

/// The longest time that a stop of the loop takes beyond its drain limit, if the store answers or fails in time.
pub const STOP_MAX: Duration = STOP_LIMIT.saturating_add(LAST_WRITES).saturating_add(LAST_TRY);

/// How the loop stops.
#[derive(Debug, Clone)]
pub struct Drain {
    /// How long running attempts may go on.
    pub limit: Duration,
    /// Cancelled to interrupt running attempts now.
    pub hurry: CancellationToken,
}

/// How the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Runs that were interrupted.
    pub interrupted: usize,
    /// Runs whose end, or interruption, could not be recorded. The next start finds them in flight.
    pub unrecorded: usize,
}

/// When the loop no longer waits for running attempts.
#[derive(Debug)]
pub(super) struct Deadline {
    shutdown: CancellationToken,
    drain: Drain,
    /// Set once the shutdown was noticed.
    at: Option<Instant>,
}

impl Deadline {
    pub(super) fn new(shutdown: CancellationToken, drain: Drain) -> Self {
        Self { shutdown, drain, at: None }
    }

    /// Returns once the deadline has passed. Cancel-safe.
    pub(super) async fn passed(&mut self) {
        self.shutdown.cancelled().await;
        let limit = self.drain.limit;
        let at = *self.at.get_or_insert_with(|| Instant::now() + limit);
        tokio::select! {
            () = tokio::time::sleep_until(at) => {}
            () = self.drain.hurry.cancelled() => {}
        }
    }
}

/// Ends the loop.
pub(super) async fn drain<S: Store, X: Executor, C: Clock>(
    mut scheduler: Scheduler<S, X>,
    clock: &C,
    mut inputs: LoopInputs,
    mut alarm: Alarm,
    mut backoff: Backoff,
    mut deadline: Deadline,
) -> std::io::Result<Drained> {
    scheduler.drain();
    inputs.requests.close();
    backoff.limit(PAUSE_MAX);
    wait_for_runs(&mut scheduler, clock, &mut inputs, &mut alarm, &mut backoff, &mut deadline)
        .await?;
    let interrupted = scheduler.state.executions.in_progress();
    let pulse = scheduler.pulse();
    pulse.while_waiting(scheduler.executor().stop()).await;
    let time = if interrupted > 0 { LAST_WRITES } else { Duration::ZERO };
    let recording = record(&mut scheduler, clock, &mut inputs.completions, time);
    let recorded = pulse.while_waiting(recording).await;
    let unrecorded = match &recorded {
        Ok(_) => 0,
        Err(error) => report_missing(&scheduler, error),
    };
    let interrupted = recorded.map_or(interrupted, |recorded| recorded.rerun + recorded.lost);
    Ok(Drained { interrupted, unrecorded })
}

/// Returns when the ends of all runs are recorded, or when the deadline has passed.
async fn wait_for_runs<S: Store, X: Executor, C: Clock>(
    scheduler: &mut Scheduler<S, X>,
    clock: &C,
    inputs: &mut LoopInputs,
    alarm: &mut Alarm,
    backoff: &mut Backoff,
    deadline: &mut Deadline,
) -> std::io::Result<()> {
    let (mut completions, mut logged) = (Vec::new(), 0);
    let pulse = scheduler.pulse();
    loop {
        while let Ok(pending) = inputs.requests.try_recv() {
            refuse(pending);
        }
        take_completions(&mut inputs.completions, &mut completions);
        scheduler.state.executions.add_completions(std::mem::take(&mut completions));
        let ticked = tokio::select! {
            biased;
            ticked = scheduler.tick(clock.now(), Vec::new(), Vec::new()) => ticked,
            () = deadline.passed() => {
                scheduler.forget_step();
                return Ok(());
            }
        };
        let left = match &ticked {
            Ok(_) => scheduler.running(),
            Err(_) => scheduler.state.executions.started.len(),
        };
        if left == 0 {
            return Ok(());
        }
        if logged != left {
            logged = left;
            tracing::info!(running = left, "waiting for runs to end");
        }
        let next = backoff.next(ticked, clock.now());
        tokio::select! {
            biased;
            () = deadline.passed() => return Ok(()),
            _ = inputs.completions.recv_many(&mut completions, BATCH) => {}
            Some(()) = inputs.outputs.recv() => scheduler.save_outputs(Saving::Due),
            woken = alarm.wait_until(next) => woken?,
            () = pulse.rest() => {}
        }
    }
}

/// Records the runs that ended or were interrupted, and removes this node from the store. While the store fails, this is
/// tried again for `time`, and at least once.
async fn record<S: Store, X: Executor, C: Clock>(
    scheduler: &mut Scheduler<S, X>,
    clock: &C,
    receiver: &mut mpsc::Receiver<Completion>,
    time: Duration,
) -> Result<Recovered, StoreError> {
    let mut completions = Vec::new();
    while let Ok(completion) = receiver.try_recv() {
        completions.push(completion);
    }
    let until = Instant::now() + time;
    loop {
        let limit = until.max(Instant::now() + LAST_TRY);
        let finishing = scheduler.finish(clock.now(), std::mem::take(&mut completions));
        let tried = tokio::time::timeout_at(limit, finishing).await;
        let error = match tried {
            Ok(Ok(recovered)) => return Ok(recovered),
            Ok(Err(error)) => error,
            Err(_) => {
                scheduler.forget_step();
                StoreError::Unavailable("it does not answer".to_owned())
            }
        };
        if Instant::now() + LAST_PAUSE >= until {
            return Err(error);
        }
        tokio::time::sleep(LAST_PAUSE).await;
    }
}

/// Logs what could not be recorded. Returns for how many runs.
fn report_missing<S: Store, X: Executor>(scheduler: &Scheduler<S, X>, error: &StoreError) -> usize {
    let runs = scheduler.state.executions.started.len();
    if runs > 0 {
        tracing::warn!(runs, %error, "the ends of these runs could not be recorded before the daemon stopped; \
            the next start finds them in flight, and decides about them as after a crash");
    } else {
        tracing::warn!(%error, "the store failed during the stop; the ends of all runs are recorded");
    }
    runs
}
