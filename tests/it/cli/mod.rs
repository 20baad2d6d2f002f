//! The command line as a person or a script meets it: what is printed, and how it ends.

mod add;
mod bulk;
mod call;
mod errors;
mod generate;
mod help;
mod hostile;
mod import;
mod modify;
mod preview;
mod socket;
mod terminal;
mod watch;

use serde_json::{Value, json};
use support::{Home, program, text};

/// A line of a table, cell by cell: columns are at least two spaces apart.
fn cells(line: &str) -> Vec<&str> {
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}

/// The line of a table that begins with this.
fn line<'a>(table: &'a str, head: &str) -> Vec<&'a str> {
    let line = table.lines().find(|line| line.split_whitespace().next() == Some(head));
    cells(line.unwrap_or_else(|| panic!("no line {head} in:\n{table}")))
}

fn ids(page: &Value) -> Vec<&str> {
    page["jobs"].as_array().unwrap().iter().map(|job| text(job, "id")).collect()
}

/// A daemon with two jobs that are not due: `hello` prints something, `broken` fails.
fn home_with_jobs() -> (Home, support::Daemon) {
    let home = Home::new("");
    let daemon = home.start();
    let hello = ["add", "hello", "--cron", "hour=3", "--tag", "nightly", "--max-instances", "9"];
    home.ok(&[&hello[..], &["--", "/bin/echo", "hi you"]].concat());
    let script = "echo out; exit 7";
    home.ok(&["add", "broken", "--at", "2100-01-01", "--", "/bin/sh", "-c", script]);
    (home, daemon)
}

#[test]
fn without_a_daemon_every_verb_that_needs_one_exits_3_with_one_line() {
    let home = Home::new("");
    let verbs: [&[&str]; 16] = [
        &["modify", "x", "--timeout", "1h"],
        &["reschedule", "x", "--every", "1h"],
        &["edit", "x"],
        &["add", "x", "--every", "1h", "--builtin", "noop"],
        &["list"],
        &["show", "x"],
        &["pause", "x", "y"],
        &["explain", "x"],
        &["resume", "--all"],
        &["resume", "x"],
        &["run", "x", "--wait"],
        &["remove", "x", "y"],
        &["runs"],
        &["logs", "x"],
        &["status"],
        &["reload"],
    ];
    let check = |home: &Home, arguments: &[&str], socket: &str| {
        let output = home.run(arguments);
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {complaint}");
        assert_eq!((complaint.lines().count(), output.stdout.len()), (1, 0), "{complaint}");
        assert!(complaint.starts_with("punctual: ") && complaint.contains(socket), "{complaint}");
    };
    for arguments in verbs {
        check(&home, arguments, &home.socket().display().to_string());
    }
    check(&home, &["--socket", "elsewhere.sock", "list"], "elsewhere.sock");
    // A socket that a killed daemon has left behind is no daemon either.
    home.start().kill();
    assert!(home.socket().exists());
    check(&home, &["list"], &home.socket().display().to_string());
}

#[tokio::test]
async fn a_job_is_explained_now_and_at_a_time() {
    let home = Home::new("");
    let _daemon = home.start();
    let mut signal = home.signal("ran");
    let script = format!("echo ran > {}", signal.path.display());
    let trigger = ["--at", "2020-01-01", "--timezone", "Asia/Tokyo"];
    home.ok(&[&["add", "late"], &trigger[..], &["--", "/bin/sh", "-c", &script]].concat());
    // What runs has its row, which later has the time of its end.
    signal.next().await;
    let rows = support::ledger(&home.client(), "late").await;
    support::ended(&home.client(), text(&rows[0], "id")).await;
    let told = home.ok(&["explain", "late"]);
    assert!(told.contains("It was due at 2020-01-01 00:00:00 +09:00, ran "), "{told}");
    assert!(told.contains("the scheduler was away") && told.contains("it is finished"), "{told}");
    let at = home.json(&["explain", "late", "--at", "2020-01-01 00:00:00"]);
    assert_eq!(text(&at, "scheduled_at"), "2019-12-31T15:00:00.000000Z");
    assert_eq!(text(&at["run"], "state"), "succeeded");
    let before = home.ok(&["explain", "late", "--at", "2019-01-01T00:00:00Z"]);
    assert!(before.contains("no occurrence up to then"), "{before}");
    assert!(
        home.fails(&["explain", "late", "--at", "noon"]).1.contains("at: \"noon\" is not a time")
    );
    assert!(home.fails(&["explain", "nothing"]).1.contains("there is no job"));
    // A manual run is no occurrence, but is mentioned as well.
    home.ok(&["add", "never", "--at", "2100-01-01", "--builtin", "noop"]);
    assert!(!home.ok(&["explain", "never"]).contains("by hand"));
    home.ok(&["run", "never", "--wait"]);
    let told = home.ok(&["explain", "never"]);
    assert!(told.contains("no occurrence up to then.\nIt was run by hand at "), "{told}");
    assert!(told.contains(" and succeeded (after "), "{told}");
    assert!(!home.ok(&["explain", "never", "--at", "yesterday"]).contains("by hand"));
}

