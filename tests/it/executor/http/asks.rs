//! What a call sends: method, headers and body, and which redirects it follows.

use std::sync::Arc;

use punctual::clock::Timestamp;
use serde_json::json;

use super::{bench, failure, result};
use support::pools::{RUN, http_call};
use support::web::{Asked, Step, Web, answer, redirect};
use support::{Home, run_to_end};

fn fine(_: &Asked) -> Vec<Step> {
    answer("200 OK", "")
}

#[tokio::test]
async fn a_call_without_a_body_is_a_get_that_names_its_run() {
    let mut web = Web::start(fine).await;
    let mut bench = bench();
    let mut first = http_call(json!({"url": web.url("/a?b=c")}));
    first.scheduled_at = Timestamp::from_timestamp(1_800_000_000, 500_000_000);
    let mut second = first.clone();
    second.attempt = 2;
    second.scheduled_at = None;
    bench.hand_over(first);
    bench.ended().await;
    let asked = web.asked().await;
    assert_eq!((asked.line.as_str(), asked.body.as_str()), ("GET /a?b=c HTTP/1.1", ""));
    let version = env!("CARGO_PKG_VERSION");
    let expected = [
        ("host", web.address.to_string()),
        ("user-agent", format!("punctual/{version}")),
        ("punctual-job-id", "job".to_owned()),
        ("punctual-run-id", RUN.to_owned()),
        ("punctual-attempt", "1".to_owned()),
        ("punctual-scheduled-at", "2027-01-15T08:00:00.500000Z".to_owned()),
        ("idempotency-key", RUN.to_owned()),
        ("traceparent", "00-019a2b3c4d5e7f608123456789abcdef-8123456789abcdf0-01".to_owned()),
    ];
    for (name, value) in &expected {
        assert_eq!(asked.header(name), Some(value.as_str()), "{name}");
    }
    assert_eq!((asked.header("content-type"), asked.header("referer")), (None, None));
    bench.hand_over(second);
    bench.ended().await;
    let again = web.asked().await;
    assert_eq!(again.header("punctual-attempt"), Some("2"));
    assert_eq!(again.header("idempotency-key"), Some(RUN), "the same for every attempt");
    assert_ne!(again.header("traceparent"), asked.header("traceparent"));
    assert_eq!(again.header("punctual-scheduled-at"), None);
    assert_eq!(again.connection, 1, "the connection is used again");
}

