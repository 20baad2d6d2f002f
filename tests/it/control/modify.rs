//! Changes of one job over the socket: merge patches, other triggers, and the versions that requests are meant for.

use serde_json::{Value, json};
use support::definitions::{NEVER, by_hand, noop, with};
use support::raw::{Answer, Raw};
use support::{Home, text};

/// Sends a request with these headers.
fn ask(home: &Home, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    let mut connection = Raw::connect(&home.socket());
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\n");
    for (name, value) in headers {
        head += name;
        head += ": ";
        head += value;
        head += "\r\n";
    }
    let length = body.len();
    assert!(connection.send(format!("{head}content-length: {length}\r\n\r\n{body}")));
    connection.answer().unwrap_or_else(|| panic!("{method} {path}"))
}

fn patch(home: &Home, id: &str, body: &Value) -> Answer {
    ask(home, "PATCH", &format!("/v1/jobs/{id}"), &[], body)
}

fn etag(answer: &Answer) -> String {
    answer.header("etag").unwrap_or_else(|| panic!("no ETag: {answer:?}")).to_owned()
}

fn field(answer: &Answer) -> String {
    answer.json()["error"]["field"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_null_takes_an_option_back_to_its_default() {
    let home = Home::new("[scheduler]\njob_defaults = { misfire_grace_time = 30, timeout = 7 }\n");
    let _daemon = home.start();
    let given = json!({"timeout": 60, "misfire_grace_time": null, "retry": {"max_attempts": 3, "delay": 5},
        "tags": ["a", "b"], "description": "x"});
    let task = json!({"type": "builtin", "name": "noop", "args": {"a": 1, "b": {"c": 2, "d": 3}}});
    let before = home.client().add(&with(by_hand("job", task), given)).await.unwrap();
    let change = json!({"timeout": null, "retry": {"max_attempts": 5}, "tags": ["c"], "name": "n",
        "task": {"args": {"b": {"c": null, "e": 4}}}, "on_success": noop(), "description": null});
    let answer = patch(&home, "job", &change);
    assert_eq!(answer.status, 200, "{answer:?}");
    let after = answer.json();
    let expected = json!({"timeout": 7, "tags": ["c"], "name": "n", "description": "", "revision": 2,
        "task": {"type": "builtin", "name": "noop", "args": {"a": 1, "b": {"d": 3, "e": 4}}}, "on_success": noop()});
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&after[key], value, "{key}");
    }
    assert_eq!((&after["retry"]["max_attempts"], &after["retry"]["delay"]), (&json!(5), &json!(5)));
    for key in ["misfire_grace_time", "next_run_time", "trigger", "created_at", "max_instances"] {
        assert_eq!(after[key], before[key], "{key} was not named");
    }
    assert_eq!(home.client().job("job").await.unwrap(), after);
    let grace = patch(&home, "job", &json!({"misfire_grace_time": null})).json();
    assert_eq!(grace["misfire_grace_time"], 30, "null is the job default and not the value null");
    let audit = home.log_with("action=modify outcome=done job=job changed=misfire_grace_time");
    let first = audit.lines().find(|line| line.contains("action=modify")).unwrap();
    for option in ["timeout", "retry", "tags", "name", "task", "on_success", "description"] {
        assert!(first.contains(option), "{option}: {first}");
    }
}