/// The exit code of `status`, and its answer.
fn health(home: &Home) -> (i32, Value) {
    let output = home.run(&["status", "--json"]);
    assert!(output.stderr.is_empty(), "{output:?}");
    (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn the_exit_code_of_status_says_whether_the_daemon_is_healthy() {
    let home = Home::new(
        "[[jobs]]\nid = \"own\"\ntrigger = {type = \"interval\", hours = 1}\n\
        task = {type = \"command\", argv = [\"/bin/true\"]}\n",
    );
    assert_eq!(home.run(&["status"]).status.code(), Some(3), "none answers");
    let daemon = home.start();
    let well = || {
        let (code, status) = health(&home);
        assert_eq!((code, &status["health"]), (0, &json!({"state": "well", "reasons": []})));
        assert!(home.ok(&["status"]).contains("health        well\n"));
    };
    let degraded = |reasons: &[(&str, &str)]| {
        let (code, status) = health(&home);
        assert_eq!((code, text(&status["health"], "state")), (1, "degraded"), "{status}");
        let output = home.run(&["status"]);
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(1), &b""[..]));
        let shown = String::from_utf8(output.stdout).unwrap();
        assert!(shown.contains("health        degraded\n"), "{shown}");
        let told = status["health"]["reasons"].as_array().unwrap();
        assert_eq!(told.len(), reasons.len(), "{status}");
        for (told, (reason, message)) in told.iter().zip(reasons) {
            assert_eq!(text(told, "reason"), *reason, "{status}");
            assert!(text(told, "message").contains(message), "{status}");
            assert!(shown.contains(message), "{shown}");
        }
        // None of this keeps the daemon from taking requests.
        assert_eq!(status["ready"], true, "{status}");
    };
    well();
    let good = std::fs::read_to_string(home.path().join("jobs.toml")).unwrap();
    home.write_config("[[jobs]]\nid = 7\n");
    assert_eq!(home.fails(&["reload"]).0, 1);
    let reload = ("reload", "the last reload failed: jobs.toml:2");
    degraded(&[reload]);
    home.ok(&["pause", "--all"]);
    degraded(&[("paused", "the scheduler was paused by "), reload]);
    home.ok(&["resume", "--all"]);
    home.write_config(&good);
    home.ok(&["reload"]);
    well();
    // An executor goes, and with it what the job needs.
    let fast = "[executors.fast]\ntype = \"threadpool\"\nmax_workers = 1\n";
    home.write_config(&format!("{fast}{good}"));
    drop(daemon);
    let daemon = home.start();
    home.ok(&["add", "quick", "--every", "1h", "--executor", "fast", "--builtin", "noop"]);
    drop(daemon);
    home.write_config(&good);
    let _daemon = home.start();
    degraded(&[("broken_jobs", "1 job is broken")]);
    home.ok(&["remove", "quick"]);
    well();
}

