//! `PostgreSQL` servers as they are in practice: behind a connection pooler, in another encoding, read-only for a while.

use serde_json::json;
use support::servers::Server;
use support::servers::pgbouncer::{PgBouncer, Pooling};
use support::servers::postgres::Postgres;
use support::{Home, run_to_end, text};

fn home(url: &str) -> Home {
    Home::new(&format!("[store]\nurl = \"{url}\"\n"))
}

/// What a start that was refused has said.
fn refusal(home: &Home) -> String {
    assert_eq!(home.spawn(&[]).ended().code(), Some(2), "no other try would help");
    std::fs::read_to_string(home.log()).unwrap()
}

#[tokio::test]
async fn a_pooler_in_session_mode_works_as_it_is_installed() {
    let Some(server) = Server::<Postgres>::shared() else { return };
    server.database("pooled");
    let Some(pooler) = PgBouncer::start(server, Pooling::Default) else { return };
    let home = home(&pooler.url("pooled"));
    // Twice: the second one is given the server's sessions of the first one.
    for _ in 0..2 {
        let daemon = home.start();
        let client = home.client();
        let job = json!({"id": "a", "trigger": {"type": "interval", "days": 1},
            "task": {"type": "command", "argv": ["true"]}, "replace_existing": true});
        client.add(&job).await.unwrap();
        assert_eq!(text(&run_to_end(&client, "a").await, "state"), "succeeded");
        client.ready().await.unwrap();
        assert!(daemon.stop().success());
    }
}

#[tokio::test]
async fn a_pooler_in_transaction_mode_is_refused_in_one_sentence() {
    let Some(server) = Server::<Postgres>::shared() else { return };
    server.database("shared_sessions");
    for pooling in [Pooling::Transaction, Pooling::RoundRobin] {
        let Some(pooler) = PgBouncer::start(server, pooling) else { return };
        let home = home(&pooler.url("shared_sessions"));
        let log = refusal(&home);
        assert!(log.contains("set its pool_mode to session"), "{log}");
    }
    let tables = "select count(*) from information_schema.tables where table_schema = 'public'";
    assert_eq!(server.sql("shared_sessions", tables).trim(), "0", "nothing was written");
}

#[tokio::test]
async fn a_database_that_cannot_keep_every_text_is_refused() {
    let Some(server) = Server::<Postgres>::shared() else { return };
    let create = |name: &str, encoding: &str| {
        let settings = format!("encoding '{encoding}' locale 'C' template template0");
        server.sql("postgres", &format!("create database {name} {settings}"));
        format!("{}/{name}", server.url().rsplit_once('/').unwrap().0)
    };
    let log = refusal(&home(&create("latin", "LATIN1")));
    assert!(log.contains("the encoding LATIN1, and must have UTF8"), "{log}");
    let home = home(&create("bytes", "SQL_ASCII"));
    let daemon = home.start();
    let job = json!({"id": "日本", "trigger": {"type": "interval", "days": 1},
        "task": {"type": "command", "argv": ["echo", "日本"]}});
    home.client().add(&job).await.unwrap();
    assert_eq!(text(&home.client().job("日本").await.unwrap(), "id"), "日本");
    assert!(daemon.stop().success());
}

#[tokio::test]
async fn a_start_waits_for_a_server_that_takes_no_writes_yet() {
    let Some(server) = Server::<Postgres>::shared() else { return };
    let url = server.database("standby");
    server.sql("postgres", "alter database standby set default_transaction_read_only = on");
    let home = home(&url);
    let mut daemon = home.spawn(&[]);
    while daemon.message().iter().all(|line| !line.contains("the server takes no writes now")) {}
    server.sql("postgres", "alter database standby reset default_transaction_read_only");
    daemon.wait_for("READY=1");
    assert!(daemon.stop().success());
}
