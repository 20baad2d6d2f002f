//! The control socket against clients that do not behave: refusals that have to arrive, connections that are held, and
//! answers that are never read. `PUNCTUAL_SOCKET_ATTACK` multiplies the number of clients.

use std::time::Duration;

use punctual::history::WAITERS_MAX;
use serde_json::{Value, json};
use support::definitions::{by_hand, noop};
use support::raw::{Answer, Raw};
use support::{Daemon, Home, PATIENCE, text};
use tokio::time::Instant;

/// How many times as many clients as usual attack.
fn times() -> usize {
    let times = std::env::var("PUNCTUAL_SOCKET_ATTACK");
    times.map_or(1, |times| times.parse().expect("a number"))
}

/// The id of a run that does not end by itself.
fn endless_run(home: &Home) -> String {
    let sleep = json!({"type": "builtin", "name": "sleep", "args": {"seconds": 600}});
    let mut raw = Raw::connect(&home.socket());
    let added = raw.ask("POST", "/v1/jobs", by_hand("endless", sleep).to_string().as_bytes());
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
    let started = Instant::now();
    home.ok(&["status"]);
    let took = started.elapsed();
    assert!(took < PATIENCE, "status took {took:?}");
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
        ("POST", "/v1/jobs/none/pause", 413, "too_large"),
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
    assert_eq!(raw.ask("GET", "/healthz", &large).unwrap().status, 413, "it takes no body");
    assert_eq!(raw.ask("GET", "/healthz", b"").unwrap().status, 200);
}