#[test]
fn a_paused_scheduler_says_so_wherever_it_is_asked_about_jobs() {
    let home = Home::new("");
    let _daemon = home.start();
    home.ok(&["add", "soon", "--every", "1h", "--builtin", "noop"]);
    home.ok(&["add", "held", "--every", "1h", "--builtin", "noop"]);
    home.ok(&["pause", "held"]);
    assert_eq!(home.json(&["list"])["scheduler_paused"], Value::Null);
    assert!(home.ok(&["list"]).contains("in 59m"));
    assert!(home.json(&["show", "soon"]).get("scheduler_paused").is_none());

    home.ok(&["pause", "--all"]);
    let me = format!("uid {}", rustix::process::getuid());
    let (_, status) = health(&home);
    let by = text(&status, "paused_by").to_owned();
    assert!(by.contains(&me), "{by}");
    let since = json!({"since": status["paused_since"], "until": null, "by": by, "reason": null});
    assert_eq!(home.json(&["list"])["scheduler_paused"], since);
    assert_eq!(home.json(&["show", "soon"])["scheduler_paused"], since);
    let list = home.ok(&["list"]);
    assert!(!list.contains("in 59m"), "{list}");
    let row = |job: &str| list.lines().find(|line| line.starts_with(job)).unwrap();
    assert!(row("soon").contains("  when resumed  "), "{list}");
    assert!(!row("held").contains("when resumed"), "{list}");
    let notice = list.lines().last().unwrap();
    assert!(notice.starts_with("The scheduler is paused since 20"), "{list}");
    assert!(notice.contains(&format!(" by {by}: no job fires")), "{list}");
    let shown = home.ok(&["show", "soon"]);
    assert!(shown.contains("when the scheduler is resumed (paused since 20"), "{shown}");
    let explained = home.ok(&["explain", "soon"]);
    assert!(explained.contains("the scheduler is resumed"), "{explained}");

    home.ok(&["resume", "--all"]);
    assert!(home.ok(&["list"]).contains("in 59m"));
    assert_eq!(health(&home).1["paused_by"], Value::Null);
}

#[test]
fn the_scheduler_as_a_whole_is_paused_and_resumed_also_over_a_restart() {
    let home = Home::new("");
    let daemon = home.start();
    home.ok(&["add", "soon", "--every", "1h", "--builtin", "noop"]);
    assert_eq!(home.ok(&["pause", "--all"]).trim(), "paused the scheduler");
    drop(daemon);
    let _daemon = home.start();
    let (code, status) = health(&home);
    assert_eq!((text(&status, "state"), &status["next_wake"]), ("paused", &Value::Null));
    assert_eq!((code, &status["health"]["reasons"][0]["reason"]), (1, &json!("paused")));
    let shown = home.run(&["status"]);
    assert_eq!(shown.status.code(), Some(1));
    assert!(String::from_utf8(shown.stdout).unwrap().contains("paused since "));
    home.ok(&["run", "soon", "--wait"]);
    let resumed = home.json(&["resume", "--all"]);
    let no_pause = json!({"state": "running", "paused_since": null, "paused_until": null,
        "paused_by": null, "pause_reason": null});
    assert_eq!(resumed, no_pause);
    assert_eq!(text(&home.json(&["status"]), "state"), "running");
    assert_eq!(home.fails(&["pause"]).0, 2);
    assert_eq!(home.fails(&["pause", "--all", "soon"]).0, 2);
}

