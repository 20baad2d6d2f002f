//! A daemon that is killed again and again: what it has acknowledged is kept, and nothing happens twice.

#[path = "support/audit.rs"]
mod audit;
#[path = "support/load.rs"]
mod load;
mod support;

use audit::{check_end, check_now, nothing_is_left, settle, tick};
use load::{Book, Caller, Random, Shift, seed};
use serde_json::json;
use support::Home;

const ROUNDS: u64 = 50;
const CALLERS: u64 = 4;
/// A daemon is killed within this time after it was ready.
const LIFE_MILLIS: u64 = 250;
/// A daemon that is killed before it is ready lives for less than this.
const START_MILLIS: u64 = 100;
/// All jobs and the whole ledger are looked at after so many crashes; what is new, after each.
const LOOK_ROUNDS: u64 = 10;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_outlives_any_crash_and_nothing_runs_twice() {
    let home = Home::new("");
    let (client, file) = (home.client(), home.path().join("ran.txt"));
    let (mut random, mut book) = (Random(seed()), Book::default());
    let caller =
        |number| Caller::new(format!("caller-{number}"), Random(seed() + number), file.clone());
    let mut callers: Vec<Caller> = (1..=CALLERS).map(caller).collect();
    for round in 0..ROUNDS {
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
        if round % LOOK_ROUNDS == LOOK_ROUNDS - 1 {
            check_now(&client, &book).await;
        }
        let mut shift = Shift::begin(callers, &[home.client()]);
        shift.go_on_for(random.millis(LIFE_MILLIS), &mut book).await;
        daemon.kill();
        callers = shift.end(&mut book).await;
    }
    let daemon = home.start();
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
