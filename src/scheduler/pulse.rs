//! Whether the scheduler's loop makes progress: the basis of the health check and of the service manager's watchdog.
//!
//! The loop counts beats here, and others read them, because a loop that hangs cannot report that itself. A wait for the
//! store is not a hang, however long it takes.

use std::future::{Future, pending, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The beats of one loop. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Pulse {
    state: Arc<Mutex<LoopActivity>>,
    /// How often a loop that has nothing to do gives a beat. Without an interval it gives none while it sleeps.
    interval: Option<Duration>,
}

#[derive(Debug, Clone, Copy, Default)]
struct LoopActivity {
    beats: u64,
    /// When the step under way began.
    step_since: Option<Instant>,
    /// When the store call under way began.
    store_since: Option<Instant>,
    /// When the step under way began, or last got an answer from the store.
    progress_at: Option<Instant>,
    /// Whether the loop's own thread is executing a store call.
    is_in_store: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PulseReading {
    /// How many beats the loop has given.
    pub beats: u64,
    /// Whether the loop's own thread is executing a store call: until it returns, the loop cannot give a beat.
    pub is_in_store: bool,
}

/// For how long a loop has been busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Busy {
    /// Since the step began; zero without a step.
    pub step: Duration,
    /// Since the store call under way began, if there is one.
    pub store: Option<Duration>,
    /// Since the step last made progress; zero while it waits for the store.
    pub stalled: Duration,
}

impl Pulse {
    /// A loop gives a beat at least once per interval. Without an interval it does so only while it works.
    pub fn new(interval: Option<Duration>) -> Self {
        Self { state: Arc::default(), interval }
    }

    fn state(&self) -> MutexGuard<'_, LoopActivity> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn beat(&self) {
        let mut state = self.state();
        state.beats = state.beats.wrapping_add(1);
    }

    pub(super) fn step_begins(&self, now: Instant) {
        let mut state = self.state();
        state.beats = state.beats.wrapping_add(1);
        (state.step_since, state.progress_at) = (Some(now), Some(now));
    }

    pub(super) fn step_ends(&self) {
        let mut state = self.state();
        state.beats = state.beats.wrapping_add(1);
        (state.step_since, state.progress_at) = (None, None);
    }

    /// Gives a beat after an interval, and returns. Without an interval, it never returns. Cancel-safe.
    pub(super) async fn rest(&self) {
        let Some(interval) = self.interval else { return pending().await };
        tokio::time::sleep(interval).await;
        self.beat();
    }

    /// Awaits work that has its own time limit, and gives beats meanwhile. They stop if the thread is stuck.
    pub fn while_waiting<T>(&self, work: impl Future<Output = T>) -> impl Future<Output = T> {
        let mut work = Box::pin(work);
        async move {
            let Some(interval) = self.interval else { return work.await };
            loop {
                match tokio::time::timeout(interval, work.as_mut()).await {
                    Ok(done) => return done,
                    Err(_) => self.beat(),
                }
            }
        }
    }

    /// Awaits a store call, and gives beats meanwhile. A store that works on its caller's thread prevents them, so that is
    /// marked.
    pub fn store_call<T>(&self, call: impl Future<Output = T>) -> impl Future<Output = T> {
        let mut call = Box::pin(call);
        let polled = poll_fn(move |context| {
            self.state().is_in_store = true;
            let polled = call.as_mut().poll(context);
            self.state().is_in_store = false;
            polled
        });
        async move {
            let _marked = StoreCall::begin(self, Instant::now());
            self.while_waiting(polled).await
        }
    }

    pub fn read(&self) -> PulseReading {
        let LoopActivity { beats, is_in_store, .. } = *self.state();
        PulseReading { beats, is_in_store }
    }

    pub fn busy(&self, now: Instant) -> Busy {
        let state = *self.state();
        let since = |instant: Option<Instant>| instant.map(|at| now.saturating_duration_since(at));
        let store = since(state.store_since);
        let stalled = if store.is_some() { None } else { since(state.progress_at) };
        Busy {
            step: since(state.step_since).unwrap_or_default(),
            store,
            stalled: stalled.unwrap_or_default(),
        }
    }
}

/// Marks a store call as under way until it is dropped.
struct StoreCall<'a>(&'a Pulse);

impl<'a> StoreCall<'a> {
    fn begin(pulse: &'a Pulse, now: Instant) -> Self {
        let mut state = pulse.state();
        state.beats = state.beats.wrapping_add(1);
        state.store_since = Some(now);
        drop(state);
        Self(pulse)
    }
}

impl Drop for StoreCall<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.beats = state.beats.wrapping_add(1);
        (state.store_since, state.is_in_store) = (None, false);
        if state.progress_at.is_some() {
            state.progress_at = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    const INTERVAL: Duration = Duration::from_millis(5);
    const LONG: Duration = Duration::from_hours(1);

    #[tokio::test]
    async fn a_loop_that_rests_gives_beats_and_one_that_hangs_gives_none() {
        let pulse = Pulse::new(Some(INTERVAL));
        let before = pulse.read().beats;
        for _ in 0..3 {
            pulse.rest().await;
        }
        assert_eq!(pulse.read().beats, before + 3);
        let begin = Instant::now();
        pulse.step_begins(begin);
        let hung = pulse.read();
        // A step that awaits something other than the store gives no beat.
        tokio::time::sleep(INTERVAL * 10).await;
        assert_eq!(pulse.read(), hung);
        let busy = pulse.busy(begin + LONG);
        assert_eq!(busy, Busy { step: LONG, store: None, stalled: LONG });
        pulse.step_ends();
        assert_eq!(pulse.busy(begin + LONG), Busy::default());
    }

    #[tokio::test]
    async fn a_step_that_waits_for_the_store_lives_for_however_long() {
        let pulse = Pulse::new(Some(INTERVAL));
        let begin = Instant::now();
        pulse.step_begins(begin);
        let mut call = pin!(pulse.store_call(pending::<()>()));
        let mut before = pulse.read().beats;
        for _ in 0..10 {
            let waited = tokio::time::timeout(INTERVAL * 2, call.as_mut()).await;
            assert!(waited.is_err());
            let PulseReading { beats, is_in_store } = pulse.read();
            assert!(beats > before && !is_in_store, "{beats} after {before}");
            before = beats;
        }
        let busy = pulse.busy(begin + LONG);
        assert_eq!((busy.step, busy.stalled), (LONG, Duration::ZERO));
        assert!(busy.store.is_some_and(|waiting| waiting > LONG / 2), "{busy:?}");
    }

    #[tokio::test]
    async fn progress_counts_from_the_last_answer_of_the_store() {
        let pulse = Pulse::new(None);
        let begin = Instant::now();
        // It began long ago; the test cannot wait for that.
        pulse.step_begins(begin.checked_sub(LONG).unwrap_or(begin));
        pulse.store_call(async {}).await;
        let busy = pulse.busy(Instant::now());
        assert_eq!(busy.store, None);
        assert!(busy.stalled < LONG / 2 && busy.stalled <= busy.step, "{busy:?}");
    }

    #[tokio::test]
    async fn a_thread_that_executes_a_store_call_is_marked() {
        let pulse = Pulse::new(None);
        let seen = pulse.store_call(poll_fn(|_| std::task::Poll::Ready(pulse.read()))).await;
        assert!(seen.is_in_store);
        assert!(!pulse.read().is_in_store);
    }
}
