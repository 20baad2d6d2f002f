//! What only a store that nodes share can do, on each such store: in memory, PostgreSQL and MariaDB.

use std::sync::Arc;

use punctual::clock::Timestamp;
use punctual::job::{Due, Job, JobState, Pause, PauseTerms};
use punctual::run::{Run, RunState};
use punctual::store::sql::SqlStore;
use punctual::store::{Change, Claim, ClusterView, Holder, InFlightCount, Node, Store};
use serde_json::json;
use support::jobs::{at, job, run};
use support::servers::mariadb::MariaDbServer;
use support::servers::postgres::PostgresServer;
use support::servers::{Kind, Server};
use support::store::MemoryStore;

use super::{database, is_conflict, pools};

/// The connections of two nodes to one database.
async fn on_server<K: Kind>(server: Option<&Server<K>>, name: &str) -> Option<[SqlStore; 2]> {
    let url = database(server, name)?;
    Some([SqlStore::open(&url).await.unwrap(), SqlStore::open(&url).await.unwrap()])
}

/// Runs a test on each shared store, with the connections of two nodes.
macro_rules! on_every_shared_store {
    ($($name:ident)*) => {
        mod memory {
            $(#[tokio::test] async fn $name() {
                let store = super::MemoryStore::shared();
                super::$name([store.clone(), store]).await;
            })*
        }
        mod postgres {
            $(#[tokio::test] async fn $name() {
                let server = super::PostgresServer::shared();
                if let Some(stores) = super::on_server(server, stringify!($name)).await {
                    super::$name(stores).await;
                }
            })*
        }
        mod mariadb {
            $(#[tokio::test] async fn $name() {
                let server = super::MariaDbServer::shared();
                if let Some(stores) = super::on_server(server, stringify!($name)).await {
                    super::$name(stores).await;
                }
            })*
        }
    };
}

on_every_shared_store! {
    a_due_job_is_claimed_by_one_node_until_it_is_released_or_its_owner_is_gone
    two_nodes_that_claim_at_the_same_time_share_what_is_due
    every_write_to_a_job_says_which_node_holds_it
    of_two_writes_based_on_the_same_revision_one_is_made
    a_run_is_written_by_the_node_that_holds_it_and_by_no_other
    a_node_is_known_from_its_first_beat_until_it_is_buried
    a_node_that_gave_a_sign_of_life_meanwhile_is_not_buried
    runs_in_flight_are_counted_on_other_nodes_and_found_when_their_node_is_gone
    a_run_on_another_node_can_be_cancelled
}

/// An active job that is due at this many seconds.
fn due_job(id: &str, seconds: i64) -> Arc<Job> {
    let next = Due { scheduled_at: at(seconds), due_at: at(seconds) };
    let state = JobState::Active { next };
    Arc::new(Job { state, revision: 1, ..job(&json!({"id": id})) })
}

async fn insert<S: Store>(store: &S, jobs: &[Arc<Job>]) {
    let changes = jobs.iter().map(|job| Change::InsertJob(Arc::clone(job))).collect();
    store.commit(changes).await.unwrap();
}

async fn claim<S: Store>(store: &S, node: &str, live: &[&str], limit: usize) -> Vec<Job> {
    let live: Vec<String> = live.iter().map(|name| (*name).to_owned()).collect();
    let claim = Claim { node, until: at(100), executors: &pools(), limit, live: &live };
    store.claim_jobs(claim).await.unwrap()
}

fn ids(jobs: &[Job]) -> Vec<&str> {
    jobs.iter().map(|job| job.id.as_str()).collect()
}

fn held_by(node: &str, run: &Run) -> Run {
    Run { node: node.into(), ..run.clone() }
}

fn update(run: &Run, held_by: &str) -> Vec<Change> {
    vec![Change::UpdateRun { run: Arc::new(run.clone()), held_by: held_by.into() }]
}

