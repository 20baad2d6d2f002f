//! The daemon as a real process, through its real socket.

use chrono::{TimeDelta, Timelike};
use punctual::client::ClientError;
use punctual::clock::{Clock, SystemClock, Timestamp};
use punctual::scheduler::request::{Addition, Existing, PendingRequest, Request};
use punctual::scheduler::{NodeIdentity, Scheduler};
use punctual::store::sql::SqlStore;
use rustix::process::Signal as Kill;
use serde_json::{Value, json};
use sqlx::Connection;
use support::definitions::{NEVER, noop, once};
use support::executor::{FakeExecutor, Forgetful};
use support::workers::{children_of, pid};
use support::{Home, ended, jobs, ledger, run_to_end, text};

fn refused(error: ClientError) -> (u16, String, Option<String>) {
    let ClientError::Refused { status, code, field, .. } = error else {
        panic!("not refused: {error}")
    };
    (status, code, field)
}

#[tokio::test]
async fn a_due_job_runs_and_its_run_is_in_the_ledger_with_its_output() {
    let home = Home::new("");
    let daemon = home.start();
    let mut signal = home.signal("ran");
    let client = home.client();
    let script = format!(
        "echo to-stdout; echo to-stderr >&2; echo $PUNCTUAL_RUN_ID > {}",
        signal.path.display()
    );
    let task = json!({"type": "command", "argv": ["/bin/sh", "-c", script]});
    let job = client.add(&once("hello", "2020-01-01 00:00:00", task)).await.unwrap();
    assert_eq!(text(&job, "executor"), "processpool");
    let run_id = signal.next().await;
    let run = ended(&client, &run_id).await;
    assert_eq!(
        (text(&run, "state"), run["exit_code"].as_i64(), run["attempt"].as_i64()),
        ("succeeded", Some(0), Some(1))
    );
    assert_eq!(text(&run, "scheduled_at"), "2020-01-01T00:00:00.000000Z");
    let output = client.output(&run_id).await.unwrap();
    // Of two streams that are written to at the same moment, either may be read first.
    let mut lines: Vec<_> = output["lines"].as_array().unwrap().iter().collect();
    lines.sort_by_key(|line| text(line, "stream"));
    let lines: Vec<_> =
        lines.iter().map(|line| (text(line, "stream"), text(line, "text"))).collect();
    assert_eq!(lines, [("stderr", "to-stderr"), ("stdout", "to-stdout")]);
    assert_eq!(text(&client.job("hello").await.unwrap(), "state"), "finished");
    assert!(daemon.stop().success());
}

#[tokio::test]
async fn builtins_run_in_both_kinds_of_pools() {
    let home = Home::new("");
    let _daemon = home.start();
    let client = home.client();
    for executor in ["default", "processpool"] {
        let job = |name: &str, args: Value| {
            let task = json!({"type": "builtin", "name": name, "args": args});
            let mut job = once(&format!("{name}-{executor}"), NEVER, task);
            job["executor"] = executor.into();
            job
        };
        client.add(&job("noop", json!({"a": [1, "x"]}))).await.unwrap();
        client.add(&job("fail", json!({"message": "as\nasked", "permanent": true}))).await.unwrap();
        let run = run_to_end(&client, &format!("noop-{executor}")).await;
        assert_eq!(
            (text(&run, "state"), &run["result"]),
            ("succeeded", &json!({"a": [1, "x"]})),
            "{executor}"
        );
        assert_eq!((text(&run, "cause"), &run["scheduled_at"]), ("manual", &Value::Null));
        let run = run_to_end(&client, &format!("fail-{executor}")).await;
        assert_eq!(
            (text(&run, "state"), text(&run, "error")),
            ("failed", "as\nasked"),
            "{executor}"
        );
        assert_eq!(text(&run, "reason"), "permanent");
    }
    assert_eq!(
        text(&client.job("noop-default").await.unwrap(), "state"),
        "active",
        "a manual run leaves the schedule alone"
    );
}

#[tokio::test]
async fn a_worker_process_that_is_killed_costs_its_run_and_nothing_else() {
    let home = Home::new("[executors.processpool]\ntype = \"processpool\"\nmax_workers = 1\n");
    let daemon = home.start();
    let client = home.client();
    let mut sleep =
        once("sleep", NEVER, json!({"type": "builtin", "name": "sleep", "args": {"seconds": 600}}));
    sleep["executor"] = "processpool".into();
    client.add(&sleep).await.unwrap();
    // The worker has answered once, so it is there; then it is killed while it is busy.
    let mut quick = once("quick", NEVER, noop());
    quick["executor"] = "processpool".into();
    client.add(&quick).await.unwrap();
    assert_eq!(text(&run_to_end(&client, "quick").await, "state"), "succeeded");
    let run = client.run("sleep").await.unwrap();
    // A worker that dies before it has read its call costs nothing: then the next one is killed.
    let mut run = client.run_by_id(text(&run, "id")).await.unwrap();
    while text(&run, "state") == "running" || text(&run, "state") == "pending" {
        for child in children_of(&daemon.pid().to_string()) {
            // It may have ended meanwhile.
            rustix::process::kill_process(pid(child), Kill::KILL).unwrap_or_default();
        }
        run = client.wait(text(&run, "id"), 1).await.unwrap();
    }
    assert_eq!(text(&run, "state"), "failed");
    assert_eq!(run["signal"], 9, "{run}");
    assert_eq!(
        text(&run_to_end(&client, "quick").await, "state"),
        "succeeded",
        "another worker takes its place"
    );
}

