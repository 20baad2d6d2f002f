//! Daemons that share a database server and start at the same moment: on an empty database, and after all of them have
//! crashed. Each finds the same to do, and none of them may fail because another one was faster.

use punctual::client::Client;
use serde_json::{Value, json};
use support::servers::mariadb::MariaDb;
use support::servers::postgres::Postgres;
use support::servers::{Kind, Server};
use support::{Daemon, Home, PATIENCE, ended, ledger, text};

const NODES: usize = 3;
/// The lease of the nodes. It is longer than any test waits, so that a busy machine cannot have a node given up.
const LEASE_SECONDS: u64 = 10 * PATIENCE.as_secs();
/// Runs that are in flight when all nodes crash.
const RUNS: usize = 12;

/// Jobs that all nodes declare.
const DECLARED: &str = r#"
[[jobs]]
id = "one"
trigger = { type = "cron", hour = 3 }
task = { type = "builtin", name = "noop" }

[[jobs]]
id = "two"
trigger = { type = "cron", hour = 4 }
task = { type = "builtin", name = "noop" }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_nodes_that_start_together_all_start_and_take_over_what_is_left() {
    start_together::<Postgres>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_mariadb_nodes_that_start_together_all_start_and_take_over_what_is_left() {
    start_together::<MariaDb>().await;
}

/// Starts all at once.
fn start_all(homes: &[Home]) -> Vec<Daemon> {
    let mut daemons: Vec<Daemon> = homes.iter().map(|home| home.spawn(&[])).collect();
    for daemon in &mut daemons {
        daemon.wait_for("READY=1");
    }
    daemons
}

async fn state(client: &Client, id: &str) -> Value {
    client.job(id).await.map_or_else(|error| json!(error.to_string()), |job| job["state"].clone())
}

async fn start_together<K: Kind>() {
    let Some(server) = Server::<K>::shared() else { return };
    let url = server.database("together");
    // The nodes have copies of one file, each in a folder of its own.
    let store = format!(
        "[scheduler]\nsource = \"one\"\n[store]\nurl = \"{url}\"\nlease_seconds = {LEASE_SECONDS}\n"
    );
    let homes: Vec<Home> = (0..NODES).map(|_| Home::new(&format!("{store}{DECLARED}"))).collect();
    let client = homes[0].client();
    let daemons = start_all(&homes);
    assert_eq!([state(&client, "one").await, state(&client, "two").await], ["active", "active"]);

    let (mut signal, gate) = (homes[0].signal("ran"), homes[0].signal("gate"));
    let script = format!(
        "echo $PUNCTUAL_ATTEMPT > {}; test $PUNCTUAL_ATTEMPT = 2 || read line < {}",
        signal.path.display(),
        gate.path.display()
    );
    let task = json!({"type": "command", "argv": ["/bin/sh", "-c", script]});
    let trigger = json!({"type": "date", "run_date": "2020-01-01 00:00:00", "timezone": "UTC"});
    for number in 0..RUNS {
        let id = format!("job-{number}");
        let job = json!({"id": id, "trigger": trigger, "task": task});
        homes[number % NODES].client().add(&job).await.unwrap();
        assert_eq!(signal.next().await, "1");
    }
    daemons.into_iter().for_each(Daemon::kill);
    // A node that then crashed too had given them up: what they held belongs to no node, and any may take it.
    server.sql("together", "DELETE FROM nodes");

    let daemons = start_all(&homes);
    for _ in 0..RUNS {
        assert_eq!(signal.next().await, "2");
    }
    for number in 0..RUNS {
        let rows = ledger(&client, &format!("job-{number}")).await;
        assert_eq!(rows.len(), 1);
        let run = ended(&client, text(&rows[0], "id")).await;
        assert_eq!((text(&run, "state"), &run["attempt"]), ("succeeded", &json!(2)));
    }
    for daemon in &daemons {
        daemon.signal(rustix::process::Signal::TERM);
    }
    for daemon in daemons {
        assert!(daemon.ended().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_daemons_with_other_files_leave_each_others_jobs_alone() {
    other_files::<Postgres>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_mariadb_daemons_with_other_files_leave_each_others_jobs_alone() {
    other_files::<MariaDb>().await;
}

/// A job with this id, at this hour.
fn daily(id: &str, hour: u32) -> String {
    format!(
        "[[jobs]]\nid = \"{id}\"\ntrigger = {{ type = \"cron\", hour = {hour} }}\n\
         task = {{ type = \"builtin\", name = \"noop\" }}\n"
    )
}

async fn other_files<K: Kind>() {
    let Some(server) = Server::<K>::shared() else { return };
    let url = server.database("others");
    let store = format!("[store]\nurl = \"{url}\"\nlease_seconds = {LEASE_SECONDS}\n");
    let (one, two) = (
        Home::new(&format!("{store}{}{}", daily("shared", 1), daily("first", 2))),
        Home::new(&format!("[scheduler]\nsource = \"two\"\n{store}{}", daily("second", 3))),
    );
    let source = |home: &Home| json!(home.path().join("jobs.toml"));
    let first = one.start();
    let second = two.start();
    let (client, other) = (one.client(), two.client());
    let job = other.job("first").await.unwrap();
    assert_eq!((&job["state"], &job["source"]), (&json!("active"), &source(&one)));
    assert_eq!(client.job("second").await.unwrap()["source"], "two");
    assert_eq!(two.json(&["check"])["changes"]["removed"], json!([]));

    // A reload with a job of another file changes nothing.
    let both = format!("{}{}", daily("shared", 9), daily("new", 3));
    two.write_config(&format!("[scheduler]\nsource = \"two\"\n{store}{both}"));
    let said =
        format!("job \"shared\" is declared by another file, whose source is {}", source(&one));
    for verb in ["check", "reload"] {
        let (code, complaint) = two.fails(&[verb]);
        assert!(code == 1 && complaint.contains(&said), "{verb}: {complaint}");
    }
    assert!(client.job("second").await.is_ok() && client.job("new").await.is_err());
    // A start leaves that job alone, and goes on with the others.
    assert!(second.stop().success());
    let second = two.start();
    assert_eq!(client.job("shared").await.unwrap()["trigger"]["hour"], 1);
    assert!(client.job("second").await.is_err() && client.job("new").await.is_ok());
    let declared = other.status().await.unwrap()["declared"].clone();
    assert_eq!((&declared["source"], &declared["faulty"]), (&json!("two"), &json!(1)));
    assert!(text(&declared["faults"][0], "error").contains(&said), "{declared}");
    two.log_with("ERROR another file declares the job");

    // An empty file keeps its own at a start, and a reload removes no one else's.
    assert!(second.stop().success());
    two.write_config(&format!("[scheduler]\nsource = \"two\"\n{store}"));
    let second = two.start();
    assert!(client.job("new").await.is_ok());
    assert_eq!(two.json(&["reload", "--force"])["removed"], json!(["new"]));
    // The first file is gone for good: what it declared can be removed.
    assert!(first.stop().success());
    two.ok(&["remove", "first"]);
    assert!(other.job("first").await.unwrap_err().is_not_found());
    assert!(second.stop().success());
}
