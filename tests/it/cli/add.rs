//! `add`: every option arrives in the job.

use punctual::clock::{Clock, SystemClock, Timestamp};
use punctual::zone::Zone;
use serde_json::{Value, json};

use support::{Home, text};

/// What each kind of trigger is typed as, and what the job has then.
#[test]
fn every_trigger_option_arrives_in_the_job() {
    let home = Home::new("");
    let _daemon = home.start();
    let cases: [(&[&str], Value); 13] = [
        (
            &["--cron", "hour=3 minute=*/20 day=\"last fri\"", "--timezone", "Asia/Shanghai"],
            json!({"type": "cron", "hour": "3", "minute": "*/20", "day": "last fri", "timezone": "Asia/Shanghai"}),
        ),
        (
            &[
                "--cron",
                "hour=0-3",
                "--start",
                "2030-01-01",
                "--end",
                "2031-01-01",
                "--timezone",
                "UTC",
            ],
            json!({"type": "cron", "hour": "0-3", "start_date": "2030-01-01", "end_date": "2031-01-01", "timezone": "UTC"}),
        ),
        (
            &["--cron", "second=*/5", "--jitter", "1.5s", "--timezone", "+05:30"],
            json!({"type": "cron", "second": "*/5", "jitter": 1.5, "timezone": "+05:30"}),
        ),
        (
            &["--crontab", "*/5 8-18 * * mon-fri", "--dst-gap", "skip", "--dst-fold", "first"],
            json!({"type": "crontab", "expression": "*/5 8-18 * * mon-fri", "dst_gap": "skip", "dst_fold": "first"}),
        ),
        (&["--crontab", "@daily"], json!({"type": "crontab", "expression": "@daily"})),
        (
            &["--calendar", "months=1 hour=6", "--start", "2030-01-31", "--end", "2031-01-01"],
            json!({"type": "calendarinterval", "months": 1, "hour": 6, "start_date": "2030-01-31", "end_date": "2031-01-01"}),
        ),
        (&["--every", "1h30m"], json!({"type": "interval", "seconds": 5400})),
        (&["--every", "2d"], json!({"type": "interval", "seconds": 172_800})),
        (&["--every", "1500ms"], json!({"type": "interval", "seconds": 1.5})),
        (
            &["--every", "90", "--start", "2030-01-01 09:00:00"],
            json!({"type": "interval", "seconds": 90, "start_date": "2030-01-01 09:00:00"}),
        ),
        (
            &["--at", "2100-11-06 16:30:05", "--timezone", "Europe/Berlin"],
            json!({"type": "date", "run_date": "2100-11-06 16:30:05", "timezone": "Europe/Berlin"}),
        ),
        (
            &["--at", "2100-11-06T16:30:05+08:00"],
            json!({"type": "date", "run_date": "2100-11-06T16:30:05+08:00"}),
        ),
        (
            &["--trigger", "{\"type\": \"interval\", \"weeks\": 1}"],
            json!({"type": "interval", "weeks": 1}),
        ),
    ];
    for (number, (arguments, expected)) in cases.iter().enumerate() {
        let id = format!("job-{number}");
        let job = home.json(&[&["add", &id], *arguments, &["--builtin", "noop"]].concat());
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&job["trigger"][key], value, "{arguments:?}: {}", job["trigger"]);
        }
        assert_eq!(home.json(&["show", &id]), job, "{arguments:?}: the answer is the job");
    }
}

#[test]
fn a_job_can_be_due_in_a_while_or_now() {
    let home = Home::new("");
    let _daemon = home.start();
    let half_an_hour = chrono::TimeDelta::minutes(30);
    let before = SystemClock.now() + half_an_hour;
    let said = home.ok(&["add", "soon", "--at", "+30m", "--builtin", "noop"]);
    let after = SystemClock.now() + half_an_hour;
    assert!(said.starts_with("added soon: next run ") && said.contains("(in "), "{said}");
    let job = home.json(&["show", "soon"]);
    let due: Timestamp = text(&job, "next_run_time").parse().unwrap();
    assert!(before <= due && due <= after, "{job}");
    let before = SystemClock.now();
    let job = home.json(&["add", "now", "--at", "now", "--builtin", "noop"]);
    let due: Timestamp = text(&job["trigger"], "run_date").parse().unwrap();
    assert!(before <= due && due <= SystemClock.now(), "{job}");
    let named = ["--next-run-time", "2100-01-01 00:00:05", "--timezone", "Asia/Tokyo"];
    let job =
        home.json(&[&["add", "named", "--every", "1h", "--builtin", "noop"], &named[..]].concat());
    assert_eq!(text(&job, "next_run_time"), "2099-12-31T15:00:05.000000Z");
    let (code, said) =
        home.fails(&["add", "x", "--every", "1h", "--next-run-time", "soon", "--builtin", "noop"]);
    assert!(code == 1 && said.contains("next_run_time: \"soon\" is not a time"), "{said}");
}

