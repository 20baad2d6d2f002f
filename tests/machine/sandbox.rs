//! The sandbox of the shipped unit: what a job sees in it, what it denies, and the settings that open it.

use std::collections::BTreeSet;

use crate::machine::{Machine, NEVER};

/// Its table "What a job sees" lists the restrictions and the settings that change them.
const DOCUMENT: &str = include_str!("../../docs/OPERATIONS.md");

/// Scripts of ordinary jobs. Each has to succeed.
const ALLOWED: [&str; 17] = [
    "perl -MIO::Socket -e 'IO::Socket::INET->new(Listen => 1) or die'",
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

/// Scripts that the sandbox denies. Each has to fail.
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
fn ordinary_jobs_work_in_the_sandbox_and_others_are_denied() {
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

    // Worker processes work, too.
    let builtin = ["--builtin", "noop", "--executor", "processpool"];
    machine.ok(&[&["punctual", "add", "builtin", "--at", NEVER], &builtin[..]].concat());
    machine.ok(&["punctual", "run", "builtin", "--wait"]);
}

/// What a job sees, each with a script that succeeds if the job sees it.
const SEEN: [(&str, &str); 12] = [
    (
        "of what systemd gives to the daemon, it has the names of folders",
        "test \"$STATE_DIRECTORY $RUNTIME_DIRECTORY $CONFIGURATION_DIRECTORY\" = '/var/lib/punctual /run/punctual /etc/punctual'",
    ),
    ("what everyone may write to beside /tmp", "touch /dev/shm/new /run/lock/new"),
    ("the environment file is for jobs, too", "test $GREETING = hello"),
    (
        "what is not its own is read-only",
        "for folder in /etc /usr /srv /var/log /home; do touch $folder/new 2>&1 | grep 'Read-only file system' || exit; done",
    ),
    (
        "its folder is that of the state, and it is its home",
        "test $(pwd) = /var/lib/punctual && test ~ = $(pwd)",
    ),
    ("the umask lets the group read", "test $(umask) = 0027"),
    ("homes can be read if their modes allow it", "grep -q text /home/anna/open/file"),
    (
        "it can be told from a process of the host",
        "test $(ps -p $PPID -o user=) = punctual && ps -p 1 > /dev/null",
    ),
    (
        "a program with set-user-ID gives no rights",
        "test $(/usr/local/bin/id-as-root -u) = $(id -u)",
    ),
    ("the daemon is its own user's", "kill -0 $(systemctl show -P MainPID punctual)"),
    ("the store can be read", "head -c 13 punctual.db | grep -q SQLite"),
    (
        "the secrets of the daemon can be read",
        "grep -q secret /run/credentials/punctual.service/token",
    ),
];

/// Settings of the unit, and a script that fails without them. The document has each line of the settings.
const OPENED: [(&str, &str); 13] = [
    ("ProtectProc=invisible", "! ps -p 1"),
    ("ReadWritePaths=/srv/backup", "touch /srv/backup/file"),
    ("ProtectHome=no", "touch /home/anna/open/new"),
    ("PrivateTmp=no\nReadWritePaths=/tmp /var/tmp", "grep text /tmp/of-the-host && touch /tmp/new"),
    ("UMask=0022", "test $(umask) = 0022"),
    ("LimitNOFILE=1024", "test $(ulimit -n) = 1024"),
    ("SupplementaryGroups=systemd-journal", "journalctl --quiet --lines=1"),
    ("PrivateDevices=no", "test -e /dev/sensor"),
    (
        "CapabilityBoundingSet=CAP_NET_BIND_SERVICE\nAmbientCapabilities=CAP_NET_BIND_SERVICE",
        "perl -MIO::Socket -e 'IO::Socket::INET->new(LocalPort => 80, Listen => 1) or die $!'",
    ),
    (
        "CapabilityBoundingSet=CAP_NET_RAW\nAmbientCapabilities=CAP_NET_RAW\nRestrictAddressFamilies=AF_PACKET",
        "perl -MSocket -e 'socket(my $raw, 17, SOCK_RAW, 0) or die $!'",
    ),
    (
        "RestrictNamespaces=no\nSystemCallFilter=@mount",
        "unshare --user --map-root-user --mount mount -t tmpfs tmpfs /mnt",
    ),
    ("SystemCallFilter=@debug", "strace --output=/dev/null true"),
    ("LockPersonality=no", "setarch --addr-no-randomize true"),
];

#[test]
fn a_job_sees_what_the_document_says_and_each_setting_opens_what_it_should() {
    let Some(machine) = Machine::installed() else { return };
    machine.shell(
        "useradd --create-home anna && chmod 755 /home/anna
         install -d -m 777 /home/anna/open && echo text >/home/anna/open/file
         install -d -o punctual /srv/backup
         echo text >/tmp/of-the-host
         ln -s null /dev/sensor
         install -m 4755 /usr/bin/id /usr/local/bin/id-as-root
         install -m 600 /dev/null /etc/punctual/credentials/token
         echo secret >/etc/punctual/credentials/token
         echo GREETING=hello >/etc/default/punctual",
    );
    let secret = "[Service]\nLoadCredential=token:/etc/punctual/credentials/token\n";
    machine.drop_in("secret", secret);
    machine.ok(&["systemctl", "restart", "punctual"]);
    for (what, script) in SEEN {
        let (succeeded, printed) = machine.run_job(&[], script);
        assert!(succeeded, "{what}: {printed}");
    }
    for denied in ["systemctl restart dbus", "systemd-run true"] {
        let (succeeded, printed) = machine.run_job(&[], denied);
        assert!(!succeeded && printed.contains("Access denied"), "{denied}: {printed}");
    }
    // A restart of the daemon empties the private folders; the home stays.
    let leave = "touch ~/left /tmp/left /var/tmp/left";
    assert!(machine.run_job(&[], leave).0);
    machine.ok(&["systemctl", "restart", "punctual"]);
    let look = "ls -d ~/left /tmp/left /var/tmp/left 2>/dev/null; true";
    let (_, printed) = machine.run_job(&[], look);
    assert!(printed.starts_with("/var/lib/punctual/left\nrun "), "{printed}");

    for (_, script) in OPENED {
        let (succeeded, printed) = machine.run_job(&[], script);
        assert!(!succeeded, "{script}: {printed}");
    }
    for (settings, script) in OPENED {
        for line in settings.lines() {
            assert!(DOCUMENT.contains(&format!("`{line}`")), "not in the document: {line}");
        }
        machine.drop_in("opened", &format!("[Service]\n{settings}\n"));
        machine.ok(&["systemctl", "restart", "punctual"]);
        let (succeeded, printed) = machine.run_job(&[], script);
        assert!(succeeded, "{settings}: {script}: {printed}");
    }
}

/// All environment variables of a command.
const VARIABLES: [&str; 14] = [
    "CONFIGURATION_DIRECTORY",
    "HOME",
    "LANG",
    "LOGNAME",
    "PATH",
    "PUNCTUAL_ATTEMPT",
    "PUNCTUAL_JOB_ID",
    "PUNCTUAL_RUN_ID",
    "PWD",
    "RUNTIME_DIRECTORY",
    "SHELL",
    "STATE_DIRECTORY",
    "TRACEPARENT",
    "USER",
];

/// Variables that systemd gives to the daemon alone.
const DAEMONS_OWN: [&str; 9] = [
    "CREDENTIALS_DIRECTORY",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LISTEN_FDS",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "SYSTEMD_EXEC_PID",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

#[test]
fn nothing_that_systemd_gives_to_the_daemon_reaches_a_command() {
    let Some(machine) = Machine::installed() else { return };
    machine.shell("echo secret >/etc/punctual/credentials/token");
    machine.drop_in("secret", "[Service]\nLoadCredential=token:/etc/punctual/credentials/token\n");
    // systemd passes a socket to the daemon as descriptor 3.
    machine
        .write("/etc/systemd/system/punctual.socket", "[Socket]\nListenStream=/run/handed-over\n");
    machine.shell("systemctl daemon-reload && systemctl stop punctual && systemctl start punctual.socket punctual");

    let environ = format!("tr '\\0' '\\n' </proc/{}/environ", machine.property("MainPID"));
    let daemon = names(&machine.shell(&environ));
    for name in DAEMONS_OWN {
        assert!(daemon.contains(name), "the daemon has no {name}: {daemon:?}");
    }
    let (succeeded, printed) = machine.run_job(&[], "ls /proc/self/fd >fds; env");
    assert!(succeeded, "{printed}");
    let printed: Vec<&str> = printed.lines().filter(|line| !line.starts_with("run ")).collect();
    assert_eq!(names(&printed.join("\n")), VARIABLES.map(str::to_owned).into());
    // Descriptor 3 is the folder that `ls` lists.
    assert_eq!(machine.ok(&["cat", "/var/lib/punctual/fds"]), "0\n1\n2\n3\n");
}

/// The names of the variables in `env` output.
fn names(lines: &str) -> BTreeSet<String> {
    lines.lines().map(|line| line.split_once('=').unwrap().0.to_owned()).collect()
}

/// Escapes a script for use within single quotes.
fn quoted(script: &str) -> String {
    script.replace('\'', r"'\''")
}
