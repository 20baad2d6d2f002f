//! What follows the end of an attempt: another one, a cancel, hooks and heartbeats.

use chrono::TimeDelta;
use punctual::clock::Timestamp;
use punctual::executor::HeartbeatEvent;
use punctual::job::Job;
use punctual::run::{Cause, Outcome, Run, RunId, RunState};
use punctual::scheduler::request::{Addition, Existing, Request, RequestError, Response};
use serde_json::{Value, json};
use support::jobs::{self, at, job, job_at};
use support::store::MemoryStore;
use support::store::faulty::Fault;
use support::world::World;

fn failed() -> Outcome {
    let error = "no luck".to_owned();
    Outcome::Failed { error, exit_code: Some(1), signal: None, permanent: false }
}

fn for_good() -> Outcome {
    let error = "no way".to_owned();
    Outcome::Failed { error, exit_code: Some(1), signal: None, permanent: true }
}

fn timed_out() -> Outcome {
    Outcome::TimedOut { error: "too slow".to_owned() }
}

/// A job that is due once, ten seconds after the beginning, with these keys as well.
fn once(given: &Value) -> Value {
    let mut job =
        json!({"id": "a", "trigger": {"type": "date", "run_date": "2027-01-15T08:00:10Z"}});
    job.as_object_mut().unwrap().extend(given.as_object().unwrap().clone());
    job
}

/// The only run of job `a`.
async fn only_run(world: &World) -> Run {
    let runs = world.runs("a").await;
    let mut own = runs.into_iter().filter(|run| !matches!(run.cause, Cause::Event { .. }));
    own.next().unwrap()
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    (to - from).as_seconds_f64()
}

#[tokio::test]
async fn a_run_that_fails_is_tried_again_after_growing_delays_until_it_may_not_any_more() {
    let mut world = World::new(1).await;
    let retry =
        json!({"max_attempts": 4, "delay": 2, "backoff": 3, "max_delay": 10, "jitter": 0.5});
    world.add(job(&once(&json!({"retry": retry}))), at(0)).await;
    world.tick(at(10)).await;
    let mut now = at(11);
    for (attempt, delays) in [(1, 2.0..3.0), (2, 6.0..9.0), (3, 10.0..15.0)] {
        let end = if attempt == 2 { timed_out() } else { failed() };
        world.complete(0, now, end);
        let next = world.tick(now).await.unwrap();
        assert!(delays.contains(&seconds(now, next)), "{attempt}: {}", seconds(now, next));
        let run = only_run(&world).await;
        assert_eq!((&run.state, run.attempt, run.due_at), (&RunState::Pending, attempt + 1, next));
        assert_eq!(world.tick(next - TimeDelta::microseconds(1)).await, Some(next));
        assert!(world.started().is_empty(), "not before its time");
        world.tick(next).await;
        assert_eq!(world.started(), ["a"]);
        now = next + TimeDelta::seconds(1);
    }
    world.complete(0, now, failed());
    world.tick(now).await;
    assert_eq!(world.ledger("a").await, ["10 failed"]);
    assert_eq!(world.starts_with_attempts(), ["a 1", "a 2", "a 3", "a 4"]);
    let attempts = world.attempts(&only_run(&world).await.id).await;
    let words: Vec<_> = attempts.iter().map(|attempt| attempt.outcome.word()).collect();
    assert_eq!(words, ["failed", "timed_out", "failed"], "the last one is the run's own");
}

#[tokio::test]
async fn permanent_failures_and_cancelled_runs_are_not_retried() {
    let cancelled = Outcome::Cancelled { reason: "by hand".to_owned() };
    let well = Outcome::Succeeded { result: None, exit_code: None };
    for (end, word) in [(for_good(), "failed"), (cancelled, "cancelled"), (well, "succeeded")] {
        let mut world = World::new(1).await;
        world.add(job(&once(&json!({"retry": {"max_attempts": 3}}))), at(0)).await;
        world.tick(at(10)).await;
        world.complete(0, at(11), end);
        assert_eq!(world.tick(at(11)).await, None);
        assert_eq!(world.ledger("a").await, [format!("10 {word}")]);
    }
}

