//! A seeded world: random requests, completions, crashes, failing writes and jumps of the clock,
//! with the promises checked at every step. `SIM_SEED=n` runs one seed, `SIM_SEEDS=n` more of them.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests: they may end one"
)]

#[path = "support/jobs.rs"]
mod jobs;
#[path = "support/world.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use jobs::{at, job_at};
use punctual::clock::Timestamp;
use punctual::job::{Job, JobState};
use punctual::run::{Cause, Outcome, RunState};
use punctual::scheduler::command::{Addition, Existing, Request};
use serde_json::{Value, json};
use world::{Fault, World};

const JOBS: [&str; 4] = ["latest", "earliest", "all", "jittery"];
const WORKERS: usize = 3;
const STEPS: usize = 300;
const SEEDS: u64 = 60;

/// A small generator whose whole state is its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        *items
            .get(usize::try_from(self.roll(u64::try_from(items.len()).unwrap())).unwrap())
            .unwrap()
    }
}

/// A trigger that fires every few seconds, of any type that can.
fn trigger(dice: &mut Dice) -> Value {
    let seconds = 1 + dice.roll(9);
    let every = json!({"type": "interval", "seconds": seconds});
    let cron = json!({"type": "cron", "second": format!("*/{seconds}")});
    match dice.roll(6) {
        0 => cron,
        1 => json!({"type": "crontab", "expression": format!("3-58/{seconds} * * * * *")}),
        2 => json!({"type": "or", "triggers": [every, cron]}),
        3 => json!({"type": "and", "triggers": [cron, {"type": "cron", "second": "*/2"}]}),
        _ => every,
    }
}

fn new_job(id: &str, dice: &mut Dice, now: Timestamp) -> Job {
    let mut given = json!({
        "id": id,
        "trigger": trigger(dice),
        "coalesce": if id == "jittery" { "latest" } else { id },
        "max_instances": 1 + dice.roll(3),
        "on_crash": dice.pick(&["rerun", "lose"]),
    });
    if id == "jittery" {
        given["trigger"]["jitter"] = 5.into();
    }
    if dice.roll(2) == 0 {
        given["misfire_grace_time"] = (1 + dice.roll(30)).into();
    }
    job_at(&given, now)
}

/// One random event, and a step. What fails here is refused or tried again; the promises hold all the same.
async fn step(world: &mut World, dice: &mut Dice, now: Timestamp) {
    let id = dice.pick(&JOBS);
    let job = new_job(id, dice, now);
    let request = match dice.roll(40) {
        0 => Some(Request::Remove(job.id)),
        1..=3 => Some(Request::Pause(job.id)),
        4..=8 => Some(Request::Resume(job.id)),
        9..=11 => Some(Request::Run(job.id)),
        12..=14 => Some(Request::Add(Addition { job: Box::new(job), existing: Existing::Refuse })),
        16 => Some(Request::PauseAll),
        17..=20 => Some(Request::ResumeAll),
        15 => Some(Request::Add(Addition { job: Box::new(job), existing: Existing::Redefine })),
        _ => None,
    };
    match dice.roll(30) {
        0 => world.fail_next(Fault::Before),
        1 => world.fail_next(Fault::After),
        2 => world.crash(now).await,
        _ => {}
    }
    for _ in 0..dice.roll(3) {
        let failed = Outcome::Failed {
            error: "as it happens".to_owned(),
            exit_code: None,
            permanent: false,
        };
        let well = Outcome::Succeeded { result: None, exit_code: None };
        let number = usize::try_from(dice.roll(3)).unwrap();
        world.complete(number, now, if dice.roll(4) == 0 { failed } else { well });
    }
    match request {
        Some(request) => drop(world.ask(request, now).await),
        None => drop(world.try_tick(now).await),
    }
}

/// Nothing starts early, nothing starts twice at the same attempt, and the ledger says so before.
fn check_starts(
    world: &World,
    known: &mut BTreeSet<(std::sync::Arc<str>, u32)>,
    latest: Timestamp,
) {
    for (assignment, row) in world.starts().into_iter().skip(known.len()) {
        assert!(row.due_at <= latest, "{row:?} was started early, at {latest}");
        assert!(
            matches!(row.state, RunState::Running { .. }),
            "{row:?} was not written as running"
        );
        assert_eq!(row.attempt, assignment.attempt);
        let start = (assignment.run_id.0, assignment.attempt);
        assert!(known.insert(start.clone()), "{start:?} was started twice");
    }
}

