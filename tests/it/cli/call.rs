//! `add --http`: every option arrives in the call.

use serde_json::{Value, json};

use support::Home;

#[test]
fn every_option_of_a_call_arrives_in_the_task() {
    let home = Home::new("");
    let _daemon = home.start();
    let cases: [(&[&str], Value); 6] = [
        (&["--http", "https://example.org/x"], json!({"url": "https://example.org/x"})),
        (
            &[
                "--http",
                "http://[::1]:8080",
                "--method",
                "PUT",
                "--header",
                "Accept: a:b",
                "--header",
                "X-Empty:",
                "--secret-header",
                "Authorization=file:/etc/a=b",
                "--secret-header",
                "X-Key=env:KEY",
                "--secret-header",
                "X-Other=credential:other",
                "--body",
                "some text",
                "--expect",
                "200",
                "--expect",
                "404",
                "--redirects",
                "3",
                "--connect-timeout",
                "500ms",
                "--answer-timeout",
                "5m",
            ],
            json!({
                "url": "http://[::1]:8080", "method": "PUT",
                "headers": {
                    "Accept": "a:b", "X-Empty": "", "Authorization": {"file": "/etc/a=b"},
                    "X-Key": {"env": "KEY"}, "X-Other": {"credential": "other"},
                },
                "body": "some text", "expect": [200, 404], "redirects": 3,
                "connect_timeout": 0.5, "timeout": 300,
            }),
        ),
        (
            &["--http", "env:HOOK_URL", "--json-body", "{\"a\": [1, null]}"],
            json!({"url": {"env": "HOOK_URL"}, "json": {"a": [1, null]}}),
        ),
        (&["--http", "http://x", "--json-body", "null"], json!({"url": "http://x", "json": null})),
        (&["--http", "http://x", "--json-body", "{}"], json!({"url": "http://x", "json": {}})),
        (&["--http", "http://x", "--json-body", "[]"], json!({"url": "http://x", "json": []})),
    ];
    for (number, (arguments, expected)) in cases.iter().enumerate() {
        let id = format!("job-{number}");
        let job = home.json(&[&["add", &id, "--every", "1h"], *arguments].concat());
        let mut task = json!({"type": "http"});
        task.as_object_mut().unwrap().extend(expected.as_object().unwrap().clone());
        assert_eq!((&job["task"], &job["executor"]), (&task, &json!("default")), "{arguments:?}");
        assert_eq!(home.json(&["show", &id]), job);
    }
    let job = home.json(&[
        "add",
        "p",
        "--every",
        "1h",
        "--http",
        "http://x",
        "--executor",
        "processpool",
    ]);
    assert_eq!(job["executor"], json!("processpool"), "any pool calls");
    assert!(home.ok(&["show", "job-2"]).contains("POST {\"env\":\"HOOK_URL\"}"));
}

#[test]
fn a_call_that_makes_no_sense_is_refused_with_its_option() {
    let home = Home::new("");
    let _daemon = home.start();
    let cases: [(&[&str], i32, &str); 17] = [
        (&["--method", "PUT"], 2, "--http"),
        (&["--http", "http://x", "--builtin", "noop"], 2, "--builtin"),
        (&["--http", "http://x", "--", "/bin/true"], 2, "COMMAND"),
        (&["--http", "http://x", "--env", "A=b"], 2, "--env"),
        (&["--builtin", "noop", "--method", "PUT"], 2, "--method"),
        (&["--method", "PUT", "--", "/bin/true"], 2, "--method"),
        (&["--http", "http://x", "--body", "a", "--json-body", "1"], 2, "--json-body"),
        (&["--http", "http://x", "--json-body", "{"], 2, "'--json-body <JSON>': it is not JSON"),
        (&["--http", "http://x", "--json-body", "{\"token\": \"hunter2\""], 2, "it is not JSON"),
        (&["--http", "http://x", "--on-failure", "{}"], 1, "on_failure.type"),
        // JSON with a control character stays faulty, although the error shows it escaped.
        (&["--http", "http://x", "--json-body", "\"hunter2\n\""], 2, "control character"),
        (
            &["--http", "http://x", "--header", "X"],
            2,
            "'X' for '--header <NAME: VALUE>': it must have the form",
        ),
        (
            &["--http", "http://x", "--header", "X: a", "--secret-header", "X=env:B"],
            2,
            "the header X is given twice",
        ),
        (&["--http", "http://x", "--connect-timeout", "soon"], 2, "is not a duration"),
        (&["--http", "example.org"], 1, "task.url: must be a URL of http or https"),
        (&["--http", "http://me:hunter2@x"], 1, "task.url: must not hold a user"),
        (
            &["--http", "http://x", "--secret-header", "Authorization=hunter2"],
            2,
            "--secret-header takes",
        ),
    ];
    for (arguments, code, complaint) in cases {
        let (ended, said) = home.fails(&[&["add", "x", "--every", "1h"], arguments].concat());
        assert!(ended == code && said.contains(complaint), "{arguments:?}: {ended}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
    assert_eq!(home.json(&["list"])["jobs"], json!([]));
}
