//! `list --watch` and `runs --watch`: the list is shown again when it has changed.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use serde_json::Value;
use support::terminal::start_in_terminal;
use support::{Home, text};

#[test]
fn a_watched_list_is_a_json_line_for_each_change() {
    let home = Home::new("");
    let _daemon = home.start();
    let mut watching = home.command(&["list", "--watch", "--json"]);
    let mut watching = watching.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert!(next()["jobs"].as_array().unwrap().is_empty());
    home.ok(&["add", "new", "--at", "2100-01-01", "--builtin", "noop"]);
    assert_eq!(text(&next()["jobs"][0], "id"), "new");
    home.ok(&["pause", "new"]);
    assert_eq!(text(&next()["jobs"][0], "state"), "paused");
    watching.kill().unwrap();
    watching.wait().unwrap();
}

#[test]
fn a_terminal_is_redrawn_and_shows_no_more_lines_than_it_has() {
    let home = Home::new("");
    let _daemon = home.start();
    for number in 0..30 {
        home.ok(&["add", &format!("job-{number:02}"), "--at", "2100-01-01", "--builtin", "noop"]);
    }
    let mut command = home.command(&["list", "-f"]);
    command.env("TERM", "xterm").env_remove("NO_COLOR");
    let (mut child, mut keyboard) = start_in_terminal(command, 120);
    let mut shown = String::new();
    let mut read_until = |wanted: &str| {
        while !shown.contains(wanted) {
            let mut byte = [0];
            keyboard.read_exact(&mut byte).unwrap();
            shown.push(char::from(byte[0]));
        }
        std::mem::take(&mut shown)
    };
    let first = read_until("more lines");
    assert!(first.starts_with("\u{1b}[H\u{1b}[2J") && first.contains("job-20"), "{first:?}");
    assert!(!first.contains("job-21"), "{first:?}");
    home.ok(&["pause", "job-00"]);
    // A paused job is not due, and comes last.
    let second = read_until("job-21");
    assert!(second.contains("\u{1b}[H\u{1b}[2J"), "{second:?}");
    child.kill().unwrap();
    child.wait().unwrap();
}
