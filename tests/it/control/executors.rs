//! The executors and what they run.

use serde_json::{Value, json};
use support::definitions::{builtin, by_hand};
use support::{Home, text};

fn executor<'a>(answer: &'a Value, name: &str) -> &'a Value {
    let executors = answer["executors"].as_array().unwrap();
    executors.iter().find(|executor| executor["name"] == name).unwrap()
}

#[tokio::test]
async fn executors_are_shown_with_their_workers_and_what_they_run() {
    let home = Home::new("[executors.small]\ntype = \"threadpool\"\nmax_workers = 1\n");
    let _daemon = home.start();
    let client = home.client();
    let idle = client.executors().await.unwrap();
    let small = executor(&idle, "small");
    assert_eq!((&small["type"], &small["max_workers"]), (&json!("threadpool"), &json!(1)));
    assert_eq!(
        (&small["busy"], &small["running"], &small["nodes"]),
        (&json!(0), &json!([]), &json!([]))
    );
    assert_eq!(executor(&idle, "processpool")["type"], "processpool");
    let sleep = builtin("sleep", json!({"seconds": 600}));
    for id in ["one", "two"] {
        let mut job = by_hand(id, sleep.clone());
        job["executor"] = "small".into();
        client.add(&job).await.unwrap();
        client.run(id).await.unwrap();
    }
    let busy = client.executors().await.unwrap();
    let small = executor(&busy, "small");
    assert_eq!((&small["busy"], &small["waiting"]), (&json!(1), &json!(1)), "{busy}");
    let running = small["running"].as_array().unwrap();
    assert_eq!((running.len(), text(&running[0], "job_id")), (1, "one"), "{busy}");
    let status = client.status().await.unwrap();
    let node = json!([{"name": status["node"], "running": 1, "waiting": 1, "here": true}]);
    assert_eq!(small["nodes"], node);
    assert_eq!((&busy["draining"], &busy["more_running"]), (&json!(false), &json!(false)));
    let shown = home.ok(&["executors"]);
    let id = text(&running[0], "id");
    assert!(shown.contains("small        threadpool   1     1        1"), "{shown}");
    assert!(shown.lines().any(|line| line.contains(id) && line.contains("one")), "{shown}");
    home.ok(&["cancel", id]);
}
