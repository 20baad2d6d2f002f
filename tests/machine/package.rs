//! The Debian package: what an installation starts, what an upgrade keeps, and what a removal leaves behind.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::{Value, json};

use crate::machine::Machine;

/// Installs the second revision of the package.
const UPGRADE: &str = "dpkg --install --force-confold /packages/punctual_*-2_*.deb";

#[test]
fn an_installation_starts_the_daemon_and_enables_it() {
    let Some(machine) = Machine::installed() else { return };
    assert_eq!(machine.property("SubState"), "running");
    assert_eq!(machine.property("UnitFileState"), "enabled");
    assert_eq!(machine.property("DropInPaths"), "");
    assert_eq!(machine.ok(&["dpkg", "--verify", "punctual"]), "");
    let user = machine.ok(&["getent", "passwd", "punctual"]);
    assert!(user.ends_with(":/var/lib/punctual:/usr/sbin/nologin\n"), "{user}");
    // All dependencies are installed, and the package has the version of the program.
    let version = machine.ok(&["punctual", "--version"]);
    let package =
        machine.ok(&["dpkg-query", "--show", "--showformat", "punctual ${Version}", "punctual"]);
    assert_eq!(package, format!("{}-1", version.trim()));
    let unresolved = machine.shell("ldd /usr/bin/punctual | grep 'not found' || true");
    assert_eq!(unresolved, "");
    // There are no jobs, and no port is open.
    assert_eq!(machine.json(&["list"])["jobs"], json!([]));
    let listening = machine.shell("tail -n +2 /proc/net/tcp /proc/net/tcp6 | grep ' 0A ' || true");
    assert_eq!(listening, "");
    // systemd finds no fault in the unit, and rates its exposure below 3.0 (30).
    assert_eq!(machine.shell("systemd-analyze verify punctual.service 2>&1"), "");
    machine.ok(&[
        "systemd-analyze",
        "security",
        "--threshold=30",
        "--no-pager",
        "punctual.service",
    ]);
    // Only root can read the administrator's secrets.
    let mode = machine.ok(&["stat", "--format=%a %U", "/etc/punctual/credentials"]);
    assert_eq!(mode, "700 root\n");
    // The documented check for a monitor distinguishes a user without access from a daemon that does not answer.
    let document = include_str!("../../docs/OPERATIONS.md");
    let script = document.split("```sh\n").find(|text| text.contains("# check_punctual")).unwrap();
    let script = script.split("```").next().unwrap();
    machine.write("/usr/local/bin/check", script);
    machine.shell("chmod 755 /usr/local/bin/check; printf '#!/bin/sh\\ncat' >/usr/local/bin/jq; chmod 755 /usr/local/bin/jq");
    let check = |user: &str| {
        let check = machine.run_as(user, &["check"]);
        (check.status.code().unwrap(), String::from_utf8(check.stdout).unwrap())
    };
    assert_eq!(check("root"), (0, "OK: punctual is well\n".to_owned()));
    let (code, said) = check("nobody");
    assert!(code == 3 && said.starts_with("UNKNOWN: "), "{said}");
    machine.ok(&["systemctl", "stop", "punctual"]);
    let (code, said) = check("root");
    assert!(code == 2 && said.starts_with("CRITICAL: "), "{said}");
    // The environment file is read.
    machine.write("/etc/default/punctual", "PUNCTUAL_LOG=error\n");
    machine.ok(&["systemctl", "restart", "punctual"]);
    let environment = format!("tr '\\0' '\\n' </proc/{}/environ", machine.property("MainPID"));
    assert!(machine.shell(&environment).contains("PUNCTUAL_LOG=error\n"));
}

#[test]
fn an_installation_has_manual_pages_and_completions() {
    let Some(machine) = Machine::installed() else { return };
    for page in ["punctual", "punctual-add"] {
        let text = machine.ok(&["zcat", &format!("/usr/share/man/man1/{page}.1.gz")]);
        assert!(text.contains(&format!("\n.TH {page} 1 ")), "{text}");
    }
    let source = ". /usr/share/bash-completion/completions/punctual && complete -p punctual";
    let completion = machine.ok(&["bash", "-c", source]);
    assert!(completion.ends_with(" punctual\n"), "{completion}");
    let zsh = machine.ok(&["head", "--lines=1", "/usr/share/zsh/vendor-completions/_punctual"]);
    assert_eq!(zsh, "#compdef punctual\n");
    machine.ok(&["test", "-s", "/usr/share/fish/vendor_completions.d/punctual.fish"]);
    // All users can read them.
    let modes = "find /usr/share -type f -path '*punctual*' -not -perm 644";
    assert_eq!(machine.shell(modes), "");
}

