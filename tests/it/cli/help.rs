//! The help of every command, and its examples, which can be typed as they are.

use std::process::Command;

use support::{Home, program};

/// Verbs that the help lists.
pub(crate) fn verbs(home: &Home) -> Vec<String> {
    let help = home.ok(&["--help"]);
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let verbs = lines.take_while(|line| !line.is_empty());
    // A text that does not fit goes on in a line that is indented further.
    let verbs = verbs.filter(|line| !line.starts_with("   "));
    let verbs = verbs.map(|line| line.split_whitespace().next().unwrap().to_owned());
    verbs.filter(|verb| verb != "help").collect()
}

/// The lines of examples in a verb's help.
fn examples(home: &Home, verb: &str) -> Vec<String> {
    let help = home.ok(&[verb, "--help"]);
    let lines = help.lines().skip_while(|line| !line.starts_with("Example")).skip(1);
    let lines = lines.take_while(|line| !line.is_empty());
    lines.map(|line| line.trim().to_owned()).collect()
}

#[test]
fn every_verb_has_help_with_an_example_of_itself() {
    let home = Home::new("");
    let expected = [
        "serve",
        "check",
        "migrate",
        "add",
        "modify",
        "reschedule",
        "edit",
        "list",
        "show",
        "pause",
        "resume",
        "run",
        "cancel",
        "remove",
        "explain",
        "runs",
        "logs",
        "status",
        "executors",
        "log-level",
        "preview",
        "import",
        "reload",
        "completions",
        "man",
    ];
    assert_eq!(verbs(&home), expected);
    for verb in expected {
        let examples = examples(&home, verb);
        assert!(!examples.is_empty(), "{verb} has no example");
        for example in &examples {
            assert!(example.contains(&format!("punctual {verb}")), "{verb}: {example}");
        }
        assert_eq!(home.ok(&["help", verb]), home.ok(&[verb, "--help"]), "{verb}");
    }
    assert!(home.ok(&["--help"]).contains("Exit codes: 0 done"));
    assert_eq!(home.ok(&["--version"]), home.ok(&["list", "--version"]).replace("-list", ""));
}

#[test]
fn the_examples_of_the_help_work_as_they_stand() {
    let home = Home::new("");
    let _daemon = home.start();
    home.ok(&["add", "order:42:expire", "--cron", "hour=1", "--builtin", "noop"]);
    let folder = std::path::Path::new(program()).parent().unwrap().display();
    let path = format!("{folder}:/usr/bin:/bin");
    // In this order: what is shown and run has to be added before.
    let verbs = [
        "add",
        "modify",
        "reschedule",
        "list",
        "show",
        "pause",
        "resume",
        "runs",
        "status",
        "preview",
        "remove",
        "reload",
    ];
    for verb in verbs {
        for example in examples(&home, verb) {
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", &example]).current_dir(home.path());
            shell.env("PATH", &path).env("PUNCTUAL_SOCKET", home.socket());
            let output = shell.output().unwrap();
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{example}: {complaint}");
        }
    }
}
