//! Where the daemon listens and where its clients look for it.

use std::io::{BufRead, BufReader, ErrorKind};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

use punctual::client::Client;

use support::{Daemon, Home, left_out, program, text};

/// The program in an environment that names no folder for sockets.
fn bare(home: &Home, arguments: &[&str]) -> Command {
    let mut command = home.command(arguments);
    command.env_remove("RUNTIME_DIRECTORY").env_remove("XDG_RUNTIME_DIR");
    command
}

/// Runs a command that has to fail, and gives its exit code and complaint.
fn refusal(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn socket_of(home: &Home, arguments: &[&str]) -> String {
    text(&home.json(&[arguments, &["status"]].concat()), "socket").to_owned()
}

#[test]
fn the_daemon_listens_where_the_flag_the_variable_the_file_or_the_environment_says() {
    let mut home = Home::new("[control]\nsocket = \"file.sock\"\n");
    let path = |name: &str| home.path().join(name).display().to_string();
    let [flag, variable, file] = ["flag.sock", "variable.sock", "file.sock"].map(path);
    // What the file says, also for a client without options, and for `check`.
    let daemon = home.start();
    assert_eq!(socket_of(&home, &[]), file);
    assert!(home.ok(&["check"]).contains("a reload would change no job"));
    assert!(daemon.stop().success() && !Path::new(&file).exists());
    // The flag after the verb, and what `check` finds without it.
    let daemon = home.start_with(&["--socket", &flag]);
    assert_eq!(socket_of(&home, &["--socket", &flag]), flag);
    assert!(!Path::new(&file).exists());
    assert!(home.ok(&["check"]).contains("no daemon is running"));
    drop(daemon);
    // The variable, and the flag over it.
    home.set("PUNCTUAL_SOCKET", &variable);
    let daemon = home.start();
    assert_eq!(socket_of(&home, &[]), variable);
    drop(daemon);
    let _daemon = home.start_with(&["--socket", &flag]);
    assert_eq!(socket_of(&home, &["--socket", &flag]), flag);
    assert_eq!(home.fails(&["status"]).0, 3, "the variable names a socket that is gone");
}

#[test]
fn a_client_finds_no_socket_or_one_that_answers_and_never_a_refusal() {
    let home = Home::new("[control]\nmode = \"0640\"\n").starting_by("umask 0; exec \"$@\"");
    for _ in 0..5 {
        let mut daemon = home.spawn(&[]);
        let mut looks = 0_u64;
        let mode = loop {
            looks += 1;
            match UnixStream::connect(home.socket()) {
                Ok(_) => break std::fs::metadata(home.socket()).unwrap().permissions().mode(),
                Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "look {looks}"),
            }
        };
        assert_eq!(mode & 0o777, 0o640);
        daemon.wait_for("READY=1");
        // While it stops, too: until it is gone, somebody answers.
        daemon.signal(rustix::process::Signal::TERM);
        loop {
            match UnixStream::connect(home.socket()) {
                Ok(_) => {}
                Err(error) => break assert_eq!(error.kind(), ErrorKind::NotFound),
            }
        }
        assert!(daemon.ended().success());
        let left: Vec<_> = std::fs::read_dir(home.path()).unwrap().map(Result::unwrap).collect();
        let sockets = left.iter().filter(|entry| entry.file_type().unwrap().is_socket());
        let names: Vec<_> = sockets.map(std::fs::DirEntry::file_name).collect();
        assert_eq!(names, ["notify.sock"], "nothing is left behind");
    }
}

