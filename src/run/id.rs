//! Run ids. They sort by time, and no two nodes generate the same id.

use std::fmt;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::splitmix::SplitMix64;

/// The id of a run: a UUID of version 7, so that ids sort by time. It is the same for all attempts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunId(pub Arc<str>);

/// The bytes of an id.
const ID_BYTES: usize = 36;
/// The fewest bytes of an id by which a run can be named.
const PART_BYTES_MIN: usize = 4;

impl fmt::Display for RunId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl RunId {
    /// Parses an id as it is shown: a UUID in lower case with hyphens.
    pub fn parse(text: &str) -> Option<Self> {
        let id = uuid::Uuid::try_parse(text).ok()?;
        let mut buffer = uuid::Uuid::encode_buffer();
        (id.hyphenated().encode_lower(&mut buffer) == text).then(|| Self(text.into()))
    }

    /// Whether a text can be the beginning or the end of an id, long enough to name a run by it.
    pub fn is_part(text: &str) -> bool {
        let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-');
        (PART_BYTES_MIN..ID_BYTES).contains(&text.len()) && text.bytes().all(is_digit)
    }

    /// A lower bound of all ids that are generated at or after an instant. Earlier ids are smaller.
    pub fn first_at(at: Timestamp) -> Self {
        let millis = u64::try_from(at.timestamp_millis()).unwrap_or(0);
        let id = uuid::Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid();
        Self(id.to_string().into())
    }
}

/// Generates run ids. They increase even if the clock is set back, and are reproducible from a seed.
#[derive(Debug)]
pub struct RunIds {
    /// Keeps the ids of several nodes apart.
    random: SplitMix64,
    counter: u32,
    /// The time of the latest id, in milliseconds.
    millis: u64,
}

/// The largest value of the counter, which has 26 bits.
const COUNTER_MAX: u32 = (1 << 26) - 1;

impl RunIds {
    /// Generates ids that differ from those of every other seed.
    pub fn new(seed: u64) -> Self {
        Self { random: SplitMix64::new(seed), counter: 0, millis: 0 }
    }

    /// Makes all later ids greater than this one, even if the clock was ahead when it was generated.
    pub fn follow(&mut self, id: &RunId) {
        let time = uuid::Uuid::parse_str(&id.0).ok().and_then(|id| id.get_timestamp());
        let millis = time.map(|time| {
            let (seconds, nanos) = time.to_unix();
            seconds * 1000 + u64::from(nanos / 1_000_000)
        });
        self.millis = self.millis.max(millis.map_or(0, |millis| millis + 1));
    }

    /// The next id, generated at `now`. If the clock has been set back, it contains the time of the id before, so that the
    /// ids still sort in the order of their generation.
    pub fn next(&mut self, now: Timestamp) -> RunId {
        let millis = u64::try_from(now.timestamp_millis()).unwrap_or(0);
        self.counter = if self.counter < COUNTER_MAX { self.counter + 1 } else { 0 };
        // If the clock has been set back, only the counter makes the ids increase.
        let first = if self.counter == 0 { self.millis + 1 } else { self.millis };
        self.millis = millis.max(first);
        // The UUID's version takes 4 bits of the first byte, and its variant 2 bits of the third. The 26 bits of the
        // counter are placed around them.
        let mut bytes = [0; 10];
        let counter =
            u64::from((self.counter >> 14) & 0x0fff) << 16 | u64::from(self.counter & 0x3fff);
        let parts = counter
            .to_be_bytes()
            .into_iter()
            .skip(4)
            .chain(self.random.next_number().to_be_bytes());
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
    fn run_ids_increase_and_are_of_version_7() {
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
    fn a_part_of_an_id_is_long_enough_and_has_no_other_characters() {
        let id = RunIds::new(1).next(Timestamp::default());
        for part in [&id.0[..4], &id.0[1..], &id.0[..35], "6e210d47", "8abc-9f3a"] {
            assert!(RunId::is_part(part), "{part}");
        }
        for other in ["", "6e2", &id.0, "backup", "6E210D47", "6e210d4%", "1e3\n5"] {
            assert!(!RunId::is_part(other), "{other}");
        }
    }

    #[test]
    fn run_ids_increase_after_the_clock_was_set_back_also_in_another_process() {
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
        // An id of another kind is ignored.
        ids.follow(&RunId("run-000001".into()));
    }
}