#[tokio::test]
async fn a_retry_survives_a_crash_and_a_lost_answer_and_keeps_its_time() {
    let mut world = World::new(1).await;
    world.add(job(&once(&json!({"retry": {"max_attempts": 3, "delay": 60}}))), at(0)).await;
    world.tick(at(10)).await;
    world.complete(0, at(11), failed());
    world.fail_next(Fault::After);
    world.try_tick(at(11)).await.unwrap_err();
    let next = world.tick(at(12)).await.unwrap();
    assert!((60.0..67.0).contains(&seconds(at(11), next)), "{next}");
    world.crash(at(20)).await;
    assert_eq!(world.tick(at(20)).await, Some(next));
    assert!(world.started().is_empty());
    world.tick(next).await;
    assert_eq!(world.starts_with_attempts(), ["a 1", "a 2"]);
}

#[tokio::test]
async fn a_retry_waits_for_no_clock_that_was_set_back() {
    let mut world = World::new(1).await;
    world
        .add(job(&once(&json!({"retry": {"max_attempts": 3, "delay": 5, "max_delay": 60}}))), at(0))
        .await;
    world.tick(at(10)).await;
    world.complete(0, at(11), failed());
    world.tick(at(11)).await;
    world.tick(at(-3600)).await;
    assert_eq!(world.starts_with_attempts(), ["a 1", "a 2"], "an hour is longer than any delay");
}

#[tokio::test]
async fn a_run_that_a_crash_interrupted_waits_for_no_clock_that_was_set_back() {
    let mut world = World::new(1).await;
    let retry = json!({"max_attempts": 3, "delay": 5, "max_delay": 3600});
    world.add(job(&once(&json!({"retry": retry}))), at(0)).await;
    world.tick(at(10)).await;
    world.crash(at(-60)).await;
    world.tick(at(-60)).await;
    assert_eq!(world.starts_with_attempts(), ["a 1", "a 2"], "it was due before it started");
}

#[tokio::test]
async fn a_run_between_two_attempts_is_an_instance_of_its_job() {
    let mut world = World::new(2).await;
    let retry = json!({"max_attempts": 2, "delay": 15});
    world.add(job(&json!({"id": "a", "retry": retry})), at(0)).await;
    world.tick(at(10)).await;
    world.complete(0, at(11), failed());
    world.tick(at(11)).await;
    world.tick(at(20)).await;
    assert_eq!(world.ledger("a").await, ["10 pending", "20 overlap"]);
    let busy = world.ask(Request::Run(punctual::job::JobId::parse("a").unwrap()), at(21)).await;
    assert!(matches!(busy, Err(RequestError::Busy { .. })), "{busy:?}");
}

#[tokio::test]
async fn a_retry_follows_the_new_definition_of_its_job_and_ends_with_it() {
    let mut world = World::new(1).await;
    let retry = json!({"max_attempts": 3, "delay": 60});
    world.add(job(&once(&json!({"retry": retry}))), at(0)).await;
    world.tick(at(10)).await;
    // Redefined while it runs: this definition decides.
    let other = once(&json!({"retry": {"max_attempts": 3, "delay": 5}, "priority": 7}));
    let addition = Addition { job: Box::new(job_at(&other, at(0))), existing: Existing::Redefine };
    world.ask(Request::Add(addition), at(10)).await.unwrap();
    world.complete(0, at(11), failed());
    let next = world.tick(at(11)).await.unwrap();
    assert!(next < at(20), "{next}");
    world.remove("a", at(12)).await;
    assert_eq!(world.tick(at(12)).await, None);
    let RunState::Ended { outcome, .. } = only_run(&world).await.state else { panic!() };
    assert_eq!(outcome, Outcome::Cancelled { reason: "not tried again: removed".to_owned() });
}

#[tokio::test]
async fn a_run_of_a_job_that_is_removed_while_it_runs_is_not_tried_again() {
    let mut world = World::new(1).await;
    world.add(job(&once(&json!({"retry": {"max_attempts": 3}}))), at(0)).await;
    world.tick(at(10)).await;
    world.remove("a", at(11)).await;
    world.complete(0, at(12), failed());
    assert_eq!(world.tick(at(12)).await, None);
    assert_eq!(world.ledger("a").await, ["10 failed"]);
}