#[tokio::test]
async fn what_is_given_is_sent() {
    let mut web = Web::start(fine).await;
    let mut bench = bench();
    let (json_type, text_type) = ("application/json", "text/plain; charset=utf-8");
    let cases = [
        (json!({"json": {"b": 1, "a": [null]}}), "POST", r#"{"b":1,"a":[null]}"#, Some(json_type)),
        (json!({"json": null}), "POST", "null", Some(json_type)),
        (json!({"body": "grüße"}), "POST", "grüße", Some(text_type)),
        (json!({"body": "x", "method": "PATCH"}), "PATCH", "x", Some(text_type)),
        (json!({"body": "", "method": "GET"}), "GET", "", Some(text_type)),
        (json!({"method": "DELETE"}), "DELETE", "", None),
        (
            json!({"body": "a=b", "headers": {"Content-Type": "application/x-www-form-urlencoded"}}),
            "POST",
            "a=b",
            Some("application/x-www-form-urlencoded"),
        ),
    ];
    for (mut call, method, body, content_type) in cases {
        call["url"] = json!(web.url("/"));
        let completion = bench.call(call.clone()).await;
        assert_eq!(result(&completion), &json!({"status": 200, "bytes": 0}), "{call}");
        let asked = web.asked().await;
        assert_eq!(asked.line, format!("{method} / HTTP/1.1"), "{call}");
        assert_eq!(
            (asked.body.as_str(), asked.header("content-type")),
            (body, content_type),
            "{call}"
        );
    }
}

#[tokio::test]
async fn a_header_that_is_given_counts_more_than_what_would_be_sent() {
    let mut web = Web::start(fine).await;
    let headers = json!({"idempotency-key": "mine", "User-Agent": "me", "Host": "elsewhere.example", "X-Ünï": ""});
    let refused = punctual::job::Task::parse(
        &json!({"type": "http", "url": web.url("/"), "headers": headers}),
    );
    assert_eq!(refused.unwrap_err().field, "headers.X-Ünï");
    let headers = json!({"idempotency-key": "mine", "User-Agent": "me", "Host": "elsewhere.example", "X-Text": "ü"});
    bench().call(json!({"url": web.url("/"), "headers": headers})).await;
    let asked = web.asked().await;
    for (name, value) in [
        ("idempotency-key", "mine"),
        ("user-agent", "me"),
        ("host", "elsewhere.example"),
        ("x-text", "ü"),
    ] {
        assert_eq!(asked.header(name), Some(value));
    }
}

#[tokio::test]
async fn a_hook_call_sends_the_event_unless_it_has_a_body() {
    let mut web = Web::start(fine).await;
    let mut bench = bench();
    let event = Arc::new(
        json!({"event": "failure", "host": "h", "job": {"id": "j"}, "run": {"id": "r", "state": "failed", "attempt": 1}}),
    );
    let mut sent = (*event).clone();
    sent["text"] = json!(
        "[h] job j failed\n\nJob:         j\nHost:        h\nState:       failed\nAttempt:     1\nRun:         r\n\nAll that is kept of it: punctual logs r\n"
    );
    let calls = [
        (json!({"url": web.url("/")}), "POST / HTTP/1.1", sent.to_string()),
        (json!({"url": web.url("/"), "method": "PUT"}), "PUT / HTTP/1.1", sent.to_string()),
        (json!({"url": web.url("/"), "body": "own"}), "POST / HTTP/1.1", "own".to_owned()),
    ];
    for (call, line, body) in calls {
        let mut assignment = http_call(call);
        assignment.event = Some(Arc::clone(&event));
        bench.hand_over(assignment);
        result(&bench.ended().await);
        let asked = web.asked().await;
        assert_eq!((asked.line.as_str(), asked.body), (line, body));
    }
}

#[tokio::test]
async fn a_job_id_may_hold_anything_that_can_be_seen() {
    let mut web = Web::start(fine).await;
    let mut bench = bench();
    for id in ["order:42:expire", "日本", "a b\"\\"] {
        let mut assignment = http_call(json!({"url": web.url("/")}));
        assignment.job_id = punctual::job::JobId::parse(id).unwrap();
        bench.hand_over(assignment);
        result(&bench.ended().await);
        assert_eq!(web.asked().await.header("punctual-job-id"), Some(id));
    }
}

/// Counts down to 0, and sends its client elsewhere until then.
fn countdown(asked: &Asked) -> Vec<Step> {
    let path = asked.line.split(' ').nth(1).unwrap();
    match path.trim_start_matches('/').parse::<u32>() {
        Ok(0) => answer("200 OK", "there"),
        Ok(number) => redirect("307 Temporary Redirect", &format!("/{}", number - 1)),
        Err(_) => redirect("302 Found", "/0"),
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer_like_any_other_unless_it_may_be_followed() {
    let mut web = Web::start(countdown).await;
    let mut bench = bench();
    let completion = bench.call(json!({"url": web.url("/1")})).await;
    assert_eq!(failure(&completion), ("answered 307 Temporary Redirect (expected 2xx)", false));
    assert!(completion.output.text().contains("location: /0\n"));
    let completion = bench.call(json!({"url": web.url("/1"), "expect": [307]})).await;
    assert_eq!(result(&completion), &json!({"status": 307, "bytes": 0}));
    web.asked().await;
    web.asked().await;
    let completion = bench.call(json!({"url": web.url("/3"), "redirects": 3, "json": 1})).await;
    assert_eq!(result(&completion), &json!({"status": 200, "bytes": 5}));
    for path in ["/3", "/2", "/1", "/0"] {
        let asked = web.asked().await;
        assert_eq!(
            (asked.line.clone(), asked.body.as_str()),
            (format!("POST {path} HTTP/1.1"), "1")
        );
        assert_eq!((asked.header("idempotency-key"), asked.header("referer")), (Some(RUN), None));
    }
    let completion = bench.call(json!({"url": web.url("/3"), "redirects": 2})).await;
    assert_eq!(failure(&completion), ("answered 307 Temporary Redirect (expected 2xx)", false));
    let completion = bench.call(json!({"url": web.url("/found"), "redirects": 1, "json": 1})).await;
    result(&completion);
    for line in [
        "GET /3 HTTP/1.1",
        "GET /2 HTTP/1.1",
        "GET /1 HTTP/1.1",
        "POST /found HTTP/1.1",
        "GET /0 HTTP/1.1",
    ] {
        assert_eq!(web.asked().await.line, line);
    }
}

#[tokio::test]
async fn a_redirect_to_another_server_is_followed_only_without_secrets() {
    let mut other = Web::start(fine).await;
    let url = other.url("/");
    let web = Web::start(move |_| redirect("307 Temporary Redirect", &url)).await;
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "swordfish").unwrap();
    let mut bench = bench();
    for (field, value) in
        [("headers", json!({"X-Key": {"file": secret}})), ("body", json!({"file": secret}))]
    {
        let mut call = json!({"url": web.url("/"), "redirects": 5});
        call[field] = value;
        let completion = bench.call(call).await;
        assert_eq!(failure(&completion).0, "answered 307 Temporary Redirect (expected 2xx)");
    }
    assert!(other.is_quiet(), "the secret stays here");
    let headers = json!({"Authorization": "Basic abc", "X-Open": "b"});
    let call = json!({"url": web.url("/"), "redirects": 5, "headers": headers});
    result(&bench.call(call).await);
    let asked = other.asked().await;
    assert_eq!((asked.header("authorization"), asked.header("x-open")), (None, Some("b")));
}

#[tokio::test]
async fn a_daemon_calls_through_the_proxy_that_its_environment_names() {
    let (mut proxy, mut near) = (Web::start(fine).await, Web::start(fine).await);
    let mut home = Home::new("");
    home.set("HTTP_PROXY", &proxy.url(""));
    home.set("NO_PROXY", "127.0.0.1");
    let _daemon = home.start();
    let client = home.client();
    home.ok(&["add", "far", "--every", "1h", "--http", "http://elsewhere.example/x"]);
    home.ok(&["add", "near", "--every", "1h", "--http", &near.url("/y")]);
    assert_eq!(run_to_end(&client, "far").await["state"], "succeeded");
    assert_eq!(proxy.asked().await.line, "GET http://elsewhere.example/x HTTP/1.1");
    assert_eq!(run_to_end(&client, "near").await["state"], "succeeded");
    assert_eq!(near.asked().await.line, "GET /y HTTP/1.1");
    assert!(proxy.is_quiet());
}
