//! The daemon among the other processes of the machine: what it inherits from its starter, what it passes on to
//! commands, and what is left of them when it dies.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use punctual::client::Client;
use rustix::process::{Resource, Rlimit, Signal, kill_process, prlimit};
use serde_json::{Value, json};
use support::commands::shell;
use support::definitions::{self, by_hand};
use support::raw::Raw;
use support::terminal::{screen, terminal};
use support::{Home, ended, is_root, left_out, program, run_to_end, text};

/// Adds a job that runs only on request, runs it, and returns its output.
async fn output(client: &Client, id: &str, task: Value) -> String {
    add(client, id, task).await;
    let run = run_to_end(client, id).await;
    assert_eq!(text(&run, "state"), "succeeded", "{run}");
    written(client, &run).await
}

async fn add(client: &Client, id: &str, task: Value) {
    client.add(&by_hand(id, task)).await.unwrap();
}

/// What a run has written, as one text.
async fn written(client: &Client, run: &Value) -> String {
    let output = client.output(text(run, "id")).await.unwrap();
    let lines = output["lines"].as_array().unwrap().iter();
    lines.flat_map(|line| [text(line, "text"), "\n"]).collect()
}

/// Whether a process lives.
fn lives(pid: &str) -> bool {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid).join("status"));
    status.is_ok_and(|status| !status.contains("State:\tZ"))
}

#[tokio::test]
async fn signals_that_were_ignored_or_blocked_for_the_daemon_change_nothing() {
    let settings = "import os, signal, sys\n\
        for name in ('CHLD', 'QUIT', 'USR1', 'TSTP', 'INT'): signal.signal(getattr(signal, 'SIG' + name), signal.SIG_IGN)\n\
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD})\n\
        os.execv(sys.argv[1], sys.argv[1:])\n";
    let home = Home::new("").starting_by(&format!("exec python3 -c \"{settings}\" \"$@\""));
    let daemon = home.start();
    let client = home.client();
    // Two signals are the C library's own, and it keeps them ignored.
    let script = "grep -E '^Sig(Blk|Ign)' /proc/$$/status | cut -f2 | sed s/0000000180000000/0000000000000000/ | sort -u";
    assert_eq!(output(&client, "look", shell(script)).await, "0000000000000000\n");
    add(&client, "fail", shell("exit 3")).await;
    assert_eq!(run_to_end(&client, "fail").await["exit_code"], 3, "its end is not lost");
    assert!(daemon.stop().success(), "SIGTERM is heard");
}

#[tokio::test]
async fn signals_without_a_meaning_do_not_end_the_daemon() {
    let home = Home::new("");
    let mut daemon = home.start();
    for signal in [
        Signal::USR1,
        Signal::USR2,
        Signal::ALARM,
        Signal::VTALARM,
        Signal::PROF,
        Signal::QUIT,
        Signal::IO,
        Signal::POWER,
        Signal::PIPE,
        Signal::XFSZ,
    ] {
        daemon.signal(signal);
    }
    let number = format!("-s RTMIN+1 {}", daemon.pid().as_raw_nonzero());
    assert!(Command::new("kill").args(number.split(' ')).status().unwrap().success());
    daemon.signal(Signal::HUP);
    daemon.wait_for("RELOADING=1");
    daemon.wait_for("READY=1");
    assert_eq!(output(&home.client(), "x", shell("echo here")).await, "here\n");
    assert!(daemon.stop().success());
}

#[tokio::test]
async fn no_file_and_no_lock_of_the_starter_reaches_a_command() {
    let home = Home::new("").starting_by(
        "exec 7> lock 8< jobs.toml; flock -n 7 || exit 9; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"",
    );
    let daemon = home.start();
    let client = home.client();
    // A descriptor may be closed while they are listed.
    let own = "ls -l /proc/$PPID/fd 2> /dev/null | grep -c -e /lock$ -e jobs.toml$";
    assert_eq!(output(&client, "own", shell(own)).await, "2\n", "the daemon keeps them");
    let inherited = "ls -l /proc/self/fd | grep -e /lock$ -e jobs.toml$; echo none";
    assert_eq!(output(&client, "inherited", shell(inherited)).await, "none\n");
    let mut ready = home.signal("ready");
    add(&client, "long", shell(&format!("echo $$ > {}; exec sleep 600", ready.path.display())))
        .await;
    client.run("long").await.unwrap();
    let pid = ready.next().await;
    daemon.kill();
    // The command of the daemon that died does not hold the lock, or this could not start.
    let daemon = home.start();
    assert!(!lives(&pid));
    assert!(daemon.stop().success());
}

