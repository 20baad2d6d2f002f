//! Worker processes that crash, hang, lie and flood at every step. Each costs at most its own run, which ends once, and
//! leaves nothing behind.
//!
//! The program of the tests is the worker's program as well: started again with [`ROLE`], it is a worker with builtins
//! that misbehave, or something that only pretends to be a worker.

mod builtins;
mod fakes;

use std::time::Duration;

use punctual::executor::{Executor, WorkerProgram, WorkerTimes, serve_worker};
use punctual::output::Output;
use punctual::run::Outcome;
use rustix::process::Signal;
use serde_json::{Value, json};
use support::pools::Bench;
use support::workers::{
    SHORT_GRACE, SHORT_SILENCE, TIMES, alone, children, children_become, failure, gone, signal,
    stop,
};
use support::{Home, PATIENCE};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::timeout;

/// What this program is, unless it is the test.
const ROLE: &str = "WORKER_ROLE";

/// Not a test, but where a worker begins.
#[test]
fn worker() {
    match std::env::var(ROLE).as_deref() {
        Ok("misbehave") => {
            let served = serve_worker::<std::io::Error>(|_| Ok(builtins::registry()));
            std::process::exit(i32::from(served.is_err()));
        }
        Ok(what) => fakes::pretend(what),
        Err(_) => {}
    }
}

/// This program in a role. All that play it share the folder.
fn role(home: &Home, role: &str) -> WorkerProgram {
    let program = std::env::current_exe().unwrap().display().to_string();
    let (role, folder) =
        (format!("{ROLE}={role}"), format!("WORKER_FOLDER={}", home.path().display()));
    let arguments =
        [&role, &folder, &program, "torture::worker", "--exact", "--nocapture", "--quiet"];
    WorkerProgram {
        program: "/usr/bin/env".into(),
        arguments: arguments.into_iter().map(str::to_owned).collect(),
        hello: json!({}),
        times: TIMES,
    }
}

/// The same with other times.
fn role_with(times: WorkerTimes, home: &Home, name: &str) -> WorkerProgram {
    WorkerProgram { times, ..role(home, name) }
}

/// One worker at a time that misbehaves on request.
fn misbehaving(home: &Home) -> Bench {
    Bench::workers(1, &role(home, "misbehave"))
}

fn texts(output: &Output) -> Vec<String> {
    output.lines().map(|line| line.text).collect()
}

fn fake() -> Outcome {
    Outcome::Succeeded { result: Some(json!("fake")), exit_code: None }
}

#[test]
fn a_program_that_is_no_worker_is_one_clear_error() {
    alone(async {
        let start = "a worker process could not be started: it ";
        for (what, error) in [
            ("exit-at-once", "ended with exit code 3"),
            ("exit-at-hello", "ended with exit code 4 (there is no hope)"),
            ("garbage", "broke the protocol: a message of 1466264675 bytes is longer than 1048576"),
            (
                "too-long",
                "broke the protocol: a message of 4294967295 bytes is longer than 1048576",
            ),
            ("old", "broke the protocol: it speaks version 99, and this daemon version 1"),
            ("done-at-hello", "broke the protocol: it sent \"done\" at the wrong time"),
        ] {
            let home = Home::new("");
            let mut bench = Bench::workers(2, &role(&home, what));
            for _ in 0..2 {
                let completion = bench.run_builtin("noop", &json!({})).await;
                assert_eq!(
                    failure(&completion),
                    (&*format!("{start}{error}"), None, None),
                    "{what}"
                );
            }
            stop(bench).await;
        }
    });
}

#[test]
fn a_program_that_says_nothing_or_half_of_it_is_not_waited_for_without_end() {
    alone(async {
        for what in ["silent", "half-ready"] {
            let home = Home::new("");
            let mut worker = role(&home, what);
            worker.times.start = Duration::from_millis(300);
            let mut bench = Bench::workers(2, &worker);
            let completion = bench.run_builtin("noop", &json!({})).await;
            let (error, ..) = failure(&completion);
            assert!(error.ends_with("it did not answer for 0.3s"), "{what}: {error}");
            stop(bench).await;
        }
    });
}

