//! Runs that are cancelled, retried and reported by hooks, with a real daemon.

use serde_json::{Value, json};
use support::definitions::{by_hand, shell, with};
use support::{Home, ended, ledger, run_to_end, text};

/// A job that is run by hand, with these keys.
fn given(id: &str, keys: Value) -> Value {
    with(by_hand(id, Value::Null), keys)
}

#[tokio::test]
async fn whatever_takes_too_long_is_ended_and_timed_out_in_each_pool() {
    let home = Home::new("");
    let _daemon = home.start();
    let client = home.client();
    let sleep = json!({"type": "builtin", "name": "sleep", "args": {"seconds": 600}});
    let cases = [
        ("command", "processpool", shell("echo begun; exec sleep 600")),
        ("thread", "default", sleep.clone()),
        ("worker", "processpool", sleep),
    ];
    for (id, executor, task) in cases {
        let keys = json!({"task": task, "executor": executor, "timeout": 0.3});
        client.add(&given(id, keys)).await.unwrap();
        let run = run_to_end(&client, id).await;
        let (state, error) = (text(&run, "state"), text(&run, "error"));
        assert_eq!((state, error), ("timed_out", "it did not end within 300ms"), "{id}: {run}");
        assert!(run["wall_time"].as_f64().unwrap() >= 0.3, "{run}");
    }
    let page = client.runs("state=timed_out").await.unwrap();
    assert_eq!(page["runs"].as_array().unwrap().len(), 3);
    assert!(home.ok(&["runs", "--state", "timed_out"]).contains("timed_out"));
}

#[tokio::test]
async fn a_command_that_fails_is_tried_again_also_after_a_crash_and_every_attempt_can_be_seen() {
    let home = Home::new("[executors.processpool]\ntype = \"processpool\"\nmax_workers = 1\n");
    let daemon = home.start();
    let (mut signal, gate) = (home.signal("tried"), home.signal("gate"));
    let client = home.client();
    let script = format!(
        "echo attempt $PUNCTUAL_ATTEMPT; echo $PUNCTUAL_ATTEMPT > {}; \
         test $PUNCTUAL_ATTEMPT != 2 || read line < {}; exit $((3 - PUNCTUAL_ATTEMPT))",
        signal.path.display(),
        gate.path.display()
    );
    let retry = json!({"max_attempts": 5, "delay": 0.5, "backoff": 2, "jitter": 0});
    let job = given("flaky", json!({"task": shell(&script), "retry": retry}));
    client.add(&job).await.unwrap();
    let run = client.run("flaky").await.unwrap();
    let id = text(&run, "id");
    assert_eq!(signal.next().await, "1");
    assert_eq!(signal.next().await, "2");
    // From the end of the second attempt on this one has the only worker, so that the third does not begin before the crash.
    let blocker = format!("echo blocked > {}; sleep 600", signal.path.display());
    let blocker = given("blocker", json!({"task": shell(&blocker), "on_crash": "lose"}));
    client.add(&blocker).await.unwrap();
    client.run("blocker").await.unwrap();
    std::fs::write(&gate.path, "go\n").unwrap();
    assert_eq!(signal.next().await, "blocked");
    // The end of the second attempt is in the ledger when the run waits for its third.
    let mut steps = client.run_by_id(id).await.unwrap();
    while steps["attempt"] != 3 {
        steps = client.run_by_id(id).await.unwrap();
    }
    daemon.kill();
    let _daemon = home.start();
    assert_eq!(signal.next().await, "3");
    let run = ended(&client, id).await;
    assert_eq!((text(&run, "state"), &run["attempt"]), ("succeeded", &json!(3)), "{run}");
    let attempts = run["attempts"].as_array().unwrap();
    let seen: Vec<_> = attempts.iter().map(|one| (text(one, "state"), &one["exit_code"])).collect();
    assert_eq!(seen, [("failed", &json!(2)), ("failed", &json!(1))]);
    for (attempt, at) in attempts.iter().zip(["started_at", "finished_at"]) {
        assert!(attempt[at].is_string(), "{attempt}");
    }
}

#[tokio::test]
async fn a_failure_that_cannot_pass_is_not_tried_again() {
    let home = Home::new("");
    let _daemon = home.start();
    let client = home.client();
    let task =
        json!({"type": "builtin", "name": "fail", "args": {"message": "no", "permanent": true}});
    let retry = json!({"max_attempts": 5, "delay": 0.1});
    client.add(&given("never", json!({"task": task, "retry": retry}))).await.unwrap();
    let run = run_to_end(&client, "never").await;
    assert_eq!((text(&run, "state"), &run["attempt"]), ("failed", &json!(1)));
    assert_eq!((text(&run, "reason"), &run["attempts"]), ("permanent", &json!([])));
}

