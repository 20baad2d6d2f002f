//! A world: nodes, the store that they share, true time, and everything that goes wrong. Which of
//! it goes wrong, and how often, is the seed's choice: in some worlds nothing but the clocks, in
//! others everything at once.

use std::sync::{Arc, Mutex, MutexGuard};

use chrono::TimeDelta;
use punctual::clock::Timestamp;
use punctual::filter::{JobFilter, RunFilter};
use punctual::job::admission::Rules;
use punctual::run::{Outcome, RunId};
use punctual::store::Archive;
use support::store::MemoryStore;

use crate::dice::Dice;
use crate::executor::Execution;
use crate::ledger::Ledger;
use crate::node::{LEASE, Node};
use crate::properties::Property;
use crate::requests;
use crate::store::{POISON, Shared};
use support::jobs::{at, rules};

/// Events before the world comes to rest.
const STEPS: u32 = 250;
/// How far a clock can be ahead, in milliseconds: more than what is waited for.
const HOURS: i64 = 5 * 3_600_000;
const YEARS: i64 = 12 * 365 * 24 * 3_600_000;
/// How far a clock may be behind what is recorded before it counts as set right.
pub(crate) const BEHIND_MAX: TimeDelta = TimeDelta::hours(3);
/// Polls within one instant.
pub(crate) const POLLS: u32 = 20_000;

/// How many nodes there are, and whether they share the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// One node at a time, on a store of its own.
    Alone,
    /// Two nodes, and sometimes a third.
    Together,
}

impl Mode {
    /// The word in the names of its tests.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Together => "together",
        }
    }
}

/// How often something goes wrong: once in this many steps, or never.
#[derive(Debug)]
struct Weather {
    crashes: u64,
    stops: u64,
    drains: u64,
    clock_jumps: u64,
    waits: u64,
}

/// A world.
pub(crate) struct World {
    pub(crate) shared: Arc<Mutex<Shared>>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) now: Timestamp,
    pub(crate) store: MemoryStore,
    pub(crate) dice: Dice,
    weather: Weather,
    workers: usize,
    processes: u64,
}

impl World {
    pub(crate) fn new(seed: u64, mode: Mode) -> Self {
        let mut dice = Dice::new(seed);
        let workers = usize::try_from(1 + dice.roll(3)).unwrap();
        let (store, count) = match mode {
            Mode::Alone => (MemoryStore::default(), 1),
            Mode::Together => (MemoryStore::shared(), dice.pick(&[2, 2, 2, 3])),
        };
        let weather = Weather {
            crashes: dice.pick(&[0, 100, 30]),
            stops: dice.pick(&[0, 60, 25]),
            drains: dice.pick(&[0, 150]),
            clock_jumps: dice.pick(&[0, 0, 40, 15]),
            waits: dice.pick(&[0, 60]),
        };
        let ledger = Ledger::new(mode == Mode::Together, workers);
        let (faults, yields) = (dice.pick(&[0, 300, 60]), dice.pick(&[0, 5, 2, 1]));
        let shared = Shared::new(Dice::new(seed ^ 0x5eed), ledger, faults, yields);
        let shared = Arc::new(Mutex::new(shared));
        let nodes = (0..count).map(|_| Node::new(&shared, rules(workers))).collect();
        let mut world =
            Self { shared, nodes, now: at(0), store, dice, weather, workers, processes: 0 };
        for number in 0..world.nodes.len() {
            world.start(number);
        }
        world
    }

    /// Everything, and then rest.
    pub(crate) fn live(&mut self) {
        for number in 0..STEPS {
            self.step();
            if number % 50 == 0 {
                self.check_mirror();
            }
        }
        self.settle();
        self.check_mirror();
    }

