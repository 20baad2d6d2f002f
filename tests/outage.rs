//! A database that goes away under a running daemon, and comes back: everybody is told, and work resumes by itself.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on ends"
)]

#[path = "support/audit.rs"]
mod audit;
#[path = "support/load.rs"]
mod load;
#[path = "support/servers.rs"]
mod servers;
mod support;

use std::process::Command;

use audit::{check_end, settle, tick};
use chrono::TimeDelta;
use load::{Book, Caller, Random, Shift, noted, once, seed};
use punctual::client::{Client, ClientError};
use punctual::clock::{Clock, SystemClock};
use serde_json::Value;
use servers::mariadb::MariaDb;
use servers::postgres::Postgres;
use servers::{Kind, Server};
use sqlx::Connection;
use support::{Home, text};

/// How long callers call before the database goes, and after it is back.
const WORK_MILLIS: u64 = 300;

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_goes_away_and_comes_back_delays_and_nothing_more() {
    goes_away::<Postgres>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mariadb_that_goes_away_and_comes_back_delays_and_nothing_more() {
    goes_away::<MariaDb>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_asked_to_end_while_its_server_is_away_ends_and_says_what_is_missing() {
    let Some(server) = Server::<Postgres>::start() else { return };
    let home = Home::new(&format!("[store]\nurl = \"{}\"\n", server.url()));
    let daemon = home.start();
    home.client().ready().await.unwrap();
    server.stop();
    assert_eq!(daemon.stop().code(), Some(1));
    let log = std::fs::read_to_string(home.log()).unwrap();
    assert!(log.contains("not everything was recorded before the end"), "{log}");
}

/// Stops a server under load, and starts it again.
async fn goes_away<K: Kind>() {
    let Some(server) = Server::<K>::start() else { return };
    let home = Home::new(&format!("[store]\nurl = \"{}\"\n", server.url()));
    outage(&home, || server.stop(), || server.start_again()).await;
}

/// No file of the daemon may grow beyond this: as on a full disk, small ones can still be written.
fn limit(home: &Home, bytes: &str) {
    let pid = std::fs::read_to_string(home.path().join("punctual.db.lock")).unwrap();
    let pid = pid.trim().trim_start_matches("process ");
    let mut prlimit = Command::new("prlimit");
    prlimit.args([&format!("--pid={pid}"), &format!("--fsize={bytes}:unlimited")]);
    assert!(prlimit.status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_not_forgotten_while_there_is_nothing_to_write() {
    let home = Home::new("");
    let daemon = home.start();
    let (client, file) = (home.client(), home.path().join("ran.txt"));
    let later = SystemClock.now() + TimeDelta::days(1);
    limit(&home, "4096");
    // Its first pages may still find room in a file that is there.
    let mut number = 0;
    while refused(client.add(&once(&format!("job-{number}"), later, &file)).await).is_none() {
        number += 1;
    }
    // Reading works all the time, for longer than the daemon waits before it tries again.
    let since = SystemClock.now();
    while SystemClock.now() - since < TimeDelta::seconds(1) {
        assert!(refused(client.ready().await).is_some());
        client.jobs("").await.unwrap();
    }
    limit(&home, "unlimited");
    while refused(client.ready().await).is_some() {
        client.jobs("").await.unwrap();
    }
    client.add(&once("after", later, &file)).await.unwrap();
    assert!(daemon.stop().success());
    log_tells_once(&home);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_delays_and_nothing_more() {
    let home = Home::new("");
    outage(&home, || limit(&home, "65536"), || limit(&home, "unlimited")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_lock_that_a_shell_holds_for_a_moment_delays_and_nobody_is_refused() {
    let home = Home::new("");
    let daemon = home.start();
    let (client, file) = (home.client(), home.path().join("ran.txt"));
    let options =
        sqlx::sqlite::SqliteConnectOptions::new().filename(home.path().join("punctual.db"));
    let mut shell = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query("begin immediate").execute(&mut shell).await.unwrap();
    let waiting = once("waiting", SystemClock.now(), &file);
    let add = client.add(&waiting);
    let release = async {
        // The scheduler waits for the lock, and readers wait for neither.
        for _ in 0..20 {
            let refusal = client.job("waiting").await.unwrap_err();
            assert!(refusal.is_not_found(), "{refusal}");
        }
        sqlx::query("rollback").execute(&mut shell).await.unwrap();
    };
    let (added, ()) = tokio::join!(add, release);
    assert_eq!(text(&added.unwrap(), "state"), "active");
    client.ready().await.unwrap();
    settle(&client, &mut home.signal("pulse")).await;
    assert_eq!(support::ledger(&client, "waiting").await.len(), 1);
    assert!(daemon.stop().success());
    assert!(!std::fs::read_to_string(home.log()).unwrap().contains("ERROR"));
}

/// Takes the database away under load and gives it back.
async fn outage(home: &Home, take_away: impl Fn(), give_back: impl Fn()) {
    let daemon = home.start();
    let (client, file) = (home.client(), home.path().join("ran.txt"));
    let (mut book, mut random) = (Book::default(), Random(seed()));
    let mut pulse = home.signal("pulse");
    client.add(&tick(&noted(&file))).await.unwrap();
    let callers = (1..=3).map(|number| {
        Caller::new(format!("caller-{number}"), Random(seed() + number), file.clone())
    });
    let mut shift = Shift::begin(callers.collect(), &[home.client()]);
    shift.go_on_for(random.millis(WORK_MILLIS), &mut book).await;
    // It falls due while the database is away.
    let due = SystemClock.now() + TimeDelta::milliseconds(500);
    client.add(&once("due", due, &file)).await.unwrap();
    take_away();
    while refused(client.ready().await).is_none() {
        assert!(shift.next(&mut book).await);
    }
    everybody_is_told(home, &client).await;
    while SystemClock.now() < due {
        assert!(shift.next(&mut book).await);
    }
    give_back();
    while refused(client.ready().await).is_some() {
        assert!(shift.next(&mut book).await);
    }
    shift.go_on_for(random.millis(WORK_MILLIS), &mut book).await;
    shift.end(&mut book).await;
    client.pause("tick").await.unwrap();
    settle(&client, &mut pulse).await;
    check_end(&client, &book, &file).await;
    let rows = support::ledger(&client, "due").await;
    assert_eq!((rows.len(), text(&rows[0], "state")), (1, "succeeded"));
    assert_eq!(client.status().await.unwrap()["store_error"], Value::Null);
    assert!(daemon.stop().success());
    log_tells_once(home);
}

/// Why the daemon refused, if it did so because of its store.
fn refused(answer: Result<Value, ClientError>) -> Option<String> {
    match answer {
        Ok(_) => None,
        Err(ClientError::Refused { status: 503, message, .. }) => Some(message),
        Err(error) => panic!("{error}"),
    }
}

/// Requests, the probe and the status say that the store is away.
async fn everybody_is_told(home: &Home, client: &Client) {
    for answer in [client.pause_all().await, client.ready().await] {
        let message = refused(answer).unwrap();
        assert!(message.starts_with("the store is unavailable: "), "{message}");
    }
    let shown = home.ok(&["status"]);
    assert!(shown.contains("the store is unavailable: "), "{shown}");
    let status = client.status().await.unwrap();
    assert!(text(&status, "store_error").starts_with("the store is unavailable: "), "{status}");
}

/// One line for the loss and one for the return, however long it lasts and whoever asks.
fn log_tells_once(home: &Home) {
    let log = std::fs::read_to_string(home.log()).unwrap();
    let told: Vec<&str> = log.lines().filter(|line| !line.contains(" INFO skipped ")).collect();
    let said = |text: &str| told.iter().filter(|line| line.contains(text)).count();
    assert_eq!(said("the store failed; trying again"), 1, "{told:#?}");
    assert_eq!(said("the store can be used again"), 1, "{told:#?}");
    assert_eq!(said("WARN"), 0, "{told:#?}");
    assert_eq!(said("ERROR"), 1, "{told:#?}");
}
