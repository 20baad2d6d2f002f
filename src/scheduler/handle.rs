//! How the doors reach the scheduler: requests go in through a bounded queue, each is answered
//! after it has been written, and the status is there to be looked at.

use tokio::sync::{mpsc, oneshot, watch};

use super::command::{Answer, Command, Refusal, Request};
use super::floor::Usage;
use crate::clock::Timestamp;
pub use crate::store::Node;

/// Requests that wait for the scheduler. Beyond that, callers wait for a place.
pub const COMMAND_QUEUE: usize = 1024;

/// How a pool is used.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PoolStatus {
    /// Its name.
    pub name: String,
    /// Workers that run something.
    pub busy: usize,
    /// Workers.
    pub max_workers: usize,
    /// Runs that wait for a worker.
    pub waiting: usize,
    /// Runs that wait for their next attempt.
    pub retrying: usize,
}

impl From<Usage<'_>> for PoolStatus {
    fn from((name, busy, max_workers, waiting, retrying): Usage<'_>) -> Self {
        Self { name: name.to_owned(), busy, max_workers, waiting, retrying }
    }
}

/// How the scheduler stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Counts the steps: it changes whenever something may have changed.
    pub steps: u64,
    /// When the scheduler looks again of itself.
    pub next_wake: Option<Timestamp>,
    /// Runs in flight.
    pub running: usize,
    /// Since when no job fires, if someone paused the scheduler.
    pub paused_since: Option<Timestamp>,
    /// Why the store cannot be used, if the last step failed.
    pub store_error: Option<String>,
    /// Whether nothing is started any more.
    pub draining: bool,
    /// The pools.
    pub pools: Vec<PoolStatus>,
    /// The nodes on a store that nodes share, this one among them.
    pub nodes: Vec<Node>,
}

/// A request that waits for its answer.
#[derive(Debug)]
pub struct Asked {
    answer: oneshot::Receiver<Result<Answer, Refusal>>,
}

impl Asked {
    /// The answer, once it is there.
    pub async fn answer(self) -> Result<Answer, Refusal> {
        self.answer.await.map_err(|_| Refusal::Stopping)?
    }
}

/// A way to ask the scheduler.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Status>,
}

impl Handle {
    /// A handle to the scheduler that reads these commands and publishes this status.
    pub fn new(commands: mpsc::Sender<Command>, status: watch::Receiver<Status>) -> Self {
        Self { commands, status }
    }

    /// Asks, and waits for the answer. The answer `Ok` means: it is on disk.
    pub async fn ask(&self, request: Request) -> Result<Answer, Refusal> {
        self.begin_to_ask(request).await?.answer().await
    }

    /// Asks, and returns as soon as the scheduler can find the request.
    pub async fn begin_to_ask(&self, request: Request) -> Result<Asked, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command { request, reply }).await.map_err(|_| Refusal::Stopping)?;
        Ok(Asked { answer })
    }

    /// The status as of the last step.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// A receiver that is told of every step.
    pub fn steps(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }
}
