//! The other nodes on the same store, as far as this node can tell which of them are alive.
//!
//! Clocks of machines differ, and jump. So a node is not judged by the time that it wrote, but by whether its beat changes
//! while this node watches. A node that has not watched does not judge.

use std::collections::BTreeMap;

use chrono::TimeDelta;

use crate::clock::Timestamp;
use crate::store::Node;

/// Time between two renewals of the lease, and so the longest time until a node sees what another one has changed.
const RENEW_EVERY: TimeDelta = TimeDelta::seconds(1);

/// A beat of a node, and since when it has not changed.
#[derive(Debug, Clone, Copy)]
struct LastBeat {
    beat: i64,
    since: Timestamp,
}

#[derive(Debug)]
pub(crate) struct Peers {
    /// How long a node may be silent.
    lease: TimeDelta,
    /// When this node last renewed its lease.
    renewed_at: Option<Timestamp>,
    /// Whether another node has said that it changed something.
    is_hinted: bool,
    seen: BTreeMap<String, LastBeat>,
    nodes: Vec<Node>,
}

impl Peers {
    pub(crate) fn new(lease: TimeDelta) -> Self {
        Self { lease, renewed_at: None, is_hinted: false, seen: BTreeMap::new(), nodes: Vec::new() }
    }

    pub(crate) fn hint(&mut self) {
        self.is_hinted = true;
    }

    /// Whether the lease has to be renewed. A clock that went back does not delay that.
    pub(crate) fn is_due(&self, now: Timestamp) -> bool {
        self.is_hinted
            || self
                .renewed_at
                .is_none_or(|renewed_at| now < renewed_at || now - renewed_at >= RENEW_EVERY)
    }

    /// Whether the clock was set back since the last renewal.
    pub(crate) fn renewed_after(&self, now: Timestamp) -> bool {
        self.renewed_at.is_some_and(|renewed_at| renewed_at > now)
    }

    pub(crate) fn next_renewal(&self) -> Option<Timestamp> {
        self.renewed_at.and_then(|renewed_at| renewed_at.checked_add_signed(RENEW_EVERY))
    }

    /// Whether this node has renewed its lease before.
    pub(crate) fn has_renewed(&self) -> bool {
        self.renewed_at.is_some()
    }

    /// The live nodes as of the last renewal.
    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Takes over the nodes of the store, and returns those that have been silent for a whole lease.
    pub(crate) fn observe(&mut self, now: Timestamp, me: &str, nodes: Vec<Node>) -> Vec<Node> {
        // After a jump of this clock, or a time in which this node slept, it has not watched the others.
        let patience = (self.lease / 2).max(RENEW_EVERY * 2);
        let watched = |renewed_at| now >= renewed_at && now - renewed_at <= patience;
        if !self.renewed_at.is_some_and(watched) {
            self.seen.clear();
        }
        (self.renewed_at, self.is_hinted) = (Some(now), false);
        let mut seen = BTreeMap::new();
        for node in nodes.iter().filter(|node| node.name != me) {
            let known = self.seen.get(&node.name).filter(|known| known.beat == node.beat);
            let since = known.map_or(now, |known| known.since);
            seen.insert(node.name.clone(), LastBeat { beat: node.beat, since });
        }
        self.seen = seen;
        let is_expired = |node: &Node| {
            self.seen.get(&node.name).is_some_and(|seen| now - seen.since >= self.lease)
        };
        let (expired, live) = nodes.into_iter().partition(is_expired);
        self.nodes = live;
        expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_timestamp_millis(1_800_000_000_000 + millis).unwrap()
    }

    fn node(name: &str, beat: i64) -> Node {
        Node { name: name.to_owned(), beat, started_at: at(0), seen_at: at(0) }
    }

    /// Whether the other node is dead after renewals at these instants, each with its beat.
    fn dead(renewals: &[(i64, i64)]) -> Vec<bool> {
        let mut peers = Peers::new(TimeDelta::seconds(10));
        let meet = |(millis, beat): &(i64, i64)| {
            let dead = peers.observe(at(*millis), "me", vec![node("me", 1), node("other", *beat)]);
            assert_eq!(peers.nodes().iter().any(|node| node.name == "other"), dead.is_empty());
            !dead.is_empty()
        };
        renewals.iter().map(meet).collect()
    }

    #[test]
    fn a_node_is_dead_when_its_beat_has_stood_still_for_a_lease_under_watch() {
        let silent: Vec<(i64, i64)> = (0..=10).map(|second| (second * 1000, 7)).collect();
        assert_eq!(dead(&silent), [vec![false; 10], vec![true]].concat());
        let alive: Vec<(i64, i64)> = (0..30).map(|second| (second * 1000, second)).collect();
        assert!(dead(&alive).iter().all(|dead| !dead));
    }

    #[test]
    fn a_node_that_has_not_watched_does_not_judge() {
        assert_eq!(dead(&[(0, 7), (3_600_000, 7), (3_601_000, 7)]), [false; 3], "a jump forwards");
        assert_eq!(dead(&[(0, 7), (-3_600_000, 7), (1000, 7)]), [false; 3], "and backwards");
    }

    #[test]
    fn a_renewal_is_due_every_second_after_a_hint_and_when_the_clock_went_back() {
        let mut peers = Peers::new(TimeDelta::seconds(10));
        assert!(peers.is_due(at(0)) && !peers.has_renewed());
        peers.observe(at(0), "me", vec![node("me", 1)]);
        assert_eq!(peers.next_renewal(), Some(at(1000)));
        let due = [-1, 0, 999, 1000].map(|millis| peers.is_due(at(millis)));
        assert_eq!(due, [true, false, false, true]);
        peers.hint();
        assert!(peers.is_due(at(1)));
    }
}
