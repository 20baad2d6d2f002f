//! The watchdog of systemd: which daemons it restarts, and which it does not.

use crate::machine::Machine;

/// `WatchdogSec=` of these tests. It is not shorter, because a busy machine may delay a healthy daemon for a second.
const WATCHDOG: u32 = 3;
/// Seconds of a wait that a daemon would not survive if it did not notify the watchdog.
const OUTLASTS: u32 = 2 * WATCHDOG + 1;

/// Restarts the daemon with a short watchdog.
fn with_short_watchdog(machine: &Machine) {
    machine.drop_in("watchdog", &format!("[Service]\nWatchdogSec={WATCHDOG}\n"));
    machine.ok(&["systemctl", "restart", "punctual"]);
    assert_eq!(machine.property("WatchdogUSec"), format!("{WATCHDOG}s"));
}

/// A command that outlasts the watchdog, and writes to the pipe at its end.
fn outlasts_the_watchdog(pipe: &str) -> String {
    format!("sleep {OUTLASTS}; echo over > {pipe}")
}

#[test]
fn a_daemon_that_is_frozen_is_restarted() {
    let Some(machine) = Machine::installed() else { return };
    assert_ne!(machine.property("WatchdogUSec"), "0", "the unit has a watchdog");
    with_short_watchdog(&machine);
    let daemon = machine.property("MainPID");

    machine.ok(&["kill", "-STOP", &daemon]);

    machine.wait_for_another_daemon(&daemon);
    let journal = machine.journal();
    assert!(journal.contains("Watchdog timeout"), "{journal}");
    assert_eq!(machine.property("NRestarts"), "1");
    machine.ok(&["punctual", "status"]);
}

#[test]
fn a_daemon_that_is_idle_or_drains_is_not_restarted() {
    let Some(machine) = Machine::installed() else { return };
    with_short_watchdog(&machine);
    let over = machine.pipe("over");
    let daemon = machine.property("MainPID");
    machine.add("long", &[], &outlasts_the_watchdog(&over));
    machine.ok(&["punctual", "run", "long"]);
    // In the meantime the daemon has nothing to do.
    machine.line(&over);
    assert_eq!((machine.property("MainPID"), machine.property("NRestarts")), (daemon, "0".into()));
    let status = machine.property("StatusText");
    assert!(status.contains("listening at /run/punctual/punctual.sock"), "{status}");

    let started = machine.pipe("started");
    machine.add("last", &[], &format!("echo > {started}; sleep {OUTLASTS}"));
    machine.ok(&["punctual", "run", "last"]);
    machine.line(&started);
    machine.ok(&["systemctl", "stop", "punctual"]);
    assert_eq!(machine.property("Result"), "success");
    machine.ok(&["systemctl", "start", "punctual"]);
    assert_eq!(machine.json(&["runs", "last"])["runs"][0]["state"], "succeeded");
}

#[test]
fn a_daemon_whose_database_hangs_or_is_away_is_not_restarted() {
    let Some(machine) = Machine::installed() else { return };
    let url = machine.postgres();
    machine.write("/etc/punctual/jobs.toml", &format!("[store]\nurl = \"{url}\"\n"));
    with_short_watchdog(&machine);
    let over = machine.pipe("over");
    let daemon = machine.property("MainPID");
    machine.add("long", &[], &outlasts_the_watchdog(&over));
    machine.ok(&["punctual", "run", "long"]);

    machine.shell("pkill -STOP -u postgres");
    machine.line(&over);

    assert_eq!(machine.property("MainPID"), daemon);
    machine.shell("pkill -CONT -u postgres");
    machine.wait_until("the end of the run is recorded", |machine| {
        // While the database does not answer, the daemon does not answer either.
        let runs = machine.try_json(&["runs", "long"]);
        runs.is_some_and(|runs| runs["runs"][0]["state"] == "succeeded")
    });

    // A start that waits for its database is not restarted either.
    machine.ok(&["systemctl", "stop", "punctual", "postgresql"]);
    machine.ok(&["systemctl", "start", "punctual"]);
    let waiting = machine.property("MainPID");
    assert!(machine.property("StatusText").starts_with("waiting for the store: "));
    assert_eq!(machine.fails(&["punctual", "status"]).0, 1);
    machine.ok(&["sleep", &OUTLASTS.to_string()]);
    assert_eq!(machine.property("MainPID"), waiting);
    machine.ok(&["systemctl", "start", "postgresql"]);
    machine.wait_until("the store is there", |machine| {
        machine.run(&["punctual", "status"]).status.success()
    });
    assert_eq!((machine.property("MainPID"), machine.property("NRestarts")), (waiting, "0".into()));
}
