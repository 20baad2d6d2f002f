//! Ids of the application: 63 bits that sort by time and are generated without a database.
//!
//! From the highest bit: 41 bits of milliseconds since the epoch of this scheme, 10 bits of data centre and worker, 12 bits
//! of sequence within the millisecond. They exceed 2^53, so they are sent as strings where a reader may take numbers for
//! doubles.

use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::Clock;

/// The epoch: 2010-11-04T01:42:54.657Z.
const EPOCH_MILLIS: i64 = 1_288_834_974_657;

/// The largest number of milliseconds in 41 bits. Ids stop sorting by time in the year 2080.
const MAX_ELAPSED_MILLIS: i64 = (1 << 41) - 1;

const WORKER_SHIFT: u32 = 12;
const TIME_SHIFT: u32 = 22;
const MAX_SEQUENCE: i64 = (1 << WORKER_SHIFT) - 1;

/// Generates unique ids, from any thread.
#[derive(Debug)]
pub struct Snowflake {
    worker: i64,
    clock: Arc<dyn Clock>,
    last: Mutex<Last>,
}

/// The last id, without its worker.
#[derive(Debug)]
struct Last {
    millis: i64,
    sequence: i64,
}

impl Snowflake {
    /// Only the lower ten bits of `worker_id` are used.
    pub fn new(worker_id: u16, clock: Arc<dyn Clock>) -> Self {
        let last = Last { millis: EPOCH_MILLIS - 1, sequence: MAX_SEQUENCE };
        Self { worker: i64::from(worker_id & 0x3ff), clock, last: Mutex::new(last) }
    }

    /// The next id.
    ///
    /// If the clock has been set back, or the sequence of a millisecond is used up, the ids count on from the last one, a
    /// little ahead of the clock. Waiting for the clock could take forever.
    pub fn next(&self) -> i64 {
        let now = self.clock.now().timestamp_millis();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if now > last.millis {
            *last = Last { millis: now, sequence: 0 };
        } else if last.sequence < MAX_SEQUENCE {
            last.sequence += 1;
        } else {
            *last = Last { millis: last.millis + 1, sequence: 0 };
        }
        let elapsed = (last.millis - EPOCH_MILLIS).clamp(0, MAX_ELAPSED_MILLIS);
        elapsed << TIME_SHIFT | self.worker << WORKER_SHIFT | last.sequence
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;
    use crate::clock::Timestamp;

    #[derive(Debug)]
    struct Hand(AtomicI64);

    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            Timestamp::from_timestamp_millis(self.0.load(Ordering::Relaxed)).unwrap()
        }
    }

    fn ids_at(millis: i64, worker_id: u16) -> (Snowflake, Arc<Hand>) {
        let hand = Arc::new(Hand(AtomicI64::new(millis)));
        let clock = Arc::<Hand>::clone(&hand);
        (Snowflake::new(worker_id, clock), hand)
    }

    #[test]
    fn the_layout_of_ids_is_unchanged() {
        let (ids, hand) = ids_at(1_553_600_000_000, (1 << 5) | 2);
        assert_eq!(ids.next(), 1_110_505_004_856_385_536);
        assert_eq!(ids.next(), 1_110_505_004_856_385_537);
        hand.0.fetch_add(1, Ordering::Relaxed);
        assert_eq!(ids.next(), 1_110_505_004_856_385_536 + (1 << 22), "the sequence starts again");
    }

    #[test]
    fn ids_increase_even_if_the_clock_goes_back_or_stops() {
        let (ids, hand) = ids_at(1_553_600_000_000, 0);
        let mut last = ids.next();
        for step in 0..10_000 {
            if step == 5_000 {
                hand.0.fetch_sub(3_600_000, Ordering::Relaxed);
            }
            let id = ids.next();
            assert!(id > last);
            last = id;
        }
    }

    #[test]
    fn threads_never_share_an_id() {
        let (ids, _hand) = ids_at(1_553_600_000_000, 1023);
        let all: Vec<i64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..5_000).map(|_| ids.next()).collect::<Vec<_>>()))
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 20_000);
    }
}
