//! The sandbox of the shipped unit: what ordinary jobs do works, and what the sandbox keeps away is refused.

use crate::machine::Machine;

/// What jobs do. Each has to succeed.
const ALLOWED: [&str; 16] = [
    "echo one | tr a-z A-Z | grep -q ONE",
    "cd /var/lib/punctual && echo text > file && cp -p file copy && mv copy moved && ln -s moved link && rm link",
    "tar -C / -cf - etc/hostname | tar -C /tmp -xf -",
    "test \"$(mktemp /tmp/XXXXXX)\"",
    "nice -n 5 ionice -c 3 true",
    "prlimit --nofile=64 true",
    "taskset -c 0 true",
    "setsid true",
    "flock /tmp/lock true",
    "mkfifo /tmp/fifo",
    "timeout 10 true",
    "chmod 600 /var/lib/punctual/file && chgrp punctual /var/lib/punctual/file",
    "perl -e 'my $pid = fork; exit 0 unless $pid; waitpid $pid, 0; exit $? >> 8'",
    "printf abab | grep --only-matching --perl-regexp '(ab)\\1'",
    "ps -p 1 -o comm= | grep -q systemd",
    "curl --silent --unix-socket /run/punctual/punctual.sock http://punctual/healthz",
];

/// What the sandbox keeps away. Each has to fail.
const REFUSED: [&str; 9] = [
    "touch /etc/new",
    "touch /usr/bin/new",
    "touch /home/new",
    "mount -t tmpfs tmpfs /mnt",
    "unshare --user true",
    "date --set 2030-01-01",
    "hostname other",
    "chmod u+s /var/lib/punctual/file",
    "dmesg",
];

#[test]
fn ordinary_jobs_work_in_the_sandbox_and_what_it_keeps_away_is_refused() {
    let Some(machine) = Machine::installed() else { return };
    let allowed =
        ALLOWED.map(|script| format!("({script}) || echo 'PROBE failed: {}'", quoted(script)));
    let refused =
        REFUSED.map(|script| format!("({script}) && echo 'PROBE allowed: {}'", quoted(script)));
    let script = [&allowed[..], &refused[..], &["true".to_owned()]].concat().join("\n");
    machine.write("/var/lib/punctual/probes.sh", &script);
    machine.add(
        "probes",
        &[],
        "sh /var/lib/punctual/probes.sh 2>/tmp/complaints; cat /tmp/complaints >&2",
    );
    let said = machine.ok(&["punctual", "run", "probes", "--wait"]);
    let unexpected: Vec<&str> = said.lines().filter(|line| line.starts_with("PROBE")).collect();
    assert!(unexpected.is_empty(), "{unexpected:?}\n{said}");

    // So do worker processes.
    let builtin = ["--builtin", "noop", "--executor", "processpool"];
    machine
        .ok(&[&["punctual", "add", "builtin", "--at", "2100-01-01T00:00:00Z"], &builtin[..]]
            .concat());
    machine.ok(&["punctual", "run", "builtin", "--wait"]);
}

/// As text within single quotes.
fn quoted(script: &str) -> String {
    script.replace('\'', r"'\''")
}
