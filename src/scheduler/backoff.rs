//! Backoff for a store that fails: how long the loop waits before it tries again, and what it logs.

use chrono::TimeDelta;

use crate::clock::Timestamp;
use crate::store::StoreError;

/// First pause after the store has failed. It is doubled up to the longest one.
const FIRST_PAUSE: TimeDelta = TimeDelta::milliseconds(100);
const LONGEST_PAUSE: TimeDelta = TimeDelta::seconds(10);

/// When to try again while the store fails. The log says so once, not at each try.
#[derive(Debug)]
pub(super) struct Backoff {
    longest: TimeDelta,
    waiting: Option<BackoffPause>,
}

#[derive(Debug, Clone, Copy)]
struct BackoffPause {
    pause: TimeDelta,
    until: Timestamp,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { longest: LONGEST_PAUSE, waiting: None }
    }
}

impl Backoff {
    /// Limits all pauses, including the present one.
    pub(super) fn limit(&mut self, longest: TimeDelta) {
        self.longest = longest;
        if let Some(waiting) = &mut self.waiting {
            waiting.pause = waiting.pause.min(longest);
            waiting.until = Timestamp::MIN_UTC;
        }
    }

    /// When to make the next step after one with this result.
    pub(super) fn next(
        &mut self,
        result: Result<Option<Timestamp>, StoreError>,
        now: Timestamp,
    ) -> Option<Timestamp> {
        match (result, self.waiting) {
            (Ok(next), None) => next,
            (Ok(next), Some(_)) => {
                tracing::info!("the store can be used again");
                self.waiting = None;
                next
            }
            // A request in the pause is tried at once, and must not prolong the pause. Neither must a clock that went back.
            (Err(_), Some(BackoffPause { pause, until }))
                if now < until && until - now <= pause =>
            {
                Some(until)
            }
            (Err(error), waiting) => {
                if waiting.is_none() {
                    tracing::error!(%error, "the store failed; trying again");
                }
                let longest = self.longest;
                let doubled = |waiting: BackoffPause| (waiting.pause + waiting.pause).min(longest);
                let pause = waiting.map_or(FIRST_PAUSE, doubled);
                let until = now.checked_add_signed(pause)?;
                self.waiting = Some(BackoffPause { pause, until });
                Some(until)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_timestamp_millis(1_800_000_000_000 + millis).unwrap()
    }

    #[test]
    fn pauses_grow_while_the_store_fails_however_many_requests_arrive() {
        let mut backoff = Backoff::default();
        let mut fail = |millis| {
            let error = StoreError::Unavailable("gone".to_owned());
            let next = backoff.next(Err(error), at(millis)).unwrap();
            (next - at(0)).num_milliseconds()
        };
        assert_eq!(fail(0), 100);
        assert_eq!([fail(10), fail(20), fail(99)], [100; 3], "requests meanwhile");
        assert_eq!([fail(100), fail(150), fail(300), fail(700)], [300, 300, 700, 1500]);
        for number in 1..20 {
            fail(20_000 * number);
        }
        assert_eq!(fail(2_000_000), 2_010_000, "ten seconds at most");
        assert_eq!(fail(0), 10_000, "the clock went back");
        assert_eq!(backoff.next(Ok(Some(at(7))), at(5)), Some(at(7)));
        let error = StoreError::Unavailable("gone".to_owned());
        assert_eq!(backoff.next(Err(error), at(50)), Some(at(150)), "from the beginning");
    }

    #[test]
    fn a_limit_shortens_the_present_pause_and_those_that_follow() {
        let mut backoff = Backoff::default();
        let fail = |backoff: &mut Backoff, millis| {
            let error = StoreError::Unavailable("gone".to_owned());
            (backoff.next(Err(error), at(millis)).unwrap() - at(millis)).num_milliseconds()
        };
        let mut now = 0;
        for _ in 0..10 {
            now += fail(&mut backoff, now);
        }
        assert_eq!(fail(&mut backoff, now), 10_000);
        backoff.limit(TimeDelta::seconds(1));
        for _ in 0..3 {
            let pause = fail(&mut backoff, now);
            assert_eq!(pause, 1000);
            now += pause;
        }
    }
}