    pub(crate) fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }

    fn step(&mut self) {
        self.pass_time();
        self.disturb();
        let asks = self.dice.pick(&[0, 0, 1, 1, 2]);
        for _ in 0..asks {
            self.ask();
        }
        self.end_some();
        if self.dice.once_in(2) {
            self.run_until_quiet();
        } else {
            for _ in 0..=self.dice.roll(12) {
                self.poll_one(true);
            }
        }
    }

    /// To the next instant at which something is due, or to any other.
    fn pass_time(&mut self) {
        self.tick_on();
        let wake = self.nodes.iter().filter_map(Node::wakes_at).min();
        let random = TimeDelta::milliseconds(self.dice.below(1500));
        let long = TimeDelta::milliseconds(1000 + self.dice.below(30_000));
        match self.dice.roll(10) {
            0..=2 => {}
            3..=6 => self.now = wake.map_or(self.now + random, |wake| wake.max(self.now)),
            _ if self.dice.once_in(self.weather.waits) => self.now += long,
            _ => self.now += random,
        }
        for node in &mut self.nodes {
            node.stopped_until = node.stopped_until.filter(|until| *until > self.now);
        }
    }

    fn disturb(&mut self) {
        let number = self.any_node();
        if self.dice.once_in(self.weather.clock_jumps) {
            self.jump(number);
        }
        if self.dice.once_in(self.weather.stops) {
            let seconds = self.dice.pick(&[1, 3, 8, 12, 25]);
            self.stop(number, TimeDelta::seconds(seconds));
        }
        if self.dice.once_in(self.weather.drains) {
            self.nodes[number].drain();
        }
        if self.nodes[number].is_draining() && self.dice.once_in(20) {
            let now = self.now;
            self.nodes[number].ends_drain(now);
        }
        if self.dice.once_in(self.weather.crashes) {
            self.crash(number);
        }
        if self.dice.once_in(15) {
            self.nodes[number].hint();
        }
        for number in 0..self.nodes.len() {
            let node = &mut self.nodes[number];
            if !node.is_alive() && node.starts_at.is_none() {
                // It has left, or is never to come again: then another one does, some day.
                node.starts_at = Some(self.now + LEASE * 3);
            }
            if !node.is_alive() && node.starts_at.is_some_and(|at| at <= self.now) {
                self.start(number);
            }
        }
    }

    pub(crate) fn any_node(&mut self) -> usize {
        let count = u64::try_from(self.nodes.len()).unwrap();
        usize::try_from(self.dice.roll(count)).unwrap()
    }

    fn jump(&mut self, number: usize) {
        let far = self.dice.pick(&[1000, 1000, 60_000, 60_000, 60_000, 3_600_000, HOURS, YEARS]);
        let far = TimeDelta::milliseconds(far + self.dice.below(1000));
        let node = &mut self.nodes[number];
        // A clock that was far ahead is set right sooner or later.
        let by = match node.offset {
            offset if offset > BEHIND_MAX => -offset,
            _ if far > BEHIND_MAX || self.dice.once_in(2) => far,
            _ => -far,
        };
        node.set_clock(by);
        let line = format!("the clock of {} is off by {}", node.name, node.offset);
        self.shared().note(|| line);
    }

    fn stop(&mut self, number: usize, pause: TimeDelta) {
        let node = &mut self.nodes[number];
        node.stopped_until = Some(self.now + pause);
        let line = format!("{} is stopped for {pause}", node.name);
        self.shared().note(|| line);
    }

    fn crash(&mut self, number: usize) {
        let pause = match self.dice.roll(4) {
            0 => TimeDelta::zero(),
            1 => TimeDelta::milliseconds(self.dice.below(9000)),
            2 => LEASE + TimeDelta::milliseconds(self.dice.below(10_000)),
            _ => LEASE * 6,
        };
        let node = &mut self.nodes[number];
        node.die();
        node.starts_at = Some(self.now + pause);
        let line = format!("{} dies for {pause}", node.name);
        self.shared().note(|| line);
    }

    pub(crate) fn start(&mut self, number: usize) {
        self.tick_on();
        self.processes += 1;
        let rules = self.rules();
        let now = self.now;
        let node = &mut self.nodes[number];
        node.rules = rules;
        node.start(&self.store, self.processes, now);
        let offset = node.offset;
        for request in requests::reload(&mut self.dice, &self.store, &node.rules, now + offset) {
            node.ask(request);
        }
    }

    /// The rules of a process; rarely without the pool in which the jobs run.
    fn rules(&mut self) -> Rules {
        let mut rules = rules(self.workers);
        if self.shared().is_wild && self.dice.once_in(25) {
            rules.executors.clear();
        }
        if self.shared().is_wild && self.dice.once_in(4) {
            rules.source = "other.toml".into();
        }
        rules
    }

    /// No two requests are made at the same instant, nor within the few microseconds by which a correction of the clock
    /// sets the anchor of a job apart from its former one.
    fn tick_on(&mut self) {
        self.now += TimeDelta::microseconds(10 + self.dice.below(50));
    }

    fn ask(&mut self) {
        self.tick_on();
        let number = self.any_node();
        let node = &mut self.nodes[number];
        if node.is_alive() {
            let now = self.now + node.offset;
            let requests = if self.dice.once_in(12) {
                let shared = self.shared.lock().unwrap();
                let runs: Vec<RunId> =
                    shared.ledger.in_flight().map(|run| run.id.clone()).collect();
                vec![requests::cancel(&mut self.dice, &runs)]
            } else {
                requests::any(&mut self.dice, &self.store, &node.rules, now)
            };
            for request in requests {
                node.ask(request);
            }
        }
    }

    /// Some executions end, well or not; a completion may be reported twice.
    fn end_some(&mut self) {
        for node in &mut self.nodes {
            let executions = std::mem::take(&mut *node.workplace.lock().unwrap());
            for execution in executions {
                let outcome = end_of(&execution, &mut self.dice);
                let times = 1 + usize::from(self.dice.once_in(20));
                node.execution_ends(execution, outcome, times, self.now);
            }
        }
    }

    /// Lets one of the nodes that have something to do go on.
    fn poll_one(&mut self, is_spurious: bool) -> bool {
        let now = self.now;
        let ready = |node: &Node| node.is_ready(now);
        let mut ready: Vec<usize> =
            (0..self.nodes.len()).filter(|number| ready(&self.nodes[*number])).collect();
        if is_spurious && self.dice.once_in(30) {
            ready = (0..self.nodes.len()).collect();
            ready.retain(|number| self.nodes[*number].stopped_until.is_none());
        }
        if ready.is_empty() {
            return false;
        }
        let number = self.dice.pick(&ready);
        self.nodes[number].go_on(now);
        true
    }

    /// Until no node has anything to do at this instant.
    pub(crate) fn run_until_quiet(&mut self) {
        for _ in 0..POLLS {
            if !self.poll_one(false) {
                return;
            }
        }
        Property::Rests.holds(false, || "the nodes never come to rest".to_owned());
    }

    fn check_mirror(&self) {
        let filter = JobFilter { limit: usize::MAX, ..JobFilter::default() };
        let jobs = now_or_never(self.store.jobs(&filter)).rows;
        let filter = RunFilter { limit: usize::MAX, ..RunFilter::default() };
        let runs = now_or_never(self.store.runs(&filter)).rows;
        let shared = self.shared();
        let known = |job: &punctual::job::Job| {
            shared.ledger.jobs.get(&job.id).is_some_and(|known| {
                (known.revision, &known.state, &known.owner)
                    == (job.revision, &job.state, &job.owner)
            })
        };
        let same_jobs = jobs.iter().all(known) && jobs.len() == shared.ledger.jobs.len();
        Property::Mirrored.holds(same_jobs, || format!("{jobs:#?}"));
        let same_runs = runs.iter().rev().eq(shared.ledger.runs.values().map(AsRef::as_ref));
        Property::Mirrored.holds(same_runs, || format!("{} rows", runs.len()));
    }
}