#[tokio::test]
async fn crashes_use_up_attempts_and_leave_a_trace_of_each() {
    let mut world = World::new(1).await;
    world.add(job(&once(&json!({"retry": {"max_attempts": 2}}))), at(0)).await;
    world.tick(at(10)).await;
    world.crash(at(11)).await;
    world.tick(at(11)).await;
    world.complete(0, at(12), failed());
    world.tick(at(12)).await;
    assert_eq!(world.ledger("a").await, ["10 failed"]);
    let attempts = world.attempts(&only_run(&world).await.id).await;
    let words: Vec<_> = attempts.iter().map(|attempt| attempt.outcome.word()).collect();
    assert_eq!(words, ["lost"]);
}

/// Why the only run of job `a` was lost, if it was.
async fn why_lost(world: &World) -> Option<String> {
    let state = only_run(world).await.state;
    let RunState::Ended { outcome: Outcome::Lost { error }, .. } = state else { return None };
    Some(error)
}

#[tokio::test]
async fn a_run_during_which_the_daemon_dies_three_times_is_lost_and_says_so() {
    let mut world = World::new(1).await;
    world.add(job(&once(&json!({}))), at(0)).await;
    world.tick(at(10)).await;
    for death in 1..i64::from(jobs::MAX_CRASHES) {
        world.crash(at(10 + death)).await;
        assert_eq!(why_lost(&world).await, None);
        world.tick(at(10 + death)).await;
    }
    assert_eq!(world.starts_with_attempts(), ["a 1", "a 2", "a 3"]);
    world.crash(at(20)).await;
    let why = why_lost(&world).await.unwrap();
    assert_eq!(why, "the daemon died 3 times while it ran");
    assert_eq!(world.tick(at(20)).await, None);
}

#[tokio::test]
async fn neither_stops_nor_retries_nor_deaths_while_it_waited_count_as_deaths_during_a_run() {
    let mut world = World::new(1).await;
    world
        .add(job(&once(&json!({"retry": {"max_attempts": 100, "delay": 1, "backoff": 1}}))), at(0))
        .await;
    let mut now = 10;
    world.tick(at(now)).await;
    for _ in 0..20 {
        // A stop interrupts it, then an attempt fails, and the daemon dies while it waits for the next one.
        world.restart(at(now)).await;
        world.tick(at(now)).await;
        world.complete(0, at(now), failed());
        world.tick(at(now)).await;
        world.crash(at(now)).await;
        now += 10;
        world.tick(at(now)).await;
        assert_eq!(world.started(), ["a"]);
    }
    world.complete_all(at(now));
    world.tick(at(now)).await;
    assert_eq!(world.ledger("a").await, ["10 succeeded"]);
}

/// Of several runs that died with the daemon, the one that kills it must not take the others along for the third time.
#[tokio::test]
async fn only_the_run_that_kills_the_daemon_is_lost_and_not_those_that_die_with_it() {
    for guilty in ["a", "c", "e"] {
        let mut world = World::new(8).await;
        let ids = ["a", "b", "c", "d", "e"];
        for id in ids {
            world.add(job(&once(&json!({"id": id}))), at(0)).await;
        }
        assert_eq!(deaths_by(guilty, &ids, &mut world).await, jobs::MAX_CRASHES);
        assert_eq!(world.ledger(guilty).await, ["10 lost"]);
        for id in ids.iter().filter(|id| **id != guilty) {
            assert_eq!(world.ledger(id).await, ["10 succeeded"], "{id}");
        }
    }
}

/// Goes on until everything has ended, while the daemon dies whenever this job runs; how often it died.
async fn deaths_by(guilty: &str, ids: &[&str], world: &mut World) -> u32 {
    let (mut now, mut deaths) = (10, 0);
    world.tick(at(now)).await;
    while !world.started().is_empty() {
        now += 1;
        // What is new does not wait for those that may be guilty.
        let fresh = format!("fresh-{now}");
        let given =
            json!({"id": fresh, "trigger": {"type": "date", "run_date": "2027-01-15T08:00:00Z"}});
        world.add(job(&given), at(now)).await;
        world.tick(at(now)).await;
        let started = world.started();
        assert!(started.contains(&fresh), "{started:?}");
        let first = started.iter().filter(|id| ids.contains(&id.as_str())).count();
        assert!(deaths < 2 || first <= 1, "one at a time after {deaths} deaths: {started:?}");
        if started.iter().any(|id| id == guilty) {
            deaths += 1;
            world.crash(at(now)).await;
        } else {
            world.complete_all(at(now));
        }
        world.tick(at(now)).await;
    }
    deaths
}

