//! Daemons that share a database server and start at the same moment: on an empty database, and after all of them have
//! crashed. Each finds the same to do, and none of them may fail because another one was faster.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on ends")]

#[path = "support/servers.rs"]
mod servers;
mod support;

use punctual::client::Client;
use serde_json::{Value, json};
use servers::mariadb::MariaDb;
use servers::postgres::Postgres;
use servers::{Kind, Server};
use support::{Daemon, Home, ended, ledger, text};

const NODES: usize = 3;
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
    let store = format!("[store]\nurl = \"{}\"\nlease_seconds = 3\n", server.database("together"));
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
    // They had been given up by one that then crashed too: what they held is nobody's, for all who come.
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
