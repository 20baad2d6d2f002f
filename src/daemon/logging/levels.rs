//! The filter of the log while the daemon runs: what it was at the start, what it is now, and for how long.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::task::TaskTracker;
use tracing::Level;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::{EnvFilter, Registry};

use super::{floor, level};
use crate::control::audit;
use crate::control::log::{ActiveFilter, FilterChange, FilterError, FilterExpiry, LogFilter};
use crate::daemon::files::Demo;

/// The filter of the log, and the way to change it. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Levels(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    subscribed: Handle<EnvFilter, Registry>,
    demo: Demo,
    /// The directives that the daemon was started with.
    start: String,
    state: Mutex<State>,
    /// The task that waits for the end of a time limit. It ends with the runtime.
    timers: TaskTracker,
}

#[derive(Debug)]
struct State {
    /// The directives that hold now.
    current: String,
    limit: Option<FilterExpiry>,
    /// Counts the changes, so that the end of a limit is known to belong to the last one.
    changes: u64,
}

impl Levels {
    /// Makes a filter of these directives: the layer, and the handle that changes it.
    pub(super) fn new(
        demo: Demo,
        start: String,
    ) -> Result<(Self, reload::Layer<EnvFilter, Registry>), String> {
        let (layer, subscribed) = reload::Layer::new(level::filter(&start)?);
        let state = State { current: start.clone(), limit: None, changes: 0 };
        let shared = Shared {
            subscribed,
            demo,
            start,
            state: Mutex::new(state),
            timers: TaskTracker::new(),
        };
        Ok((Self(Arc::new(shared)), layer))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directives that a request asks for, or why it may not have them.
    fn asked(&self, given: &str) -> Result<String, String> {
        let directives = level::directives(self.0.demo, given)
            .map_err(|why| format!("{given:?} is not understood: {why}"))?;
        floor::held(&self.0.start, given, &directives)
    }

    /// Makes these directives hold. `tell` logs it: before the change if that is logged then, else after it.
    fn set(
        &self,
        state: &mut State,
        directives: &str,
        limit: Option<FilterExpiry>,
        tell: impl FnOnce(),
    ) -> Result<(), String> {
        let filter = level::filter(directives)?;
        let is_told_before = tracing::enabled!(target: audit::TARGET, Level::INFO);
        let mut tell = Some(tell);
        if is_told_before && let Some(tell) = tell.take() {
            tell();
        }
        self.0.subscribed.reload(filter).map_err(|error| error.to_string())?;
        directives.clone_into(&mut state.current);
        state.limit = limit;
        state.changes += 1;
        if let Some(tell) = tell {
            tell();
        }
        Ok(())
    }

    /// Makes the directives of the start hold again once the limit of a change is over, unless there was another one.
    async fn end(self, limit: FilterExpiry, change: u64) {
        tokio::time::sleep(limit.time).await;
        let mut state = self.lock();
        if state.changes != change {
            return;
        }
        let (start, previous) = (self.0.start.clone(), state.current.clone());
        let tell = || audit::log_filter_expired(&start, &previous);
        if let Err(error) = self.set(&mut state, &start, None, tell) {
            tracing::error!(%error, "the log filter could not be changed, and stays as it is");
        }
    }
}

impl LogFilter for Levels {
    fn current(&self) -> ActiveFilter {
        let state = self.lock();
        ActiveFilter {
            filter: state.current.clone(),
            start_filter: self.0.start.clone(),
            until: state.limit.map(|limit| limit.until),
        }
    }

    fn change(
        &self,
        filter: Option<&str>,
        limit: Option<FilterExpiry>,
        tell: &dyn Fn(&FilterChange),
    ) -> Result<FilterChange, FilterError> {
        let directives = match filter {
            Some(given) => self.asked(given).map_err(FilterError::Refused)?,
            None => self.0.start.clone(),
        };
        let mut state = self.lock();
        let changed = FilterChange {
            previous: state.current.clone(),
            now: ActiveFilter {
                filter: directives,
                start_filter: self.0.start.clone(),
                until: limit.map(|limit| limit.until),
            },
        };
        self.set(&mut state, &changed.now.filter, limit, || tell(&changed))
            .map_err(FilterError::Failed)?;
        if let Some(limit) = limit {
            drop(self.0.timers.spawn(self.clone().end(limit, state.changes)));
        }
        Ok(changed)
    }
}
