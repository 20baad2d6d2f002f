//! The other nodes on the same store, as far as this one can tell: who gives signs of life.
//!
//! Clocks of machines differ, and jump. So a node is not judged by the time that it wrote, but by
//! whether its beat changes while this node watches; and who has not watched does not judge.

use std::collections::BTreeMap;

use chrono::TimeDelta;

use crate::clock::Timestamp;
use crate::store::Node;

/// Time between two signs of life, and so the longest time until a node sees what another one has changed.
pub(crate) const BEAT: TimeDelta = TimeDelta::seconds(1);

/// A beat, and since when it has been that.
#[derive(Debug, Clone, Copy)]
struct Seen {
    beat: i64,
    since: Timestamp,
}

/// What is known of the nodes.
#[derive(Debug)]
pub(crate) struct Peers {
    /// How long a node may be silent.
    lease: TimeDelta,
    /// The last meeting.
    met_at: Option<Timestamp>,
    /// Whether someone said that there is something to see.
    hinted: bool,
    seen: BTreeMap<String, Seen>,
    nodes: Vec<Node>,
}

impl Peers {
    /// Nobody is known yet.
    pub(crate) fn new(lease: TimeDelta) -> Self {
        Self { lease, met_at: None, hinted: false, seen: BTreeMap::new(), nodes: Vec::new() }
    }

    /// There is something to see: the next meeting is now.
    pub(crate) fn hint(&mut self) {
        self.hinted = true;
    }

    /// Whether it is time for a sign of life. A clock that went back does not put it off.
    pub(crate) fn is_due(&self, now: Timestamp) -> bool {
        self.hinted || self.met_at.is_none_or(|met_at| now < met_at || now - met_at >= BEAT)
    }

    /// Whether the last meeting was later than now: the clock was set back.
    pub(crate) fn were_met_after(&self, now: Timestamp) -> bool {
        self.met_at.is_some_and(|met_at| met_at > now)
    }

    /// When the next sign of life is due; none before the first.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.met_at.and_then(|met_at| met_at.checked_add_signed(BEAT))
    }

    /// Whether this node has met the others before.
    pub(crate) fn has_met(&self) -> bool {
        self.met_at.is_some()
    }

    /// The nodes as of the last meeting.
    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Names of the nodes that are alive, this one among them.
    pub(crate) fn live(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.name.clone()).collect()
    }

    /// Takes up who was met, and returns those that have been silent for a whole lease.
    pub(crate) fn observe(&mut self, now: Timestamp, me: &str, nodes: Vec<Node>) -> Vec<Node> {
        // A jump of this clock, or a time in which this node slept, says nothing about the others.
        let patience = (self.lease / 2).max(BEAT * 2);
        let watched = |met_at| now >= met_at && now - met_at <= patience;
        if !self.met_at.is_some_and(watched) {
            self.seen.clear();
        }
        (self.met_at, self.hinted) = (Some(now), false);
        let mut seen = BTreeMap::new();
        for node in nodes.iter().filter(|node| node.name != me) {
            let known = self.seen.get(&node.name).filter(|known| known.beat == node.beat);
            let since = known.map_or(now, |known| known.since);
            seen.insert(node.name.clone(), Seen { beat: node.beat, since });
        }
        self.seen = seen;
        let is_dead = |node: &Node| {
            self.seen.get(&node.name).is_some_and(|seen| now - seen.since >= self.lease)
        };
        let (dead, live) = nodes.into_iter().partition(is_dead);
        self.nodes = live;
        dead
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

    /// Who is dead after meetings at these instants, in which the other node's beat was this.
    fn dead(meetings: &[(i64, i64)]) -> Vec<bool> {
        let mut peers = Peers::new(TimeDelta::seconds(10));
        let meet = |(millis, beat): &(i64, i64)| {
            let dead = peers.observe(at(*millis), "me", vec![node("me", 1), node("other", *beat)]);
            assert_eq!(peers.live().contains(&"other".to_owned()), dead.is_empty());
            !dead.is_empty()
        };
        meetings.iter().map(meet).collect()
    }

    #[test]
    fn a_node_is_dead_when_its_beat_has_stood_still_for_a_lease_under_watch() {
        let silent: Vec<(i64, i64)> = (0..=10).map(|second| (second * 1000, 7)).collect();
        assert_eq!(dead(&silent), [vec![false; 10], vec![true]].concat());
        let alive: Vec<(i64, i64)> = (0..30).map(|second| (second * 1000, second)).collect();
        assert!(dead(&alive).iter().all(|dead| !dead));
    }

    #[test]
    fn who_has_not_watched_does_not_judge() {
        assert_eq!(dead(&[(0, 7), (3_600_000, 7), (3_601_000, 7)]), [false; 3], "a jump forwards");
        assert_eq!(dead(&[(0, 7), (-3_600_000, 7), (1000, 7)]), [false; 3], "and backwards");
    }

    #[test]
    fn a_sign_of_life_is_due_every_second_at_a_hint_and_after_a_step_back() {
        let mut peers = Peers::new(TimeDelta::seconds(10));
        assert!(peers.is_due(at(0)) && !peers.has_met());
        peers.observe(at(0), "me", vec![node("me", 1)]);
        assert_eq!(peers.next(), Some(at(1000)));
        let due = [-1, 0, 999, 1000].map(|millis| peers.is_due(at(millis)));
        assert_eq!(due, [true, false, false, true]);
        peers.hint();
        assert!(peers.is_due(at(1)));
    }
}
