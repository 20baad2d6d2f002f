//! Following a run: its output line by line while it is written, over all of its attempts, to its end.
//!
//! The output of an attempt that this node executes is read from its log; any other output, of an attempt that is over or on
//! another node, is read from the store once it is there. A follower is never ahead of the log and never holds it up: a slow
//! one is told how many lines it missed.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, watch};

use super::{History, HistoryError};
use crate::output::{Line, Output};
use crate::run::{Run, RunId};
use crate::scheduler::handle::Status;
use crate::task::context::Context;
use crate::task::log::{Follower, Log};

/// The most followers at the same time. Each holds a connection, and at most the kept part of one output.
pub const FOLLOWERS_MAX: usize = 128;
/// The shortest time between two queries of the store, even if a busy scheduler makes many steps in it.
const QUERY_PAUSE: Duration = Duration::from_millis(20);
/// The longest time between two queries: what another node does causes no step of this one.
const QUERY_INTERVAL: Duration = Duration::from_secs(1);

/// There is no slot for another follower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{FOLLOWERS_MAX} clients are following runs already, which is the limit")]
pub struct TooManyFollowers;

#[derive(Debug, Clone, PartialEq)]
pub enum FollowEvent {
    /// Another attempt has begun.
    Attempt(u32),
    /// This many lines come next, but are not kept any more.
    Missed(u64),
    /// In the order in which they were written.
    Lines(Vec<Line>),
    /// The run has ended. This is the last event.
    End(Box<Run>),
}

/// The log of a run that this node executes.
#[derive(Debug)]
struct Executing(Arc<Context>);

impl Deref for Executing {
    type Target = Log;

    fn deref(&self) -> &Log {
        &self.0.log
    }
}

#[derive(Debug)]
pub struct RunFollower {
    history: History,
    id: RunId,
    /// The attempt whose output is followed, or the next one if that has ended.
    attempt: u32,
    /// Whether an earlier attempt was followed.
    has_begun: bool,
    log: Option<Follower<Executing>>,
    events: VecDeque<FollowEvent>,
    is_over: bool,
    steps: watch::Receiver<Status>,
    _slot: OwnedSemaphorePermit,
}

impl History {
    /// Follows a run from the beginning of an attempt, or if none is given, of its present attempt.
    pub fn follow(&self, run: &Run, attempt: Option<u32>) -> Result<RunFollower, TooManyFollowers> {
        let slot = Arc::clone(&self.followers).try_acquire_owned();
        Ok(RunFollower {
            history: self.clone(),
            id: run.id.clone(),
            attempt: attempt.unwrap_or(run.attempt),
            has_begun: false,
            log: None,
            events: VecDeque::new(),
            is_over: false,
            steps: self.handle.steps(),
            _slot: slot.map_err(|_| TooManyFollowers)?,
        })
    }
}

impl RunFollower {
    /// Waits for the next event. None after the last one; without a [`FollowEvent::End`] that means that the daemon stops or
    /// that the run is not in the ledger any more.
    pub async fn next(&mut self) -> Result<Option<FollowEvent>, HistoryError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            if self.is_over {
                return Ok(None);
            }
            match self.log.take() {
                Some(log) => self.read_log(log).await,
                None => self.query().await?,
            }
        }
    }

    /// Waits for the next lines of the log.
    async fn read_log(&mut self, mut log: Follower<Executing>) {
        let news = log.next().await;
        if news.missed > 0 {
            self.events.push_back(FollowEvent::Missed(news.missed));
        }
        if !news.lines.is_empty() {
            self.events.push_back(FollowEvent::Lines(news.lines));
        }
        if news.is_last {
            self.attempt = self.attempt.saturating_add(1);
        } else {
            self.log = Some(log);
        }
    }

    /// Finds the output of the attempt, or waits until there may be one.
    async fn query(&mut self) -> Result<(), HistoryError> {
        self.steps.mark_unchanged();
        if let Some(log) = self.log_of_attempt() {
            self.begin();
            self.log = Some(log);
            return Ok(());
        }
        let Some(run) = self.history.run(&self.id.0).await? else {
            self.is_over = true;
            return Ok(());
        };
        let has_ended =
            run.attempt > self.attempt || (run.attempt == self.attempt && run.state.is_final());
        if has_ended {
            if let Some(output) = self.history.archive.output(&self.id.0, self.attempt).await? {
                self.begin();
                self.add_all(&output);
            }
            self.attempt = self.attempt.saturating_add(1);
        } else if run.state.is_final() {
            self.events.push_back(FollowEvent::End(Box::new(run)));
            self.is_over = true;
        } else {
            self.wait().await;
        }
        Ok(())
    }

    /// The log of the attempt, if this node is executing it.
    fn log_of_attempt(&self) -> Option<Follower<Executing>> {
        let (number, context) = self.history.live.get(&self.id)?;
        // The follower is made before the check, because a log that is closed keeps its lines for its followers only.
        let log = Follower::new(Executing(Arc::clone(&context)));
        (number == self.attempt && !context.log.is_closed()).then_some(log)
    }

    fn begin(&mut self) {
        if std::mem::replace(&mut self.has_begun, true) {
            self.events.push_back(FollowEvent::Attempt(self.attempt));
        }
    }

    fn add_all(&mut self, output: &Output) {
        self.events.push_back(FollowEvent::Lines(output.head.iter().collect()));
        if output.cut > 0 {
            self.events.push_back(FollowEvent::Missed(output.cut));
        }
        self.events.push_back(FollowEvent::Lines(output.tail.iter().collect()));
    }

    async fn wait(&mut self) {
        let changed = tokio::time::timeout(QUERY_INTERVAL, self.steps.changed());
        let (changed, ()) = tokio::join!(changed, tokio::time::sleep(QUERY_PAUSE));
        // The scheduler has stopped.
        self.is_over = matches!(changed, Ok(Err(_)));
    }
}
