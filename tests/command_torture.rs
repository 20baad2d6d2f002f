//! Commands that do what they should not: none of them breaks or blocks the pool, or leaves anything behind.
//!
//! A program of its own, because each test counts the open files and the memory of its whole process, one test at a time.
//! `tests/run.sh` runs it once more with the commands in cgroups.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on panics"
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use punctual::executor::kill_orphans;
use punctual::run::{Execution, Outcome};
use serde_json::{Value, json};
use support::commands::{cancelled, living, open_files, resident, shell};
use support::definitions::with;
use support::pools::{Bench, Failure};
use support::{Home, PATIENCE, is_root, left_out};
use tokio::sync::{Mutex, MutexGuard};

/// Open files and memory are those of the process: one test at a time counts them.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Memory that may come and go while a gigabyte passes through.
const MEMORY_NOISE: u64 = 32 << 20;

/// A start of a worker process, which fails here, and the end of an output that was left by the test before have some
/// files open for less than this.
const MOMENT: std::time::Duration = std::time::Duration::from_millis(200);

/// The files that are open for longer than a moment.
fn settled_open_files() -> usize {
    let (begun, mut least) = (tokio::time::Instant::now(), open_files());
    while begun.elapsed() < MOMENT {
        least = least.min(open_files());
        std::thread::yield_now();
    }
    least
}

/// A bench in a folder, and what was there before.
struct Torture {
    bench: Bench,
    home: Home,
    open_files: usize,
    _alone: MutexGuard<'static, ()>,
}

impl Torture {
    async fn new() -> Self {
        let alone = ALONE.lock().await;
        let (mut bench, home) = (Bench::commands(), Home::new(""));
        // What is opened once and for all is open now.
        bench.output(&shell("true")).await;
        Self { bench, home, open_files: settled_open_files(), _alone: alone }
    }

    fn path(&self, name: &str) -> String {
        self.home.path().join(name).display().to_string()
    }