/// No job has more runs than it may, no pool more than its workers.
async fn check_limits(world: &World) {
    let mut busy = 0;
    for id in JOBS {
        let runs = world.runs(id).await;
        let running =
            runs.iter().filter(|run| matches!(run.state, RunState::Running { .. })).count();
        busy += running;
        if let Some(job) = world.job(id).await {
            // A job that was redefined may have runs of its former self.
            assert!(
                running <= usize::try_from(job.policy.max_instances).unwrap().max(3),
                "{id} has {running} running"
            );
        }
    }
    assert!(busy <= WORKERS, "{busy} workers are busy");
}

/// Each occurrence from a definition on until the job's next one has exactly one row.
async fn check_ledger(world: &World) {
    for id in JOBS {
        let Some(job) = world.job(id).await else { continue };
        let (JobState::Active { next } | JobState::Paused { next }) = &job.state else { continue };
        let mut spans: BTreeMap<Timestamp, Timestamp> = BTreeMap::new();
        let runs = world.runs(id).await;
        for run in
            runs.iter().filter(|run| run.cause == Cause::Schedule && run.anchor == job.anchor)
        {
            let first = run.scheduled_at.unwrap();
            let last = match &run.state {
                RunState::Skipped { last_scheduled_at, .. } => *last_scheduled_at,
                RunState::Pending | RunState::Running { .. } | RunState::Ended { .. } => first,
            };
            assert_eq!(spans.insert(first, last), None, "{id}: two rows for {first}");
        }
        let mut expected = job.trigger.first().unwrap();
        for (first, last) in spans {
            assert_eq!(first, expected, "{id}: the row of {expected} is missing");
            expected = job.trigger.next_after(last).unwrap();
        }
        assert_eq!(next.scheduled_at, expected, "{id}: what comes next");
    }
}

async fn simulate(seed: u64) -> Vec<String> {
    let mut dice = Dice(seed);
    let mut world = World::new(WORKERS).await;
    let (mut now, mut latest, mut known) = (at(0), at(0), BTreeSet::new());
    for _ in 0..STEPS {
        let jump = match dice.roll(40) {
            0 => TimeDelta::hours(1),
            1 => TimeDelta::seconds(-30),
            2..=10 => TimeDelta::zero(),
            _ => TimeDelta::milliseconds(i64::try_from(dice.roll(3000)).unwrap()),
        };
        now += jump;
        latest = latest.max(now);
        step(&mut world, &mut dice, now).await;
        check_starts(&world, &mut known, latest);
        check_limits(&world).await;
        check_ledger(&world).await;
    }
    let mut trace = Vec::new();
    for id in JOBS {
        trace.extend(world.ledger(id).await);
    }
    trace
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

#[tokio::test]
async fn the_promises_hold_in_every_world() {
    let seeds =
        number("SIM_SEED").map_or(0..number("SIM_SEEDS").unwrap_or(SEEDS), |seed| seed..seed + 1);
    let mut rows = 0;
    for seed in seeds {
        let run = std::panic::AssertUnwindSafe(simulate(seed));
        let trace = to_the_end(run).await.unwrap_or_else(|_| {
            panic!("to see it again: SIM_SEED={seed} cargo test --test simulation");
        });
        rows += trace.len();
    }
    assert!(rows > 0, "something happened");
}

/// Runs to the end, or to a panic.
async fn to_the_end<T>(
    run: std::panic::AssertUnwindSafe<impl Future<Output = T>>,
) -> std::thread::Result<T> {
    let mut run = std::pin::pin!(run.0);
    std::future::poll_fn(|context| {
        let polled =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.as_mut().poll(context)));
        match polled {
            Ok(std::task::Poll::Pending) => std::task::Poll::Pending,
            Ok(std::task::Poll::Ready(value)) => std::task::Poll::Ready(Ok(value)),
            Err(panic) => std::task::Poll::Ready(Err(panic)),
        }
    })
    .await
}

#[tokio::test]
async fn the_same_seed_gives_the_same_ledger() {
    for seed in 0..5 {
        assert_eq!(simulate(seed).await, simulate(seed).await, "seed {seed}");
    }
}
