//! What the loop receives, and how much of it one step takes.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::request::{PendingRequest, RequestError};
use crate::executor::Completion;

/// Completions that one step takes.
pub(super) const BATCH: usize = 1000;
/// Work of the requests that one step takes, in jobs of usual size: a few milliseconds. What is due fires between two
/// steps, so this bounds how late requests can make it.
const REQUESTS_WEIGHT: usize = 256;

/// What the loop is connected to.
#[derive(Debug)]
pub struct LoopInputs {
    pub requests: mpsc::Receiver<PendingRequest>,
    pub completions: mpsc::Receiver<Completion>,
    /// The store's hints that another node has changed something.
    pub hints: mpsc::Receiver<()>,
    /// A message when outputs of running attempts have grown.
    pub outputs: mpsc::Receiver<()>,
    /// Cancelled to end the loop: nothing more is started, and running attempts may go on until the drain limit.
    pub shutdown: CancellationToken,
}

/// The next request: the one that the last step left, or the first that waits.
pub(super) async fn next_request(
    receiver: &mut mpsc::Receiver<PendingRequest>,
    left: &mut Option<PendingRequest>,
) -> Option<PendingRequest> {
    match left.take() {
        Some(pending) => Some(pending),
        None => receiver.recv().await,
    }
}

/// Adds the waiting requests that fit into one step. Returns the one that is too much.
pub(super) fn take_requests(
    receiver: &mut mpsc::Receiver<PendingRequest>,
    taken: &mut Vec<PendingRequest>,
) -> Option<PendingRequest> {
    let mut weight: usize = taken.iter().map(|pending| pending.request.weight()).sum();
    while weight < REQUESTS_WEIGHT {
        let pending = receiver.try_recv().ok()?;
        weight += pending.request.weight();
        if weight > REQUESTS_WEIGHT && !taken.is_empty() {
            return Some(pending);
        }
        taken.push(pending);
    }
    None
}

/// Refuses a request because the daemon stops.
pub(super) fn refuse(pending: PendingRequest) {
    // The client may no longer wait.
    drop(pending.reply.send(Err(RequestError::Stopping)));
}

/// Adds the completions that wait, up to a batch.
pub(super) fn take_completions(
    receiver: &mut mpsc::Receiver<Completion>,
    taken: &mut Vec<Completion>,
) {
    while taken.len() < BATCH
        && let Ok(completion) = receiver.try_recv()
    {
        taken.push(completion);
    }
}