fn cancel(id: &RunId, reason: Option<&str>) -> Request {
    Request::Cancel { run: id.clone(), reason: reason.map(str::to_owned) }
}

#[tokio::test]
async fn a_waiting_run_is_cancelled_at_once_and_a_running_one_is_asked_to_end() {
    let mut world = World::new(1).await;
    for id in ["a", "b"] {
        world.add(job(&json!({"id": id})), at(0)).await;
    }
    world.tick(at(10)).await;
    let (running, waiting) =
        (world.runs("a").await.remove(0).id, world.runs("b").await.remove(0).id);
    let Ok(Response::Run(run)) = world.ask(cancel(&waiting, Some("enough")), at(11)).await else {
        panic!()
    };
    assert_eq!(run.state.word(), "cancelled");
    assert_eq!(world.ledger("b").await, ["10 cancelled"]);
    let Ok(Response::Run(run)) = world.ask(cancel(&running, None), at(12)).await else { panic!() };
    assert_eq!(run.state.word(), "running");
    let asked = (running.clone(), "cancelled on request".to_owned());
    assert_eq!(world.cancels(), [asked], "its completion will tell");
    world.complete(0, at(13), Outcome::Cancelled { reason: "cancelled on request".to_owned() });
    world.tick(at(13)).await;
    assert_eq!(world.ledger("a").await, ["10 cancelled"]);
    let ended = world.ask(cancel(&running, None), at(14)).await.unwrap_err();
    assert!(matches!(ended, RequestError::RunEnded { state: "cancelled", .. }), "{ended}");
    let unknown = world.ask(cancel(&RunId("nothing".into()), None), at(14)).await.unwrap_err();
    assert!(matches!(unknown, RequestError::NoRun(_)), "{unknown}");
}

#[tokio::test]
async fn a_run_that_waits_for_its_next_attempt_is_cancelled_at_once() {
    let mut world = World::new(1).await;
    world.add(job(&once(&json!({"retry": {"max_attempts": 3, "delay": 60}}))), at(0)).await;
    world.tick(at(10)).await;
    let id = only_run(&world).await.id;
    // It fails in the same step in which it is to end.
    world.complete(0, at(11), failed());
    world.tick(at(11)).await;
    world.ask(cancel(&id, None), at(12)).await.unwrap();
    assert_eq!(world.ledger("a").await, ["10 cancelled"]);
    assert_eq!(world.tick(at(100)).await, None);
}

#[tokio::test]
async fn a_run_on_another_node_is_cancelled_when_the_nodes_meet_whether_it_runs_or_waits() {
    let store = MemoryStore::shared();
    let mut first = World::join(&store, 0, 1, at(0)).await;
    let mut second = World::join(&store, 1, 1, at(0)).await;
    let more = json!({"id": "a", "max_instances": 5, "overlap": "queue"});
    first.add(job(&more), at(1)).await;
    let ask = Request::Run(punctual::job::JobId::parse("a").unwrap());
    first.ask(ask.clone(), at(1)).await.unwrap();
    first.ask(ask, at(1)).await.unwrap();
    let runs = first.runs("a").await;
    assert_eq!(first.ledger("a").await, ["- running", "- pending"]);
    for run in &runs {
        second.ask(cancel(&run.id, Some("from afar")), at(2)).await.unwrap();
    }
    first.tick(at(3)).await;
    let asked = (runs[0].id.clone(), "from afar".to_owned());
    assert!(first.cancels().contains(&asked));
    assert_eq!(first.ledger("a").await[1], "- cancelled");
}

#[tokio::test]
async fn of_the_runs_that_wait_those_of_the_highest_priority_start_first_and_then_the_oldest() {
    let mut world = World::new(1).await;
    for (id, priority, second) in
        [("first", 0, 10), ("low", -5, 11), ("old", 0, 12), ("new", 0, 13), ("high", 9, 14)]
    {
        let at_second = format!("2027-01-15T08:00:{second}Z");
        let trigger = json!({"type": "date", "run_date": at_second});
        let given = json!({"id": id, "trigger": trigger, "priority": priority});
        world.add(job(&given), at(0)).await;
    }
    for second in 10..15 {
        world.tick(at(second)).await;
    }
    let mut order = Vec::new();
    for second in 20..25 {
        order.extend(world.started());
        world.finish_all(at(second)).await;
    }
    assert_eq!(order, ["first", "high", "old", "new", "low"]);
}

