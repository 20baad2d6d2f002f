//! The output of runs, for clients that follow it while it is written and for clients that read it later.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use punctual::client::{Client, ClientError, OutputFollower};
use punctual::clock::Timestamp;
use punctual::history::FOLLOWERS_MAX;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};
use support::definitions::{by_hand, shell, with};
use support::servers::postgres::PostgresServer;
use support::{Daemon, Home, PATIENCE, ended, run_to_end, text};

/// One command at a time, so that a second one waits.
const ONE_AT_A_TIME: &str = "[executors.processpool]\ntype = \"processpool\"\nmax_workers = 1\n";

/// A command that goes on with each line that is written to a pipe.
struct Held {
    pipe: std::path::PathBuf,
    // Open as long as the test goes on, so that neither end waits for the other to be opened.
    _open: support::Signal,
}

impl Held {
    fn new(home: &Home, name: &str) -> Self {
        let signal = home.signal(name);
        Self { pipe: signal.path.clone(), _open: signal }
    }

    /// Shell words that wait for the next line.
    fn wait(&self) -> String {
        format!("read -r line < {}", self.pipe.display())
    }

    fn go_on(&self) {
        std::fs::write(&self.pipe, "on\n").unwrap();
    }
}

async fn add(client: &Client, id: &str, script: &str, more: Value) {
    client.add(&with(by_hand(id, shell(script)), more)).await.unwrap();
}

/// Starts a run of a new job that does this.
async fn start(client: &Client, id: &str, script: &str) -> String {
    add(client, id, script, json!({})).await;
    text(&client.run(id).await.unwrap(), "id").to_owned()
}

async fn next(lines: &mut OutputFollower) -> Option<Value> {
    tokio::time::timeout(PATIENCE, lines.next()).await.expect("nothing came").unwrap()
}

/// The text of the next line.
async fn said(lines: &mut OutputFollower) -> String {
    let told = next(lines).await.unwrap();
    told["text"].as_str().unwrap_or_else(|| panic!("no line: {told}")).to_owned()
}

/// What comes up to the end: texts of lines, and everything else as it is.
async fn rest(lines: &mut OutputFollower) -> Vec<Value> {
    let mut rest = Vec::new();
    while let Some(told) = next(lines).await {
        rest.push(told.get("text").cloned().unwrap_or(told));
    }
    rest
}

fn succeeded() -> Value {
    json!({"state": "succeeded", "attempt": 1})
}

fn status_of(refused: Result<OutputFollower, ClientError>) -> u16 {
    match refused {
        Err(ClientError::Refused { status, .. }) => status,
        other => panic!("not refused: {other:?}"),
    }
}

fn daemon(config: &str) -> (Home, Daemon, Client) {
    let home = Home::new(config);
    let (daemon, client) = (home.start(), home.client());
    (home, daemon, client)
}

/// The command line, following.
fn follow(home: &Home, arguments: &[&str]) -> (Child, BufReader<ChildStdout>) {
    let mut command = home.command(&[&["logs", "--follow"], arguments].concat());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    (child, lines)
}