    /// A file with this content and these permissions.
    fn file(&self, name: &str, content: &[u8], mode: u32) -> String {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    /// Nothing of the run is left: no process, no open file, no file in its folder.
    fn assert_clean(&self, execution: &Execution, files: usize) {
        assert_no_process(execution);
        let begun = tokio::time::Instant::now();
        // A process that waited to start commands may be gone, and with it what is open for it.
        while open_files() > self.open_files && begun.elapsed() < PATIENCE {
            std::thread::yield_now();
        }
        let (now, before) = (open_files(), self.open_files);
        assert!(now <= before, "open files: {now}, and {before} before");
        assert_eq!(fs::read_dir(self.home.path()).unwrap().count(), files, "files");
    }

    /// A command that fails by itself, straight and through the shim.
    async fn fails(&mut self, task: Value) -> Failure {
        let files = fs::read_dir(self.home.path()).unwrap().count();
        let cwd = json!({"cwd": self.home.path()});
        let task = if task.get("cwd").is_some() { task } else { with(task, cwd) };
        let mut failures = Vec::new();
        for task in [task.clone(), with(task, json!({"umask": "022"}))] {
            let execution = self.bench.start(&task);
            let completion = self.bench.ended().await;
            let Outcome::Failed { error, exit_code, signal, permanent } = completion.outcome else {
                panic!("{task}: {:?}", completion.outcome);
            };
            failures.push(Failure { error, exit_code, signal, permanent });
            self.assert_clean(&execution, files);
        }
        let failure = failures.pop().unwrap();
        assert_eq!(failures[0], failure, "both ways say the same");
        failure
    }
}

/// No process of the run is left.
fn assert_no_process(execution: &Execution) {
    let left: Vec<String> = living(execution).into_iter().map(describe).collect();
    assert!(left.is_empty(), "{left:?}");
}

fn describe(pid: i32) -> String {
    let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let line = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
    format!("{pid}: {line} {}", String::from_utf8_lossy(&read("stat")))
}

#[tokio::test]
async fn a_command_that_ignores_the_request_to_end_is_killed_with_grandchildren_that_have_fled() {
    let mut torture = Torture::new().await;
    let mut ready = torture.home.signal("ready");
    // One in another session, one without a parent, one that ignores every request as well.
    let script = format!(
        "trap '' TERM; setsid sh -c 'sleep 600 & wait' & (setsid sleep 600 &) & \
        (trap '' HUP; nohup setsid sh -c 'while :; do sleep 600; done' > /dev/null 2>&1 &); \
        echo ready > {}; while :; do sleep 600; done",
        ready.path.display()
    );
    for more in [json!({}), json!({"nice": 1})] {
        let task = with(shell(&script), with(more, json!({"kill_grace": 0.2})));
        let execution = torture.bench.start(&task);
        assert_eq!(ready.next().await, "ready");
        torture.bench.cancel(&execution);
        assert_eq!(torture.bench.ended().await.outcome, cancelled());
        torture.assert_clean(&execution, 2);
    }
    torture.bench.assert_nothing_more().await;
}

#[tokio::test]
async fn a_gigabyte_of_output_takes_no_memory_and_what_was_cut_is_counted() {
    const LINES: u64 = 128 * 1024;
    let mut torture = Torture::new().await;
    let before = resident();
    // Lines of 8 KiB, and one more to see the end.
    let script = format!(
        "yes $(head -c 8191 /dev/zero | tr '\\0' x) | head -n {LINES}; echo the end; echo complaint >&2"
    );
    let execution = torture.bench.start(&shell(&script));
    let completion = torture.bench.ended().await;
    assert!(matches!(completion.outcome, Outcome::Succeeded { .. }), "{:?}", completion.outcome);
    let output = completion.output;
    let kept = u64::try_from(output.lines().count()).unwrap();
    assert_eq!(output.bytes, LINES * 8192 + 18);
    assert_eq!(kept + output.cut, LINES + 2);
    assert!(output.text().len() < 128 * 1024 && output.text().contains("the end\n"));
    let grown = resident().saturating_sub(before);
    assert!(grown < MEMORY_NOISE, "{grown} bytes more");
    torture.assert_clean(&execution, 1);
    torture.bench.assert_nothing_more().await;
}

#[tokio::test]
async fn a_command_that_closes_its_outputs_and_goes_on_is_waited_for() {
    let mut torture = Torture::new().await;
    let (mut ready, gate) = (torture.home.signal("ready"), torture.home.signal("gate"));
    let script = format!(
        "exec > /dev/null 2>&1 < /dev/null; echo ready > {}; read x < {}; exit 7",
        ready.path.display(),
        gate.path.display()
    );
    let execution = torture.bench.start(&shell(&script));
    assert_eq!(ready.next().await, "ready");
    fs::write(&gate.path, "go\n").unwrap();
    let completion = torture.bench.ended().await;
    let Outcome::Failed { exit_code, .. } = completion.outcome else { panic!("it failed") };
    assert_eq!(exit_code, Some(7));
    torture.assert_clean(&execution, 3);
    torture.bench.assert_nothing_more().await;
}

#[tokio::test]
async fn a_command_that_a_signal_ends_says_which() {
    let mut torture = Torture::new().await;
    let signals = [
        (1, "HUP"),
        (2, "INT"),
        (3, "QUIT"),
        (4, "ILL"),
        (6, "ABRT"),
        (8, "FPE"),
        (9, "KILL"),
        (11, "SEGV"),
        (13, "PIPE"),
        (14, "ALRM"),
        (15, "TERM"),
        (10, "USR1"),
    ];
    for (number, name) in signals {
        let failure = torture.fails(shell(&format!("ulimit -c 0; kill -{name} $$"))).await;
        let error = format!("ended by signal {number} (SIG{name})");
        let signal = Some(number);
        assert_eq!(failure, Failure { error, exit_code: None, signal, permanent: false });
    }
    torture.bench.assert_nothing_more().await;
}

#[tokio::test]
async fn a_command_that_goes_past_its_limits_fails_and_nobody_else() {
    let mut torture = Torture::new().await;
    let limited = |script: &str, limits: Value| {
        with(shell(&format!("ulimit -c 0; {script}")), json!({"limits": limits}))
    };
    let memory = "dd if=/dev/zero of=/dev/null bs=512M count=1 2>&1";
    let failure = torture.fails(limited(memory, json!({"memory": "256M"}))).await;
    assert_eq!(failure.error, "exit code 1");
    torture.bench.output(&limited(memory, json!({"memory": "2G"}))).await;
    let files = "exec 3< /dev/null 4< /dev/null 5< /dev/null 6< /dev/null 7< /dev/null 8< /dev/null 9< /dev/null";
    let failure = torture.fails(limited(files, json!({"files": 8}))).await;
    assert_eq!(failure.error, "exit code 2");
    torture.bench.output(&limited(files, json!({"files": 16}))).await;
    let failure = torture.fails(limited("while :; do :; done", json!({"cpu": 1}))).await;
    assert_eq!((failure.signal, &*failure.error), (Some(24), "ended by signal 24 (SIGXCPU)"));
    // Who does not want to hear that has a second more.
    let deaf = limited("trap '' XCPU; while :; do :; done", json!({"cpu": 1}));
    assert_eq!(torture.bench.failure(&deaf).await.signal, Some(9));
    torture.bench.assert_nothing_more().await;
}

#[tokio::test]
async fn a_command_that_cannot_be_executed_says_why() {
    let mut torture = Torture::new().await;
    let argv = |words: &[&str]| json!({"type": "command", "argv": words});
    let garbage = torture.file("garbage", &[0x7f, 0x00, 0xff, 0x17], 0o755);
    let plain = torture.file("plain", b"#!/bin/sh\n", 0o644);
    let orphan = torture.file("orphan", b"#!/no/such/interpreter\n", 0o755);
    let folder = torture.path("folder");
    fs::create_dir(&folder).unwrap();
    let missing = torture.path("missing");
    let (long, many) = ("x".repeat(200 * 1024), vec!["x".repeat(64 * 1024); 100]);
    let many: Vec<&str> = std::iter::once("true").chain(many.iter().map(String::as_str)).collect();
    let program = fs::canonicalize("/bin/true").unwrap();
    let cases = [
        (argv(&[&garbage]), format!("\"{garbage}\" could not be started: Exec format error")),
        (argv(&[&plain]), format!("\"{plain}\" could not be started: Permission denied")),
        (
            argv(&[&orphan]),
            format!(
                "\"{orphan}\" could not be started: the interpreter that it names was not found"
            ),
        ),
        (argv(&[&folder]), format!("\"{folder}\" could not be started: it is a directory")),
        (argv(&[&missing]), format!("\"{missing}\" could not be started: No such file")),
        (
            argv(&["no-such-program"]),
            "the program \"no-such-program\" was not found in /".to_owned(),
        ),
        (argv(&["true", &long]), "its arguments and its environment are too long".to_owned()),
        (argv(&many), "its arguments and its environment are too long".to_owned()),
        (
            with(argv(&["true"]), json!({"cwd": missing})),
            format!("the working directory \"{missing}\" cannot be entered: No such file"),
        ),
        (
            with(argv(&["true"]), json!({"cwd": plain})),
            format!("the working directory \"{plain}\" is not a directory"),
        ),
        (
            with(argv(&["true"]), json!({"env": {"PATH": "/no/such/folder"}})),
            "the program \"true\" was not found in /no/such/folder".to_owned(),
        ),
    ];
    for (task, expected) in cases {
        let failure = torture.fails(task).await;
        assert!(failure.error.contains(&expected), "{} is not {expected}", failure.error);
        assert_eq!((failure.exit_code, failure.signal), (None, None), "{}", failure.error);
    }
    // A name of a program that is there, though not for this command.
    assert!(program.exists());
    torture.bench.assert_nothing_more().await;
}

#[tokio::test]
async fn a_user_that_may_not_enter_or_execute_gets_an_error_that_says_so() {
    if !is_root() {
        return left_out("another user can be tested by root only");
    }
    let mut torture = Torture::new().await;
    let secret = torture.path("secret");
    fs::create_dir(&secret).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(torture.home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let inside = torture.file("secret/program", b"#!/bin/sh\n", 0o755);
    let as_nobody = |words: &[&str], cwd: &Path| json!({"type": "command", "argv": words, "user": "nobody", "cwd": cwd});
    let failure = torture.fails(as_nobody(&["true"], Path::new(&secret))).await;
    assert!(failure.error.contains("cannot be entered: Permission denied"), "{}", failure.error);
    let failure = torture.fails(as_nobody(&[&inside], Path::new("/"))).await;
    assert!(failure.error.contains("could not be started: Permission denied"), "{}", failure.error);
    torture.bench.assert_nothing_more().await;
}

#[tokio::test]
async fn processes_that_multiply_while_they_are_ended_are_ended_all_the_same() {
    let mut torture = Torture::new().await;
    let mut ready = torture.home.signal("ready");
    // A chain of sessions: each begins the next one and goes, so there is no moment at which all can be seen.
    let script = format!(
        "trap '' TERM; echo 'test $1 -gt 0 || {{ echo ready > {}; exec sleep 600; }}; setsid sh chain $(($1 - 1)) &' > chain; \
        for i in 1 2 3 4 5; do setsid sh chain $((i * 20)) & done; wait; exec sleep 600",
        ready.path.display()
    );
    let task = with(shell(&script), json!({"kill_grace": 0.1, "cwd": torture.home.path()}));
    let execution = torture.bench.start(&task);
    assert_eq!(ready.next().await, "ready");
    torture.bench.cancel(&execution);
    assert_eq!(torture.bench.ended().await.outcome, cancelled());
    torture.assert_clean(&execution, 3);
    torture.bench.assert_nothing_more().await;
}

/// Numbers that look random, and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(limit).unwrap()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_hundred_runs_that_are_cancelled_at_any_time_each_ends_once_and_leaves_nothing() {
    const RUNS: usize = 200;
    let mut torture = Torture::new().await;
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let scripts = [
        "sleep 600",
        "setsid sleep 600 & wait",
        "trap '' TERM; sleep 600",
        "true",
        "yes",
        "sleep 600 & exit 3",
        "exec > /dev/null 2>&1; sleep 600",
    ];
    let mut open: Vec<Execution> = Vec::new();
    let mut all = Vec::new();
    for number in 0..RUNS {
        let script = scripts[number % scripts.len()];
        let more = if dice.below(2) == 0 { json!({}) } else { json!({"umask": "022"}) };
        let task = with(shell(script), with(more, json!({"kill_grace": 0.05})));
        let execution = torture.bench.start(&task);
        open.push(execution.clone());
        all.push(execution);
        // Some before they have begun, some later, some twice.
        for _ in 0..dice.below(3) {
            torture.bench.cancel(&open[dice.below(open.len())]);
        }
        if dice.below(4) == 0 {
            tokio::task::yield_now().await;
        }
    }
    for execution in &open {
        torture.bench.cancel(execution);
    }
    let mut ended = BTreeMap::new();
    let limit = tokio::time::Instant::now() + PATIENCE;
    while ended.len() < RUNS && tokio::time::Instant::now() < limit {
        let completion = torture.bench.ended().await;
        let is_cancelled = completion.outcome == cancelled();
        ended.entry(completion.execution()).or_insert_with(Vec::new).push(is_cancelled);
    }
    assert!(ended.len() == RUNS && ended.values().all(|ends| ends.len() == 1), "{ended:?}");
    let cancelled = ended.iter().filter(|(_, ends)| ends[0]).map(|(execution, _)| execution);
    cancelled.for_each(assert_no_process);
    // What a command left when it ended by itself before its cancel is left alone, and only that. Its output is read for
    // as long as it is open, so files are counted when it has ended.
    kill_orphans(&all);
    for execution in &all {
        torture.assert_clean(execution, 1);
    }
    torture.bench.assert_nothing_more().await;
}
