//! Commands under the shipped unit: their cgroups, their limits, and how they end.

use crate::machine::{Machine, NEVER};
use support::left_out;

/// A job's script: it prints its cgroup and leaves a process behind that has forked twice and has a session of its own. The
/// script ends when that process has become `sleep`.
const LEAVER: &str = "sed -n s/^0:://p /proc/self/cgroup; \
    setsid sh -c 'sleep 600 & echo $! > /var/lib/punctual/left' > /dev/null 2>&1; \
    until grep -q sleep /proc/$(cat /var/lib/punctual/left)/comm; do :; done";

#[test]
fn a_command_has_a_cgroup_and_the_processes_that_it_leaves_there_are_named_and_ended() {
    let Some(machine) = Machine::installed() else { return };
    let add = ["punctual", "add", "leaver", "--at", NEVER, "--shell", "--"];
    machine.ok(&[&add[..], &[LEAVER]].concat());
    let output = machine.ok(&["punctual", "run", "leaver", "--wait"]);
    let cgroup = output.lines().next().unwrap_or_default();
    assert!(cgroup.starts_with("/system.slice/punctual.service/commands-"), "{output}");
    let runs = machine.json(&["logs", "leaver"]).to_string();
    let told = "punctual: ending 1 process that the command has left behind: sleep";
    assert!(runs.contains(told), "{runs}");
    assert_eq!(machine.shell("test -e /proc/$(cat /var/lib/punctual/left) || echo gone"), "gone\n");
    assert!(machine.journal().contains("a command has left processes behind"));
    // The same process starts the next command, in the same cgroup if nothing was left in it.
    let look = "echo $PPID; sed -n s/^0:://p /proc/self/cgroup";
    machine.ok(&["punctual", "add", "look", "--at", NEVER, "--shell", "--", look]);
    let run = || -> Vec<String> {
        let output = machine.ok(&["punctual", "run", "look", "--wait"]);
        output.lines().take(2).map(str::to_owned).collect()
    };
    assert_eq!(run(), run());
    machine.ok(&["systemctl", "stop", "punctual"]);
    let left = "find /sys/fs/cgroup -path '*punctual.service*' -name 'commands-*'; pgrep -u punctual || true";
    assert_eq!(machine.shell(left), "", "nothing is left");
}

#[test]
fn a_command_ends_when_its_daemon_is_killed_and_the_next_daemon_reruns_it() {
    let Some(machine) = Machine::installed() else { return };
    let script = "echo $$ > /var/lib/punctual/pid; exec sleep 600";
    machine.ok(&[
        "punctual",
        "add",
        "long",
        "--at",
        NEVER,
        "--on-crash",
        "lose",
        "--shell",
        "--",
        script,
    ]);
    machine.ok(&["punctual", "run", "long"]);
    machine.shell("until test -s /var/lib/punctual/pid; do :; done");
    let daemon = machine.property("MainPID");
    machine.ok(&["kill", "-9", &daemon]);
    machine.wait_for_another_daemon(&daemon);
    assert_eq!(machine.shell("test -e /proc/$(cat /var/lib/punctual/pid) || echo gone"), "gone\n");
    let folders = "find /sys/fs/cgroup -path '*punctual.service/commands-*' -prune | wc -l";
    assert_eq!(machine.shell(folders), "1\n", "that of the daemon that runs");
    assert_eq!(machine.json(&["runs", "long"])["runs"][0]["state"], "lost");
}

#[test]
fn the_limits_of_a_whole_run_apply_where_the_kernel_has_the_controllers() {
    let Some(machine) = Machine::installed() else { return };
    let controllers = "cat /sys/fs/cgroup/system.slice/punctual.service/cgroup.controllers || true";
    let controllers = machine.shell(controllers);
    let is_there = |controller| controllers.split_whitespace().any(|there| there == controller);
    if !["cpu", "memory", "pids"].into_iter().all(is_there) {
        left_out(
            "this kernel gives a service no controllers, so the limits of a whole run were not tested",
        );
        return;
    }
    let hog = "perl -e 'my $all = q(a) x (200 * 1024 * 1024); sleep 1'";
    let memory = ["--total-memory", "64M"];
    let (_, printed) = machine.run_job(&memory, &format!("exec {hog}"));
    assert!(
        printed.contains("failed") && printed.contains("killed: out of memory (limit 64 MiB)"),
        "{printed}"
    );
    // A script that survives such a kill reports it in its output.
    let (succeeded, printed) = machine.run_job(&memory, &format!("{hog}; true"));
    assert!(succeeded, "{printed}");
    assert!(
        printed.contains("punctual: 1 process was killed: out of memory (limit 64 MiB)\n"),
        "{printed}"
    );
    let (succeeded, printed) =
        machine.run_job(&["--processes", "10"], "for each in $(seq 20); do sleep 1 & done; wait");
    assert!(!succeeded && printed.contains("Cannot fork"), "{printed}");
    // It got half a core for three seconds, and not much more.
    let spin = "timeout 3 sh -c 'while :; do :; done'; times";
    let (_, printed) = machine.run_job(&["--cores", "0.5"], spin);
    // The second line has the time of the shell's children.
    let used = printed.lines().nth(1).unwrap_or_default();
    assert!(used.starts_with("0m1.") || used.starts_with("0m0."), "{printed}");
}
