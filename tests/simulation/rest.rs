//! The end of a world: nothing fails any more, and everything that was begun has to end.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::TimeDelta;
use punctual::clock::Timestamp;
use punctual::job::{Job, PauseTerms};
use punctual::run::{Outcome, RunId};
use punctual::scheduler::request::Request;

use crate::node::{LEASE, Node};
use crate::properties::Property;
use crate::requests;
use crate::world::{BEHIND_MAX, World};
use support::jobs::rules;

/// Time without any progress after which there will be none.
const PATIENCE: TimeDelta = TimeDelta::seconds(60);
/// How late a job may be at rest, and how far ahead a node may hold it.
const LATE: TimeDelta = TimeDelta::seconds(4);
const AHEAD: TimeDelta = TimeDelta::seconds(7);
/// How many runs of one worker end in a step, at most.
const RUNS_PER_STEP: u32 = 30;
const STEP: TimeDelta = TimeDelta::milliseconds(250);

impl World {
    /// All nodes are well from now on. What is in flight ends, what is due fires, and after a pause nothing is left.
    pub(crate) fn settle(&mut self) {
        self.calm();
        let then = self.now;
        let old: Vec<RunId> = self.in_flight();
        self.wait_for("runs of that time are left", |world| {
            let open = world.in_flight();
            old.iter().filter(|id| open.contains(id)).count()
        });
        while self.now - then < LEASE * 2 {
            self.go_on();
        }
        self.wait_for("jobs are neglected", |world| world.neglected().len());
        self.continues();
        self.nodes[0].ask(Request::PauseAll(PauseTerms::default()));
        self.wait_for("runs are left", |world| world.in_flight().len());
        for node in &self.nodes {
            node.check_leaks();
        }
        let owes = self.nodes.iter().any(Node::owes_answers);
        Property::Answered.holds(!owes, || "a command was forgotten".to_owned());
    }

    fn calm(&mut self) {
        self.shared().is_wild = false;
        self.shared().note(|| "from here on nothing fails".to_owned());
        let workers = self.shared().ledger.workers;
        for number in 0..self.nodes.len() {
            let node = &mut self.nodes[number];
            node.stopped_until = None;
            // While a node lives whose clock is hours ahead, no other one can know which of them is right.
            if node.offset > TimeDelta::hours(1) || node.offset < -TimeDelta::hours(1) {
                node.set_clock(-node.offset);
            }
            let is_able =
                node.is_alive() && !node.is_draining() && !node.rules.executors.is_empty();
            // A node that has died may stay away for ever, where another one lives.
            if !is_able && (number == 0 || node.is_alive() || self.dice.once_in(2)) {
                self.start(number);
            }
        }
        self.run_until_quiet();
        for request in requests::reload_to(&self.store, &rules(workers), Vec::new(), Vec::new()) {
            self.nodes[0].ask(request);
        }
        self.nodes[0].ask(Request::ResumeAll);
        self.run_until_quiet();
    }

    /// No recurring job waits for longer than its period, which is at most a minute, beyond what a clock may be behind;
    /// but for one that waits for an instant that a `next_run_time` has named.
    fn continues(&self) {
        let clock = self.nodes.iter().filter(|node| node.is_alive()).map(|node| node.offset).min();
        let now = self.now + clock.unwrap();
        let latest = now + BEHIND_MAX + TimeDelta::minutes(2);
        let shared = self.shared();
        let recurring = shared.ledger.jobs.values().filter(|job| !job.trigger.is_one_shot());
        for job in recurring {
            let waits = job
                .next()
                .is_some_and(|next| next.due_at > latest && job.trigger.matches(next.scheduled_at));
            Property::Continues
                .holds(!waits, || format!("at {now}: {:?} {} {job:?}", job.state, job.anchor));
        }
    }

    fn in_flight(&self) -> Vec<RunId> {
        self.shared().ledger.in_flight().map(|run| run.id.clone()).collect()
    }

    /// Time passes, and whatever was started ends, again and again.
    fn go_on(&mut self) {
        self.now += STEP;
        self.run_until_quiet();
        for _ in 0..RUNS_PER_STEP {
            if !self.end_all() {
                break;
            }
            self.run_until_quiet();
        }
    }

    fn end_all(&mut self) -> bool {
        let mut has_ended = false;
        for node in &mut self.nodes {
            let ended = std::mem::take(&mut *node.workplace.lock().unwrap());
            let well = Outcome::Succeeded { result: None, exit_code: None };
            let at = self.now + node.offset;
            let told = ended.iter().map(|execution| execution.completion(at, well.clone()));
            node.completions.extend(told);
            has_ended |= !ended.is_empty();
        }
        has_ended
    }

    fn wait_for(&mut self, what: &str, left: impl Fn(&Self) -> usize) {
        self.go_on();
        let (mut least, mut since) = (left(self), self.now);
        while least > 0 {
            self.go_on();
            let now_left = left(self);
            if now_left < least {
                (least, since) = (now_left, self.now);
            }
            let goes_on = self.now - since < PATIENCE;
            Property::Settles.holds(goes_on, || {
                let open: Vec<_> = self.shared().ledger.in_flight().cloned().collect();
                format!("{least} {what}: {:#?} {open:#?}", self.neglected())
            });
        }
    }

    /// Jobs that are late by the clock of the node that holds them, or, where nobody does, by any clock; and those
    /// that a node holds though they are far from due by its clock.
    fn neglected(&self) -> Vec<Arc<Job>> {
        let clocks: BTreeMap<&str, Timestamp> = self
            .nodes
            .iter()
            .filter(|node| node.is_alive())
            .map(|node| (&*node.name, self.now + node.offset))
            .collect();
        let latest = clocks.values().max().copied().unwrap();
        let is_neglected = |job: &&Arc<Job>| {
            let Some(wakes_at) = job.wakes_at() else { return false };
            let held_by = job.owner.as_deref().and_then(|owner| clocks.get(owner));
            let is_late = *held_by.unwrap_or(&latest) - wakes_at > LATE;
            is_late || held_by.is_some_and(|clock| wakes_at - *clock > AHEAD)
        };
        let shared = self.shared();
        shared.ledger.jobs.values().filter(is_neglected).cloned().collect()
    }
}
