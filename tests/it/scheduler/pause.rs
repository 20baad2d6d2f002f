//! Pauses that end by themselves: at their instant, and as if a request had ended them then, however late that is found.

use chrono::TimeDelta;
use punctual::job::{Job, JobId, JobState, PauseTerms};
use punctual::scheduler::request::{Addition, Existing, Request, Response};
use serde_json::{Value, json};
use support::jobs::{at, job};
use support::store::MemoryStore;
use support::world::World;

/// Terms of a pause that ends at this second.
fn until(second: i64) -> PauseTerms {
    let (by, reason) = (Some("ada".to_owned()), Some("new disk".to_owned()));
    PauseTerms { until: Some(at(second)), by, reason }
}

/// A world with this job, which is due every ten seconds.
async fn world_with(given: Value) -> (World, JobId) {
    let mut world = World::new(5).await;
    let id = world.add(job(&given), at(0)).await;
    (world, id)
}

async fn is_paused(world: &World) -> bool {
    let job = world.job("a").await.unwrap();
    let is_paused = matches!(job.state, JobState::Paused { .. });
    assert_eq!(is_paused, job.pause.is_some());
    is_paused
}

#[tokio::test]
async fn a_pause_of_a_job_ends_at_its_instant_and_is_one_row() {
    let (mut world, id) = world_with(json!({"id": "a"})).await;
    world.ask(Request::Pause(id, until(35)), at(5)).await.unwrap();
    assert_eq!(world.tick(at(5)).await, Some(at(35)), "it wakes for the end");
    assert_eq!(world.tick(at(34)).await, Some(at(35)));
    assert!(is_paused(&world).await);
    assert_eq!(world.tick(at(35)).await, Some(at(40)));
    assert!(!is_paused(&world).await);
    world.tick(at(40)).await;
    world.finish_all(at(41)).await;
    assert_eq!(world.ledger("a").await, ["10..30 paused 3", "40 succeeded"]);
}

#[tokio::test]
async fn what_is_due_at_the_end_of_a_pause_runs() {
    let (mut world, id) = world_with(json!({"id": "a"})).await;
    world.ask(Request::Pause(id, until(20)), at(5)).await.unwrap();
    assert_eq!(world.tick(at(20)).await, Some(at(20)), "it is due at once");
    world.tick(at(20)).await;
    world.finish_all(at(21)).await;
    assert_eq!(world.ledger("a").await, ["10 paused", "20 succeeded"]);
}

#[tokio::test]
async fn a_pause_that_ended_while_the_daemon_was_away_counts_as_ended_at_its_end() {
    let (mut world, id) = world_with(json!({"id": "a", "coalesce": "all"})).await;
    world.ask(Request::Pause(id, until(25)), at(5)).await.unwrap();
    world.crash(at(48)).await;
    world.tick(at(48)).await;
    world.tick(at(48)).await;
    for _ in 0..2 {
        world.finish_all(at(49)).await;
    }
    assert_eq!(world.ledger("a").await, ["10..20 paused 2", "30 succeeded", "40 succeeded"]);
    assert_eq!(world.tick(at(49)).await, Some(at(50)));
}

#[tokio::test]
async fn a_pause_is_prolonged_shortened_and_made_endless_by_the_next_request() {
    let (mut world, id) = world_with(json!({"id": "a"})).await;
    let pause = |terms| Request::Pause(id.clone(), terms);
    world.ask(pause(until(25)), at(5)).await.unwrap();
    let revision = world.job("a").await.unwrap().revision;
    world.ask(pause(until(25)), at(6)).await.unwrap();
    assert_eq!(world.job("a").await.unwrap().revision, revision, "nothing has changed");
    world.ask(pause(until(45)), at(7)).await.unwrap();
    assert_eq!(world.tick(at(25)).await, Some(at(45)));
    world.ask(pause(PauseTerms::default()), at(26)).await.unwrap();
    assert_eq!(world.tick(at(60)).await, None);
    let known = world.job("a").await.unwrap().pause.unwrap();
    assert_eq!((known.since, known.until), (at(5), None));
    assert_eq!(known.reason.as_deref(), Some("new disk"));
    world.ask(pause(until(61)), at(60)).await.unwrap();
    assert_eq!(world.tick(at(61)).await, Some(at(70)));
    assert_eq!(world.ledger("a").await, ["10..60 paused 6"]);
    let resumed = world.ask(pause(until(75)), at(62)).await.unwrap();
    let Response::Job(again) = resumed else { panic!("{resumed:?}") };
    assert_eq!(again.pause.as_ref().unwrap().since, at(62), "it is a new pause");
}

#[tokio::test]
async fn a_request_to_resume_ends_a_pause_before_its_end() {
    let (mut world, id) = world_with(json!({"id": "a"})).await;
    world.ask(Request::Pause(id.clone(), until(500)), at(5)).await.unwrap();
    world.ask(Request::Resume(id), at(15)).await.unwrap();
    assert_eq!(world.tick(at(15)).await, Some(at(20)));
    world.tick(at(20)).await;
    world.finish_all(at(21)).await;
    assert_eq!(world.ledger("a").await, ["10 paused", "20 succeeded"]);
    assert_eq!(world.tick(at(21)).await, Some(at(30)), "nothing is left of the end");
}

#[tokio::test]
async fn a_one_shot_whose_time_passed_in_the_pause_runs_at_its_end() {
    let once = json!({"id": "a", "trigger": {"type": "date", "run_date": "2027-01-15 08:00:10"}});
    let (mut world, id) = world_with(once).await;
    world.ask(Request::Pause(id, until(25)), at(5)).await.unwrap();
    world.tick(at(25)).await;
    world.tick(at(25)).await;
    world.finish_all(at(26)).await;
    assert_eq!(world.ledger("a").await, ["10 succeeded"]);
}