#[tokio::test]
async fn commands_do_not_inherit_the_variables_of_the_service_manager() {
    let mut home = Home::new("");
    let credentials = home.path().join("credentials");
    std::fs::create_dir(&credentials).unwrap();
    std::fs::write(credentials.join("token"), "swordfish").unwrap();
    home.set("CREDENTIALS_DIRECTORY", &credentials.display().to_string());
    for name in [
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        "LISTEN_FDNAMES",
        "MEMORY_PRESSURE_WATCH",
        "MEMORY_PRESSURE_WRITE",
        "SYSTEMD_EXEC_PID",
        "WATCHDOG_X",
    ] {
        home.set(name, "meant-for-the-daemon");
    }
    home.set("PUNCTUAL_LOG", "info");
    let _daemon = home.start();
    let client = home.client();
    let names = output(&client, "env", shell("env | cut -d= -f1")).await;
    for name in [
        "NOTIFY_SOCKET",
        "CREDENTIALS",
        "INVOCATION",
        "JOURNAL",
        "MEMORY_PRESSURE",
        "LISTEN",
        "WATCHDOG",
        "SYSTEMD",
        "PUNCTUAL_LOG",
    ] {
        assert!(!names.contains(name), "{name}: {names}");
    }
    assert!(names.contains("RUNTIME_DIRECTORY"), "the command line finds the socket by it");
    // What a job asks for it gets.
    let mut task = shell("echo $NOTIFY_SOCKET; test \"$TOKEN\" = swordfish && echo same");
    task["env"] = json!({"NOTIFY_SOCKET": "mine", "TOKEN": {"credential": "token"}});
    assert_eq!(output(&client, "asks", task).await, "mine\nsame\n");
}

#[tokio::test]
async fn a_variable_that_one_job_names_as_a_secret_is_kept_from_all_others() {
    const SECRET: &str = "tok_secret_1";
    let home = Home::new("");
    let daemon = home.start_in(&[("API_TOKEN", SECRET), ("OPEN_WORD", "sesame")]);
    let client = home.client();
    let look = || shell("echo ${API_TOKEN-none} ${OPEN_WORD-none}");
    assert_eq!(output(&client, "before", look()).await, format!("{SECRET} sesame\n"));
    // A header of a call, or a hook, is as good as a variable of a command.
    let trigger = json!({"type": "date", "run_date": "2100-01-01"});
    let named = json!({"type": "http", "url": "http://127.0.0.1:1/",
        "headers": {"Authorization": {"env": "API_TOKEN"}}});
    let noop = json!({"type": "builtin", "name": "noop"});
    client
        .add(&json!({"id": "names", "trigger": trigger, "task": noop, "on_failure": named}))
        .await
        .unwrap();
    assert_eq!(output(&client, "after", look()).await, "none sesame\n");
    // Where it gets it from is its business; no output shows it.
    let print = || json!({"type": "command", "argv": ["echo", SECRET]});
    assert_eq!(output(&client, "print", print()).await, "***\n");
    let mut own = shell("echo $T; test \"$T\" = \"$API_TOKEN\" && echo same");
    own["env"] = json!({"T": {"env": "API_TOKEN"}});
    assert_eq!(output(&client, "own", own).await, "***\nsame\n");
    assert!(daemon.stop().success());
    // A daemon that finds the jobs in its store knows it too.
    let _daemon = home.start_in(&[("API_TOKEN", SECRET)]);
    for (job, expected) in [("after", "none none\n"), ("print", "***\n")] {
        let run = run_to_end(&client, job).await;
        assert_eq!(written(&client, &run).await, expected);
    }
}