fn hooks() -> Value {
    let task = |name: &str| json!({"type": "builtin", "name": "noop", "args": {"for": name}});
    json!({"on_success": task("success"), "on_failure": task("failure"), "on_missed": task("missed")})
}

/// The hook runs of job `a`: the event and the state of each.
async fn told(world: &World) -> Vec<String> {
    let runs = world.runs("a").await;
    let tells = runs.iter().filter(|run| matches!(run.cause, Cause::Event { .. }));
    tells.map(|run| format!("{} {}", run.cause.word(), run.state.word())).collect()
}

#[tokio::test]
async fn the_end_of_a_run_is_reported_by_a_hook_run_which_is_no_instance_and_has_no_hooks() {
    let well = Outcome::Succeeded { result: None, exit_code: None };
    for (end, cause) in
        [(well, "on_success"), (failed(), "on_failure"), (timed_out(), "on_failure")]
    {
        let mut world = World::new(2).await;
        world.add(job(&once(&hooks())), at(0)).await;
        world.tick(at(10)).await;
        let subject = only_run(&world).await.id;
        world.complete(0, at(11), end);
        world.tick(at(11)).await;
        assert_eq!(told(&world).await, [format!("{cause} running")]);
        let (assignment, row) = world.starts().pop().unwrap();
        assert!(matches!(&row.cause, Cause::Event { subject: of, .. } if *of == subject));
        let facts = assignment.event.unwrap();
        assert_eq!(facts["job"]["id"], "a");
        assert_eq!(facts["run"]["id"], *subject.0);
        assert_eq!(format!("on_{}", facts["event"].as_str().unwrap()), cause);
        assert_ne!(facts["run"]["state"], "running", "it is told as it ended");
        let task = assignment.task.to_value();
        assert_eq!(format!("on_{}", task["args"]["for"].as_str().unwrap()), cause);
        world.complete(0, at(12), failed());
        world.tick(at(12)).await;
        assert_eq!(told(&world).await, [format!("{cause} failed")]);
    }
}

#[tokio::test]
async fn an_outage_is_reported_once_if_so_configured_and_so_is_its_end() {
    let well = || Outcome::Succeeded { result: None, exit_code: None };
    let mut world = World::new(2).await;
    let mut given = hooks();
    given["on_success"] = json!(null);
    given["on_failure_once"] = json!(true);
    given["on_recovery"] = json!({"type": "builtin", "name": "noop"});
    given["id"] = json!("a");
    world.add(job(&given), at(0)).await;
    let expected: [(Outcome, &[&str]); 6] = [
        (well(), &[]),
        (failed(), &["on_failure"]),
        (timed_out(), &["on_failure"]),
        (well(), &["on_failure", "on_recovery"]),
        (well(), &["on_failure", "on_recovery"]),
        (failed(), &["on_failure", "on_recovery", "on_failure"]),
    ];
    for (number, (end, causes)) in (1..).zip(expected) {
        world.tick(at(number * 10)).await;
        world.complete(0, at(number * 10 + 1), end);
        world.tick(at(number * 10 + 1)).await;
        world.finish_all(at(number * 10 + 2)).await;
        let words: Vec<_> = told(&world).await;
        let expected: Vec<_> = causes.iter().map(|cause| format!("{cause} succeeded")).collect();
        assert_eq!(words, expected, "{number}");
        if number == 3 {
            world.crash(at(35)).await;
        }
    }
}

/// Job `a` every ten seconds with `on_failure_once`, with these keys as well.
fn tells_once(given: &Value) -> Value {
    let noop = json!({"type": "builtin", "name": "noop"});
    let mut job =
        json!({"id": "a", "on_failure": noop, "on_failure_once": true, "on_recovery": noop});
    job.as_object_mut().unwrap().extend(given.as_object().unwrap().clone());
    job
}