async fn a_due_job_is_claimed_by_one_node_until_it_is_released_or_its_owner_is_gone<S: Store>(
    [a, b]: [S; 2],
) {
    insert(&a, &[due_job("late", 20), due_job("early", 10), due_job("far", 1000)]).await;
    let live = ["a", "b"];
    let claimed = claim(&a, "a", &live, 1).await;
    let owners: Vec<_> = claimed.iter().map(|job| job.owner.as_deref()).collect();
    assert_eq!((ids(&claimed), owners), (vec!["early"], vec![Some("a")]));
    assert_eq!(ids(&claim(&b, "b", &live, 9).await), ["late"], "the other one's is not free");
    assert_eq!(ids(&claim(&a, "a", &live, 9).await), ["early"], "its own it gets again");
    a.release_jobs("a", "default", at(9)).await.unwrap();
    assert_eq!(ids(&claim(&b, "b", &live, 9).await), ["late"], "it was not due by then");
    a.release_jobs("a", "default", at(10)).await.unwrap();
    assert_eq!(ids(&claim(&b, "b", &live, 9).await), ["early", "late"]);
    assert_eq!(ids(&claim(&a, "a", &["a"], 9).await), ["early", "late"], "the other is gone");
}

async fn two_nodes_that_claim_at_the_same_time_share_what_is_due<S: Store>([a, b]: [S; 2]) {
    let jobs: Vec<_> =
        (0..300).map(|number| due_job(&format!("j{number:03}"), number / 10)).collect();
    insert(&a, &jobs).await;
    let live = ["a", "b"];
    let mut claimed: Vec<String> = Vec::new();
    for _ in 0..6 {
        let (first, second) = tokio::join!(claim(&a, "a", &live, 25), claim(&b, "b", &live, 25));
        for (store, jobs) in [(&a, first), (&b, second)] {
            claimed.extend(jobs.iter().map(|job| job.id.to_string()));
            // What is fired is not due any more.
            let fired = jobs.into_iter().map(|job| {
                let revision = job.revision + 1;
                Change::AdvanceJob(Arc::new(Job { state: JobState::Finished, revision, ..job }))
            });
            store.commit(fired.collect()).await.unwrap();
        }
    }
    claimed.sort();
    let all: Vec<String> = jobs.iter().map(|job| job.id.to_string()).collect();
    assert_eq!(claimed, all, "each of them once");
}

async fn every_write_to_a_job_says_which_node_holds_it<S: Store>([a, b]: [S; 2]) {
    insert(&a, &[due_job("j", 10)]).await;
    let claimed = claim(&a, "a", &["a", "b"], 9).await.remove(0);
    assert_eq!(claimed.revision, 1, "a claim is no change");
    let taken = Job { owner: Some("b".into()), revision: 2, ..claimed.clone() };
    b.commit(vec![Change::UpdateJob(Arc::new(taken))]).await.unwrap();
    assert!(claim(&a, "a", &["a", "b"], 9).await.is_empty(), "it was taken away");
    let late = Job { revision: 2, ..claimed };
    assert!(is_conflict(&a.commit(vec![Change::AdvanceJob(Arc::new(late))]).await));
}

async fn of_two_writes_based_on_the_same_revision_one_is_made<S: Store>([a, b]: [S; 2]) {
    insert(&a, &[due_job("j", 10)]).await;
    let next = |name: &str, revision| {
        let job = due_job("j", 10);
        vec![Change::UpdateJob(Arc::new(Job { name: name.to_owned(), revision, ..(*job).clone() }))]
    };
    for revision in 2..12 {
        let (first, second) =
            tokio::join!(a.commit(next("a", revision)), b.commit(next("b", revision)));
        let winner = if first.is_ok() { "a" } else { "b" };
        assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
        assert!(is_conflict(if first.is_ok() { &second } else { &first }));
        let stored = a.load_jobs(&[due_job("j", 10).id.clone()]).await.unwrap().remove(0);
        assert_eq!((stored.name.as_str(), stored.revision), (winner, revision));
    }
}

async fn a_run_is_written_by_the_node_that_holds_it_and_by_no_other<S: Store>([a, b]: [S; 2]) {
    let mut waiting = held_by("a", &run("j", Some(at(10))));
    a.commit(vec![Change::InsertRun(Arc::new(waiting.clone()))]).await.unwrap();
    assert!(is_conflict(&b.commit(update(&held_by("b", &waiting), "b")).await), "it is not b's");
    b.commit(update(&held_by("b", &waiting), "a")).await.unwrap();
    waiting.start(at(11));
    assert!(is_conflict(&a.commit(update(&waiting, "a")).await), "it is b's now");
    let mut ended = held_by("b", &waiting);
    ended.skip(at(20), punctual::run::SkipReason::Removed);
    b.commit(update(&ended, "b")).await.unwrap();
    assert!(is_conflict(&b.commit(update(&held_by("b", &waiting), "b")).await), "it has ended");
}

async fn meet<S: Store>(store: &S, node: &str, seconds: i64) -> ClusterView {
    store.renew_lease(node, at(0), at(seconds)).await.unwrap()
}