#[tokio::test]
async fn commands_get_the_limit_of_open_files_that_the_daemon_was_started_with() {
    let home = Home::new("").starting_by("ulimit -Sn 100; exec \"$@\"");
    let daemon = home.start();
    let limits =
        std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid().as_raw_nonzero())).unwrap();
    let files: Vec<&str> = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap()
        .split_whitespace()
        .collect();
    assert_eq!(files[3], files[4], "the daemon has as many as it may");
    let client = home.client();
    // The limit is set just after the shell has begun.
    let look = "until test $(ulimit -Sn) = 100; do :; done; ulimit -Sn";
    assert_eq!(output(&client, "plain", shell(look)).await, "100\n");
    let mut task = shell("ulimit -Sn");
    task["umask"] = json!("022");
    assert_eq!(output(&client, "launched", task.clone()).await, "100\n");
    task["limits"] = json!({"files": 50});
    assert_eq!(output(&client, "limited", task).await, "50\n");
}

#[tokio::test]
async fn a_run_that_the_system_has_no_place_for_waits_and_keeps_its_attempt() {
    let home = Home::new("");
    let daemon = home.start();
    let client = home.client();
    let now = json!({"type": "date", "run_date": "2020-01-01"});
    let job = json!({"id": "due", "task": shell("echo done"), "trigger": now});
    // This connection is there already, and needs no other descriptor.
    let mut raw = Raw::connect(&home.socket());
    assert_eq!(raw.ask("GET", "/readyz", b"").unwrap().status, 200);
    let few = Rlimit { current: Some(4), maximum: getrlimit(&daemon).maximum };
    let before = prlimit(Some(daemon.pid()), Resource::Nofile, few).unwrap();
    assert_eq!(raw.ask("POST", "/v1/jobs", job.to_string().as_bytes()).unwrap().status, 201);
    home.log_with("the system is short of resources");
    prlimit(Some(daemon.pid()), Resource::Nofile, before).unwrap();
    let runs = client.runs("job=due").await.unwrap();
    let run = ended(&client, text(&runs["runs"][0], "id")).await;
    assert_eq!((text(&run, "state"), &run["attempt"]), ("succeeded", &json!(1)), "{run}");
    assert_eq!(written(&client, &run).await, "done\n");
}

fn getrlimit(daemon: &support::Daemon) -> Rlimit {
    let text = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid().as_raw_nonzero()));
    let text = text.unwrap();
    let line = text.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let maximum = line.split_whitespace().nth(4).unwrap().parse().ok();
    Rlimit { current: maximum, maximum }
}

#[tokio::test]
async fn a_command_in_a_terminal_cannot_reach_it_and_ctrl_c_ends_the_daemon() {
    let home = Home::new("");
    let mut ready = home.signal("ready");
    let reach = |user: &str| {
        let said = ready.path.display();
        format!(
            "[[jobs]]\nid = \"reach{user}\"\ntrigger = {{ type = \"date\" }}\n\
            task = {{ type = \"command\", shell = \"(exec 3> /dev/tty) 2> /dev/null; echo $? > {said}\"{user} }}\n"
        )
    };
    let mut config = reach("");
    if is_root() {
        config += &reach(", user = 'nobody'").replacen("reach, user = 'nobody'", "nobody", 1);
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::set_permissions(&ready.path, std::fs::Permissions::from_mode(0o666)).unwrap();
    }
    home.write_config(&config);
    let (mut keyboard, terminal) = terminal();
    let mut daemon = Command::new("setsid")
        .args(["--ctty", program(), "serve", "--config", "jobs.toml"])
        .current_dir(home.path())
        .env("RUNTIME_DIRECTORY", home.path())
        .env("STATE_DIRECTORY", home.path())
        .env_remove("NOTIFY_SOCKET")
        .stdin(terminal.try_clone().unwrap())
        .stdout(terminal.try_clone().unwrap())
        .stderr(terminal)
        .spawn()
        .unwrap();
    for _ in config.matches("[[jobs]]") {
        assert_ne!(ready.next().await, "0", "there is no terminal to open");
    }
    keyboard.write_all(b"\x03").unwrap();
    let ended = daemon.wait().unwrap();
    let said = screen(keyboard);
    assert!(ended.success() && said.contains("stopped"), "{ended}: {said}");
}