#[test]
fn a_missing_program_is_reported_by_its_name() {
    alone(async {
        let missing =
            WorkerProgram { program: "/nowhere".into(), ..WorkerProgram::own(Value::Null) };
        let mut bench = Bench::workers(2, &missing);
        let completion = bench.run_builtin("noop", &json!({})).await;
        let error = "a worker process could not be started: /nowhere: No such file or directory (os error 2)";
        assert_eq!(failure(&completion).0, error);
        stop(bench).await;
    });
}

#[test]
fn a_program_that_was_itself_started_as_a_worker_starts_none() {
    alone(async {
        // As if a worker came to its own pools, instead of serving: this process is what is to be started.
        let arguments = std::env::args().skip(1).collect();
        let own = WorkerProgram { arguments, ..WorkerProgram::own(Value::Null) };
        let mut bench = Bench::workers(2, &own);
        let completion = bench.run_builtin("noop", &json!({})).await;
        let (error, ..) = failure(&completion);
        assert!(error.ends_with(": this process was itself started as a worker"), "{error}");
        stop(bench).await;
    });
}

#[test]
fn a_run_that_waits_for_a_worker_which_never_comes_can_be_cancelled() {
    alone(async {
        let home = Home::new("");
        let mut bench = Bench::workers(1, &role(&home, "silent"));
        let run = bench.start_builtin("noop", &json!({}));
        tokio::task::yield_now().await;
        bench.pools.cancel(&run, "enough");
        let cancelled = Outcome::Cancelled { reason: "enough".to_owned() };
        assert_eq!(bench.ended().await.outcome, cancelled);
        stop(bench).await;
    });
}

#[test]
fn a_worker_that_dies_before_it_has_read_a_call_costs_no_run() {
    alone(async {
        for what in
            ["exit-at-once-first", "exit-ready-first", "unread-first", "done-when-idle-first"]
        {
            let home = Home::new("");
            // Its answer may be taken for that of the first run; then it does not hear of the second.
            let times = if what == "done-when-idle-first" { SHORT_SILENCE } else { TIMES };
            let mut bench = Bench::workers(1, &role_with(times, &home, what));
            for _ in 0..3 {
                assert_eq!(bench.run_builtin("noop", &json!({})).await.outcome, fake(), "{what}");
            }
            stop(bench).await;
        }
    });
}

#[test]
fn a_call_that_two_workers_have_not_read_is_a_failed_run() {
    alone(async {
        let home = Home::new("");
        let mut bench = Bench::workers(2, &role(&home, "unread"));
        let completion = bench.run_builtin("noop", &json!({})).await;
        let error = "the worker process ended with exit code 6";
        assert_eq!(failure(&completion), (error, Some(6), None));
        stop(bench).await;
        let mut bench = Bench::workers(1, &role_with(SHORT_SILENCE, &home, "deaf"));
        let completion = bench.run_builtin("noop", &json!({})).await;
        let error = "the worker process did not answer for 2s";
        assert_eq!(failure(&completion), (error, None, Some(9)));
        stop(bench).await;
    });
}

#[test]
fn a_worker_that_ends_within_a_call_costs_exactly_that_run() {
    alone(async {
        let broke = "the worker process broke the protocol: ";
        for (what, error, exit_code, signal) in [
            ("exit-called", "the worker process ended with exit code 7", Some(7), None),
            ("exit-zero", "the worker process ended with exit code 0", Some(0), None),
            ("half-done", "the worker process ended with exit code 8", Some(8), None),
            ("closed", "the worker process was ended by signal 9 (SIGKILL)", None, Some(9)),
            ("silent-called", "the worker process did not answer for 2s", None, Some(9)),
            (
                "garbage-called",
                &*format!(
                    "{broke}not a message of this protocol: expected value at line 1 column 1"
                ),
                None,
                Some(9),
            ),
            (
                "too-long-called",
                &*format!("{broke}a message of 4294967295 bytes is longer than 1048576"),
                None,
                Some(9),
            ),
            (
                "ready-called",
                &*format!("{broke}it sent \"ready\" at the wrong time"),
                None,
                Some(9),
            ),
        ] {
            let home = Home::new("");
            let times = if what == "silent-called" { SHORT_SILENCE } else { TIMES };
            let mut bench = Bench::workers(1, &role_with(times, &home, what));
            for _ in 0..2 {
                let completion = bench.run_builtin("noop", &json!({})).await;
                assert_eq!(failure(&completion), (error, exit_code, signal), "{what}");
            }
            stop(bench).await;
        }
    });
}