#[tokio::test]
async fn a_job_that_cannot_run_when_its_pause_ends_is_broken_and_goes_on_once_it_is_repaired() {
    let (mut world, id) = world_with(json!({"id": "a"})).await;
    world.ask(Request::Pause(id, until(25)), at(5)).await.unwrap();
    world.without_builtins(at(6)).await;
    world.tick(at(25)).await;
    let broken = world.job("a").await.unwrap();
    assert!(matches!(broken.state, JobState::Broken { .. }), "{:?}", broken.state);
    world.resize(5, at(31)).await;
    world.tick(at(32)).await;
    assert!(!is_paused(&world).await);
    world.tick(at(32)).await;
    world.finish_all(at(33)).await;
    assert_eq!(world.ledger("a").await, ["10..20 paused 2", "30 succeeded"]);
}

#[tokio::test]
async fn a_redefinition_keeps_a_pause_with_its_end() {
    let (mut world, id) = world_with(json!({"id": "a"})).await;
    world.ask(Request::Pause(id, until(25)), at(5)).await.unwrap();
    let add = |given: Value| {
        let job = Box::new(job(&given));
        Request::Add(Addition { job, existing: Existing::Redefine })
    };
    world.ask(add(json!({"id": "a", "name": "new"})), at(6)).await.unwrap();
    assert!(is_paused(&world).await);
    assert_eq!(world.tick(at(6)).await, Some(at(25)));
    let other = json!({"id": "a", "trigger": {"type": "interval", "seconds": 7}});
    world.ask(add(other), at(7)).await.unwrap();
    let Job { state, pause, .. } = world.job("a").await.unwrap();
    assert!(matches!(state, JobState::Active { .. }) && pause.is_none(), "another trigger begins");
}

#[tokio::test]
async fn a_pause_of_the_scheduler_ends_at_its_instant_also_after_a_crash() {
    for crashes in [false, true] {
        let (mut world, _) = world_with(json!({"id": "a"})).await;
        world.ask(Request::PauseAll(until(35)), at(5)).await.unwrap();
        assert_eq!(world.tick(at(20)).await, Some(at(35)), "it wakes for the end");
        if crashes {
            world.crash(at(30)).await;
            assert_eq!(world.tick(at(30)).await, Some(at(35)));
        }
        assert_eq!(world.tick(at(35)).await, Some(at(40)));
        assert!(world.status().pause.is_none());
        world.finish_all(at(36)).await;
        assert_eq!(world.ledger("a").await, ["10..20 coalesced 2", "30 succeeded"], "{crashes}");
        // A restart finds no pause.
        world.crash(at(37)).await;
        assert_eq!(world.tick(at(37)).await, Some(at(40)));
    }
}

#[tokio::test]
async fn a_pause_of_a_job_that_ends_in_a_pause_of_the_scheduler_counts_from_its_own_end() {
    let (mut world, id) = world_with(json!({"id": "a", "coalesce": "all"})).await;
    world.ask(Request::Pause(id, until(25)), at(5)).await.unwrap();
    world.ask(Request::PauseAll(until(45)), at(5)).await.unwrap();
    assert_eq!(world.tick(at(26)).await, Some(at(45)));
    world.tick(at(45)).await;
    world.tick(at(45)).await;
    for _ in 0..2 {
        world.finish_all(at(46)).await;
    }
    assert_eq!(world.ledger("a").await, ["10..20 paused 2", "30 succeeded", "40 succeeded"]);
}

#[tokio::test]
async fn one_of_several_nodes_ends_a_pause_and_none_that_has_not_heard_of_a_longer_one() {
    let store = MemoryStore::shared();
    let mut nodes =
        [World::join(&store, 1, 2, at(0)).await, World::join(&store, 2, 2, at(0)).await];
    let millis = |millis| at(0) + TimeDelta::milliseconds(millis);
    let ends = |millis_until| PauseTerms { until: Some(millis(millis_until)), ..until(0) };
    let id = nodes[0].add(job(&json!({"id": "a"})), at(0)).await;
    nodes[0].ask(Request::PauseAll(ends(14_950)), at(5)).await.unwrap();
    pass(&mut nodes, 6..=14).await;
    nodes[1].ask(Request::PauseAll(ends(25_500)), millis(14_900)).await.unwrap();
    nodes[0].tick_on(millis(14_950)).await;
    assert!(nodes[0].status().pause.is_some(), "it asks the store before it ends a pause");
    pass(&mut nodes, 15..=25).await;
    assert!(nodes[0].ledger("a").await.is_empty());
    nodes[1].tick_on(millis(25_500)).await;
    nodes[0].tick_on(millis(25_500)).await;
    assert!(nodes.iter().all(|node| node.status().pause.is_none()));
    for node in &mut nodes {
        node.finish_all(millis(25_600)).await;
    }
    let ledger = ["10 coalesced", "20 succeeded"];
    assert_eq!(nodes[0].ledger("a").await, ledger);
    nodes[0].ask(Request::Pause(id, until(35)), millis(25_700)).await.unwrap();
    pass(&mut nodes, 26..=41).await;
    assert_eq!(nodes[0].ledger("a").await[2..], ["30 paused", "40 running"]);
}

/// The nodes live through these seconds.
async fn pass(nodes: &mut [World], seconds: std::ops::RangeInclusive<i64>) {
    for second in seconds {
        for node in &mut *nodes {
            node.tick_on(at(second)).await;
        }
    }
}
