//! The loop around [`Scheduler::tick`]: gathers what has arrived, brings the time, sleeps until
//! the next instant. What arrives while a step is being written is the next step's, so that many
//! callers share one transaction.

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Scheduler;
use super::alarm::Alarm;
use super::backoff::Backoff;
use super::drain::{self, Deadline};
pub use super::drain::{Drain, Drained, STOP_MAX};
use super::request::{PendingRequest, RequestError};
use crate::clock::Clock;
use crate::executor::{Completion, Executor, Saving};
use crate::store::Store;

/// Completions that one step takes.
pub(super) const BATCH: usize = 1000;
/// Work of the commands that one step takes, in jobs of usual size: a few milliseconds. What is due fires between two
/// steps, so this bounds how late requests can make it.
const COMMANDS_WEIGHT: usize = 256;

/// What the loop is connected to.
#[derive(Debug)]
pub struct LoopInputs {
    /// What is asked.
    pub commands: mpsc::Receiver<PendingRequest>,
    /// What has ended.
    pub completions: mpsc::Receiver<Completion>,
    /// That the store has said that there is something to see.
    pub hints: mpsc::Receiver<()>,
    /// That outputs of runs have grown.
    pub outputs: mpsc::Receiver<()>,
    /// The end of the loop: nothing more is started, and what runs may end until the drain limit is over.
    pub shutdown: CancellationToken,
}

/// Runs the scheduler until `shutdown`, then lets what runs end as `drain` says, and records the rest. An error is one of
/// the system's timer.
pub async fn serve<S: Store, X: Executor, C: Clock>(
    mut scheduler: Scheduler<S, X>,
    clock: C,
    mut inputs: LoopInputs,
    drain: Drain,
) -> std::io::Result<Drained> {
    let mut alarm = Alarm::new()?;
    let mut backoff = Backoff::default();
    let mut next = Some(clock.now());
    let mut left = None;
    let mut deadline = Deadline::new(inputs.shutdown.clone(), drain);
    let pulse = scheduler.pulse();
    while !inputs.shutdown.is_cancelled() {
        let (mut commands, mut completions) = (Vec::new(), Vec::new());
        tokio::select! {
            biased;
            () = inputs.shutdown.cancelled() => break,
            _ = inputs.completions.recv_many(&mut completions, BATCH) => {}
            Some(command) = next_command(&mut inputs.commands, &mut left) => commands.push(command),
            Some(()) = inputs.hints.recv() => scheduler.hint(),
            Some(()) = inputs.outputs.recv() => scheduler.save_outputs(Saving::Due),
            woken = alarm.wait_until(next) => woken?,
            () = pulse.rest() => {}
        }
        take_waiting(&mut inputs.completions, &mut completions);
        commands.extend(left.take());
        left = take_commands(&mut inputs.commands, &mut commands);
        pulse.step_begins(Instant::now());
        scheduler.take_completions(completions);
        let result = tokio::select! {
            biased;
            result = scheduler.tick(clock.now(), commands, Vec::new()) => result,
            // The store does not answer, and a stop does not wait for it beyond its deadline.
            () = deadline.passed() => {
                scheduler.forget_step();
                break;
            }
        };
        next = backoff.next(result, clock.now());
        scheduler.wakes_at(next);
        pulse.step_ends();
    }
    if let Some(command) = left {
        refuse(command);
    }
    drain::drain(scheduler, &clock, inputs, (alarm, backoff, deadline)).await
}

/// The next command: the one that the last step left, or the first that waits.
async fn next_command(
    inlet: &mut mpsc::Receiver<PendingRequest>,
    left: &mut Option<PendingRequest>,
) -> Option<PendingRequest> {
    match left.take() {
        Some(command) => Some(command),
        None => inlet.recv().await,
    }
}

/// Adds the commands that wait, as far as a step takes them; gives back the one that is too much.
fn take_commands(
    inlet: &mut mpsc::Receiver<PendingRequest>,
    taken: &mut Vec<PendingRequest>,
) -> Option<PendingRequest> {
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

/// Refuses a command because the daemon stops.
pub(super) fn refuse(command: PendingRequest) {
    // Nobody may be waiting any more.
    drop(command.reply.send(Err(RequestError::Stopping)));
}

/// Adds what is there already, up to a batch.
pub(super) fn take_waiting<T>(inlet: &mut mpsc::Receiver<T>, taken: &mut Vec<T>) {
    while taken.len() < BATCH
        && let Ok(item) = inlet.try_recv()
    {
        taken.push(item);
    }
}