#[tokio::test]
async fn after_a_crash_no_process_of_a_command_outlives_the_start_of_its_rerun() {
    let home = Home::new("[executors.processpool]\ntype = \"processpool\"\nmax_workers = 5\n");
    let daemon = home.start();
    let client = home.client();
    let mut ready = home.signal("ready");
    let path = ready.path.display().to_string();
    // Neither has its environment any more; the second one has left the group, and not the session.
    let cleared = format!("exec env -i sh -c 'echo $$ > {path}; exec sleep 600'");
    let moved =
        format!("env -i bash -c 'set -m; sh -c \"echo \\$\\$ > {path}; exec sleep 600\" & wait'");
    add(&client, "cleared", shell(&cleared)).await;
    client.run("cleared").await.unwrap();
    let first = ready.next().await;
    add(&client, "moved", shell(&moved)).await;
    client.run("moved").await.unwrap();
    let second = ready.next().await;
    // What a command has left behind when it ended is none of a crash's business.
    let left =
        format!("env -i setsid sh -c 'echo $$ > {path}; exec sleep 600' > /dev/null 2>&1 & exit 0");
    add(&client, "left", shell(&left)).await;
    run_to_end(&client, "left").await;
    let stays = ready.next().await;
    daemon.kill();
    assert!(lives(&first) && lives(&second));
    let daemon = home.start();
    let (third, fourth) = (ready.next().await, ready.next().await);
    assert!(!lives(&first) && !lives(&second), "they were ended before the rerun");
    assert!(lives(&third) && lives(&fourth) && lives(&stays));
    daemon.stop();
    assert!(!lives(&third) && !lives(&fourth) && lives(&stays));
    let stays = rustix::process::Pid::from_raw(stays.parse().unwrap()).unwrap();
    kill_process(stays, Signal::KILL).unwrap();
    assert!(!home.path().join("punctual.sock.commands").exists(), "an orderly end leaves nothing");
}

#[tokio::test]
async fn as_the_init_of_a_container_the_daemon_reaps_orphans_and_keeps_its_own_children() {
    let unshare = ["--pid", "--fork", "--mount-proc", "--kill-child"];
    if !Command::new("unshare")
        .args(unshare)
        .arg("true")
        .status()
        .is_ok_and(|ended| ended.success())
    {
        return left_out("the kernel allows no namespace of processes");
    }
    let home = Home::new("[executors.processpool]\ntype = \"processpool\"\nmax_workers = 5\n")
        .starting_by(&format!("exec unshare {} \"$@\"", unshare.join(" ")));
    let _daemon = home.start();
    let client = home.client();
    let mut gone = home.signal("gone");
    let orphans = format!(
        "for i in 1 2 3; do (setsid sh -c 'echo gone > {}' &); done; exit 7",
        gone.path.display()
    );
    add(&client, "orphans", shell(&orphans)).await;
    for _ in 0..5 {
        let run = run_to_end(&client, "orphans").await;
        assert_eq!(run["exit_code"], 7, "{run}");
        for _ in 0..3 {
            assert_eq!(gone.next().await, "gone");
        }
    }
    let count = "grep -l '^State:.Z' /proc/[0-9]*/status 2> /dev/null | wc -l";
    let mut zombies = output(&client, "count", shell(count)).await;
    while zombies != "0\n" {
        let run = run_to_end(&client, "count").await;
        zombies = written(&client, &run).await;
    }
}

