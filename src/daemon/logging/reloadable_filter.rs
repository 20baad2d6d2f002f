//! The filter of the log, which requests can change while the daemon runs, also for a limited time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::task::TaskTracker;
use tracing::Level;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::{EnvFilter, Registry};

use super::directives::{Directives, GivenDirectives};
use crate::control::audit;
use crate::control::log::{ActiveFilter, FilterChange, FilterError, FilterExpiry, LogFilter};

/// The filter of the log. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct ReloadableFilter(Arc<FilterInner>);

#[derive(Debug)]
struct FilterInner {
    handle: Handle<EnvFilter, Registry>,
    is_demo: bool,
    /// The directives that the daemon was started with.
    start: Directives,
    state: Mutex<FilterState>,
    /// The tasks that wait for the end of a time limit. They end with the runtime.
    timers: TaskTracker,
}

#[derive(Debug)]
struct FilterState {
    /// The directives in force.
    current: Directives,
    limit: Option<FilterExpiry>,
    /// The number of changes, which tells whether a time limit belongs to the latest one.
    changes: u64,
}

impl ReloadableFilter {
    /// Makes a filter with the given directives, and the tracing layer that applies it.
    pub(super) fn new(
        is_demo: bool,
        start: Directives,
    ) -> Result<(Self, reload::Layer<EnvFilter, Registry>), String> {
        let (layer, handle) = reload::Layer::new(start.filter()?);
        let state = FilterState { current: start.clone(), limit: None, changes: 0 };
        let (state, timers) = (Mutex::new(state), TaskTracker::new());
        Ok((Self(Arc::new(FilterInner { handle, is_demo, start, state, timers })), layer))
    }

    fn lock(&self) -> MutexGuard<'_, FilterState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The complete directives of a request, or why they are refused.
    fn requested(&self, text: &str) -> Result<Directives, String> {
        let given = GivenDirectives::parse(text)
            .map_err(|why| format!("{text:?} is not understood: {why}"))?;
        self.0.start.change(&given, self.0.is_demo)
    }

    /// Puts directives into force. `log` logs the change: before it if the old filter lets that through, else after it.
    fn set(
        &self,
        state: &mut FilterState,
        directives: Directives,
        limit: Option<FilterExpiry>,
        log: impl FnOnce(),
    ) -> Result<(), String> {
        let filter = directives.filter()?;
        let mut log = Some(log);
        if tracing::enabled!(target: audit::TARGET, Level::INFO)
            && let Some(log) = log.take()
        {
            log();
        }
        self.0.handle.reload(filter).map_err(|error| error.to_string())?;
        state.current = directives;
        state.limit = limit;
        state.changes += 1;
        if let Some(log) = log {
            log();
        }
        Ok(())
    }

    /// Puts the directives of the start into force again when the time limit of a change ends, unless another change came.
    async fn reset_after(self, limit: FilterExpiry, change: u64) {
        tokio::time::sleep(limit.time).await;
        let mut state = self.lock();
        if state.changes != change {
            return;
        }
        let (start, previous) = (self.0.start.to_string(), state.current.to_string());
        let log = || audit::log_filter_expired(&start, &previous);
        if let Err(error) = self.set(&mut state, self.0.start.clone(), None, log) {
            tracing::error!(%error, "the log filter could not be reset and stays as it is");
        }
    }
}

impl LogFilter for ReloadableFilter {
    fn current(&self) -> ActiveFilter {
        let state = self.lock();
        ActiveFilter {
            filter: state.current.to_string(),
            start_filter: self.0.start.to_string(),
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
            Some(given) => self.requested(given).map_err(FilterError::Refused)?,
            None => self.0.start.clone(),
        };
        let mut state = self.lock();
        let changed = FilterChange {
            previous: state.current.to_string(),
            now: ActiveFilter {
                filter: directives.to_string(),
                start_filter: self.0.start.to_string(),
                until: limit.map(|limit| limit.until),
            },
        };
        self.set(&mut state, directives, limit, || tell(&changed)).map_err(FilterError::Failed)?;
        if let Some(limit) = limit {
            drop(self.0.timers.spawn(self.clone().reset_after(limit, state.changes)));
        }
        Ok(changed)
    }
}