#[test]
fn a_pause_says_why_and_until_when_and_ends_by_itself_also_after_a_restart() {
    let home = Home::new("");
    let daemon = home.start();
    home.ok(&["add", "soon", "--every", "1h", "--builtin", "noop"]);
    home.ok(&["add", "other", "--every", "1h", "--builtin", "noop"]);
    assert!(!home.ok(&["list"]).contains("PAUSED"));
    let said = home.ok(&["pause", "soon", "--for", "1h", "--reason", "new disk"]);
    assert!(said.starts_with("paused soon until 20") && said.contains("(in "), "{said}");
    let pause = home.json(&["show", "soon"])["pause"].clone();
    assert_eq!(text(&pause, "reason"), "new disk");
    let me = format!("uid {}", rustix::process::getuid());
    assert!(text(&pause, "by").contains(&me) && text(&pause, "until").ends_with('Z'), "{pause}");
    let shown = home.ok(&["show", "soon"]);
    assert!(shown.contains(" until 20") && shown.contains(" (new disk)"), "{shown}");
    let list = home.ok(&["list"]);
    assert!(list.contains("PAUSED") && list.contains(" (new disk)"), "{list}");
    let explained = home.ok(&["explain", "soon"]);
    assert!(explained.contains("(new disk)"), "{explained}");
    home.ok(&["pause", "soon", "--for", "200ms"]);
    let is_active = || text(&home.json(&["show", "soon"]), "state") == "active";
    assert!((0..500).any(|_| is_active()), "the pause does not end");
    assert_eq!(home.json(&["show", "soon"])["pause"], Value::Null);

    let said = home.ok(&["pause", "--all", "--until", "2100-01-01 08:00", "--reason", "upgrade"]);
    assert!(said.starts_with("paused the scheduler until 2100-01-01 08:00:00"), "{said}");
    let (_, status) = health(&home);
    assert_eq!(text(&status, "pause_reason"), "upgrade");
    let message = text(&status["health"]["reasons"][0], "message");
    assert!(message.contains(" until 2100-01-01T") && message.contains("(upgrade)"), "{message}");
    let shown = String::from_utf8(home.run(&["status"]).stdout).unwrap();
    assert!(shown.contains(" until 2100-01-01 08:00:00") && shown.contains("(upgrade)"), "{shown}");
    home.ok(&["pause", "--all", "--for", "300ms"]);
    drop(daemon);
    let _daemon = home.start();
    let is_running = || text(&health(&home).1, "state") == "running";
    assert!((0..500).any(|_| is_running()), "the pause does not end");
    let refused = home.fails(&["pause", "soon", "--until", "1999-01-01"]);
    assert!(refused.0 == 1 && refused.1.contains("until: must be in the future"), "{refused:?}");
    assert_eq!(home.fails(&["pause", "soon", "--until", "17:00", "--for", "1h"]).0, 2);
}

#[test]
fn usage_errors_exit_2() {
    let home = Home::new("");
    let cases: [(&[&str], &str); 23] = [
        (&[], "Usage"),
        (&["add", "x", "--cron", "*/5 * * * *", "--builtin", "noop"], "is given by --crontab"),
        (
            &["add", "x", "--timeout", "1h30", "--every", "1h", "--builtin", "noop"],
            "'--timeout <DURATION>': \"1h30\" is not",
        ),
        (&["bogus"], "bogus"),
        (&["list", "--colour"], "--colour"),
        (&["list", "--state", "running"], "finished"),
        (&["list", "--limit", "many"], "--limit"),
        (&["list", "--limit", "0"], "between 1 and 1000"),
        (&["runs", "--limit", "100000"], "between 1 and 1000"),
        (&["runs", "--state", "active"], "succeeded"),
        (&["runs", "--since", "soon"], "--since: \"soon\" is not a time"),
        (&["show"], "<ID>"),
        (&["pause"], "<IDS>"),
        (&["add", "x", "--builtin", "noop"], "say when"),
        (&["add", "x", "--every", "1h"], "--builtin"),
        (&["add", "x", "--every", "1h", "--at", "now", "--builtin", "noop"], "cannot be used with"),
        (&["add", "x", "--every", "1h", "--builtin", "noop", "--", "true"], "cannot be used with"),
        (&["add", "x", "--every", "1h", "--arg", "a=1", "--", "true"], "--builtin"),
        (&["add", "x", "--every", "soon", "--builtin", "noop"], "\"soon\" is not a duration"),
        (&["add", "x", "--cron", "hour", "--builtin", "noop"], "NAME=VALUE"),
        (
            &["add", "x", "--trigger", "{", "--builtin", "noop"],
            "'--trigger <JSON>': it is not JSON",
        ),
        (
            &["add", "x", "--every", "1h", "--env", "A", "--", "true"],
            "'--env <NAME=VALUE>': it must have the form NAME=VALUE",
        ),
        (&["add", "x", "--every", "1h", "--coalesce", "some", "--", "true"], "latest"),
    ];
    for (arguments, said) in cases {
        let (code, complaint) = home.fails(arguments);
        assert_eq!(code, 2, "{arguments:?}: {complaint}");
        assert!(complaint.contains(said), "{arguments:?}: {complaint}");
    }
}

