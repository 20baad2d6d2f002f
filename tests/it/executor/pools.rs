//! The pools without a scheduler: what starting and cancelling a run does.

use std::path::{Path, PathBuf};

use punctual::clock::{Clock, SystemClock};
use punctual::executor::{Executor, MailSettings, Mailer};
use punctual::invalid::Invalid;
use punctual::run::{Outcome, RunId};
use punctual::task::builtin::{Args, BuiltinFunction, Call, Registry, TaskError};
use punctual::task::standard;
use serde_json::{Value, json};
use support::definitions::{builtin, shell};
use support::pools::Bench;
use support::{Home, PATIENCE};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

/// Sleeps as the builtin `sleep` does, and signals when it begins.
struct Nap {
    begun: mpsc::Sender<()>,
    standard: Registry,
}

impl BuiltinFunction for Nap {
    fn name(&self) -> &'static str {
        "nap"
    }

    fn check(&self, _: &Args) -> Result<(), Invalid> {
        Ok(())
    }

    fn run(&self, call: &Call) -> Result<Value, TaskError> {
        call.say("sleeping");
        self.begun.blocking_send(()).unwrap();
        self.standard.run("sleep", call)
    }
}

/// Never looks whether it is cancelled; ends when the test lets it.
struct Stubborn {
    begun: mpsc::Sender<()>,
    gate: std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
}

impl BuiltinFunction for Stubborn {
    fn name(&self) -> &'static str {
        "stubborn"
    }

    fn check(&self, _: &Args) -> Result<(), Invalid> {
        Ok(())
    }

    fn run(&self, _: &Call) -> Result<Value, TaskError> {
        self.begun.blocking_send(()).unwrap();
        self.gate.lock().unwrap().recv().unwrap();
        Ok(json!("done"))
    }
}

/// What the builtins `nap` and `stubborn` say, and wait for.
struct Builtins {
    begun: mpsc::Receiver<()>,
    gate: std::sync::mpsc::Sender<()>,
}

impl Builtins {
    async fn begun(&mut self) {
        tokio::time::timeout(PATIENCE, self.begun.recv()).await.expect("nothing began").unwrap();
    }
}

/// The pools `threads` and `processes` with the standard builtins, `nap` and `stubborn`.
fn bench() -> (Bench, Builtins) {
    let (begun_in, begun) = mpsc::channel(8);
    let (gate, gate_out) = std::sync::mpsc::channel();
    let mut standard = Registry::default();
    standard::register(&mut standard);
    let mut registry = standard.clone();
    registry.register(Nap { begun: begun_in.clone(), standard });
    registry.register(Stubborn { begun: begun_in, gate: gate_out.into() });
    (Bench::two_pools(registry), Builtins { begun, gate })
}

/// Held open by the processes that open it for writing, which shows when all of them are gone.
struct Held {
    path: PathBuf,
    receiver: pipe::Receiver,
}

impl Held {
    fn new(home: &Home) -> Self {
        let path = home.path().join("held");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from_raw_mode(0o600))
            .unwrap();
        let receiver = pipe::OpenOptions::new().open_receiver(&path).unwrap();
        Self { path, receiver }
    }

    /// Waits until no process holds it any more.
    async fn released(&mut self) {
        let mut buffer = [0];
        let reading = self.receiver.read(&mut buffer);
        let read = tokio::time::timeout(PATIENCE, reading).await.expect("a process is left over");
        assert_eq!(read.unwrap(), 0);
    }
}

/// A command that holds `held`, has a child of its own, signals that it is `ready`, and waits.
fn tree(preparation: &str, held: &Path, ready: &Path) -> Value {
    let (held, ready) = (held.display(), ready.display());
    shell(&format!(
        "{preparation}; exec 9> {held}; sleep 600 & echo before; echo ready > {ready}; wait; echo after"
    ))
}

fn cancelled(reason: &str) -> Outcome {
    Outcome::Cancelled { reason: reason.to_owned() }
}

#[tokio::test]
async fn a_command_that_is_cancelled_may_clean_up_and_is_cancelled_whatever_its_exit_code() {
    let home = Home::new("");
    let (mut held, mut ready) = (Held::new(&home), home.signal("ready"));
    let (mut bench, _) = bench();
    let polite = tree("trap 'echo cleaning up; exit 0' TERM", &held.path, &ready.path);
    let run = bench.start_in("processes", &polite);
    assert_eq!(ready.next().await, "ready");
    bench.pools.cancel(&run, "too slow");
    let completion = bench.ended().await;
    assert_eq!((completion.run_id, completion.outcome), (run, cancelled("too slow")));
    assert_eq!(completion.output.text(), "before\ncleaning up\n");
    held.released().await;
    bench.assert_nothing_more().await;
}

#[tokio::test]
async fn a_command_that_does_not_want_to_end_is_gone_with_all_its_children_and_its_output_is_kept()
{
    let home = Home::new("");
    let (mut held, mut ready) = (Held::new(&home), home.signal("ready"));
    let (mut bench, _) = bench();
    let run = bench.start_in("processes", &tree("trap '' TERM", &held.path, &ready.path));
    assert_eq!(ready.next().await, "ready");
    bench.pools.cancel(&run, "first");
    bench.pools.cancel(&run, "second");
    let completion = bench.ended().await;
    assert_eq!(completion.outcome, cancelled("first"));
    assert_eq!(completion.output.text(), "before\n");
    held.released().await;
    bench.assert_nothing_more().await;
}

