//! The control socket uses or refuses every key that it gets, and no input harms it.

use serde_json::{Value, json};
use support::definitions::{NEVER, by_hand, noop};
use support::load::{Random, seed};
use support::raw::{Answer, Raw};
use support::{Home, ledger, run_to_end, text};

/// Every route of the control socket with a path that exists, and whether it takes a body that is no object of optional
/// keys. `RUN` and `job` are put there by the tests.
const ROUTES: &[(&str, &str, bool)] = &[
    ("GET", "/v1/jobs", false),
    ("POST", "/v1/jobs", true),
    ("POST", "/v1/jobs/batch", true),
    ("DELETE", "/v1/jobs", false),
    ("POST", "/v1/jobs/pause", false),
    ("GET", "/v1/jobs/pause", false),
    ("PATCH", "/v1/jobs/pause", true),
    ("DELETE", "/v1/jobs/pause", false),
    ("POST", "/v1/jobs/resume", false),
    ("GET", "/v1/jobs/resume", false),
    ("PATCH", "/v1/jobs/resume", true),
    ("DELETE", "/v1/jobs/resume", false),
    ("GET", "/v1/jobs/batch", false),
    ("PATCH", "/v1/jobs/batch", true),
    ("DELETE", "/v1/jobs/batch", false),
    ("GET", "/v1/jobs/job", false),
    ("PATCH", "/v1/jobs/job", true),
    ("DELETE", "/v1/jobs/job", false),
    ("POST", "/v1/jobs/job/pause", false),
    ("POST", "/v1/jobs/job/resume", false),
    ("POST", "/v1/jobs/job/reschedule", true),
    ("POST", "/v1/jobs/job/run", false),
    ("GET", "/v1/jobs/job/explain", false),
    ("GET", "/v1/runs", false),
    ("GET", "/v1/runs/RUN", false),
    ("GET", "/v1/runs/RUN/output", false),
    ("POST", "/v1/runs/RUN/cancel", false),
    ("GET", "/v1/executors", false),
    ("GET", "/v1/status", false),
    ("GET", "/healthz", false),
    ("GET", "/readyz", false),
    ("GET", "/metrics", false),
    ("GET", "/v1/log", false),
    ("PUT", "/v1/log", true),
    ("DELETE", "/v1/log", false),
    ("POST", "/v1/preview", true),
    ("POST", "/v1/scheduler/pause", false),
    ("POST", "/v1/scheduler/resume", false),
    ("POST", "/v1/scheduler/reload", false),
];

fn ask(home: &Home, method: &str, path: &str, body: &str) -> Answer {
    let mut connection = Raw::connect(&home.socket());
    connection.ask(method, path, body.as_bytes()).unwrap_or_else(|| panic!("{method} {path}"))
}

