//! A database that fails under a running daemon and comes back: clients get errors meanwhile, and work resumes by itself.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use chrono::TimeDelta;
use punctual::client::{Client, ClientError};
use punctual::clock::{Clock, SystemClock};
use serde_json::{Value, json};
use sqlx::Connection;
use support::audit::{check_end, settle, tick};
use support::load::{Book, Caller, Random, Shift, noted, once, seed};
use support::raw::Raw;
use support::servers::mariadb::MariaDb;
use support::servers::postgres::Postgres;
use support::servers::{Kind, Server};
use support::{Daemon, Home, Signal, text};

/// How long callers call before the database goes, and after it is back.
const WORK_MILLIS: u64 = 300;

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_goes_away_and_comes_back_delays_and_nothing_more() {
    goes_away::<Postgres>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mariadb_that_goes_away_and_comes_back_delays_and_nothing_more() {
    goes_away::<MariaDb>().await;
}

/// A command that says what happens to it, and ends when something is written to a pipe.
struct Work {
    says: Signal,
    gate: PathBuf,
    run: String,
}

impl Work {
    async fn begin(home: &Home) -> Self {
        let mut says = home.signal("says");
        let gate = home.signal("gate").path;
        let (path, open) = (says.path.display(), gate.display());
        // The shell waits for its child, and hears a signal meanwhile.
        let script = format!(
            "trap 'echo term > {path}; exit 9' TERM; echo begun > {path}; \
             cat {open} >/dev/null & wait $!; echo ended > {path}"
        );
        let job = json!({
            "id": "work", "trigger": {"type": "date", "run_date": "2100-01-01 00:00:00"},
            "task": {"type": "command", "argv": ["/bin/sh", "-c", script]},
        });
        let client = home.client();
        client.add(&job).await.unwrap();
        let run = text(&client.run("work").await.unwrap(), "id").to_owned();
        assert_eq!(says.next().await, "begun");
        Self { says, gate, run }
    }

    /// Lets it end by itself, and waits until it has.
    async fn finish(&mut self) {
        std::fs::write(&self.gate, "").unwrap();
        assert_eq!(self.says.next().await, "ended");
    }

    async fn check(&self, client: &Client, expected: (&str, i64)) {
        let run = client.run_by_id(&self.run).await.unwrap();
        assert_eq!((text(&run, "state"), run["attempt"].as_i64().unwrap()), expected, "{run}");
    }
}

/// Waits until the daemon has noticed that its store is away.
async fn noticed(client: &Client) {
    while refused(client.ready().await).is_none() {
        drop(client.pause("work").await);
    }
}

/// The lines of the log that are warnings or errors.
fn complaints(home: &Home) -> Vec<String> {
    let log = std::fs::read_to_string(home.log()).unwrap();
    let complains = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ");
    log.lines().filter(complains).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_without_its_postgres_ends_commands_in_order_and_is_no_failure() {
    let Some(server) = Server::<Postgres>::start() else { return };
    let home = draining(1, &format!("[store]\nurl = \"{}\"\nlease_seconds = 3\n", server.url()));
    stops_without_store(&home, |_| server.stop(), || server.start_again()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_on_a_full_disk_ends_commands_in_order_and_is_no_failure() {
    let home = draining(1, "");
    stops_without_store(&home, |daemon| limit(daemon, "4096"), || {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_whose_postgres_hangs_ends_commands_in_order_and_is_no_failure() {
    let Some(server) = Server::<Postgres>::start() else { return };
    let home = draining(1, &format!("[store]\nurl = \"{}\"\nlease_seconds = 3\n", server.url()));
    let daemon = home.start();
    let mut work = Work::begin(&home).await;
    let frozen = Frozen::new(&server);
    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(work.says.next().await, "term");
    assert!(daemon.ended().success());
    let told = complaints(&home);
    assert!(told.iter().any(|line| line.contains("could not be recorded")), "{told:#?}");
    drop(frozen);
    is_rerun(&home, work).await;
}

/// A node of this machine that is gone has died, also where the store is shared.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_kills_its_daemon_is_lost_after_three_deaths_on_postgres_too() {
    let Some(server) = Server::<Postgres>::start() else { return };
    let home = Home::new(&format!("[store]\nurl = \"{}\"\nlease_seconds = 3\n", server.url()));
    let client = home.client();
    let daemon = home.start();
    let script = "kill -9 $PPID; sleep 60";
    home.ok(&["add", "poison", "--at", "2100-01-01T00:00:00Z", "--shell", "--", script]);
    // It may be gone before it answers.
    drop(client.run("poison").await);
    assert_eq!(daemon.ended().code(), None);
    for _ in 0..2 {
        assert_eq!(home.spawn(&[]).ended().code(), None);
    }
    let daemon = home.start();
    let run = support::ledger(&client, "poison").await.remove(0);
    let run = support::ended(&client, text(&run, "id")).await;
    assert_eq!(text(&run, "error"), "the daemon died 3 times while it ran", "{run}");
    assert_eq!(run["attempt"], 3);
    assert!(daemon.stop().success());
}

fn draining(seconds: u32, more: &str) -> Home {
    Home::new(&format!("[scheduler]\ndrain_seconds = {seconds}\n{more}"))
}

async fn stops_without_store(
    home: &Home,
    take_away: impl FnOnce(&Daemon),
    give_back: impl FnOnce(),
) {
    let daemon = home.start();
    let mut work = Work::begin(home).await;
    take_away(&daemon);
    noticed(&home.client()).await;
    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(work.says.next().await, "term");
    assert!(daemon.ended().success(), "a stop that ends everything in order has not failed");
    let told = complaints(home);
    let said = |text: &str| told.iter().filter(|line| line.contains(text)).count();
    assert_eq!(said("the store failed; trying again"), 1, "{told:#?}");
    assert_eq!(said("could not be recorded before the daemon stopped"), 1, "{told:#?}");
    assert_eq!(told.len(), 2, "{told:#?}");
    give_back();
    is_rerun(home, work).await;
}

/// The next daemon finds a run whose interruption was not recorded.
async fn is_rerun(home: &Home, mut work: Work) {
    let daemon = home.start();
    assert_eq!(work.says.next().await, "begun");
    work.finish().await;
    support::ended(&home.client(), &work.run).await;
    work.check(&home.client(), ("succeeded", 2)).await;
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_end_while_a_stop_waits_for_the_store_are_recorded_once_it_is_back() {
    let Some(server) = Server::<Postgres>::start() else { return };
    let home = draining(300, &format!("[store]\nurl = \"{}\"\n", server.url()));
    let mut daemon = home.start();
    let mut work = Work::begin(&home).await;
    server.stop();
    noticed(&home.client()).await;
    daemon.signal(rustix::process::Signal::TERM);
    daemon.wait_for("STOPPING=1");
    work.finish().await;
    server.start_again();
    assert!(daemon.ended().success());
    let told = complaints(&home);
    assert_eq!(told.len(), 1, "only that the store failed: {told:#?}");
    let daemon = home.start();
    work.check(&home.client(), ("succeeded", 1)).await;
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_daemon_does_not_wait_for_a_store_that_is_away() {
    let Some(server) = Server::<Postgres>::start() else { return };
    let home = draining(3600, &format!("[store]\nurl = \"{}\"\n", server.url()));
    let daemon = home.start();
    home.client().ready().await.unwrap();
    server.stop();
    assert!(daemon.stop().success());
    let told = complaints(&home);
    assert!(
        told.iter().any(|line| line.contains("the ends of all runs are recorded")),
        "{told:#?}"
    );
}

/// A server whose processes stand still: it takes connections, and answers nothing. Dropping this lets it go on.
struct Frozen(Vec<rustix::process::Pid>);

impl Frozen {
    fn new(server: &Server<Postgres>) -> Self {
        let file = server.folder().join("data/postmaster.pid");
        let first = std::fs::read_to_string(file).unwrap();
        let first = first.lines().next().unwrap().to_owned();
        let pid = |text: &str| rustix::process::Pid::from_raw(text.parse().unwrap()).unwrap();
        let mut frozen = Self(vec![pid(&first)]);
        frozen.signal(rustix::process::Signal::STOP);
        // Once it stands still it starts no other process.
        let stat = || std::fs::read_to_string(format!("/proc/{first}/stat")).unwrap();
        while !stat().contains(") T ") {}
        let children = std::fs::read_to_string(format!("/proc/{first}/task/{first}/children"));
        frozen.0.extend(children.unwrap().split_whitespace().map(pid));
        frozen.signal(rustix::process::Signal::STOP);
        frozen
    }

    fn signal(&self, signal: rustix::process::Signal) {
        for pid in &self.0 {
            // One of its helpers may have ended meanwhile.
            let _sent = rustix::process::kill_process(*pid, signal);
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.signal(rustix::process::Signal::CONT);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_whose_scheduler_is_blocked_is_not_ready_until_it_goes_on() {
    let Some(server) = Server::<Postgres>::start() else { return };
    let mut home = Home::new(&format!("[store]\nurl = \"{}\"\n", server.url()));
    home.set("WATCHDOG_USEC", "1000000");
    let mut daemon = home.start();
    let client = home.client();
    client.ready().await.unwrap();
    // A step waits for this lock; readers do not.
    let mut other = sqlx::PgConnection::connect(&server.url()).await.unwrap();
    let mut locked = other.begin().await.unwrap();
    sqlx::query("lock table jobs in exclusive mode").execute(&mut *locked).await.unwrap();
    let file = home.path().join("ran.txt");
    let waiting = once("waiting", SystemClock.now(), &file);
    let add = client.add(&waiting);
    let watch = async {
        let mut ready = Ok(Value::Null);
        while ready.is_ok() {
            client.jobs("").await.unwrap();
            ready = client.ready().await;
        }
        let refusal = ready.unwrap_err();
        // A restart would not help: the scheduler waits for the store, and does not hang.
        let health = Raw::connect(&home.socket()).ask("GET", "/healthz", b"").unwrap();
        assert_eq!(health.status, 200);
        let status = client.status().await.unwrap();
        assert_eq!(status["not_ready"]["reason"], "store", "{status}");
        assert_eq!(status["health"]["reasons"][0]["reason"], "store", "{status}");
        daemon.told("");
        for _ in 0..4 {
            daemon.wait_for("WATCHDOG=1");
        }
        locked.rollback().await.unwrap();
        refusal
    };
    let (added, refusal) = tokio::join!(add, watch);
    added.unwrap();
    let ClientError::Refused { status, message, .. } = refusal else { panic!("{refusal}") };
    assert_eq!(status, 503);
    assert!(message.contains("has not made a step for"), "{message}");
    client.ready().await.unwrap();
    assert!(daemon.stop().success());
}

/// Sessions that are opened while the server is read-only stay so: a daemon must not stay with one.
#[tokio::test]
async fn a_postgres_that_was_read_only_for_a_while_is_written_again() {
    let Some(server) = Server::<Postgres>::start() else { return };
    let set = |change: &str| {
        server.sql("template1", &format!("alter database postgres {change}"));
    };
    let of_the_daemon = "from pg_stat_activity where datname = 'postgres'";
    read_only(
        &server,
        || {
            set("set default_transaction_read_only = on");
            server.sql("template1", &format!("select pg_terminate_backend(pid) {of_the_daemon}"));
        },
        || set("reset default_transaction_read_only"),
        |since| {
            let old = format!("select count(*) {of_the_daemon} and backend_start < '{since}'");
            server.sql("template1", &old).trim() == "0"
        },
    )
    .await;
}

#[tokio::test]
async fn a_mariadb_that_was_read_only_for_a_while_is_written_again() {
    let Some(server) = Server::<MariaDb>::start() else { return };
    // The clients of the test are in another database: one that has just ended could not be killed any more.
    let other = "information_schema";
    let kill = format!(
        "select concat('kill ', id, ';') from information_schema.processlist where db = '{}'",
        MariaDb::DEFAULT
    );
    read_only(
        &server,
        || {
            server.sql(other, "set global tx_read_only = 1");
            let kill = server.sql(other, &kill);
            server.sql(other, &kill);
        },
        || {
            server.sql(other, "set global tx_read_only = 0");
        },
        |_| true,
    )
    .await;
}

/// Makes a server read-only for new sessions, with all others ended, and writable again. `are_renewed` tells whether
/// no session is left that is older than an instant.
async fn read_only<K: Kind>(
    server: &Server<K>,
    take_away: impl Fn(),
    give_back: impl Fn(),
    are_renewed: impl Fn(&str) -> bool,
) {
    let home = Home::new(&format!("[store]\nurl = \"{}\"\n", server.url()));
    let daemon = home.start();
    let (client, file) = (home.client(), home.path().join("ran.txt"));
    let later = SystemClock.now() + TimeDelta::days(1);
    client.jobs("").await.unwrap();
    take_away();
    let read_only = async {
        loop {
            let message = refused(client.ready().await).unwrap_or_default().to_lowercase();
            if message.contains("read-only") || message.contains("read only") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(support::PATIENCE, read_only).await.unwrap();
    // A reader gets a session, too.
    client.jobs("").await.unwrap();
    give_back();
    let since = server.sql(K::DEFAULT, "select now()");
    let writable = async {
        while refused(client.ready().await).is_some() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(support::PATIENCE, writable).await.unwrap();
    client.add(&once("after", later, &file)).await.unwrap();
    client.jobs("").await.unwrap();
    let renewed = async {
        while !are_renewed(since.trim()) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(support::PATIENCE, renewed).await.unwrap();
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_sqlite_refuses_stops_nothing() {
    let home = Home::new("");
    let refuse = async |home: &Home| {
        let options =
            sqlx::sqlite::SqliteConnectOptions::new().filename(home.path().join("punctual.db"));
        let mut other = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
        for (table, column, when) in
            [("runs", "error", "update"), ("jobs", "description", "insert")]
        {
            let trigger = format!(
                "create trigger refuse_{table} before {when} on {table} when new.{column} = 'poison' \
                 begin select raise(abort, 'it is refused'); end"
            );
            sqlx::query(sqlx::AssertSqlSafe(trigger)).execute(&mut other).await.unwrap();
        }
    };
    refuses_a_text(&home, refuse).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_postgres_refuses_stops_nothing() {
    refused_by::<Postgres>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_mariadb_refuses_stops_nothing() {
    refused_by::<MariaDb>().await;
}

async fn refused_by<K: Kind>() {
    let Some(server) = Server::<K>::start() else { return };
    let home = Home::new(&format!("[store]\nurl = \"{}\"\n", server.database("poison")));
    let refuse = async |_: &Home| {
        for (table, column) in [("runs", "error"), ("jobs", "description")] {
            let check = format!("check ({column} <> 'poison')");
            server.sql(
                "poison",
                &format!("alter table {table} add constraint refuse_{table} {check}"),
            );
        }
    };
    refuses_a_text(&home, refuse).await;
}

/// A database that refuses a text: its sender gets an error, the end of a run is recorded, and everything else goes on.
async fn refuses_a_text(home: &Home, refuse: impl AsyncFn(&Home)) {
    let daemon = home.start();
    let client = home.client();
    refuse(home).await;
    let mut signal = home.signal("ticks");
    let job = |id: &str, task: Value, trigger: Value, description: &str| serde_json::json!({"id": id, "task": task, "trigger": trigger, "description": description});
    let every = || serde_json::json!({"type": "interval", "seconds": 1});
    let sleep = serde_json::json!({"type": "command", "argv": ["/bin/sleep", "600"]});
    let never = serde_json::json!({"type": "date", "run_date": "2100-01-01 00:00:00"});
    let jobs = [
        job("tick", signal.shell("tick"), every(), ""),
        job("refused", sleep.clone(), never.clone(), "poison"),
        job("sleeps", sleep, never, ""),
    ];
    let answer = client.add_all(&jobs).await.unwrap();
    let statuses: Vec<&str> =
        answer["results"].as_array().unwrap().iter().map(|job| text(job, "status")).collect();
    assert_eq!(statuses, ["added", "error", "added"], "{answer}");
    assert_eq!(answer["results"][1]["error"]["code"], "rejected", "{answer}");
    let ClientError::Refused { status, .. } = client.add(&jobs[1]).await.unwrap_err() else {
        panic!("a text was taken that the database refuses");
    };
    assert_eq!(status, 422);
    signal.next().await;
    let run = client.run("sleeps").await.unwrap();
    client.cancel(text(&run, "id"), Some("poison")).await.unwrap();
    let ended = client.wait(text(&run, "id"), 60).await.unwrap();
    assert_eq!(text(&ended, "state"), "cancelled", "{ended}");
    assert!(text(&ended, "error").starts_with("the database refused"), "{ended}");
    for _ in 0..2 {
        signal.next().await;
    }
    client.ready().await.unwrap();
    assert!(daemon.stop().success());
}

/// Stops a server under load, and starts it again.
async fn goes_away<K: Kind>() {
    let Some(server) = Server::<K>::start() else { return };
    let home = Home::new(&format!("[store]\nurl = \"{}\"\n", server.url()));
    outage(&home, |_| server.stop(), |_| server.start_again()).await;
}

/// No file of the daemon may grow beyond this: as on a full disk, small ones can still be written.
fn limit(daemon: &Daemon, bytes: &str) {
    set_limit(daemon, &format!("--fsize={bytes}:unlimited"));
}

/// As the user of the daemon: not every root may change the limits of other users.
fn set_limit(daemon: &Daemon, limit: &str) {
    let pid = daemon.pid().as_raw_nonzero();
    let user = std::fs::metadata(format!("/proc/{pid}")).unwrap().uid();
    let mut prlimit = Command::new("prlimit");
    prlimit.args([&format!("--pid={pid}"), limit]).uid(user).gid(user);
    assert!(prlimit.status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_not_forgotten_while_there_is_nothing_to_write() {
    let home = Home::new("");
    let daemon = home.start();
    let (client, file) = (home.client(), home.path().join("ran.txt"));
    let later = SystemClock.now() + TimeDelta::days(1);
    limit(&daemon, "4096");
    // Its first pages may still find room in a file that is there.
    let mut number = 0;
    while refused(client.add(&once(&format!("job-{number}"), later, &file)).await).is_none() {
        number += 1;
    }
    // Reading works all the time, for longer than the daemon waits before it tries again.
    let since = SystemClock.now();
    while SystemClock.now() - since < TimeDelta::seconds(1) {
        assert!(refused(client.ready().await).is_some());
        client.jobs("").await.unwrap();
    }
    limit(&daemon, "unlimited");
    while refused(client.ready().await).is_some() {
        client.jobs("").await.unwrap();
    }
    client.add(&once("after", later, &file)).await.unwrap();
    assert!(daemon.stop().success());
    log_tells_once(&home);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_delays_and_nothing_more() {
    let home = Home::new("");
    outage(&home, |daemon| limit(daemon, "65536"), |daemon| limit(daemon, "unlimited")).await;
}

/// A folder whose daemons are not root: where the tests run as root, the daemons run as a user that no other process has.
fn unprivileged() -> Home {
    if !rustix::process::geteuid().is_root() {
        return Home::new("");
    }
    let user = 61_000 + std::process::id() % 4000;
    let change = format!("--reuid={user} --regid={user} --clear-groups");
    let home = Home::new("").starting_by(&format!("exec setpriv {change} \"$@\""));
    std::os::unix::fs::chown(home.path(), Some(user), Some(user)).unwrap();
    home
}

fn set_mode(home: &Home, mode: u32) {
    let file = home.path().join("punctual.db");
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn a_file_that_cannot_be_written_ends_the_start() {
    let home = unprivileged();
    assert!(home.start().stop().success());
    set_mode(&home, 0o444);
    assert_eq!(home.spawn(&[]).ended().code(), Some(2));
    let log = std::fs::read_to_string(home.log()).unwrap();
    assert!(log.contains("punctual.db: Permission denied"), "{log}");
    set_mode(&home, 0o644);
    assert!(home.start().stop().success());
}

#[tokio::test]
async fn a_file_that_was_read_only_for_a_while_is_written_again() {
    let home = unprivileged();
    let daemon = home.start();
    let (client, file) = (home.client(), home.path().join("ran.txt"));
    let later = SystemClock.now() + TimeDelta::days(1);
    // The fault makes the daemon open the file again, which it may only read now.
    set_mode(&home, 0o444);
    limit(&daemon, "4096");
    let mut number = 0;
    while refused(client.add(&once(&format!("job-{number}"), later, &file)).await).is_none() {
        number += 1;
    }
    limit(&daemon, "unlimited");
    let message = refused(client.add(&once("other", later, &file)).await).unwrap();
    assert!(message.contains("cannot be written, only read"), "{message}");
    assert!(refused(client.ready().await).is_some());
    client.jobs("").await.unwrap();
    set_mode(&home, 0o644);
    while refused(client.ready().await).is_some() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    client.add(&once("after", later, &file)).await.unwrap();
    assert!(daemon.stop().success());
    log_tells_once(&home);
}

#[tokio::test]
async fn new_files_of_a_store_are_not_for_everybody_whatever_the_umask() {
    let home = Home::new("").starting_by("umask 0; exec \"$@\"");
    let daemon = home.start();
    home.client().add(&once("a", SystemClock.now(), &home.path().join("ran"))).await.unwrap();
    let names = ["punctual.db", "punctual.db-wal", "punctual.db-shm"];
    for name in names {
        let mode = home.path().join(name).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o137, 0, "{name}: {mode:o}");
    }
    assert!(daemon.stop().success());
}

#[tokio::test]
async fn a_database_file_that_is_removed_is_noticed_at_once_and_nothing_is_acknowledged() {
    let home = Home::new("");
    let mut daemon = home.start();
    let (client, file) = (home.client(), home.path().join("ran.txt"));
    let later = SystemClock.now() + TimeDelta::days(1);
    client.add(&once("before", later, &file)).await.unwrap();
    client.ready().await.unwrap();
    for name in ["punctual.db", "punctual.db-wal", "punctual.db-shm"] {
        std::fs::remove_file(home.path().join(name)).unwrap();
    }
    // Nobody asks for anything that would touch the file.
    while refused(client.ready().await).is_none() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for refusal in [
        client.ready().await,
        client.add(&once("after", later, &file)).await,
        client.jobs("").await,
    ] {
        let message = refused(refusal).unwrap();
        assert!(message.contains("punctual.db was removed or renamed"), "{message}");
    }
    daemon.signal(rustix::process::Signal::TERM);
    daemon.wait_for("STOPPING=1");
    assert_eq!(daemon.ended().code(), Some(1));
    let log = std::fs::read_to_string(home.log()).unwrap();
    let errors = log.lines().filter(|line| line.contains("ERROR")).collect::<Vec<_>>();
    assert_eq!(errors.len(), 1, "{log}");
    assert!(errors[0].contains("punctual.db was removed or renamed"), "{log}");
}

#[tokio::test]
async fn a_backup_that_replaces_the_file_under_the_daemon_is_left_as_it_is() {
    let home = Home::new("");
    let daemon = home.start();
    let (client, file) = (home.client(), home.path().join("ran.txt"));
    let later = SystemClock.now() + TimeDelta::days(1);
    client.add(&once("kept", later, &file)).await.unwrap();
    assert!(daemon.stop().success());
    let [database, backup] = ["punctual.db", "backup.db"].map(|name| home.path().join(name));
    std::fs::copy(&database, &backup).unwrap();
    let daemon = home.start();
    client.add(&once("before", later, &file)).await.unwrap();
    std::fs::rename(&backup, &database).unwrap();
    let message = refused(client.add(&once("after", later, &file)).await).unwrap();
    assert!(message.contains("was replaced by another file"), "{message}");
    assert_eq!(daemon.stop().code(), Some(1));
    let daemon = home.start();
    assert_eq!(client.jobs("").await.unwrap()["jobs"].as_array().unwrap().len(), 1);
    assert!(daemon.stop().success());
}

#[tokio::test]
async fn a_second_daemon_on_a_file_is_refused_by_any_name_and_disturbs_nothing() {
    let home = Home::new("");
    let daemon = home.start();
    let mut signal = home.signal("ran");
    let client = home.client();
    let gate = home.signal("gate");
    let script =
        format!("echo started > {}; read line < {}", signal.path.display(), gate.path.display());
    let job = json!({
        "id": "long",
        "trigger": {"type": "date", "run_date": "2020-01-01 00:00:00", "timezone": "UTC"},
        "task": {"type": "command", "argv": ["/bin/sh", "-c", script]},
    });
    client.add(&job).await.unwrap();
    assert_eq!(signal.next().await, "started");
    let other = Home::new("[store]\nurl = \"sqlite://link.db\"\n");
    let database = home.path().join("punctual.db");
    std::os::unix::fs::symlink(&database, other.path().join("link.db")).unwrap();
    for attempt in 0..2 {
        if attempt == 1 {
            // What people do about a stale lock.
            drop(std::fs::remove_file(home.path().join("punctual.db.lock")));
            other.write_config(&format!("[store]\nurl = \"sqlite://{}\"\n", database.display()));
        }
        assert_eq!(other.spawn(&[]).ended().code(), Some(1));
    }
    let log = std::fs::read_to_string(other.log()).unwrap();
    let holder = format!("in use by another daemon (process {})", daemon.pid().as_raw_nonzero());
    assert_eq!(log.matches(&holder).count(), 2, "{log}");
    std::fs::write(&gate.path, "go\n").unwrap();
    let run = &support::ledger(&client, "long").await[0];
    let run = support::ended(&client, text(run, "id")).await;
    assert_eq!((text(&run, "state"), run["attempt"].as_i64()), ("succeeded", Some(1)));
    assert!(daemon.stop().success());
}

#[tokio::test]
async fn reading_needs_no_new_thread_and_works_during_a_shortage_of_them() {
    let home = unprivileged();
    let daemon = home.start();
    let (client, file) = (home.client(), home.path().join("ran.txt"));
    let later = SystemClock.now() + TimeDelta::days(1);
    client.add(&once("a", later, &file)).await.unwrap();
    // Not one more thread or process of this user.
    set_limit(&daemon, "--nproc=1:");
    for _ in 0..8 {
        client.jobs("").await.unwrap();
        client.job("a").await.unwrap();
        client.status().await.unwrap();
    }
    set_limit(&daemon, "--nproc=500:");
    client.jobs("").await.unwrap();
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_lock_that_a_shell_holds_for_a_moment_delays_and_nobody_is_refused() {
    let home = Home::new("");
    let daemon = home.start();
    let (client, file) = (home.client(), home.path().join("ran.txt"));
    let options =
        sqlx::sqlite::SqliteConnectOptions::new().filename(home.path().join("punctual.db"));
    let mut shell = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query("begin immediate").execute(&mut shell).await.unwrap();
    let waiting = once("waiting", SystemClock.now(), &file);
    let add = client.add(&waiting);
    let release = async {
        // The scheduler waits for the lock, and readers wait for neither.
        for _ in 0..20 {
            let refusal = client.job("waiting").await.unwrap_err();
            assert!(refusal.is_not_found(), "{refusal}");
        }
        sqlx::query("rollback").execute(&mut shell).await.unwrap();
    };
    let (added, ()) = tokio::join!(add, release);
    assert_eq!(text(&added.unwrap(), "state"), "active");
    client.ready().await.unwrap();
    settle(&client, &mut home.signal("pulse")).await;
    assert_eq!(support::ledger(&client, "waiting").await.len(), 1);
    assert!(daemon.stop().success());
    assert!(!std::fs::read_to_string(home.log()).unwrap().contains("ERROR"));
}

/// Takes the database away under load and gives it back.
async fn outage(home: &Home, take_away: impl Fn(&Daemon), give_back: impl Fn(&Daemon)) {
    let daemon = home.start();
    let (client, file) = (home.client(), home.path().join("ran.txt"));
    let (mut book, mut random) = (Book::default(), Random(seed()));
    let mut pulse = home.signal("pulse");
    client.add(&tick(&noted(&file))).await.unwrap();
    let callers = (1..=3).map(|number| {
        Caller::new(format!("caller-{number}"), Random(seed() + number), file.clone())
    });
    let mut shift = Shift::begin(callers.collect(), &[home.client()]);
    shift.go_on_for(random.millis(WORK_MILLIS), &mut book).await;
    // It falls due while the database is away.
    let due = SystemClock.now() + TimeDelta::milliseconds(500);
    client.add(&once("due", due, &file)).await.unwrap();
    take_away(&daemon);
    while refused(client.ready().await).is_none() {
        assert!(shift.next(&mut book).await);
    }
    everybody_is_told(home, &client).await;
    while SystemClock.now() < due {
        assert!(shift.next(&mut book).await);
    }
    give_back(&daemon);
    while refused(client.ready().await).is_some() {
        assert!(shift.next(&mut book).await);
    }
    shift.go_on_for(random.millis(WORK_MILLIS), &mut book).await;
    shift.end(&mut book).await;
    client.pause("tick").await.unwrap();
    settle(&client, &mut pulse).await;
    check_end(&client, &book, &file).await;
    let rows = support::ledger(&client, "due").await;
    assert_eq!((rows.len(), text(&rows[0], "state")), (1, "succeeded"));
    assert_eq!(client.status().await.unwrap()["store_error"], Value::Null);
    assert!(daemon.stop().success());
    log_tells_once(home);
}

/// Why the daemon refused, if it did so because of its store.
fn refused(answer: Result<Value, ClientError>) -> Option<String> {
    match answer {
        Ok(_) => None,
        Err(ClientError::Refused { status: 503, message, .. }) => Some(message),
        Err(error) => panic!("{error}"),
    }
}

/// Requests, the probe and the status say that the store is away.
async fn everybody_is_told(home: &Home, client: &Client) {
    for answer in [client.pause_all().await, client.ready().await] {
        let message = refused(answer).unwrap();
        assert!(message.starts_with("the store is unavailable: "), "{message}");
    }
    let shown = home.run(&["status"]);
    assert_eq!(shown.status.code(), Some(1), "{shown:?}");
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(
        shown.contains("degraded\n") && shown.contains("the store is unavailable: "),
        "{shown}"
    );
    let status = client.status().await.unwrap();
    assert_eq!(status["health"]["reasons"][0]["reason"], "store", "{status}");
    assert!(text(&status, "store_error").starts_with("the store is unavailable: "), "{status}");
}

/// One line for the loss and one for the return, however long it lasts and however many ask.
fn log_tells_once(home: &Home) {
    let log = std::fs::read_to_string(home.log()).unwrap();
    let told: Vec<&str> = log.lines().filter(|line| !line.contains(" INFO skipped ")).collect();
    let said = |text: &str| told.iter().filter(|line| line.contains(text)).count();
    assert_eq!(said("the store failed; trying again"), 1, "{told:#?}");
    assert_eq!(said("the store can be used again"), 1, "{told:#?}");
    assert_eq!(said("WARN"), 0, "{told:#?}");
    assert_eq!(said("ERROR"), 1, "{told:#?}");
}