#[tokio::test]
async fn of_runs_at_the_same_time_the_order_in_which_they_end_makes_an_outage() {
    let well = || Outcome::Succeeded { result: None, exit_code: None };
    let mut world = World::new(9).await;
    world.add(job(&tells_once(&json!({"max_instances": 3}))), at(0)).await;
    for second in [10, 20, 30] {
        world.tick(at(second)).await;
    }
    let mut ends = async |number: usize, second: i64, end: Outcome| {
        world.complete(number, at(second), end);
        world.tick(at(second)).await;
        let told = told(&world).await;
        told.iter().map(|words| words.replace(" running", "")).collect::<Vec<_>>()
    };
    // The last one fails first, and then the first one succeeds.
    assert_eq!(ends(2, 31, failed()).await, ["on_failure"]);
    assert_eq!(ends(0, 32, well()).await, ["on_failure", "on_recovery"]);
    assert_eq!(ends(0, 33, failed()).await, ["on_failure", "on_recovery", "on_failure"]);
}

/// How often a failure is reported of a job that fails, gets these definitions one after the other, and fails again.
async fn told_with(definitions: &[&Value], existing: Existing) -> usize {
    let mut world = World::new(9).await;
    world.add(job(&tells_once(&json!({}))), at(0)).await;
    world.tick(at(10)).await;
    world.complete(0, at(11), failed());
    world.tick(at(11)).await;
    for (second, given) in (12..).zip(definitions) {
        let job = Box::new(job_at(&tells_once(given), at(second)));
        world.ask(Request::Add(Addition { job, existing }), at(second)).await.unwrap();
    }
    let next = world.job("a").await.unwrap().next().unwrap().due_at;
    world.finish_all(at(14)).await;
    world.tick(next).await;
    world.complete(0, next, failed());
    world.tick(next).await;
    told(&world).await.len()
}

#[tokio::test]
async fn an_outage_ends_with_a_definition_that_would_not_tell_its_end_and_not_with_another_one() {
    let without = json!({"on_failure_once": false, "on_recovery": null});
    let silent = json!({"on_recovery": null, "trigger": {"type": "interval", "seconds": 5}});
    let moved = json!({"trigger": {"type": "interval", "seconds": 5}});
    let cases: [(&[&Value], usize); 3] =
        [(&[&without, &json!({})], 2), (&[&silent, &moved], 1), (&[&moved], 1)];
    for (definitions, count) in cases {
        for existing in [Existing::Redefine, Existing::Reschedule] {
            let told = told_with(definitions, existing).await;
            assert_eq!(told, count, "{existing:?} {definitions:?}");
        }
    }
}

/// A job that runs once, at this second.
fn tells_once_at(second: i64) -> Job {
    let run_date = at(second).format("%Y-%m-%d %H:%M:%S").to_string();
    let trigger = json!({"type": "date", "run_date": run_date});
    job_at(&tells_once(&json!({"trigger": trigger})), at(second - 5))
}

#[tokio::test]
async fn a_finished_job_that_is_added_again_goes_on_failing_and_one_that_was_removed_does_not() {
    for (is_removed, count) in [(false, 1), (true, 2)] {
        let mut world = World::new(9).await;
        let fails = async |world: &mut World, second: i64| {
            world.add(tells_once_at(second), at(second - 5)).await;
            world.tick(at(second)).await;
            world.complete(0, at(second + 1), failed());
            world.tick(at(second + 1)).await;
            world.finish_all(at(second + 2)).await;
        };
        fails(&mut world, 10).await;
        if is_removed {
            world.remove("a", at(13)).await;
        }
        fails(&mut world, 20).await;
        assert_eq!(told(&world).await.len(), count, "removed: {is_removed}");
    }
}

#[tokio::test]
async fn a_report_that_could_not_be_delivered_is_retried_with_the_same_event() {
    let mail = json!({"type": "mail", "to": ["ops@example.org"]});
    let webhook = json!({"type": "http", "url": "http://chat.example.org/"});
    let function = json!({"type": "builtin", "name": "noop"});
    let hooks = [
        json!({"on_failure": mail}),
        json!({"on_failure": webhook}),
        // Nothing else would report this outage.
        json!({"on_failure": function, "on_failure_once": true}),
    ];
    for given in hooks {
        let mut world = World::new(2).await;
        world.add(job(&once(&given)), at(0)).await;
        world.tick(at(10)).await;
        world.complete(0, at(11), failed());
        world.tick(at(11)).await;
        let first = world.starts().pop().unwrap().0.event.unwrap();
        world.complete(0, at(12), failed());
        let next = world.tick(at(12)).await.unwrap();
        assert!((30.0..34.0).contains(&seconds(at(12), next)), "{given}: {next}");
        world.tick(next).await;
        let (assignment, _) = world.starts().pop().unwrap();
        assert_eq!((assignment.attempt, assignment.event.unwrap()), (2, first), "{given}");
        assert_eq!(told(&world).await, ["on_failure running"], "{given}");
    }
}

