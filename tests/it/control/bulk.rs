//! Removing, pausing and resuming many jobs in one request.

use punctual::client::{Client, ClientError};
use serde_json::{Value, json};
use support::definitions::{by_hand, noop, with};
use support::{Home, text};

/// Adds jobs of these ids, with a tag.
async fn add_tagged(client: &Client, tag: &str, ids: impl Iterator<Item = String>) {
    let jobs: Vec<Value> =
        ids.map(|id| with(by_hand(&id, noop()), json!({"tags": [tag]}))).collect();
    client.add_all(&jobs).await.unwrap();
}

/// How many jobs are in this state.
async fn in_state(client: &Client, state: &str) -> u64 {
    client.status().await.unwrap()["jobs"][state].as_u64().unwrap_or(0)
}

fn counts(answer: &Value) -> [u64; 4] {
    ["matched", "changed", "unchanged", "refused"].map(|key| answer[key].as_u64().unwrap())
}

#[tokio::test]
async fn jobs_are_paused_resumed_and_removed_by_their_conditions() {
    let home = Home::new("");
    let _daemon = home.start();
    let client = home.client();
    add_tagged(&client, "x", (0..150).map(|number| format!("a:{number}"))).await;
    add_tagged(&client, "y", (0..30).map(|number| format!("b:{number}"))).await;
    let dry = client.pause_jobs("tag=x&dry_run=true").await.unwrap();
    assert_eq!((&dry["dry_run"], &dry["matched"]), (&json!(true), &json!(150)));
    assert_eq!((dry["ids"].as_array().unwrap().len(), &dry["ids"][0]), (150, &json!("a:0")));
    assert_eq!(in_state(&client, "paused").await, 0, "nothing has changed");
    let paused = client.pause_jobs("tag=x").await.unwrap();
    assert_eq!(counts(&paused), [150, 150, 0, 0], "{paused}");
    assert_eq!((&paused["errors"], &paused["next_cursor"]), (&json!([]), &Value::Null));
    let all = client.pause_jobs("all=true").await.unwrap();
    assert_eq!(counts(&all), [180, 30, 150, 0]);
    let resumed = client.resume_jobs("prefix=b:&state=paused,broken").await.unwrap();
    assert_eq!(counts(&resumed), [30, 30, 0, 0]);
    assert_eq!((in_state(&client, "paused").await, in_state(&client, "active").await), (150, 30));
    let removed = client.remove_jobs("state=paused&executor=default").await.unwrap();
    assert_eq!(counts(&removed), [150, 150, 0, 0]);
    let none = client.remove_jobs("state=paused&trigger_type=date").await.unwrap();
    assert_eq!(counts(&none), [0, 0, 0, 0]);
    assert_eq!(client.jobs("limit=1000").await.unwrap()["jobs"].as_array().unwrap().len(), 30);
    let log = home.log_with("remove-jobs");
    let line = log.lines().find(|line| line.contains("remove-jobs")).unwrap();
    assert!(
        line.contains("changed=150") && line.contains("state=paused executor=default"),
        "{line}"
    );
}

#[tokio::test]
async fn a_request_about_all_jobs_has_to_say_so() {
    let home = Home::new("");
    let _daemon = home.start();
    let client = home.client();
    add_tagged(&client, "x", (0..3).map(|number| number.to_string())).await;
    let cases = [
        ("", ""),
        ("all=false", ""),
        ("dry_run=true", ""),
        ("all=true&tag=x", "all"),
        ("prefix=", "prefix"),
        ("prefix=&state=active", "prefix"),
        ("tag=", "tag"),
        ("state=", "state"),
        ("state=running", "state"),
        ("trigger_type=", "trigger_type"),
        ("all=yes", "all"),
        ("tag=x&limit=1", "limit"),
        ("tag=x&cursor=0", "cursor"),
    ];
    for (query, name) in cases {
        for answer in [
            client.remove_jobs(query).await,
            client.pause_jobs(query).await,
            client.resume_jobs(query).await,
        ] {
            let ClientError::Refused { status, field, .. } = answer.unwrap_err() else {
                panic!("{query} was not refused");
            };
            assert!(matches!(status, 400 | 422), "{query}: {status}");
            assert_eq!(field.unwrap_or_default(), name, "{query}");
        }
    }
    assert_eq!(in_state(&client, "active").await, 3);
}

#[tokio::test]
async fn jobs_of_the_file_are_not_removed_and_are_named() {
    let own = |id: &str| {
        format!(
            "[[jobs]]\nid = \"{id}\"\ntags = [\"x\"]\ntrigger = {{type = \"interval\", hours = 1}}\n\
             task = {{type = \"builtin\", name = \"noop\"}}\n"
        )
    };
    let home = Home::new(&(own("own-1") + &own("own-2")));
    let _daemon = home.start();
    let client = home.client();
    add_tagged(&client, "x", ["other".to_owned()].into_iter()).await;
    let removed = client.remove_jobs("tag=x").await.unwrap();
    assert_eq!(counts(&removed), [3, 1, 0, 2]);
    let errors = removed["errors"].as_array().unwrap();
    assert_eq!(
        errors.iter().map(|error| text(error, "id")).collect::<Vec<_>>(),
        ["own-1", "own-2"]
    );
    assert!(errors.iter().all(|error| error["error"]["code"] == "declared_in_file"), "{removed}");
    // They can be paused, as by their ids.
    assert_eq!(counts(&client.pause_jobs("tag=x").await.unwrap()), [2, 2, 0, 0]);
}

#[tokio::test]
async fn what_cannot_fire_anyway_needs_no_pause_and_what_is_broken_is_named() {
    let home = Home::new("[[jobs]]\nid = \"faulty\"\n");
    let _daemon = home.start();
    let client = home.client();
    let mut signal = home.signal("ran");
    let past = support::definitions::once("over", "2020-01-01", signal.shell("ran"));
    client.add(&past).await.unwrap();
    signal.next().await;
    add_tagged(&client, "x", ["there".to_owned()].into_iter()).await;
    let paused = client.pause_jobs("all=true").await.unwrap();
    assert_eq!(counts(&paused), [3, 1, 1, 1], "{paused}");
    assert_eq!(text(&paused["errors"][0], "id"), "faulty");
    let resumed = client.resume_jobs("all=true").await.unwrap();
    assert_eq!(counts(&resumed), [3, 1, 1, 1]);
}