#[test]
fn a_refusal_of_the_daemon_exits_1_with_one_line_that_names_the_fault() {
    let (home, _daemon) = home_with_jobs();
    let cases: [(&[&str], &str); 17] = [
        (&["runs", "nope"], "there is no job and no run \"nope\""),
        (&["runs", "nope", "--state", "failed", "--since", "1h"], "no run \"nope\""),
        (&["cancel", "nope"], "\"nope\""),
        (&["explain", "nope"], "\"nope\""),
        (&["show", "nope"], "\"nope\""),
        (&["pause", "nope"], "\"nope\""),
        (&["resume", "nope"], "\"nope\""),
        (&["remove", "nope"], "\"nope\""),
        (&["run", "nope"], "\"nope\""),
        (&["run", "nope", "--wait"], "\"nope\""),
        (&["logs", "nope"], "there is no job and no run \"nope\""),
        (&["logs", "hello"], "job \"hello\" has not run yet"),
        (&["add", "hello", "--every", "1h", "--builtin", "noop"], "exists already"),
        (&["add", "x", "--every", "1h", "--builtin", "nope"], "task.name"),
        (&["add", "x", "--cron", "hour=25", "--builtin", "noop"], "trigger.hour"),
        (&["add", "x", "--at", "yesterday", "--builtin", "noop"], "trigger.run_date"),
        (&["add", "x", "--every", "1h", "--executor", "nope", "--builtin", "noop"], "executor"),
    ];
    for (arguments, said) in cases {
        let (code, complaint) = home.fails(arguments);
        assert_eq!((code, complaint.lines().count()), (1, 1), "{arguments:?}: {complaint}");
        assert!(complaint.contains(said), "{arguments:?}: {complaint}");
    }
    assert_eq!(ids(&home.json(&["list"])), ["broken", "hello"], "nothing was changed");
}

#[test]
fn list_shows_jobs_by_their_next_run_and_selects_them() {
    let (home, _daemon) = home_with_jobs();
    home.ok(&["pause", "broken"]);
    let table = home.ok(&["list"]);
    let header = ["ID", "STATE", "NEXT RUN", "TRIGGER", "TASK", "EXECUTOR", "PAUSED"];
    assert_eq!(cells(table.lines().next().unwrap()), header, "{table}");
    let row = line(&table, "hello");
    assert!(row[2].contains("03:00:00") && row[3].starts_with("in "), "{table}");
    assert_eq!(
        (row[1], &row[4..]),
        ("active", &["cron hour=3", "/bin/echo hi you", "processpool"][..])
    );
    assert_eq!(line(&table, "broken")[1], "paused");
    let selected = |arguments: &[&str]| ids(&home.json(arguments)).join(" ");
    assert_eq!(selected(&["list", "--state", "paused"]), "broken");
    assert_eq!(selected(&["list", "--tag", "nightly"]), "hello");
    assert_eq!(selected(&["list", "--prefix", "bro"]), "broken");
    assert!(home.ok(&["list", "--tag", "none"]).contains("no jobs"));
    let first = home.json(&["list", "--limit", "1"]);
    assert_eq!(ids(&first), ["broken"]);
    let cursor = text(&first, "next_cursor");
    assert!(home.ok(&["list", "--limit", "1"]).contains(&format!("more: --cursor '{cursor}'")));
    assert_eq!(selected(&["list", "--cursor", cursor]), "hello");
}

#[test]
fn show_prints_all_of_a_job_and_its_latest_runs() {
    let (home, _daemon) = home_with_jobs();
    assert!(home.ok(&["show", "hello"]).contains("no runs yet"));
    home.ok(&["run", "hello", "--wait"]);
    let shown = home.ok(&["show", "hello"]);
    for (key, value) in
        [("trigger", "cron hour=3"), ("executor", "processpool"), ("tags", "nightly")]
    {
        let line = shown.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        assert_eq!(line.trim(), value, "{shown}");
    }
    assert!(shown.contains("succeeded") && !shown.contains("null"), "{shown}");
    assert_eq!(home.json(&["show", "hello"])["task"]["argv"], json!(["/bin/echo", "hi you"]));
}

