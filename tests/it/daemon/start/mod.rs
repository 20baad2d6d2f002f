//! A start while the database server is down blocks nothing, says what it waits for, and goes on by itself. A start that
//! the server refuses ends with the reason.

mod refused;
mod rights;

use rustix::process::Signal as Kill;
use serde_json::{Value, json};
use support::raw::Raw;
use support::servers::mariadb::MariaDb;
use support::servers::postgres::Postgres;
use support::servers::{Kind, Server};
use support::{Daemon, Home, ledger, text};

/// A job that fires every second and gives a signal.
fn ticking(home: &Home, signal: &support::Signal) -> String {
    let script = format!("echo ticked > {}", signal.path.display());
    assert!(home.path().exists());
    format!(
        "\n[[jobs]]\nid = \"tick\"\ntrigger = {{ type = \"interval\", seconds = 1 }}\n\
         task = {{ type = \"command\", argv = [\"/bin/sh\", \"-c\", \"{script}\"] }}\n"
    )
}

fn store(url: &str) -> String {
    format!("[store]\nurl = \"{url}\"\nlease_seconds = 3\n")
}

/// Waits until the daemon is ready because it waits for its store, and gives the status line that it sent with that.
fn waits(daemon: &mut Daemon) -> String {
    loop {
        let message = daemon.message();
        let waits =
            message.iter().find_map(|line| line.strip_prefix("STATUS=waiting for the store: "));
        if let Some(status) = waits.filter(|_| message.contains(&"READY=1".to_owned())) {
            return status.to_owned();
        }
    }
}

#[tokio::test]
async fn a_postgres_server_that_is_away_at_a_start_holds_nothing_up() {
    is_waited_for::<Postgres>().await;
}

#[tokio::test]
async fn a_mariadb_server_that_is_away_at_a_start_holds_nothing_up() {
    is_waited_for::<MariaDb>().await;
}

async fn is_waited_for<K: Kind>() {
    let Some(server) = Server::<K>::start() else { return };
    let url = server.database("away");
    server.stop();
    let home = Home::new("");
    let mut signal = home.signal("ticked");
    home.write_config(&(store(&url) + &ticking(&home, &signal)));
    let mut daemon = home.spawn(&[]);
    let status = waits(&mut daemon);
    assert!(status.ends_with("connection refused"), "{status}");

    let mut raw = Raw::connect(&home.socket());
    for (method, path) in [
        ("GET", "/v1/jobs"),
        ("POST", "/v1/jobs"),
        ("GET", "/v1/jobs/tick"),
        ("POST", "/v1/scheduler/reload"),
        ("GET", "/nowhere"),
    ] {
        let answer = raw.ask(method, path, b"").unwrap();
        assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"), "{answer:?}");
        assert_eq!(answer.header("retry-after"), Some("1"));
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert_eq!(message, format!("the daemon waits for its store: {status}"));
    }
    assert_eq!(raw.ask("GET", "/healthz", b"").unwrap().json(), json!({"healthy": true}));
    let not_ready = raw.ask("GET", "/readyz", b"").unwrap();
    assert_eq!((not_ready.status, &not_ready.json()["reason"]), (503, &json!("store")));
    let (code, said) = home.fails(&["reload"]);
    assert!(code == 1 && said.contains("the daemon waits for its store: "), "{said}");
    let shown = home.client().status().await.unwrap();
    assert_eq!(text(&shown, "state"), "waiting for the store");
    assert_eq!((&shown["ready"], &shown["store_error"]), (&json!(false), &json!(status)));
    assert_eq!(shown["not_ready"]["reason"], "store");
    let people = String::from_utf8(home.run(&["status"]).stdout).unwrap();
    let line = people.lines().find_map(|line| line.strip_prefix("store ")).unwrap();
    assert_eq!(line.trim(), text(&shown, "store"), "{people}");
    // What the file says is known without the store.
    let file = home.path().canonicalize().unwrap().join("jobs.toml").display().to_string();
    assert_eq!(
        shown["declared"],
        json!({"file": file, "source": file, "jobs": 1, "faulty": 0, "faults": []})
    );
    assert_eq!((&shown["jobs"], &shown["running"]), (&json!(null), &json!(0)));
    assert!(home.ok(&["check"]).contains("is valid: 1 job"));

    server.start_again();
    daemon.wait_for("READY=1");
    signal.next().await;
    home.client().ready().await.unwrap();
    let running = home.client().status().await.unwrap();
    assert_eq!(text(&running, "state"), "running");
    assert_eq!(names(&shown), names(&running), "a client reads one shape");
    for field in ["declared", "executors", "nodes"] {
        let [one, other] = [&shown, &running].map(|status| &status[field]);
        let [one, other] = [one, other].map(|value| value.get(0).unwrap_or(value));
        assert_eq!(names(one), names(other), "{field}");
    }
    assert_eq!(shown["declared"], running["declared"]);
    assert!(!ledger(&home.client(), "tick").await.is_empty());
    // A connection of before serves on.
    assert_eq!(raw.ask("GET", "/v1/jobs/tick", b"").unwrap().status, 200);
    assert!(daemon.stop().success());
}

/// The names of an object's fields, in their order.
fn names(object: &Value) -> Vec<&String> {
    object.as_object().unwrap().keys().collect()
}

#[tokio::test]
async fn a_daemon_that_waits_for_its_store_ends_at_once_and_well() {
    let home = Home::new(&store("postgres://me@127.0.0.1:1/away"));
    let mut daemon = home.spawn(&[]);
    assert!(waits(&mut daemon).contains("connection refused"));
    assert_eq!(daemon.stop().code(), Some(0));
    assert!(!home.socket().exists());
}

#[tokio::test]
async fn a_reload_while_the_store_is_waited_for_takes_the_file_as_it_is_now() {
    let home = Home::new(&store("postgres://me@127.0.0.1:1/away"));
    let mut daemon = home.spawn(&[]);
    waits(&mut daemon);
    home.write_config("nonsense");
    daemon.signal(Kill::HUP);
    daemon.wait_for("READY=1");
    home.log_with("the configuration is faulty; the old one stays");

    home.write_config(&store("postgres://me@no-such-host.invalid/away"));
    daemon.signal(Kill::HUP);
    daemon.wait_for("READY=1");
    while daemon.message().iter().all(|line| !line.contains("the host name cannot be resolved")) {}
    let status = home.client().status().await.unwrap();
    assert_eq!(status["store"], "postgres://me@no-such-host.invalid/away");

    home.write_config(
        "[[jobs]]\nid = \"new\"\ntrigger = { type = \"cron\", hour = 3 }\ntask = { type = \"builtin\", name = \"noop\" }\n",
    );
    daemon.signal(Kill::HUP);
    // It is ready a moment before its socket takes other requests.
    while home.client().job("new").await.is_err() {
        daemon.hear_for(std::time::Duration::from_millis(100));
    }
    assert_eq!(text(&home.client().job("new").await.unwrap(), "state"), "active");
    assert!(daemon.stop().success());
}

#[tokio::test]
async fn a_redis_that_is_away_holds_up_no_start() {
    let home = Home::new(
        "[toutiao]\nlisten = \"127.0.0.1:0\"\nredis = { url = \"redis://127.0.0.1:1\" }\n",
    );
    let daemon = home.start();
    home.client().ready().await.unwrap();
    assert!(daemon.stop().success());
}