#[tokio::test]
async fn a_retried_run_is_reported_when_it_finally_fails_and_a_cancelled_one_is_not() {
    let mut world = World::new(2).await;
    let mut given = hooks();
    given["retry"] = json!({"max_attempts": 2, "delay": 1});
    world.add(job(&once(&given)), at(0)).await;
    world.tick(at(10)).await;
    world.complete(0, at(11), failed());
    world.tick(at(11)).await;
    assert_eq!(told(&world).await, [""; 0]);
    world.tick(at(13)).await;
    world.complete(0, at(14), failed());
    world.tick(at(14)).await;
    assert_eq!(told(&world).await, ["on_failure running"]);
    let mut world = World::new(2).await;
    world.add(job(&once(&hooks())), at(0)).await;
    world.tick(at(10)).await;
    world.complete(0, at(11), Outcome::Cancelled { reason: "by hand".to_owned() });
    world.tick(at(11)).await;
    assert_eq!(told(&world).await, [""; 0]);
}

#[tokio::test]
async fn a_missed_occurrence_is_reported_and_a_span_of_them_once() {
    let mut world = World::new(1).await;
    let mut given = hooks();
    given
        .as_object_mut()
        .unwrap()
        .extend([("id".to_owned(), json!("a")), ("misfire_grace_time".to_owned(), json!(3))]);
    world.add(job(&given), at(0)).await;
    world.tick(at(58)).await;
    assert_eq!(told(&world).await, ["on_missed running"]);
    let (assignment, _) = world.starts().pop().unwrap();
    assert_eq!(assignment.event.unwrap()["run"]["count"], 5);
}

#[tokio::test]
async fn pending_hooks_run_after_a_crash_and_so_do_hooks_of_runs_lost_in_it() {
    let mut world = World::new(1).await;
    let mut given = hooks();
    given["on_crash"] = json!("lose");
    world.add(job(&once(&given)), at(0)).await;
    world.tick(at(10)).await;
    world.crash(at(11)).await;
    assert_eq!(told(&world).await, ["on_failure pending"]);
    world.crash(at(12)).await;
    world.tick(at(12)).await;
    assert_eq!(told(&world).await, ["on_failure running"]);
    let (assignment, _) = world.starts().pop().unwrap();
    assert_eq!(assignment.event.unwrap()["run"]["state"], "lost");
}

#[tokio::test]
async fn a_hook_run_of_a_removed_job_does_not_bring_it_back() {
    let store = MemoryStore::shared();
    let mut world = World::join(&store, 0, 1, at(0)).await;
    world.add(job(&once(&hooks())), at(1)).await;
    world.tick(at(10)).await;
    world.add(job_at(&json!({"id": "other"}), at(11)), at(11)).await;
    world.complete(0, at(12), failed());
    world.ask(Request::Run(punctual::job::JobId::parse("other").unwrap()), at(12)).await.unwrap();
    world.remove("a", at(12)).await;
    for second in 13..20 {
        world.complete_all(at(second));
        world.tick(at(second)).await;
    }
    assert!(world.job("a").await.is_none());
}

#[tokio::test]
async fn a_hook_is_not_run_when_its_queue_is_full_and_the_log_says_so() {
    let mut world = World::new(1).await;
    world.add(job(&once(&hooks())), at(0)).await;
    world.tick(at(10)).await;
    let mut asked = Vec::new();
    for number in 0..12 {
        let id = format!("crowd-{number}");
        let trigger = json!({"type": "date", "run_date": "2030-01-01T00:00:00Z"});
        let given = json!({"id": id, "trigger": trigger, "overlap": "queue"});
        let id = world.add(job(&given), at(10)).await;
        asked.extend(std::iter::repeat_n(Request::Run(id), 90));
    }
    world.ask_all(asked, at(10)).await;
    world.complete(0, at(11), failed());
    world.tick(at(11)).await;
    assert_eq!(told(&world).await, ["on_failure skipped"]);
    assert_eq!(world.ledger("a").await[1], "- executor_full");
}

