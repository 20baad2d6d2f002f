//! `modify`, `reschedule` and `edit`: what is typed or edited arrives in the job, and nothing else changes.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use support::{Daemon, Home, text};

/// A daemon with a command that is never due.
fn home_with_job() -> (Home, Daemon) {
    let home = Home::new("");
    let daemon = home.start();
    let add = ["add", "backup", "--cron", "hour=3 year=2099", "--timezone", "Asia/Tokyo"];
    let options = ["--timeout", "1h", "--env", "A=1", "--tag", "old", "--", "/bin/true", "x"];
    home.ok(&[&add[..], &options].concat());
    (home, daemon)
}

#[test]
fn modify_changes_what_is_given_and_shows_what_has_changed() {
    let (home, _daemon) = home_with_job();
    let before = home.json(&["show", "backup"]);
    let said = home.ok(&["modify", "backup", "--timeout", "2h", "--tag", "new", "--cwd", "/tmp"]);
    assert!(said.starts_with("modified backup (task, timeout, tags): next run 2099-"), "{said}");
    let said = home.ok(&["modify", "backup", "--timeout", "2h"]);
    assert_eq!(said, "backup is like this already\n");
    let cases: [(&[&str], &str, Value); 9] = [
        (&["--env", "B=2"], "/task/env", json!({"A": "1", "B": "2"})),
        (&["--unset", "task.env.A"], "/task/env", json!({"B": "2"})),
        (&["--max-attempts", "3"], "/retry/max_attempts", json!(3)),
        (&["--jitter", "5"], "/trigger/jitter", json!(5)),
        (&["--unset", "trigger.jitter", "--unset", "retry"], "/retry", Value::Null),
        (&["--unset", "timeout"], "/timeout", Value::Null),
        (&["--on-failure", "mail ops"], "/on_failure/shell", json!("mail ops")),
        (&["--", "/bin/false"], "/task", json!({"type": "command", "argv": ["/bin/false"]})),
        (
            &["--every", "2d", "--timezone", "UTC"],
            "/trigger",
            json!({"type": "interval", "seconds": 172_800, "timezone": "UTC"}),
        ),
    ];
    for (words, pointer, expected) in cases {
        let job = home.json(&[&["modify", "backup"], words].concat());
        assert_eq!(job.pointer(pointer), Some(&expected), "{words:?}: {job}");
        assert_eq!(home.json(&["show", "backup"]), job, "{words:?}");
    }
    let after = home.json(&["show", "backup"]);
    assert!(after["trigger"].get("jitter").is_none());
    for key in ["name", "executor", "max_instances", "created_at", "description"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    home.ok(&["modify", "backup", "--next-run-time", "2098-01-01T00:00:00Z"]);
    let job = home.json(&["show", "backup"]);
    assert_eq!(text(&job, "next_run_time"), "2098-01-01T00:00:00.000000Z");
}

#[test]
fn a_time_of_day_is_in_the_zone_of_the_job() {
    let (home, _daemon) = home_with_job();
    let job = home.json(&["modify", "backup", "--next-run-time", "tomorrow 10:00"]);
    assert!(text(&job, "next_run_time").ends_with("T01:00:00.000000Z"), "{job}");
}

#[test]
fn a_dry_run_shows_both_sides_and_changes_nothing() {
    let (home, _daemon) = home_with_job();
    let before = home.json(&["show", "backup"]);
    let said = home.ok(&["modify", "backup", "--unset", "timeout", "--every", "1h", "--dry-run"]);
    assert!(said.starts_with("backup would change; nothing was changed.\n\n"), "{said}");
    let line = |head: &str| {
        let line = said.lines().find(|line| line.starts_with(head));
        line.unwrap_or_else(|| panic!("no line {head}: {said}")).to_owned()
    };
    assert_eq!(super::cells(&line("timeout")), ["timeout", "3600", "null"]);
    assert!(line("trigger").contains("\"seconds\":3600"), "{said}");
    assert!(said.contains("NEXT RUNS BEFORE") && said.contains("NEXT RUNS AFTER"), "{said}");
    assert!(said.contains("2099-01-01 03:00:00 +09:00 Asia/Tokyo"), "{said}");
    let trial = home.json(&["reschedule", "backup", "--every", "10m", "--dry-run"]);
    assert_eq!(trial["changed"], json!(["trigger", "next_run_time"]));
    assert_eq!(trial["after"]["next_run_times"].as_array().unwrap().len(), 5);
    let same = home.ok(&["modify", "backup", "--timeout", "1h", "--dry-run"]);
    assert_eq!(same, "backup is like this already\n");
    assert_eq!(home.json(&["show", "backup"]), before);
}

#[test]
fn reschedule_replaces_the_trigger_and_resumes_the_job() {
    let (home, _daemon) = home_with_job();
    home.ok(&["pause", "backup"]);
    assert_eq!(text(&home.json(&["modify", "backup", "--jitter", "1m"]), "state"), "paused");
    let said = home.ok(&["reschedule", "backup", "--every", "10m", "--timezone", "UTC"]);
    assert!(
        said.starts_with("rescheduled backup: next run ") && said.contains("UTC (in "),
        "{said}"
    );
    let job = home.json(&["show", "backup"]);
    assert_eq!(job["trigger"], json!({"type": "interval", "seconds": 600, "timezone": "UTC"}));
    assert_eq!(text(&job, "state"), "active");
}

#[test]
fn a_change_that_is_faulty_is_refused_and_changes_nothing() {
    let (home, _daemon) = home_with_job();
    let before = home.json(&["show", "backup"]);
    let cases: [(&[&str], i32, &str); 13] = [
        (&["modify", "backup"], 2, "say what to change"),
        (&["modify", "backup", "--paused"], 2, "--paused"),
        (&["modify", "backup", "--timeout", "1h", "--unset", "timeout"], 2, "takes it back"),
        (&["modify", "backup", "--builtin", "noop", "--", "true"], 2, "cannot be used with"),
        (&["modify", "backup", "--every", "1h", "--at", "now"], 2, "cannot be used with"),
        (&["modify", "backup", "--unset", "timeoutt"], 1, "timeoutt: there is no such option"),
        (&["modify", "backup", "--unset", "task.cwd"], 1, "nothing there"),
        (&["modify", "backup", "--unset", "trigger"], 1, "trigger: cannot be null"),
        (&["modify", "backup", "--arg", "a=1"], 1, "task"),
        (&["modify", "backup", "--executor", "gone"], 1, "executor: unknown executor"),
        (&["modify", "gone", "--timeout", "1h"], 1, "\"gone\""),
        (&["reschedule", "backup"], 2, "say when"),
        (&["reschedule", "backup", "--cron", "hour=25"], 1, "trigger.hour"),
    ];
    for (words, code, said) in cases {
        let (exit, complaint) = home.fails(words);
        assert_eq!((exit, complaint.contains(said)), (code, true), "{words:?}: {complaint}");
    }
    assert_eq!(home.json(&["show", "backup"]), before);
}

/// A home whose editor is this shell script; `$1` is the file. Each call of it appends a line to the file `calls`.
fn edited_by(script: &str) -> (Home, Daemon) {
    let (mut home, daemon) = home_with_job();
    let editor = home.path().join("editor.sh");
    let calls = home.path().join("calls");
    let text = format!("#!/bin/sh\necho call >> {}\n{script}\n", calls.display());
    std::fs::write(&editor, text).unwrap();
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755)).unwrap();
    home.set("TMPDIR", home.path().join("tmp").to_str().unwrap().to_owned().as_str());
    std::fs::create_dir(home.path().join("tmp")).unwrap();
    // An editor may have options of its own, and VISUAL comes first.
    home.set("VISUAL", &format!("{} --wait", editor.display()));
    home.set("EDITOR", "/bin/false");
    (home, daemon)
}

