//! Ids of runs: they sort by time, and no two nodes make the same.

use std::fmt;
use std::sync::Arc;

use crate::clock::Timestamp;

/// A run's id: a UUID of version 7, so that ids sort by time. It stays the same over all attempts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunId(pub Arc<str>);

impl fmt::Display for RunId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl RunId {
    /// Reads an id as it is shown: a UUID in lower case with hyphens. None if the text is anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let id = uuid::Uuid::try_parse(text).ok()?;
        let mut buffer = uuid::Uuid::encode_buffer();
        (id.hyphenated().encode_lower(&mut buffer) == text).then(|| Self(text.into()))
    }

    /// Where ids that are made at or after an instant begin: those of runs that were made before it are smaller.
    pub fn first_at(at: Timestamp) -> Self {
        let millis = u64::try_from(at.timestamp_millis()).unwrap_or(0);
        let id = uuid::Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid();
        Self(id.to_string().into())
    }
}

/// Makes run ids: rising, also when the clock is set back, and reproducible from a seed.
#[derive(Debug)]
pub struct RunIds {
    random: u64,
    counter: u32,
    /// The time of the latest id, in milliseconds.
    millis: u64,
}

/// The greatest value of the counter, which has 26 bits.
const COUNTER_MAX: u32 = (1 << 26) - 1;

impl RunIds {
    /// Ids that differ from those of any other seed.
    pub fn new(seed: u64) -> Self {
        Self { random: seed, counter: 0, millis: 0 }
    }

    /// Makes ids greater than this one from now on, also if it was made by a clock that was ahead.
    pub fn follow(&mut self, id: &RunId) {
        let time = uuid::Uuid::parse_str(&id.0).ok().and_then(|id| id.get_timestamp());
        let millis = time.map(|time| {
            let (seconds, nanos) = time.to_unix();
            seconds * 1000 + u64::from(nanos / 1_000_000)
        });
        self.millis = self.millis.max(millis.map_or(0, |millis| millis + 1));
    }

    /// The next id, made at `now`. Its time is that of the id before it if the clock shows an earlier one: the order of
    /// ids is the order in which they were made.
    pub fn next(&mut self, now: Timestamp) -> RunId {
        let millis = u64::try_from(now.timestamp_millis()).unwrap_or(0);
        self.counter = if self.counter < COUNTER_MAX { self.counter + 1 } else { 0 };
        // With the clock behind, the counter alone tells one id from the next.
        let first = if self.counter == 0 { self.millis + 1 } else { self.millis };
        self.millis = millis.max(first);
        // splitmix64: enough to keep the ids of several nodes apart.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        // The version takes 4 bits of the first byte and the variant 2 bits of the third: the counter
        // of 26 bits goes around them.
        let mut bytes = [0; 10];
        let counter =
            u64::from((self.counter >> 14) & 0x0fff) << 16 | u64::from(self.counter & 0x3fff);
        let parts = counter.to_be_bytes().into_iter().skip(4).chain(mixed.to_be_bytes());
        bytes.iter_mut().zip(parts).for_each(|(byte, part)| *byte = part);
        let id = uuid::Builder::from_unix_timestamp_millis(self.millis, &bytes).into_uuid();
        RunId(id.to_string().into())
    }
}

/// An attempt of a run.
pub type Execution = (RunId, u32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_ids_rise_and_are_of_version_7() {
        let mut ids = RunIds::new(1);
        let now = Timestamp::from_timestamp_micros(1_800_000_000_000_000).unwrap();
        let made: Vec<RunId> = (0..40_000).map(|_| ids.next(now)).collect();
        assert!(made.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(uuid::Uuid::parse_str(&made[0].0).unwrap().get_version_num(), 7);
        assert_ne!(RunIds::new(2).next(now), made[0]);
        let soon = now + chrono::TimeDelta::milliseconds(1);
        assert!(RunId::first_at(now) <= made[0] && made[39_999] < RunId::first_at(soon));
    }

    #[test]
    fn run_ids_rise_when_the_clock_is_set_back_also_in_another_process() {
        let at = |seconds| Timestamp::from_timestamp(seconds, 0).unwrap();
        let mut ids = RunIds::new(1);
        let ahead = ids.next(at(2_160_000_000));
        let mut made = vec![ahead, ids.next(at(1_800_000_000))];
        let mut others = RunIds::new(2);
        others.follow(&made[1]);
        made.extend([others.next(at(1_800_000_001)), others.next(at(1_800_000_000))]);
        made.push(others.next(at(2_160_000_001)));
        assert!(made.windows(2).all(|pair| pair[0] < pair[1]), "{made:?}");
        let mut ids = RunIds { counter: COUNTER_MAX - 1, ..RunIds::new(1) };
        let made = [1, 0, 0].map(|seconds| ids.next(at(1_800_000_000 + seconds)));
        assert!(
            made.windows(2).all(|pair| pair[0] < pair[1]),
            "the counter begins again: {made:?}"
        );
        // What is no id of this kind is not followed.
        ids.follow(&RunId("run-000001".into()));
    }
}
