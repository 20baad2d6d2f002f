//! The service with a `PostgreSQL` store on the same host: over a reboot, and while the database is away.

use serde_json::json;

use crate::machine::{Machine, UNIT};

/// A machine whose daemon has its store in the machine's own `PostgreSQL`.
fn with_database(drain_seconds: u32) -> Option<Machine> {
    let machine = Machine::installed()?;
    let url = machine.postgres();
    machine.write(
        "/etc/punctual/jobs.toml",
        &format!("[scheduler]\ndrain_seconds = {drain_seconds}\n[store]\nurl = \"{url}\"\n"),
    );
    machine.ok(&["systemctl", "restart", UNIT]);
    machine.wait_until("the store is there", is_ready);
    Some(machine)
}

/// True if the daemon has opened its store.
fn is_ready(machine: &Machine) -> bool {
    let socket = "/run/punctual/punctual.sock";
    let ready = ["curl", "--fail", "--silent", "--unix-socket", socket, "http://punctual/readyz"];
    machine.run(&ready).status.success()
}

#[test]
fn at_a_reboot_runs_end_and_are_recorded_before_the_database_stops() {
    let Some(mut machine) = with_database(30) else { return };
    let started = machine.pipe("started");
    machine.add("long", &[], &format!("echo $$ > {started}; sleep 2; echo all of it"));
    machine.ok(&["punctual", "add", "tick", "--every", "1s", "--", "/bin/true"]);
    machine.ok(&["punctual", "run", "long"]);
    machine.line(&started);

    machine.reboot();

    assert_eq!(machine.property("ActiveState"), "active");
    assert_eq!(machine.property("NRestarts"), "0");
    let runs = machine.json(&["runs", "long"]);
    let runs = runs["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 1, "{runs:?}");
    assert_eq!((&runs[0]["state"], &runs[0]["attempt"]), (&json!("succeeded"), &json!(1)));
    assert!(machine.ok(&["punctual", "logs", "long"]).contains("all of it"));
    let journal = machine.journal();
    assert!(journal.contains("Deactivated successfully"), "{journal}");
    assert!(!journal.contains("the store failed"), "{journal}");
    // Due jobs run again.
    let node = format!(":{}:", machine.property("MainPID"));
    machine.wait_until("the job runs again", |machine| {
        let runs = machine.json(&["runs", "tick", "--state", "succeeded"]);
        runs["runs"].as_array().unwrap().iter().any(|run| run["node"].to_string().contains(&node))
    });
}

#[test]
fn a_stop_while_the_database_is_away_ends_runs_in_order_and_is_no_failure() {
    let Some(machine) = with_database(1) else { return };
    let (said, asked) = machine.start_work_that_notes_a_request_to_end();
    machine.ok(&["systemctl", "stop", "postgresql@15-main"]);

    machine.ok(&["systemctl", "stop", UNIT]);

    assert_eq!(machine.property("Result"), "success");
    assert_eq!(machine.property("ActiveState"), "inactive");
    assert_eq!(machine.ok(&["cat", asked]), "asked\n");
    assert_eq!(machine.shell("pgrep --list-full --uid punctual || true"), "");
    machine.ok(&["systemctl", "start", "postgresql@15-main", UNIT]);
    assert_eq!(machine.line(&said), "run", "what was not recorded runs again");
}

#[test]
fn a_boot_without_the_database_is_not_delayed_and_the_daemon_starts_when_it_comes() {
    let Some(mut machine) = with_database(1) else { return };
    machine.ok(&["punctual", "add", "tick", "--every", "1s", "--", "/bin/true"]);
    machine.shell("systemctl disable --now --quiet postgresql 2>/dev/null");

    machine.reboot();

    assert_eq!(machine.property("ActiveState"), "active");
    let status = machine.property("StatusText");
    assert!(status.contains("waiting for the store"), "{status}");
    let (code, said) = machine.fails(&["punctual", "list"]);
    assert!(code == 1 && said.contains("store"), "{said}");
    machine.ok(&["systemctl", "start", "postgresql"]);
    machine.wait_until("the store is there", is_ready);
    let before = machine.ok(&["punctual", "--json", "runs", "tick"]);
    machine.wait_until("jobs run", |machine| {
        machine.ok(&["punctual", "--json", "runs", "tick"]) != before
    });
    assert_eq!(machine.property("NRestarts"), "0");
}

#[test]
fn a_start_that_the_database_refuses_fails_at_once_and_is_not_repeated() {
    let Some(machine) = with_database(1) else { return };
    let config = "/etc/punctual/jobs.toml";
    machine.shell(&format!("sed -i s,/punctual?,/nowhere?, {config}"));
    let (_, said) = machine.fails(&["systemctl", "restart", UNIT]);
    assert!(said.contains("failed"), "{said}");
    assert_eq!(machine.property("ActiveState"), "failed");
    assert_eq!(machine.property("ExecMainStatus"), "2");
    assert_eq!(machine.property("NRestarts"), "0");
    let journal = machine.journal();
    assert!(journal.contains("database \"nowhere\" does not exist"), "{journal}");

    // A database that is away is not a failure, and does not delay the command either.
    machine.shell(&format!("sed -i s,host=/run/postgresql,host=/run/nothing, {config}"));
    machine.ok(&["systemctl", "start", UNIT]);
    assert_eq!(machine.property("ActiveState"), "active");
    machine.shell(&format!("sed -i 's,/nowhere?.*\",/punctual?host=/run/postgresql\",' {config}"));
    machine.ok(&["systemctl", "kill", "--signal=HUP", UNIT]);
    machine.wait_until("the store is there", is_ready);
}

#[test]
fn missing_rights_or_a_missing_credential_end_the_start_without_a_restart() {
    const RIGHTS: &str = "the user of the daemon must be able to write to the file";
    let Some(machine) = Machine::installed() else { return };
    let fails = |status: &str| {
        machine.run(&["systemctl", "restart", "punctual"]);
        assert_eq!(machine.property("ActiveState"), "failed", "it is not tried again");
        assert_eq!(machine.property("ExecMainStatus"), status);
    };
    let store = "/var/lib/punctual/punctual.db";
    machine.ok(&["systemctl", "stop", "punctual"]);
    for change in ["chown root", "chmod 0400"] {
        machine.shell(&format!("{change} {store}"));
        fails("2");
        machine.shell(&format!("chown punctual {store}; chmod 0640 {store}"));
        let said = format!("cannot open {store}: Permission denied ({RIGHTS}");
        assert!(machine.journal().contains(&said), "{change}: {}", machine.journal());
    }
    // The file is writable, but the files that SQLite keeps beside it are not.
    let config = |path: &str| {
        machine.write("/etc/punctual/jobs.toml", &format!("[store]\nurl = \"sqlite://{path}\"\n"));
    };
    machine.shell(
        "cd /var/lib/punctual && mkdir data && >data/jobs.db && chown punctual data/jobs.db",
    );
    config("data/jobs.db");
    fails("2");
    config("/usr/jobs.db");
    fails("2");
    let said = format!("cannot open /usr/jobs.db: Read-only file system ({RIGHTS}");
    assert!(machine.journal().contains(&said), "{}", machine.journal());

    machine.drop_in("secret", "[Service]\nLoadCredential=store-url:/etc/punctual/missing\n");
    fails("243");

    // Root can read the credential of the running service, for `migrate` and `check`.
    machine.write("/etc/punctual/missing", &format!("sqlite://{store}"));
    let config = "[store]\nurl = { credential = \"store-url\" }\n";
    machine.write("/etc/punctual/jobs.toml", config);
    machine.ok(&["systemctl", "restart", "punctual"]);
    let said = machine.ok(&["punctual", "migrate", "--check"]);
    assert!(said.contains(store), "{said}");
    let check = machine.run(&["punctual", "check"]);
    assert_eq!((check.status.code(), check.stderr), (Some(0), Vec::new()));
}
