//! The drop-ins that are shipped as examples: each is installed with the commands in its head, and allows what it is for.

use crate::machine::{Machine, NEVER};

/// The folder of the drop-ins in the package.
const EXAMPLES: &str = "/usr/share/doc/punctual/examples";

/// The prefix of commands in the head of a drop-in.
const COMMAND: &str = "#   $ ";

/// Installs a drop-in with the commands in its head.
fn install(machine: &Machine, name: &str) {
    let text = machine.ok(&["cat", &format!("{EXAMPLES}/{name}.conf")]);
    let commands: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(COMMAND)).collect();
    assert!(commands.len() >= 3, "{text}");
    for command in commands {
        machine.shell(&format!("cd {EXAMPLES} && {command}"));
    }
    assert!(machine.property("DropInPaths").contains(&format!("{name}.conf")));
}

/// Runs a job, which has to succeed, and returns its output.
fn output(machine: &Machine, options: &[&str], script: &str) -> String {
    let (succeeded, printed) = machine.run_job(options, script);
    assert!(succeeded, "{printed}");
    printed.lines().filter(|line| !line.starts_with("run ")).collect::<Vec<_>>().join("\n")
}

#[test]
fn with_a_drop_in_each_command_runs_as_the_user_of_its_job() {
    let Some(machine) = Machine::installed() else { return };
    machine.shell("useradd --create-home --groups punctual anna");
    machine.add("kept", &[], "echo still here; test -e ~/file");
    machine.ok(&["punctual", "run", "kept"]);
    machine.run_job(&[], "echo text > ~/file");
    machine.write("/etc/punctual/jobs.toml", "[scheduler]\ndefault_user = \"punctual\"\n");

    install(&machine, "other-users");

    // The daemon has only the three capabilities.
    let capabilities =
        "sed -n 's/^CapEff:\\s*//p' /proc/$(systemctl show -P MainPID punctual)/status";
    assert_eq!(machine.shell(capabilities), "00000000000000e0\n");
    // A job that names no user keeps its folder. It can neither read nor change the daemon's files, nor kill the daemon.
    let shown = machine.ok(&["punctual", "run", "kept", "--wait"]);
    assert!(shown.starts_with("still here\n"), "{shown}");
    assert_eq!(
        output(&machine, &[], "id -un; pwd; echo ~"),
        "punctual\n/var/lib/punctual\n/var/lib/punctual"
    );
    for attack in [
        "ls /var/lib/punctual-daemon",
        "rm -f /run/punctual/punctual.sock",
        "kill -9 $(systemctl show -P MainPID punctual)",
        "kill -9 $PPID",
    ] {
        let (succeeded, printed) = machine.run_job(&[], attack);
        assert!(!succeeded, "{attack}: {printed}");
    }

    // A job with a `user` has the rights, the home and the groups of that user.
    let anna = ["--user", "anna"];
    let seen =
        output(&machine, &anna, "id -un; id -Gn; pwd; echo $HOME; echo text > file; cat ~/file");
    assert_eq!(seen, "anna\nanna punctual\n/home/anna\n/home/anna\ntext");
    let owner = machine.ok(&["stat", "--format=%U", "/home/anna/file"]);
    assert_eq!(owner, "anna\n");
    assert!(!machine.run_job(&anna, "cat /etc/shadow").0);
    // Its program is searched for with the rights of that user.
    machine.shell(
        "install -d -o anna -m 700 /home/anna/bin
         printf '#!/bin/sh\\necho mine; pwd\\n' | install -o anna -m 700 /dev/stdin /home/anna/bin/own",
    );
    let add = ["punctual", "add", "own", "--at", NEVER, "--user", "anna"];
    machine
        .ok(&[&add[..], &["--cwd", "bin", "--env", "PATH=/home/anna/bin:/bin", "--", "own"]]
            .concat());
    let printed = machine.ok(&["punctual", "run", "own", "--wait"]);
    assert!(printed.starts_with("mine\n/home/anna/bin\n"), "{printed}");
    // It gets SIGTERM before it is killed.
    let asked = "trap 'echo asked; exit 1' TERM; sleep 600 & wait";
    let (_, printed) = machine.run_job(&["--user", "anna", "--timeout", "1"], asked);
    assert!(printed.starts_with("asked\n") && printed.contains("timed_out"), "{printed}");
    // A job of root can manage services.
    assert_eq!(output(&machine, &["--user", "root"], "systemctl restart dbus; pwd"), "/root");

    // A stop, too, sends SIGTERM to processes of other users.
    let short = "[scheduler]\ndefault_user = \"punctual\"\ndrain_seconds = 0\n";
    machine.write("/etc/punctual/jobs.toml", short);
    machine.ok(&["systemctl", "restart", "punctual"]);
    let said = machine.pipe("said");
    let script =
        format!("trap 'echo asked > ~/asked; exit 1' TERM; echo run > {said}; sleep 600 & wait");
    machine.add("long", &anna, &script);
    machine.ok(&["punctual", "run", "long"]);
    assert_eq!(machine.line(&said), "run");
    machine.ok(&["systemctl", "stop", "punctual"]);
    assert_eq!(machine.property("Result"), "success");
    assert_eq!(machine.ok(&["cat", "/home/anna/asked"]), "asked\n");

    // Removing the drop-in keeps the jobs.
    let text = machine.ok(&["cat", &format!("{EXAMPLES}/other-users.conf")]);
    let back =
        text.split("The way back: ").nth(1).and_then(|text| text.split(". Jobs with").next());
    machine.shell(&back.expect("the head has a way back").replace("\n# ", "\n"));
    assert_eq!(machine.property("User"), "punctual");
    assert!(machine.ok(&["punctual", "list"]).contains("kept"));

    // A purge leaves nothing behind.
    machine.ok(&["dpkg", "--purge", "punctual"]);
    assert_eq!(machine.shell("ls -d /var/lib/punctual* || true"), "");
}

