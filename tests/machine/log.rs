//! The log in the journal: entries can be found by priority, job and target, and the reason of a failed start by the unit.

use serde_json::Value;

use crate::machine::{Machine, UNIT};

/// The matching entries of the journal.
fn entries(machine: &Machine, matches: &[&str]) -> Vec<Value> {
    let printed = machine.ok(&[&["journalctl", "--quiet", "--output=json"], matches].concat());
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits for matching entries, and returns the first one.
fn entry(machine: &Machine, matches: &[&str]) -> Value {
    machine.wait_until(&format!("{matches:?}"), |machine| !entries(machine, matches).is_empty());
    entries(machine, matches).swap_remove(0)
}

#[test]
fn the_journal_has_priorities_and_fields() {
    let Some(machine) = Machine::installed() else { return };
    machine.ok(&["punctual", "add", "backup", "--at", "2100-01-01", "--", "/bin/false"]);
    let added = entry(&machine, &["PUNCTUAL_TARGET=audit", "PUNCTUAL_ACTION=add"]);
    for (field, value) in [
        ("PRIORITY", "6"),
        ("PUNCTUAL_JOB", "backup"),
        ("PUNCTUAL_OUTCOME", "done"),
        ("PUNCTUAL_UID", "0"),
        ("PUNCTUAL_USER", "root"),
        ("SYSLOG_IDENTIFIER", "punctual"),
        ("_TRANSPORT", "journal"),
        ("_SYSTEMD_UNIT", UNIT),
    ] {
        assert_eq!(added[field], value, "{field}: {added}");
    }
    let run = machine.json(&["run", "backup"]);
    let of_job = ["PUNCTUAL_JOB=backup", "--priority=warning", "--unit", UNIT];
    let failed = entry(&machine, &of_job);
    for (field, value) in [
        ("PRIORITY", "4"),
        ("PUNCTUAL_RUN", run["id"].as_str().unwrap()),
        ("PUNCTUAL_ATTEMPT", "1"),
        ("PUNCTUAL_TARGET", "ledger"),
    ] {
        assert_eq!(failed[field], value, "{field}: {failed}");
    }
    assert!(failed["PUNCTUAL_ERROR"].as_str().unwrap().contains('1'), "{failed}");
    // After a restart journald has a new socket.
    machine.ok(&["systemctl", "restart", "systemd-journald"]);
    machine.ok(&["punctual", "pause", "backup"]);
    entry(&machine, &["PUNCTUAL_ACTION=pause", "_TRANSPORT=journal"]);
    machine.write("/etc/punctual/jobs.toml", "nonsense = 1\n");
    machine.fails(&["systemctl", "reload", UNIT]);
    let faulty = entry(
        &machine,
        &["--priority=err", "--unit", UNIT, "PUNCTUAL_TARGET=punctual::daemon::serve"],
    );
    assert!(faulty["PUNCTUAL_ERROR"].as_str().unwrap().contains("nonsense"), "{faulty}");
}

#[test]
fn a_failed_start_is_logged_as_an_error_of_the_unit() {
    let Some(machine) = Machine::installed() else { return };
    machine.drop_in("log", "[Service]\nEnvironment=PUNCTUAL_LOG=foo\n");
    machine.fails(&["systemctl", "restart", UNIT]);
    assert_eq!(machine.property("ExecMainStatus"), "2");
    let error = entry(&machine, &["--priority=err", "--unit", UNIT, "--identifier=punctual"]);
    let text = error["MESSAGE"].as_str().unwrap();
    assert!(text.starts_with("punctual: PUNCTUAL_LOG=\"foo\" is not understood"), "{text}");
    assert_eq!(error["PRIORITY"], "3");
}