#[tokio::test]
async fn a_store_that_cannot_be_written_delays_and_says_so_until_it_can() {
    let home = Home::new("");
    let daemon = home.start();
    let client = home.client();
    client.ready().await.unwrap();
    client.add(&once("before", NEVER, noop())).await.unwrap();
    // Someone else holds the write lock for longer than a statement waits.
    let file = home.path().join("punctual.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&file);
    let mut other = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query("begin immediate").execute(&mut other).await.unwrap();
    for refusal in [client.add(&once("lost", NEVER, noop())).await, client.ready().await] {
        let refusal = refusal.unwrap_err();
        assert!(refusal.to_string().contains("the store is unavailable"), "{refusal}");
        assert_eq!(refused(refusal).0, 503);
    }
    assert!(text(&client.status().await.unwrap(), "store_error").contains("locked"));
    client.job("before").await.unwrap();
    sqlx::query("rollback").execute(&mut other).await.unwrap();
    client.add(&once("after", NEVER, noop())).await.unwrap();
    client.ready().await.unwrap();
    assert_eq!(client.status().await.unwrap()["store_error"], Value::Null);
    refused(client.job("lost").await.unwrap_err());
    drop(daemon);
}

#[tokio::test]
async fn a_daemon_that_says_that_it_is_ready_takes_requests() {
    for _ in 0..5 {
        let home = Home::new("");
        let _daemon = home.spawn(&[]);
        let client = home.client();
        while client.ready().await.is_err() {}
        client.add(&once("first", NEVER, noop())).await.unwrap();
    }
}

#[tokio::test]
async fn a_reading_that_fails_counts_against_readiness_until_it_succeeds() {
    let home = Home::new("");
    let _daemon = home.start();
    let client = home.client();
    let options =
        sqlx::sqlite::SqliteConnectOptions::new().filename(home.path().join("punctual.db"));
    let mut other = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    let status = client.status().await.unwrap();
    assert_eq!((&status["ready"], &status["not_ready"]), (&true.into(), &Value::Null));
    // Damage is found by the reader of the damaged row, and not by a look at something else.
    sqlx::query("alter table runs rename to lost").execute(&mut other).await.unwrap();
    client.ready().await.unwrap();
    assert_eq!(refused(client.runs("").await.unwrap_err()).0, 503);
    client.jobs("").await.unwrap();
    let refusal = client.ready().await.unwrap_err();
    assert!(refusal.to_string().contains("no such table: runs"), "{refusal}");
    assert_eq!(refused(refusal).0, 503);
    let status = client.status().await.unwrap();
    assert_eq!(status["ready"], false);
    assert_eq!(status["not_ready"]["reason"], "store_read");
    sqlx::query("alter table lost rename to runs").execute(&mut other).await.unwrap();
    client.ready().await.unwrap();
    assert_eq!(client.status().await.unwrap()["ready"], true);
}

#[tokio::test]
async fn a_trigger_of_every_type_previews_as_it_then_fires() {
    let home = Home::new("[scheduler]\ntimezone = \"Asia/Tokyo\"\n");
    let _daemon = home.start();
    let client = home.client();
    let every = json!({"type": "interval", "days": 1, "start_date": "2100-01-01 09:00:00"});
    let cron = json!({"type": "cron", "year": 2100, "hour": 9});
    let crontab = json!({"type": "crontab", "expression": "0 9 1 1 *", "start_date": "2100-01-01"});
    let calendar =
        json!({"type": "calendarinterval", "months": 1, "hour": 9, "start_date": "2100-01-01"});
    let triggers = [
        json!({"type": "date", "run_date": "2100-01-01 09:00:00"}),
        every.clone(),
        cron.clone(),
        crontab.clone(),
        calendar.clone(),
        json!({"type": "and", "triggers": [every.clone(), cron.clone(), crontab.clone()]}),
        json!({"type": "or", "triggers": [calendar, every, cron, crontab]}),
    ];
    for (number, trigger) in triggers.iter().enumerate() {
        let preview = client.preview(&json!({"trigger": trigger, "after": null, "count": 1})).await;
        assert_eq!(preview.unwrap(), json!({"times": ["2100-01-01T09:00:00+09:00"]}), "{trigger}");
        let id = format!("job-{number}");
        let job = json!({"id": id, "trigger": trigger, "task": noop()});
        client.add(&job).await.unwrap();
        let job = client.job(&id).await.unwrap();
        assert_eq!(text(&job, "next_run_time"), "2100-01-01T00:00:00.000000Z", "{trigger}");
    }
    let never = json!({"type": "cron", "month": 2, "day": 30});
    let answer = client.preview(&json!({"trigger": never})).await.unwrap();
    assert_eq!(answer, json!({"times": []}));
    let job = json!({"id": "x", "trigger": never, "task": noop()});
    let (status, _, field) = refused(client.add(&job).await.unwrap_err());
    assert_eq!((status, field.as_deref()), (422, Some("trigger")));
}

#[tokio::test]
async fn a_machine_whose_zone_has_no_name_stores_jobs_whose_meaning_does_not_change() {
    let rules = "CET-1CEST,M3.5.0,M10.5.0/3";
    let home = Home::new("");
    let daemon = home.start_in(&[("TZ", rules)]);
    let client = home.client();
    let job = json!({"id": "nightly", "trigger": {"type": "cron", "hour": 9}, "task": noop()});
    let added = client.add(&job).await.unwrap();
    assert_eq!(added["trigger"]["timezone"], rules);
    let status = client.status().await.unwrap();
    assert_eq!((text(&status, "timezone"), text(&status, "timezone_source")), (rules, "TZ"));
    assert!(daemon.stop().success());
    // The next daemon has another zone, and keeps the one of the job.
    let daemon = home.start_in(&[("TZ", "Asia/Tokyo")]);
    let kept = client.job("nightly").await.unwrap();
    assert_eq!((&kept["state"], &kept["trigger"]), (&json!("active"), &added["trigger"]));
    assert_eq!(kept["next_run_time"], added["next_run_time"]);
    assert!(home.ok(&["list"]).contains("nightly"));
    assert!(home.ok(&["status"]).contains("Asia/Tokyo (from TZ; "));
    let explained = client.explain("nightly", "").await.unwrap();
    assert!(explained["explanation"].is_array(), "{explained}");
    assert!(daemon.stop().success());
}

#[tokio::test]
async fn bad_input_is_one_clear_error_and_the_daemon_goes_on() {
    let home = Home::new("");
    let _daemon = home.start();
    let client = home.client();
    client.add(&once("taken", NEVER, noop())).await.unwrap();
    let date = json!({"type": "date", "run_date": NEVER});
    let cases = [
        (once("taken", NEVER, noop()), 409, Some("id")),
        (
            json!({"id": "x", "trigger": date, "task": noop(), "executor": "nope"}),
            422,
            Some("executor"),
        ),
        (
            json!({"id": "x", "trigger": {"type": "cron", "hour": 25}, "task": noop()}),
            422,
            Some("trigger.hour"),
        ),
        (json!({"id": "x", "trigger": {"type": "cron"}, "task": noop()}), 422, Some("trigger")),
        (
            json!({"id": "x", "trigger": {"type": "moon"}, "task": noop()}),
            422,
            Some("trigger.type"),
        ),
        (
            json!({"id": "x", "trigger": date, "task": {"type": "builtin", "name": "nope"}}),
            422,
            Some("task.name"),
        ),
        (
            json!({"id": "x", "trigger": date, "task": {"type": "builtin", "name": "sleep"}}),
            422,
            Some("task.args"),
        ),
        (json!({"id": "x", "trigger": date, "task": noop(), "hour": 3}), 422, Some("hour")),
        (json!({"id": "", "trigger": date, "task": noop()}), 422, Some("id")),
        (json!({"id": "x".repeat(256), "trigger": date, "task": noop()}), 422, Some("id")),
        (json!({"id": "a\nb", "trigger": date, "task": noop()}), 422, Some("id")),
        (
            json!({"id": "x", "trigger": date, "task": {"type": "command", "argv": ["true"]}, "executor": "default"}),
            422,
            Some("executor"),
        ),
        (json!([]), 422, None),
        (json!("x".repeat(10_000_000)), 413, None),
    ];
    for (body, status, field) in cases {
        let (got, _, at) = refused(client.add(&body).await.unwrap_err());
        let shown: String = body.to_string().chars().take(200).collect();
        assert_eq!((got, at.as_deref()), (status, field), "{shown}");
    }
    let (status, ..) = refused(client.job("nope").await.unwrap_err());
    assert_eq!(status, 404);
    let (status, ..) = refused(client.jobs("state=nope").await.unwrap_err());
    assert_eq!(status, 422);
    let (status, ..) = refused(client.jobs("colour=red").await.unwrap_err());
    assert_eq!(status, 400);
    assert_eq!(
        client.jobs("").await.unwrap()["jobs"].as_array().unwrap().len(),
        1,
        "nothing was changed"
    );
}

#[tokio::test]
async fn an_invalid_id_is_not_found_on_every_database() {
    let home = Home::new("");
    let _daemon = home.start();
    let client = home.client();
    for id in ["\0", "a\nb", &"x".repeat(256)] {
        for answer in [
            client.job(id).await,
            client.remove(id).await,
            client.run_by_id(id).await,
            client.cancel(id, None).await,
        ] {
            assert_eq!(refused(answer.unwrap_err()).0, 404, "{id:?}");
        }
    }
    for (query, field) in [("prefix=%00", "prefix"), ("cursor=a%00", "cursor"), ("tag=%1b", "tag")]
    {
        let (status, _, said) = refused(client.jobs(query).await.unwrap_err());
        assert_eq!((status, said.as_deref()), (422, Some(field)));
    }
    let (status, _, said) = refused(client.runs("job=%00").await.unwrap_err());
    assert_eq!((status, said.as_deref()), (422, Some("job")));
    let run_id = "01980000-0000-7000-8000-000000000000";
    let (status, _, said) = refused(client.cancel(run_id, Some("a\0b")).await.unwrap_err());
    assert_eq!((status, said.as_deref()), (422, Some("reason")));
    client.ready().await.unwrap();
}

#[tokio::test]
async fn half_a_request_is_an_error_for_its_sender_only() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let home = Home::new("");
    let _daemon = home.start();
    let halves: [(&str, &str); 4] = [
        ("POST /v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{\"id\": \"x", "400"),
        ("POST /v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{\"id\"", ""),
        ("POST /v1/jo", ""),
        ("\u{0}\u{1}garbage\r\n\r\n", "400"),
    ];
    for (half, answer) in halves {
        let mut stream = tokio::net::UnixStream::connect(home.socket()).await.unwrap();
        stream.write_all(half.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut bytes = Vec::new();
        // A reset is as good an end as any.
        drop(
            tokio::time::timeout(support::PATIENCE, stream.read_to_end(&mut bytes))
                .await
                .expect("it was closed"),
        );
        assert!(String::from_utf8_lossy(&bytes).contains(answer), "{half:?}");
    }
    assert_eq!(text(&home.client().status().await.unwrap(), "state"), "running");
}

#[tokio::test]
async fn a_run_date_in_the_past_runs_at_once_or_is_missed_as_its_grace_time_says() {
    let home = Home::new("");
    let _daemon = home.start();
    let mut signal = home.signal("ran");
    let client = home.client();
    let mut strict = once("strict", "2020-01-01 00:00:00", signal.shell("strict"));
    strict["misfire_grace_time"] = 60.into();
    client.add(&strict).await.unwrap();
    client.add(&once("late", "2020-01-01 00:00:00", signal.shell("late"))).await.unwrap();
    assert_eq!(signal.next().await, "late");
    let rows = ledger(&client, "strict").await;
    assert_eq!(rows.len(), 1);
    assert_eq!((text(&rows[0], "state"), text(&rows[0], "reason")), ("skipped", "missed"));
}

#[tokio::test]
async fn a_paused_job_does_not_fire_and_the_pause_is_accounted_for() {
    let home = Home::new("");
    let _daemon = home.start();
    let mut signal = home.signal("ran");
    let client = home.client();
    let every = json!({"type": "interval", "seconds": 0.05});
    let job = json!({"id": "tick", "trigger": every, "task": signal.shell("tick"), "max_instances": 3, "paused": true});
    assert_eq!(client.add(&job).await.unwrap()["next_run_time"], Value::Null);
    assert!(ledger(&client, "tick").await.is_empty());
    // The other job's signal shows that time has passed.
    let other =
        json!({"id": "other", "trigger": every, "task": signal.shell("other"), "max_runs": 3});
    client.add(&other).await.unwrap();
    for _ in 0..3 {
        assert_eq!(signal.next().await, "other");
    }
    assert!(ledger(&client, "tick").await.is_empty());
    assert_eq!(text(&client.resume("tick").await.unwrap(), "state"), "active");
    assert_eq!(signal.next().await, "tick");
    client.pause("tick").await.unwrap();
    let rows = ledger(&client, "tick").await;
    let pauses: Vec<&Value> = rows.iter().filter(|row| row["reason"] == "paused").collect();
    assert_eq!(pauses.len(), 1, "one row for the whole pause");
    assert!(pauses[0]["count"].as_u64().unwrap() >= 3, "{}", pauses[0]);
}

#[tokio::test]
async fn an_occurrence_while_max_instances_are_running_is_recorded_as_overlap() {
    let home = Home::new("");
    let _daemon = home.start();
    let mut signal = home.signal("ran");
    let gate = home.signal("gate");
    let client = home.client();
    let script =
        format!("echo started > {}; read line < {}", signal.path.display(), gate.path.display());
    let task = json!({"type": "command", "argv": ["/bin/sh", "-c", script]});
    let job = json!({"id": "slow", "trigger": {"type": "interval", "seconds": 0.05}, "task": task});
    client.add(&job).await.unwrap();
    assert_eq!(signal.next().await, "started");
    let (status, code, _) = refused(client.run("slow").await.unwrap_err());
    assert_eq!((status, code.as_str()), (409, "max_instances"));
    let other = json!({"id": "other", "trigger": {"type": "interval", "seconds": 0.05}, "task": signal.shell("other"), "max_runs": 3});
    client.add(&other).await.unwrap();
    for _ in 0..3 {
        assert_eq!(signal.next().await, "other");
    }
    client.pause("slow").await.unwrap();
    let rows = ledger(&client, "slow").await;
    assert!(rows.iter().any(|row| row["reason"] == "overlap"), "{rows:?}");
    assert_eq!(rows.iter().filter(|row| row["state"] == "running").count(), 1);
    std::fs::write(&gate.path, "go\n").unwrap();
    let running = rows.iter().find(|row| row["state"] == "running").unwrap();
    assert_eq!(text(&ended(&client, text(running, "id")).await, "state"), "succeeded");
}

#[tokio::test]
async fn a_stop_lets_running_work_end_and_records_it() {
    let home = Home::new("");
    let mut daemon = home.start();
    let mut signal = home.signal("ran");
    let gate = home.signal("gate");
    let client = home.client();
    let script = format!(
        "echo $PUNCTUAL_RUN_ID > {}; read line < {}",
        signal.path.display(),
        gate.path.display()
    );
    client
        .add(&once(
            "slow",
            "2020-01-01 00:00:00",
            json!({"type": "command", "argv": ["/bin/sh", "-c", script]}),
        ))
        .await
        .unwrap();
    let run_id = signal.next().await;
    daemon.signal(Kill::TERM);
    daemon.wait_for("STOPPING=1");
    std::fs::write(&gate.path, "go\n").unwrap();
    assert!(daemon.ended().success());
    let _daemon = home.start();
    let run = client.run_by_id(&run_id).await.unwrap();
    assert_eq!((text(&run, "state"), run["attempt"].as_i64()), ("succeeded", Some(1)));
}

#[tokio::test]
async fn a_stop_ends_what_does_not_end_in_time_and_the_next_start_runs_it_again() {
    let home = Home::new("[scheduler]\ndrain_seconds = 0\n");
    let daemon = home.start();
    let mut signal = home.signal("ran");
    let client = home.client();
    let script = format!(
        "echo $PUNCTUAL_RUN_ID $PUNCTUAL_ATTEMPT > {}; test $PUNCTUAL_ATTEMPT = 2 || exec sleep 600",
        signal.path.display()
    );
    let task = json!({"type": "command", "argv": ["/bin/sh", "-c", script]});
    client.add(&once("again", "2020-01-01 00:00:00", task.clone())).await.unwrap();
    let first = signal.next().await;
    let mut at_most_once = once("lose", "2020-01-01 00:00:00", task);
    at_most_once["on_crash"] = "lose".into();
    client.add(&at_most_once).await.unwrap();
    let second = signal.next().await;
    assert!(daemon.stop().success(), "an interrupted run is no failure of the daemon");
    let _daemon = home.start();
    let run_id = first.split(' ').next().unwrap();
    assert_eq!(signal.next().await, format!("{run_id} 2"), "the same run, as its next attempt");
    assert_eq!(text(&ended(&client, run_id).await, "state"), "succeeded");
    let lost = client.run_by_id(second.split(' ').next().unwrap()).await.unwrap();
    assert_eq!(text(&lost, "state"), "lost");
}

#[tokio::test]
async fn a_job_that_kills_its_daemon_is_lost_after_three_deaths_and_what_died_with_it_is_not() {
    let home = Home::new("");
    let mut signal = home.signal("begun");
    let gate = home.signal("gate").path;
    let client = home.client();
    let script = format!(
        "echo $PUNCTUAL_JOB_ID $PUNCTUAL_ATTEMPT > {}; read line < {}",
        signal.path.display(),
        gate.display()
    );
    let shell = |script: &str| json!({"type": "command", "argv": ["/bin/sh", "-c", script]});
    let daemon = home.start();
    for (id, script) in
        [("one", script.as_str()), ("two", &script), ("poison", "kill -9 $PPID; sleep 60")]
    {
        client.add(&once(id, NEVER, shell(script))).await.unwrap();
        // The last one may be faster than its answer.
        drop(client.run(id).await);
        if id != "poison" {
            assert_eq!(signal.next().await, format!("{id} 1"));
        }
    }
    assert_eq!(daemon.ended().code(), None);
    assert_eq!(home.spawn(&[]).ended().code(), None, "all of them are run again");
    let daemon = home.spawn(&[]);
    for id in ["one", "two"] {
        let begun = format!("{id} 3");
        while signal.next().await != begun {}
        // The others wait for its end.
        let counts = client.runs("state=running").await.unwrap();
        assert_eq!(counts["runs"].as_array().unwrap().len(), 1, "{counts}");
        std::fs::write(&gate, "go\n").unwrap();
    }
    assert_eq!(daemon.ended().code(), None);
    let daemon = home.start();
    for (id, state) in [("one", "succeeded"), ("two", "succeeded"), ("poison", "lost")] {
        let rows = ledger(&client, id).await;
        assert_eq!(rows.len(), 1);
        assert_eq!((text(&rows[0], "state"), &rows[0]["attempt"]), (state, &3.into()), "{id}");
        if id == "poison" {
            assert_eq!(text(&rows[0], "error"), "the daemon died 3 times while it ran");
        }
    }
    assert!(daemon.stop().success());
}

#[tokio::test]
async fn a_second_daemon_on_the_same_store_refuses_to_start_and_names_the_first() {
    let home = Home::new("");
    let daemon = home.start();
    let (code, complaint) = home.fails(&["serve"]);
    assert_eq!(code, 1);
    assert!(
        complaint.contains(&format!("process {}", daemon.pid().as_raw_nonzero())),
        "{complaint}"
    );
    assert_eq!(text(&home.client().status().await.unwrap(), "state"), "running");
}

/// A file with a job of this id and shell script.
fn declaring(id: &str, script: &str) -> String {
    format!(
        "[[jobs]]\nid = \"{id}\"\ntrigger = {{ type = \"date\", run_date = \"{NEVER}\" }}\n\
         task = {{ type = \"command\", shell = \"\"\"\n{script}\"\"\" }}\n"
    )
}

#[tokio::test]
async fn a_script_in_a_file_with_crlf_runs_as_intended() {
    let script = "if true; then\n  echo yes\nfi\nprintf 'a\\\\r\\\\n' | wc -c\n";
    let home = Home::new(&declaring("script", script).replace('\n', "\r\n"));
    let (_daemon, client) = (home.start(), home.client());
    let run = run_to_end(&client, "script").await;
    assert_eq!(run["state"], "succeeded", "{run}");
    assert_eq!(home.ok(&["logs", "script"]), "yes\n3\n");
    let task = json!({"type": "command", "shell": "cd /tmp\r\nls\r\n"});
    let refused = refused(client.add(&once("typed", NEVER, task)).await.unwrap_err());
    assert_eq!((refused.0, refused.2.as_deref()), (422, Some("task.shell")), "{refused:?}");
}

#[tokio::test]
async fn an_empty_file_removes_the_declared_jobs_only_on_explicit_request() {
    let home = Home::new(&declaring("kept", "true\n"));
    let (daemon, client) = (home.start(), home.client());
    home.write_config("");
    let (code, said) = home.fails(&["reload"]);
    assert!(code == 1 && said.contains("--force"), "{said}");
    assert!(client.job("kept").await.is_ok());
    assert!(daemon.stop().success());
    let daemon = home.start();
    assert!(client.job("kept").await.is_ok(), "a start keeps it too");
    home.log_with("WARN the file declares no jobs any more");
    assert_eq!(home.fails(&["reload"]).0, 1);
    let done = home.json(&["reload", "--force"]);
    assert_eq!(done["removed"], json!(["kept"]), "{done}");
    assert!(client.job("kept").await.unwrap_err().is_not_found());
    home.ok(&["reload"]);
    assert!(daemon.stop().success());
}

#[tokio::test]
async fn a_file_that_is_a_pipe_at_a_reload_is_refused_and_the_daemon_can_be_stopped() {
    let home = Home::new(&declaring("kept", "true\n"));
    let (daemon, client) = (home.start(), home.client());
    std::fs::remove_file(home.path().join("jobs.toml")).unwrap();
    let _pipe = home.signal("jobs.toml");
    let (code, said) = home.fails(&["reload"]);
    assert!(
        code == 1 && said.contains("jobs.toml") && said.contains("not a regular file"),
        "{said}"
    );
    assert!(client.job("kept").await.is_ok());
    assert!(daemon.stop().success());
}

/// A daemon that has just begun to declare the jobs of its file, which takes it a while.
async fn declaring_many(home: &Home) -> support::Daemon {
    let jobs: String =
        (0..10_000).map(|number| declaring(&format!("job-{number}"), "true\n")).collect();
    home.write_config(&jobs);
    let daemon = home.spawn(&[]);
    let is_declaring = async || {
        let status = home.client().status().await.ok()?;
        let message = status.pointer("/not_ready/message")?;
        Some(message.as_str()?.contains("being declared"))
    };
    while is_declaring().await != Some(true) {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    daemon
}

#[tokio::test]
async fn a_stop_while_jobs_are_declared_at_the_start_does_not_wait_for_them() {
    let home = Home::new("");
    assert!(declaring_many(&home).await.stop().success());
    let log = std::fs::read_to_string(home.log()).unwrap();
    assert!(log.contains("INFO stopped") && !log.contains("INFO ready"), "{log}");
}

#[tokio::test]
async fn a_reload_that_is_asked_for_during_the_start_follows_it() {
    let home = Home::new("");
    let mut daemon = declaring_many(&home).await;
    daemon.signal(Kill::HUP);
    home.write_config(&declaring("only", "true\n"));
    // A start that takes long says that it is ready before it is over.
    daemon.wait_for("RELOADING=1");
    daemon.wait_for("READY=1");
    let jobs = home.client().status().await.unwrap()["jobs"].clone();
    assert_eq!(jobs, json!({"active": 1}), "the file was read again");
    assert!(daemon.stop().success());
}

#[tokio::test]
async fn the_file_is_the_truth_for_its_jobs_over_starts_and_reloads() {
    let job = |id: &str, hour: u32| {
        format!(
            "[[jobs]]\nid = \"{id}\"\ntrigger = {{ type = \"cron\", hour = {hour} }}\ntask = {{ type = \"builtin\", name = \"noop\" }}\n"
        )
    };
    let home = Home::new(&(job("stays", 1) + &job("changes", 2) + &job("goes", 3)));
    let mut daemon = home.start();
    let client = home.client();
    client.add(&once("by-socket", NEVER, noop())).await.unwrap();
    client.pause("stays").await.unwrap();
    let (status, code, _) = refused(client.remove("stays").await.unwrap_err());
    assert_eq!((status, code.as_str()), (409, "declared_in_file"));

    home.write_config(&(job("stays", 1) + &job("changes", 4) + &job("comes", 5)));
    let checked = home.ok(&["check"]);
    assert!(
        checked.contains("added: comes")
            && checked.contains("changed: changes")
            && checked.contains("removed: goes"),
        "{checked}"
    );
    let answer = client.reload().await.unwrap();
    assert_eq!(
        answer,
        json!({"added": ["comes"], "changed": ["changes"], "removed": ["goes"], "unchanged": 1, "restart_needed": []})
    );
    let ids = |page: &Value| -> Vec<String> {
        page["jobs"].as_array().unwrap().iter().map(|job| text(job, "id").to_owned()).collect()
    };
    assert_eq!(ids(&client.jobs("").await.unwrap()), ["by-socket", "changes", "comes", "stays"]);
    assert_eq!(
        text(&client.job("stays").await.unwrap(), "state"),
        "paused",
        "an unchanged job keeps its pause"
    );

    home.write_config("[[jobs]]\nid = \"broken\"\ntrigger = { type = \"cron\", hour = 99 }\n");
    let (status, ..) = refused(client.reload().await.unwrap_err());
    assert_eq!(status, 422);
    // Those of the reloads before.
    daemon.told("");
    daemon.signal(Kill::HUP);
    daemon.wait_for("READY=1");
    assert_eq!(
        client.jobs("").await.unwrap()["jobs"].as_array().unwrap().len(),
        4,
        "a faulty file changes nothing"
    );
}

#[tokio::test]
async fn replacing_keeps_the_schedule_where_the_trigger_is_the_same() {
    let home = Home::new("");
    let _daemon = home.start();
    let client = home.client();
    let job = |seconds: u32, name: &str| json!({"id": "r", "name": name, "trigger": {"type": "interval", "seconds": seconds}, "task": noop(), "replace_existing": true});
    let first = client.add(&job(3600, "one")).await.unwrap();
    let second = client.add(&job(3600, "two")).await.unwrap();
    assert_eq!(first["next_run_time"], second["next_run_time"]);
    assert_eq!((text(&second, "name"), second["revision"].as_i64()), ("two", Some(2)));
    client.pause("r").await.unwrap();
    assert_eq!(text(&client.add(&job(3600, "three")).await.unwrap(), "state"), "paused");
    assert_eq!(
        text(&client.add(&job(1800, "four")).await.unwrap(), "state"),
        "active",
        "another trigger begins again"
    );
}

#[tokio::test]
async fn a_job_that_moves_to_the_file_in_another_spelling_keeps_its_schedule() {
    let home = Home::new("[scheduler]\ntimezone = \"Europe/Berlin\"");
    let daemon = home.start();
    home.ok(&[
        "add",
        "tick",
        "--every",
        "60m",
        "--tag",
        "a",
        "--tag",
        "b",
        "--builtin",
        "noop",
        "--arg",
        "n=1",
    ]);
    home.ok(&["add", "daily", "--cron", "hour=8 minute=0", "--builtin", "noop"]);
    let client = home.client();
    let before = client.job("tick").await.unwrap();
    home.write_config(
        "[scheduler]\ntimezone = \"Europe/Berlin\"\n\
        [[jobs]]\nid = \"tick\"\ntrigger = { type = \"interval\", hours = 1.0 }\ntags = [\"b\", \"a\"]\n\
        task = { type = \"builtin\", name = \"noop\", args = { n = 1.0 } }\n\
        [[jobs]]\nid = \"daily\"\ntrigger = { type = \"cron\", hour = 8 }\n\
        task = { type = \"builtin\", name = \"noop\" }\n",
    );
    let none = json!({"added": [], "changed": [], "removed": []});
    assert_eq!(home.json(&["check"])["changes"], none);
    let reloaded = client.reload().await.unwrap();
    assert_eq!((&reloaded["changed"], &reloaded["unchanged"]), (&json!([]), &json!(2)));
    let after = client.job("tick").await.unwrap();
    assert_eq!(after["next_run_time"], before["next_run_time"], "it keeps its phase");
    assert_eq!((&after["origin"], &after["created_at"]), (&json!("file"), &before["created_at"]));
    // What is shown is what the file says.
    assert_eq!(after["trigger"]["hours"], 1.0);
    let again = client.reload().await.unwrap();
    assert_eq!((&again["changed"], &again["unchanged"]), (&json!([]), &json!(2)));
    assert_eq!(client.job("tick").await.unwrap()["revision"], after["revision"]);
    // Over the socket as well.
    let hourly =
        json!({"id": "beat", "trigger": {"type": "interval", "minutes": 60}, "task": noop()});
    let beat = client.add(&hourly).await.unwrap();
    let mut other = hourly.clone();
    other["trigger"] = json!({"type": "interval", "hours": 1});
    other["replace_existing"] = true.into();
    assert_eq!(client.add(&other).await.unwrap()["next_run_time"], beat["next_run_time"]);
    assert!(daemon.stop().success());
}

#[tokio::test]
async fn a_run_that_is_replaced_is_ended_whatever_executes_it_and_the_newest_runs() {
    let home = Home::new("[scheduler]\ndrain_seconds = 0\n");
    let daemon = home.start();
    let client = home.client();
    let mut started = home.signal("started");
    let script = format!("echo $PUNCTUAL_RUN_ID > {}; sleep 600", started.path.display());
    let tasks = [
        ("processpool", json!({"type": "command", "argv": ["/bin/sh", "-c", script]})),
        ("processpool", json!({"type": "builtin", "name": "sleep", "args": {"seconds": 600}})),
        ("default", json!({"type": "builtin", "name": "sleep", "args": {"seconds": 600}})),
    ];
    for (number, (executor, task)) in tasks.into_iter().enumerate() {
        let id = format!("job-{number}");
        let mut job = once(&id, NEVER, task.clone());
        job["overlap"] = "replace".into();
        job["executor"] = executor.into();
        client.add(&job).await.unwrap();
        let first = client.run(&id).await.unwrap();
        if task["type"] == "command" {
            assert_eq!(started.next().await, text(&first, "id"));
        }
        let second = client.run(&id).await.unwrap();
        let replaced = ended(&client, text(&first, "id")).await;
        let reason = "replaced by a newer run of the job";
        assert_eq!((text(&replaced, "state"), text(&replaced, "error")), ("cancelled", reason));
        client.remove(&id).await.unwrap();
        if task["type"] == "command" {
            assert_eq!(started.next().await, text(&second, "id"), "the newest runs");
        }
    }
    assert!(daemon.stop().success());
}

/// Has jobs fire by a clock that is ahead, in a store that no daemon has open.
async fn live_ahead(home: &Home, now: Timestamp, ahead: Timestamp, given: &[Value]) {
    let store = SqlStore::open_file(&home.path().join("punctual.db")).await.unwrap();
    let lease = TimeDelta::seconds(10);
    let identity = NodeIdentity { node: "ahead".into(), started_at: ahead, seed: 7, lease };
    let mut scheduler =
        Scheduler::new(store.clone(), FakeExecutor(Forgetful), jobs::rules(9), identity);
    scheduler.recover(now, "it died").await.unwrap();
    let add = |given: &Value| {
        let job = Box::new(jobs::job_at(given, now));
        let request = Request::Add(Addition { job, existing: Existing::Refuse });
        PendingRequest::new(request, tokio::sync::oneshot::channel().0)
    };
    scheduler.tick(now, given.iter().map(add).collect(), Vec::new()).await.unwrap();
    scheduler.tick(ahead, Vec::new(), Vec::new()).await.unwrap();
    drop(scheduler);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_store_whose_clock_was_years_ahead_fires_again_at_once() {
    let home = Home::new("");
    let now = SystemClock.now();
    // It is due in an hour, and not before the test has ended.
    let due = now + TimeDelta::hours(1);
    let daily =
        json!({"type": "cron", "hour": due.hour(), "minute": due.minute(), "timezone": "UTC"});
    let given = [
        json!({"id": "tick", "trigger": {"type": "interval", "seconds": 1}, "on_crash": "lose"}),
        json!({"id": "daily", "trigger": daily, "on_crash": "lose"}),
        json!({"id": "once", "trigger": {"type": "date", "run_date": NEVER}}),
    ];
    live_ahead(&home, now - TimeDelta::hours(2), now + TimeDelta::days(4000), &given).await;
    let daemon = home.start();
    let client = home.client();
    let instant = |row: &Value, key: &str| text(row, key).parse::<Timestamp>().unwrap();
    let soon = |job: &Value| instant(job, "next_run_time") - now < TimeDelta::hours(2);
    assert!(soon(&client.job("daily").await.unwrap()));
    assert!(!soon(&client.job("once").await.unwrap()));
    // It is due in a second, and each run is waited for.
    let newest = async || {
        let rows = ledger(&client, "tick").await;
        let run = rows.iter().find(|row| !row["due_at"].is_null() && row["state"] != "skipped");
        run.map(|run| text(run, "id").to_owned())
    };
    let first = newest().await;
    let fired = async {
        let mut run = newest().await;
        while run == first {
            tokio::task::yield_now().await;
            run = newest().await;
        }
        ended(&client, &run.unwrap()).await
    };
    let run = tokio::time::timeout(support::PATIENCE, fired).await.unwrap();
    assert_eq!(text(&run, "state"), "succeeded");
    let rows = ledger(&client, "tick").await;
    assert!(rows.iter().any(|row| row["reason"] == "clock_set"), "{rows:?}");
    let place = |id: &str| rows.iter().position(|row| row["id"] == *id);
    let is_of_the_future = |row: &&Value| instant(row, "scheduled_at") - now > TimeDelta::days(1);
    let wrong = rows.iter().find(is_of_the_future);
    let wrong = wrong.and_then(|row| place(text(row, "id")));
    assert!(wrong.is_some(), "{rows:?}");
    assert!(place(text(&run, "id")) < wrong, "the newer is the first of the list: {rows:?}");
    assert!(home.log_with("the clock was set back by hours").contains("WARN"));
    let status = client.status().await.unwrap();
    assert_eq!(status["clock_correction"]["jobs"], 2);
    let shown = home.ok(&["status"]);
    assert!(shown.contains("set back from") && shown.contains("2 jobs continue"), "{shown}");
    let next = text(&client.job("daily").await.unwrap(), "next_run_time").to_owned();
    let explained = home.ok(&["explain", "daily", "--at", &next]);
    assert!(explained.contains("still to come"), "{explained}");
    // What is right is left alone by the next start.
    let before = client.job("daily").await.unwrap()["revision"].clone();
    drop(daemon);
    let _daemon = home.start();
    assert_eq!(home.client().job("daily").await.unwrap()["revision"], before);
    assert!(home.client().status().await.unwrap()["clock_correction"].is_null());
}

#[tokio::test]
async fn a_service_manager_that_does_not_read_holds_up_nothing() {
    let mut home = Home::new("");
    let deaf = home.path().join("deaf.sock");
    let _socket = std::os::unix::net::UnixDatagram::bind(&deaf).unwrap();
    home.set("NOTIFY_SOCKET", deaf.to_str().unwrap());
    let log = std::fs::File::create(home.log()).unwrap();
    let mut daemon = home.command(&["serve"]).stderr(log).spawn().unwrap();
    while home.client().reload().await.is_err() {
        assert_eq!(daemon.try_wait().unwrap(), None, "the daemon has ended");
    }
    // Each reload sends two messages, and a socket keeps about ten unread ones.
    for _ in 0..30 {
        home.client().reload().await.unwrap();
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&daemon), Kill::TERM).unwrap();
    assert!(daemon.wait().unwrap().success());
    let log = std::fs::read_to_string(home.log()).unwrap();
    assert!(log.contains("the service manager could not be notified"), "{log}");
}
