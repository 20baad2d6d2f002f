//! The control socket against clients that do not behave: refusals that have to arrive, connections that are held, and
//! answers that nobody reads. `PUNCTUAL_SOCKET_ATTACK` multiplies the number of clients.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests: short to call, and they may end a test"
)]

#[path = "support/raw.rs"]
mod raw;
mod support;

use std::time::Duration;

use punctual::history::WAITERS_MAX;
use raw::{Answer, Raw};
use serde_json::{Value, json};
use support::{Home, text};

/// How many times as many clients as usual attack.
fn times() -> usize {
    let times = std::env::var("PUNCTUAL_SOCKET_ATTACK");
    times.map_or(1, |times| times.parse().expect("a number"))
}

fn never(id: &str, task: &Value) -> Value {
    let date = json!({"type": "date", "run_date": "2100-01-01", "timezone": "UTC"});
    json!({"id": id, "trigger": date, "task": task})
}

/// The id of a run that does not end by itself.
fn endless_run(home: &Home) -> String {
    let sleep = json!({"type": "builtin", "name": "sleep", "args": {"seconds": 600}});
    let mut raw = Raw::connect(&home.socket());
    let added = raw.ask("POST", "/v1/jobs", never("endless", &sleep).to_string().as_bytes());
    assert_eq!(added.unwrap().status, 201);
    let run = raw.ask("POST", "/v1/jobs/endless/run", b"").unwrap().json();
    text(&run, "id").to_owned()
}

fn ask(home: &Home, path: &str) -> Answer {
    Raw::connect(&home.socket()).ask("GET", path, b"").expect("an answer")
}

/// What has to be answered whatever other clients do.
fn assert_others_are_served(home: &Home) {
    for path in ["/healthz", "/readyz", "/v1/status"] {
        assert_eq!(ask(home, path).status, 200, "{path}");
    }
    let started = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    home.ok(&["status"]);
    let took = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().saturating_sub(started);
    assert!(took < Duration::from_secs(15), "status took {took:?}");
}

#[test]
fn a_refusal_reaches_a_client_that_sends_its_whole_body_first() {
    let home = Home::new("");
    let _daemon = home.start();
    let large = vec![b'x'; 3_000_000];
    let cases = [
        ("POST", "/v1/nothing", 404, "not_found"),
        ("PUT", "/v1/jobs", 405, "method_not_allowed"),
        ("POST", "/v1/jobs", 413, "too_large"),
        ("POST", "/v1/preview", 413, "too_large"),
        ("POST", "/v1/jobs/none/pause", 404, "not_found"),
        ("GET", "/v1/jobs/none", 404, "not_found"),
        ("POST", "/v1/runs/%ff/cancel", 400, "unreadable"),
        ("DELETE", "/v1/jobs/%ff", 400, "unreadable"),
        ("GET", "/v1/jobs/%ff/explain", 400, "unreadable"),
        ("GET", "/v1/runs/%ff/output", 400, "unreadable"),
        ("GET", "/v1/jobs?limit=x", 400, "unreadable"),
    ];
    // All on one connection, which goes on after each of them.
    let mut raw = Raw::connect(&home.socket());
    for (method, path, status, code) in cases {
        for body in [&large[..], b""] {
            if status == 413 && body.is_empty() {
                continue;
            }
            let answer = raw.ask(method, path, body).unwrap_or_else(|| panic!("{method} {path}"));
            assert_eq!((answer.status, answer.code().as_str()), (status, code), "{method} {path}");
            assert_eq!(answer.header("connection"), None, "{method} {path}");
        }
    }
    assert_eq!(raw.ask("GET", "/healthz", &large).unwrap().status, 200, "it is dropped here too");
}

#[test]
fn a_chunked_body_that_nobody_reads_leaves_the_connection_usable() {
    let home = Home::new("");
    let _daemon = home.start();
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    let mut raw = Raw::connect(&home.socket());
    for path in ["/v1/nothing", "/v1/jobs/none/pause", "/v1/jobs/none/run"] {
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
        assert!(raw.send(head) && raw.send(chunk.repeat(100)) && raw.send("0\r\n\r\n"), "{path}");
        assert_eq!(raw.answer().expect(path).status, 404, "{path}");
    }
    assert_eq!(raw.ask("GET", "/healthz", b"").unwrap().status, 200);
}

#[test]
fn a_client_that_asks_before_it_sends_its_body_is_refused_without_it() {
    let home = Home::new("");
    let _daemon = home.start();
    let mut raw = Raw::connect(&home.socket());
    let head =
        "POST /v1/nothing HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n";
    assert!(raw.send(head));
    let answer = raw.answer().unwrap();
    assert_eq!((answer.status, answer.header("connection")), (404, Some("close")));
    assert!(raw.is_closed());
}

