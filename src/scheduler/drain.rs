//! The end of the loop: no run is started any more, running ones may end until a deadline, then the executors are stopped,
//! and the ends are recorded. A store that fails does not prevent this: writes are tried again, and a step that hangs is
//! dropped at the deadline.

use std::time::Duration;

use chrono::TimeDelta;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Scheduler;
use super::alarm::Alarm;
use super::backoff::Backoff;
use super::recovery::Recovered;
use super::serve::{BATCH, LoopInputs, refuse, take_waiting};
use crate::clock::{Clock, Timestamp};
use crate::executor::{Completion, Executor, STOP_LIMIT, Saving};
use crate::store::{Store, StoreError};

/// What the ledger says of a run that was interrupted by the stop.
const NOT_WAITED_FOR: &str = "the daemon stopped before it ended";
/// Longest pause between two tries of a store that fails: somebody waits for the stop.
const PAUSE_MAX: TimeDelta = TimeDelta::seconds(1);
/// How long the last writes are tried again after running work had to be stopped. With the default drain of 30 s and
/// [`STOP_LIMIT`] the sum stays below the 60 s of the systemd unit.
const LAST_WRITES: Duration = Duration::from_secs(8);
/// How long the only try of the last writes may take when the deadline has passed already, or nothing is to be recorded.
const LAST_TRY: Duration = Duration::from_secs(3);
/// Pause between two tries of the last writes.
const LAST_PAUSE: Duration = Duration::from_millis(250);

/// The longest that a stop of the loop takes beyond its drain limit, if the store answers or fails in time.
pub const STOP_MAX: Duration = STOP_LIMIT.saturating_add(LAST_WRITES).saturating_add(LAST_TRY);

/// How the loop stops.
#[derive(Debug, Clone)]
pub struct Drain {
    /// How long what runs may go on.
    pub limit: Duration,
    /// Cancelled when that is no longer wanted: what runs is ended now.
    pub hurry: CancellationToken,
}

/// How the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Runs that had to be interrupted.
    pub interrupted: usize,
    /// Runs whose end, or interruption, could not be recorded. The next start finds them in flight.
    pub unrecorded: usize,
}

/// When runs are no longer waited for.
#[derive(Debug)]
pub(super) struct Deadline {
    shutdown: CancellationToken,
    drain: Drain,
    /// Known once the shutdown was noticed.
    at: Option<Instant>,
}

impl Deadline {
    /// Some time after the shutdown.
    pub(super) fn new(shutdown: CancellationToken, drain: Drain) -> Self {
        Self { shutdown, drain, at: None }
    }

    /// Returns once the deadline has passed.
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
    (mut alarm, mut backoff, mut deadline): (Alarm, Backoff, Deadline),
) -> std::io::Result<Drained> {
    scheduler.drain();
    inputs.commands.close();
    backoff.limit(PAUSE_MAX);
    wait_for_runs(&mut scheduler, clock, &mut inputs, (&mut alarm, &mut backoff, &mut deadline))
        .await?;
    let interrupted = scheduler.in_progress();
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

/// Returns when all runs have ended and that is recorded, when nothing is left that could be recorded, or when the
/// deadline has passed.
async fn wait_for_runs<S: Store, X: Executor, C: Clock>(
    scheduler: &mut Scheduler<S, X>,
    clock: &C,
    inputs: &mut LoopInputs,
    (alarm, backoff, deadline): (&mut Alarm, &mut Backoff, &mut Deadline),
) -> std::io::Result<()> {
    let (mut completions, mut told) = (Vec::new(), 0);
    let pulse = scheduler.pulse();
    loop {
        while let Ok(command) = inputs.commands.try_recv() {
            refuse(command);
        }
        take_waiting(&mut inputs.completions, &mut completions);
        scheduler.take_completions(std::mem::take(&mut completions));
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
            Err(_) => scheduler.unrecorded(),
        };
        if left == 0 {
            return Ok(());
        }
        if told != left {
            told = left;
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
/// tried again until the limit is over, and at least once.
async fn record<S: Store, X: Executor, C: Clock>(
    scheduler: &mut Scheduler<S, X>,
    clock: &C,
    inlet: &mut mpsc::Receiver<Completion>,
    time: Duration,
) -> Result<Recovered, StoreError> {
    let mut completions = Vec::new();
    while let Ok(completion) = inlet.try_recv() {
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

/// Says what could not be recorded, and returns of how many runs.
fn report_missing<S: Store, X: Executor>(scheduler: &Scheduler<S, X>, error: &StoreError) -> usize {
    let runs = scheduler.unrecorded();
    if runs > 0 {
        tracing::warn!(runs, %error, "the ends of these runs could not be recorded before the daemon stopped; \
            the next start finds them in flight, and decides about them as after a crash");
    } else {
        tracing::warn!(%error, "the store failed during the stop; the ends of all runs are recorded");
    }
    runs
}

impl<S: Store, X: Executor> Scheduler<S, X> {
    /// The last writes of a scheduler whose executor is stopped: what has ended, what was interrupted, and that this
    /// node leaves. It can be called again after an error.
    pub async fn finish(
        &mut self,
        now: Timestamp,
        completions: Vec<Completion>,
    ) -> Result<Recovered, StoreError> {
        self.save_outputs(Saving::All);
        self.tick(now, Vec::new(), completions).await?;
        while self.is_isolating() {
            self.tick(now, Vec::new(), Vec::new()).await?;
        }
        let recovered = self.recover_own(now, NOT_WAITED_FOR).await?;
        self.leave(now).await?;
        Ok(recovered)
    }

    /// A step was dropped before it ended: whether it was written is not known.
    pub fn forget_step(&mut self) {
        self.is_stale = true;
        self.peers.hint();
        self.wakes_at(None);
        self.pulse().step_ends();
    }

    /// Runs that were started here and whose end is not in the ledger.
    fn unrecorded(&self) -> usize {
        self.executing.len()
    }

    /// Runs that were started here and have not ended.
    fn in_progress(&self) -> usize {
        let executing = self.executing.keys();
        executing.filter(|execution| !self.unrecorded.contains_key(*execution)).count()
    }
}