/// How often the editor was called, and what it has left in the folder for temporary files.
fn calls(home: &Home) -> (usize, usize) {
    let calls = std::fs::read_to_string(home.path().join("calls")).unwrap().lines().count();
    (calls, std::fs::read_dir(home.path().join("tmp")).unwrap().count())
}

#[test]
fn what_is_edited_is_changed_and_nothing_else() {
    // The first argument is the option of the editor.
    let (home, _daemon) =
        edited_by("cp \"$2\" shown; sed -i 's/^timeout = .*/timeout = 60/; /^tags/d' \"$2\"");
    let before = home.json(&["show", "backup"]);
    let said = home.ok(&["edit", "backup"]);
    assert!(said.starts_with("modified backup (timeout, tags): next run 2099-"), "{said}");
    let shown = std::fs::read_to_string(home.path().join("shown")).unwrap();
    for expected in ["# Job backup.", "# Not set: ", "\n[task]\n", "argv = [", "timeout = 3600\n"] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    let after = home.json(&["show", "backup"]);
    assert_eq!((&after["timeout"], &after["tags"]), (&json!(60), &json!([])));
    for key in ["trigger", "task", "name", "executor", "next_run_time", "coalesce"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    assert_eq!(calls(&home), (1, 0));
}

#[test]
fn an_edit_that_changes_nothing_or_fails_changes_nothing() {
    for (script, code, said) in [
        ("true", 0, "backup was not changed"),
        ("sed -i '1s/^/# a comment\\n/' \"$2\"", 0, ""),
        ("sed -i 's/^timeout.*/timeout = 1/' \"$2\"; exit 3", 1, "exit status: 3"),
        ("rm \"$2\"", 1, "No such file"),
    ] {
        let (home, _daemon) = edited_by(script);
        let before = home.json(&["show", "backup"]);
        let output = home.run(&["edit", "backup"]);
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{script}: {complaint}");
        assert!(complaint.contains(said), "{script}: {complaint}");
        assert_eq!(home.json(&["show", "backup"]), before, "{script}");
        assert_eq!(calls(&home), (1, 0), "{script}");
    }
}

#[test]
fn a_refused_edit_opens_again_with_the_reason_until_it_is_right_or_left_alone() {
    let refused = "n=$(wc -l < calls); if [ $n = 1 ]; then sed -i 's/^timeout = .*/timeout = -1/' \"$2\"; \
        elif [ $n = 2 ]; then cp \"$2\" second; sed -i 's/^timeout = .*/timeout = /' \"$2\"; \
        else cp \"$2\" third; sed -i 's/^timeout = .*/timeout = 5/' \"$2\"; fi";
    let (home, _daemon) = edited_by(refused);
    home.ok(&["edit", "backup"]);
    assert_eq!(calls(&home), (3, 0));
    assert_eq!(home.json(&["show", "backup"])["timeout"], 5);
    let text = |name: &str| std::fs::read_to_string(home.path().join(name)).unwrap();
    assert!(text("second").starts_with("#! timeout: "), "{}", text("second"));
    assert!(text("third").starts_with("#! line "), "{}", text("third"));
    assert_eq!(text("third").matches("#! ").count(), 1);
    let (home, _daemon) = edited_by(
        "[ $(wc -l < calls) = 1 ] && echo 'nonsense = 1' | cat - \"$2\" > x && cp x \"$2\"; true",
    );
    let (code, complaint) = home.fails(&["edit", "backup"]);
    assert!(code == 1 && complaint.contains("nonsense: there is no such option"), "{complaint}");
    assert!(complaint.contains("backup was not changed"), "{complaint}");
    assert_eq!(calls(&home), (2, 0));
}

#[test]
fn what_others_change_during_an_edit_is_kept_and_the_same_option_is_shown_first() {
    let other = |words: &str| {
        format!("[ $(wc -l < calls) = 1 ] && {} modify backup {words}", support::program())
    };
    let mine = "sed -i '/^#! /d; s/^timeout = .*/timeout = 60/' \"$2\"";
    let (home, _daemon) = edited_by(&format!("{}; {mine}", other("--priority 7 --cwd /tmp")));
    home.ok(&["edit", "backup"]);
    let job = home.json(&["show", "backup"]);
    assert_eq!(
        (&job["timeout"], &job["priority"], &job["task"]["cwd"]),
        (&json!(60), &json!(7), &json!("/tmp"))
    );
    assert_eq!(calls(&home), (1, 0));
    let (home, _daemon) = edited_by(&format!("{}; cp \"$2\" shown; {mine}", other("--timeout 7")));
    home.ok(&["edit", "backup"]);
    let shown = std::fs::read_to_string(home.path().join("shown")).unwrap();
    assert!(
        shown.starts_with("#! another client has changed the job meanwhile: timeout = 7"),
        "{shown}"
    );
    assert_eq!(home.json(&["show", "backup"])["timeout"], 60);
    assert_eq!(calls(&home), (2, 0));
}

#[test]
fn a_job_of_the_file_is_not_edited() {
    let home = Home::new(
        "[[jobs]]\nid = \"own\"\ntrigger = {type = \"interval\", hours = 1}\n\
        task = {type = \"builtin\", name = \"noop\"}\n",
    );
    let _daemon = home.start();
    let (code, complaint) = home.fails(&["edit", "own"]);
    assert!(code == 1 && complaint.contains("jobs.toml"), "{complaint}");
    let (code, complaint) = home.fails(&["modify", "own", "--timeout", "1h"]);
    assert!(code == 1 && complaint.contains("declared in a file"), "{complaint}");
}
