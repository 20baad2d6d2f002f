//! The end of a world: nothing fails any more, and everything has to come to an end.

use chrono::TimeDelta;
use punctual::clock::Timestamp;
use punctual::run::{Outcome, RunId};
use punctual::scheduler::command::Request;

use crate::jobs::rules;
use crate::node::{LEASE, Node};
use crate::properties::Property;
use crate::world::World;

/// Time without any progress after which there will be none.
const PATIENCE: TimeDelta = TimeDelta::seconds(60);
const STEP: TimeDelta = TimeDelta::milliseconds(250);

impl World {
    /// All nodes are well from now on. What is in flight ends, what is due fires, and after a pause nothing is left.
    pub(crate) fn settle(&mut self) {
        self.calm();
        let then = self.now;
        let old: Vec<RunId> = self.in_flight();
        self.wait_for("the runs of that time", |world| {
            let open = world.in_flight();
            old.iter().filter(|id| open.contains(id)).count()
        });
        while self.now - then < LEASE * 2 {
            self.go_on();
        }
        self.check_due();
        self.nodes[0].ask(Request::PauseAll);
        self.wait_for("all runs", |world| world.in_flight().len());
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
            let is_able = node.is_alive() && !node.is_draining && !node.rules.executors.is_empty();
            // A node that has died may stay away for ever, where another one lives.
            if !is_able && (number == 0 || node.is_alive() || self.dice.once_in(2)) {
                self.start(number);
            }
        }
        self.run_until_quiet();
        let jobs = Vec::new();
        self.nodes[0].ask(Request::Reload { rules: Box::new(rules(workers)), jobs });
        self.nodes[0].ask(Request::ResumeAll);
        self.run_until_quiet();
    }

    fn in_flight(&self) -> Vec<RunId> {
        self.shared().ledger.in_flight().map(|run| run.id.clone()).collect()
    }

    /// Time passes, and whatever was started ends.
    fn go_on(&mut self) {
        self.now += STEP;
        let now = self.now;
        for node in &mut self.nodes {
            let ended = std::mem::take(&mut *node.workplace.lock().unwrap());
            let well = Outcome::Succeeded { result: None, exit_code: None };
            let at = now + node.offset;
            let told = ended.iter().map(|execution| execution.completion(at, well.clone()));
            node.completions.extend(told);
        }
        self.run_until_quiet();
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
                let shared = self.shared();
                let open: Vec<_> = shared.ledger.in_flight().collect();
                format!("{least} of {what} are left: {open:#?}")
            });
        }
    }

    /// Nothing has been due for long, by the clock of any node.
    fn check_due(&self) {
        let alive = self.nodes.iter().filter(|node| node.is_alive());
        let latest = alive.map(|node| self.now + node.offset).max().unwrap();
        let late = |due_at: Timestamp| latest - due_at > TimeDelta::seconds(8);
        let shared = self.shared();
        for job in shared.ledger.jobs.values() {
            let is_late = job.next().is_some_and(|next| late(next.due_at));
            Property::Fires.holds(!is_late, || format!("it is {latest}: {job:#?}"));
        }
    }
}