fn read_line(lines: &mut impl BufRead) -> String {
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

#[tokio::test]
async fn a_line_is_seen_while_its_run_goes_on() {
    let (home, _daemon, client) = daemon("");
    let held = Held::new(&home, "held");
    let run = start(&client, "talks", &format!("echo first; {}; echo second", held.wait())).await;
    let (mut one, mut other) =
        (client.follow(&run, "").await.unwrap(), client.follow(&run, "").await.unwrap());
    assert_eq!([said(&mut one).await, said(&mut other).await], ["first", "first"]);
    let so_far = client.output(&run).await.unwrap();
    assert_eq!((text(&so_far, "state"), text(&so_far, "output")), ("running", "first\n"));
    // A follower that comes later misses nothing, and one that leaves disturbs no other.
    let mut late = client.follow(&run, "").await.unwrap();
    assert_eq!(said(&mut late).await, "first");
    drop(other);
    held.go_on();
    for lines in [&mut one, &mut late] {
        assert_eq!(rest(lines).await, [json!("second"), succeeded()]);
    }
    let mut after = client.follow(&run, "").await.unwrap();
    assert_eq!(rest(&mut after).await, [json!("first"), json!("second"), succeeded()]);
    assert_eq!(status_of(client.follow("nothing", "").await), 404);
    for bad in ["attempt=2", "attempt=0"] {
        assert_eq!(status_of(client.follow(&run, bad).await), 422, "{bad}");
    }
}

#[tokio::test]
async fn stdout_and_stderr_are_distinguished_with_rising_times() {
    let (home, _daemon, client) = daemon("");
    let held = Held::new(&home, "held");
    let wait = held.wait();
    let script = format!("echo out; {wait}; echo err >&2; {wait}; echo out again");
    let run = start(&client, "talks", &script).await;
    let mut lines = client.follow(&run, "").await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(next(&mut lines).await.unwrap());
        held.go_on();
    }
    let streams: Vec<&str> = seen.iter().map(|line| text(line, "stream")).collect();
    assert_eq!(streams, ["stdout", "stderr", "stdout"]);
    let times: Vec<Timestamp> = seen.iter().map(|line| text(line, "at").parse().unwrap()).collect();
    assert!(times.is_sorted_by(|before, after| before < after), "{times:?}");
    assert_eq!(rest(&mut lines).await, [succeeded()]);
    let kept = client.output(&run).await.unwrap();
    assert_eq!(kept["lines"].as_array().unwrap(), &seen);
    let shown = home.ok(&["logs", "talks", "-t"]);
    let second = shown.lines().nth(1).unwrap();
    assert!(second.ends_with(" stderr err"), "{second}");
}

#[tokio::test]
async fn a_run_that_waits_is_followed_from_its_first_line_on() {
    let (home, _daemon, client) = daemon(ONE_AT_A_TIME);
    let held = Held::new(&home, "held");
    let busy = start(&client, "busy", &format!("echo busy; {}", held.wait())).await;
    let mut before = client.follow(&busy, "").await.unwrap();
    assert_eq!(said(&mut before).await, "busy");
    let waits = start(&client, "waits", "echo at last").await;
    let mut lines = client.follow(&waits, "").await.unwrap();
    assert_eq!(text(&client.run_by_id(&waits).await.unwrap(), "state"), "pending");
    held.go_on();
    assert_eq!(rest(&mut lines).await, [json!("at last"), succeeded()]);
    assert_eq!(rest(&mut before).await, [succeeded()]);
}

#[tokio::test]
async fn a_run_that_is_tried_again_goes_on_to_be_followed() {
    let (home, _daemon, client) = daemon("");
    let held = Held::new(&home, "held");
    let script = format!("echo try $PUNCTUAL_ATTEMPT; {}; exit 3", held.wait());
    add(&client, "fails", &script, json!({"retry": {"max_attempts": 2, "delay": 0.1}})).await;
    let run = text(&client.run("fails").await.unwrap(), "id").to_owned();
    let mut lines = client.follow(&run, "").await.unwrap();
    let (mut child, mut printed) = follow(&home, &["fails"]);
    assert_eq!(said(&mut lines).await, "try 1");
    assert_eq!(read_line(&mut printed), "try 1");
    held.go_on();
    assert_eq!(next(&mut lines).await, Some(json!({"attempt": 2})));
    assert_eq!(said(&mut lines).await, "try 2");
    held.go_on();
    let failed = json!({"state": "failed", "attempt": 2});
    assert_eq!(rest(&mut lines).await, std::slice::from_ref(&failed));
    assert_eq!([(); 2].map(|()| read_line(&mut printed)), ["… attempt 2 …", "try 2"]);
    assert_eq!(child.wait().unwrap().code(), Some(1), "it has failed");
    // Both are there to be read later, each by itself or the second after the first.
    let mut all = client.follow(&run, "attempt=1").await.unwrap();
    assert_eq!(
        rest(&mut all).await,
        [json!("try 1"), json!({"attempt": 2}), json!("try 2"), failed]
    );
    assert_eq!(home.ok(&["logs", "fails"]), "try 2\n");
    assert_eq!(home.ok(&["logs", &run, "--attempt", "1"]), "try 1\n");
    assert!(home.fails(&["logs", &run, "--attempt", "3"]).1.contains("attempt: "));
    let shown = home.ok(&["runs", &run]);
    assert!(shown.contains("exit code 3") && shown.contains("TRY  STATE"), "{shown}");
    let columns = shown.lines().filter(|line| line.contains("failed")).count();
    assert_eq!(columns, 3, "the run and each attempt: {shown}");
}