fn node(name: &str, beat: i64, seen_at: Timestamp) -> Node {
    Node { name: name.to_owned(), beat, started_at: at(0), seen_at }
}

async fn a_node_is_known_from_its_first_beat_until_it_is_buried<S: Store>([a, b]: [S; 2]) {
    let first = meet(&a, "a", 1).await;
    assert_eq!((first.is_new, first.nodes), (true, vec![node("a", 1, at(1))]));
    let second = meet(&b, "b", 2).await;
    assert_eq!(second.nodes, [node("a", 1, at(1)), node("b", 1, at(2))]);
    let pause = Pause::new(at(3), PauseTerms::default());
    b.commit(vec![Change::SetPause(Some(Arc::new(pause.clone())))]).await.unwrap();
    let third = meet(&a, "a", 4).await;
    assert_eq!((third.is_new, third.pause), (false, Some(pause)));
    assert_eq!(third.nodes, [node("a", 2, at(4)), node("b", 1, at(2))]);
    a.remove_nodes(&third.nodes).await.unwrap();
    assert_eq!(meet(&b, "b", 5).await.nodes, [node("b", 1, at(5))]);
}

async fn a_node_that_gave_a_sign_of_life_meanwhile_is_not_buried<S: Store>([a, b]: [S; 2]) {
    meet(&a, "a", 1).await;
    let seen = meet(&b, "b", 2).await.nodes;
    meet(&a, "a", 3).await;
    assert!(is_conflict(&b.remove_nodes(&seen).await));
    assert_eq!(meet(&b, "b", 4).await.nodes.len(), 2, "not even the other one");
}

async fn runs_in_flight_are_counted_on_other_nodes_and_found_when_their_node_is_gone<S: Store>(
    [a, b]: [S; 2],
) {
    let (mut running, waiting) = (run("j", Some(at(1))), run("j", Some(at(2))));
    running.start(at(3));
    let mut ended = run("j", Some(at(3)));
    ended.skip(at(20), punctual::run::SkipReason::Missed);
    let rows = [held_by("b", &running), held_by("b", &waiting), held_by("b", &ended)];
    let changes = rows.iter().map(|run| Change::InsertRun(Arc::new(run.clone()))).collect();
    b.commit(changes).await.unwrap();
    let elsewhere = a.count_in_flight_elsewhere("a").await.unwrap();
    let counted = InFlightCount { running: 1, waiting: 1 };
    assert_eq!(elsewhere, [(running.job_id.clone(), counted)]);
    assert!(b.count_in_flight_elsewhere("b").await.unwrap().is_empty());
    meet(&a, "a", 4).await;
    let of_gone = async || a.runs_in_flight(Holder::Gone { but: "a" }).await.unwrap().len();
    assert_eq!(of_gone().await, 2, "nobody knows the other node");
    let nodes = meet(&b, "b", 4).await.nodes;
    assert_eq!(of_gone().await, 0);
    a.remove_nodes(&nodes).await.unwrap();
    assert_eq!(of_gone().await, 2, "it is known no more");
    assert_eq!(a.runs_in_flight(Holder::Node("b")).await.unwrap().len(), 2);
}

async fn a_run_on_another_node_can_be_cancelled<S: Store>([a, b]: [S; 2]) {
    let mut running = held_by("b", &run("j", Some(at(1))));
    running.start(at(2));
    let waiting = held_by("b", &run("j", Some(at(3))));
    let mine =
        Run { state: RunState::Running { started_at: at(2) }, ..held_by("a", &run("j", None)) };
    let rows = [&running, &waiting, &mine];
    let changes = rows.map(|run| Change::InsertRun(Arc::new(run.clone()))).to_vec();
    b.commit(changes).await.unwrap();
    let (job_id, reason) = (running.job_id.clone(), "enough".to_owned());
    a.commit(vec![Change::CancelJobRuns { job_id, reason, except_node: "a".into() }])
        .await
        .unwrap();
    let asked = meet(&b, "b", 5).await.cancel_requests;
    assert_eq!(asked, [(running.id.clone(), "enough".to_owned())]);
    assert!(meet(&a, "a", 5).await.cancel_requests.is_empty(), "its own it ends itself");
    running.skip(at(20), punctual::run::SkipReason::Overlap);
    b.commit(update(&running, "b")).await.unwrap();
    assert!(meet(&b, "b", 6).await.cancel_requests.is_empty(), "it has ended");
}
