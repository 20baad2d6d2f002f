//! Healthy daemons that share a database server: a change that one of them accepts holds for all.

use std::path::Path;

use chrono::TimeDelta;
use punctual::client::{Client, ClientError};
use punctual::clock::{Clock, SystemClock, Timestamp};
use serde_json::{Value, json};
use support::servers::mariadb::MariaDb;
use support::servers::postgres::Postgres;
use support::servers::{Kind, Server};
use support::{Daemon, Home, PATIENCE, Signal, ended, ledger, text};
use tokio::task::JoinSet;

/// The lease of the nodes. It is longer than any test waits, so that a busy machine cannot have a node given up.
const LEASE_SECONDS: u64 = 10 * PATIENCE.as_secs();
/// Callers that each ask a node for runs of the same job, until they were let in so often.
const HAMMERS: usize = 6;
const LET_IN: usize = 3;

struct Cluster {
    homes: Vec<Home>,
    daemons: Vec<Daemon>,
}

impl Cluster {
    fn start(url: &str, nodes: usize) -> Self {
        let config = format!("[store]\nurl = \"{url}\"\nlease_seconds = {LEASE_SECONDS}\n");
        let homes: Vec<Home> = (0..nodes).map(|_| Home::new(&config)).collect();
        let daemons = homes.iter().map(Home::start).collect();
        Self { homes, daemons }
    }

    fn clients(&self) -> Vec<Client> {
        self.homes.iter().map(Home::client).collect()
    }

    fn stop(self) {
        for daemon in self.daemons {
            assert!(daemon.stop().success());
        }
    }
}

async fn node(client: &Client) -> String {
    text(&client.status().await.unwrap(), "node").to_owned()
}

