//! `/metrics`: what a real daemon counts is what really happened, Prometheus' own tool has no complaint, and the alerts and
//! the dashboard use what is there.
#![expect(clippy::float_cmp, reason = "counts are exact")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use punctual::client::percent_encode;
use rustix::process::Signal;
use serde_json::{Value, json};
use support::definitions::{builtin, by_hand, noop, shell, with};
use support::metrics::{PROMTOOL, Scrape, get, promtool};
use support::port::Port;
use support::raw::Raw;
use support::servers::Server;
use support::servers::postgres::Postgres;
use support::{Home, ended, is_installed, run_to_end, text};

/// An id with everything that a label has to escape.
const ODD_ID: &str = r#"say "hi" to C:\jobs{x}"#;

fn scrape(home: &Home) -> Scrape {
    Scrape::of(&home.socket())
}

fn documents() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/prometheus")
}

fn given(id: &str, keys: Value) -> Value {
    with(by_hand(id, Value::Null), keys)
}

/// A job that is due again and again, and runs this often.
fn recurring(id: &str, task: Value, max_runs: u32) -> Value {
    let trigger = json!({"type": "interval", "seconds": 0.05});
    json!({"id": id, "trigger": trigger, "task": task, "max_runs": max_runs})
}

/// Waits until a job has ended all of its runs.
async fn finished(home: &Home, id: &str, runs: usize) {
    let client = home.client();
    loop {
        let page = client.runs(&format!("job={id}&hooks=false")).await.unwrap();
        let rows = page["runs"].as_array().unwrap();
        let is_over = |run: &&Value| run["finished_at"].is_string();
        if rows.iter().filter(is_over).count() >= runs {
            return;
        }
    }
}