#[test]
fn a_chunked_body_that_nobody_reads_leaves_the_connection_usable() {
    let home = Home::new("");
    let _daemon = home.start();
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    let mut raw = Raw::connect(&home.socket());
    let cases = [("/v1/nothing", 404), ("/v1/jobs/none/pause", 413), ("/v1/runs/none/cancel", 404)];
    for (path, status) in cases {
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
        assert!(raw.send(head) && raw.send(chunk.repeat(100)) && raw.send("0\r\n\r\n"), "{path}");
        assert_eq!(raw.answer().expect(path).status, status, "{path}");
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
fn input_that_is_not_http_is_refused_with_the_documented_error() {
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
    let mut clients: Vec<Raw> = Vec::new();
    for number in 0..600 * times() {
        let mut raw = Raw::connect(&home.socket());
        // Idle from the start, half of a head, half of a body, and idle after an answer.
        match number % 4 {
            0 => {}
            1 => assert!(raw.send(head)),
            2 => {
                assert!(raw.send("POST /v1/jobs HTTP/1.1\r\ncontent-length: 9\r\n\r\n{"));
            }
            _ => assert_eq!(raw.ask("GET", "/healthz", b"").unwrap().status, 200, "{number}"),
        }
        clients.push(raw);
    }
    assert_others_are_served(&home);
    // Those that are idle for a second make room, the oldest first, and long before their time is up.
    let deadline = Instant::now() + PATIENCE;
    while !clients[0].is_closed_within(Duration::from_millis(50)) {
        assert_eq!(ask(&home, "/healthz").status, 200);
        assert!(Instant::now() < deadline, "the connection that was idle for longest stays");
    }
}

#[test]
fn clients_that_keep_every_place_busy_leave_a_reserve_for_short_requests() {
    // With few descriptors there are few places.
    let home = Home::new("").starting_by("ulimit -n 300; exec \"$@\"");
    let _daemon = home.start();
    let run = endless_run(&home);
    let head = format!("GET /v1/runs/{run}?wait=300 HTTP/1.1\r\nhost: x\r\n\r\n");
    let mut clients = Vec::new();
    // Only from the reserve, a connection is closed after its first answer.
    while ask(&home, "/healthz").header("connection") != Some("close") {
        let mut raw = Raw::connect(&home.socket());
        assert!(raw.send(&head));
        clients.push(raw);
    }
    assert!((50..200).contains(&clients.len()), "{}", clients.len());
    assert_others_are_served(&home);
    let cancelled =
        Raw::connect(&home.socket()).ask("POST", &format!("/v1/runs/{run}/cancel"), b"");
    assert_eq!(cancelled.unwrap().status, 202);
    assert!(clients.into_iter().all(|mut raw| raw.answer().unwrap().status == 200));
}

#[test]
fn a_port_without_authentication_that_others_can_reach_is_a_warning() {
    for (listen, is_warned) in [("127.0.0.1:0", false), ("0.0.0.0:0", true)] {
        let home = Home::new(&format!("[toutiao]\nlisten = \"{listen}\"\n"));
        assert!(home.start().stop().success());
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

/// Waits until a daemon reports a status with these words to its service manager.
fn stands(daemon: &mut Daemon, words: &str) -> String {
    daemon.wait_until(|line| line.starts_with("STATUS=") && line.contains(words))
}

#[test]
fn a_socket_that_a_job_removes_is_made_again() {
    let home = Home::new("");
    let mut daemon = home.start();
    let mut held = Raw::connect(&home.socket());
    assert_eq!(held.ask("GET", "/healthz", b"").unwrap().status, 200);
    for _ in 0..2 {
        let remove = json!({"type": "command", "argv": ["/bin/rm", home.socket()]});
        let job = json!({"id": "remover", "replace_existing": true, "task": remove,
            "trigger": {"type": "date", "run_date": "2100-01-01", "timezone": "UTC"}});
        assert!(held.ask("POST", "/v1/jobs", job.to_string().as_bytes()).unwrap().status < 300);
        let inode = |path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap());
        let before = inode(home.socket());
        let run = held.ask("POST", "/v1/jobs/remover/run", b"").unwrap().json();
        let ended = held.ask("GET", &format!("/v1/runs/{}?wait=60", text(&run, "id")), b"");
        assert_eq!(text(&ended.unwrap().json(), "state"), "succeeded");
        while !home.socket().exists() || inode(home.socket()) == before {
            daemon.hear_for(Duration::from_millis(50));
        }
        home.ok(&["status"]);
        assert_eq!(held.ask("GET", "/healthz", b"").unwrap().status, 200, "it was not closed");
    }
    assert!(daemon.stop().success());
    assert!(!home.socket().exists());
    let log = std::fs::read_to_string(home.log()).unwrap();
    assert_eq!(log.matches("WARN the control socket was removed, and was made again").count(), 2);
}

#[test]
fn a_file_in_the_place_of_the_socket_stays_and_is_reported() {
    let home = Home::new("");
    let mut daemon = home.start();
    stands(&mut daemon, "; listening at ");
    let mut held = Raw::connect(&home.socket());
    let other = home.path().join("other");
    std::fs::write(&other, "kept").unwrap();
    std::fs::rename(&other, home.socket()).unwrap();
    let said = stands(&mut daemon, "the control socket cannot be reached: ");
    assert!(said.contains("exists and is not a socket") && !said.contains("listening"), "{said}");
    let status = held.ask("GET", "/v1/status", b"").unwrap().json();
    assert_eq!(status["health"]["reasons"][0]["reason"], "socket", "{status}");
    assert_eq!(held.ask("GET", "/readyz", b"").unwrap().status, 200, "jobs go on");
    assert_eq!(std::fs::read_to_string(home.socket()).unwrap(), "kept");
    std::fs::remove_file(home.socket()).unwrap();
    stands(&mut daemon, "; listening at ");
    home.ok(&["status"]);
    assert!(daemon.stop().success());
    let log = std::fs::read_to_string(home.log()).unwrap();
    assert_eq!(log.matches("ERROR the control socket cannot be reached").count(), 1, "{log}");
}

/// The daemon's memory, at its highest so far, in MiB.
fn peak_memory(daemon: &Daemon) -> u64 {
    let status = format!("/proc/{}/status", daemon.pid().as_raw_nonzero());
    let status = std::fs::read_to_string(status).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

/// Arguments of the largest size, whose values take the most memory for each byte of text.
fn largest_args(value: &str) -> String {
    let list = vec![value; 260_000 / (value.len() + 1)].join(",");
    format!("{{\"list\":[{list}]}}")
}

fn add_args(home: &Home, id: &str, args: &str) -> Answer {
    let task = format!("{{\"type\":\"builtin\",\"name\":\"noop\",\"args\":{args}}}");
    let body = by_hand(id, json!("TASK")).to_string().replace("\"TASK\"", &task);
    Raw::connect(&home.socket()).ask("POST", "/v1/jobs", body.as_bytes()).unwrap()
}

#[test]
fn the_largest_jobs_take_little_memory_and_come_in_small_pages() {
    let home = Home::new("");
    let daemon = home.start();
    let args = [largest_args("[]"), largest_args("{\"\":0}"), largest_args("\"x\"")];
    let count = 30 * times();
    for number in 0..count {
        assert_eq!(add_args(&home, &format!("job-{number:04}"), &args[number % 3]).status, 201);
    }
    let mut found = 0;
    let mut cursor = String::new();
    loop {
        let answer = ask(&home, &format!("/v1/jobs?limit=1000{cursor}"));
        assert!(answer.body.len() < 2 * 1024 * 1024, "{}", answer.body.len());
        let page = answer.json();
        found += page["jobs"].as_array().unwrap().len();
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(found, count);
    let run = Raw::connect(&home.socket()).ask("POST", "/v1/jobs/job-0001/run", b"").unwrap();
    assert_eq!(run.status, 202, "{run:?}");
    let run = ask(&home, &format!("/v1/runs/{}?wait=60", text(&run.json(), "id")));
    assert_eq!(text(&run.json(), "state"), "succeeded");
    assert!(peak_memory(&daemon) < 350, "{} MiB", peak_memory(&daemon));
    // And again when they are read at a start.
    assert!(daemon.stop().success());
    let daemon = home.start();
    assert_eq!(ask(&home, "/v1/jobs?limit=1").status, 200);
    assert!(peak_memory(&daemon) < 350, "{} MiB", peak_memory(&daemon));
}

#[test]
fn a_job_that_is_too_large_is_refused_by_its_field() {
    let home = Home::new("");
    let _daemon = home.start();
    let field = |answer: &Answer| {
        assert_eq!((answer.status, answer.code().as_str()), (422, "invalid"));
        answer.json()["error"]["field"].clone()
    };
    let args = format!("{{\"text\":\"{}\"}}", "x".repeat(270_000));
    assert_eq!(field(&add_args(&home, "x", &args)), "task.args");
    let mut job = by_hand("x", noop());
    job["on_failure"] = json!({"type": "command", "argv": ["x".repeat(530_000)]});
    let answer = Raw::connect(&home.socket()).ask("POST", "/v1/jobs", job.to_string().as_bytes());
    assert_eq!(field(&answer.unwrap()), Value::Null);
    assert_eq!(ask(&home, "/v1/jobs").json()["jobs"], json!([]));
}

#[test]
fn large_requests_share_a_budget_of_memory() {
    let home = Home::new("");
    let daemon = home.start();
    let body = vec![b'x'; 16 * 1024 * 1024 - 1];
    let head = format!(
        "POST /v1/jobs/batch HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let (last, most) = body.split_last().unwrap();
    let mut clients: Vec<Raw> = (0..40 * times()).map(|_| Raw::connect(&home.socket())).collect();
    std::thread::scope(|scope| {
        for client in &mut clients {
            scope.spawn(|| assert!(client.send(&head) && client.send(most)));
        }
    });
    assert!(peak_memory(&daemon) < 400, "{} MiB", peak_memory(&daemon));
    assert_others_are_served(&home);
    let small = add_args(&home, "small", "{}");
    assert_eq!(small.status, 201, "a small request needs no room");
    let mut refused = 0;
    for mut client in clients {
        assert!(client.send([*last]));
        let answer = client.answer().unwrap();
        match answer.status {
            503 => {
                assert_eq!(answer.header("retry-after"), Some("1"));
                refused += 1;
            }
            // It is no JSON; or all of them together took too long.
            status => assert!(status == 400 || status == 408, "{answer:?}"),
        }
    }
    assert!(refused > 0);
    let answer = Raw::connect(&home.socket()).ask("POST", "/v1/jobs/batch", most).unwrap();
    assert_eq!(answer.status, 400, "there is room again");
}

#[test]
fn clients_that_do_not_read_their_answers_hold_little_memory() {
    let home = Home::new("");
    let daemon = home.start();
    let args = format!("{{\"text\":\"{}\"}}", "x".repeat(250_000));
    for number in 0..5 {
        assert_eq!(add_args(&home, &format!("job-{number}"), &args).status, 201);
    }
    let mut held = Vec::new();
    let mut refused = 0;
    for _ in 0..200 * times() {
        let mut raw = Raw::connect(&home.socket());
        assert!(raw.send("GET /v1/jobs?limit=1000 HTTP/1.1\r\nhost: x\r\n\r\n"));
        match raw.status() {
            Some(503) => refused += 1,
            status => assert_eq!(status, Some(200)),
        }
        held.push(raw);
    }
    assert!(refused > 0);
    assert!(peak_memory(&daemon) < 400, "{} MiB", peak_memory(&daemon));
    assert_others_are_served(&home);
    drop(held);
    let deadline = Instant::now() + PATIENCE;
    while ask(&home, "/v1/jobs?limit=1000").status != 200 {
        assert!(Instant::now() < deadline, "there is no room again");
    }
}
