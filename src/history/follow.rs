//! Following a run: its output line by line while it is written, over all of its attempts, to its end.
//!
//! What is executed on this node is read from its log; everything else, be it over or on another node, from the store
//! once it is there. Who follows is never ahead of the log and never holds it up: a slow one is told what it missed.

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

/// Followers at the same time: each holds a connection, and at most what is kept of one output.
pub const FOLLOWERS_MAX: usize = 128;
/// Time between two looks into the store at least, also where a busy scheduler makes a thousand steps in it.
const PAUSE: Duration = Duration::from_millis(20);
/// The same at most: what another node does is no step of this one.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// There is no place for another follower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{FOLLOWERS_MAX} clients follow runs already, which is as many as can")]
pub struct TooManyFollowers;

/// What a follower is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// Another attempt has begun.
    Attempt(u32),
    /// This many lines come next that are not there any more.
    Missed(u64),
    /// Lines, in the order in which they were written.
    Lines(Vec<Line>),
    /// The run has ended, and nothing more will come.
    End(Box<Run>),
}

/// What a run that is executed here is writing.
#[derive(Debug)]
struct Executing(Arc<Context>);

impl Deref for Executing {
    type Target = Log;

    fn deref(&self) -> &Log {
        &self.0.log
    }
}

/// Follows a run.
#[derive(Debug)]
pub struct Following {
    history: History,
    id: RunId,
    /// The attempt whose output is followed, or the next one if that has ended.
    attempt: u32,
    /// Whether the output of an attempt before it was sent.
    has_told: bool,
    log: Option<Follower<Executing>>,
    to_tell: VecDeque<Told>,
    is_over: bool,
    steps: watch::Receiver<Status>,
    _place: OwnedSemaphorePermit,
}

impl History {
    /// Follows a run from the beginning of an attempt on, or of the one that it is in.
    pub fn follow(&self, run: &Run, attempt: Option<u32>) -> Result<Following, TooManyFollowers> {
        let place = Arc::clone(&self.followers).try_acquire_owned();
        Ok(Following {
            history: self.clone(),
            id: run.id.clone(),
            attempt: attempt.unwrap_or(run.attempt),
            has_told: false,
            log: None,
            to_tell: VecDeque::new(),
            is_over: false,
            steps: self.handle.steps(),
            _place: place.map_err(|_| TooManyFollowers)?,
        })
    }
}

impl Following {
    /// What is to be told next, once there is something. None when there will be nothing more, which without an end
    /// means that the daemon stops, or that nothing is known of the run any more.
    pub async fn next(&mut self) -> Result<Option<Told>, HistoryError> {
        loop {
            if let Some(told) = self.to_tell.pop_front() {
                return Ok(Some(told));
            }
            if self.is_over {
                return Ok(None);
            }
            match self.log.take() {
                Some(log) => self.read(log).await,
                None => self.look().await?,
            }
        }
    }

    /// Waits for what is written next.
    async fn read(&mut self, mut log: Follower<Executing>) {
        let news = log.next().await;
        if news.missed > 0 {
            self.to_tell.push_back(Told::Missed(news.missed));
        }
        if !news.lines.is_empty() {
            self.to_tell.push_back(Told::Lines(news.lines));
        }
        if news.is_last {
            self.attempt = self.attempt.saturating_add(1);
        } else {
            self.log = Some(log);
        }
    }

    /// Finds out how the attempt stands, or waits until that may have changed.
    async fn look(&mut self) -> Result<(), HistoryError> {
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
                self.tell_all(&output);
            }
            self.attempt = self.attempt.saturating_add(1);
        } else if run.state.is_final() {
            self.to_tell.push_back(Told::End(Box::new(run)));
            self.is_over = true;
        } else {
            self.wait().await;
        }
        Ok(())
    }

    /// The log of the attempt, if it is being written here.
    fn log_of_attempt(&self) -> Option<Follower<Executing>> {
        let (number, context) = self.history.live.get(&self.id)?;
        // A log that is closed keeps its lines for those who are there before.
        let log = Follower::new(Executing(Arc::clone(&context)));
        (number == self.attempt && !context.log.is_closed()).then_some(log)
    }

    fn begin(&mut self) {
        if std::mem::replace(&mut self.has_told, true) {
            self.to_tell.push_back(Told::Attempt(self.attempt));
        }
    }

    fn tell_all(&mut self, output: &Output) {
        self.to_tell.push_back(Told::Lines(output.head.iter().collect()));
        if output.cut > 0 {
            self.to_tell.push_back(Told::Missed(output.cut));
        }
        self.to_tell.push_back(Told::Lines(output.tail.iter().collect()));
    }

    async fn wait(&mut self) {
        let changed = tokio::time::timeout(LOOK_AGAIN, self.steps.changed());
        let (changed, ()) = tokio::join!(changed, tokio::time::sleep(PAUSE));
        // The scheduler has stopped.
        self.is_over = matches!(changed, Ok(Err(_)));
    }
}