#[tokio::test]
async fn what_is_counted_is_what_has_happened() {
    let home = Home::new("[executors.processpool]\ntype = \"processpool\"\nmax_workers = 3\n");
    let daemon = home.start();
    let client = home.client();
    let fail = |permanent: bool| builtin("fail", json!({"message": "no", "permanent": permanent}));
    let sleep = builtin("sleep", json!({"seconds": 600}));
    client.add(&given("good", json!({"task": noop(), "on_success": noop()}))).await.unwrap();
    client.add(&given("bad", json!({"task": fail(true)}))).await.unwrap();
    let retry = json!({"max_attempts": 3, "delay": 0.01, "jitter": 0});
    client.add(&given("tried", json!({"task": fail(false), "retry": retry}))).await.unwrap();
    client.add(&given("slow", json!({"task": sleep, "timeout": 0.2}))).await.unwrap();
    for (id, state) in [
        ("good", "succeeded"),
        ("good", "succeeded"),
        ("bad", "failed"),
        ("tried", "failed"),
        ("slow", "timed_out"),
    ] {
        assert_eq!(text(&run_to_end(&client, id).await, "state"), state, "{id}");
    }
    let mut begun = home.signal("begun");
    let script = format!("echo on > {}; exec sleep 600", begun.path.display());
    client.add(&given("long", json!({"task": shell(&script)}))).await.unwrap();
    let long = client.run("long").await.unwrap();
    assert_eq!(begun.next().await, "on");
    home.ok(&["cancel", text(&long, "id")]);
    client.add(&recurring("often", noop(), 3)).await.unwrap();
    client.add(&recurring(ODD_ID, fail(true), 2)).await.unwrap();
    finished(&home, "often", 3).await;
    // A client that has seen the end of a run finds it in the metrics.
    let odd = percent_encode(ODD_ID);
    finished(&home, &odd, 2).await;
    let never = client.job("nobody").await.unwrap_err();
    assert!(never.is_not_found());
    let hook = client.runs("job=good").await.unwrap();
    for run in hook["runs"].as_array().unwrap() {
        ended(&client, text(run, "id")).await;
    }
    client.status().await.unwrap();

    let page = scrape(&home);
    let of = |executor: &str, outcome: &str| {
        page.value(&format!(
            "punctual_runs_ended_total{{executor=\"{executor}\",outcome=\"{outcome}\"}}"
        ))
    };
    // Two runs of "good" with a hook run each, and three of "often".
    assert_eq!(of("default", "succeeded"), 7.0);
    // "bad", "tried", and two of the job with the odd id.
    assert_eq!(of("default", "failed"), 4.0);
    assert_eq!((of("default", "timed_out"), of("default", "lost")), (1.0, 0.0));
    assert_eq!((of("processpool", "cancelled"), of("processpool", "failed")), (1.0, 0.0));
    assert_eq!(page.value("punctual_attempts_retried_total{executor=\"default\"}"), 2.0);
    let of_job = |id: &str, outcome: &str| {
        let labels = format!("{{job_id=\"{id}\",outcome=\"{outcome}\"}}");
        page.value(&format!("punctual_job_runs_ended_total{labels}"))
    };
    assert_eq!((of_job("often", "succeeded"), of_job("often", "failed")), (3.0, 0.0));
    let odd = ODD_ID.replace('\\', r"\\").replace('"', r#"\""#);
    assert_eq!(of_job(&odd, "failed"), 2.0);
    assert_eq!((of_job("(other)", "succeeded"), of_job("(other)", "failed")), (2.0, 2.0));
    let last = |what: &str, id: &str| {
        page.find(&format!("punctual_job_last_{what}_timestamp_seconds{{job_id=\"{id}\"}}"))
    };
    assert!(last("success", "often").unwrap() > 1_700_000_000.0);
    assert!(last("failure", "often").is_none() && last("failure", &odd).is_some());
    let hooks = "punctual_hook_runs_ended_total{hook=\"on_success\",outcome=\"succeeded\"}";
    assert_eq!(page.value(hooks), 2.0);
    // Every attempt has its times, but for the one that was cancelled in the other executor.
    for name in ["lateness", "queue_wait", "duration"] {
        let count =
            page.value(&format!("punctual_run_{name}_seconds_count{{executor=\"default\"}}"));
        assert_eq!(count, 7.0 + 4.0 + 2.0 + 1.0, "{name}");
        let all = format!("punctual_run_{name}_seconds_bucket{{executor=\"default\",le=\"+Inf\"}}");
        assert_eq!(page.value(&all), count);
    }
    let took = page.value("punctual_run_duration_seconds_sum{executor=\"default\"}");
    assert!((0.2..60.0).contains(&took), "{took}");
    assert_eq!(page.value("punctual_jobs{state=\"active\"}"), 5.0);
    assert_eq!(page.value("punctual_jobs{state=\"finished\"}"), 2.0);
    assert_eq!(page.value("punctual_executor_workers{executor=\"processpool\"}"), 3.0);
    assert_eq!(page.value("punctual_executor_workers_busy{executor=\"default\"}"), 0.0);
    let commits = page.value("punctual_commit_duration_seconds_count");
    assert_eq!(commits, page.value("punctual_commit_changes_count"));
    assert!(commits >= 10.0 && page.value("punctual_scheduler_steps_total") >= commits);
    assert!(page.value("punctual_ledger_rows_total") >= 11.0);
    let requests = |method: &str, route: &str, status: u16| {
        page.value(&format!(
            "punctual_control_requests_total{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}}"
        ))
    };
    assert_eq!(requests("POST", "/v1/jobs", 201), 7.0);
    assert_eq!(requests("GET", "/v1/jobs/{id}", 404), 1.0);
    for flag in ["punctual_ready", "punctual_store_up", "punctual_nodes"] {
        assert_eq!(page.value(flag), 1.0, "{flag}");
    }
    assert_eq!(page.value("punctual_scheduler_paused"), 0.0);
    let pid = daemon.pid().as_raw_nonzero();
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    assert!(page.value("process_open_fds") <= 2.0 * u32::try_from(files).map(f64::from).unwrap());
    assert!(page.value("process_resident_memory_bytes") > 1e6);
    assert!(page.value("process_threads") >= 2.0 && page.value("process_cpu_seconds_total") > 0.0);
    if is_installed(PROMTOOL) {
        assert_eq!(promtool(home.path(), &["check", "metrics"], &page.text), "");
    }
}

#[tokio::test]
async fn runs_that_a_crash_loses_are_counted_by_the_daemon_that_follows() {
    let home = Home::new("");
    let daemon = home.start();
    let client = home.client();
    let mut begun = home.signal("begun");
    let script = format!("echo on > {}; exec sleep 600", begun.path.display());
    let keys = json!({"task": shell(&script), "on_crash": "lose"});
    client.add(&given("long", keys)).await.unwrap();
    client.run("long").await.unwrap();
    assert_eq!(begun.next().await, "on");
    daemon.kill();
    let _daemon = home.start();
    let page = scrape(&home);
    let lost = "punctual_runs_ended_total{executor=\"processpool\",outcome=\"lost\"}";
    assert_eq!(page.value(lost), 1.0);
    let times = "punctual_run_duration_seconds_count{executor=\"processpool\"}";
    assert_eq!(page.value(times), 0.0, "nobody knows when it ended");
}

#[tokio::test]
async fn skipped_occurrences_and_what_waits_are_shown() {
    let home = Home::new("[executors.default]\ntype = \"threadpool\"\nmax_workers = 1\n");
    let _daemon = home.start();
    let client = home.client();
    let sleep = builtin("sleep", json!({"seconds": 600}));
    client.add(&recurring("slow", sleep, 9)).await.unwrap();
    let skips = || async {
        let page = client.runs("job=slow&state=skipped").await.unwrap();
        page["runs"][0]["count"].as_f64().unwrap_or_default()
    };
    while skips().await < 2.0 {}
    client.pause_all().await.unwrap();
    let page = scrape(&home);
    let skipped = page.value("punctual_occurrences_skipped_total{reason=\"overlap\"}");
    assert_eq!(skipped, skips().await, "each occurrence counts, also where they share a row");
    assert_eq!(page.value("punctual_occurrences_skipped_total{reason=\"missed\"}"), 0.0);
    assert_eq!(page.value("punctual_executor_workers_busy{executor=\"default\"}"), 1.0);
    client.add(&by_hand("next", noop())).await.unwrap();
    client.run("next").await.unwrap();
    let page = scrape(&home);
    assert_eq!(page.value("punctual_executor_runs_waiting{executor=\"default\"}"), 1.0);
    assert_eq!(page.value("punctual_runs_in_progress"), 1.0);
    assert_eq!(page.value("punctual_scheduler_paused"), 1.0);
    assert_eq!(page.value("punctual_condition{reason=\"paused\"}"), 1.0);
    assert!(page.value("punctual_scheduler_paused_since_timestamp_seconds") > 1_700_000_000.0);
    assert_eq!(page.value("punctual_ready"), 1.0, "a pause was asked for");
    // The next occurrence is due by now, or soon.
    while scrape(&home).value("punctual_jobs_overdue_seconds") == 0.0 {}
    client.pause("next").await.unwrap();
    assert_eq!(scrape(&home).value("punctual_jobs_due"), 1.0);
    client.resume_all().await.unwrap();
    assert!(scrape(&home).find("punctual_scheduler_paused_since_timestamp_seconds").is_none());
}

#[tokio::test]
async fn a_store_that_is_away_leaves_the_metrics_readable() {
    let Some(server) = Server::<Postgres>::start() else { return };
    let url = server.database("metrics");
    let home = Home::new(&format!("[store]\nurl = \"{url}\"\n"));
    server.stop();
    let mut daemon = home.spawn(&[]);
    daemon.wait_until(|line| line.starts_with("STATUS=waiting for the store"));
    let page = scrape(&home);
    assert_eq!((page.value("punctual_store_up"), page.value("punctual_ready")), (0.0, 0.0));
    assert_eq!(page.value("punctual_condition{reason=\"store\"}"), 1.0);
    assert_eq!(page.value("punctual_executor_workers{executor=\"default\"}"), 20.0);
    assert!(page.value("process_threads") > 1.0);
    if is_installed(PROMTOOL) {
        promtool(home.path(), &["check", "metrics"], &page.text);
    }
    server.start_again();
    daemon.wait_until(|line| line.contains("0 jobs"));
    let client = home.client();
    client.add(&by_hand("job", noop())).await.unwrap();
    assert_eq!(text(&run_to_end(&client, "job").await, "state"), "succeeded");
    let page = scrape(&home);
    assert_eq!((page.value("punctual_store_up"), page.value("punctual_ready")), (1.0, 1.0));
    assert_eq!(page.value("punctual_nodes"), 1.0);
    let (lease, _) =
        page.beginning("punctual_node_lease_renewed_timestamp_seconds").next().unwrap();
    assert!(lease.contains("node=\""), "{lease}");
    server.stop();
    let page = loop {
        let page = scrape(&home);
        if page.value("punctual_store_up") == 0.0 {
            break page;
        }
    };
    assert_eq!(page.value("punctual_ready"), 0.0);
    let ended = "punctual_runs_ended_total{executor=\"default\",outcome=\"succeeded\"}";
    assert_eq!(page.value(ended), 1.0, "what was counted is still there");
    daemon.signal(Signal::KILL);
}

#[tokio::test]
async fn a_tcp_address_serves_what_monitors_ask_and_nothing_else() {
    let port = Port::reserve();
    let address: SocketAddr = ([127, 0, 0, 1], port.number()).into();
    let home = Home::new(&format!("[control]\nmetrics_listen = \"{address}\"\n"));
    let mut daemon = home.spawn(&[]);
    daemon.wait_for("READY=1");
    let host = address.to_string();
    let (status, body) = get(address, "GET", "/metrics", &host);
    assert_eq!(status, 200);
    assert_eq!(Scrape::read(body).value("punctual_ready"), 1.0);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(address, "GET", path, &host).0, 200, "{path}");
    }
    for path in ["/", "/v1/status", "/v1/jobs", "/metrics/", "//metrics", "/v1/jobs/../../metrics"]
    {
        assert_eq!(get(address, "GET", path, &host).0, 404, "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "BREW"] {
        assert_eq!(get(address, method, "/metrics", &host).0, 405, "{method}");
    }
    assert_eq!(get(address, "GET", "/metrics?x=1", &host).0, 400);
    let (status, body) = get(address, "GET", "/metrics", "evil.example");
    assert_eq!(status, 403, "a page of another site may not read it through a browser");
    assert!(body.contains("\"code\":\"forbidden\"") && body.contains("evil.example"), "{body}");
    let mut control = Raw::connect(&home.socket());
    assert_eq!(control.ask("GET", "/v1/status", b"").unwrap().status, 200);
    // Another daemon cannot have the same address, and says so.
    let other = Home::new(&format!("[control]\nmetrics_listen = \"{address}\"\n"));
    assert!(!other.spawn(&[]).ended().success());
    let log = std::fs::read_to_string(other.log()).unwrap();
    assert!(log.contains(&format!("control.metrics_listen: cannot listen at {address}")), "{log}");
    assert!(daemon.stop().success());
}

