//! Several schedulers on one store: what they share, what they take over, and what one of them
//! must know of the others. Each test is a small story in whole seconds.

use chrono::TimeDelta;
use punctual::clock::Timestamp;
use punctual::job::{JobId, JobState, PauseTerms};
use punctual::scheduler::request::{Addition, Existing, Request, RequestError, Response};
use serde_json::{Value, json};
use support::jobs::{at, job, job_at};
use support::store::MemoryStore;
use support::store::faulty::Fault;
use support::world::World;

/// Two nodes with this many workers each, at the beginning.
async fn two(workers: usize) -> (World, World) {
    let store = MemoryStore::shared();
    let one = World::join(&store, 1, workers, at(0)).await;
    (one, World::join(&store, 2, workers, at(0)).await)
}

fn id(text: &str) -> JobId {
    JobId::parse(text).unwrap()
}

fn millis(millis: i64) -> Timestamp {
    at(0) + TimeDelta::milliseconds(millis)
}

/// Both nodes live through these seconds, and give their signs of life.
async fn pass(nodes: [&mut World; 2], seconds: std::ops::RangeInclusive<i64>) {
    let [one, other] = nodes;
    for second in seconds {
        one.tick_on(at(second)).await;
        other.tick_on(at(second)).await;
    }
}

/// One node lives through these seconds alone.
async fn pass_alone(node: &mut World, seconds: std::ops::RangeInclusive<i64>) {
    for second in seconds {
        node.tick_on(at(second)).await;
    }
}

fn add(given: &Value, now: Timestamp) -> Request {
    Request::Add(Addition { job: Box::new(job_at(given, now)), existing: Existing::Refuse })
}

#[tokio::test]
async fn nodes_share_what_is_due_and_each_occurrence_runs_once() {
    let (mut one, mut other) = two(3).await;
    for number in 0..8 {
        let every = json!({"type": "interval", "seconds": 4 + number % 3});
        one.add(job(&json!({"id": format!("job-{number}"), "trigger": every})), at(0)).await;
    }
    for second in 1..=60 {
        for node in [&mut one, &mut other] {
            node.complete_all(at(second));
            node.tick_on(at(second)).await;
        }
    }
    assert!(!one.starts().is_empty() && !other.starts().is_empty(), "both have work");
    for number in 0..8 {
        let runs = one.runs(&format!("job-{number}")).await;
        let step = 4 + number % 3;
        let expected: Vec<_> = (1..=60 / step).map(|nth| Some(at(nth * step))).collect();
        let occurrences: Vec<_> = runs.iter().map(|run| run.scheduled_at).collect();
        assert_eq!(occurrences, expected, "job-{number}");
    }
}

#[tokio::test]
async fn the_runs_and_jobs_of_a_dead_node_are_taken_over_after_the_lease() {
    let (mut one, mut other) = two(2).await;
    let given = |id: &str, on_crash: &str| job(&json!({"id": id, "on_crash": on_crash}));
    for job in [given("again", "rerun"), given("lost", "lose"), given("waits", "rerun")] {
        one.add(job, at(0)).await;
    }
    pass([&mut one, &mut other], 1..=4).await;
    one.tick_on(at(5)).await;
    one.tick_on(at(10)).await;
    assert_eq!(one.starts_with_attempts(), ["again 1", "lost 1"]);
    // From here on the first one is dead.
    pass_alone(&mut other, 5..=14).await;
    assert!(other.starts().is_empty(), "its lease has not ended");
    pass_alone(&mut other, 15..=16).await;
    assert_eq!(other.starts_with_attempts(), ["again 2", "waits 1"]);
    assert_eq!(one.ledger("lost").await, ["10 lost"]);
}

#[tokio::test]
async fn runs_taken_over_by_a_write_whose_answer_was_lost_are_not_forgotten() {
    let (mut one, mut other) = two(2).await;
    one.add(job(&json!({"id": "a"})), at(0)).await;
    one.ask(Request::Run(id("a")), at(0)).await.unwrap();
    pass_alone(&mut other, 1..=9).await;
    other.fail_next(Fault::After);
    assert!(other.try_tick(at(10)).await.is_err());
    assert_eq!(other.ledger("a").await, ["- pending"]);
    pass_alone(&mut other, 11..=11).await;
    assert_eq!(other.starts_with_attempts(), ["a 2"]);
}

