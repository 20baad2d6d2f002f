//! Calls that get no response, or not in time, or are cancelled.

use std::time::Duration;

use punctual::clock::{Clock, SystemClock};
use punctual::executor::Executor;
use punctual::run::{Outcome, RunId};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{bench, failure, result};
use support::pools::{Bench, http_call};
use support::port::Port;
use support::web::{Asked, Step, Web, answer};
use support::{Home, PATIENCE};

/// A time limit that is over only after everything has happened that comes before it, also on a busy machine.
pub(crate) const PLENTY: Duration = Duration::from_secs(5);

fn hang(_: &Asked) -> Vec<Step> {
    vec![Step::Hang]
}

fn drip(_: &Asked) -> Vec<Step> {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\ndrop\n";
    vec![Step::Send(head.to_owned()), Step::Hang]
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_failure_that_may_pass() {
    let port = Port::reserve();
    let address = format!("127.0.0.1:{}", port.number());
    let mut bench = bench();
    let completion = bench.call(json!({"url": format!("http://{address}/secret-path")})).await;
    let expected = format!("could not connect to {address}: Connection refused (os error 111)");
    assert_eq!(failure(&completion), (expected.as_str(), false));
    assert!(completion.output.is_empty());
    let completion = bench.call(json!({"url": "https://nowhere.invalid"})).await;
    let (error, is_permanent) = failure(&completion);
    assert!(
        error.starts_with("could not connect to nowhere.invalid:443: failed to lookup"),
        "{error}"
    );
    assert!(!is_permanent);
}

#[tokio::test]
async fn a_server_that_is_too_slow_is_a_failure_that_may_pass() {
    // It takes connections, and never speaks of TLS.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = silent.local_addr().unwrap();
    let (mut slow, mut dripping) = (Web::start(hang).await, Web::start(drip).await);
    let cases = [
        (
            json!({"url": format!("https://{silent}/"), "connect_timeout": 0.2}),
            format!("could not connect to {silent} within 200ms"),
        ),
        (
            json!({"url": format!("https://{silent}/"), "timeout": PLENTY.as_secs()}),
            format!("{silent} did not answer within 5.0s"),
        ),
        (
            json!({"url": slow.url("/"), "timeout": PLENTY.as_secs(), "connect_timeout": 60}),
            format!("{} did not answer within 5.0s", slow.address),
        ),
        (
            json!({"url": dripping.url("/"), "timeout": PLENTY.as_secs()}),
            format!("{} did not send its whole answer within 5.0s", dripping.address),
        ),
    ];
    let mut calls = JoinSet::new();
    for (call, error) in cases {
        calls.spawn(async move {
            let completion = bench().call(call.clone()).await;
            assert_eq!(failure(&completion), (error.as_str(), false), "{call}");
        });
    }
    calls.join_all().await;
    slow.left().await;
    dripping.left().await;
}

#[tokio::test]
async fn the_part_of_a_response_that_came_before_the_timeout_is_kept() {
    let web = Web::start(drip).await;
    let mut assignment = http_call(json!({"url": web.url("/")}));
    assignment.timeout = Some(PLENTY);
    let mut bench = bench();
    bench.hand_over(assignment);
    let completion = bench.ended().await;
    let error = "it did not end within 5.0s".to_owned();
    assert_eq!(completion.outcome, Outcome::TimedOut { error }, "the job's own limit");
    assert_eq!(completion.output.text(), "HTTP/1.1 200 OK\ncontent-length: 1000\n\ndrop\n");
}

#[tokio::test]
async fn a_call_that_is_cancelled_is_dropped_wherever_it_is() {
    for server in [hang, drip] {
        let mut web = Web::start(server).await;
        let mut bench = bench();
        let assignment = http_call(json!({"url": web.url("/")}));
        let run_id = assignment.run_id.clone();
        bench.hand_over(assignment);
        web.asked().await;
        bench.pools.cancel(&run_id, "no longer needed");
        let reason = "no longer needed".to_owned();
        assert_eq!(bench.ended().await.outcome, Outcome::Cancelled { reason });
        web.left().await;
    }
}

#[tokio::test]
async fn a_call_that_is_cancelled_before_it_begins_sends_nothing() {
    let mut web = Web::start(hang).await;
    let mut bench = bench();
    // No task is polled before this one waits.
    let assignment = http_call(json!({"url": web.url("/")}));
    let run_id = assignment.run_id.clone();
    bench.hand_over(assignment);
    bench.pools.cancel(&run_id, "not now");
    assert_eq!(bench.ended().await.outcome, Outcome::Cancelled { reason: "not now".to_owned() });
    assert!(web.is_quiet());
}

#[tokio::test]
async fn a_stop_drops_a_call_and_reports_nothing() {
    let mut web = Web::start(hang).await;
    let mut bench = bench();
    bench.hand_over(http_call(json!({"url": web.url("/")})));
    web.asked().await;
    bench.pools.stop().await;
    drop(bench.pools);
    web.left().await;
    let next = tokio::time::timeout(PATIENCE, bench.completions.recv());
    assert!(next.await.expect("some work has not ended").is_none());
}

#[tokio::test]
async fn a_pool_makes_no_more_calls_at_a_time_than_it_has_workers() {
    for pool in ["threads", "processes"] {
        let mut web = Web::start(hang).await;
        let mut bench = bench();
        let start = |bench: &mut Bench, number: u32| {
            let mut assignment = http_call(json!({"url": web.url("/")}));
            assignment.run_id = RunId(number.to_string().into());
            let run_id = assignment.run_id.clone();
            bench.pools.start(pool, assignment);
            run_id
        };
        let runs: Vec<RunId> = (0..4).map(|number| start(&mut bench, number)).collect();
        web.asked().await;
        web.asked().await;
        // Neither of those that wait, and then one that runs.
        bench.pools.cancel(&runs[3], "waits");
        assert_eq!(bench.ended().await.run_id, runs[3]);
        assert!(web.is_quiet());
        bench.pools.cancel(&runs[0], "runs");
        assert_eq!(bench.ended().await.run_id, runs[0]);
        assert_eq!(web.asked().await.header("punctual-run-id"), Some("2"));
    }
}

#[tokio::test]
async fn the_time_of_a_call_begins_once_it_has_a_place() {
    let mut web = Web::start(hang).await;
    let mut bench = bench();
    let start = |bench: &mut Bench, number: u32, limit: Option<Duration>| {
        let mut assignment = http_call(json!({"url": web.url("/")}));
        assignment.run_id = RunId(number.to_string().into());
        assignment.timeout = limit;
        let run_id = assignment.run_id.clone();
        bench.hand_over(assignment);
        run_id
    };
    let soon = Some(Duration::from_millis(200));
    let runs = [(0, None), (1, None), (2, soon), (3, None), (4, None)];
    let runs = runs.map(|(number, limit)| start(&mut bench, number, limit));
    web.asked().await;
    web.asked().await;
    // One that is cancelled while it waits has not begun before.
    let before = SystemClock.now();
    bench.pools.cancel(&runs[4], "waits");
    let waited = bench.ended().await;
    assert_eq!(waited.run_id, runs[4]);
    assert!(waited.started_at >= before, "{waited:?}");
    bench.pools.cancel(&runs[0], "runs");
    let first = bench.ended().await;
    // The next one gets its place, and runs into its limit there.
    let late = bench.ended().await;
    assert_eq!(late.run_id, runs[2]);
    let error = "it did not end within 200ms".to_owned();
    assert_eq!(late.outcome, Outcome::TimedOut { error });
    assert!(late.started_at >= first.finished_at, "{late:?}");
    // The one after that is cancelled while it runs.
    while web.asked().await.header("punctual-run-id") != Some("3") {}
    bench.pools.cancel(&runs[3], "runs");
    let last = bench.ended().await;
    assert_eq!(last.run_id, runs[3]);
    assert!(last.started_at >= late.finished_at, "{last:?}");
}

#[tokio::test]
async fn a_call_that_cannot_be_made_is_a_failure_that_may_pass() {
    let mut bench = bench();
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    let web = Web::start(|_| answer("200 OK", "")).await;
    let with_header = json!({"url": web.url("/"), "headers": {"X-Key": {"file": secret}}});
    let cases: [(Value, &str, &str); 4] = [
        (
            json!({"url": {"env": "PUNCTUAL_NO_SUCH"}}),
            "",
            "the secret in the environment variable PUNCTUAL_NO_SUCH cannot be read",
        ),
        (
            with_header.clone(),
            "two\nlines",
            "the value of the header X-Key has characters that a header cannot have",
        ),
        (json!({"url": {"file": secret}}), "hunter2", "the URL must be a URL of http or https"),
        (json!({"url": {"file": secret}}), "http://:hunter2", "the URL must be a URL with a host"),
    ];
    for (call, content, error) in cases {
        std::fs::write(&secret, content).unwrap();
        let completion = bench.call(call).await;
        let (said, is_permanent) = failure(&completion);
        assert!(said.starts_with(error) && !said.contains("hunter2"), "{said}");
        assert!(!is_permanent);
    }
    std::fs::write(&secret, "one line\n").unwrap();
    result(&bench.call(with_header).await);
}

#[tokio::test]
async fn a_secret_that_would_have_to_be_waited_for_costs_its_call_only() {
    let home = Home::new("");
    let path = home.path().join("secret");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let web = Web::start(|_| answer("200 OK", "")).await;
    let mut bench = bench();
    let headers = json!({"X-Key": {"file": path}});
    let completion = bench.call(json!({"url": web.url("/"), "headers": headers})).await;
    let (error, is_permanent) = failure(&completion);
    assert!(
        error.ends_with("cannot be read: it is not a regular file") && !is_permanent,
        "{error}"
    );
    result(&bench.call(json!({"url": web.url("/")})).await);
}
