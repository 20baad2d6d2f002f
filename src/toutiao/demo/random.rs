//! Pseudo-random choices from a seed, so that the demonstration is the same every time.

use crate::splitmix::SplitMix64;

/// The lists of words, one per line: its name, then its words.
const WORDS: &str = include_str!("words.txt");

#[derive(Debug)]
pub(super) struct Random(SplitMix64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }

    /// A number below the bound; 0 if the bound is 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX);
        let drawn = self.0.next_number().checked_rem(bound).unwrap_or(0);
        usize::try_from(drawn).unwrap_or(0)
    }

    /// A number below the bound. Low numbers are far more likely, as with popularity.
    pub(super) fn popular(&mut self, bound: usize) -> usize {
        let first = self.below(bound);
        self.below(first + 1)
    }

    /// A number from `low` to `high`.
    pub(super) fn between(&mut self, low: i64, high: i64) -> i64 {
        let span = usize::try_from(high.saturating_sub(low).saturating_add(1)).unwrap_or(0);
        low.saturating_add(i64::try_from(self.below(span)).unwrap_or(0))
    }

    /// True in this many of a hundred cases.
    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// An element of a slice; `None` if it is empty.
    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let at = self.below(from.len());
        from.get(at)
    }

    /// A word of the list with this name.
    pub(super) fn word(&mut self, list: &str) -> &'static str {
        let words = WORDS.lines().find_map(|line| line.strip_prefix(list)?.strip_prefix('|'));
        let words: Vec<&str> = words.unwrap_or_default().split('|').collect();
        self.pick(&words).copied().unwrap_or_default()
    }
}