#[tokio::test]
async fn followers_are_limited_and_one_that_leaves_frees_its_place_at_once() {
    let (home, _daemon, client) = daemon("");
    let held = Held::new(&home, "held");
    let run = start(&client, "quiet", &held.wait()).await;
    let mut followers = Vec::new();
    for _ in 0..FOLLOWERS_MAX {
        followers.push(client.follow(&run, "").await.unwrap());
    }
    assert_eq!(status_of(client.follow(&run, "").await), 503);
    // The run says nothing, so nothing is written by which the daemon could notice.
    drop(followers.pop());
    let freed = async {
        while client.follow(&run, "").await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, freed).await.expect("no place became free");
    held.go_on();
    assert_eq!(rest(&mut followers[0]).await, [succeeded()]);
}

#[tokio::test]
async fn a_client_that_closes_its_sending_side_still_gets_every_line() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (home, _daemon, client) = daemon("");
    let held = Held::new(&home, "held");
    let run = start(&client, "talks", &format!("{}; echo said", held.wait())).await;
    let mut stream = tokio::net::UnixStream::connect(home.socket()).await.unwrap();
    let request = format!(
        "GET /v1/runs/{run}/output?follow=true HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    // Another one has been answered since, so the daemon has seen it.
    let mut other = client.follow(&run, "").await.unwrap();
    held.go_on();
    assert_eq!(rest(&mut other).await, [json!("said"), succeeded()]);
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.contains("application/x-ndjson"), "{answer}");
    assert!(answer.contains("\"said\"") && answer.contains("\"succeeded\""), "{answer}");
}

#[tokio::test]
async fn the_beginning_and_the_end_of_a_long_output_are_kept_and_the_cut_is_said() {
    let (home, _daemon, client) = daemon("");
    let script = "i=0; while [ $i -lt 100000 ]; do echo line $i; i=$((i+1)); done";
    add(&client, "long", script, json!({})).await;
    let run = run_to_end(&client, "long").await;
    let output = client.output(text(&run, "id")).await.unwrap();
    let lines = output["lines"].as_array().unwrap();
    assert_eq!(text(&lines[0], "text"), "line 0");
    assert_eq!(text(lines.last().unwrap(), "text"), "line 99999");
    let cut = output["cut"].as_u64().unwrap();
    assert_eq!(lines.len() + usize::try_from(cut).unwrap(), 100_000);
    assert_eq!(output["bytes"], 1_088_890);
    let after = usize::try_from(output["cut_after"].as_u64().unwrap()).unwrap();
    let shown = home.ok(&["logs", "long"]);
    let printed: Vec<&str> = shown.lines().collect();
    assert_eq!(printed.len(), lines.len() + 1);
    assert_eq!(printed[after], format!("… {cut} lines are not kept …"));
    assert_eq!(printed[after - 1], format!("line {}", after - 1));
    let told = rest(&mut client.follow(text(&run, "id"), "").await.unwrap()).await;
    assert_eq!(told[after], json!({"missed": cut}));
    assert_eq!(told.len(), lines.len() + 2);
}

#[tokio::test]
async fn the_command_line_prints_lines_as_they_come_and_ends_as_the_run_does() {
    let (home, _daemon, client) = daemon("");
    let held = Held::new(&home, "held");
    start(&client, "talks", &format!("echo first; {}; echo 'second  '", held.wait())).await;
    let (mut plain, mut lines) = follow(&home, &["talks"]);
    let (mut as_json, mut objects) = follow(&home, &["talks", "--json"]);
    assert_eq!(read_line(&mut lines), "first");
    let object: Value = serde_json::from_str(&read_line(&mut objects)).unwrap();
    assert_eq!((text(&object, "text"), text(&object, "stream")), ("first", "stdout"));
    assert!(home.ok(&["logs", "talks", "--timestamps"]).trim_end().ends_with("stdout first"));
    held.go_on();
    assert_eq!(read_line(&mut lines), "second");
    assert_eq!((read_line(&mut lines), plain.wait().unwrap().code()), (String::new(), Some(0)));
    read_line(&mut objects);
    let end: Value = serde_json::from_str(&read_line(&mut objects)).unwrap();
    assert_eq!((end, as_json.wait().unwrap().code()), (succeeded(), Some(0)));
    assert_eq!(home.fails(&["logs", "-f", "nothing"]).0, 1);
}