#[test]
fn an_upgrade_under_load_loses_no_run_and_repeats_none() {
    // Ten runs per second, until the daemon has been replaced and the new one has run some of them.
    const RUNS_MAX: u64 = 900;
    let Some(machine) = Machine::installed() else { return };
    let started = machine.pipe("started");
    machine.add("long", &[], &format!("echo $$ > {started}; sleep 2; echo all of it"));
    machine.ok(&["punctual", "run", "long"]);
    machine.line(&started);
    let before = machine.property("MainPID");
    let now: u64 = machine.ok(&["date", "+%s%3N"]).trim().parse().unwrap();
    let mut batch = String::new();
    for number in 0..RUNS_MAX {
        let due = machine_time(now + 500 + 100 * number);
        let task = json!({
            "type": "command",
            "shell": "echo $PUNCTUAL_JOB_ID >> /var/lib/punctual/ran; sleep 0.3",
        });
        let trigger = json!({"type": "date", "run_date": due});
        let job = json!({"id": load(number), "trigger": trigger, "task": task});
        writeln!(batch, "{}{job}", if number == 0 { "" } else { "," }).unwrap();
    }
    machine.write("/tmp/batch", &format!("{{\"jobs\": [{batch}]}}"));
    let socket = ["--unix-socket", "/run/punctual/punctual.sock"];
    let post = ["--silent", "--fail", "--data", "@/tmp/batch", "http://punctual/v1/jobs/batch"];
    machine.ok(&[&["curl"], &socket[..], &post[..]].concat());
    let ended = |machine: &Machine| {
        let runs = machine.json(&["runs", "--state", "succeeded", "--limit", "1000"]);
        runs["runs"].as_array().unwrap().clone()
    };
    machine.wait_until("some have run", |machine| !ended(machine).is_empty());

    machine.shell(UPGRADE);

    let after = machine.property("MainPID");
    assert_ne!(after, before);
    assert_eq!(machine.property("ActiveState"), "active");
    // The old daemon let its runs end.
    let long = &machine.json(&["runs", "long"])["runs"][0];
    assert_eq!((&long["state"], &long["attempt"]), (&json!("succeeded"), &json!(1)), "{long}");
    assert!(machine.ok(&["punctual", "logs", "long"]).contains("all of it"));

    let node = format!(":{after}:");
    let is_of_the_new = |run: &Value| run["node"].to_string().contains(&node);
    machine
        .wait_until("the new daemon runs some", |machine| ended(machine).iter().any(is_of_the_new));
    machine.ok(&["punctual", "pause", "--all"]);
    machine.wait_until("all that were due have run", |machine| {
        let runs = machine.json(&["runs", "--limit", "1000"]);
        runs["runs"].as_array().unwrap().len() == ended(machine).len()
    });
    let runs = ended(&machine);
    assert!(runs.iter().all(|run| run["attempt"] == 1), "none was interrupted");
    let distinct: BTreeSet<&str> = runs.iter().map(|run| run["job_id"].as_str().unwrap()).collect();
    let count = u64::try_from(runs.len()).unwrap() - 1;
    let expected: Vec<String> = (0..count).map(load).chain(["long".to_owned()]).collect();
    let expected: BTreeSet<&str> = expected.iter().map(String::as_str).collect();
    assert_eq!(distinct, expected, "a run for each that was due, one after the other");
    let ran = machine.ok(&["cat", "/var/lib/punctual/ran"]);
    let distinct: BTreeSet<&str> = ran.lines().collect();
    assert_eq!((ran.lines().count(), distinct.len()), (expected.len() - 1, expected.len() - 1));
}

/// The id of a job of the load.
fn load(number: u64) -> String {
    format!("load-{number}")
}

/// Milliseconds since 1970 in RFC 3339.
fn machine_time(milliseconds: u64) -> String {
    let milliseconds = i64::try_from(milliseconds).unwrap();
    chrono::DateTime::from_timestamp_millis(milliseconds).unwrap().to_rfc3339()
}

