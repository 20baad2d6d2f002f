//! The unit file as systemd judges it, and what a daemon tells its service manager.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on ends, and one that is left out says so"
)]

mod support;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use punctual::scheduler::serve::STOP_MAX;
use rustix::process::Signal as Kill;
use support::{Home, PROGRAM};

fn unit() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/punctual.service");
    std::fs::read_to_string(path).unwrap()
}

/// The value of a key that the unit has once.
fn value(unit: &str, key: &str) -> String {
    let mut values = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let value = values.next().unwrap().to_owned();
    assert_eq!(values.next(), None, "{key} stands there once");
    value
}

/// What systemd says of a unit: its exit code, and its complaints.
fn verify(folder: &Path, unit: &str) -> (bool, String) {
    let path = folder.join("punctual.service");
    std::fs::write(&path, unit).unwrap();
    let output = Command::new("systemd-analyze").arg("verify").arg(path).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

/// The exposure of a unit as systemd estimates it, from 0 (none) to 10.
fn exposure(folder: &Path, unit: &str) -> f64 {
    let path = folder.join("punctual.service");
    std::fs::write(&path, unit).unwrap();
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=yes", "--no-pager"])
        .arg(path)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let (_, last) = said.rsplit_once("punctual.service: ").unwrap();
    last.split_whitespace().next().unwrap().parse().unwrap()
}

/// Whether the unit can be shown to systemd here. If not, a loud line says so.
fn is_installed() -> bool {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        let required = std::env::var("PUNCTUAL_REQUIRE_SERVERS").is_ok_and(|value| value == "1");
        assert!(
            !required,
            "systemd-analyze is not installed, and PUNCTUAL_REQUIRE_SERVERS asks for it"
        );
        eprintln!("LEFT OUT: systemd-analyze is not installed, so the unit was not verified");
        return false;
    }
    true
}

#[test]
fn systemd_finds_little_to_attack_in_the_unit() {
    if !is_installed() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let shipped = exposure(folder.path(), &unit());
    assert!(shipped <= 3.0, "{shipped}");
    // It does look: without the sandbox there is more.
    let open = unit().replace("SystemCallFilter=", "#").replace("ProtectSystem=", "#");
    assert!(exposure(folder.path(), &open) > shipped);
}

#[test]
fn systemd_has_nothing_to_complain_of_in_the_unit() {
    if !is_installed() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // The program is where cargo has put it, and not in /usr/bin.
    let unit = unit().replace("/usr/bin/punctual", PROGRAM);
    assert_eq!(verify(folder.path(), &unit), (true, String::new()));
    // It does look: what it does not know is named.
    let (_, said) = verify(folder.path(), &unit.replace("TimeoutStopSec", "TimeoutHaltSec"));
    assert!(said.contains("TimeoutHaltSec"), "{said}");
    let (good, said) = verify(folder.path(), &unit.replace(PROGRAM, "/usr/bin/nothing-here"));
    assert!(!good && said.contains("/usr/bin/nothing-here"), "{said}");
}

#[test]
fn the_unit_waits_longer_than_a_daemon_may_take_to_end() {
    let stop = Duration::from_secs(value(&unit(), "TimeoutStopSec").parse().unwrap());
    let home = Home::new("");
    let config = punctual::config::Config::load(&home.path().join("jobs.toml")).unwrap();
    let drain = config.drain_limit;
    assert!(stop > drain + STOP_MAX, "{stop:?} for {drain:?} + {STOP_MAX:?}");
}

#[test]
fn the_unit_is_stopped_before_the_databases_of_its_host() {
    let unit = unit();
    let after = unit.lines().filter_map(|line| line.strip_prefix("After="));
    let after: Vec<&str> = after.flat_map(str::split_whitespace).collect();
    for name in ["postgresql", "mariadb", "mysql", "redis-server", "redis"] {
        assert!(after.contains(&format!("{name}.service").as_str()), "{name}: {after:?}");
    }
}

#[tokio::test]
async fn a_stop_asks_for_the_time_that_it_takes_and_a_second_signal_ends_the_waiting() {
    let home = Home::new("[scheduler]\ndrain_seconds = 3600\n");
    let mut daemon = home.start();
    let mut says = home.signal("says");
    let path = says.path.display();
    let script = format!(
        "trap 'echo term > {path}; exit 9' TERM; echo begun > {path}; while :; do sleep 0.1; done"
    );
    home.ok(&["add", "work", "--at", "2100-01-01T00:00:00Z", "--shell", "--", &script]);
    let client = home.client();
    client.run("work").await.unwrap();
    assert_eq!(says.next().await, "begun");
    daemon.signal(Kill::TERM);
    daemon.wait_for("STOPPING=1");
    for _ in 0..2 {
        let message = daemon.message();
        let micros = message[0].strip_prefix("EXTEND_TIMEOUT_USEC=").unwrap();
        assert!(micros.parse::<u64>().unwrap() >= 10_000_000, "{micros}");
    }
    daemon.signal(Kill::INT);
    assert_eq!(says.next().await, "term");
    assert!(daemon.ended().success());
    let daemon = home.start();
    assert_eq!(says.next().await, "begun");
    let run = &support::ledger(&client, "work").await[0];
    assert_eq!((&run["state"], &run["attempt"]), (&"running".into(), &2.into()));
    daemon.kill();
}

#[test]
fn the_commands_of_the_unit_are_ones_that_the_program_knows() {
    let unit = unit();
    assert_eq!(value(&unit, "Type"), "notify");
    assert_eq!(value(&unit, "RestartPreventExitStatus"), "2", "a faulty file is not tried again");
    let home = Home::new("");
    for key in ["ExecStart", "ExecReload"] {
        let command = value(&unit, key);
        let mut arguments: Vec<&str> = command.split_whitespace().skip(1).collect();
        arguments.push("--help");
        home.ok(&arguments);
    }
    // Where the unit has the socket, a client finds it without being told.
    let folder = format!("/run/{}", value(&unit, "RuntimeDirectory"));
    assert!(value(&unit, "ExecReload").contains(&format!("--socket {folder}/punctual.sock")));
    assert!(home.ok(&["--help"]).contains(&format!("{folder}/punctual.sock")));
}

#[test]
fn a_daemon_tells_its_service_manager_how_it_stands() {
    let home = Home::new("");
    let mut daemon = home.spawn(&[]);
    let listening = format!("STATUS=listening at {}", home.socket().display());
    assert_eq!(daemon.message(), ["READY=1", &listening]);

    for reload in ["SIGHUP", "a request"] {
        if reload == "SIGHUP" {
            daemon.signal(Kill::HUP);
        } else {
            home.ok(&["reload"]);
        }
        let message = daemon.message();
        assert_eq!((message.len(), message[0].as_str()), (2, "RELOADING=1"), "{reload}");
        let micros = message[1].strip_prefix("MONOTONIC_USEC=").unwrap();
        assert!(micros.parse::<u64>().unwrap() > 0, "{reload}: {micros}");
        assert_eq!(daemon.message(), ["READY=1", &listening], "{reload}");
    }

    // A faulty file changes nothing, and the daemon is as ready as before.
    home.write_config("[nothing]\n");
    assert_eq!(home.fails(&["reload"]).0, 1);
    assert_eq!(daemon.message()[0], "RELOADING=1");
    assert_eq!(daemon.message(), ["READY=1", &listening]);

    daemon.signal(Kill::TERM);
    assert_eq!(daemon.message(), ["STOPPING=1", "STATUS=waiting for runs to end"]);
    assert!(daemon.ended().success());
    assert!(!home.socket().exists(), "a socket that nobody listens at would only puzzle");
}
