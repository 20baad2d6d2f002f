//! The life of the daemon as a service: start, use, reload, crash, stop and reboot.

use serde_json::json;

use crate::machine::Machine;

#[test]
fn members_of_the_group_use_the_daemon_and_other_users_get_the_reason() {
    let Some(machine) = Machine::installed() else { return };
    machine.ok(&["useradd", "--create-home", "--groups", "punctual", "anna"]);
    machine.ok(&["useradd", "--create-home", "bert"]);
    let status = machine.ok(&["systemctl", "status", "punctual"]);
    assert!(status.contains("Active: active (running)"), "{status}");

    let add = ["punctual", "add", "hello", "--every", "1h", "--", "/bin/echo", "hello"];
    let added = machine.run_as("anna", &add);
    let said = String::from_utf8(added.stdout).unwrap();
    assert!(said.starts_with("added hello: next run "), "{said}");
    let ran = machine.run_as("anna", &["punctual", "run", "hello", "--wait"]);
    let said = String::from_utf8(ran.stdout).unwrap();
    assert!(ran.status.success() && said.contains("hello"), "{said}");

    let refused = machine.run_as("bert", &["punctual", "list"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    let expected = "permission denied on /run/punctual/punctual.sock: join group punctual";
    assert!(refused.status.code() == Some(3) && said.contains(expected), "{said}");
    // Such a user cannot see the daemon's files either.
    for path in ["/var/lib/punctual/punctual.db", "/run/punctual/punctual.sock"] {
        assert!(!machine.run_as("bert", &["stat", path]).status.success(), "{path}");
    }
}

#[test]
fn while_the_service_is_stopped_a_client_names_its_socket_and_unit() {
    let Some(machine) = Machine::installed() else { return };
    machine.ok(&["systemctl", "stop", "punctual"]);
    let (code, said) = machine.fails(&["punctual", "list"]);
    assert_eq!(code, 3, "{said}");
    for part in ["/run/punctual/punctual.sock", "systemctl status punctual"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn a_reload_applies_the_file_and_a_faulty_one_changes_nothing() {
    let Some(machine) = Machine::installed() else { return };
    let file = |jobs: &str| machine.write("/etc/punctual/jobs.toml", jobs);
    let ids = || machine.json(&["list"])["jobs"].as_array().unwrap().clone();
    let daemon = machine.property("MainPID");
    let declared = |id: &str| {
        let trigger = r#"trigger = { type = "interval", hours = 1 }"#;
        let task = r#"task = { type = "command", argv = ["/bin/true"] }"#;
        format!("[[jobs]]\nid = \"{id}\"\n{trigger}\n{task}\n")
    };
    file(&declared("first"));
    machine.ok(&["systemctl", "reload", "punctual"]);
    assert_eq!(ids()[0]["id"], "first");

    file(&format!("{}[nothing]\n", declared("second")));
    machine.fails(&["systemctl", "reload", "punctual"]);
    assert_eq!((ids().len(), &ids()[0]["id"]), (1, &json!("first")));
    let journal = machine.journal();
    assert!(journal.contains("/etc/punctual/jobs.toml:5:2: nothing"), "{journal}");
    assert_eq!(machine.property("ActiveState"), "active");

    file(&declared("second"));
    machine.ok(&["systemctl", "reload", "punctual"]);
    assert_eq!((ids().len(), &ids()[0]["id"]), (1, &json!("second")));
    assert_eq!(machine.property("MainPID"), daemon);
}

#[test]
fn a_killed_daemon_is_restarted_and_leaves_no_process_behind() {
    let Some(machine) = Machine::installed() else { return };
    let started = machine.pipe("started");
    let script = format!("setsid sleep 600 & echo $$ > {started}; exec sleep 600");
    machine.add("long", &["--on-crash", "lose"], &script);
    machine.ok(&["punctual", "run", "long"]);
    machine.line(&started);
    let daemon = machine.property("MainPID");

    machine.ok(&["kill", "-KILL", &daemon]);

    machine.wait_for_another_daemon(&daemon);
    assert_eq!(machine.property("NRestarts"), "1");
    assert_eq!(machine.shell("pgrep --list-full --uid punctual sleep || true"), "");
    let run = &machine.json(&["runs", "long"])["runs"][0];
    assert_eq!(run["state"], "lost", "{run}");
    assert_eq!(machine.json(&["list"])["jobs"][0]["state"], "active");
}

#[test]
fn a_stop_lets_runs_end_and_the_unit_is_not_failed() {
    let Some(machine) = Machine::installed() else { return };
    let started = machine.pipe("started");
    machine.add("long", &[], &format!("echo $$ > {started}; sleep 2; echo all of it"));
    machine.ok(&["punctual", "run", "long"]);
    machine.line(&started);

    machine.ok(&["systemctl", "stop", "punctual"]);

    assert_eq!(machine.property("ActiveState"), "inactive");
    assert_eq!(machine.property("Result"), "success");
    assert_eq!(machine.shell("pgrep --list-full --uid punctual || true"), "");
    machine.ok(&["systemctl", "start", "punctual"]);
    let runs = machine.json(&["runs", "long"]);
    let runs = runs["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 1);
    assert_eq!((&runs[0]["state"], &runs[0]["attempt"]), (&json!("succeeded"), &json!(1)));
    assert!(machine.ok(&["punctual", "logs", "long"]).contains("all of it"));
}

#[test]
fn a_run_that_outlasts_the_drain_gets_sigterm_and_runs_again_at_the_next_start() {
    let Some(machine) = Machine::installed() else { return };
    machine.write("/etc/punctual/jobs.toml", "[scheduler]\ndrain_seconds = 1\n");
    machine.ok(&["systemctl", "restart", "punctual"]);
    let (said, asked) = machine.start_work_that_notes_a_request_to_end();

    machine.ok(&["systemctl", "stop", "punctual"]);

    assert_eq!(machine.property("Result"), "success");
    assert_eq!(machine.ok(&["cat", asked]), "asked\n");
    machine.ok(&["systemctl", "start", "punctual"]);
    assert_eq!(machine.line(&said), "run", "it runs again");
    assert_eq!(machine.json(&["runs", "long"])["runs"][0]["attempt"], 2);
}