#[test]
fn an_answer_counts_even_if_its_worker_dies_afterwards() {
    alone(async {
        for what in ["exit-done-first", "done-and-exit"] {
            let home = Home::new("");
            let mut bench = Bench::workers(1, &role(&home, what));
            for _ in 0..5 {
                assert_eq!(bench.run_builtin("noop", &json!({})).await.outcome, fake(), "{what}");
            }
            stop(bench).await;
        }
    });
}

#[test]
fn a_worker_that_says_that_it_was_cancelled_is_not_believed() {
    alone(async {
        let home = Home::new("");
        let mut bench = Bench::workers(1, &role(&home, "cancelled-unasked"));
        let completion = bench.run_builtin("noop", &json!({})).await;
        let error = "the builtin ended as cancelled, but its run was not cancelled";
        assert_eq!(failure(&completion), (error, None, None));
        stop(bench).await;
    });
}

#[test]
fn signs_of_life_are_no_answer_to_a_timeout() {
    alone(async {
        let home = Home::new("");
        let mut bench = Bench::workers(1, &role_with(SHORT_GRACE, &home, "beat"));
        bench.start_builtin_within("noop", &json!({}), Some(Duration::from_millis(100)));
        let completion = bench.ended().await;
        let error = "it did not end within 100ms".to_owned();
        assert_eq!(completion.outcome, Outcome::TimedOut { error });
        let taken = completion.finished_at - completion.started_at;
        assert!(taken.to_std().unwrap() >= SHORT_GRACE.grace, "it had its time to end: {taken}");
        stop(bench).await;
    });
}

#[test]
fn a_builtin_that_ends_its_process_costs_its_run_and_says_how() {
    alone(async {
        let home = Home::new("");
        for (name, args, error, exit_code, signal) in [
            ("exit", json!({"code": 3}), "ended with exit code 3", Some(3), None),
            ("exit", json!({"code": 0}), "ended with exit code 0", Some(0), None),
            ("abort", json!({}), "was ended by signal 6 (SIGABRT)", None, Some(6)),
            ("kill", json!({"signal": 15}), "was ended by signal 15 (SIGTERM)", None, Some(15)),
            ("kill", json!({"signal": 9}), "was ended by signal 9 (SIGKILL)", None, Some(9)),
            ("kill", json!({"signal": 19}), "did not answer for 2s", None, Some(9)),
        ] {
            let times = if args["signal"] == 19 { SHORT_SILENCE } else { TIMES };
            let mut bench = Bench::workers(1, &role_with(times, &home, "misbehave"));
            let completion = bench.run_builtin(name, &args).await;
            let error = format!("the worker process {error}");
            assert_eq!(failure(&completion), (&*error, exit_code, signal), "{name} {args}");
            let last_words: &[&str] =
                if name == "kill" { &["these are its last words"] } else { &[] };
            assert_eq!(texts(&completion.output), last_words);
            bench.result("pid", &json!({})).await;
            stop(bench).await;
        }
    });
}

#[test]
fn a_builtin_that_panics_fails_and_its_worker_lives_on() {
    alone(async {
        let home = Home::new("");
        let mut bench = misbehaving(&home);
        let worker = bench.result("pid", &json!({})).await;
        let completion = bench.run_builtin("panic", &json!({})).await;
        let (error, ..) = failure(&completion);
        assert!(error.starts_with("panicked at ") && error.ends_with(": over there"), "{error}");
        assert_eq!(bench.result("pid", &json!({})).await, worker);
        stop(bench).await;
    });
}

