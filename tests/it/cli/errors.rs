//! Errors of the command line as a script reads them: with `--json`, one object on standard error for each.

use serde_json::{Value, json};

use support::Home;

/// The errors that a failing command prints, and its exit code. It prints no answer.
fn errors(home: &Home, arguments: &[&str]) -> (i32, Vec<Value>) {
    let output = home.run(arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    let read = |line: &str| {
        let error: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        let error = error.get("error").unwrap();
        let mut keys = error.as_object().unwrap().keys();
        assert!(keys.by_ref().eq(["code", "message", "field"]), "{error}");
        error.clone()
    };
    (output.status.code().unwrap(), text.lines().map(read).collect())
}

#[test]
fn errors_are_json_where_answers_are() {
    let home = Home::new("");
    let (code, told) = errors(&home, &["--json", "list"]);
    assert_eq!((code, &told[0]["code"]), (3, &json!("unreachable")));
    let _daemon = home.start();
    let every = ["--every", "1h", "--builtin", "noop", "--json"];
    let add = |id: &str| [&["add", id], &every[..]].concat().join(" ");
    home.ok(&["add", "known", "--every", "1h", "--builtin", "noop"]);
    home.write_config("[scheduler]\ntimezone = \"Mars/Base\"\n");
    let cases = [
        // What the daemon refuses, as it says it.
        ("show nope --json".to_owned(), 1, "not_found", None, "there is no job \"nope\""),
        (add("known"), 1, "exists", Some("id"), "exists already"),
        (add("x").replace("noop", "nope"), 1, "invalid", Some("task.name"), "nope"),
        // What is refused before the daemon is asked.
        (
            add("x").replace("1h", "soon"),
            2,
            "usage",
            None,
            "'--every <DURATION>': \"soon\" is not a duration",
        ),
        ("list --json --state running".to_owned(), 2, "usage", None, "invalid value 'running'"),
        ("list --json --colour".to_owned(), 2, "usage", None, "unexpected argument '--colour'"),
        ("show --json".to_owned(), 2, "usage", None, "<ID>"),
        ("--json".to_owned(), 2, "usage", None, "requires a subcommand"),
        (
            "check --json".to_owned(),
            2,
            "faulty_file",
            Some("scheduler.timezone"),
            "jobs.toml:2:1: scheduler.timezone",
        ),
    ];
    for (typed, code, word, field, message) in cases {
        let (found, told) = errors(&home, &typed.split(' ').collect::<Vec<_>>());
        assert_eq!((found, told.len()), (code, 1), "{typed}: {told:?}");
        assert_eq!((&told[0]["code"], &told[0]["field"]), (&json!(word), &json!(field)), "{typed}");
        let said = told[0]["message"].as_str().unwrap();
        assert!(said.contains(message) && !said.contains("Usage:"), "{typed}: {said}");
    }
    for serve in [&["--json", "serve"][..], &["serve", "--config", "nowhere.toml", "--json"]] {
        let (code, told) = errors(&home, serve);
        assert_eq!((code, told.len(), &told[0]["code"]), (2, 1, &json!("faulty_file")), "{told:?}");
    }
    // Only runs can be cancelled; an id of a job is a mistake with a way out.
    let (code, told) = errors(&home, &["cancel", "known", "--json"]);
    let said = told[0]["message"].as_str().unwrap();
    assert_eq!((code, &told[0]["code"]), (1, &json!("not_found")));
    assert!(said.contains("punctual runs known --state running"), "{said}");
    // Of several ids, one error for each that failed.
    let (code, told) = errors(&home, &["pause", "a", "known", "b", "--json"]);
    let messages: Vec<_> = told.iter().map(|error| error["message"].as_str().unwrap()).collect();
    assert_eq!((code, messages.len()), (1, 2), "{messages:?}");
    assert!(messages[0].contains("\"a\"") && messages[1].contains("\"b\""), "{messages:?}");
    // After -- it is an argument of the command, and no option of this program.
    let (code, complaint) = home.fails(&["add", "x", "--colour", "--", "true", "--json"]);
    assert!(code == 2 && complaint.starts_with("error: unexpected argument"), "{complaint}");
}