#[tokio::test]
async fn a_node_that_was_suspended_gives_up_the_runs_that_were_taken_over_and_goes_on() {
    let (mut one, mut other) = two(2).await;
    one.add(job(&json!({"id": "a"})), at(0)).await;
    pass([&mut one, &mut other], 1..=4).await;
    one.tick_on(at(10)).await;
    assert_eq!(one.starts_with_attempts(), ["a 1"]);
    pass_alone(&mut other, 5..=15).await;
    other.remove("a", at(15)).await;
    assert_eq!(other.starts_with_attempts(), ["a 2"]);
    // Now it goes on, and what it still executes ends.
    one.tick_on(at(25)).await;
    assert_eq!(one.cancels().len(), 1, "it asks the run to end, since it is another node's");
    one.complete_all(at(26));
    pass([&mut one, &mut other], 26..=27).await;
    assert_eq!(one.ledger("a").await, ["10 running"], "and does not end it in the ledger");
    other.complete_all(at(28));
    pass([&mut one, &mut other], 28..=29).await;
    assert_eq!(one.ledger("a").await, ["10 succeeded"]);
    one.add(job_at(&json!({"id": "b"}), at(29)), at(29)).await;
    pass([&mut one, &mut other], 30..=39).await;
    assert_eq!(one.ledger("b").await, ["39 running"]);
}

#[tokio::test]
async fn max_instances_counts_the_runs_of_all_nodes() {
    let (mut one, mut other) = two(2).await;
    one.add(job(&json!({"id": "a"})), at(0)).await;
    pass([&mut one, &mut other], 1..=2).await;
    one.ask(Request::Run(id("a")), at(3)).await.unwrap();
    let refused = other.ask(Request::Run(id("a")), at(3)).await;
    assert!(matches!(refused, Err(RequestError::Busy { .. })), "{refused:?}");
    // The node on which it does not run fires it.
    pass_alone(&mut other, 4..=10).await;
    assert_eq!(other.ledger("a").await, ["- running", "10 overlap"]);
}

#[tokio::test]
async fn a_new_job_counts_the_runs_of_the_one_that_had_its_id() {
    let (mut one, mut other) = two(2).await;
    one.add(job(&json!({"id": "a", "trigger": {"type": "interval", "seconds": 60}})), at(0)).await;
    other.tick_on(at(1)).await;
    // All this is in the second between two signs of life.
    one.ask(Request::Run(id("a")), millis(1100)).await.unwrap();
    other.ask(Request::Remove(id("a")), millis(1200)).await.unwrap();
    let given = json!({"id": "a", "next_run_time": "2027-01-15 08:00:01.4"});
    other.ask(add(&given, millis(1300)), millis(1300)).await.unwrap();
    other.tick_on(millis(1300)).await;
    other.tick_on(millis(1400)).await;
    assert_eq!(other.ledger("a").await, ["- running", "1 overlap"]);
}

#[tokio::test]
async fn a_run_that_waits_for_a_worker_does_not_start_while_another_node_runs_one() {
    let (mut one, mut other) = two(1).await;
    one.add(job(&json!({"id": "busy"})), at(0)).await;
    one.ask(Request::Run(id("busy")), at(0)).await.unwrap();
    one.add(job(&json!({"id": "a", "overlap": "queue"})), at(0)).await;
    one.ask(Request::Run(id("a")), at(1)).await.unwrap();
    assert_eq!(one.ledger("a").await, ["- pending"], "there is no worker for it");
    other.ask(Request::Run(id("a")), millis(1500)).await.unwrap();
    assert_eq!(other.started(), ["a"], "here there is one");
    one.finish_all(millis(1900)).await;
    assert!(one.started().is_empty(), "max_instances is 1");
    other.finish_all(at(5)).await;
    one.tick_on(at(5)).await;
    assert_eq!(one.started(), ["a"]);
}

#[tokio::test]
async fn with_queue_a_run_starts_within_a_second_after_the_one_on_another_node_has_ended() {
    let (mut one, mut other) = two(2).await;
    one.add(job(&json!({"id": "a", "overlap": "queue"})), at(0)).await;
    one.ask(Request::Run(id("a")), at(1)).await.unwrap();
    pass_alone(&mut other, 1..=11).await;
    assert_eq!(other.ledger("a").await, ["- running", "10 pending"]);
    one.finish_all(at(11)).await;
    other.tick_on(at(12)).await;
    assert_eq!(other.started(), ["a"]);
}

#[tokio::test]
async fn a_job_is_changed_through_one_node_while_another_one_holds_it() {
    for change in ["pause", "remove", "redefine"] {
        let (mut one, mut other) = two(2).await;
        one.add(job(&json!({"id": "a"})), at(0)).await;
        pass_alone(&mut one, 1..=8).await;
        one.tick_on(millis(9200)).await;
        let twenty = json!({"id": "a", "trigger": {"type": "interval", "seconds": 20}});
        let request = match change {
            "pause" => Request::Pause(id("a"), PauseTerms::default()),
            "remove" => Request::Remove(id("a")),
            _ => Request::Add(Addition {
                job: Box::new(job_at(&twenty, at(9))),
                existing: Existing::Redefine,
            }),
        };
        other.ask(request, millis(9500)).await.unwrap();
        // The holder has not heard of it when the job falls due.
        one.tick_on(at(10)).await;
        pass([&mut one, &mut other], 10..=28).await;
        assert!(one.ledger("a").await.is_empty(), "{change}");
        pass([&mut one, &mut other], 29..=29).await;
        let rows = if change == "redefine" { vec!["29 running"] } else { vec![] };
        assert_eq!(one.ledger("a").await, rows, "{change}");
    }
}

