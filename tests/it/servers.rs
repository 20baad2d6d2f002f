//! The database servers that tests start: they are real, come back after a crash, and never stay.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use support::servers::mariadb::MariaDb;
use support::servers::postgres::Postgres;
use support::servers::{Kind, Server};

#[test]
fn postgres_comes_back_with_what_was_committed() {
    comes_back::<Postgres>("SHOW fsync", "on\n");
}

#[test]
fn mariadb_comes_back_with_what_was_committed() {
    comes_back::<MariaDb>("SELECT @@innodb_flush_log_at_trx_commit", "1\n");
}

/// Starts a server, which says that it is durable, and lets it crash.
fn comes_back<K: Kind>(question: &str, durable: &str) {
    let Some(server) = Server::<K>::start() else { return };
    assert_eq!(server.sql(K::DEFAULT, question), durable);
    let url = server.database("jobs");
    assert_eq!(url.replace("jobs", K::DEFAULT), server.url());
    server.sql("jobs", "CREATE TABLE kept (id int, name text)");
    server.sql("jobs", "INSERT INTO kept VALUES (1, 'é 🦀')");

    server.stop();
    TcpStream::connect(("127.0.0.1", server.port())).unwrap_err();
    server.start_again();
    assert_eq!(server.sql("jobs", "SELECT * FROM kept"), "1\té 🦀\n");

    let folder = server.folder().to_owned();
    drop(server);
    assert!(!folder.exists());
}

#[test]
fn nothing_stays_of_a_process_that_was_killed() {
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "servers::shares_servers_until_killed", "--ignored", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut said = Vec::new();
    loop {
        let line = lines.next().expect("the process failed");
        // The test harness may have begun the line.
        if line.ends_with("all started") {
            break;
        }
        said.extend(line.split_once("server ").map(|(_, rest)| rest.to_owned()));
    }

    let mut processes = Vec::new();
    let mut folders = Vec::new();
    for line in &said {
        let [shell, keeper, folder] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        watch(shell, &mut processes);
        watch(keeper, &mut processes);
        assert!(Path::new(folder).exists());
        folders.push(folder);
    }
    // Two shells and a server, at the least.
    assert!(processes.len() >= 3 * said.len());

    process.kill().unwrap();
    process.wait().unwrap();
    let minute = Timespec { tv_sec: 60, tv_nsec: 0 };
    for process in &processes {
        let mut ended = [PollFd::new(process, PollFlags::IN)];
        assert_eq!(poll(&mut ended, Some(&minute)).unwrap(), 1, "a process stayed");
    }
    assert!(folders.iter().all(|folder| !Path::new(folder).exists()));
}

/// Handles of a process and of all its descendants, to wait for the end of each.
fn watch(process: &str, found: &mut Vec<OwnedFd>) {
    let pid = Pid::from_raw(process.parse().unwrap()).unwrap();
    let children = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    // A server's helper may have come and gone.
    let (Ok(handle), Ok(children)) = (pidfd_open(pid, PidfdFlags::empty()), children) else {
        return;
    };
    found.push(handle);
    for child in children.split_whitespace() {
        watch(child, found);
    }
}

#[test]
#[ignore = "a process for the test above to kill"]
fn shares_servers_until_killed() {
    announce::<Postgres>();
    announce::<MariaDb>();
    println!("all started");
    // Also ends with the test above, should that not come to kill it.
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// Takes the shared server, and prints how to watch it.
fn announce<K: Kind>() {
    if let Some(server) = Server::<K>::shared() {
        let [shell, keeper] = server.shells();
        println!("server {shell} {keeper} {}", server.folder().display());
        assert!(std::ptr::eq(server, Server::<K>::shared().unwrap()));
    }
}
