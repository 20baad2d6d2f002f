//! The loop around [`Scheduler::tick`]: gathers what has arrived, brings the time, sleeps until
//! the next instant. What arrives while a step is being written is the next step's, so that many
//! callers share one transaction.

use std::time::Duration;

use chrono::TimeDelta;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Scheduler;
use super::alarm::Alarm;
use super::command::{Command, Refusal};
use crate::clock::{Clock, Timestamp};
use crate::executor::{Completion, Executor, Saving};
use crate::store::{Store, StoreError};

/// Completions that one step takes.
const BATCH: usize = 1000;
/// Work of the commands that one step takes, in jobs of usual size: a few milliseconds. What is due fires between two
/// steps, so this bounds how late requests can make it.
const COMMANDS_WEIGHT: usize = 256;
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
    /// That the store has said that there is something to see.
    pub hints: mpsc::Receiver<()>,
    /// That outputs of runs have grown.
    pub outputs: mpsc::Receiver<()>,
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
    let mut left = None;
    while !inlets.shutdown.is_cancelled() {
        let (mut commands, mut completions) = (Vec::new(), Vec::new());
        tokio::select! {
            biased;
            () = inlets.shutdown.cancelled() => break,
            _ = inlets.completions.recv_many(&mut completions, BATCH) => {}
            Some(command) = next_command(&mut inlets.commands, &mut left) => commands.push(command),
            Some(()) = inlets.hints.recv() => scheduler.hint(),
            Some(()) = inlets.outputs.recv() => scheduler.save_outputs(Saving::Due),
            woken = alarm.wait_until(next) => woken?,
        }
        take_waiting(&mut inlets.completions, &mut completions);
        commands.extend(left.take());
        left = take_commands(&mut inlets.commands, &mut commands);
        scheduler.mark_busy(Instant::now());
        let result = scheduler.tick(clock.now(), commands, completions).await;
        next = back_off.next(result, clock.now());
        scheduler.mark_idle(next);
    }
    if let Some(command) = left {
        refuse(command);
    }
    drain(scheduler, &clock, inlets, (alarm, drain_limit)).await
}

/// The next command: the one that the last step left, or the first that waits.
async fn next_command(
    inlet: &mut mpsc::Receiver<Command>,
    left: &mut Option<Command>,
) -> Option<Command> {
    match left.take() {
        Some(command) => Some(command),
        None => inlet.recv().await,
    }
}

/// Adds the commands that wait, as far as a step takes them; gives back the one that is too much.
fn take_commands(inlet: &mut mpsc::Receiver<Command>, taken: &mut Vec<Command>) -> Option<Command> {
    let mut weight: usize = taken.iter().map(|command| command.request.weight()).sum();
    while weight < COMMANDS_WEIGHT {
        let command = inlet.try_recv().ok()?;
        weight += command.request.weight();
        if weight > COMMANDS_WEIGHT && !taken.is_empty() {
            return Some(command);
        }
        taken.push(command);
    }
    None
}

fn refuse(command: Command) {
    // Nobody may be waiting any more.
    drop(command.reply.send(Err(Refusal::Stopping)));
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
    let (mut completions, mut told) = (Vec::new(), 0);
    loop {
        while let Ok(command) = inlets.commands.try_recv() {
            refuse(command);
        }
        take_waiting(&mut inlets.completions, &mut completions);
        let ended = std::mem::take(&mut completions);
        let next = scheduler.tick(clock.now(), Vec::new(), ended).await?;
        if scheduler.running() == 0 {
            scheduler.leave(clock.now()).await?;
            scheduler.executor().stop().await;
            return Ok(Drained { interrupted: 0 });
        }
        if told != scheduler.running() {
            told = scheduler.running();
            tracing::info!(running = told, "waiting for runs to end");
        }
        tokio::select! {
            biased;
            _ = inlets.completions.recv_many(&mut completions, BATCH) => {}
            Some(()) = inlets.outputs.recv() => scheduler.save_outputs(Saving::Due),
            () = &mut deadline => break,
            woken = alarm.wait_until(next) => woken?,
        }
    }
    scheduler.executor().stop().await;
    take_waiting(&mut inlets.completions, &mut completions);
    scheduler.save_outputs(Saving::All);
    scheduler.tick(clock.now(), Vec::new(), completions).await?;
    while scheduler.is_isolating() {
        scheduler.tick(clock.now(), Vec::new(), Vec::new()).await?;
    }
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
    waiting: Option<Waiting>,
}

/// A pause, and when it ends.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    pause: TimeDelta,
    until: Timestamp,
}

impl BackOff {
    fn next(
        &mut self,
        result: Result<Option<Timestamp>, StoreError>,
        now: Timestamp,
    ) -> Option<Timestamp> {
        match (result, self.waiting) {
            (Ok(next), None) => next,
            (Ok(next), Some(_)) => {
                tracing::info!("the store can be used again");
                self.waiting = None;
                next
            }
            // Who asks meanwhile is answered, and makes the pause no longer; a clock that went back does not either.
            (Err(_), Some(Waiting { pause, until })) if now < until && until - now <= pause => {
                Some(until)
            }
            (Err(error), waiting) => {
                if waiting.is_none() {
                    tracing::error!(%error, "the store failed; trying again");
                }
                let doubled = |waiting: Waiting| (waiting.pause + waiting.pause).min(BACK_OFF_LAST);
                let pause = waiting.map_or(BACK_OFF_FIRST, doubled);
                let until = now.checked_add_signed(pause)?;
                self.waiting = Some(Waiting { pause, until });
                Some(until)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_timestamp_millis(1_800_000_000_000 + millis).unwrap()
    }

    #[test]
    fn pauses_grow_while_the_store_fails_however_often_someone_asks() {
        let mut back_off = BackOff::default();
        let mut fail = |millis| {
            let error = StoreError::Unavailable("gone".to_owned());
            let next = back_off.next(Err(error), at(millis)).unwrap();
            (next - at(0)).num_milliseconds()
        };
        assert_eq!(fail(0), 100);
        assert_eq!([fail(10), fail(20), fail(99)], [100; 3], "requests meanwhile");
        assert_eq!([fail(100), fail(150), fail(300), fail(700)], [300, 300, 700, 1500]);
        for number in 1..20 {
            fail(20_000 * number);
        }
        assert_eq!(fail(2_000_000), 2_010_000, "ten seconds at most");
        assert_eq!(fail(0), 10_000, "the clock went back");
        assert_eq!(back_off.next(Ok(Some(at(7))), at(5)), Some(at(7)));
        let error = StoreError::Unavailable("gone".to_owned());
        assert_eq!(back_off.next(Err(error), at(50)), Some(at(150)), "from the beginning");
    }
}