#[tokio::test]
async fn what_a_patch_cannot_change_is_refused_by_name_and_nothing_is_changed() {
    let home = Home::new("");
    let _daemon = home.start();
    let before = home.client().add(&by_hand("job", noop())).await.unwrap();
    let cases = [
        (json!({"nonsense": 1}), 422, "nonsense"),
        (json!({"nonsense": null}), 422, "nonsense"),
        (json!({"state": "paused"}), 422, "state"),
        (json!({"revision": 7}), 422, "revision"),
        (json!({"id": "other"}), 422, "id"),
        (json!({"id": null}), 422, "id"),
        (json!({"paused": true}), 422, "paused"),
        (json!({"replace_existing": true}), 422, "replace_existing"),
        (json!({"next_run_time": null}), 422, "next_run_time"),
        (json!({"next_run_time": "soon"}), 422, "next_run_time"),
        (json!({"trigger": null}), 422, "trigger"),
        (json!({"task": null}), 422, "task"),
        (json!({"task": {"argv": ["true"]}}), 422, "task"),
        (json!({"trigger": {"hour": 3}}), 422, "trigger.hour"),
        (json!({"trigger": "daily"}), 422, "trigger"),
        (json!({"timeout": -1}), 422, "timeout"),
        (json!({"timeout": "1h"}), 422, "timeout"),
        (json!({"executor": "gone"}), 422, "executor"),
        (json!({"tags": "a"}), 422, "tags"),
        (json!({"task": {"name": "gone"}}), 422, "task.name"),
        (json!({"timeout": 5, "max_runs": 0}), 422, "max_runs"),
        (json!([1]), 422, ""),
    ];
    for (body, status, name) in cases {
        let answer = patch(&home, "job", &body);
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        assert!(field(&answer).starts_with(name), "{body}: {answer:?}");
        let trial = ask(&home, "PATCH", "/v1/jobs/job?dry_run=true", &[], &body);
        assert_eq!(trial.body, answer.body, "{body}: a dry run says the same");
    }
    assert_eq!(patch(&home, "gone", &json!({})).status, 404);
    assert_eq!(home.client().job("job").await.unwrap(), before);
    let twice = Raw::connect(&home.socket()).ask("PATCH", "/v1/jobs/job", br#"{"a": 1, "a": 2}"#);
    assert!(twice.unwrap().json()["error"]["message"].as_str().unwrap().contains("given twice"));
}

#[tokio::test]
async fn a_job_of_the_file_is_changed_in_the_file_only() {
    let home = Home::new(
        "[[jobs]]\nid = \"own\"\ntrigger = {type = \"interval\", hours = 1}\n\
        task = {type = \"builtin\", name = \"noop\"}\n",
    );
    let _daemon = home.start();
    let trigger = json!({"trigger": {"type": "interval", "hours": 2}});
    for (method, path, body) in [
        ("PATCH", "/v1/jobs/own", &json!({"timeout": 5})),
        ("PATCH", "/v1/jobs/own?dry_run=true", &json!({"timeout": 5})),
        ("POST", "/v1/jobs/own/reschedule", &trigger),
    ] {
        let answer = ask(&home, method, path, &[], body);
        assert_eq!((answer.status, answer.code().as_str()), (409, "declared_in_file"), "{path}");
    }
}

#[tokio::test]
async fn a_trigger_is_merged_by_a_patch_and_replaced_by_a_reschedule() {
    let home = Home::new("");
    let _daemon = home.start();
    let job = json!({"id": "job", "task": noop(),
        "trigger": {"type": "cron", "hour": 3, "day_of_week": "fri", "timezone": "Asia/Tokyo"}});
    home.client().add(&job).await.unwrap();
    let merged = patch(&home, "job", &json!({"trigger": {"hour": 4, "day_of_week": null}})).json();
    let expected = json!({"type": "cron", "hour": 4, "timezone": "Asia/Tokyo"});
    assert_eq!(merged["trigger"], expected);
    let paused = home.client().pause("job").await.unwrap();
    assert_eq!(paused["next_run_time"], Value::Null);
    let body = json!({"trigger": {"type": "interval", "hours": 2, "timezone": "UTC"}});
    let trial = ask(&home, "POST", "/v1/jobs/job/reschedule?dry_run=true", &[], &body);
    let trial = trial.json();
    assert_eq!(trial["before"]["trigger"], expected);
    assert_eq!(trial["changed"], json!(["trigger", "state", "next_run_time"]));
    assert_eq!(trial["before"]["next_run_times"], json!([]));
    assert_eq!(trial["after"]["next_run_times"].as_array().unwrap().len(), 5);
    assert_eq!(home.client().job("job").await.unwrap(), paused, "nothing was changed");
    let answer = ask(&home, "POST", "/v1/jobs/job/reschedule", &[], &body);
    let job = answer.json();
    assert_eq!(job["trigger"], body["trigger"]);
    assert_eq!((text(&job, "state"), job["next_run_time"].is_null()), ("active", false));
    assert_eq!(home.client().job("job").await.unwrap(), job);
    home.log_with("action=reschedule outcome=done job=job changed=trigger,state,next_run_time");
    for body in [json!({}), json!({"trigger": null}), json!({"trigger": {"hours": 2}}), json!(1)] {
        let answer = ask(&home, "POST", "/v1/jobs/job/reschedule", &[], &body);
        assert_eq!(answer.status, 422, "{body}: {answer:?}");
    }
}

#[tokio::test]
async fn a_patch_may_say_when_the_job_runs_next() {
    let home = Home::new("");
    let _daemon = home.start();
    home.client().add(&by_hand("job", noop())).await.unwrap();
    let answer = patch(&home, "job", &json!({"next_run_time": "2099-01-01T00:00:00Z"}));
    assert_eq!(text(&answer.json(), "next_run_time"), "2099-01-01T00:00:00.000000Z");
    assert_eq!(text(&answer.json()["trigger"], "run_date"), NEVER);
    home.log_with("changed=next_run_time");
}

#[tokio::test]
async fn an_answer_that_is_a_job_has_its_version_and_a_request_can_be_meant_for_it() {
    let home = Home::new("");
    let _daemon = home.start();
    let job = by_hand("job", noop());
    let added = etag(&ask(&home, "POST", "/v1/jobs", &[], &job));
    assert!(added.starts_with("\"1."), "{added}");
    assert_eq!(etag(&ask(&home, "GET", "/v1/jobs/job", &[], &Value::Null)), added);
    let paused = ask(&home, "POST", "/v1/jobs/job/pause", &[("if-match", &added)], &Value::Null);
    assert_eq!(paused.status, 200, "{paused:?}");
    let present = etag(&paused);
    assert!(present.starts_with("\"2."), "{present}");
    let changes = [
        ("PATCH", "/v1/jobs/job", json!({"timeout": 5})),
        ("PATCH", "/v1/jobs/job?dry_run=true", json!({"timeout": 5})),
        ("POST", "/v1/jobs/job/pause", Value::Null),
        ("POST", "/v1/jobs/job/resume", Value::Null),
        ("POST", "/v1/jobs/job/reschedule", json!({"trigger": {"type": "interval", "hours": 2}})),
        ("DELETE", "/v1/jobs/job", Value::Null),
    ];
    let weak = format!("W/{present}");
    for (method, path, body) in &changes {
        for wrong in [added.as_str(), "\"1\"", "\"2.7\"", "\"x\"", "\"\"", &weak, "\"1\", \"3\""] {
            let answer = ask(&home, method, path, &[("if-match", wrong)], body);
            assert_eq!(answer.status, 412, "{method} {path} {wrong}: {answer:?}");
            assert_eq!(
                (answer.code().as_str(), etag(&answer)),
                ("precondition_failed", present.clone())
            );
            assert_eq!(answer.json()["error"]["revision"], 2);
        }
        for malformed in ["2", "", "\"2", "\"2\" \"3\"", "*, \"2\"", "\"2\","] {
            let answer = ask(&home, method, path, &[("if-match", malformed)], body);
            assert_eq!((answer.status, answer.code().as_str()), (400, "unreadable"), "{malformed}");
        }
        let since = ("if-unmodified-since", "Mon, 30 Nov 2026 00:00:00 GMT");
        assert_eq!(ask(&home, method, path, &[since], body).status, 400);
    }
    assert_eq!(etag(&ask(&home, "GET", "/v1/jobs/job", &[], &Value::Null)), present);
    let mut present = present;
    for (method, path, body) in &changes {
        let answer = ask(&home, method, path, &[("if-match", &present)], body);
        assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
        present = etag(&answer);
    }
    let gone = ask(&home, "DELETE", "/v1/jobs/job", &[("if-match", "*")], &Value::Null);
    assert_eq!(gone.status, 404);
    // The same id again is another job, though it has the same revision.
    let again = etag(&ask(&home, "POST", "/v1/jobs", &[], &job));
    assert!(again.starts_with("\"1.") && again != added, "{again} {added}");
    for right in ["*", "\"1\"", "\"9\" , \"1\"", &again] {
        let answer =
            ask(&home, "POST", "/v1/jobs/job/resume", &[("if-match", right)], &Value::Null);
        assert_eq!(answer.status, 200, "{right}: {answer:?}");
    }
}

#[tokio::test]
async fn a_job_that_the_client_has_already_is_not_sent_again() {
    let home = Home::new("");
    let _daemon = home.start();
    home.client().add(&by_hand("job", noop())).await.unwrap();
    let get =
        |tag: &str| ask(&home, "GET", "/v1/jobs/job", &[("if-none-match", tag)], &Value::Null);
    let present = etag(&get("\"0\""));
    for same in [present.as_str(), &format!("\"x\", W/{present}"), "*"] {
        let mut connection = Raw::connect(&home.socket());
        connection
            .send(format!("GET /v1/jobs/job HTTP/1.1\r\nhost: x\r\nif-none-match: {same}\r\n\r\n"));
        let answer = connection.answer().unwrap();
        assert_eq!((answer.status, answer.body.len()), (304, 0), "{same}: {answer:?}");
        assert_eq!(etag(&answer), present);
    }
    for other in ["\"1\"", "\"0\", \"x\""] {
        assert_eq!(get(other).status, 200, "{other}");
    }
    assert_eq!(get("1").status, 400);
    // While the scheduler is paused, the answer says so, and is another one.
    home.ok(&["pause", "--all"]);
    let paused = get(&present);
    assert_eq!((paused.status, etag(&paused) != present), (200, true));
    assert_eq!(get(&etag(&paused)).status, 304);
    let change = [("if-match", etag(&paused))];
    let headers = change.each_ref().map(|(name, value)| (*name, value.as_str()));
    assert_eq!(ask(&home, "PATCH", "/v1/jobs/job", &headers, &json!({"timeout": 5})).status, 200);
    home.ok(&["resume", "--all"]);
    assert_eq!(get(&etag(&paused)).status, 200);
}

#[tokio::test]
async fn patches_of_different_options_at_the_same_time_all_count() {
    let home = Home::new("");
    let _daemon = home.start();
    let client = home.client();
    let every = json!({"type": "interval", "seconds": 0.05});
    client.add(&json!({"id": "job", "trigger": every, "task": noop()})).await.unwrap();
    // The job fires all the while, which changes its revision, but not its definition.
    std::thread::scope(|scope| {
        for number in 0..16 {
            let home = &home;
            scope.spawn(move || {
                let args = json!({"task": {"args": {format!("n{number}"): number}}});
                let answer = patch(home, "job", &args);
                assert_eq!(answer.status, 200, "{answer:?}");
            });
        }
    });
    let args = client.job("job").await.unwrap()["task"]["args"].clone();
    assert_eq!(args.as_object().unwrap().len(), 16, "{args}");
}
