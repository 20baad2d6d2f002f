//! A shortage that passes: while the system refuses new threads and processes, nothing hangs, and afterwards all is as before.

use std::process::{Child, Stdio};

use crate::machine::{Machine, NEVER};

/// Number of concurrent requests: more than there are idle threads.
const REQUESTS: usize = 32;

/// A reader that gets no answer within this time fails.
const HUNG: &str = "60";

/// Reads from the store with many clients at once. Each of them must get an answer.
fn read_at_once(machine: &Machine) {
    let start = |_| -> Child {
        let mut command = machine.command(&["timeout", HUNG, "punctual", "runs"]);
        command.stdout(Stdio::null()).spawn().unwrap()
    };
    let readers: Vec<Child> = (0..REQUESTS).map(start).collect();
    for mut reader in readers {
        assert!(reader.wait().unwrap().success());
    }
}

/// Shows or sets limits of the daemon with `prlimit`, as its own user, since only that user may.
fn limit(machine: &Machine, daemon: &str, options: &[&str]) -> String {
    let prlimit = ["runuser", "-u", "punctual", "--", "prlimit", "--pid", daemon];
    machine.ok(&[&prlimit[..], options].concat()).trim().to_owned()
}

#[test]
fn a_shortage_of_threads_and_processes_that_passes_leaves_nothing_behind() {
    let Some(machine) = Machine::installed() else { return };
    let daemon = machine.property("MainPID");
    machine.add("command", &[], "echo done");
    for (id, executor) in [("thread", "default"), ("worker", "processpool")] {
        let add = ["punctual", "add", id, "--at", NEVER];
        machine.ok(&[&add[..], &["--builtin", "noop", "--executor", executor]].concat());
    }
    let jobs = ["command", "thread", "worker"];
    let show = ["--nproc", "--noheadings", "--raw", "--output=SOFT"];
    let before = limit(&machine, &daemon, &show);

    limit(&machine, &daemon, &["--nproc=1:"]);
    for job in jobs {
        machine.ok(&["punctual", "run", job]);
    }
    machine.wait_until("the command waits", |machine| {
        machine.journal().contains("the system is short of resources")
    });
    read_at_once(&machine);
    machine.ok(&["punctual", "status"]);

    limit(&machine, &daemon, &[&format!("--nproc={before}:")]);
    for job in jobs {
        machine.wait_until("the run has succeeded at its first attempt", |machine| {
            let run = &machine.json(&["runs", job])["runs"][0];
            assert!(run["state"] != "failed" && run["attempt"] == 1, "{run}");
            run["state"] == "succeeded"
        });
    }
    read_at_once(&machine);
    assert_eq!((machine.property("MainPID"), machine.property("NRestarts")), (daemon, "0".into()));
}