#[tokio::test]
async fn a_job_that_another_node_has_just_paused_stays_paused_when_it_falls_due() {
    let (mut one, mut other) = two(2).await;
    one.add(job(&json!({"id": "a"})), at(0)).await;
    pass_alone(&mut one, 1..=8).await;
    one.tick_on(millis(9200)).await;
    other.ask(Request::Pause(id("a"), PauseTerms::default()), millis(9500)).await.unwrap();
    // It reads the job to answer a request about it, at the instant at which it believes it to be due.
    let exists = one.ask(add(&json!({"id": "a"}), at(0)), at(10)).await;
    assert!(matches!(exists, Err(RequestError::Exists(_))), "{exists:?}");
    assert!(matches!(one.job("a").await.unwrap().state, JobState::Paused { .. }));
}

#[tokio::test]
async fn a_job_that_was_removed_and_added_again_is_not_the_one_that_a_node_holds() {
    let (mut one, mut other) = two(2).await;
    one.add(job(&json!({"id": "a"})), at(0)).await;
    pass_alone(&mut one, 1..=8).await;
    one.tick_on(millis(9200)).await;
    other.ask(Request::Remove(id("a")), millis(9400)).await.unwrap();
    let later = json!({"id": "a", "trigger": {"type": "interval", "seconds": 30}});
    other.ask(add(&later, millis(9500)), millis(9500)).await.unwrap();
    one.tick_on(at(10)).await;
    assert!(one.ledger("a").await.is_empty());
    assert_eq!(one.job("a").await.unwrap().next().unwrap().due_at, millis(39_500));
}

#[tokio::test]
async fn a_pause_of_all_is_seen_by_the_others_within_a_second_and_ended_by_any_of_them() {
    let (mut one, mut other) = two(2).await;
    one.add(job(&json!({"id": "a"})), at(0)).await;
    pass([&mut one, &mut other], 1..=9).await;
    other.ask(Request::PauseAll(PauseTerms::default()), millis(9100)).await.unwrap();
    pass([&mut one, &mut other], 10..=12).await;
    assert!(one.ledger("a").await.is_empty());
    one.ask(Request::ResumeAll, at(12)).await.unwrap();
    one.tick_on(at(12)).await;
    assert_eq!(one.ledger("a").await, ["10 running"]);
    // Of this pause the first node has not heard when it is asked to end it.
    pass([&mut one, &mut other], 13..=13).await;
    other.ask(Request::PauseAll(PauseTerms::default()), millis(13_100)).await.unwrap();
    let resumed = one.ask(Request::ResumeAll, millis(13_200)).await;
    assert!(matches!(resumed, Ok(Response::Paused(None))), "{resumed:?}");
    one.finish_all(millis(13_300)).await;
    pass([&mut one, &mut other], 14..=20).await;
    assert_eq!(one.ledger("a").await, ["10 succeeded", "20 running"]);
}

#[tokio::test]
async fn the_step_that_ends_a_pause_knows_what_runs_elsewhere() {
    let (mut one, mut other) = two(2).await;
    one.add(job(&json!({"id": "a"})), at(0)).await;
    one.ask(Request::PauseAll(PauseTerms::default()), at(8)).await.unwrap();
    pass_alone(&mut one, 9..=10).await;
    other.tick_on(at(10)).await;
    other.ask(Request::Run(id("a")), millis(10_100)).await.unwrap();
    one.ask(Request::ResumeAll, millis(10_200)).await.unwrap();
    one.tick_on(millis(10_200)).await;
    assert_eq!(one.ledger("a").await, ["- running", "10 overlap"]);
}

#[tokio::test]
async fn a_node_whose_clock_is_set_back_delays_no_job() {
    let (mut one, mut other) = two(2).await;
    one.add(job(&json!({"id": "a"})), at(0)).await;
    pass_alone(&mut one, 1..=8).await;
    let owner = one.job("a").await.unwrap().owner;
    assert_eq!(owner.as_deref(), Some("node-1"), "it is due soon");
    one.tick_on(at(-3600)).await;
    pass_alone(&mut other, 9..=10).await;
    assert_eq!(other.started(), ["a"]);
}

#[tokio::test]
async fn a_node_that_leaves_hands_over_its_waiting_runs() {
    let (mut one, mut other) = two(1).await;
    one.add(job(&json!({"id": "busy"})), at(0)).await;
    one.add(job(&json!({"id": "waits"})), at(0)).await;
    one.ask(Request::Run(id("busy")), at(1)).await.unwrap();
    one.ask(Request::Run(id("waits")), at(1)).await.unwrap();
    one.drain();
    one.finish_all(at(2)).await;
    assert_eq!(one.ledger("waits").await, ["- pending"]);
    one.leave(at(2)).await;
    pass_alone(&mut other, 3..=4).await;
    assert_eq!(other.started(), ["waits"], "without waiting for a lease to end");
}
