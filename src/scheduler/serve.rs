//! The loop around [`Scheduler::tick`]: it gathers what has arrived, brings the time, and sleeps until the next instant.
//! What arrives while a step is being written belongs to the next step; its callers share one transaction.

use tokio::time::Instant;

use super::Scheduler;
use super::alarm::Alarm;
use super::backoff::Backoff;
use super::drain::{self, Deadline};
pub use super::drain::{Drain, Drained, STOP_MAX};
pub use super::inputs::LoopInputs;
use super::inputs::{BATCH, next_request, refuse, take_completions, take_requests};
use crate::clock::Clock;
use crate::executor::{Executor, Saving};
use crate::store::Store;

/// Runs the scheduler until `shutdown`, then drains it: running attempts may end as `drain` says, and the rest is recorded.
/// An error is one of the system's timer.
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
        let (mut requests, mut completions) = (Vec::new(), Vec::new());
        tokio::select! {
            biased;
            () = inputs.shutdown.cancelled() => break,
            _ = inputs.completions.recv_many(&mut completions, BATCH) => {}
            Some(request) = next_request(&mut inputs.requests, &mut left) => requests.push(request),
            Some(()) = inputs.hints.recv() => scheduler.hint(),
            Some(()) = inputs.outputs.recv() => scheduler.save_outputs(Saving::Due),
            woken = alarm.wait_until(next) => woken?,
            () = pulse.rest() => {}
        }
        take_completions(&mut inputs.completions, &mut completions);
        requests.extend(left.take());
        left = take_requests(&mut inputs.requests, &mut requests);
        pulse.step_begins(Instant::now());
        // A step that is dropped below must not lose them.
        scheduler.state.executions.add_completions(completions);
        let result = tokio::select! {
            biased;
            result = scheduler.tick(clock.now(), requests, Vec::new()) => result,
            // The store does not answer, and a stop does not wait for it beyond its deadline.
            () = deadline.passed() => {
                scheduler.forget_step();
                break;
            }
        };
        next = backoff.next(result, clock.now());
        scheduler.publisher.set_next_wake(next);
        pulse.step_ends();
    }
    if let Some(pending) = left {
        refuse(pending);
    }
    drain::drain(scheduler, &clock, inputs, alarm, backoff, deadline).await
}