#[test]
fn a_dead_daemons_socket_is_replaced_and_a_living_ones_is_neither_taken_nor_removed() {
    let home = Home::new("");
    home.start().kill();
    assert!(home.socket().exists());
    let first = home.start();
    let other = Home::new("");
    let socket = home.socket().display().to_string();
    let (code, complaint) = other.fails(&["serve", "--socket", &socket]);
    assert_eq!(code, 1);
    assert!(complaint.contains(&format!("another daemon listens at {socket}")), "{complaint}");
    assert_eq!(socket_of(&home, &[]), socket);
    // Somebody removes the first one's socket, and a second daemon takes its place.
    std::fs::remove_file(home.socket()).unwrap();
    let second = other.start_with(&["--socket", &socket]);
    let node = text(&home.json(&["status"]), "node").to_owned();
    assert!(first.stop().success());
    assert_eq!(text(&home.json(&["status"]), "node"), node, "the second one's is left alone");
    assert!(second.stop().success() && !home.socket().exists());
    // What is no socket, and what is too long for one.
    std::fs::write(home.socket(), "precious").unwrap();
    assert!(home.fails(&["serve"]).1.contains("exists and is not a socket"));
    assert_eq!(std::fs::read_to_string(home.socket()).unwrap(), "precious");
    let long = "x".repeat(108);
    assert!(home.fails(&["serve", "--socket", &long]).1.contains("at most 107"));
}

#[test]
fn a_runtime_folder_that_cannot_be_used_is_an_error_and_no_default() {
    let home = Home::new("");
    for variable in ["RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"] {
        for (value, why) in [
            ("run", "not an absolute path"),
            (":/tmp", "not an absolute path"),
            ("/nonexistent", "is not a folder"),
        ] {
            for (arguments, code) in [(["serve"], 2), (["status"], 3)] {
                let (found, complaint) = refusal(bare(&home, &arguments).env(variable, value));
                assert_eq!(found, code, "{variable}={value} {arguments:?}: {complaint}");
                assert!(complaint.contains(variable) && complaint.contains(why), "{complaint}");
            }
            let preview = bare(&home, &["preview", "--every", "1h"]).env(variable, value).output();
            assert!(preview.unwrap().status.success(), "a preview needs no daemon");
        }
    }
    let (code, complaint) = refusal(home.command(&["serve"]).env("STATE_DIRECTORY", "state"));
    assert_eq!(code, 2);
    assert!(
        complaint.contains("STATE_DIRECTORY: \"state\" is not an absolute path"),
        "{complaint}"
    );
    assert!(!home.socket().exists() && !home.path().join("punctual.db").exists());
}

#[tokio::test]
async fn a_socket_in_a_clients_way_is_used_only_if_root_or_the_client_owns_it() {
    let home = Home::new("");
    let daemon = home.start();
    let list = || bare(&home, &["list"]).output().unwrap();
    assert!(list().status.success(), "one's own socket in this folder is used");
    // Who listens there is asked of the kernel.
    let me = rustix::process::geteuid().as_raw();
    let only_of = |user| Client::new(home.socket()).of_users(Some(vec![user]));
    assert!(only_of(me).status().await.is_ok());
    let refused = only_of(me + 1).status().await.unwrap_err().to_string();
    assert!(refused.contains(&format!("it runs as user {me}")), "{refused}");
    if me != 0 {
        // Only root can give a file away.
        return;
    }
    std::os::unix::fs::chown(home.socket(), Some(65534), None).unwrap();
    let (code, complaint) = refusal(&mut bare(&home, &["list"]));
    assert_eq!(code, 3, "{complaint}");
    assert!(
        complaint.contains("belongs to user 65534") && complaint.contains("--socket"),
        "{complaint}"
    );
    assert!(bare(&home, &["--socket", "punctual.sock", "list"]).output().unwrap().status.success());
    // The runtime folder of a user is no better, that of a service is its own.
    let with =
        |variable| bare(&home, &["list"]).env(variable, home.path()).output().unwrap().status;
    assert_eq!(with("XDG_RUNTIME_DIR").code(), Some(3));
    assert!(with("RUNTIME_DIRECTORY").success());
    drop(daemon);
    // A file of somebody else does not choose the socket either.
    let trap = home.path().join("trap.sock");
    let _trap = UnixListener::bind(&trap).unwrap();
    home.write_config("[control]\nsocket = \"trap.sock\"\n");
    std::os::unix::fs::chown(home.path().join("jobs.toml"), Some(65534), None).unwrap();
    std::fs::remove_file(home.socket()).unwrap();
    let (_, complaint) = refusal(&mut bare(&home, &["list"]));
    assert!(!complaint.contains("trap.sock"), "{complaint}");
}

