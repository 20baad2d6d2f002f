//! A daemon that is killed again and again keeps what it has acknowledged, and does nothing twice.

use punctual::client::Client;
use serde_json::json;
use support::audit::{check_end, check_now, nothing_is_left, settle, tick};
use support::load::{Book, Caller, Random, Shift, seed};
use support::{Home, text};

/// The test kills these daemons; their runs do not.
const CONFIG: &str = "[scheduler]\nmax_crashes = 1000\n";
/// Crashes, unless `PUNCTUAL_TEST_ROUNDS` says how many.
const ROUNDS: u64 = 50;
const CALLERS: u64 = 4;
/// A daemon is killed within this time after it was ready, but not before it has answered so often.
const LIFE_MILLIS: u64 = 250;
const ANSWERS_MIN: usize = 12;
/// A daemon that is killed before it is ready lives for less than this.
const START_MILLIS: u64 = 100;
/// All jobs and the whole ledger are looked at after this many crashes; what is new, after each.
const LOOK_ROUNDS: u64 = 10;

/// A file that declares other jobs in each round.
fn declared(round: u64) -> String {
    let job = |id: u64| {
        format!(
            "[[jobs]]\nid = \"declared-{id}\"\nname = \"of round {round}\"\n\
             trigger = {{ type = \"cron\", month = 1, day = 1 }}\ntask = {{ type = \"builtin\", name = \"noop\" }}\n"
        )
    };
    CONFIG.to_owned() + &job(0) + &job(1 + round)
}

/// The jobs of the file are those of the round in which it was last read.
async fn check_declared(client: &Client, round: u64) {
    let jobs = client.jobs("prefix=declared-").await.unwrap();
    let jobs = jobs["jobs"].as_array().unwrap();
    let ids: Vec<&str> = jobs.iter().map(|job| text(job, "id")).collect();
    let expected: &[String] = match round {
        0 => &[],
        _ => &["declared-0".to_owned(), format!("declared-{}", 1 + round)],
    };
    assert_eq!(ids, expected, "round {round}");
    assert!(jobs.iter().all(|job| text(job, "name") == format!("of round {round}")), "{jobs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_changes_survive_every_crash_and_nothing_runs_twice() {
    let home = Home::new(CONFIG);
    let (client, file) = (home.client(), home.path().join("ran.txt"));
    let (mut random, mut book) = (Random(seed()), Book::default());
    let caller =
        |number| Caller::new(format!("caller-{number}"), Random(seed() + number), file.clone());
    let mut callers: Vec<Caller> = (1..=CALLERS).map(caller).collect();
    let rounds = std::env::var("PUNCTUAL_TEST_ROUNDS").map_or(ROUNDS, |text| text.parse().unwrap());
    for round in 0..rounds {
        if round % 5 == 4 {
            let mut daemon = home.spawn(&[]);
            daemon.hear_for(random.millis(START_MILLIS));
            daemon.kill();
        }
        let daemon = home.start();
        if round == 0 {
            client.add(&tick(&json!({"type": "builtin", "name": "noop"}))).await.unwrap();
        }
        book.check_fresh(&client).await;
        check_declared(&client, round).await;
        if round % 3 == 2 {
            // The scheduler as a whole was paused before the crash.
            assert_eq!(client.status().await.unwrap()["state"], "paused");
            client.resume_all().await.unwrap();
        }
        if round % LOOK_ROUNDS == LOOK_ROUNDS - 1 {
            check_now(&client, &book).await;
        }
        let mut shift = Shift::begin(callers, &[home.client()]);
        let answered = book.calls.0;
        shift.go_on_for(random.millis(LIFE_MILLIS), &mut book).await;
        while book.calls.0 < answered + ANSWERS_MIN {
            assert!(shift.next(&mut book).await);
        }
        home.write_config(&declared(round + 1));
        client.reload().await.unwrap();
        if round % 3 == 1 {
            client.pause_all().await.unwrap();
        }
        daemon.kill();
        callers = shift.end(&mut book).await;
    }
    let daemon = home.start();
    client.resume_all().await.unwrap();
    check_now(&client, &book).await;
    client.pause("tick").await.unwrap();
    settle(&client, &mut home.signal("pulse")).await;
    let again = check_end(&client, &book, &file).await;
    assert!(again > 5, "crashes met runs: {again}");
    assert!(book.kept().len() > 100 && book.gone() > 20, "there was load: {:?}", book.calls);
    assert_eq!(client.status().await.unwrap()["running"], 0);
    assert!(daemon.stop().success());
    nothing_is_left(&home);
}