#[test]
fn an_add_warns_if_the_only_occurrence_is_missed_already() {
    let home = Home::new("[scheduler]\ntimezone = \"UTC\"");
    let _daemon = home.start();
    let add =
        |id: &str, more: &[&str]| home.ok(&[&["add", id, "--builtin", "noop"], more].concat());
    let past = ["--at", "2020-01-01", "--misfire-grace-time", "60s"];
    let said = "warning: it will not run: its only occurrence, 2020-01-01 00:00:00 +00:00, \
        has passed by more than misfire_grace_time (60 s)";
    assert!(add("a", &past).ends_with(&format!("{said}\n")));
    // Late enough to run, or with more occurrences to come.
    for more in [
        &past[..2],
        &["--at", "now", "--misfire-grace-time", "1h"],
        &["--every", "1h", "--misfire-grace-time", "1s"],
    ] {
        assert!(!add(&format!("b{}", more.len()), more).contains("warning"), "{more:?}");
        home.ok(&["remove", &format!("b{}", more.len())]);
    }
    let answer = home.json(&[&["add", "c", "--builtin", "noop"], &past[..]].concat());
    assert_eq!(answer["warnings"].as_array().map(Vec::len), Some(1));
    let answer = home.json(&["add", "d", "--builtin", "noop", "--every", "1h"]);
    assert_eq!(answer.get("warnings"), None);
}

#[test]
fn words_that_read_like_a_line_for_a_shell_get_a_warning() {
    let home = Home::new("");
    let _daemon = home.start();
    let warned = |words: &[&str]| {
        let add = ["add", "x", "--replace", "--cron", "hour=3"];
        let answer = home.json(&[&add[..], words].concat());
        answer["warnings"].as_array().map(|warnings| warnings[0].as_str().unwrap().to_owned())
    };
    for words in [&["--", "echo hi | wc"][..], &["--", "echo", "hi", "|", "wc"]] {
        let warning = warned(words).unwrap();
        assert!(warning.contains("--shell"), "{warning}");
    }
    for words in
        [&["--", "/bin/echo", "a | b"][..], &["--shell", "--", "echo hi | wc"], &["--", "true"]]
    {
        assert_eq!(warned(words), None, "{words:?}");
    }
    let said = home.ok(&["add", "y", "--cron", "hour=3", "--", "du -s /srv"]);
    assert!(
        said.contains("\nwarning: \"du -s /srv\" is one word, which names the program"),
        "{said}"
    );
    home.write_config(
        "[[jobs]]\nid = \"z\"\ntrigger = { type = \"cron\", hour = 3 }\n\
        task = { type = \"command\", argv = [\"du -s /srv\"] }\n",
    );
    assert!(home.ok(&["check"]).contains("warning: z: \"du -s /srv\" is one word"));
}

#[test]
fn a_job_that_was_there_is_said_to_be_replaced() {
    let home = Home::new("");
    let _daemon = home.start();
    let add = |more: &[&str]| home.ok(&[&["add", "x", "--builtin", "noop"], more].concat());
    assert!(add(&["--every", "1h", "--replace"]).starts_with("added x: "));
    assert!(add(&["--every", "1h", "--replace"]).starts_with("replaced x: "), "by the same");
    assert!(add(&["--every", "2h", "--replace"]).starts_with("replaced x: "), "by another");
    home.ok(&["remove", "x"]);
    assert!(add(&["--every", "2h", "--replace"]).starts_with("added x: "));
}

#[test]
fn every_task_option_arrives_in_the_job() {
    let home = Home::new("");
    let _daemon = home.start();
    let add = |id: &str, arguments: &[&str]| {
        home.json(&[&["add", id, "--cron", "hour=3"], arguments].concat())
    };
    let builtin =
        ["--builtin", "noop", "--arg", "number=1", "--arg", "word=x y", "--arg", "list=[1,null]"];
    let job = add("builtin", &builtin);
    assert_eq!(
        job["task"],
        json!({"type": "builtin", "name": "noop", "args": {"number": 1, "word": "x y", "list": [1, null]}})
    );
    let job = add(
        "command",
        &[
            "--env", "A=b=c", "--env", "E=", "--cwd", "/", "--", "/bin/sh", "-c", "env; pwd",
            "--json",
        ],
    );
    assert_eq!(
        job["task"],
        json!({"type": "command", "argv": ["/bin/sh", "-c", "env; pwd", "--json"], "env": {"A": "b=c", "E": ""}, "cwd": "/"})
    );
    let said = home.ok(&["run", "command", "--wait"]);
    let lines: Vec<&str> = said.lines().collect();
    assert!(["A=b=c", "E=", "/"].iter().all(|line| lines.contains(line)), "{said}");
}