#[tokio::test]
async fn a_job_that_can_never_run_here_is_refused_when_it_is_added() {
    let home = Home::new("");
    let folder = home.path().display().to_string();
    let home = if is_root() {
        std::os::unix::fs::chown(home.path(), Some(65534), Some(65534)).unwrap();
        home.starting_by(
            "case $2 in serve) ulimit -t 7200;; *) exec \"$@\";; esac; \
            exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$@\"",
        )
    } else {
        home.starting_by("ulimit -t 7200; exec \"$@\"")
    };
    if is_root() && !can_execute_as_nobody() {
        return left_out(&format!("nobody cannot execute the program or enter {folder}"));
    }
    let _daemon = home.start();
    let client = home.client();
    let refused = async |more: Value| {
        let task = definitions::with(shell("true"), more);
        let trigger = json!({"type": "date", "run_date": "2100-01-01"});
        let added = client.add(&json!({"id": "x", "trigger": trigger, "task": task})).await;
        added.unwrap_err().to_string()
    };
    let lacks = "task.user: this daemon lacks CAP_SETUID, CAP_SETGID, CAP_KILL, and cannot run";
    let cases = [
        (json!({"user": "root"}), lacks),
        (json!({"user": "0"}), lacks),
        (json!({"user": "no-such-user"}), "task.user: there is no user"),
        (json!({"group": "root"}), "task.group: this daemon lacks CAP_SETGID"),
        (json!({"group": "no-such-group"}), "task.group: there is no group"),
        (json!({"nice": -3}), "task.nice: -3 is not possible: this daemon lacks CAP_SYS_NICE"),
        (json!({"limits": {"files": 2_000_000_000}}), "task.limits.files: 2000000000"),
        (json!({"limits": {"cpu": 7201}}), "task.limits.cpu: 7201 is not possible"),
    ];
    for (given, expected) in cases {
        let error = refused(given).await;
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let trigger = json!({"type": "date", "run_date": "2100-01-01"});
    let hook = definitions::with(shell("true"), json!({"user": "root"}));
    let hooked = json!({"id": "x", "trigger": trigger, "task": shell("true"), "on_failure": hook});
    let error = client.add(&hooked).await.unwrap_err().to_string();
    assert!(error.contains("on_failure.user: this daemon lacks"), "{error}");
    assert_the_file_is_judged_too(&home);
    // Its own name is accepted, and no other process may read its environment.
    let mut task = shell("id -u; cat /proc/$PPID/environ 2> /dev/null | tr -d '\\0' | wc -c");
    task["user"] = json!(
        nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(if is_root() {
            65534
        } else {
            rustix::process::geteuid().as_raw()
        }))
        .unwrap()
        .unwrap()
        .name
    );
    let said = output(&client, "own", task).await;
    assert!(said.ends_with("\n0\n"), "{said}");
}

/// A daemon without rights refuses in its file what it refuses over its socket.
fn assert_the_file_is_judged_too(home: &Home) {
    // A declared job is refused as well. A check cannot know the rights of the daemon, but who does not exist.
    for (user, error) in [("root", None), ("no-such-user", Some("there is no user"))] {
        home.write_config(&format!(
            "[[jobs]]\nid = \"x\"\ntrigger = {{ type = \"date\", run_date = \"2100-01-01\" }}\n\
            task = {{ type = \"command\", shell = \"true\", user = \"{user}\" }}\n"
        ));
        let (_, complaint) = home.fails(&["reload"]);
        let expected = error.unwrap_or("lacks CAP_SETUID");
        assert!(
            complaint.contains("jobs[0].task.user: ") && complaint.contains(expected),
            "{complaint}"
        );
        let checked = home.run(&["check"]);
        assert_eq!(checked.status.success(), error.is_none(), "{checked:?}");
    }
    for (setting, field) in [
        ("[scheduler]\ndefault_user = \"root\"", "scheduler.default_user"),
        ("[scheduler]\ndefault_user = \"no-such-user\"", "scheduler.default_user"),
        ("[control]\ntrusted_users = [\"no-such-user\"]", "control.trusted_users[0]"),
    ] {
        home.write_config(setting);
        let (_, complaint) = home.fails(&["reload"]);
        assert!(complaint.contains(field), "{complaint}");
    }
}

