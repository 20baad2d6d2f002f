//! The daemon's own log: it has one line for each event, and jobs go on even if it cannot be written.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, PipeReader, Read};
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;

use punctual::client::Client;
use serde_json::json;
use support::definitions::{by_hand, noop};
use support::{Daemon, Home, ended, left_out, run_to_end, text};

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

#[tokio::test]
async fn a_client_cannot_forge_a_line_of_the_log() {
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
    let program = format!("{} serve", support::program());
    let output = std::process::Command::new("script")
        .args(["-qec", &program, "/dev/null"])
        .current_dir(home.path())
        .stdin(Stdio::null())
        .output();
    let Ok(output) = output else { return };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.starts_with("punctual: jobs.toml") && !said.contains("ansi"), "{said}");
}

/// Lines of the log about control requests, without their time and their process.
fn audit_lines(home: &Home) -> Vec<String> {
    let log = std::fs::read_to_string(home.log()).unwrap();
    let uid = rustix::process::getuid().as_raw();
    let by = format!(" uid={uid} user={} pid={}", own_name(), std::process::id());
    let lines = log.lines().filter_map(|line| line.split_once(" INFO control request "));
    lines.map(|(_, told)| told.strip_suffix(&by).unwrap_or(told).to_owned()).collect()
}

/// The name of the user that the tests run as.
fn own_name() -> String {
    let output = std::process::Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn each_control_request_that_changes_something_is_a_line_with_its_process() {
    let home = Home::new("");
    let (mut daemon, client) = (home.start(), home.client());
    client.add(&by_hand("a", noop())).await.unwrap();
    let mut again = by_hand("a", noop());
    again["replace_existing"] = true.into();
    client.add(&again).await.unwrap();
    assert!(
        client.add(&by_hand("a", noop())).await.is_err(),
        "a refusal changes nothing, and is no line"
    );
    client.pause("a").await.unwrap();
    client.resume("a").await.unwrap();
    let run = client.run("a").await.unwrap();
    let run = text(&run, "id").to_owned();
    ended(&client, &run).await;
    let mut sleeper = by_hand("sleeper", noop());
    sleeper["task"] = json!({"type": "builtin", "name": "sleep", "args": {"seconds": 60}});
    client.add(&sleeper).await.unwrap();
    let slept = client.run("sleeper").await.unwrap();
    let slept = text(&slept, "id").to_owned();
    client.cancel(&slept, None).await.unwrap();
    client.remove("a").await.unwrap();
    client.pause_all().await.unwrap();
    client.resume_all().await.unwrap();
    let batch: Vec<_> = (0..300).map(|number| by_hand(&format!("b{number}"), noop())).collect();
    client.add_all(&batch).await.unwrap();
    client.add_all(&[again.clone(), by_hand("b1", noop()), json!({"id": 1})]).await.unwrap();
    client.reload().await.unwrap();
    daemon.wait_for("READY=1");
    daemon.signal(rustix::process::Signal::HUP);
    daemon.wait_for("READY=1");
    assert_eq!(daemon.stop().code(), Some(0));
    let expected = [
        "action=add outcome=done job=a",
        "action=replace outcome=done job=a",
        "action=pause outcome=done job=a",
        "action=resume outcome=done job=a",
        &format!("action=run outcome=done job=a run={run}"),
        "action=add outcome=done job=sleeper",
        &format!("action=run outcome=done job=sleeper run={slept}"),
        &format!("action=cancel outcome=done job=sleeper run={slept}"),
        "action=remove outcome=done job=a",
        "action=pause-all outcome=done",
        "action=resume-all outcome=done",
        "action=add-batch outcome=done added=300 replaced=0 refused=0",
        "action=add-batch outcome=done added=1 replaced=0 refused=2",
        "action=reload outcome=done",
        "action=reload outcome=done by=signal",
    ];
    assert_eq!(audit_lines(&home), expected);
}

#[tokio::test]
async fn the_id_of_a_job_cannot_forge_the_user_of_a_control_request() {
    let home = Home::new("");
    let (daemon, client) = (home.start(), home.client());
    client.add(&by_hand("x uid=0 user=root pid=1", noop())).await.unwrap();
    client.add(&by_hand("a=\"b\"", noop())).await.unwrap();
    assert_eq!(daemon.stop().code(), Some(0));
    let expected = [
        r#"action=add outcome=done job="x uid=0 user=root pid=1""#,
        r#"action=add outcome=done job="a=\"b\"""#,
    ];
    assert_eq!(audit_lines(&home), expected);
}

#[tokio::test]
async fn the_level_is_changed_while_the_daemon_runs() {
    let home = Home::new("");
    let (daemon, client) = (home.start(), home.client());
    let start = "info,sqlx=error,sqlx_core=error";
    let shown = home.json(&["log-level"]);
    assert_eq!(shown, json!({"filter": start, "start_filter": start, "until": null}));
    client.add(&by_hand("a", noop())).await.unwrap();
    run_to_end(&client, "a").await;
    let shown = home.ok(&["log-level", "warn,ledger=debug"]);
    let debug = "warn,audit=info,sqlx=error,sqlx_core=error,ledger=debug";
    assert!(shown.starts_with(&format!("log level: {debug}\nbefore:    {start}\n")), "{shown}");
    run_to_end(&client, "a").await;
    let shown = home.json(&["log-level", "warn", "--for", "2h"]);
    assert_eq!([text(&shown, "previous"), text(&shown, "start_filter")], [debug, start]);
    assert!(shown["until"].is_string(), "{shown}");
    run_to_end(&client, "a").await;
    assert_eq!(text(&home.json(&["log-level", "--reset"]), "filter"), start);
    assert_eq!(daemon.stop().code(), Some(0));
    let log = std::fs::read_to_string(home.log()).unwrap();
    assert_eq!(log.matches("DEBUG succeeded job=a").count(), 1, "{log}");
    assert_eq!(log.matches("action=run").count(), 3, "{log}");
    let changes = log.lines().filter(|line| line.contains("action=log-level outcome=done filter="));
    assert_eq!(changes.count(), 3, "{log}");
    assert!(log.contains(&format!("filter=\"{start}\" previous=\"warn,")), "{log}");
}

#[test]
fn a_change_of_the_level_cannot_hide_control_requests_or_warnings() {
    let mut home = Home::new("");
    let daemon = home.start();
    for (filter, part) in [
        ("off", "\"off\""),
        ("error", "\"error\""),
        ("debug,audit=off", "\"audit=off\""),
        ("punctual::scheduler=off", "\"punctual::scheduler=off\""),
    ] {
        let (code, said) = home.fails(&["log-level", filter]);
        assert!(code == 1 && said.contains(part) && said.contains("PUNCTUAL_LOG"), "{said}");
    }
    home.ok(&["log-level", "warn"]);
    home.ok(&["pause", "--all"]);
    assert_eq!(daemon.stop().code(), Some(0));
    let log = std::fs::read_to_string(home.log()).unwrap();
    assert!(log.contains("action=pause-all"), "{log}");
    home.set("PUNCTUAL_LOG", "error");
    let daemon = home.start();
    home.ok(&["log-level", "error"]);
    assert_eq!(home.fails(&["log-level", "off"]).0, 1);
    assert_eq!(daemon.stop().code(), Some(0));
}

#[tokio::test]
async fn a_change_of_the_level_ends_when_its_time_is_over() {
    let (home, daemon, reader) = logging_to_pipe();
    home.ok(&["log-level", "debug", "--for", "10ms"]);
    let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
    let expired = lines.find(|line| line.contains("by=\"time limit\"")).unwrap();
    assert!(expired.contains("action=log-level outcome=done filter=\"info,"), "{expired}");
    let start = "info,sqlx=error,sqlx_core=error";
    let shown = home.json(&["log-level"]);
    assert_eq!(shown, json!({"filter": start, "start_filter": start, "until": null}));
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn a_filter_that_is_not_understood_is_refused_in_the_same_words_everywhere() {
    let mut home = Home::new("");
    let daemon = home.start();
    let cases = [
        ("foo", "\"foo\" is not a level"),
        (",", "\"\" is not a level"),
        ("3", "\"3\" is not a level"),
        ("punctaul=debug", "there is no module \"punctaul\""),
        ("punctual::stoer=debug", "there is no module \"punctual::stoer\""),
    ];
    for (filter, why) in cases {
        let (code, said) = home.fails(&["log-level", filter]);
        assert!(code == 1 && said.contains(why) && said.contains("filter"), "{said}");
    }
    for time in ["0s", "8d"] {
        let (code, said) = home.fails(&["log-level", "debug", "--for", time]);
        assert!(code == 1 && said.contains("for") && said.contains("604800 seconds"), "{said}");
    }
    assert_eq!(home.fails(&["log-level", "debug", "--for", "long"]).0, 2);
    assert_eq!(home.fails(&["log-level", "--for", "10m"]).0, 2);
    // A variable that is empty is like one that is not set; a filter that is empty would not say what is meant.
    let (code, said) = home.fails(&["log-level", ""]);
    assert!(code == 1 && said.contains("filter: \"\" is not understood"), "{said}");
    assert_eq!(home.json(&["log-level"])["until"], json!(null), "nothing has changed");
    assert_eq!(daemon.stop().code(), Some(0));
    for (filter, why) in cases {
        home.set("PUNCTUAL_LOG", filter);
        let (code, said) = home.fails(&["serve"]);
        assert!(code == 2 && said.contains(why), "{said}");
        assert!(said.contains(&format!("PUNCTUAL_LOG=\"{filter}\"")), "{said}");
    }
}

#[tokio::test]
async fn a_hook_run_is_logged_as_such_with_the_run_that_it_reports() {
    let home = Home::new("");
    let (daemon, client) = (home.start(), home.client());
    let fail = |message| json!({"type": "builtin", "name": "fail", "args": {"message": message}});
    let mut job = by_hand("try", noop());
    job["task"] = fail("own");
    job["on_failure"] = fail("of the hook");
    client.add(&job).await.unwrap();
    let subject = run_to_end(&client, "try").await;
    let subject = text(&subject, "id");
    let hook = loop {
        let rows = support::ledger(&client, "try").await;
        if let Some(row) = rows.iter().find(|row| row["subject"] == subject) {
            break text(row, "id").to_owned();
        }
    };
    ended(&client, &hook).await;
    assert_eq!(daemon.stop().code(), Some(0));
    let log = std::fs::read_to_string(home.log()).unwrap();
    let own = format!("WARN failed job=try run={subject} attempt=1 ");
    let of_hook =
        format!("WARN failed job=try run={hook} hook=on_failure subject={subject} attempt=1 ");
    assert!(log.contains(&own) && log.contains(&of_hook), "{log}");
}

/// Starts the program with a folder of its home in place of `/run/systemd/journal`.
const WITH_JOURNAL: &str = r#"exec unshare --mount /bin/sh -c '
    mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal &&
    mount --bind "$STATE_DIRECTORY/journal" /run/systemd/journal && exec "$@"' sh "$@""#;

/// A home whose daemons find this socket in place of journald's, and the file that is their standard error. None where
/// the kernel does not let a test mount.
fn with_journal() -> Option<(Home, UnixDatagram, std::fs::File)> {
    let mounting = std::process::Command::new("unshare").args(["--mount", "true"]).status();
    if !mounting.is_ok_and(|status| status.success()) {
        left_out("this needs a mount namespace");
        return None;
    }
    let mut home = Home::new("").starting_by(WITH_JOURNAL);
    std::fs::create_dir(home.path().join("journal")).unwrap();
    let journal = UnixDatagram::bind(home.path().join("journal/socket")).unwrap();
    journal.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let stderr = std::fs::File::create(home.log()).unwrap();
    let status = rustix::fs::fstat(&stderr).unwrap();
    home.set("JOURNAL_STREAM", &format!("{}:{}", status.st_dev, status.st_ino));
    Some((home, journal, stderr))
}

/// The next entry of the journal whose message begins so, as its fields.
fn next_entry(journal: &UnixDatagram, message: &str) -> Vec<String> {
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let length = journal.recv(&mut buffer).unwrap();
        let entry = str::from_utf8(&buffer[..length]).unwrap();
        if entry.starts_with(&format!("MESSAGE={message}")) {
            return entry.lines().map(str::to_owned).collect();
        }
    }
}

#[tokio::test]
async fn journald_gets_entries_with_priority_and_fields_and_lines_while_it_is_gone() {
    let Some((home, journal, stderr)) = with_journal() else { return };
    let mut daemon = home.spawn_logging_to(stderr);
    let entry = next_entry(&journal, "ready socket=");
    assert!(entry.contains(&"PRIORITY=6".to_owned()), "{entry:?}");
    daemon.wait_for("READY=1");
    let client = home.client();
    let mut job = by_hand("fails", noop());
    job["task"] = json!({"type": "builtin", "name": "fail", "args": {"message": "a\nPRIORITY=0"}});
    client.add(&job).await.unwrap();
    let entry = next_entry(&journal, "control request action=add outcome=done job=fails");
    let uid = format!("PUNCTUAL_UID={}", rustix::process::getuid().as_raw());
    let pid = format!("PUNCTUAL_PID={}", std::process::id());
    for field in ["PRIORITY=6", "PUNCTUAL_ACTION=add", "PUNCTUAL_JOB=fails", &uid, &pid] {
        assert!(entry.iter().any(|line| line == field), "{field}: {entry:?}");
    }
    let run = client.run("fails").await.unwrap();
    let run = format!("PUNCTUAL_RUN={}", text(&run, "id"));
    let entry = next_entry(&journal, "failed job=fails");
    let error = "PUNCTUAL_ERROR=a\\nPRIORITY=0";
    let fields = ["PRIORITY=4", "SYSLOG_IDENTIFIER=punctual", "PUNCTUAL_TARGET=ledger"];
    let own = ["PUNCTUAL_JOB=fails", "PUNCTUAL_ATTEMPT=1", error, &run];
    for field in fields.iter().chain(&own) {
        assert!(entry.iter().any(|line| line == field), "{field}: {entry:?}");
    }
    assert_eq!(std::fs::read_to_string(home.log()).unwrap(), "", "nothing is logged twice");
    drop(journal);
    run_to_end(&client, "fails").await;
    assert_eq!(daemon.stop().code(), Some(0));
    let log = std::fs::read_to_string(home.log()).unwrap();
    assert!(log.lines().any(|line| line.starts_with("<4>failed job=fails")), "{log}");
    assert!(log.lines().all(|line| line.starts_with('<')), "{log}");
}

#[tokio::test]
async fn jobs_go_on_while_journald_takes_nothing_and_the_daemon_can_be_stopped() {
    let Some((home, journal, stderr)) = with_journal() else { return };
    let mut daemon = home.spawn_logging_to(stderr);
    daemon.wait_for("READY=1");
    fail_often(&home.client()).await;
    works(&home.client(), "after").await;
    assert_eq!(daemon.stop().code(), Some(0));
    drop(journal);
}

#[test]
fn under_journald_the_reason_why_a_daemon_ends_is_an_error_of_its_unit() {
    let Some((mut home, _journal, stderr)) = with_journal() else { return };
    home.set("PUNCTUAL_LOG", "foo");
    assert_eq!(home.spawn_logging_to(stderr.try_clone().unwrap()).ended().code(), Some(2));
    let log = std::fs::read_to_string(home.log()).unwrap();
    assert!(log.starts_with("<3>punctual: PUNCTUAL_LOG=\"foo\" is not understood"), "{log}");
    assert_eq!(log.lines().count(), 1, "{log}");
}