#[test]
fn the_run_command_waits_on_request_and_fails_as_the_run_does() {
    let (home, _daemon) = home_with_jobs();
    let started = home.ok(&["run", "hello"]);
    let run_id = started.trim_end().strip_prefix("started run ").unwrap();
    assert!(home.ok(&["runs", "hello"]).contains(run_id));
    assert_eq!(text(&home.json(&["run", "hello"]), "cause"), "manual");

    let said = home.ok(&["run", "hello", "--wait"]);
    let (output, end) = said.split_once('\n').unwrap();
    assert!(output == "hi you" && end.contains(" succeeded after "), "{said}");
    assert_eq!(text(&home.json(&["run", "hello", "--wait"]), "state"), "succeeded");

    let failed = home.run(&["run", "broken", "--wait"]);
    let said = String::from_utf8(failed.stdout).unwrap();
    assert_eq!((failed.status.code(), failed.stderr.as_slice()), (Some(1), &b""[..]));
    assert!(said.starts_with("out\nrun ") && said.ends_with(": exit code 7\n"), "{said}");
    let failed = home.run(&["run", "broken", "--wait", "--json"]);
    let run: Value = serde_json::from_slice(&failed.stdout).unwrap();
    assert_eq!(
        (failed.status.code(), text(&run, "state"), &run["exit_code"]),
        (Some(1), "failed", &json!(7))
    );
}

#[test]
fn logs_are_those_of_a_run_or_of_the_latest_run_of_a_job() {
    let home = Home::new("");
    let _daemon = home.start();
    home.ok(&["add", "id", "--cron", "hour=3", "--", "/bin/sh", "-c", "echo $PUNCTUAL_RUN_ID"]);
    let run_id = |run: Value| text(&run, "id").to_owned();
    let first = run_id(home.json(&["run", "id", "--wait"]));
    let second = run_id(home.json(&["run", "id", "--wait"]));
    assert_eq!(home.ok(&["logs", "id"]).trim_end(), second);
    assert_eq!(home.ok(&["logs", &first]).trim_end(), first);
    let answer = home.json(&["logs", "id"]);
    assert_eq!((text(&answer, "run_id"), text(&answer, "job_id")), (second.as_str(), "id"));
    assert_eq!(answer["bytes"], json!(second.len() + 1));
    home.ok(&["remove", "id"]);
    assert_eq!(home.ok(&["logs", "id"]).trim_end(), second, "runs outlive their job");
    assert!(home.ok(&["runs", "id"]).contains(&second));
    assert!(home.ok(&["runs", "id", "--state", "failed"]).contains("no runs"), "it is known");
    home.ok(&["add", "quiet", "--cron", "hour=3", "--builtin", "noop"]);
    home.ok(&["run", "quiet", "--wait"]);
    let logs = home.run(&["logs", "quiet"]);
    let note = String::from_utf8(logs.stderr).unwrap();
    assert!(note.contains("has no output (succeeded)"), "{note}");
    assert_eq!((logs.status.code(), logs.stdout.len()), (Some(0), 0), "the note is no output");
}