#[tokio::test]
async fn a_daemon_that_ends_ends_the_streams_of_its_followers() {
    let (home, daemon, client) = daemon("[scheduler]\ndrain_seconds = 0\n");
    let run = start(&client, "long", "echo begun; exec sleep 600").await;
    let mut lines = client.follow(&run, "").await.unwrap();
    let (mut child, mut printed) = follow(&home, &["long"]);
    assert_eq!((said(&mut lines).await, read_line(&mut printed)), ("begun".into(), "begun".into()));
    assert!(daemon.stop().success());
    assert_eq!(next(&mut lines).await, None, "nothing tells of an end of the run");
    assert_eq!(child.wait().unwrap().code(), Some(3));
    let daemon = home.start();
    let held = Held::new(&home, "held");
    let run = start(&client, "killed", &format!("echo begun; {}", held.wait())).await;
    let mut lines = client.follow(&run, "").await.unwrap();
    assert_eq!(said(&mut lines).await, "begun");
    daemon.kill();
    let broken = tokio::time::timeout(PATIENCE, lines.next()).await.unwrap();
    assert!(matches!(broken, Err(ClientError::Unreachable { .. })), "{broken:?}");
}

#[tokio::test]
async fn the_output_of_a_run_is_printed_while_the_client_waits_for_it() {
    let (home, _daemon, client) = daemon("");
    let held = Held::new(&home, "held");
    add(&client, "talks", &format!("echo first; {}; exit 2", held.wait()), json!({})).await;
    let mut command = home.command(&["run", "talks", "--wait"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    assert_eq!(read_line(&mut lines), "first");
    held.go_on();
    let last = read_line(&mut lines);
    assert!(last.contains(" failed after ") && last.ends_with("exit code 2"), "{last}");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let runs = client.runs("job=talks").await.unwrap();
    let run = ended(&client, text(&runs["runs"][0], "id")).await;
    assert_eq!(home.json(&["runs", text(&run, "id")])["id"], run["id"]);
    assert_eq!(home.json(&["runs", "talks"])["runs"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_output_of_a_run_on_another_node_comes_when_its_attempt_has_ended() {
    let Some(server) = PostgresServer::shared() else { return };
    let config = format!("[store]\nurl = \"{}\"\n", server.database("output"));
    let (home, _daemon, client) = daemon(&config);
    let (_elsewhere, _other_daemon, other) = daemon(&config);
    let held = Held::new(&home, "held");
    let run = start(&client, "talks", &format!("echo first; {}; echo second", held.wait())).await;
    let mut here = client.follow(&run, "").await.unwrap();
    let mut there = other.follow(&run, "").await.unwrap();
    assert_eq!(said(&mut here).await, "first");
    let seen = async {
        while text(&other.output(&run).await.unwrap(), "output") != "first\n" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.expect("the output is not seen elsewhere");
    held.go_on();
    assert_eq!(rest(&mut there).await, [json!("first"), json!("second"), succeeded()]);
    assert_eq!(rest(&mut here).await, [json!("second"), succeeded()]);
}

/// Waits until the file of a daemon's store has this text in an output.
async fn saved(home: &Home, text: &str) {
    let options = SqliteConnectOptions::new().filename(home.path().join("punctual.db"));
    let mut store = SqliteConnection::connect_with(&options.read_only(true)).await.unwrap();
    let count = "select count(*) from attempt_outputs where kept like ?";
    let saving = async {
        loop {
            let query = sqlx::query_scalar::<_, i64>(count).bind(format!("%{text}%"));
            if query.fetch_one(&mut store).await.unwrap() > 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, saving).await.expect("the output was not saved");
}

#[tokio::test]
async fn the_output_of_a_run_survives_a_crash_of_the_daemon() {
    let (home, daemon, client) = daemon("");
    let held = Held::new(&home, "held");
    let wait = held.wait();
    let script = format!("echo first; {wait}; echo second; printf half; {wait}");
    add(&client, "talks", &script, json!({"on_crash": "lose"})).await;
    let run = text(&client.run("talks").await.unwrap(), "id").to_owned();
    saved(&home, "first").await;
    held.go_on();
    saved(&home, "half").await;
    daemon.kill();
    let _daemon = home.start();
    assert_eq!(text(&client.run_by_id(&run).await.unwrap(), "state"), "lost");
    assert_eq!(home.ok(&["logs", &run]), "first\nsecond\nhalf");
}

#[tokio::test]
async fn the_output_of_a_run_until_a_stop_interrupted_it_is_kept() {
    let (home, daemon, client) = daemon("[scheduler]\ndrain_seconds = 0\n");
    let held = Held::new(&home, "held");
    let script = format!("trap 'echo cleaning up; exit 1' TERM; echo first; {}", held.wait());
    add(&client, "talks", &script, json!({"on_crash": "lose"})).await;
    let run = text(&client.run("talks").await.unwrap(), "id").to_owned();
    assert_eq!(said(&mut client.follow(&run, "").await.unwrap()).await, "first");
    assert!(daemon.stop().success());
    let _daemon = home.start();
    assert_eq!(text(&client.run_by_id(&run).await.unwrap(), "state"), "lost");
    assert_eq!(home.ok(&["logs", &run]), "first\ncleaning up\n");
}

#[tokio::test]
async fn in_a_pipe_an_output_is_what_the_run_printed_also_where_lines_are_empty() {
    let (home, _daemon, client) = daemon("");
    let long = format!("{}{:010000}\n{:09000}", "ä–".repeat(1500), 7, 8);
    let both = format!("{:09000}.\nend\nerror", 7);
    let framed = "\n\n  a \u{1b}[7m\r\n\tb\n\n\n";
    for (id, script, printed) in [
        ("framed", r"printf '\n\n  a \033[7m\r\n\tb\n\n\n'", framed),
        ("empty", r"printf '\n\n'", "\n\n"),
        ("open", "printf end", "end"),
        // Longer than what is kept as one line, with letters of several bytes.
        (
            "long",
            r"printf '%0.sä–' $(seq 1500); printf '%010000d' 7; echo; printf '%09000d' 8",
            &long,
        ),
        // What has no line break of its own gets one where something else follows.
        ("both", "printf '%09000d' 7; printf error >&2; echo .; printf end", &both),
    ] {
        add(&client, id, script, json!({})).await;
        run_to_end(&client, id).await;
        assert_eq!(home.ok(&["logs", id]), printed, "{id}");
        assert_eq!(home.ok(&["logs", id, "--follow"]), printed, "{id}");
        let waited = home.ok(&["run", id, "--wait"]);
        assert_eq!(waited.get(..printed.len()), Some(printed), "{id}: {waited:?}");
    }
    let stamped = home.ok(&["logs", "framed", "--timestamps"]);
    assert_eq!(stamped.matches(" stdout ").count(), framed.matches('\n').count(), "{stamped}");
    let stamped = home.ok(&["logs", "both", "--timestamps"]);
    assert_eq!(stamped.lines().count(), 4, "{stamped}");
    let lines = home.json(&["logs", "both"])["lines"].clone();
    let open: Vec<bool> =
        lines.as_array().unwrap().iter().map(|line| line["open"] == true).collect();
    assert_eq!(open, [true, false, true, true]);
}

#[tokio::test]
async fn of_many_short_lines_the_documented_bytes_are_kept() {
    let (home, _daemon, client) = daemon("");
    add(&client, "counts", "seq 1 20000", json!({})).await;
    run_to_end(&client, "counts").await;
    let logs = home.ok(&["logs", "counts"]);
    let (head, tail) = logs.split_once("… 8310 lines are not kept …\n").unwrap();
    assert_eq!((head.len(), tail.len()), (16 * 1024 - 1, 48 * 1024));
    assert!(head.starts_with("1\n2\n") && tail.ends_with("19999\n20000\n"));
}

#[tokio::test]
async fn a_client_that_does_not_read_delays_nobody_and_learns_what_it_missed() {
    let (home, _daemon, client) = daemon("");
    let held = Held::new(&home, "held");
    let script =
        format!("{}; i=0; while [ $i -lt 100000 ]; do echo $i; i=$((i+1)); done", held.wait());
    let run = start(&client, "writes", &script).await;
    let mut lines = client.follow(&run, "").await.unwrap();
    held.go_on();
    assert_eq!(text(&ended(&client, &run).await, "state"), "succeeded");
    let told = rest(&mut lines).await;
    let missed: u64 = told.iter().filter_map(|told| told["missed"].as_u64()).sum();
    let seen = told.iter().filter(|told| told.is_string()).count();
    assert!(missed > 0, "so much is kept nowhere");
    assert_eq!(missed + u64::try_from(seen).unwrap(), 100_000);
    assert_eq!(told.last(), Some(&succeeded()));
}