fn every(id: &str, seconds: f64, task: &Value) -> Value {
    let trigger = json!({"type": "interval", "seconds": seconds, "timezone": "UTC"});
    json!({"id": id, "trigger": trigger, "task": task})
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_a_change_through_one_node_binds_the_node_that_holds_the_job() {
    changes_bind::<Postgres>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_mariadb_a_change_through_one_node_binds_the_node_that_holds_the_job() {
    changes_bind::<MariaDb>().await;
}

/// The next occurrence that a command reports, and its text.
async fn occurrence(signal: &mut Signal) -> (Timestamp, String) {
    let line = signal.next().await;
    let (at, word) = line.split_once(' ').unwrap();
    (at.parse().unwrap(), word.to_owned())
}

/// Waits until another job has fired a few times after this instant, which this one would have done as well if it could.
async fn others_fire(clock: &mut Signal, since: Timestamp) {
    let mut fired = 0;
    while fired < 4 {
        let (at, _) = occurrence(clock).await;
        fired += usize::from(at > since);
    }
}

/// No occurrence of the job after this instant was run.
async fn none_ran_after(client: &Client, since: Timestamp) {
    for row in ledger(client, "job").await {
        let at: Timestamp = text(&row, "scheduled_at").parse().unwrap();
        assert!(at <= since || row["state"] == "skipped", "{row}");
    }
}

async fn changes_bind<K: Kind>() {
    let Some(server) = Server::<K>::shared() else { return };
    let cluster = Cluster::start(&server.database("changes"), 2);
    let clients = cluster.clients();
    let (mut told, mut clock) = (cluster.homes[0].signal("told"), cluster.homes[0].signal("clock"));
    let job = |word: &str| {
        let task = told.shell(&format!("$PUNCTUAL_SCHEDULED_AT {word}"));
        let mut job = every("job", 0.2, &task);
        job["replace_existing"] = true.into();
        job
    };
    let (old, new) = (job("old"), job("new"));
    let ticks = clock.shell("$PUNCTUAL_SCHEDULED_AT clock");
    clients[1].add(&every("clock", 0.2, &ticks)).await.unwrap();
    clients[1].add(&old).await.unwrap();
    occurrence(&mut told).await;
    let holder = text(&ledger(&clients[0], "job").await[0], "node").to_owned();
    let other = if node(&clients[0]).await == holder { &clients[1] } else { &clients[0] };

    other.add(&new).await.unwrap();
    let changed = SystemClock.now();
    for _ in 0..5 {
        let (at, word) = occurrence(&mut told).await;
        assert!(at <= changed || word == "new", "{at} ran as before {changed}");
    }
    other.pause("job").await.unwrap();
    let paused = SystemClock.now();
    others_fire(&mut clock, paused).await;
    none_ran_after(other, paused).await;

    other.resume("job").await.unwrap();
    while occurrence(&mut told).await.0 < paused {}
    other.remove("job").await.unwrap();
    let removed = SystemClock.now();
    others_fire(&mut clock, removed).await;
    none_ran_after(other, removed).await;
    cluster.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_a_pause_through_one_node_stops_all_of_them() {
    pause_stops_all::<Postgres>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_mariadb_a_pause_through_one_node_stops_all_of_them() {
    pause_stops_all::<MariaDb>().await;
}

/// Waits until this holds.
async fn becomes(what: &str, holds: impl AsyncFn() -> bool) {
    let waiting = async { while !holds().await {} };
    let held = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(held.is_ok(), "not in {PATIENCE:?}: {what}");
}

/// Waits until a node is in this state.
async fn stands(client: &Client, state: &str) {
    becomes(state, async || client.status().await.unwrap()["state"] == state).await;
}

/// Whether nothing is in flight, on any node.
async fn is_quiet(client: &Client) -> bool {
    for state in ["pending", "running"] {
        let page = client.runs(&format!("state={state}")).await.unwrap();
        if page["runs"] != json!([]) {
            return false;
        }
    }
    true
}

async fn pause_stops_all<K: Kind>() {
    let Some(server) = Server::<K>::shared() else { return };
    let cluster = Cluster::start(&server.database("pause"), 2);
    let clients = cluster.clients();
    let mut signal = cluster.homes[0].signal("ran");
    for (number, client) in clients.iter().cycle().take(6).enumerate() {
        let id = format!("job-{number}");
        client.add(&every(&id, 0.1, &signal.shell(&id))).await.unwrap();
    }
    signal.next().await;
    clients[0].pause_all().await.unwrap();
    stands(&clients[1], "paused").await;
    // What had fired before may start a moment later.
    becomes("quiet", async || is_quiet(&clients[1]).await).await;
    let paused = SystemClock.now();
    // Nothing is to happen meanwhile, for several times the distance of two occurrences.
    while SystemClock.now() - paused < TimeDelta::milliseconds(300) {
        clients[1].jobs("").await.unwrap();
    }
    let resumed = SystemClock.now();
    clients[1].resume_all().await.unwrap();
    stands(&clients[0], "running").await;
    signal.next().await;
    for row in clients[0].runs("limit=1000").await.unwrap()["runs"].as_array().unwrap() {
        let created: Timestamp = text(row, "scheduled_at").parse().unwrap();
        let started = row["started_at"].as_str().map(|at| at.parse::<Timestamp>().unwrap());
        let in_pause = |at: Timestamp| at > paused && at < resumed;
        assert!(!started.is_some_and(in_pause), "{created} was started in the pause: {row}");
    }
    cluster.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_lists_all_nodes_until_they_leave() {
    let Some(server) = Server::<Postgres>::shared() else { return };
    let mut cluster = Cluster::start(&server.database("status"), 2);
    let clients = cluster.clients();
    let names = [node(&clients[0]).await, node(&clients[1]).await];
    let listed = async |client: &Client| client.status().await.unwrap()["nodes"].clone();
    let count = async || listed(&clients[0]).await.as_array().unwrap().len();
    becomes("both are listed", async || count().await == 2).await;
    for (client, here) in clients.iter().zip(&names) {
        for node in listed(client).await.as_array().unwrap() {
            assert!(names.contains(&text(node, "name").to_owned()), "{node}");
            assert_eq!(node["here"], text(node, "name") == here, "{node}");
            let (started, seen) = (text(node, "started_at"), text(node, "seen_at"));
            assert!(started <= seen, "{node}");
        }
    }
    let shown = cluster.homes[1].ok(&["status"]);
    for line in ["NODE", &names[0], &format!("{} (here)", names[1])] {
        assert!(shown.contains(line), "{line} is not in\n{shown}");
    }
    assert!(cluster.daemons.pop().unwrap().stop().success());
    // It removes itself from the store: no other node waits for its lease to end.
    becomes("it has left", async || count().await == 1).await;
    let shown = cluster.homes[0].ok(&["status"]);
    assert!(!shown.contains("NODE"), "a node alone needs no list:\n{shown}");
    cluster.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_one_instance_is_one_over_all_nodes() {
    one_instance::<Postgres>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_mariadb_one_instance_is_one_over_all_nodes() {
    one_instance::<MariaDb>().await;
}

/// A command that complains if it is not alone.
fn alone(folder: &Path) -> Value {
    let script = "mkdir alone || echo \"$PUNCTUAL_RUN_ID\" >> crowd; sleep 0.02; rmdir alone";
    json!({"type": "command", "argv": ["/bin/sh", "-c", script], "cwd": folder})
}

/// Asks for runs of the job, again and again.
async fn hammer(client: Client) -> Vec<String> {
    let mut made = Vec::new();
    while made.len() < LET_IN {
        match client.run("job").await {
            Ok(run) => made.push(text(&run, "id").to_owned()),
            Err(ClientError::Refused { status: 409, code, .. }) => {
                assert_eq!(code, "max_instances");
            }
            Err(error) => panic!("{error}"),
        }
    }
    made
}

async fn one_instance<K: Kind>() {
    let Some(server) = Server::<K>::shared() else { return };
    let cluster = Cluster::start(&server.database("instances"), 3);
    let clients = cluster.clients();
    let folder = cluster.homes[0].path();
    clients[0].add(&every("job", 0.1, &alone(folder))).await.unwrap();
    let mut hammers = JoinSet::new();
    for client in clients.iter().cycle().take(HAMMERS) {
        hammers.spawn(hammer(client.clone()));
    }
    let made: Vec<String> = hammers.join_all().await.into_iter().flatten().collect();
    clients[1].pause("job").await.unwrap();
    let rows = ledger(&clients[2], "job").await;
    for row in &rows {
        if row["state"] != "skipped" {
            assert_eq!(text(&ended(&clients[2], text(row, "id")).await, "state"), "succeeded");
        }
    }
    for id in &made {
        assert!(rows.iter().any(|row| text(row, "id") == id), "{id} is lost");
    }
    assert_eq!(made.len(), HAMMERS * LET_IN);
    let crowd = std::fs::read_to_string(folder.join("crowd")).unwrap_or_default();
    assert_eq!(crowd, "", "these were not alone");
    cluster.stop();
}
