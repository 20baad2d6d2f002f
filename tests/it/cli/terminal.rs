//! Output in a terminal fits its width and has colours if the terminal shows them. In a pipe it is complete.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use support::terminal::shown_in_terminal;
use support::{Home, text};

/// A sentence that no column of an ordinary terminal has room for.
const LONG: &str =
    "the first, the second, the third, the fourth, the fifth and the sixth reason, one by one";

/// What a verb shows in a terminal of this kind and width, without the colours, line by line.
fn lines(home: &Home, kind: &str, columns: u16, arguments: &[&str]) -> Vec<String> {
    let mut command = home.command(arguments);
    command.env("TERM", kind).env_remove("NO_COLOR");
    shown_in_terminal(command, columns).lines().map(str::to_owned).collect()
}

#[test]
fn a_table_fits_the_terminal_and_is_whole_in_a_pipe() {
    let home = Home::new("");
    let _daemon = home.start();
    let fail = ["--builtin", "fail", "--arg"];
    let message = format!("message={LONG}");
    home.ok(&[&["add", "failing", "--cron", "hour=3"], &fail[..], &[&message]].concat());
    let output = home.run(&["run", "failing", "--wait"]);
    let end = String::from_utf8(output.stdout).unwrap();
    assert!(end.contains(LONG), "{end}");
    let id = text(&home.json(&["runs", "failing"])["runs"][0], "id").to_owned();

    for columns in [70, 80, 100, 132] {
        for verb in ["runs", "list"] {
            let shown = lines(&home, "dumb", columns, &[verb]);
            assert_eq!(shown.len(), 2, "{shown:#?}");
            for line in &shown {
                assert!(line.chars().count() <= columns.into(), "{verb}, {columns}: {line}");
            }
            assert!(shown[1].ends_with('…') || verb == "list", "{verb}, {columns}: {shown:#?}");
            assert!(shown[1].contains(if verb == "runs" { &id } else { "failing" }), "{shown:#?}");
        }
    }
    let narrow = lines(&home, "dumb", 80, &["runs"]);
    assert!(!narrow[0].contains("STARTED") && narrow[0].contains("DETAIL"), "{narrow:#?}");
    for whole in [lines(&home, "dumb", 400, &["runs"]), lines(&home, "dumb", 0, &["runs"])] {
        assert!(whole[0].contains("STARTED") && whole[1].contains(LONG), "{whole:#?}");
    }
    let piped = home.ok(&["runs"]);
    assert!(piped.contains("STARTED") && piped.contains(LONG), "{piped}");
    let script = format!("echo {LONG}");
    home.ok(&["add", "says", "--cron", "hour=3", "--shell", "--", &script]);
    assert!(home.ok(&["list"]).contains(LONG));
    // A sentence is no table: it is whole in any terminal.
    let ended = lines(&home, "dumb", 60, &["run", "failing", "--wait"]).concat();
    assert!(ended.contains(LONG), "{ended}");
}

#[test]
fn a_terminal_that_shows_no_colours_gets_none() {
    let home = Home::new("");
    let _daemon = home.start();
    home.ok(&["add", "held", "--cron", "hour=3", "--paused", "--builtin", "noop"]);
    let is_coloured = |kind| lines(&home, kind, 200, &["list"]).concat().contains('\u{1b}');
    assert!(is_coloured("xterm") && !is_coloured("dumb"));
    let mut command = home.command(&["list"]);
    command.env("TERM", "xterm").env("NO_COLOR", "1");
    assert!(!shown_in_terminal(command, 200).contains('\u{1b}'));
}

#[test]
fn ctrl_c_ends_the_wait_for_a_run_and_says_that_the_run_goes_on() {
    let home = Home::new("");
    let _daemon = home.start();
    home.ok(&["add", "long", "--cron", "hour=3", "--shell", "--", "echo begun; exec sleep 600"]);
    let mut waiting = home.command(&["run", "long", "--wait"]);
    let mut waiting = waiting.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut begun = String::new();
    BufReader::new(waiting.stdout.take().unwrap()).read_line(&mut begun).unwrap();
    assert_eq!(begun, "begun\n");
    kill_process(Pid::from_child(&waiting), Signal::INT).unwrap();
    let mut said = String::new();
    waiting.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(waiting.wait().unwrap().code(), Some(130), "{said}");
    let run = home.json(&["runs", "long"])["runs"][0].clone();
    let id = text(&run, "id");
    assert_eq!(text(&run, "state"), "running");
    let expected = format!("punctual: run {id} goes on (punctual logs {id} --follow");
    assert!(said.starts_with(&expected) && said.lines().count() == 1, "{said}");
    home.ok(&["cancel", id]);
}
