//! The loop around [`Scheduler::tick`]: gathers what has arrived, brings the time, sleeps until
//! the next instant. What arrives while a step is being written is the next step's, so that many
//! callers share one transaction.

use std::time::Duration;

use chrono::TimeDelta;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Scheduler;
use super::alarm::Alarm;
use super::command::Command;
use crate::clock::{Clock, Timestamp};
use crate::executor::{Completion, Executor};
use crate::store::{Store, StoreError};

/// Commands, and completions, that one step takes.
const BATCH: usize = 1000;
/// First pause after the store has failed, doubled up to the last one.
const BACK_OFF_FIRST: TimeDelta = TimeDelta::milliseconds(100);
const BACK_OFF_LAST: TimeDelta = TimeDelta::seconds(10);
/// What the ledger says of a run that the daemon did not wait for any longer.
const NOT_WAITED_FOR: &str = "the daemon stopped before it ended";

/// What the loop is connected to.
#[derive(Debug)]
pub struct Inlets {
    /// What is asked.
    pub commands: mpsc::Receiver<Command>,
    /// What has ended.
    pub completions: mpsc::Receiver<Completion>,
    /// That other nodes have said that there is something to see.
    pub hints: mpsc::Receiver<()>,
    /// The end of the loop.
    pub shutdown: CancellationToken,
}

/// Why the loop broke off.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The system's timer cannot be used.
    #[error("the timer failed: {0}")]
    Timer(#[from] std::io::Error),
    /// What had ended could not be recorded before the end; the next start finds it in the ledger.
    #[error("not everything was recorded before the end: {0}")]
    Store(#[from] StoreError),
}

/// How the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Runs that had to be interrupted.
    pub interrupted: usize,
}

/// Runs the scheduler until `shutdown`, then lets what runs end for at most `drain_limit`, and records the rest.
pub async fn serve<S: Store, X: Executor, C: Clock>(
    mut scheduler: Scheduler<S, X>,
    clock: C,
    mut inlets: Inlets,
    drain_limit: Duration,
) -> Result<Drained, ServeError> {
    let mut alarm = Alarm::new()?;
    let mut back_off = BackOff::default();
    let mut next = Some(clock.now());
    while !inlets.shutdown.is_cancelled() {
        let (mut commands, mut completions) = (Vec::new(), Vec::new());
        tokio::select! {
            biased;
            () = inlets.shutdown.cancelled() => break,
            _ = inlets.completions.recv_many(&mut completions, BATCH) => {}
            _ = inlets.commands.recv_many(&mut commands, BATCH) => {}
            Some(()) = inlets.hints.recv() => scheduler.hint(),
            woken = alarm.wait_until(next) => woken?,
        }
        take_waiting(&mut inlets.completions, &mut completions);
        take_waiting(&mut inlets.commands, &mut commands);
        let result = scheduler.tick(clock.now(), commands, completions).await;
        next = back_off.next(result, clock.now());
    }
    drain(scheduler, &clock, inlets, (alarm, drain_limit)).await
}

async fn drain<S: Store, X: Executor, C: Clock>(
    mut scheduler: Scheduler<S, X>,
    clock: &C,
    mut inlets: Inlets,
    (mut alarm, limit): (Alarm, Duration),
) -> Result<Drained, ServeError> {
    scheduler.drain();
    inlets.commands.close();
    let mut deadline = std::pin::pin!(tokio::time::sleep(limit));
    let mut completions = Vec::new();
    loop {
        let mut commands = Vec::new();
        take_waiting(&mut inlets.commands, &mut commands);
        take_waiting(&mut inlets.completions, &mut completions);
        let next = scheduler.tick(clock.now(), commands, std::mem::take(&mut completions)).await?;
        if scheduler.running() == 0 {
            scheduler.leave(clock.now()).await?;
            return Ok(Drained { interrupted: 0 });
        }
        tracing::info!(running = scheduler.running(), "waiting for runs to end");
        tokio::select! {
            biased;
            _ = inlets.completions.recv_many(&mut completions, BATCH) => {}
            () = &mut deadline => break,
            woken = alarm.wait_until(next) => woken?,
        }
    }
    scheduler.executor().stop().await;
    take_waiting(&mut inlets.completions, &mut completions);
    scheduler.tick(clock.now(), Vec::new(), completions).await?;
    let recovered = scheduler.recover_own(clock.now(), NOT_WAITED_FOR).await?;
    scheduler.leave(clock.now()).await?;
    Ok(Drained { interrupted: recovered.rerun + recovered.lost })
}

/// Adds what is there already, up to a batch.
fn take_waiting<T>(inlet: &mut mpsc::Receiver<T>, taken: &mut Vec<T>) {
    while taken.len() < BATCH
        && let Ok(item) = inlet.try_recv()
    {
        taken.push(item);
    }
}

/// When to try again while the store fails; says so once, not at each try.
#[derive(Debug, Default)]
struct BackOff {
    pause: Option<TimeDelta>,
}

impl BackOff {
    fn next(
        &mut self,
        result: Result<Option<Timestamp>, StoreError>,
        now: Timestamp,
    ) -> Option<Timestamp> {
        match (result, self.pause) {
            (Ok(next), None) => next,
            (Ok(next), Some(_)) => {
                tracing::info!("the store can be used again");
                self.pause = None;
                next
            }
            (Err(error), pause) => {
                if pause.is_none() {
                    tracing::error!(%error, "the store failed; trying again");
                }
                let pause =
                    pause.map_or(BACK_OFF_FIRST, |pause| (pause + pause).min(BACK_OFF_LAST));
                self.pause = Some(pause);
                now.checked_add_signed(pause)
            }
        }
    }
}