/// Runs the command line as a user without rights, and gives whether it succeeded and what it printed.
fn as_nobody(home: &Home, arguments: &[&str]) -> (bool, String) {
    let socket = home.socket().display().to_string();
    let ran = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", program(), "--socket", &socket])
        .args(arguments)
        .current_dir("/")
        .output()
        .unwrap();
    let said = [ran.stdout, ran.stderr].concat();
    (ran.status.success(), String::from_utf8(said).unwrap())
}

/// Adds a job as a user without rights, with these options.
fn add_as_nobody(home: &Home, options: &[&str], script: &str) -> (bool, String) {
    let add = ["add", "job", "--at", "2100-01-01T00:00:00Z", "--replace"];
    as_nobody(home, &[&add[..], options, &["--shell", "--", script]].concat())
}

/// A folder that everybody may enter, for a daemon that is root and a socket that everybody may use.
fn open_home() -> Home {
    let home = Home::new("[control]\nmode = \"0666\"\n");
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    home
}

#[tokio::test]
async fn a_member_of_the_sockets_group_gets_no_rights_of_a_daemon_that_is_root() {
    if !is_root() || !can_execute_as_nobody() {
        return left_out("only root can start a daemon that is root");
    }
    let home = open_home();
    let daemon = home.start();
    let client = home.client();
    let refused = [
        (&[][..], "task.user: is missing: the command would run as the user of the daemon"),
        (&["--user", "root"], "task.user: only root and the users in [control] trusted_users may"),
        (&["--user", "daemon"], "task.user: only root"),
        (&["--group", "nogroup"], "task.user: is missing"),
        (&["--user", "nobody", "--group", "root"], "task.group: only root"),
        (&["--user", "nobody", "--nice=-1"], "task.nice: only root"),
        (&["--user", "nobody", "--secret-env", "T=file:/etc/shadow"], "task.env.T: only root"),
        (&["--user", "nobody", "--on-failure", "id"], "on_failure.user: is missing"),
    ];
    for (options, expected) in refused {
        let (added, said) = add_as_nobody(&home, options, "id");
        assert!(!added && said.contains(expected), "{options:?}: {said}");
    }
    assert!(client.jobs("limit=10").await.unwrap()["jobs"].as_array().unwrap().is_empty());
    let (added, said) = add_as_nobody(&home, &["--user", "nobody", "--group", "nogroup"], "id -un");
    assert!(added, "{said}");
    let run = run_to_end(&client, "job").await;
    assert_eq!(written(&client, &run).await, "nobody\n");
    // Builtins do not run as anybody else. Root may ask for everything.
    let builtin = ["add", "b", "--at", "2100-01-01T00:00:00Z", "--builtin", "noop"];
    assert!(as_nobody(&home, &builtin).0);
    assert_eq!(output(&client, "root", shell("id -un")).await, "root\n");

    // What a job has from the defaults of the file is not its sender's doing.
    let defaults = "[scheduler]\njob_defaults = { on_failure = \
        { type = \"command\", argv = [\"true\"], env = { T = { file = \"/etc/shadow\" } } } }\n\
        [control]\nmode = \"0666\"\n";
    home.write_config(defaults);
    home.ok(&["reload"]);
    let (added, said) = add_as_nobody(&home, &["--user", "nobody"], "id -un");
    assert!(added, "{said}");

    home.write_config("[control]\nmode = \"0666\"\ntrusted_users = [\"nobody\"]\n");
    home.ok(&["reload"]);
    let (added, said) = add_as_nobody(&home, &["--user", "daemon"], "id -un");
    assert!(added, "{said}");
    assert!(daemon.stop().success());
}

