//! The unit file as systemd judges it, and the messages of a daemon to its service manager.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use punctual::scheduler::serve::STOP_MAX;
use rustix::process::Signal as Kill;
use sqlx::Connection;
use support::{Daemon, Home, is_installed, program};
use tokio::task::JoinSet;

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

#[test]
fn systemd_finds_little_to_attack_in_the_unit() {
    if !is_installed("systemd-analyze") {
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
    if !is_installed("systemd-analyze") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // The program is where cargo has put it, and not in /usr/bin.
    let unit = unit().replace("/usr/bin/punctual", program());
    assert_eq!(verify(folder.path(), &unit), (true, String::new()));
    // It does look: what it does not know is named.
    let (_, said) = verify(folder.path(), &unit.replace("TimeoutStopSec", "TimeoutHaltSec"));
    assert!(said.contains("TimeoutHaltSec"), "{said}");
    let (good, said) = verify(folder.path(), &unit.replace(program(), "/usr/bin/nothing-here"));
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
        "trap 'echo term > {path}; exit 9' TERM; echo begun > {path}; while test -e {path}; do sleep 0.1; done"
    );
    home.ok(&["add", "work", "--at", "2100-01-01T00:00:00Z", "--shell", "--", &script]);
    let client = home.client();
    client.run("work").await.unwrap();
    assert_eq!(says.next().await, "begun");
    daemon.signal(Kill::TERM);
    daemon.wait_for("STOPPING=1");
    for _ in 0..2 {
        let message = event(&mut daemon);
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
    // Neither a faulty file nor a credential that is not there.
    assert_eq!(value(&unit, "RestartPreventExitStatus"), "2 243");
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

/// The next message that does not only say how the daemon stands.
fn event(daemon: &mut Daemon) -> Vec<String> {
    loop {
        let message = daemon.message();
        if message.iter().any(|line| !line.starts_with("STATUS=")) {
            return message;
        }
    }
}

/// Waits until one line to the service manager has all of this, and returns that line.
fn stands(daemon: &mut Daemon, parts: &[&str]) -> String {
    let is_told =
        |line: &str| line.starts_with("STATUS=") && parts.iter().all(|part| line.contains(part));
    daemon.wait_until(is_told)
}

#[test]
fn a_daemon_reports_its_status_to_the_service_manager() {
    let home = Home::new("");
    let mut daemon = home.spawn(&[]);
    let listening = format!("0 running; listening at {}", home.socket().display());
    let is_ready = |message: Vec<String>| {
        assert_eq!((message.len(), message[0].as_str()), (2, "READY=1"), "{message:?}");
        let status = message[1].strip_prefix("STATUS=").unwrap();
        assert!(status.ends_with(&listening), "{status}");
        status.to_owned()
    };
    is_ready(event(&mut daemon));

    for reload in ["SIGHUP", "a request"] {
        if reload == "SIGHUP" {
            daemon.signal(Kill::HUP);
        } else {
            home.ok(&["reload"]);
        }
        let message = event(&mut daemon);
        assert_eq!((message.len(), message[0].as_str()), (2, "RELOADING=1"), "{reload}");
        let micros = message[1].strip_prefix("MONOTONIC_USEC=").unwrap();
        assert!(micros.parse::<u64>().unwrap() > 0, "{reload}: {micros}");
        let status = is_ready(event(&mut daemon));
        assert!(!status.contains("reload"), "{status}");
    }

    // A faulty file changes nothing, and the daemon is as ready as before, but not well.
    home.write_config("[nothing]\n");
    assert_eq!(home.fails(&["reload"]).0, 1);
    assert_eq!(event(&mut daemon)[0], "RELOADING=1");
    let status = is_ready(event(&mut daemon));
    assert!(
        status.starts_with("the last reload failed: ") && status.contains("nothing"),
        "{status}"
    );
    assert_eq!(home.run(&["status"]).status.code(), Some(1));
    home.write_config("");
    home.ok(&["reload"]);
    assert_eq!(event(&mut daemon)[0], "RELOADING=1");
    let status = is_ready(event(&mut daemon));
    assert!(!status.contains("reload"), "{status}");
    home.ok(&["status"]);

    daemon.signal(Kill::TERM);
    assert_eq!(event(&mut daemon), ["STOPPING=1", "STATUS=waiting for runs to end"]);
    assert!(daemon.ended().success());
    assert!(!home.socket().exists(), "a socket that nobody listens at would only puzzle");
}

#[test]
fn the_status_line_follows_what_happens() {
    let home = Home::new("");
    let mut daemon = home.start();
    home.ok(&["add", "later", "--every", "9h", "--builtin", "noop"]);
    home.ok(&["add", "long", "--at", "2100-01-01", "--", "/bin/sleep", "1000"]);
    stands(&mut daemon, &["STATUS=2 jobs, 0 running, next due ", "; listening at "]);
    home.ok(&["run", "long"]);
    stands(&mut daemon, &["STATUS=2 jobs, 1 running"]);
    home.ok(&["pause", "--all"]);
    let paused = stands(&mut daemon, &["STATUS=the scheduler was paused by ", "uid "]);
    assert!(paused.contains(": no job fires (since 20"), "{paused}");
    assert!(!paused.contains("next due"), "{paused}");
    home.ok(&["resume", "--all"]);
    home.ok(&["remove", "later"]);
    stands(&mut daemon, &["STATUS=1 job, 1 running, next due 2100-01-01"]);
    daemon.signal(Kill::TERM);
    stands(&mut daemon, &["STATUS=waiting for 1 run to end"]);
}

/// Waits until the daemon has answered the watchdog this many times.
fn lives(daemon: &mut Daemon, times: usize) {
    (0..times).for_each(|_| daemon.wait_for("WATCHDOG=1"));
}

/// A watchdog of one second, which a daemon answers four times in that time.
const WATCHDOG: (&str, &str) = ("WATCHDOG_USEC", "1000000");

#[test]
fn an_idle_and_a_draining_daemon_answer_the_watchdog() {
    let mut home = Home::new("");
    home.set(WATCHDOG.0, WATCHDOG.1);
    let mut daemon = home.start();
    lives(&mut daemon, 12);
    home.ok(&["add", "long", "--at", "2100-01-01", "--", "/bin/sleep", "1000"]);
    home.ok(&["run", "long"]);
    stands(&mut daemon, &["STATUS=1 job, 1 running"]);
    daemon.signal(Kill::TERM);
    daemon.wait_for("STOPPING=1");
    lives(&mut daemon, 12);
}

#[test]
fn a_watchdog_of_another_process_is_not_served_and_an_impossible_one_is_reported() {
    let mut home = Home::new("");
    home.set(WATCHDOG.0, WATCHDOG.1);
    // As in what the main process of the unit has started.
    home.set("WATCHDOG_PID", "1");
    let mut daemon = home.start();
    home.ok(&["add", "job", "--every", "9h", "--builtin", "noop"]);
    stands(&mut daemon, &["STATUS=1 job"]);
    let tasks = format!("/proc/{}/task", daemon.pid());
    let tasks = std::fs::read_dir(tasks).unwrap().map(|task| task.unwrap().path().join("comm"));
    // A thread may end meanwhile.
    let names = tasks.map(|comm| std::fs::read_to_string(comm).unwrap_or_default());
    let names: Vec<String> = names.collect();
    assert!(names.iter().all(|name| !name.contains("watchdog")), "{names:?}");
    assert!(daemon.stop().success());

    home.set("WATCHDOG_PID", "none");
    let daemon = home.start();
    home.log_with("WATCHDOG_PID is not a number");
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_whose_database_file_is_locked_answers_the_watchdog() {
    let mut home = Home::new("");
    home.set(WATCHDOG.0, WATCHDOG.1);
    let mut daemon = home.start();
    let options =
        sqlx::sqlite::SqliteConnectOptions::new().filename(home.path().join("punctual.db"));
    let mut other = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query("begin immediate").execute(&mut other).await.unwrap();
    // The loop's thread is inside of SQLite, which waits for the lock for longer than the watchdog allows.
    let client = home.client();
    let mut pausing = JoinSet::new();
    pausing.spawn(async move { client.pause_all().await });
    daemon.told("");
    lives(&mut daemon, 8);
    let refused = pausing.join_all().await.remove(0).unwrap_err().to_string();
    assert!(refused.contains("the store is unavailable"), "{refused}");
    sqlx::query("rollback").execute(&mut other).await.unwrap();
    home.client().resume_all().await.unwrap();
}