fn field(answer: &Answer) -> String {
    answer.json()["error"]["field"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn the_routes_that_are_tested_are_all_there_are() {
    let source = include_str!("../../../src/control/mod.rs");
    let declared = source.split(".route(").skip(1).map(|route| {
        let path = route.trim_start().trim_start_matches('"').split('"').next().unwrap();
        let methods = ["get(", "post(", "delete(", "patch(", "put("];
        let end = route.find(")\n").unwrap_or(route.len());
        let count: usize = methods.map(|method| route[..end].matches(method).count()).iter().sum();
        (path.replace("jobs/{id}", "jobs/job").replace("runs/{id}", "runs/RUN"), count)
    });
    for (path, count) in declared {
        let tested = ROUTES.iter().filter(|(_, known, _)| *known == path).count();
        assert_eq!(tested, count, "methods of {path}");
    }
}

#[tokio::test]
async fn every_route_refuses_the_keys_that_it_does_not_use_and_then_does_nothing() {
    let home = Home::new("");
    let _daemon = home.start();
    let client = home.client();
    client.add(&by_hand("job", noop())).await.unwrap();
    for id in ["batch", "pause", "resume"] {
        client.add(&by_hand(id, noop())).await.unwrap();
    }
    let run = run_to_end(&client, "job").await;
    for (method, path, has_body) in ROUTES {
        let path = path.replace("RUN", text(&run, "id"));
        let unknown = ask(&home, method, &format!("{path}?nonsense=1"), "");
        assert_eq!(unknown.status, 400, "{method} {path}: {unknown:?}");
        assert_eq!(field(&unknown), "nonsense", "{method} {path}");
        let body = ask(&home, method, &path, r#"{"nonsense": "2026-12-01"}"#);
        let (status, code) = (body.status, body.code());
        assert!(status == 422 || (status == 400 && *has_body), "{method} {path}: {body:?}");
        assert!(body.json().to_string().contains("nonsense"), "{method} {path}: {body:?}");
        assert!(!code.is_empty());
        for text in ["no JSON", "[1]", "\"text\"", "1"] {
            let body = ask(&home, method, &path, text);
            assert!(matches!(body.status, 400 | 422), "{method} {path} {text}: {body:?}");
        }
    }
    let status = client.status().await.unwrap();
    assert_eq!((&status["state"], &status["paused_since"]), (&json!("running"), &Value::Null));
    assert_eq!(client.job("job").await.unwrap()["state"], "active");
    assert_eq!(client.job("batch").await.unwrap()["state"], "active");
    assert_eq!(ledger(&client, "job").await.len(), 1, "nothing was run");
}

#[tokio::test]
async fn an_empty_object_is_as_good_as_no_body() {
    let home = Home::new("");
    let _daemon = home.start();
    home.client().add(&by_hand("job", noop())).await.unwrap();
    for body in ["", " \n", "{}", " { } "] {
        for path in ["/v1/jobs/job/pause", "/v1/jobs/job/resume", "/v1/jobs/job/run"] {
            let answer = ask(&home, "POST", path, body);
            assert!(matches!(answer.status, 200 | 202 | 409), "{path} {body:?}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn parameters_beyond_their_range_are_refused_by_name() {
    let home = Home::new("");
    let _daemon = home.start();
    let client = home.client();
    client.add(&by_hand("job", noop())).await.unwrap();
    let run = run_to_end(&client, "job").await;
    let run = text(&run, "id");
    let long = "x".repeat(300);
    let cases = [
        ("/v1/jobs?limit=0", "limit"),
        ("/v1/jobs?limit=1001", "limit"),
        ("/v1/jobs?limit=-1", "limit"),
        ("/v1/jobs?limit=many", "limit"),
        ("/v1/jobs?limit=1&limit=2", "limit"),
        ("/v1/jobs?state=done", "state"),
        ("/v1/jobs?cursor=", "cursor"),
        (&format!("/v1/jobs?cursor={long}"), "cursor"),
        ("/v1/jobs?prefix=%00", "prefix"),
        ("/v1/jobs?tag=%0a", "tag"),
        ("/v1/jobs?tag=", "tag"),
        ("/v1/jobs?state=", "state"),
        ("/v1/jobs?state=active,", "state"),
        ("/v1/jobs?executor=", "executor"),
        ("/v1/jobs?trigger_type=weekly", "trigger_type"),
        ("/v1/jobs?order=newest", "order"),
        ("/v1/jobs?order=id&since=now", "order"),
        ("/v1/jobs?since=yesterday", "since"),
        ("/v1/jobs?since=2027-01-02&until=2027-01-01", "until"),
        ("/v1/jobs?upcoming=0", "upcoming"),
        ("/v1/jobs?upcoming=101", "upcoming"),
        ("/v1/jobs?wait=1", "seen"),
        ("/v1/jobs?seen=1", "wait"),
        ("/v1/jobs?seen=1&wait=301", "wait"),
        ("/v1/jobs?cursor=job", "cursor"),
        ("/v1/runs?state=failed,done", "state"),
        ("/v1/runs?order=id", "order"),
        ("/v1/runs?until=soon", "until"),
        ("/v1/runs?trigger_type=x", "trigger_type"),
        ("/v1/runs?upcoming=1", "upcoming"),
        ("/v1/runs?limit=100000", "limit"),
        ("/v1/runs?state=done", "state"),
        ("/v1/runs?job=%00", "job"),
        ("/v1/runs?since=soon", "since"),
        ("/v1/runs?cursor=%00", "cursor"),
        ("/v1/runs?cursor=zzz", "cursor"),
        (&format!("/v1/runs/{run}?wait=301"), "wait"),
        (&format!("/v1/runs/{run}?wait=-1"), "wait"),
        (&format!("/v1/runs/{run}/output?attempt=0"), "attempt"),
        (&format!("/v1/runs/{run}/output?attempt=2"), "attempt"),
        (&format!("/v1/runs/{run}/output?follow=maybe"), "follow"),
        ("/v1/jobs/job/explain?at=soon", "at"),
    ];
    for (path, name) in cases {
        let answer = ask(&home, "GET", path, "");
        assert!(matches!(answer.status, 400 | 422), "{path}: {answer:?}");
        assert_eq!(field(&answer), name, "{path}: {answer:?}");
    }
    for id in ["%00", "%0a", &long] {
        for (method, path) in [("GET", ""), ("GET", "/explain"), ("POST", "/pause"), ("DELETE", "")]
        {
            let answer = ask(&home, method, &format!("/v1/jobs/{id}{path}"), "");
            assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{id}{path}");
        }
    }
    for id in ["%00", "zzz", &run.to_uppercase(), &run.replace('-', ""), &format!("%7B{run}%7D")] {
        for (method, path) in [("GET", ""), ("GET", "/output"), ("POST", "/cancel")] {
            let answer = ask(&home, method, &format!("/v1/runs/{id}{path}"), "");
            assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{id}{path}");
        }
    }
}

#[tokio::test]
async fn a_job_can_have_the_id_batch_like_any_other() {
    let home = Home::new("");
    let _daemon = home.start();
    let client = home.client();
    for id in ["batch", "pause", "resume", "a/b", "a b", "%", "?x=1", "#", "é\u{301}", "..."] {
        client.add(&by_hand(id, noop())).await.unwrap();
        assert_eq!(client.job(id).await.unwrap()["id"], id);
        assert_eq!(client.pause(id).await.unwrap()["state"], "paused");
        assert_eq!(client.resume(id).await.unwrap()["state"], "active");
        assert_eq!(client.remove(id).await.unwrap()["id"], id);
        assert!(client.job(id).await.unwrap_err().is_not_found(), "{id}");
    }
    for id in [".", "..", "\u{202e}abc", ""] {
        let answer = ask(&home, "POST", "/v1/jobs", &by_hand(id, noop()).to_string());
        assert_eq!((answer.status, field(&answer).as_str()), (422, "id"), "{id:?}");
    }
}

#[tokio::test]
async fn a_job_that_could_not_be_kept_as_it_is_given_is_refused() {
    let home = Home::new("");
    let _daemon = home.start();
    let job = |task: &str| {
        format!(
            r#"{{"id": "a", "trigger": {{"type": "date", "run_date": "{NEVER}"}}, "task": {task}}}"#
        )
    };
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let cases = [
        (job(r#"{"type": "builtin", "name": "noop"}, "id": "b""#), "given twice"),
        (job(r#"{"type": "builtin", "name": "noop", "name": "fail"}"#), "given twice"),
        (job(r#"{"type": "builtin", "name": "noop", "args": {"a": 1, "a": 2}}"#), "given twice"),
        (
            job(
                r#"{"type": "builtin", "name": "noop", "args": {"a": 123456789012345678901234567890}}"#,
            ),
            "123456789012345678901234567890",
        ),
        (
            job(&format!(r#"{{"type": "builtin", "name": "noop", "args": {{"a": {deep}}}}}"#)),
            "levels",
        ),
    ];
    for (body, message) in cases {
        let answer = ask(&home, "POST", "/v1/jobs", &body);
        assert!(matches!(answer.status, 400 | 422), "{body}: {answer:?}");
        assert!(answer.json().to_string().contains(message), "{body}: {answer:?}");
        let batch = ask(&home, "POST", "/v1/jobs/batch", &format!(r#"{{"jobs": [{body}]}}"#));
        assert!(batch.json()["results"][0]["error"].to_string().contains(message), "{batch:?}");
    }
    let kept = r#"{"type": "builtin", "name": "noop", "args": {"most": 18446744073709551615, "float": 0.1}}"#;
    assert_eq!(ask(&home, "POST", "/v1/jobs", &job(kept)).status, 201);
    let shown = ask(&home, "GET", "/v1/jobs/a", "");
    assert!(String::from_utf8_lossy(&shown.body).contains("18446744073709551615"), "{shown:?}");
    assert_eq!(home.json(&["list"])["jobs"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_form_of_the_report_is_refused_where_there_is_no_report() {
    let home = Home::new("");
    let _daemon = home.start();
    let command = json!({"type": "command", "argv": ["/bin/true"], "report": "json"});
    let trigger = json!({"type": "date", "run_date": NEVER});
    let job = |id: &str, task: &Value, hook: &Value| {
        json!({"id": id, "trigger": trigger, "task": task, "on_failure": hook}).to_string()
    };
    let noop = json!({"type": "builtin", "name": "noop"});
    let answer = ask(&home, "POST", "/v1/jobs", &job("own", &command, &noop));
    assert_eq!((answer.status, field(&answer).as_str()), (422, "task.report"), "{answer:?}");
    let answer = ask(&home, "POST", "/v1/jobs", &job("hook", &noop, &command));
    assert_eq!(answer.status, 201, "{answer:?}");
}

/// Requests of the fuzz, over all connections: `PUNCTUAL_FUZZ_REQUESTS`, or as many as take some seconds.
fn fuzz_requests() -> usize {
    std::env::var("PUNCTUAL_FUZZ_REQUESTS").map_or(12_000, |count| count.parse().unwrap())
}
const FUZZ_CONNECTIONS: u64 = 4;

/// Bodies that are right, and paths that exist: what the fuzz starts from.
fn seeds(run: &str) -> Vec<(&'static str, String, String)> {
    let full = json!({
        "id": "fuzz",
        "name": "Fuzz",
        "trigger": {"type": "cron", "hour": "1-3", "day": "3rd fri", "timezone": "Europe/Berlin", "jitter": 5},
        "task": {"type": "command", "argv": ["/bin/true", "x"], "env": {"A": "b"}, "timeout": 3, "cwd": "/"},
        "executor": "processpool",
        "misfire_grace_time": 5,
        "coalesce": "latest",
        "max_instances": 2,
        "overlap": "queue",
        "on_crash": "lose",
        "max_runs": 3,
        "timeout": 2.5,
        "retry": {"max_attempts": 2, "delay": 1},
        "priority": 3,
        "on_failure": {"type": "builtin", "name": "noop"},
        "on_finish": "remove",
        "tags": ["a", "b"],
        "description": "text",
        "replace_existing": true,
        "paused": true,
    });
    let interval = json!({"type": "interval", "hours": 2, "start_date": "2030-01-01"});
    let any = json!({"type": "or", "triggers": [interval, {"type": "crontab", "expression": "*/5 8 * * mon"}]});
    let calendar = json!({"type": "calendarinterval", "months": 1, "hour": 3});
    let mut second = by_hand("fuzz-2", noop());
    second["trigger"] = any.clone();
    second["task"] =
        json!({"type": "http", "url": "http://127.0.0.1:9/", "method": "POST", "json": {"a": [1]}});
    let preview = json!({"trigger": calendar, "after": "2026-01-01T00:00:00Z", "inclusive": true, "count": 3});
    let mut seeds: Vec<(&'static str, String, String)> = vec![
        ("POST", "/v1/jobs".into(), full.to_string()),
        ("POST", "/v1/jobs".into(), second.to_string()),
        ("POST", "/v1/jobs".into(), by_hand("fuzz-3", noop()).to_string()),
        (
            "POST",
            "/v1/jobs/batch".into(),
            json!({"jobs": [full, second, by_hand("x", noop())]}).to_string(),
        ),
        ("POST", "/v1/preview".into(), preview.to_string()),
        ("POST", "/v1/preview".into(), json!({"trigger": any, "count": 2}).to_string()),
        ("POST", format!("/v1/runs/{run}/cancel"), json!({"reason": "so"}).to_string()),
        ("GET", "/v1/jobs?state=active,paused&tag=a&prefix=f&limit=3&cursor=a".into(), String::new()),
        (
            "GET",
            "/v1/jobs?order=next_run_time&since=now&until=in+1h&upcoming=3&executor=default&trigger_type=cron".into(),
            String::new(),
        ),
        ("POST", "/v1/jobs/pause?tag=a&dry_run=true&cursor=00".into(), String::new()),
        ("POST", "/v1/jobs/resume?prefix=fuzz&state=paused,active".into(), String::new()),
        ("DELETE", "/v1/jobs?prefix=fuzz&state=finished&trigger_type=date".into(), String::new()),
        (
            "GET",
            format!("/v1/runs?job=job&state=failed&since=2026-01-01&limit=2&cursor={run}"),
            String::new(),
        ),
        ("GET", format!("/v1/runs/{run}?wait=0"), String::new()),
        ("GET", format!("/v1/runs/{run}/output?attempt=1"), String::new()),
        ("GET", "/v1/jobs/job/explain?at=2026-12-01T00:00:00Z".into(), String::new()),
    ];
    for (method, path, has_body) in ROUTES {
        // The scheduler goes on firing, which its job shows.
        if !has_body && *path != "/v1/scheduler/pause" {
            seeds.push((method, path.replace("RUN", run).replace("/job", "/fuzz"), String::new()));
        }
    }
    seeds
}

const HOSTILE: &[&str] = &[
    "null",
    "true",
    "-1",
    "0",
    "1e308",
    "1e999",
    "18446744073709551616",
    "0.0000001",
    "\"\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"\\u202e\\u001b[31m\"",
    "\"2027-02-30\"",
    "\"* * * * * * *\"",
    "\"9999-12-31 23:59:59\"",
    "\"-0001-01-01\"",
    "[]",
    "{}",
    "[[[[[[]]]]]]",
    "{\"a\":1,\"a\":2}",
    "\"P1D\"",
    "\"\u{feff}\"",
    "[null]",
    "\"Mars/Phobos\"",
    "{\"env\":\"PATH\"}",
];

/// The text with one mistake.
fn mutate(text: &str, random: &mut Random) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    if bytes.is_empty() {
        let word = HOSTILE[random.below(HOSTILE.len())];
        return if random.below(2) == 0 { Vec::new() } else { word.as_bytes().to_vec() };
    }
    let at = random.below(bytes.len());
    match random.below(6) {
        0 => bytes[at] = u8::try_from(random.between(0, 255)).unwrap(),
        1 => bytes.truncate(at),
        2 => bytes.splice(at..at, bytes.clone()).for_each(drop),
        3 => {
            let end = (at + random.below(8)).min(bytes.len());
            bytes.drain(at..end);
        }
        // A value in the place of another one.
        _ => {
            let word = HOSTILE[random.below(HOSTILE.len())];
            let values: Vec<usize> = text.match_indices(':').map(|(at, _)| at + 1).collect();
            if values.is_empty() {
                return word.as_bytes().to_vec();
            }
            let begin = values[random.below(values.len())];
            let rest = &text[begin..];
            let end = begin + rest.find([',', '}', ']']).unwrap_or(rest.len());
            bytes.splice(begin..end, word.bytes()).for_each(drop);
        }
    }
    bytes
}

/// A path that is no longer right, and is still one line of printable bytes.
fn mutate_path(path: &str, random: &mut Random) -> String {
    let mut text = String::from_utf8_lossy(&mutate(path, random)).into_owned();
    text.retain(|character| character.is_ascii_graphic());
    text.truncate(2000);
    match random.below(4) {
        0 => format!("{path}?{text}=1"),
        1 => format!("{path}/%{:02x}", random.between(0, 255)),
        _ if text.starts_with('/') => text,
        _ => format!("/{text}"),
    }
}

/// Sends mistakes; none is answered with a fault of the daemon.
fn fuzz(home: &Home, run: &str, requests: usize, seed: u64) {
    let (mut random, seeds) = (Random(seed), seeds(run));
    let mut connection = Raw::connect(&home.socket());
    for number in 0..requests {
        let (method, path, body) = &seeds[random.below(seeds.len())];
        let (path, body) = match random.below(3) {
            0 => (mutate_path(path, &mut random), body.clone().into_bytes()),
            _ => (path.clone(), mutate(body, &mut random)),
        };
        let what = || format!("{number}: {method} {path} {}", String::from_utf8_lossy(&body));
        let asked = connection.ask_anyway(method, &path, &body);
        let answer = asked.unwrap_or_else(|| panic!("no answer: {}", what()));
        assert!(answer.status < 500 || answer.status == 503, "{}: {answer:?}", what());
        if answer.status == 503 {
            assert!(answer.header("retry-after").is_some(), "{}: {answer:?}", what());
        }
        if answer.status >= 400 {
            assert!(!answer.code().is_empty(), "{}", what());
        }
        if answer.header("connection") == Some("close") {
            connection = Raw::connect(&home.socket());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_mistake_of_a_client_is_a_fault_of_the_daemon() {
    let home = Home::new("");
    let daemon = home.start();
    let client = home.client();
    client.add(&by_hand("job", noop())).await.unwrap();
    let run = run_to_end(&client, "job").await;
    let run = text(&run, "id");
    let mut pulse = home.signal("pulse");
    let every = json!({"type": "interval", "seconds": 0.2});
    let tick = json!({"id": "pulse", "trigger": every, "task": pulse.shell("pulse")});
    client.add(&tick).await.unwrap();
    let each = fuzz_requests() / usize::try_from(FUZZ_CONNECTIONS).unwrap();
    std::thread::scope(|scope| {
        for number in 0..FUZZ_CONNECTIONS {
            let home = &home;
            scope.spawn(move || fuzz(home, run, each, seed() + number));
        }
    });
    pulse.next().await;
    let status = client.status().await.unwrap();
    assert_eq!((&status["state"], &status["store_error"]), (&json!("running"), &Value::Null));
    assert_eq!(client.ready().await.unwrap()["ready"], true);
    assert_eq!(client.run_by_id(run).await.unwrap()["state"], "succeeded");
    assert!(daemon.stop().success());
    let log = std::fs::read_to_string(home.log()).unwrap_or_default();
    assert!(!log.contains("panicked"), "{log}");
}
