//! Text from others on its way to a terminal: control characters are escaped in every output.

use serde_json::{Value, json};

use support::terminal::shown_in_terminal;
use support::{self, Home, text};

/// Clears the screen, sets the title, begins a line, changes the direction of the text.
const HOSTILE: &str = "x\u{1b}[2J\u{1b}]0;pwn\u{7}\n\rfake \u{9b}31m\u{7f}\u{202e}\u{200f}y";

/// Everything that a program prints, which commands no terminal.
fn harmless(home: &Home, arguments: &[&str]) -> String {
    let output = home.run(arguments);
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    let is_command = |letter: char| {
        (letter.is_control() && letter != '\n')
            || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}')
    };
    assert!(!said.contains(is_command), "{arguments:?}: {said:?}");
    assert!(!said.contains("\nfake"), "{arguments:?}: {said:?}");
    said
}

#[tokio::test]
async fn foreign_text_commands_no_terminal_whatever_prints_it() {
    let home = Home::new("");
    let _daemon = home.start();
    let client = home.client();
    let far = json!({"type": "date", "run_date": "2100-01-01", "timezone": "UTC"});
    let job = |id: &str, task: Value| json!({"id": id, "trigger": far, "task": task, "description": HOSTILE});
    let failing = json!({"type": "builtin", "name": "fail", "args": {"message": HOSTILE}});
    client.add(&job("fails", failing)).await.unwrap();
    client
        .add(&job("lost", json!({"type": "command", "argv": [format!("/{HOSTILE}"), HOSTILE]})))
        .await
        .unwrap();
    client
        .add(&job("held", json!({"type": "builtin", "name": "sleep", "args": {"seconds": 600}})))
        .await
        .unwrap();
    let failed = support::run_to_end(&client, "fails").await;
    support::run_to_end(&client, "lost").await;
    let held = client.run("held").await.unwrap();
    client.cancel(text(&held, "id"), Some(HOSTILE)).await.unwrap();
    support::ended(&client, text(&held, "id")).await;
    // The direction of the text may be changed by an id, too.
    let id = "a\u{202e}b\u{200f}c";
    harmless(&home, &["add", id, "--every", "1h", "--description", HOSTILE, "--builtin", "noop"]);
    let shown = harmless(&home, &["list"]);
    assert!(shown.contains("/x\\u{1b}[2J\\u{1b}]0;pwn\\u{7}\\n\\rfake"), "{shown}");
    let ways: [&[&str]; 22] = [
        &["list", "--json"],
        &["list", "--limit", "1"],
        &["show", "fails"],
        &["show", "lost"],
        &["show", "lost", "--json"],
        &["show", id],
        &["runs"],
        &["runs", "--json"],
        &["runs", text(&failed, "id")],
        &["runs", text(&held, "id")],
        &["explain", id],
        &["run", "fails", "--wait"],
        &["run", "lost", "--wait"],
        &["logs", "lost"],
        &["pause", id],
        &["resume", id, HOSTILE],
        &["status"],
        &["preview", "--crontab", "0 9\n*\t* *"],
        &["preview", "--crontab", HOSTILE],
        &["add", HOSTILE, "--at", HOSTILE, "--builtin", HOSTILE],
        &["remove", HOSTILE],
        &["check", HOSTILE],
    ];
    for way in ways {
        harmless(&home, way);
    }
    for typed in [
        &[HOSTILE][..],
        &["list", HOSTILE],
        &["list", "--state", HOSTILE],
        &["list", "--limit", HOSTILE],
    ] {
        let said = harmless(&home, typed);
        assert!(said.contains("\\u{1b}[2J"), "{said}");
    }
    let shown = harmless(&home, &["runs", text(&failed, "id")]);
    assert!(shown.contains("detail     x\\u{1b}[2J\\u{1b}]0;pwn\\u{7}\\n\\rfake \\u{9b}31m\\u{7f}\\u{202e}\\u{200f}y"), "{shown}");
}

#[test]
fn an_output_is_raw_in_a_pipe_and_keeps_only_its_colours_on_a_terminal() {
    let home = Home::new("");
    let _daemon = home.start();
    let script = r"printf '\033[32mgreen\033[0m \033[2J\tx\r\n'";
    home.ok(&["add", "colours", "--cron", "hour=3", "--shell", "--", script]);
    home.ok(&["run", "colours", "--wait"]);
    assert_eq!(home.ok(&["logs", "colours"]), "\u{1b}[32mgreen\u{1b}[0m \u{1b}[2J\tx\r\n");
    let on_terminal = |arguments: &str| {
        let words: Vec<&str> = arguments.split(' ').collect();
        shown_in_terminal(home.command(&words), 80)
    };
    let safe = "\u{1b}[32mgreen\u{1b}[0m \\u{1b}[2J\tx\u{1b}[0m\r\n";
    assert_eq!(on_terminal("logs colours"), safe);
    assert!(on_terminal("logs colours -t").contains(safe));
    assert_eq!(on_terminal("logs colours --follow"), safe);
    assert!(on_terminal("run colours --wait").starts_with(safe));
    let raw = "\u{1b}[32mgreen\u{1b}[0m \u{1b}[2J\tx\r\r\n";
    assert_eq!(on_terminal("logs colours --raw"), raw);
    assert!(on_terminal("run colours --wait --raw").starts_with(raw));
}