#[tokio::test]
async fn a_command_that_writes_without_end_can_be_cancelled() {
    let home = Home::new("");
    let mut ready = home.signal("ready");
    let (mut bench, _) = bench();
    let flood = shell(&format!("echo ready > {}; exec yes", ready.path.display()));
    let run = bench.start_in("processes", &flood);
    assert_eq!(ready.next().await, "ready");
    bench.pools.cancel(&run, "enough");
    assert_eq!(bench.ended().await.outcome, cancelled("enough"));
    bench.assert_nothing_more().await;
}

#[tokio::test]
async fn a_stop_ends_a_command_and_reports_nothing() {
    let home = Home::new("");
    let (mut held, mut ready) = (Held::new(&home), home.signal("ready"));
    let (mut bench, _) = bench();
    bench.start_in("processes", &tree("true", &held.path, &ready.path));
    assert_eq!(ready.next().await, "ready");
    bench.assert_nothing_more().await;
    held.released().await;
}

#[tokio::test]
async fn a_run_that_is_cancelled_before_it_begins_never_begins() {
    let home = Home::new("");
    let mark = home.path().join("mark");
    let (mut bench, _) = bench();
    // No task is polled before this one waits.
    let run = bench.start_in("processes", &shell(&format!("touch {}", mark.display())));
    bench.pools.cancel(&run, "not now");
    assert_eq!(bench.ended().await.outcome, cancelled("not now"));
    assert!(!mark.exists());
    bench.assert_nothing_more().await;
}

#[tokio::test]
async fn a_sleep_on_a_thread_that_is_cancelled_ends_at_once_with_its_output() {
    let (mut bench, mut builtins) = bench();
    let run = bench.start_in("threads", &builtin("nap", json!({"seconds": 600})));
    builtins.begun().await;
    bench.pools.cancel(&run, "wake up");
    bench.pools.cancel(&run, "now");
    let completion = bench.ended().await;
    assert_eq!(completion.outcome, cancelled("wake up"));
    assert_eq!(completion.output.text(), "sleeping\n");
    bench.assert_nothing_more().await;
}

#[tokio::test]
async fn a_builtin_on_a_thread_that_does_not_look_goes_on_and_its_own_outcome_counts() {
    let (mut bench, mut builtins) = bench();
    let run = bench.start_in("threads", &builtin("stubborn", json!({})));
    builtins.begun().await;
    bench.pools.cancel(&run, "in vain");
    builtins.gate.send(()).unwrap();
    let done = Outcome::Succeeded { result: Some(json!("done")), exit_code: None };
    assert_eq!(bench.ended().await.outcome, done);
    bench.assert_nothing_more().await;
}

#[tokio::test]
async fn the_time_of_a_mail_begins_once_it_has_a_place() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let settings = MailSettings { server: "127.0.0.1".to_owned(), port, ..MailSettings::local() };
    let (mut bench, _) = bench();
    bench.pools = bench.pools.mailing(Mailer::new(settings));
    let mail = json!({"type": "mail", "to": ["ops@example.org"]});
    let runs = [(); 4].map(|()| bench.start_in("threads", &mail));
    // The server takes connections, and says nothing.
    let mut connections = vec![silent.accept().await.unwrap(), silent.accept().await.unwrap()];
    let before = SystemClock.now();
    bench.pools.cancel(&runs[3], "waits");
    let waited = bench.ended().await;
    assert_eq!((&waited.run_id, &waited.outcome), (&runs[3], &cancelled("waits")));
    assert!(waited.started_at >= before, "{waited:?}");
    bench.pools.cancel(&runs[0], "is sent");
    let first = bench.ended().await;
    assert_eq!((&first.run_id, &first.outcome), (&runs[0], &cancelled("is sent")));
    assert!(first.started_at <= before, "{first:?}");
    connections.push(silent.accept().await.unwrap());
    bench.pools.cancel(&runs[2], "is sent later");
    let third = bench.ended().await;
    assert_eq!(third.run_id, runs[2]);
    assert!(third.started_at >= first.finished_at, "{third:?}");
    bench.assert_nothing_more().await;
}

#[tokio::test]
async fn cancelling_what_has_ended_or_never_was_does_nothing_also_not_to_the_next_attempt() {
    let (mut bench, _) = bench();
    for (pool, task) in [
        ("threads", builtin("noop", json!({}))),
        ("processes", shell("true")),
        ("elsewhere", shell("true")),
    ] {
        let assignment = bench.assignment(&task);
        let run = assignment.run_id.clone();
        bench.pools.start(pool, assignment.clone());
        let ended = bench.ended().await.outcome;
        bench.pools.cancel(&run, "too late");
        bench.pools.cancel(&RunId("unknown".into()), "too early");
        bench.pools.start(pool, assignment);
        assert_eq!(bench.ended().await.outcome, ended, "{pool}");
    }
    bench.assert_nothing_more().await;
}

#[tokio::test]
async fn a_cancel_ends_its_run_only() {
    let (mut bench, mut builtins) = bench();
    let nap = builtin("nap", json!({"seconds": 600}));
    let first = bench.start_in("threads", &nap);
    let second = bench.start_in("threads", &nap);
    builtins.begun().await;
    builtins.begun().await;
    bench.pools.cancel(&second, "two");
    assert_eq!(bench.ended().await.outcome, cancelled("two"));
    bench.pools.cancel(&first, "one");
    assert_eq!(bench.ended().await.outcome, cancelled("one"));
    bench.assert_nothing_more().await;
}