#[test]
fn every_command_option_arrives_in_the_job() {
    let home = Home::new("");
    let _daemon = home.start();
    let add = |id: &str, arguments: &[&str]| {
        home.json(&[&["add", id, "--cron", "hour=3"], arguments].concat())["task"].clone()
    };
    let cases: [(&str, &[&str], Value); 13] = [
        (
            "env",
            &["--secret-env", "A=env:B", "--secret-env", "C=file:/x:y"],
            json!({"A": {"env": "B"}, "C": {"file": "/x:y"}}),
        ),
        (
            "env",
            &["--env", "A=b", "--secret-env", "C=credential:d"],
            json!({"A": "b", "C": {"credential": "d"}}),
        ),
        ("stdin", &["--stdin", "-a\nb"], json!("-a\nb")),
        ("user", &["--user", "nobody"], json!("nobody")),
        ("group", &["--group", "100"], json!("100")),
        ("umask", &["--umask", "027"], json!("027")),
        ("nice", &["--nice", "-5"], json!(-5)),
        (
            "limits",
            &["--memory", "512M", "--cpu-time", "2m", "--open-files", "64"],
            json!({"memory": "512M", "cpu": 120, "files": 64}),
        ),
        ("limits", &["--memory", "10000000"], json!({"memory": 10_000_000})),
        ("success_codes", &["--success-code", "0", "--success-code", "3"], json!([0, 3])),
        ("no_retry_codes", &["--no-retry-code", "64"], json!([64])),
        ("kill_grace", &["--kill-grace", "1500ms"], json!(1.5)),
        ("kill_grace", &["--kill-grace", "1m"], json!(60)),
    ];
    for (number, (key, options, expected)) in cases.into_iter().enumerate() {
        let task = add(&format!("job-{number}"), &[options, &["--", "true"]].concat());
        assert_eq!(
            task,
            json!({"type": "command", "argv": ["true"], key: expected}),
            "{options:?}"
        );
    }
    let task = add("shell", &["--shell", "--", "echo a | tr a b; exit 3"]);
    assert_eq!(task, json!({"type": "command", "shell": "echo a | tr a b; exit 3"}));
}

#[test]
fn a_command_option_that_makes_no_sense_is_refused() {
    let home = Home::new("");
    let _daemon = home.start();
    let cases: [(&[&str], i32, &str); 14] = [
        (&["--shell", "--", "echo", "a"], 2, "--shell takes one word"),
        (&["--secret-env", "A=vault:x", "--", "true"], 2, "--secret-env takes NAME=env:VARIABLE"),
        (&["--secret-env", "A=x", "--", "true"], 2, "--secret-env takes NAME=env:VARIABLE"),
        (&["--secret-env", "A=env:", "--", "true"], 1, "task.env.A: must say where"),
        (
            &["--secret-env", "A=env:B", "--env", "A=b", "--", "true"],
            2,
            "the variable A is given twice",
        ),
        (&["--kill-grace", "2h", "--", "true"], 1, "task.kill_grace: must be above 0"),
        (&["--umask", "8", "--", "true"], 1, "task.umask: must be an octal text"),
        (&["--memory", "lots", "--", "true"], 1, "task.limits.memory: must be a number of bytes"),
        (&["--cpu-time", "1.5s", "--", "true"], 1, "task.limits.cpu: invalid type"),
        (&["--total-memory", "1K", "--", "true"], 1, "task.limits.total_memory: must be at least"),
        (&["--processes", "0", "--", "true"], 1, "task.limits.processes: must be at least 1"),
        (&["--cores", "0.001", "--", "true"], 1, "task.limits.cores: must be from 0.01"),
        (
            &["--success-code", "256", "--", "true"],
            1,
            "task.success_codes: an exit code is between",
        ),
        (&["--builtin", "noop", "--nice", "3"], 2, "cannot be used with"),
    ];
    for (arguments, code, expected) in cases {
        let all = [&["add", "x", "--cron", "hour=3"], arguments].concat();
        let (was, said) = home.fails(&all);
        assert!(was == code && said.contains(expected), "{arguments:?}: {was} {said}");
    }
}

