//! `remove`, `pause` and `resume` by conditions: the question before, the summary after.

use std::io::{Read, Write};

use support::terminal::{screen, start_in_terminal};
use support::{Daemon, Home};

fn home_with_tagged_jobs(count: usize) -> (Home, Daemon) {
    let home = Home::new("");
    let daemon = home.start();
    for number in 0..count {
        let id = format!("order:{number}");
        home.ok(&["add", &id, "--at", "2100-01-01", "--tag", "x", "--builtin", "noop"]);
    }
    (home, daemon)
}

fn states(home: &Home, state: &str) -> usize {
    home.json(&["list", "--state", state])["jobs"].as_array().unwrap().len()
}

#[test]
fn without_a_terminal_yes_has_to_be_said_and_then_a_summary_says_what_was_done() {
    let (home, _daemon) = home_with_tagged_jobs(3);
    for verb in ["pause", "resume", "remove"] {
        let (code, complaint) = home.fails(&[verb, "--tag", "x"]);
        assert!(code == 2 && complaint.contains("--yes"), "{verb}: {complaint}");
    }
    assert_eq!(states(&home, "active"), 3);
    let would = home.ok(&["remove", "--tag", "x", "--dry-run"]);
    assert_eq!(would, "would remove 3 jobs\n  order:0\n  order:1\n  order:2\n");
    assert_eq!(home.ok(&["pause", "--prefix", "order:1", "--yes"]), "paused 1 job\n");
    assert_eq!(home.ok(&["pause", "--tag", "x", "-y"]), "paused 2 jobs; 1 did not need it\n");
    assert_eq!(home.ok(&["resume", "--state", "paused,broken", "-y"]), "resumed 3 jobs\n");
    let answer = home.json(&["remove", "--all-jobs", "--yes"]);
    assert_eq!((&answer["changed"], &answer["refused"]), (&3.into(), &0.into()));
    assert_eq!(home.ok(&["remove", "--tag", "x", "--yes"]), "removed 0 jobs\n");
}

#[test]
fn jobs_of_the_file_are_left_alone_with_exit_code_1() {
    let home = Home::new(
        "[[jobs]]\nid = \"own\"\ntrigger = {type = \"interval\", hours = 1}\n\
        task = {type = \"builtin\", name = \"noop\"}\n",
    );
    let _daemon = home.start();
    home.ok(&["add", "other", "--at", "2100-01-01", "--builtin", "noop"]);
    let output = home.run(&["remove", "--all-jobs", "--yes"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "removed 1 job; 1 left alone\n");
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(complaint.starts_with("punctual: job \"own\" is declared in a file"), "{complaint}");
}

#[test]
fn ids_and_conditions_exclude_each_other() {
    let home = Home::new("");
    let cases: [&[&str]; 9] = [
        &["remove"],
        &["remove", "a", "--tag", "x"],
        &["remove", "a", "--yes"],
        &["remove", "a", "--dry-run"],
        &["remove", "--all-jobs", "--tag", "x"],
        &["remove", "--prefix", "", "--yes"],
        &["pause", "--all", "--tag", "x"],
        &["pause", "--all", "--yes"],
        &["resume", "--tag", "x", "--yes", "--dry-run"],
    ];
    for arguments in cases {
        assert_eq!(home.fails(arguments).0, 2, "{arguments:?}");
    }
}

#[test]
fn a_terminal_is_asked_with_the_number_of_jobs() {
    let (home, _daemon) = home_with_tagged_jobs(2);
    for (answer, left) in [("n\n", 2), ("\n", 2), ("y\n", 0)] {
        let (mut child, mut keyboard) = start_in_terminal(home.command(&["rm", "--tag", "x"]), 80);
        let mut asked = Vec::new();
        while !asked.ends_with(b"[y/N] ") {
            let mut byte = [0];
            keyboard.read_exact(&mut byte).unwrap();
            asked.extend(byte);
        }
        assert!(String::from_utf8_lossy(&asked).ends_with("remove 2 jobs? [y/N] "));
        keyboard.write_all(answer.as_bytes()).unwrap();
        let said = screen(keyboard);
        let status = child.wait().unwrap();
        assert_eq!(
            (status.success(), said.contains("removed 2 jobs")),
            (left == 0, left == 0),
            "{said}"
        );
        assert_eq!(states(&home, "active"), left);
    }
}