#[test]
fn a_builtin_that_is_cancelled_may_still_return_and_its_result_counts() {
    alone(async {
        let home = Home::new("");
        let mut begun = home.signal("begun");
        let args = json!({"begun": begun.path});
        let mut bench = misbehaving(&home);
        let cancelled = Outcome::Cancelled { reason: "enough".to_owned() };
        let done = Outcome::Succeeded { result: Some(json!("done")), exit_code: None };
        let mut workers = Vec::new();
        for (name, outcome) in [("obey", cancelled.clone()), ("ignore", done)] {
            let run = bench.start_builtin(name, &args);
            workers.push(begun.next().await);
            bench.pools.cancel(&run, "enough");
            let completion = bench.ended().await;
            assert_eq!(completion.outcome, outcome);
            if name == "obey" {
                assert_eq!(texts(&completion.output), ["waiting", "asked"]);
            }
        }
        let run = bench.start_builtin("exit-when-asked", &args);
        workers.push(begun.next().await);
        bench.pools.cancel(&run, "enough");
        assert_eq!(bench.ended().await.outcome, cancelled);
        assert!(workers.iter().all(|worker| *worker == workers[0]), "it lived on: {workers:?}");
        bench.result("pid", &json!({})).await;
        stop(bench).await;
    });
}

#[test]
fn a_builtin_that_deadlocks_is_ended_by_its_timeout_and_by_a_stop() {
    alone(async {
        let home = Home::new("");
        let mut begun = home.signal("begun");
        let args = json!({"begun": begun.path});
        let mut bench = Bench::workers(1, &role_with(SHORT_GRACE, &home, "misbehave"));
        bench.start_builtin_within("deadlock", &args, Some(Duration::from_millis(100)));
        let worker: i32 = begun.next().await.parse().unwrap();
        let error = "it did not end within 100ms".to_owned();
        assert_eq!(bench.ended().await.outcome, Outcome::TimedOut { error });
        gone(worker).await;
        bench.start_builtin("deadlock", &args);
        begun.next().await;
        timeout(PATIENCE, bench.pools.stop()).await.unwrap();
        assert!(children().is_empty(), "a stop has ended all");
    });
}

#[test]
fn a_worker_that_is_killed_costs_its_run_only() {
    alone(async {
        let home = Home::new("");
        let mut begun = home.signal("begun");
        let args = json!({"begun": begun.path});
        let mut bench = Bench::workers(3, &role(&home, "misbehave"));
        let first = bench.start_builtin("obey", &args);
        let victim: i32 = begun.next().await.parse().unwrap();
        let second = bench.start_builtin("obey", &args);
        begun.next().await;
        signal(victim, Signal::KILL);
        let completion = bench.ended().await;
        assert_eq!(completion.run_id, first);
        let error = "the worker process was ended by signal 9 (SIGKILL)";
        assert_eq!(failure(&completion), (error, None, Some(9)));
        assert_eq!(texts(&completion.output), ["waiting"], "what it has said is kept");
        bench.result("pid", &json!({})).await;
        bench.pools.cancel(&second, "enough");
        assert_eq!(bench.ended().await.run_id, second);
        stop(bench).await;
    });
}

#[test]
fn a_worker_that_is_stopped_costs_its_run_and_nothing_else() {
    alone(async {
        let home = Home::new("");
        let mut begun = home.signal("begun");
        let mut bench = Bench::workers(2, &role_with(SHORT_SILENCE, &home, "misbehave"));
        bench.result("pid", &json!({})).await;
        children_become(|workers| workers.len() == 2).await;
        let run = bench.start_builtin("obey", &json!({"begun": begun.path}));
        begun.next().await;
        // The idle one costs nothing.
        for worker in children() {
            signal(worker, Signal::STOP);
        }
        let completion = bench.ended().await;
        assert_eq!(completion.run_id, run);
        let silent = "the worker process did not answer for 2s";
        assert_eq!(failure(&completion), (silent, None, Some(9)));
        // Either it gets the fresh worker, or the stopped one, which certainly has not read it.
        assert!(bench.result("pid", &json!({})).await.is_u64());
        assert!(bench.result("pid", &json!({})).await.is_u64());
        stop(bench).await;
    });
}