#[tokio::test]
async fn a_run_is_cancelled_from_the_command_line_whether_it_runs_or_waits() {
    let home = Home::new("[executors.processpool]\ntype = \"processpool\"\nmax_workers = 1\n");
    let _daemon = home.start();
    let mut signal = home.signal("begun");
    let client = home.client();
    let script = format!(
        "trap 'echo bye; exit 0' TERM; echo on > {}; sleep 600 & wait",
        signal.path.display()
    );
    client.add(&given("long", json!({"task": shell(&script)}))).await.unwrap();
    client.add(&given("next", json!({"task": shell("true")}))).await.unwrap();
    let (long, next) = (client.run("long").await.unwrap(), client.run("next").await.unwrap());
    let (long, next) = (text(&long, "id"), text(&next, "id"));
    assert_eq!(signal.next().await, "on");
    let waiting = client.run_by_id(next).await.unwrap();
    assert_eq!(text(&waiting, "state"), "pending");
    let said = home.ok(&["cancel", next, long, "--reason", "wrong day"]);
    assert_eq!(said, format!("ended: {next}\nended: {long}\n"));
    for id in [next, long] {
        let run = client.run_by_id(id).await.unwrap();
        assert_eq!((text(&run, "state"), text(&run, "error")), ("cancelled", "wrong day"));
    }
    assert!(text(&client.output(long).await.unwrap(), "output").contains("bye"));
    let (code, complaint) = home.fails(&["cancel", long]);
    assert_eq!(code, 1);
    assert!(complaint.contains("has ended: it is cancelled"), "{complaint}");
    let (code, complaint) = home.fails(&["cancel", "no-such-run"]);
    assert_eq!(code, 1);
    assert!(complaint.contains("there is no run \"no-such-run\""), "{complaint}");
    let refused = client.cancel(next, Some(&"x".repeat(2000))).await.unwrap_err();
    assert!(refused.to_string().contains("reason"), "{refused}");
}

#[tokio::test]
async fn a_task_is_run_for_each_end_with_the_facts_of_the_run_per_job_or_for_all() {
    let home = Home::new(
        "[scheduler.job_defaults]\non_failure = { type = \"builtin\", name = \"noop\", args = { for = \"all\" } }\n",
    );
    let _daemon = home.start();
    let client = home.client();
    let task = |name: &str| json!({"type": "builtin", "name": name});
    let told = json!({"type": "builtin", "name": "noop", "args": {"for": "one"}});
    let jobs = [
        given("default", json!({"task": task("fail")})),
        given("own", json!({"task": task("fail"), "on_failure": told})),
        given("none", json!({"task": task("fail"), "on_failure": null})),
        given("good", json!({"task": task("noop"), "on_success": told})),
    ];
    for job in &jobs {
        client.add(job).await.unwrap();
    }
    for (id, cause, whose) in [
        ("default", "on_failure", Some("all")),
        ("own", "on_failure", Some("one")),
        ("good", "on_success", Some("one")),
        ("none", "", None),
    ] {
        let run = run_to_end(&client, id).await;
        let rows = ledger(&client, id).await;
        let hook_run = rows.iter().find(|row| row["subject"] == run["id"]);
        let Some(whose) = whose else {
            assert_eq!(hook_run, None);
            continue;
        };
        // It is in the ledger as soon as the end of the run is.
        let hook_run = ended(&client, text(hook_run.unwrap(), "id")).await;
        assert_eq!((text(&hook_run, "cause"), text(&hook_run, "state")), (cause, "succeeded"));
        assert_eq!(hook_run["result"]["for"], whose);
        assert!(home.ok(&["runs", id]).contains(&format!(" {cause}")));
        let shown = home.ok(&["runs", text(&hook_run, "id")]);
        assert!(shown.contains(cause) && shown.contains(text(&run, "id")), "{shown}");
    }
    let bad = given("bad", json!({"task": task("noop"), "on_missed": task("no-such-builtin")}));
    let refused = client.add(&bad).await.unwrap_err().to_string();
    assert!(refused.contains("on_missed.name: unknown builtin"), "{refused}");
}

#[tokio::test]
async fn a_reload_changes_the_sizes_of_pools_and_adds_some_while_work_goes_on() {
    let pools = |threads: u32, more: &str| {
        format!("[executors.default]\ntype = \"threadpool\"\nmax_workers = {threads}\n{more}")
    };
    let home = Home::new(&pools(1, ""));
    let _daemon = home.start();
    let client = home.client();
    let sleep = json!({"type": "builtin", "name": "sleep", "args": {"seconds": 600}});
    client.add(&given("a", json!({"task": sleep, "max_instances": 3}))).await.unwrap();
    let mut runs = Vec::new();
    for _ in 0..3 {
        runs.push(client.run("a").await.unwrap());
    }
    let busy = async || {
        let status = client.status().await.unwrap();
        let pools = status["executors"].as_array().unwrap().clone();
        let of = |name: &str| pools.iter().find(|pool| pool["name"] == name).cloned();
        (of("default").unwrap()["busy"].clone(), of("more"))
    };
    assert_eq!(busy().await, (json!(1), None));
    home.write_config(&pools(3, "[executors.more]\ntype = \"threadpool\"\nmax_workers = 2\n"));
    assert_eq!(client.reload().await.unwrap()["restart_needed"], json!([]));
    let (now_busy, more) = busy().await;
    assert_eq!((now_busy, &more.unwrap()["max_workers"]), (json!(3), &json!(2)));
    let moved = json!({"task": {"type": "builtin", "name": "noop"}, "executor": "more"});
    client.add(&given("b", moved)).await.unwrap();
    assert_eq!(text(&run_to_end(&client, "b").await, "state"), "succeeded");
    home.write_config(&pools(1, "[executors.more]\ntype = \"processpool\"\nmax_workers = 2\n"));
    assert_eq!(client.reload().await.unwrap()["restart_needed"], json!(["executors"]));
    for run in &runs {
        client.cancel(text(run, "id"), None).await.unwrap();
        assert_eq!(text(&ended(&client, text(run, "id")).await, "state"), "cancelled");
    }
}