#[test]
fn with_a_drop_in_members_of_the_group_get_no_rights_of_other_users() {
    let Some(machine) = Machine::installed() else { return };
    machine.shell("useradd --create-home --groups punctual anna");
    // A daemon without special rights accepts a secret that it cannot read from every user, and fails to read it.
    machine.shell("echo swordfish | install -m 600 /dev/stdin /root/word");
    let secret =
        ["--secret-env", "WORD=file:/root/word", "--shell", "--", "echo $WORD | cut -c 1-5"];
    let add = |user: &str, id: &str, hook: &[&str]| {
        let add = ["punctual", "add", id, "--at", NEVER];
        let added = machine.run_as(user, &[&add[..], hook, &secret].concat());
        assert!(added.status.success(), "{added:?}");
    };
    add("anna", "thief", &[]);
    add("root", "trusted", &[]);
    let (_, printed) = machine.run_to_end("thief");
    assert!(printed.contains("Permission denied"), "{printed}");
    machine.write("/etc/punctual/jobs.toml", "[scheduler]\ndefault_user = \"punctual\"\n");

    install(&machine, "other-users");

    // Now the daemon could read it, but gives it only to users who may have it, even if the job is older.
    let (_, printed) = machine.run_to_end("thief");
    assert!(printed.contains("task.env.WORD: only root and the users in"), "{printed}");
    assert!(machine.ok(&["punctual", "run", "trusted", "--wait"]).starts_with("sword\n"));

    // Members may run commands as themselves and as the default user, and as no other user.
    let add = |options: &[&str]| {
        let add = ["punctual", "add", "own", "--replace", "--at", NEVER];
        machine.run_as("anna", &[&add[..], options, &["--", "id", "-un"]].concat())
    };
    for user in ["root", "daemon"] {
        let refused = add(&["--user", user]);
        let why = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && why.contains("task.user: only root"), "{why}");
    }
    for (options, user) in [(&[][..], "punctual\n"), (&["--user", "anna"][..], "anna\n")] {
        assert!(add(options).status.success());
        let run = machine.run_as("anna", &["punctual", "run", "own", "--wait"]);
        assert!(run.stdout.starts_with(user.as_bytes()), "{run:?}");
    }
}