/// Runs its arguments where `/etc/punctual` and `/run/punctual` are the folders `etc` and `run` of the current folder.
const ON_A_MACHINE: &str = r#"
exec unshare --mount --propagation private /bin/sh -c '
    set -e
    mount -t tmpfs tmpfs /run
    mkdir /run/etc
    cp -a /etc/passwd /etc/group /etc/nsswitch.conf /etc/localtime /run/etc
    ln -s "$PWD/etc" /run/etc/punctual
    ln -s "$PWD/run" /run/punctual
    mount --bind /run/etc /etc
    exec "$@"' sh "$@""#;

/// A machine with nothing in the current folder; none where this user may not set one up.
fn machine() -> Option<Home> {
    let home = Home::new("").starting_by(ON_A_MACHINE);
    std::fs::remove_file(home.path().join("jobs.toml")).unwrap();
    for folder in ["etc", "run", "here"] {
        std::fs::create_dir(home.path().join(folder)).unwrap();
    }
    std::fs::set_permissions(home.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let is_possible = rustix::process::geteuid().is_root()
        && bare(&home, &["--version"]).output().is_ok_and(|output| output.status.success());
    if !is_possible {
        left_out("this user may not mount anything, so no other machine was made");
    }
    is_possible.then_some(home)
}

/// The program on that machine as the user `nobody`, without any groups.
fn as_nobody(home: &Home, arguments: &[&str]) -> Command {
    let words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", program()];
    let mut command = Command::new("/bin/sh");
    command.args(["-c", ON_A_MACHINE, "sh"]).args(words).args(arguments);
    command.current_dir(home.path()).env_remove("RUNTIME_DIRECTORY").env_remove("XDG_RUNTIME_DIR");
    command.env_remove("PUNCTUAL_SOCKET");
    command
}

/// A daemon on that machine, at the machine's own socket.
fn machine_daemon(home: &Home) -> Daemon {
    home.write_config("");
    let daemon = home.start_with(&["--socket", "run/punctual.sock"]);
    std::fs::remove_file(home.path().join("jobs.toml")).unwrap();
    daemon
}

#[test]
fn a_user_without_access_is_told_which_group_to_join() {
    let Some(home) = machine() else { return };
    let _daemon = machine_daemon(&home);
    let folder = home.path().join("run");
    let socket = folder.join("punctual.sock");
    let rights = |path: &Path, group: u32, mode: u32| {
        std::os::unix::fs::chown(path, Some(0), Some(group)).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    let denied = |advice: &str| {
        let (code, complaint) = refusal(&mut as_nobody(&home, &["list"]));
        let expected =
            format!("punctual: permission denied on /run/punctual/punctual.sock: {advice}\n");
        assert_eq!((code, complaint), (3, expected));
    };
    // The group 1 is `daemon` on every Debian machine.
    rights(&folder, 1, 0o750);
    denied("join group daemon (and log in again)");
    rights(&folder, 0, 0o755);
    rights(&socket, 1, 0o660);
    denied("join group daemon (and log in again)");
    rights(&socket, 0, 0o660);
    denied("ask its owner, user root, for access");
    rights(&socket, 1, 0o600);
    denied("ask its owner, user root, for access");
    rights(&folder, 54321, 0o750);
    denied("ask its owner, user root, for access");
    // Scripts get the same in JSON.
    let output = as_nobody(&home, &["list", "--json"]).output().unwrap();
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(error["error"]["code"], "permission_denied", "{error}");
    std::fs::write(home.path().join("etc/jobs.toml"), "").unwrap();
    let output = as_nobody(&home, &["check"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("permission denied on /run/"), "{said}");
}

#[test]
fn a_socket_that_is_foreign_or_none_does_not_hide_the_machines_daemon() {
    let Some(home) = machine() else { return };
    let _daemon = machine_daemon(&home);
    let finds = || bare(&home, &["list"]).output().unwrap();
    assert!(finds().status.success(), "nothing is in the way");
    let trap = UnixListener::bind(home.socket()).unwrap();
    std::os::unix::fs::chown(home.socket(), Some(65534), None).unwrap();
    assert!(finds().status.success(), "another user's socket is passed over");
    std::os::unix::fs::chown(home.socket(), Some(0), None).unwrap();
    drop(trap);
    let complaint = String::from_utf8(finds().stderr).unwrap();
    assert!(complaint.contains("no daemon answers at punctual.sock"), "{complaint}");
    std::fs::remove_file(home.socket()).unwrap();
    std::fs::write(home.socket(), "no socket").unwrap();
    assert!(finds().status.success(), "what is no socket is passed over");
}

#[test]
fn where_no_daemon_is_found_all_places_are_named() {
    let Some(home) = machine() else { return };
    let here = home.path().join("punctual.sock").display().to_string();
    let runtime = home.path().join("here");
    let own = runtime.join("punctual.sock").display().to_string();
    let list = |variable: Option<&str>| {
        let mut command = bare(&home, &["list"]);
        variable.map(|variable| command.env(variable, &runtime));
        refusal(&mut command)
    };
    let expected = |first: &str, others: &str| {
        let missing = "No such file or directory (os error 2)";
        let help = "is `punctual serve` running? --socket and PUNCTUAL_SOCKET choose another path";
        let said = format!("no daemon answers at {first}: {missing}, nor at {others} ({help})");
        (3, format!("punctual: {said}\n"))
    };
    let system = "/run/punctual/punctual.sock";
    assert_eq!(list(None), expected("punctual.sock", system));
    for variable in ["RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"] {
        assert_eq!(list(Some(variable)), expected(&own, &format!("{here} or {system}")));
    }
    // The machine's file names another place.
    let file = home.path().join("etc/jobs.toml");
    std::fs::write(file, "[control]\nsocket = \"/run/punctual/other.sock\"\n").unwrap();
    assert_eq!(list(None), expected("punctual.sock", "/run/punctual/other.sock"));
    // What is there but is not used is named, too.
    let _trap = UnixListener::bind(home.socket()).unwrap();
    std::os::unix::fs::chown(home.socket(), Some(65534), None).unwrap();
    let (_, complaint) = list(None);
    assert!(complaint.contains("belongs to user 65534"), "{complaint}");
    assert!(complaint.contains("; there is none at /run/punctual/other.sock"), "{complaint}");
}

#[test]
fn where_the_folder_has_no_file_the_machines_file_is_used() {
    let Some(home) = machine() else { return };
    let (code, complaint) = refusal(&mut bare(&home, &["check"]));
    assert_eq!(code, 2);
    assert!(complaint.starts_with("punctual: jobs.toml: cannot be read"), "{complaint}");
    let text = "[control]\nsocket = \"/run/punctual/other.sock\"\n[[jobs]]\nid = \"of-etc\"\n\
        trigger = { type = \"cron\", hour = 3 }\ntask = { type = \"builtin\", name = \"noop\" }\n";
    std::fs::write(home.path().join("etc/jobs.toml"), text).unwrap();
    let check = || String::from_utf8(bare(&home, &["check"]).output().unwrap().stdout).unwrap();
    assert!(check().starts_with("/etc/punctual/jobs.toml is valid: 1 job\n"), "{}", check());
    let mut daemon = bare(&home, &["serve"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(daemon.stderr.take().unwrap()).lines();
    let mut log: Vec<String> = Vec::new();
    while log.last().is_none_or(|line| !line.contains(" ready ")) {
        log.push(lines.next().unwrap().unwrap());
    }
    let read = "the configuration was read file=/etc/punctual/jobs.toml";
    assert!(log.iter().any(|line| line.contains(read)), "{log:#?}");
    // A client finds the socket that the file names, and the file of its own folder goes first.
    let list = bare(&home, &["list"]).output().unwrap();
    assert!(String::from_utf8(list.stdout).unwrap().contains("of-etc"));
    home.write_config("");
    assert!(check().starts_with("jobs.toml is valid: 0 jobs\n"), "{}", check());
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}