#[test]
fn what_is_no_http_is_refused_with_the_documented_error() {
    let home = Home::new("");
    let _daemon = home.start();
    let long = "x".repeat(200_000);
    let cases = [
        ("garbage\r\n\r\n".to_owned(), 400, "unreadable"),
        ("GET /a b HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), 400, "unreadable"),
        ("GET / HTTP/1.1\r\ncontent-length: x\r\n\r\n".to_owned(), 400, "unreadable"),
        (format!("GET / HTTP/1.1\r\nx: {long}\r\n\r\n"), 431, "too_large"),
        (format!("GET /{long} HTTP/1.1\r\n\r\n"), 431, "too_large"),
    ];
    for (request, status, code) in cases {
        let start = &request[..20.min(request.len())];
        let mut raw = Raw::connect(&home.socket());
        // An answer before it, so that the refusal is not the first thing that is written.
        assert_eq!(raw.ask("GET", "/healthz", b"").unwrap().status, 200);
        raw.send(&request);
        let answer = raw.answer().unwrap_or_else(|| panic!("no answer to {start:?}"));
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{start:?}");
        assert_eq!(answer.header("connection"), Some("close"), "{start:?}");
        assert!(raw.is_closed(), "{start:?}");
    }
}

#[test]
fn clients_that_stop_waiting_for_a_run_free_their_places_at_once() {
    let home = Home::new("");
    let _daemon = home.start();
    let run = endless_run(&home);
    let path = format!("/v1/runs/{run}?wait=300");
    let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    let refused = |answer: &Answer| {
        assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"));
        assert_eq!(answer.header("retry-after"), Some("1"));
    };
    let wait = || {
        let mut raw = Raw::connect(&home.socket());
        assert!(raw.send(&head));
        raw
    };
    let look = || ask(&home, &format!("/v1/runs/{run}?wait=0"));
    let mut waiting: Vec<Raw> = (0..WAITERS_MAX).map(|_| wait()).collect();
    // While some are still on their way, a look may take a place before them: then another one fills it.
    let answer = loop {
        let answer = look();
        if answer.status != 200 {
            break answer;
        }
        waiting.push(wait());
    };
    refused(&answer);
    assert_others_are_served(&home);
    // One only says that it will send no more: it still waits.
    waiting[0].half_close();
    waiting.truncate(1);
    while waiting.len() < WAITERS_MAX {
        let answer = look();
        if answer.status == 200 {
            waiting.push(wait());
        } else {
            refused(&answer);
        }
    }
    let cancelled =
        Raw::connect(&home.socket()).ask("POST", &format!("/v1/runs/{run}/cancel"), b"");
    assert_eq!(cancelled.unwrap().status, 202);
    let cancelled = |mut raw: Raw| raw.answer().unwrap().json()["state"] == "cancelled";
    assert!(waiting.into_iter().all(cancelled), "all were waiting");
}

#[test]
fn clients_that_only_hold_connections_lock_nobody_out() {
    let home = Home::new("");
    let _daemon = home.start();
    let head = "GET /v1/status HTTP/1.1\r\nhost: x\r\n";
    let mut held: Vec<Raw> = Vec::new();
    for number in 0..600 * times() {
        let mut raw = Raw::connect(&home.socket());
        // Idle from the start, half of a head, half of a body, and idle after an answer.
        match number % 4 {
            0 => {}
            1 => assert!(raw.send(head)),
            2 => {
                assert!(raw.send(format!("POST /v1/jobs HTTP/1.1\r\ncontent-length: 9\r\n\r\n{{")))
            }
            _ => assert_eq!(raw.ask("GET", "/healthz", b"").unwrap().status, 200, "{number}"),
        }
        held.push(raw);
    }
    assert_others_are_served(&home);
    // Those that are idle for a second make room, the oldest first, and long before their time is up.
    let is_closed = |_| {
        assert_eq!(ask(&home, "/healthz").status, 200);
        held[0].is_closed_within(Duration::from_millis(50))
    };
    assert!((0..200).any(is_closed), "the connection that was idle for longest is closed");
}

#[test]
fn clients_that_keep_every_place_busy_leave_a_reserve_for_short_requests() {
    // With few descriptors there are few places.
    let home = Home::new("").starting_by("ulimit -n 300; exec \"$@\"");
    let _daemon = home.start();
    let run = endless_run(&home);
    let head = format!("GET /v1/runs/{run}?wait=300 HTTP/1.1\r\nhost: x\r\n\r\n");
    let mut held = Vec::new();
    // Only from the reserve, a connection is closed after its first answer.
    while ask(&home, "/healthz").header("connection") != Some("close") {
        let mut raw = Raw::connect(&home.socket());
        assert!(raw.send(&head));
        held.push(raw);
    }
    assert!((50..200).contains(&held.len()), "{}", held.len());
    assert_others_are_served(&home);
    let cancelled =
        Raw::connect(&home.socket()).ask("POST", &format!("/v1/runs/{run}/cancel"), b"");
    assert_eq!(cancelled.unwrap().status, 202);
    assert!(held.into_iter().all(|mut raw| raw.answer().unwrap().status == 200));
}

#[test]
fn a_port_without_authentication_that_others_can_reach_is_a_warning() {
    for (listen, is_warned) in [("127.0.0.1:0", false), ("0.0.0.0:0", true)] {
        let home = Home::new(&format!("[toutiao]\nlisten = \"{listen}\"\n"));
        let _daemon = home.start();
        let log = std::fs::read_to_string(home.log()).unwrap();
        let mut lines = log.lines().filter(|line| line.contains("toutiao API"));
        let line = lines.next().unwrap();
        assert_eq!(
            line.contains("WARN") && line.contains("no authentication"),
            is_warned,
            "{line}"
        );
    }
}