#[test]
fn the_log_and_prints_of_a_builtin_are_the_output_of_its_run() {
    alone(async {
        let home = Home::new("");
        let mut bench = misbehaving(&home);
        for _ in 0..2 {
            let completion = bench.run_builtin("words", &json!({})).await;
            let mut words = texts(&completion.output);
            words.sort_unstable();
            assert_eq!(words, ["complained", "printed", "said", "unfinished"]);
        }
        assert!(bench.run_builtin("pid", &json!({})).await.output.is_empty());
        stop(bench).await;
    });
}

#[test]
fn a_builtin_that_floods_has_its_beginning_and_end_kept_and_the_rest_counted() {
    alone(async {
        let home = Home::new("");
        let mut bench = misbehaving(&home);
        let bytes = 100 * 1024 * 1024;
        let output = bench.run_builtin("print", &json!({"bytes": bytes})).await.output;
        assert_eq!(output.bytes, bytes + 12);
        assert_eq!(output.lines().next().unwrap().text, "0123456789abcde");
        assert_eq!(output.last_lines(1)[0].text, "that is all");
        let lines = u64::try_from(output.lines().count()).unwrap() + output.cut;
        assert_eq!(lines, bytes / 16 + 1);

        let output = bench.run_builtin("say", &json!({"lines": 1_000_000})).await.output;
        assert_eq!(output.lines().next().unwrap().text, "line 0");
        assert_eq!(output.last_lines(1)[0].text, "line 999999");
        let lines = u64::try_from(output.lines().count()).unwrap() + output.cut;
        assert_eq!(lines, 1_000_000);
        // The numbers, each with the word and the line break.
        let text = 5_888_890 + 6 * 1_000_000;
        assert_eq!(output.bytes, text);
        stop(bench).await;
    });
}

#[test]
fn a_result_or_a_call_that_is_too_large_costs_no_worker() {
    alone(async {
        let home = Home::new("");
        let mut bench = misbehaving(&home);
        let worker = bench.result("pid", &json!({})).await;
        let large = bench.result("large", &json!({"bytes": 10_000_000})).await;
        assert_eq!(large, json!({"cut": true, "bytes": 10_000_002, "depth": 0}));
        let args = json!({"text": "x".repeat(1024 * 1024)});
        let Outcome::Failed { error, permanent: true, .. } =
            bench.run_builtin("pid", &args).await.outcome
        else {
            panic!("it was sent")
        };
        assert!(error.starts_with("the call cannot be sent to a worker process: "), "{error}");
        let args = json!({"text": "x".repeat(900 * 1024)});
        assert_eq!(bench.result("pid", &args).await, worker);
        stop(bench).await;
    });
}

/// Waits until no process holds a pipe open for writing any more.
async fn released(pipe: &mut pipe::Receiver) {
    let read = timeout(PATIENCE, pipe.read(&mut [0])).await;
    assert_eq!(read.expect("a process is left over").unwrap(), 0);
}

#[test]
fn processes_started_by_a_builtin_end_with_its_worker() {
    alone(async {
        for dies in [true, false] {
            let home = Home::new("");
            let (mut begun, path) = (home.signal("begun"), home.path().join("held"));
            rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).unwrap();
            let mut held = pipe::OpenOptions::new().open_receiver(&path).unwrap();
            let mut args = json!({"begun": begun.path, "held": path});
            if dies {
                args["dies"] = json!(true);
            }
            // The child holds the socket of a worker that has died, so only its silence shows it; the other one does not read.
            let times = if dies { SHORT_SILENCE } else { SHORT_GRACE };
            let mut bench = Bench::workers(1, &role_with(times, &home, "misbehave"));
            let run = bench.start_builtin("parent", &args);
            begun.next().await;
            if !dies {
                bench.pools.cancel(&run, "enough");
            }
            let completion = bench.ended().await;
            if dies {
                assert_eq!(failure(&completion).1, Some(3));
            }
            released(&mut held).await;
            bench.result("pid", &json!({})).await;
            stop(bench).await;
        }
    });
}