#[tokio::test]
async fn commands_that_name_no_user_run_as_the_default_user_and_everybody_may_add_them() {
    if !is_root() || !can_execute_as_nobody() {
        return left_out("only root can start a daemon that is root");
    }
    let home = open_home();
    let daemon = home.start();
    let client = home.client();
    assert_eq!(output(&client, "old", shell("id -un")).await, "root\n");
    assert!(daemon.stop().success());

    let settings = "[scheduler]\ndefault_user = \"daemon\"\n[control]\nmode = \"0666\"\n";
    home.write_config(settings);
    let _daemon = home.start();
    // That of a running daemon does not change, and what is judged goes with what is run.
    home.write_config("[control]\nmode = \"0666\"\n");
    let reloaded = home.ok(&["reload"]);
    assert!(reloaded.contains("scheduler.default_user"), "{reloaded}");
    let (added, said) = add_as_nobody(&home, &[], "id -un");
    assert!(added, "{said}");
    for job in ["old", "job"] {
        let run = run_to_end(&client, job).await;
        assert_eq!(written(&client, &run).await, "daemon\n");
    }
    let (added, said) = add_as_nobody(&home, &["--nice=-1"], "id");
    assert!(!added && said.contains("task.nice: only root"), "{said}");
    let (added, said) = add_as_nobody(&home, &["--user", "root"], "id");
    assert!(!added && said.contains("task.user: only root"), "{said}");
}

#[tokio::test]
async fn a_command_that_may_not_be_signalled_is_not_reported_as_cancelled() {
    if !is_root() {
        return left_out("only root can start a command of another user");
    }
    let home = open_home();
    let mut ready = home.signal("ready");
    std::fs::set_permissions(&ready.path, std::fs::Permissions::from_mode(0o666)).unwrap();
    let task = shell(&format!("echo $$ > {}; exec sleep 600", ready.path.display()));
    let task = definitions::with(task, json!({"user": "nobody"}));
    let daemon = home.start();
    add(&home.client(), "long", task.clone()).await;
    assert!(daemon.stop().success());

    let home = home.starting_by("exec setpriv --bounding-set=-kill --inh-caps=-all \"$@\"");
    let _daemon = home.start();
    let client = home.client();
    let trigger = json!({"type": "date", "run_date": "2100-01-01"});
    let added = client.add(&json!({"id": "new", "trigger": trigger, "task": task})).await;
    let error = added.unwrap_err().to_string();
    assert!(error.contains("task.user: this daemon lacks CAP_KILL, and cannot"), "{error}");
    let run = client.run("long").await.unwrap();
    let pid = ready.next().await;
    client.cancel(text(&run, "id"), Some("enough")).await.unwrap();
    let said = || std::fs::read_to_string(home.log()).unwrap();
    let expected = "a signal could not be sent to a command (for another user's command, the daemon needs CAP_KILL)";
    while said().matches(expected).count() < 2 {
        tokio::task::yield_now().await;
    }
    kill_process(rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap(), Signal::KILL)
        .unwrap();
    assert_eq!(text(&ended(&client, text(&run, "id")).await, "state"), "cancelled");
    let said = said();
    assert!(said.contains("Operation not permitted"), "{said}");
    assert!(!said.contains("did not end when asked to"), "{said}");
}

#[tokio::test]
async fn a_command_has_a_home_and_a_working_directory_that_exist_under_any_user() {
    let home = Home::new("");
    let daemon = home.start_in(&[("HOME", "/nonexistent"), ("SHELL", "/usr/sbin/nologin")]);
    let client = home.client();
    let look = || shell("test -d \"$HOME\" && echo $SHELL");
    assert_eq!(output(&client, "own", look()).await, "/bin/sh\n");
    if is_root() {
        let look = "echo $HOME $PWD $USER $LOGNAME $SHELL; ls . > /dev/null && umask";
        let mask = output(&client, "umask", shell("umask")).await;
        for (user, expected) in [
            ("daemon", "/usr/sbin /usr/sbin daemon daemon /bin/sh"),
            // Its home does not exist.
            ("nobody", "/ / nobody nobody /bin/sh"),
        ] {
            let task = definitions::with(shell(look), json!({"user": user}));
            assert_eq!(output(&client, user, task).await, format!("{expected}\n{mask}"));
        }
    } else {
        left_out("only root can start a command of another user");
    }
    assert!(daemon.stop().success());
}

/// Whether the program can be executed by a user without rights.
fn can_execute_as_nobody() -> bool {
    let program = ["--reuid=65534", "--regid=65534", "--clear-groups", program(), "--version"];
    Command::new("setpriv").args(program).output().is_ok_and(|ended| ended.status.success())
}
