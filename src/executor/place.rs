//! Runs that need neither a thread nor a process: a task of the runtime carries out each, as many at a time as its pool
//! has workers.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::Assignment;
use super::report::Shared;
use super::shortage::Shortage;
use crate::run::Outcome;
use crate::task::context::Context;

/// Carries out a run once there is a place for it, and reports how it ended. Its time begins with the attempt, not with
/// the wait; a cancel or a timeout drops the attempt.
pub(super) async fn execute<F>(
    shared: &Shared,
    (assignment, context): (&Assignment, &Arc<Context>),
    places: &Semaphore,
    attempt: impl Fn() -> F,
) where
    F: Future<Output = Result<Outcome, Shortage>>,
{
    let cancellation = &context.cancellation;
    let until_cancelled = || async {
        if let Some(ending) = cancellation.ending() {
            return Ok(ending.into());
        }
        tokio::select! {
            biased;
            outcome = attempt() => outcome,
            ending = cancellation.cancelled() => Ok(ending.into()),
        }
    };
    let (started_at, outcome) = tokio::select! {
        biased;
        ending = cancellation.cancelled() => (shared.clock.now(), ending.into()),
        // Nobody closes it.
        _place = places.acquire() => {
            shared.when_possible(assignment, context, until_cancelled).await
        }
    };
    shared.report(assignment, context, started_at, outcome.into()).await;
}