#[test]
fn with_a_drop_in_jobs_write_to_the_named_folders() {
    let Some(machine) = Machine::installed() else { return };
    machine.shell("install -d -o punctual /srv/backup");
    let write = "touch /srv/backup/file";
    let (succeeded, printed) = machine.run_job(&[], write);
    assert!(!succeeded && printed.contains("Read-only file system"), "{printed}");

    // The second folder that the drop-in names does not exist.
    install(&machine, "folders");

    assert_eq!(output(&machine, &[], write), "");
    assert!(!machine.run_job(&[], "touch /srv/file").0);
}

/// Waits until the mailbox of root contains this text.
fn wait_for_mail(machine: &Machine, text: &str) {
    machine.wait_until(&format!("a mail with {text:?} is delivered"), |machine| {
        let mailbox = machine.run(&["cat", "/var/mail/root"]).stdout;
        String::from_utf8_lossy(&mailbox).contains(text)
    });
}

#[test]
fn with_a_drop_in_jobs_send_mail_through_the_local_postfix() {
    let Some(machine) = Machine::installed() else { return };
    machine.shell("newaliases && systemctl start postfix");
    let send = "printf 'Subject: backup\\n\\nall of it\\n' | timeout 5 sendmail root";
    let (succeeded, printed) = machine.run_job(&[], send);
    assert!(!succeeded && printed.contains("maildrop"), "{printed}");

    install(&machine, "local-mail");

    assert_eq!(output(&machine, &[], send), "");
    wait_for_mail(&machine, "Subject: backup\n");
    // Together with other-users.conf, the user has to be in the group, because its commands do not get the daemon's groups.
    machine.write("/etc/punctual/jobs.toml", "[scheduler]\ndefault_user = \"punctual\"\n");
    install(&machine, "other-users");
    assert!(!machine.run_job(&[], send).0);
    machine.shell("rm -f /var/mail/root; usermod --append --groups postdrop punctual");
    assert_eq!(output(&machine, &[], send), "");
    wait_for_mail(&machine, "Subject: backup\n");
    // The mail about a failed run arrives, too.
    let hook = ["--on-failure", "sendmail root"];
    machine.run_job(&hook, "echo no space; exit 7");
    wait_for_mail(&machine, "no space");
}

#[test]
fn a_task_of_type_mail_needs_no_drop_in() {
    let Some(machine) = Machine::installed() else { return };
    machine.shell("newaliases && systemctl start postfix");
    machine.write(
        "/etc/punctual/jobs.toml",
        "[scheduler.job_defaults]\non_failure = { type = \"mail\", to = [\"root@localhost\"] }\n",
    );
    machine.ok(&["systemctl", "restart", "punctual"]);

    machine.run_job(&[], "echo no space; exit 7");

    wait_for_mail(&machine, "no space");
}

#[test]
fn with_a_drop_in_jobs_reach_docker() {
    let Some(machine) = Machine::installed() else { return };
    // A stand-in for Docker's daemon, with the same rights on its socket.
    machine.shell("groupadd docker");
    let socket = "[Socket]\nListenStream=/run/docker.sock\nSocketMode=0660\nSocketGroup=docker\nAccept=yes\n";
    machine.write("/etc/systemd/system/docker.socket", socket);
    let answer = "[Service]\nStandardInput=socket\nStandardOutput=socket\n\
        ExecStart=sh -c \"while read -r line && [ $${#line} -gt 1 ]; do :; done; printf 'HTTP/1.0 200 OK\\\\r\\\\n\\\\r\\\\nOK'\"\n";
    machine.write("/etc/systemd/system/docker@.service", answer);
    machine.shell("systemctl daemon-reload && systemctl start docker.socket");
    let ping = "curl --silent --show-error --unix-socket /run/docker.sock http://docker/_ping";
    assert_eq!(machine.shell(ping), "OK");
    assert!(!machine.run_job(&[], ping).0);

    install(&machine, "docker");

    assert_eq!(output(&machine, &[], ping), "OK");
}