#[tokio::test]
async fn a_jobs_logs_and_latest_runs_are_its_own_and_not_those_of_its_hooks() {
    let home = Home::new("");
    let _daemon = home.start();
    let hook = ["--on-failure", "echo hook", "--shell", "--", "echo why; exit 1"];
    home.ok(&[&["add", "hooked", "--cron", "hour=3"], &hook[..]].concat());
    assert_eq!(home.fails(&["run", "hooked", "--wait"]).0, 1);
    let client = home.client();
    let rows = support::ledger(&client, "hooked").await;
    let hook_run = rows.iter().find(|row| row["cause"] == "on_failure").unwrap();
    support::ended(&client, text(hook_run, "id")).await;
    assert_eq!(home.ok(&["logs", "hooked"]), "why\n");
    assert_eq!(home.fails(&["logs", "hooked", "--follow"]).1, "punctual: the run is failed\n");
    assert_eq!(home.ok(&["logs", text(hook_run, "id")]), "hook\n");
    let shown = home.ok(&["show", "hooked"]);
    let latest: Vec<&str> = shown.lines().skip_while(|line| !line.starts_with("RUN")).collect();
    assert_eq!((latest.len(), latest[1].contains("exit code 1")), (2, true), "{shown}");
    // The ledger has both, and says which is which.
    let both = home.ok(&["runs", "hooked"]);
    assert!(both.lines().count() == 3 && both.contains(" on_failure"), "{both}");
    assert_eq!(home.ok(&["runs", "hooked", "--no-hooks"]).lines().count(), 2);
    let own = client.runs("job=hooked&hooks=false").await.unwrap();
    assert_eq!(own["runs"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn times_are_in_the_zone_of_their_job_which_is_named() {
    let home = Home::new("[scheduler]\ntimezone = \"Asia/Tokyo\"\n");
    let _daemon = home.start();
    let add = |id: &str, more: &[&str]| {
        let when = ["add", id, "--cron", "year=2100 hour=9", "--builtin", "noop"];
        home.ok(&[&when[..], more].concat())
    };
    let tokyo = "2100-01-01 09:00:00 +09:00 Asia/Tokyo";
    let berlin = "2100-01-01 09:00:00 +01:00 Europe/Berlin";
    assert!(add("tokyo", &[]).contains(tokyo));
    assert!(add("berlin", &["--timezone", "Europe/Berlin"]).contains(berlin));
    assert!(add("fixed", &["--timezone", "+05:30"]).contains("2100-01-01 09:00:00 +05:30 (in"));
    let listed = home.ok(&["list"]);
    assert!(line(&listed, "tokyo")[2] == tokyo && line(&listed, "berlin")[2] == berlin, "{listed}");
    for (id, zone) in [("tokyo", "+09:00 Asia/Tokyo"), ("berlin", "Europe/Berlin")] {
        home.ok(&["run", id, "--wait"]);
        let shown = home.ok(&["show", id]);
        let times = ["next run", "created", "updated"];
        for key in times {
            let line = shown.lines().find(|line| line.starts_with(key)).unwrap();
            assert!(line.contains(zone), "{shown}");
        }
        assert!(shown.lines().last().unwrap().contains(zone), "{shown}");
        assert!(home.ok(&["runs", id]).contains(zone));
        let row = home
            .ok(&["runs"])
            .lines()
            .find(|line| line.contains(&format!("  {id} ")))
            .unwrap()
            .to_owned();
        assert!(row.contains(zone), "{row}");
        let run = home.json(&["runs", id])["runs"][0]["id"].as_str().unwrap().to_owned();
        let shown = home.ok(&["runs", &run]);
        assert!(shown.lines().find(|line| line.starts_with("started")).unwrap().contains(zone));
        let named = format!("Times are in the job's zone, {}.", zone.rsplit(' ').next().unwrap());
        assert!(home.ok(&["explain", id]).contains(&named));
    }
    // What belongs to no job any more, and the daemon itself, are in the daemon's.
    home.ok(&["remove", "berlin"]);
    assert!(home.ok(&["runs", "berlin"]).contains("+09:00 Asia/Tokyo"));
    let status = home.ok(&["status"]);
    let started = status.lines().find(|line| line.starts_with("started")).unwrap();
    assert!(started.contains("+09:00 Asia/Tokyo"), "{status}");
    home.ok(&["add", "says", "--cron", "hour=3", "--shell", "--", "echo hi"]);
    home.ok(&["run", "says", "--wait"]);
    assert!(home.ok(&["logs", "says", "-t"]).contains(" +09:00 Asia/Tokyo stdout hi"));
}

#[test]
fn runs_are_listed_newest_first_and_selected() {
    let (home, _daemon) = home_with_jobs();
    assert!(home.ok(&["runs"]).contains("no runs"));
    home.ok(&["run", "hello", "--wait"]);
    assert_eq!(home.fails(&["run", "broken", "--wait"]).0, 1);
    let table = home.ok(&["runs"]);
    let rows: Vec<Vec<&str>> = table.lines().skip(1).map(cells).collect();
    assert_eq!((rows.len(), rows[0][1], rows[1][1]), (2, "broken", "hello"), "{table}");
    assert_eq!((rows[0][2], rows[0].last().copied()), ("failed", Some("exit code 7")));
    let selected = |arguments: &[&str]| -> Vec<String> {
        let page = home.json(&[&["runs"], arguments].concat());
        let rows = page["runs"].as_array().unwrap().iter();
        rows.map(|run| text(run, "job_id").to_owned()).collect()
    };
    assert_eq!(selected(&["hello"]), ["hello"]);
    assert_eq!(selected(&["--state", "failed"]), ["broken"]);
    assert_eq!(selected(&["--since", "1h"]), ["broken", "hello"]);
    assert!(selected(&["--since", "2100-01-01T00:00:00Z"]).is_empty());
    let first = home.json(&["runs", "--limit", "1"]);
    assert_eq!(selected(&["--cursor", text(&first, "next_cursor")]), ["hello"]);
}

#[test]
fn of_several_ids_an_unknown_one_does_not_keep_the_others_from_being_done() {
    let (home, _daemon) = home_with_jobs();
    for (verb, done, state) in
        [("pause", "paused", "paused"), ("resume", "resumed", "active"), ("remove", "removed", "")]
    {
        let output = home.run(&[verb, "hello", "nope", "broken"]);
        assert_eq!(output.status.code(), Some(1), "{verb}");
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(said, format!("{done} hello\n{done} broken\n"));
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(complaint.contains("\"nope\""), "{complaint}");
        let page = home.json(&["list"]);
        let jobs = page["jobs"].as_array().unwrap();
        assert!(jobs.iter().all(|job| text(job, "state") == state), "{verb}: {page}");
    }
    assert_eq!(home.json(&["list"])["jobs"], json!([]));
}

#[test]
fn verbs_with_several_ids_answer_in_json_lines() {
    let (home, _daemon) = home_with_jobs();
    for (verb, state) in [("pause", "paused"), ("resume", "active"), ("rm", "active")] {
        let answer = home.ok(&[verb, "hello", "broken", "--json"]);
        let jobs: Vec<Value> =
            answer.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((text(&jobs[0], "id"), text(&jobs[1], "id")), ("hello", "broken"), "{verb}");
        assert_eq!(text(&jobs[0], "state"), state, "{verb}");
    }
}

#[test]
fn status_describes_the_daemon_and_its_pools() {
    let (home, daemon) = home_with_jobs();
    let said = home.ok(&["status"]);
    let pid = daemon.pid().as_raw_nonzero();
    assert!(said.contains(&format!("(pid {pid})")), "{said}");
    assert_eq!(line(&said, "jobs")[1], "2 active");
    assert_eq!(line(&said, "default"), ["default", "threadpool", "0", "20", "0", "0"]);
    let status = home.json(&["status"]);
    assert_eq!((text(&status, "state"), &status["pid"]), ("running", &json!(pid.get())));
    assert_eq!(status["jobs"], json!({"active": 2}));
}

#[test]
fn check_and_reload_list_the_changes() {
    let home = Home::new("");
    assert!(home.ok(&["check"]).contains("no daemon is running"));
    assert_eq!(
        home.json(&["check"]),
        json!({"file": "jobs.toml", "jobs": 0, "changes": null, "warnings": [], "conflicts": []})
    );
    let _daemon = home.start();
    assert!(home.ok(&["check", "jobs.toml"]).contains("a reload would change no job"));
    home.write_config(
        "[control]\nmode = \"0600\"\n[[jobs]]\nid = \"new\"\ntrigger = { type = \"cron\", hour = 3 }\n\
         task = { type = \"builtin\", name = \"noop\" }\n",
    );
    assert!(home.ok(&["check"]).contains("a reload would have added: new"));
    let said = home.ok(&["reload"]);
    assert!(said.contains("added: new"), "{said}");
    assert!(said.contains("take effect at the next start only: control"), "{said}");
    assert_eq!(
        home.json(&["reload"]),
        json!({"added": [], "changed": [], "removed": [], "unchanged": 1, "restart_needed": ["control"]})
    );
    home.write_config("[scheduler]\ntimezone = \"Mars/Base\"\n");
    let (code, complaint) = home.fails(&["reload"]);
    assert!(code == 1 && complaint.contains("jobs.toml:2:1: scheduler.timezone"), "{complaint}");
    assert_eq!(home.fails(&["check"]).0, 2);
}

#[test]
fn a_reader_that_has_gone_away_is_no_error() {
    let (home, _daemon) = home_with_jobs();
    let verbs: [&[&str]; 5] = [
        &["list"],
        &["pause", "hello", "broken"],
        &["status"],
        &["--help"],
        &["preview", "--every", "1s", "--count", "10000"],
    ];
    for arguments in verbs {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = home.command(arguments).stdout(writer).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {:?}", output.status);
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{arguments:?}");
    }
    assert_eq!(home.json(&["list", "--state", "paused"])["jobs"].as_array().unwrap().len(), 2);
    let script =
        format!("set -o pipefail; {} preview --every 1s --count 10000 | head -1", program());
    let output = std::process::Command::new("bash").args(["-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "every 1s\n");
    assert!(output.status.success() && output.stderr.is_empty());
}