#[test]
fn the_alerts_are_valid_and_each_does_what_its_example_says() {
    if !is_installed(PROMTOOL) {
        return;
    }
    promtool(&documents(), &["check", "rules", "alerts.yml"], "");
    promtool(&documents(), &["test", "rules", "alerts_test.yml"], "");
    let file = |name| std::fs::read_to_string(documents().join(name)).unwrap();
    let (alerts, tests) = (file("alerts.yml"), file("alerts_test.yml"));
    for alert in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(tests.contains(&format!("    name: {alert}\n")), "{alert} has no example");
    }
}

/// The names in an expression that are metrics of this program: its own, and those of its process.
fn used(expression: &str) -> BTreeSet<String> {
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let words = expression.split(|character| !is_part(character));
    let metrics =
        words.filter(|word| word.starts_with("punctual_") || word.starts_with("process_"));
    let base = |word: &str| {
        let suffixes = ["_bucket", "_sum", "_count"];
        let found = suffixes.iter().find_map(|suffix| word.strip_suffix(suffix));
        found.unwrap_or(word).to_owned()
    };
    metrics.map(base).collect()
}

/// All values of this key in a document.
fn values_of<'a>(document: &'a Value, key: &str) -> Vec<&'a str> {
    match document {
        Value::Object(members) => {
            let own = members.get(key).and_then(Value::as_str);
            own.into_iter()
                .chain(members.values().flat_map(|value| values_of(value, key)))
                .collect()
        }
        Value::Array(values) => values.iter().flat_map(|value| values_of(value, key)).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn alerts_dashboard_and_documentation_use_metrics_that_are_there() {
    let home = Home::new("");
    let _daemon = home.start();
    let page = scrape(&home);
    let there: BTreeSet<String> = page.metrics().into_iter().map(str::to_owned).collect();
    let missing = |expressions: &str| -> Vec<String> {
        used(expressions).into_iter().filter(|name| !there.contains(name)).collect()
    };
    let alerts = std::fs::read_to_string(documents().join("alerts.yml")).unwrap();
    assert_eq!(missing(&alerts), [""; 0]);
    let dashboard = std::fs::read_to_string(documents().join("dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let expressions = values_of(&dashboard, "expr");
    assert!(expressions.len() > 30, "{}", expressions.len());
    assert_eq!(missing(&expressions.join("\n")), [""; 0]);
    let variable = dashboard.pointer("/templating/list/1/query/query").unwrap();
    assert_eq!(missing(variable.as_str().unwrap()), [""; 0]);
    let table = include_str!("../../../docs/OPERATIONS.md");
    let undocumented: Vec<_> =
        there.iter().filter(|name| !table.contains(&format!("`{name}`"))).collect();
    assert!(undocumented.is_empty(), "OPERATIONS.md does not have {undocumented:?}");
    let is_name = |text: &&str| {
        let is_part = |character: char| character.is_ascii_lowercase() || character == '_';
        !used(text).is_empty() && text.chars().all(is_part)
    };
    let documented: Vec<&str> = table.split('`').skip(1).step_by(2).filter(is_name).collect();
    assert_eq!(missing(&documented.join("\n")), [""; 0]);
    if !is_installed(PROMTOOL) {
        return;
    }
    // The expressions of the dashboard as rules, so that promtool parses them.
    let mut rules = "groups: [{name: dashboard, rules: [".to_owned();
    for (number, expression) in expressions.iter().enumerate() {
        let expression = expression.replace("$__rate_interval", "5m").replace("$__range", "1h");
        let rule = json!({"record": format!("panel:{number}"), "expr": expression});
        rules.extend([rule.to_string(), ", ".to_owned()]);
    }
    rules.push_str("]}]\n");
    let file = home.path().join("dashboard.yml");
    std::fs::write(&file, rules).unwrap();
    promtool(home.path(), &["check", "rules", "dashboard.yml"], "");
}