#[test]
fn an_upgrade_keeps_what_the_administrator_has_decided() {
    let Some(machine) = Machine::installed() else { return };
    // A changed file is kept.
    let faulty = "[nothing]\n";
    machine.write("/etc/punctual/jobs.toml", faulty);
    // If the daemon cannot start with it, the package is not left half installed.
    let upgrade = machine.shell(&format!("{UPGRADE} 2>&1"));
    assert!(upgrade.contains("punctual.service did not restart"), "{upgrade}");
    assert_eq!(machine.ok(&["cat", "/etc/punctual/jobs.toml"]), faulty);
    let status = machine.ok(&["dpkg-query", "--show", "--showformat=${Status}", "punctual"]);
    assert_eq!(status, "install ok installed");
    assert_eq!(machine.property("ActiveState"), "failed");
    // A disabled unit stays disabled.
    machine.ok(&["systemctl", "disable", "punctual"]);
    machine.shell("dpkg --install --force-confold /packages/punctual_*-1_*.deb");
    assert_eq!(machine.property("UnitFileState"), "disabled");
}

#[test]
fn a_removal_keeps_jobs_and_settings_and_a_purge_leaves_nothing() {
    let Some(machine) = Machine::installed() else { return };
    machine.ok(&["useradd", "--create-home", "--groups", "punctual", "anna"]);
    machine.write("/etc/punctual/credentials/store-url", "secret");
    machine.add("backup", &[], "echo hello");
    machine.ok(&["punctual", "run", "backup", "--wait"]);

    machine.ok(&["dpkg", "--remove", "punctual"]);
    assert_eq!(machine.shell("pgrep --list-full --uid punctual || true"), "", "it was stopped");
    assert_eq!(machine.shell("ls /usr/bin/punctual /run/punctual 2>/dev/null || true"), "");
    machine.install();
    let kept = machine.json(&["list"]);
    assert_eq!(kept["jobs"][0]["id"], "backup");
    assert_eq!(machine.ok(&["cat", "/etc/punctual/credentials/store-url"]), "secret");

    machine.ok(&["dpkg", "--purge", "punctual"]);
    let left =
        machine.shell("find / -xdev -iname '*punctual*' -not -path '/proc/*' -not -path '/sys/*'");
    assert_eq!(left, "");
    assert_eq!(machine.shell("getent passwd punctual || getent group punctual || true"), "");
    assert_eq!(machine.ok(&["systemctl", "list-units", "--all", "--no-legend", "punctual*"]), "");
    assert_eq!(machine.ok(&["id", "--name", "--groups", "anna"]), "anna\n");
    let state = machine.ok(&["systemctl", "is-system-running"]);
    assert_eq!(state, "running\n");
}

#[test]
fn a_purge_succeeds_if_the_user_or_a_folder_is_in_use() {
    let Some(mut machine) = Machine::installed() else { return };
    machine.ok(&["systemd-run", "--quiet", "--uid=punctual", "sleep", "600"]);
    // A mount point cannot be removed.
    machine.shell(
        "install -d /var/lib/punctual/mounted && mount -t tmpfs none /var/lib/punctual/mounted",
    );

    let said = machine.shell("dpkg --purge punctual 2>&1");

    assert!(said.contains("userdel punctual"), "{said}");
    assert!(said.contains("could not remove all of /var/lib/punctual"), "{said}");
    let status = machine.run(&["dpkg-query", "--show", "--showformat=${Status}", "punctual"]);
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(!status.contains("ok installed") && !status.contains("config-files"), "{status}");
    assert!(machine.ok(&["getent", "passwd", "punctual"]).starts_with("punctual:"));
    assert_eq!(machine.shell("ls -d /etc/punctual || true"), "");
    // The remaining user is used again. A drop-in that was installed before the package works with the user's home.
    machine.shell("umount /var/lib/punctual/mounted && rm -r /var/lib/punctual");
    machine.drop_in("other-users", include_str!("../../systemd/drop-ins/other-users.conf"));
    machine.install();
    let (_, printed) =
        machine.run_job(&["--user", "punctual"], "pwd; echo text > file; cat ~/file");
    assert!(printed.starts_with("/var/lib/punctual\ntext\n"), "{printed}");
    // The home is made again at each boot.
    machine.shell("systemctl stop punctual && rm -r /var/lib/punctual");
    machine.reboot();
    assert_eq!(machine.property("ActiveState"), "active");
}
