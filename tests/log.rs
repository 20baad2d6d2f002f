//! The daemon's own log: it is one line for each event, and whatever happens to it, jobs go on.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on ends")]

mod support;

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, PipeReader, Read};
use std::process::Stdio;

use punctual::client::Client;
use serde_json::json;
use support::{Daemon, Home, ended, run_to_end, text};

/// Failing runs whose lines are more than a pipe holds.
const FAILING: usize = 400;

/// A daemon that logs to a pipe, once it is ready, and the other end of the pipe. Nothing of it has been read.
fn logging_to_pipe() -> (Home, Daemon, PipeReader) {
    let home = Home::new("");
    let (reader, writer) = std::io::pipe().unwrap();
    let mut daemon = home.spawn_logging_to(writer);
    daemon.wait_for("READY=1");
    (home, daemon, reader)
}

/// Has many runs fail, each with a line in the log, and waits until all have ended.
async fn fail_often(client: &Client) {
    let job = |number| {
        json!({
            "id": format!("fails-{number}"),
            "trigger": {"type": "date", "run_date": "2100-01-01"},
            "task": {"type": "builtin", "name": "fail", "args": {"message": "x".repeat(200)}},
        })
    };
    let mut runs = Vec::new();
    for number in 0..FAILING {
        client.add(&job(number)).await.unwrap();
        runs.push(client.run(&format!("fails-{number}")).await.unwrap());
    }
    for run in runs {
        assert_eq!(ended(client, text(&run, "id")).await["state"], "failed");
    }
}

async fn works(client: &Client, id: &str) {
    let job = json!({
        "id": id,
        "trigger": {"type": "date", "run_date": "2100-01-01"},
        "task": {"type": "command", "argv": ["/bin/sh", "-c", "echo done"]},
    });
    client.add(&job).await.unwrap();
    assert_eq!(run_to_end(client, id).await["state"], "succeeded");
}

#[tokio::test]
async fn jobs_go_on_while_nobody_reads_the_log_and_the_daemon_can_be_stopped() {
    let (home, daemon, reader) = logging_to_pipe();
    fail_often(&home.client()).await;
    works(&home.client(), "after").await;
    assert_eq!(daemon.stop().code(), Some(0));
    drop(reader);
}

#[tokio::test]
async fn the_log_goes_on_when_it_is_read_again() {
    let (home, daemon, reader) = logging_to_pipe();
    fail_often(&home.client()).await;
    let reading = std::thread::spawn(move || {
        let lines = BufReader::new(reader).lines().map(Result::unwrap);
        lines.filter(|line| line.contains("WARN failed job=fails-")).count()
    });
    assert_eq!(daemon.stop().code(), Some(0));
    assert_eq!(reading.join().unwrap(), FAILING, "nothing is lost that the queue has room for");
}

#[tokio::test]
async fn jobs_go_on_when_the_reader_of_the_log_is_gone() {
    let (home, daemon, reader) = logging_to_pipe();
    drop(reader);
    let client = home.client();
    let long = json!({
        "id": "long",
        "trigger": {"type": "date", "run_date": "2100-01-01"},
        "task": {"type": "command", "argv": ["/bin/sh", "-c", "read -r line < go; echo end"]},
    });
    let go = home.signal("go");
    client.add(&long).await.unwrap();
    let run = client.run("long").await.unwrap();
    fail_often(&client).await;
    std::fs::write(&go.path, "on\n").unwrap();
    assert_eq!(ended(&client, text(&run, "id")).await["state"], "succeeded");
    assert_eq!(daemon.stop().code(), Some(0));
}

#[tokio::test]
async fn jobs_go_on_when_the_log_is_on_a_full_disk() {
    let home = Home::new("");
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut daemon = home.spawn_logging_to(full);
    daemon.wait_for("READY=1");
    fail_often(&home.client()).await;
    works(&home.client(), "after").await;
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn the_last_error_of_a_daemon_without_a_reader_is_its_exit_code() {
    let home = Home::new("nonsense = 1\n");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(home.spawn_logging_to(writer).ended().code(), Some(2));
    let (mut reader, writer) = std::io::pipe().unwrap();
    assert_eq!(home.spawn_logging_to(writer).ended().code(), Some(2));
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("punctual: jobs.toml") && said.lines().count() == 1, "{said}");
}

#[test]
fn a_level_that_is_not_understood_ends_the_start() {
    let mut home = Home::new("");
    home.set("PUNCTUAL_LOG", "infoo");
    let (code, said) = home.fails(&["serve"]);
    assert_eq!(code, 2);
    assert!(said.contains("PUNCTUAL_LOG=\"infoo\"") && said.contains("no level"), "{said}");
}

#[tokio::test]
async fn what_a_client_says_cannot_forge_a_line_of_the_log() {
    let home = Home::new("");
    let (daemon, client) = (home.start(), home.client());
    let job = json!({
        "id": "forger",
        "trigger": {"type": "date", "run_date": "2100-01-01"},
        "task": {"type": "command", "argv": ["/nonexistent/\u{1b}[31m\nERROR argv"]},
    });
    client.add(&job).await.unwrap();
    run_to_end(&client, "forger").await;
    let job = json!({
        "id": "sleeper",
        "trigger": {"type": "date", "run_date": "2100-01-01"},
        "task": {"type": "builtin", "name": "sleep", "args": {"seconds": 60}},
    });
    client.add(&job).await.unwrap();
    let run = client.run("sleeper").await.unwrap();
    let reason = "a\n2026-11-29T00:00:00Z ERROR reason\u{1b}[31m\u{9b}2J\r\u{2028}";
    client.cancel(text(&run, "id"), Some(reason)).await.unwrap();
    ended(&client, text(&run, "id")).await;
    assert_eq!(daemon.stop().code(), Some(0));
    let log = std::fs::read_to_string(home.log()).unwrap();
    assert!(log.contains("ERROR argv") && log.contains("ERROR reason"), "{log}");
    let is_plain = |letter: char| letter == '\n' || !letter.is_control();
    assert!(log.chars().all(is_plain) && !log.contains('\u{2028}'), "{log:?}");
    let begins = |line: &str| {
        line.starts_with("20") && !line.contains("Z ERROR reason") || line.contains("cancelled")
    };
    assert!(log.lines().all(begins), "{log}");
}

#[test]
fn a_terminal_gets_plain_lines() {
    // `script` gives the daemon a terminal.
    let home = Home::new("nonsense = 1\n");
    let program = format!("{} serve", support::PROGRAM);
    let output = std::process::Command::new("script")
        .args(["-qec", &program, "/dev/null"])
        .current_dir(home.path())
        .stdin(Stdio::null())
        .output();
    let Ok(output) = output else { return };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.starts_with("punctual: jobs.toml") && !said.contains("ansi"), "{said}");
}