/// How an execution ends, if it ends now. One that was asked to end may not hear it.
fn end_of(execution: &Execution, dice: &mut Dice) -> Option<Outcome> {
    if let Some(reason) = execution.cancelled.clone().filter(|_| dice.once_in(2)) {
        return Some(Outcome::Cancelled { reason });
    }
    if execution.is_stuck || !dice.once_in(4) {
        return None;
    }
    let error = dice.pick(&["as it happens", "as it happens", "as it happens", POISON]).to_owned();
    Some(match dice.roll(12) {
        // A report that is tried again would wait for longer than a world lasts.
        0..=3 if execution.is_hook => {
            Outcome::Failed { error, exit_code: Some(1), signal: None, permanent: true }
        }
        0..=1 => Outcome::Failed { error, exit_code: None, signal: None, permanent: false },
        2 => Outcome::TimedOut { error },
        3 => Outcome::Failed { error, exit_code: Some(1), signal: None, permanent: true },
        _ => Outcome::Succeeded { result: None, exit_code: None },
    })
}

/// The result of a call that does not wait.
pub(crate) fn now_or_never<T>(
    call: impl Future<Output = Result<T, punctual::store::StoreError>>,
) -> T {
    let mut call = std::pin::pin!(call);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match call.as_mut().poll(&mut context) {
        std::task::Poll::Ready(result) => result.unwrap(),
        std::task::Poll::Pending => panic!("the store in memory does not wait"),
    }
}