#[test]
fn every_policy_option_arrives_in_the_job() {
    let home = Home::new("");
    let _daemon = home.start();
    let options = [
        ("--executor", "processpool", "executor", json!("processpool")),
        ("--misfire-grace-time", "2m", "misfire_grace_time", json!(120)),
        ("--coalesce", "all", "coalesce", json!("all")),
        ("--max-instances", "3", "max_instances", json!(3)),
        ("--overlap", "replace", "overlap", json!("replace")),
        ("--max-runs", "5", "max_runs", json!(5)),
        ("--on-crash", "lose", "on_crash", json!("lose")),
        ("--name", "A name", "name", json!("A name")),
        ("--description", "Why it is", "description", json!("Why it is")),
        ("--tag", "one", "tags", json!(["one", "two"])),
    ];
    let mut arguments = vec!["add", "all", "--every", "1h", "--builtin", "noop", "--paused"];
    arguments.extend(options.iter().flat_map(|(option, value, ..)| [*option, *value]));
    arguments.extend(["--tag", "two"]);
    let job = home.json(&arguments);
    for (option, _, key, expected) in &options {
        assert_eq!(&job[key], expected, "{option}");
    }
    assert_eq!((text(&job, "state"), &job["next_run_time"]), ("paused", &Value::Null));
    let job = home.json(&["add", "none", "--every", "1h", "--builtin", "noop"]);
    let defaults = json!({
        "executor": "default", "misfire_grace_time": null, "coalesce": "latest", "max_instances": 1, "overlap": "skip",
        "max_runs": null, "on_crash": "rerun", "name": "none", "description": "", "tags": [], "state": "active",
    });
    for (key, expected) in defaults.as_object().unwrap() {
        assert_eq!(&job[key], expected, "{key}");
    }
    let job = home.json(&["add", "all", "--replace", "--every", "2h", "--builtin", "noop"]);
    assert_eq!((&job["revision"], text(&job, "state")), (&json!(2), "active"));
}

#[test]
fn an_id_may_hold_anything_that_can_be_seen() {
    let home = Home::new("");
    let _daemon = home.start();
    for id in ["order:42:expire", "a/b?c d%20é&x=1#y", "-", "日本", "...", "x'\"\\"] {
        home.ok(&["add", "--every", "1h", "--builtin", "noop", id]);
        home.ok(&["run", "--wait", id]);
        assert_eq!(text(&home.json(&["show", id]), "id"), id);
        assert!(home.ok(&["runs", id]).contains(id));
        home.ok(&["remove", id]);
    }
    assert_eq!(home.json(&["list"])["jobs"], json!([]));
}

#[test]
fn times_that_depend_on_the_present_are_resolved_in_the_triggers_zone_or_the_daemons() {
    let home = Home::new("[scheduler]\ntimezone = \"Asia/Tokyo\"\n");
    let _daemon = home.start();
    let added = |name: &str, when: &[&str]| {
        home.json(&[&["add", name, "--builtin", "noop"], when].concat())
    };
    let in_new_york = ["--at", "tomorrow 10:00", "--timezone", "America/New_York"];
    for (zone, when) in [("Asia/Tokyo", &in_new_york[..2]), ("America/New_York", &in_new_york)] {
        let job = added(zone, when);
        let zone = Zone::parse(zone).unwrap();
        let at = zone.to_local(text(&job, "next_run_time").parse().unwrap());
        let made = zone.to_local(text(&job, "created_at").parse().unwrap());
        assert_eq!(at.time().to_string(), "10:00:00");
        // Midnight may have passed between the typing and the making.
        assert!((0..=1).contains(&(at.date() - made.date()).num_days()), "{at} {made}");
    }
    // What does not depend on the present is stored as it was typed.
    let typed = [
        ("2100-12-06 16:30", "2100-12-06T07:30:00.000000Z"),
        ("2100-12-06T10:30Z", "2100-12-06T10:30:00.000000Z"),
        ("2100-12-06 16:30 +0800", "2100-12-06T08:30:00.000000Z"),
    ];
    for (at, instant) in typed {
        let job = added(at, &["--at", at]);
        assert_eq!(text(&job, "next_run_time"), instant);
        assert_eq!(text(&job["trigger"], "run_date"), at);
    }
    let job =
        added("first", &["--every", "1 day", "--next-run-time", "+90min", "--jitter", "5min"]);
    assert_eq!(
        (&job["trigger"]["seconds"], &job["trigger"]["jitter"]),
        (&json!(86400), &json!(300))
    );
    let refused = home.fails(&["add", "x", "--at", "2027-02-30", "--builtin", "noop"]);
    assert!(
        refused.1.contains(
            "trigger.run_date: \"2027-02-30\" is not a time: February has 28 days in 2027"
        )
    );
    assert!(home.ok(&["runs", "--since", "yesterday"]).contains("no runs"));
    assert!(home.ok(&["runs", "--since", "2026-11-28 20:00"]).contains("no runs"));
    assert!(home.ok(&["explain", "first", "--at", "16:30"]).contains("It was not due at "));
    assert!(home.ok(&["explain", "first", "--at", "2h ago"]).contains("It was not due at "));
}
