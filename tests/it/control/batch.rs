//! Many jobs in one request, through the real socket.

use punctual::client::ClientError;
use serde_json::{Value, json};
use support::definitions::{NEVER, by_hand, noop, once};
use support::{Home, Signal, text};

const PAST: &str = "2020-01-01 00:00:00";

/// What a batch said of a job: id, status, and the code and field of its error.
type Told<'a> = (Option<&'a str>, &'a str, Option<&'a str>, Option<&'a str>);

/// What it said of each, in order.
fn told(answer: &Value) -> Vec<Told<'_>> {
    let results = answer["results"].as_array().unwrap();
    let told = results.iter().map(|result| {
        let error = |key: &str| result["error"][key].as_str();
        (result["id"].as_str(), text(result, "status"), error("code"), error("field"))
    });
    told.collect()
}

/// A one-shot that gives a signal.
fn signalling(id: &str, at: &str, signal: &Signal) -> Value {
    once(id, at, signal.shell(id))
}

#[tokio::test]
async fn valid_jobs_of_a_batch_are_added_and_the_others_are_named_in_order() {
    let home = Home::new("");
    let daemon = home.start();
    let client = home.client();
    client.add(&by_hand("there", noop())).await.unwrap();
    let mut signal = home.signal("ran");
    let mut replacing = signalling("there", PAST, &signal);
    replacing["replace_existing"] = true.into();
    let batch = [
        signalling("new", PAST, &signal),
        once("there", PAST, noop()),
        json!({"id": "bad", "trigger": {"type": "date", "run_date": "someday"}, "task": {}}),
        json!("no job at all"),
        by_hand("twice", noop()),
        by_hand("twice", noop()),
        replacing,
        json!({"trigger": {"type": "date", "run_date": NEVER}, "task": {"type": "builtin", "name": "nope"}}),
    ];
    let answer = client.add_all(&batch).await.unwrap();
    let expected = [
        (Some("new"), "added", None, None),
        (Some("there"), "error", Some("exists"), Some("id")),
        (None, "error", Some("invalid"), Some("trigger.run_date")),
        (None, "error", Some("invalid"), None),
        (Some("twice"), "added", None, None),
        (Some("twice"), "error", Some("exists"), Some("id")),
        (Some("there"), "replaced", None, None),
        (None, "error", Some("invalid"), Some("task.name")),
    ];
    assert_eq!(told(&answer), expected);
    let mut ran = [signal.next().await, signal.next().await];
    ran.sort();
    assert_eq!(ran, ["new", "there"], "they were due");
    daemon.kill();
    let daemon = home.start();
    assert_eq!(text(&client.job("twice").await.unwrap(), "state"), "active", "it is kept");
    assert!(daemon.stop().success());
}

#[tokio::test]
async fn a_batch_that_is_none_or_too_large_changes_nothing() {
    let home = Home::new("");
    let daemon = home.start();
    let client = home.client();
    assert_eq!(told(&client.add_all(&[]).await.unwrap()), []);
    let many: Vec<Value> = (0..10_001).map(|number| by_hand(&number.to_string(), noop())).collect();
    let ClientError::Refused { status, field, .. } = client.add_all(&many).await.unwrap_err()
    else {
        panic!("a batch of 10,001 jobs was taken");
    };
    assert_eq!((status, field.as_deref()), (422, Some("jobs")));
    let huge = json!({"id": "huge", "description": "x".repeat(17 * 1024 * 1024)});
    let ClientError::Refused { status, .. } = client.add_all(&[huge]).await.unwrap_err() else {
        panic!("a batch of 17 MB was taken");
    };
    assert_eq!(status, 413);
    assert_eq!(client.jobs("").await.unwrap()["jobs"], json!([]));
    assert!(daemon.stop().success());
}