#[tokio::test]
async fn a_reload_changes_the_number_of_workers_and_nothing_that_runs_is_lost() {
    let mut world = World::new(1).await;
    let given = json!({"id": "a", "max_instances": 9, "overlap": "queue"});
    world.add(job(&given), at(0)).await;
    for second in [10, 20, 30, 40] {
        world.tick(at(second)).await;
    }
    assert_eq!(world.started().len(), 1);
    world.resize(3, at(41)).await;
    assert_eq!(world.started().len(), 3, "at once");
    world.resize(1, at(42)).await;
    assert_eq!(world.started().len(), 3, "what runs goes on");
    world.complete(0, at(43), Outcome::Succeeded { result: None, exit_code: None });
    world.tick(at(43)).await;
    assert_eq!(world.started().len(), 2, "and nothing takes its place");
}

#[tokio::test]
async fn a_heartbeat_is_sent_when_a_run_starts_and_when_it_has_finally_ended() {
    let mut world = World::new(2).await;
    let given = json!({"retry": {"max_attempts": 2, "delay": 1}, "heartbeat": "https://example.org/x",
        "on_failure": {"type": "builtin", "name": "noop"}});
    world.add(job(&once(&given)), at(0)).await;
    world.tick(at(10)).await;
    assert_eq!(world.beats(), [(HeartbeatEvent::Start, String::new())]);
    world.complete(0, at(11), failed());
    world.tick(at(11)).await;
    world.tick(at(13)).await;
    assert_eq!(world.beats().len(), 1, "another attempt is no start, and this was no end");
    world.complete(0, at(14), failed());
    world.tick(at(14)).await;
    assert_eq!(world.beats()[1..], [(HeartbeatEvent::Failure, "no luck".to_owned())]);
    world.finish_all(at(15)).await;
    assert_eq!(world.beats().len(), 2, "what tells of a run has no heartbeat of its own");
}

#[tokio::test]
async fn a_run_that_a_crash_has_cut_off_for_good_is_a_failure_to_the_heartbeat_too() {
    let mut world = World::new(1).await;
    let given = json!({"on_crash": "lose", "heartbeat": {"env": "URL"}});
    world.add(job(&once(&given)), at(0)).await;
    world.tick(at(10)).await;
    world.crash(at(11)).await;
    let start = (HeartbeatEvent::Start, String::new());
    assert_eq!(world.beats(), [start, (HeartbeatEvent::Failure, "crashed".to_owned())]);
}

#[tokio::test]
async fn a_run_that_is_cancelled_after_its_start_is_a_failure_to_the_heartbeat() {
    let heartbeat = json!({"heartbeat": "https://example.org/x",
        "retry": {"max_attempts": 3, "delay": 60}});
    let start = || (HeartbeatEvent::Start, String::new());
    // One that runs.
    let mut world = World::new(1).await;
    world.add(job(&once(&heartbeat)), at(0)).await;
    world.tick(at(10)).await;
    world.complete(0, at(11), Outcome::Cancelled { reason: "enough".to_owned() });
    world.tick(at(11)).await;
    assert_eq!(world.beats(), [start(), (HeartbeatEvent::Failure, "cancelled: enough".to_owned())]);
    // One that waits for its next attempt, and is cancelled, or withdrawn since its job is removed.
    for remove in [false, true] {
        let mut world = World::new(1).await;
        world.add(job(&once(&heartbeat)), at(0)).await;
        world.tick(at(10)).await;
        let run = only_run(&world).await;
        world.complete(0, at(11), failed());
        world.tick(at(11)).await;
        let (request, reason) = if remove {
            (Request::Remove(run.job_id.clone()), "cancelled: not tried again: removed")
        } else {
            (cancel(&run.id, Some("enough")), "cancelled: enough")
        };
        world.ask(request, at(12)).await.unwrap();
        assert_eq!(world.beats(), [start(), (HeartbeatEvent::Failure, reason.to_owned())]);
    }
    // One that has not begun has nothing to end.
    let mut world = World::new(1).await;
    world.add(job(&json!({"id": "first"})), at(0)).await;
    world.tick(at(10)).await;
    let given = json!({"id": "second", "heartbeat": "https://example.org/x"});
    world.add(job(&given), at(0)).await;
    world.tick(at(10)).await;
    let waiting = world.runs("second").await.remove(0).id;
    world.ask(cancel(&waiting, None), at(11)).await.unwrap();
    assert_eq!(world.beats(), []);
}
