//! The settings of a command, what it knows about its run, and what its exit means.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use punctual::client::Client;
use punctual::executor::kill_orphans;
use punctual::job::Task;
use punctual::output::Stream;
use punctual::run::Outcome;
use serde_json::{Value, json};
use support::commands::{cancelled, living, occurrence, shell};
use support::definitions::{by_hand, with};
use support::pools::{Bench, Failure};
use support::{Home, is_root, left_out, program, run_to_end, text};

/// Makes a command go through the shim, and changes nothing else.
fn through_shim(task: Value) -> Value {
    with(task, json!({"umask": "022"}))
}

/// Writes a script. Another process does, so that no child of this one holds it open for writing when it is executed.
fn executable(path: &Path, text: &str) {
    let write = "printf %s \"$1\" > \"$0\" && chmod 755 \"$0\"";
    let written = Command::new("/bin/sh").arg("-c").arg(write).arg(path).arg(text).status();
    assert!(written.unwrap().success());
}

fn refused(error: &str) -> Failure {
    Failure { error: error.to_owned(), exit_code: None, signal: None, permanent: true }
}

#[tokio::test]
async fn arguments_arrive_as_they_are_and_a_shell_is_used_only_on_request() {
    let mut bench = Bench::commands();
    let words = json!({"type": "command", "argv": ["printf", "%s\n", "$HOME", "a  b", "", "*"]});
    let script = shell("printf '%s\n' \"$0\" | tr h H; exit 0");
    for change in [|task: Value| task, through_shim] {
        assert_eq!(bench.output(&change(words.clone())).await, "$HOME\na  b\n\n*\n");
        assert_eq!(bench.output(&change(script.clone())).await, "/bin/sH\n");
    }
    bench.assert_nothing_more().await;
}

#[tokio::test]
async fn a_command_has_its_variables_its_folder_and_its_input() {
    let home = Home::new("");
    let folder = home.path().canonicalize().unwrap();
    let mut bench = Bench::commands();
    let given = json!({
        "env": {"A": "b = c", "EMPTY": ""}, "cwd": folder.to_str().unwrap(), "stdin": "first\nsecond",
    });
    let task = with(shell("echo \"$A,$EMPTY,${EMPTY-unset}\"; pwd; cat"), given);
    let expected = format!("b = c,,\n{}\nfirst\nsecond\n", folder.display());
    for task in [task.clone(), through_shim(task)] {
        assert_eq!(bench.output(&task).await, expected);
    }
    // A program with a slash is looked for from the folder, one without in the PATH that the command is given.
    let program = folder.join("mine");
    executable(&program, "#!/bin/sh\necho mine\n");
    let task = json!({"type": "command", "argv": ["./mine"], "cwd": folder});
    assert_eq!(bench.output(&task).await, "mine\n");
    let path = format!("{}:/bin:/usr/bin", folder.display());
    let task = json!({"type": "command", "argv": ["mine"], "env": {"PATH": path}});
    assert_eq!(bench.output(&task).await, "mine\n");
    // Where there is no input, there is nothing to wait for.
    assert_eq!(bench.output(&shell("cat; echo end")).await, "end\n");
    bench.assert_nothing_more().await;
}

#[tokio::test]
async fn an_input_need_not_be_read() {
    let mut bench = Bench::commands();
    let full = "x".repeat(64 * 1024);
    for script in ["exit 0", "exec <&-; exit 0", "head -c 1 > /dev/null"] {
        let task = with(shell(script), json!({"stdin": full}));
        for task in [task.clone(), through_shim(task)] {
            assert_eq!(bench.output(&task).await, "", "{script}");
        }
    }
    let task = with(shell("wc -c"), json!({"stdin": full}));
    assert_eq!(bench.output(&task).await.trim(), "65536");
    bench.assert_nothing_more().await;
}

#[tokio::test]
async fn secrets_are_read_for_the_run_and_hidden_in_what_it_writes() {
    let home = Home::new("");
    let token = home.path().join("token");
    std::fs::write(&token, "swordfish\n").unwrap();
    let place = json!({"file": token});
    let mut bench = Bench::commands();
    let given = json!({"env": {"TOKEN": place, "OPEN": "sesame"}, "stdin": place});
    let task = with(shell("echo $OPEN ${#TOKEN} $TOKEN; cat"), given);
    for task in [task.clone(), through_shim(task.clone())] {
        assert_eq!(bench.output(&task).await, "sesame 9 ***\n***\n");
        assert!(!bench.assignment(&task).task.to_value().to_string().contains("swordfish"));
    }
    std::fs::write(&token, "a\0b").unwrap();
    let failure = bench.failure(&with(shell("true"), json!({"env": {"TOKEN": place}}))).await;
    assert!(!failure.permanent && failure.error.contains("env.TOKEN"), "{failure:?}");
    std::fs::remove_file(&token).unwrap();
    let place = token.to_str().unwrap();
    let failure = bench.failure(&task).await;
    assert!(
        !failure.permanent
            && failure.error.starts_with("env.TOKEN: the secret in the file")
            && failure.error.contains(place),
        "{failure:?}"
    );
    bench.assert_nothing_more().await;
}

#[tokio::test]
async fn a_secret_that_does_not_come_can_be_given_up() {
    let home = Home::new("");
    let pipe = home.signal("pipe").path;
    // Nobody writes, and the end of this reader is not seen: reading blocks.
    let task = with(shell("true"), json!({"env": {"A": {"file": pipe}}}));
    let mut bench = Bench::commands();
    let execution = bench.start(&task);
    bench.cancel(&execution);
    assert_eq!(bench.ended().await.outcome, cancelled());
}

#[tokio::test]
async fn stdout_and_stderr_are_distinguished_and_arrive_while_the_command_runs() {
    let home = Home::new("");
    let gate = home.signal("gate");
    let mut bench = Bench::commands();
    let live = bench.live();
    let task =
        shell(&format!("echo out; echo err >&2; read x < {}; echo late", gate.path.display()));
    let (run_id, _) = bench.start(&task);
    let (_, context) = live.get(&run_id).unwrap();
    let mut follower = punctual::task::log::Follower::new(&context.log);
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(follower.next().await.lines.into_iter().map(|line| (line.text, line.stream)));
    }
    seen.sort_by(|(one, _), (other, _)| one.cmp(other));
    assert_eq!(seen, [("err".to_owned(), Stream::Stderr), ("out".to_owned(), Stream::Stdout)]);
    std::fs::write(&gate.path, "go\n").unwrap();
    let output = bench.ended().await.output;
    assert_eq!(output.lines().last().unwrap().text, "late");
    bench.assert_nothing_more().await;
}

#[tokio::test]
async fn a_run_knows_what_it_is() {
    let mut bench = Bench::commands();
    let script = "echo $PUNCTUAL_JOB_ID,$PUNCTUAL_RUN_ID,$PUNCTUAL_ATTEMPT,$PUNCTUAL_SCHEDULED_AT,\
        ${PUNCTUAL_EVENT-none},$TRACEPARENT; cat";
    for task in [shell(script), through_shim(shell(script))] {
        let mut assignment = bench.assignment(&task);
        (assignment.attempt, assignment.scheduled_at) = (3, Some(occurrence()));
        let (run_id, trace) = (assignment.run_id.0.to_string(), assignment.traceparent());
        bench.hand_over(assignment);
        let expected = format!("a job,{run_id},3,2027-01-02T03:04:05.678901Z,none,{trace}\n");
        assert_eq!(bench.ended().await.output.text(), expected);
        // By hand there is no occurrence.
        let manual = with(task, json!({"shell": "echo ${PUNCTUAL_SCHEDULED_AT-none}"}));
        assert_eq!(bench.output(&manual).await, "none\n");
    }
    bench.assert_nothing_more().await;
}

#[tokio::test]
async fn a_hook_command_reads_the_event_from_stdin_unless_it_has_an_input_of_its_own() {
    let mut bench = Bench::commands();
    let event = json!({
        "event": "failure", "host": "web1", "job": {"id": "backup"}, "output": "no space\n",
        "run": {"id": "x", "state": "failed", "error": "exit code 1", "exit_code": 1, "attempt": 2},
    });
    let task = shell("echo $PUNCTUAL_EVENT; cat");
    let own = with(task.clone(), json!({"stdin": "own"}));
    let as_json = with(task.clone(), json!({"report": "json"}));
    let about = "echo $PUNCTUAL_RUN_ID $PUNCTUAL_STATE $PUNCTUAL_EXIT_CODE; \
        echo $PUNCTUAL_ERROR, $PUNCTUAL_OUTPUT, $PUNCTUAL_HOST; test $PUNCTUAL_HOOK_RUN_ID != x";
    let report = "failure\n[web1] job backup failed: exit code 1\n\nJob:         backup\n\
        Host:        web1\nState:       failed\nError:       exit code 1\nExit code:   1\n\
        Attempt:     2\nRun:         x\n\nThe end of its output:\n\nno space\n\n\
        All that is kept of it: punctual logs x\n";
    let cases = [
        (task.clone(), report.to_owned()),
        (through_shim(task), report.to_owned()),
        (as_json, format!("failure\n{event}\n")),
        (own, "failure\nown\n".to_owned()),
        (shell(about), "x failed 1\nexit code 1, no space , web1\n".to_owned()),
    ];
    for (task, expected) in cases {
        let mut assignment = bench.assignment(&task);
        assignment.event = Some(Arc::new(event.clone()));
        bench.hand_over(assignment);
        assert_eq!(bench.ended().await.output.text(), expected);
    }
    bench.assert_nothing_more().await;
}

#[tokio::test]
async fn a_command_gets_the_settings_of_its_task_and_they_do_not_leak() {
    let mut bench = Bench::commands();
    let given = json!({
        "umask": "0137", "nice": 7, "limits": {"memory": "1G", "cpu": 77, "files": 55},
    });
    let task = with(shell("umask; nice; ulimit -v; ulimit -t; ulimit -n"), given.clone());
    assert_eq!(bench.output(&task).await, "0137\n7\n1048576\n77\n55\n");
    // Neither the environment nor the open files differ from those of a command without all that.
    let look =
        "env | grep -v -e ^PUNCTUAL_ -e ^TRACEPARENT -e ^_= | sort; ls /proc/self/fd; echo $0 $#";
    let plain = bench.output(&shell(look)).await;
    assert_eq!(bench.output(&with(shell(look), given)).await, plain);
    bench.assert_nothing_more().await;
}

#[tokio::test]
async fn a_command_runs_as_the_user_and_in_the_group_that_it_names() {
    if !is_root() {
        return left_out("another user can be tested by root only");
    }
    let mut bench = Bench::commands();
    let script = "id -u; id -g; echo $HOME $USER $LOGNAME; touch made; stat -c %a made";
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(folder.path(), Some(65534), Some(65534)).unwrap();
    let given = json!({"user": "nobody", "cwd": folder.path(), "umask": "027"});
    let nobody = "65534\n65534\n/ nobody nobody\n640\n";
    assert_eq!(bench.output(&with(shell(script), given)).await, nobody);
    // A folder is taken from where a command of that user begins.
    let given = json!({"user": "nobody", "cwd": "usr"});
    assert_eq!(bench.output(&with(shell("pwd"), given)).await, "/usr\n");
    let made = folder.path().join("made").metadata().unwrap();
    assert_eq!((made.uid(), made.gid()), (65534, 65534));
    let ids = |given: Value| with(shell("id -u; id -g; id -G; echo $HOME"), given);
    let home = |text: &str| json!({"HOME": text});
    let given = json!({"user": "65534", "group": "100", "env": home("/mine")});
    assert_eq!(bench.output(&ids(given)).await, "65534\n100\n100\n/mine\n");
    let given = json!({"user": "54321", "group": "54322", "env": home("/mine")});
    assert_eq!(bench.output(&ids(given)).await, "54321\n54322\n54322\n/mine\n");
    let given = json!({"group": "nogroup", "env": home("/mine")});
    assert_eq!(bench.output(&ids(given)).await, "0\n65534\n65534\n/mine\n");
    let cases = [
        (json!({"user": "nobody-at-all"}), "user: there is no user \"nobody-at-all\""),
        (json!({"group": "no-such"}), "group: there is no group \"no-such\""),
        (json!({"user": "54321"}), "user: \"54321\" has no group of its own; give \"group\" too"),
        (json!({"user": "4294967295"}), "user: there is no user \"4294967295\""),
    ];
    for (given, error) in cases {
        assert_eq!(bench.failure(&with(shell("true"), given)).await, refused(error));
    }
    bench.assert_nothing_more().await;
}

#[tokio::test]
async fn settings_for_root_fail_permanently_when_the_daemon_is_not_root() {
    // A shim that has given up its rights stands for the daemon that never had them.
    let folder = tempfile::tempdir().unwrap();
    let shim = folder.path().join("shim");
    if is_root() {
        let copied = Command::new("cp").arg(program()).arg(folder.path().join("punctual")).status();
        assert!(copied.unwrap().success());
        let script = format!(
            "#!/bin/sh\nexec setpriv --reuid=65534 --regid=65534 --clear-groups {}/punctual \"$@\"\n",
            folder.path().display()
        );
        executable(&shim, &script);
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    } else {
        std::os::unix::fs::symlink(program(), &shim).unwrap();
    }
    let mut bench = Bench::commands_through(&shim);
    let lacks = "this daemon lacks CAP_SETUID, CAP_SETGID, CAP_KILL, and cannot run and end commands of another user; \
        see \"Jobs as other users\" in OPERATIONS.md";
    let lacks_group = "this daemon lacks CAP_SETGID, and cannot run a command in another group; \
        see \"Jobs as other users\" in OPERATIONS.md";
    let cases = [
        (json!({"user": "root"}), format!("user: {lacks}")),
        (json!({"group": "root"}), format!("group: {lacks_group}")),
        (json!({"nice": -3}), "nice cannot be set to -3: permission denied: the daemon or the kernel allows less".to_owned()),
        (
            json!({"limits": {"files": 2_000_000_000}}),
            "limits.files cannot be set to 2000000000: permission denied: the daemon or the kernel allows less".to_owned(),
        ),
    ];
    for (given, error) in cases {
        assert_eq!(bench.failure(&with(shell("true"), given)).await, refused(&error));
    }
    let given = json!({"nice": 3, "limits": {"files": 64}});
    assert_eq!(bench.output(&with(shell("nice; ulimit -n"), given)).await, "3\n64\n");
    if is_root() {
        // It is no other user.
        for given in [json!({"user": "nobody"}), json!({"user": "65534", "group": "nogroup"})] {
            let output = bench.output(&with(shell("id -u; id -g; echo $USER"), given)).await;
            assert_eq!(output, "65534\n65534\nnobody\n");
        }
    }
    bench.assert_nothing_more().await;
}

#[tokio::test]
async fn exit_codes_mean_what_the_task_says() {
    let mut bench = Bench::commands();
    for change in [|task: Value| task, through_shim] {
        let codes = json!({"success_codes": [0, 3], "no_retry_codes": [64, 1]});
        let exit = |code: i32| change(with(shell(&format!("exit {code}")), codes.clone()));
        for code in [0, 3] {
            let success = Outcome::Succeeded { result: None, exit_code: Some(code) };
            assert_eq!(bench.run(&exit(code)).await.outcome, success);
        }
        for (code, permanent) in [(1, true), (64, true), (2, false), (255, false)] {
            let error = format!("exit code {code}");
            let failure = Failure { error, exit_code: Some(code), signal: None, permanent };
            assert_eq!(bench.failure(&exit(code)).await, failure);
        }
    }
    bench.assert_nothing_more().await;
}

#[tokio::test]
async fn a_run_says_what_it_has_cost() {
    const ALLOCATED: u64 = 512 << 20;
    let mut bench = Bench::commands();
    let burn = bench.run(&shell("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done")).await;
    assert!(burn.cost.cpu_micros.unwrap() > 1000, "{:?}", burn.cost);
    assert!(burn.finished_at > burn.started_at);
    // A signal must not make one of the reads a shorter one.
    let task = shell("dd if=/dev/zero of=/dev/null bs=512M count=1 iflag=fullblock 2> /dev/null");
    let peak = bench.run(&task).await.cost.peak_memory.unwrap();
    assert!((ALLOCATED..ALLOCATED + (64 << 20)).contains(&peak), "{peak}");
    // A child begins in the memory of this process: what is less than that is not the command's own.
    let small = bench.run(&json!({"type": "command", "argv": ["true"]})).await.cost;
    assert!(small.peak_memory.is_none_or(|peak| peak < ALLOCATED), "{small:?}");
    bench.assert_nothing_more().await;
}

#[tokio::test]
async fn a_process_left_behind_lives_on_and_does_not_delay_the_end_of_its_run() {
    let mut bench = Bench::commands();
    for (script, ended) in [
        ("setsid sleep 600 < /dev/null > /dev/null 2>&1 & echo left", true),
        // This one holds the outputs open.
        ("setsid sleep 600 & echo left", true),
        ("sleep 600 & echo left; exit 3", false),
    ] {
        for task in [shell(script), through_shim(shell(script))] {
            let execution = bench.start(&task);
            let completion = bench.ended().await;
            assert_eq!(matches!(completion.outcome, Outcome::Succeeded { .. }), ended, "{script}");
            assert_eq!(completion.output.text(), "left\n", "{script}");
            assert_eq!(living(&execution).len(), 1, "{script}");
            // As after a crash of the daemon; another attempt of the same run is not meant.
            assert_eq!(kill_orphans(&[(execution.0.clone(), 2)]), 0);
            assert_eq!(kill_orphans(&[(execution.0.clone(), 2), execution.clone()]), 1);
            assert!(living(&execution).is_empty());
        }
    }
    assert_eq!(kill_orphans(&[]), 0);
    bench.assert_nothing_more().await;
}

#[tokio::test]
async fn a_command_leads_a_session_of_its_own_and_has_no_terminal_and_the_usual_signals() {
    let mut bench = Bench::commands();
    let script = "set -- $(cat /proc/$$/stat); [ $$ = $5 ] && [ $$ = $6 ] && echo leads; \
        (exec < /dev/tty) 2>&1 | grep -o 'No such device.*'; \
        grep -E '^Sig(Blk|Ign)' /proc/$$/status | cut -f2 | sed s/0000000180000000/0000000000000000/ | sort -u";
    let expected = "leads\nNo such device or address\n0000000000000000\n";
    let in_folder = with(shell(script), json!({"cwd": "/"}));
    for task in [shell(script), in_folder, through_shim(shell(script))] {
        assert_eq!(bench.output(&task).await, expected, "{task}");
    }
    bench.assert_nothing_more().await;
}

#[tokio::test]
async fn a_process_left_behind_can_write_for_as_long_as_it_lives() {
    let home = Home::new("");
    let (mut written, gate) = (home.signal("written"), home.signal("gate"));
    let mut bench = Bench::commands();
    let (to, from) = (written.path.display(), gate.path.display());
    let left = format!("(read x < {from}; seq 100000; echo \"wrote $?\" > {to}) & echo left");
    let execution = bench.start(&shell(&left));
    assert_eq!(bench.ended().await.output.text(), "left\n");
    // More than a pipe holds, so somebody has to read it.
    std::fs::write(&gate.path, "go\n").unwrap();
    assert_eq!(written.next().await, "wrote 0");
    kill_orphans(&[execution]);
    bench.assert_nothing_more().await;
}

#[tokio::test]
async fn variables_of_a_command_have_no_effect_before_it_begins() {
    let mut bench = Bench::commands();
    // With this variable the loader prints each program that it starts: it must be the command alone.
    let env = json!({"LD_SHOW_AUXV": "1"});
    let mut cases = vec![json!({"nice": 1, "env": env})];
    if is_root() {
        cases.push(json!({"user": "nobody", "env": env}));
    }
    for given in cases {
        let output =
            bench.output(&with(json!({"type": "command", "argv": ["/bin/true"]}), given)).await;
        let started = output.lines().filter(|line| line.starts_with("AT_EXECFN"));
        let started: Vec<_> = started.filter_map(|line| line.split_whitespace().last()).collect();
        assert_eq!(started, ["/bin/true"], "{output}");
    }
}

#[tokio::test]
async fn a_command_of_another_user_gets_little_of_the_daemons_environment() {
    if !is_root() {
        return left_out("another user can be tested by root only");
    }
    let mut bench = Bench::commands();
    let task = with(shell("env | cut -d= -f1"), json!({"user": "nobody", "env": {"MINE": "1"}}));
    let output = bench.output(&task).await;
    let names: Vec<&str> = output.lines().collect();
    for name in ["MINE", "PATH", "HOME", "USER", "PUNCTUAL_RUN_ID", "TRACEPARENT"] {
        assert!(names.contains(&name), "{name} is missing: {names:?}");
    }
    // The tests themselves are started with many variables of this kind.
    assert!(!names.iter().any(|name| name.starts_with("CARGO")), "{names:?}");
    let own = with(shell("env"), json!({"user": "root"}));
    assert!(bench.output(&own).await.contains("CARGO"), "it is no other user");
    bench.assert_nothing_more().await;
}

#[tokio::test]
async fn processes_left_in_a_group_after_its_leader_ended_may_clean_up_too() {
    let home = Home::new("");
    let (mut ready, gate) = (home.signal("ready"), home.signal("gate"));
    let mut bench = Bench::commands();
    let (ready_path, gate_path) = (ready.path.display(), gate.path.display());
    // A process that has just been forked still has the trap of its parent: only after `exec` it can be ended.
    let child = format!(
        "trap 'echo asked > {ready_path}; read x < {gate_path}; echo cleaned; exit' TERM; \
        sh -c 'echo ready > {ready_path}; exec sleep 600' & wait"
    );
    let task = with(shell(&format!("({child}) & wait")), json!({"kill_grace": 600}));
    let execution = bench.start(&task);
    assert_eq!(ready.next().await, "ready");
    bench.cancel(&execution);
    assert_eq!(ready.next().await, "asked");
    std::fs::write(&gate.path, "go\n").unwrap();
    let completion = bench.ended().await;
    assert_eq!(
        (completion.outcome, completion.output.text()),
        (cancelled(), "cleaned\n".to_owned())
    );
    assert!(living(&execution).is_empty());
    bench.assert_nothing_more().await;
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_ended_with_all_that_belongs_to_it() {
    let mut bench = Bench::commands();
    let task = shell("setsid sleep 600 & sleep 600 & echo begun; wait");
    for task in [task.clone(), through_shim(task)] {
        let mut assignment = bench.assignment(&task);
        assignment.timeout = Some(Duration::from_millis(300));
        let execution = assignment.execution();
        bench.hand_over(assignment);
        let completion = bench.ended().await;
        let error = "it did not end within 300ms".to_owned();
        assert_eq!(completion.outcome, Outcome::TimedOut { error });
        assert!(living(&execution).is_empty());
    }
    bench.assert_nothing_more().await;
}

#[tokio::test]
async fn a_shim_that_ends_before_it_could_do_anything_is_no_command_that_ended_so() {
    let folder = tempfile::tempdir().unwrap();
    let shim = folder.path().join("shim");
    executable(&shim, "#!/bin/sh\nexit 0\n");
    let mut bench = Bench::commands_through(&shim);
    let failure = bench.failure(&through_shim(shell("true"))).await;
    assert!(failure.error.contains("could not be started") && failure.exit_code.is_none());
    let mut bench = Bench::commands_through(&folder.path().join("missing"));
    let failure = bench.failure(&through_shim(shell("true"))).await;
    assert!(failure.error.contains("could not be started"), "{failure:?}");
}

#[test]
fn the_shim_is_of_no_use_to_a_person() {
    let home = Home::new("");
    let (code, said) = home.fails(&["exec"]);
    assert!(code == 1 && said.contains("only the daemon starts this"), "{said}");
    assert!(!home.ok(&["--help"]).contains("exec "), "it is not shown");
    assert!(Task::parse(&shell("true")).is_ok());
}

/// A cgroup of its own for a test, in that of the tests.
struct Cgroup {
    folder: PathBuf,
}

impl Cgroup {
    /// None if there is no hierarchy that can be written.
    fn new() -> Option<Self> {
        let mount = Self::mount()?;
        let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let name = format!("punctual-test-{}", uuid::Uuid::now_v7());
        let folder = Path::new(&mount).join(own).join(name);
        std::fs::create_dir(&folder).ok()?;
        Some(Self { folder })
    }

    /// Where the hierarchy is mounted.
    fn mount() -> Option<String> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
        let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        Some(mounts.find(|fields| fields[2] == "cgroup2")?[1].to_owned())
    }

    /// All cgroups in it, each before those that it holds.
    fn inner(&self) -> Vec<PathBuf> {
        let mut all = vec![self.folder.clone()];
        let mut next = 0;
        while let Some(folder) = all.get(next) {
            // A launcher that has just ended takes its folder along.
            let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
            let paths = entries.map(|entry| entry.path());
            let found: Vec<PathBuf> = paths.filter(|path| path.is_dir()).collect();
            all.extend(found);
            next += 1;
        }
        all.remove(0);
        all
    }

    /// All processes in it.
    fn processes(&self) -> Vec<String> {
        let read = |folder: &PathBuf| std::fs::read_to_string(folder.join("cgroup.procs"));
        let texts = self.inner().iter().filter_map(|folder| read(folder).ok()).collect::<String>();
        texts.lines().map(str::to_owned).collect()
    }

    /// A home whose daemon is in it, and may divide it.
    fn home(&self) -> Home {
        Home::new("[executors.processpool]\ntype = \"processpool\"\nmax_workers = 5\n").starting_by(
            &format!(
                "echo 0 > {}/cgroup.procs; PUNCTUAL_CGROUP=1 exec \"$@\"",
                self.folder.display()
            ),
        )
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A test that failed may have left something.
        drop(std::fs::write(self.folder.join("cgroup.kill"), "1"));
        for inner in self.inner().iter().rev() {
            drop(std::fs::remove_dir(inner));
        }
        drop(std::fs::remove_dir(&self.folder));
    }
}

/// Runs a job to its end; the run, and what it wrote.
async fn run_and_read(client: &Client, id: &str) -> (Value, String) {
    let run = run_to_end(client, id).await;
    let output = client.output(text(&run, "id")).await.unwrap();
    let lines = output["lines"].as_array().unwrap().iter();
    let written = lines.flat_map(|line| [text(line, "text"), "\n"]).collect();
    (run, written)
}

fn lives(pid: &str) -> bool {
    Path::new("/proc").join(pid).join("exe").exists()
}

/// A shell command for what leaves its group, its session, its parents and even its environment behind. It writes its
/// number to a file, and goes on once that is a process which sleeps.
fn escape(first: &str, file: &Path) -> String {
    let file = file.display();
    format!(
        "env -i /usr/bin/setsid /bin/sh -c '{first} echo $$ > {file}.new; exec /bin/sleep 600' >/dev/null 2>&1 & \
         until test -s {file}.new; do sleep 0.01; done; \
         until grep -q sleep /proc/$(cat {file}.new)/comm; do sleep 0.01; done; mv {file}.new {file};"
    )
}

fn read_pid(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap().trim().to_owned()
}

#[tokio::test]
async fn nothing_escapes_from_the_cgroup_of_a_run_that_is_ended() {
    let Some(cgroup) = Cgroup::new() else {
        return left_out("no cgroup of version 2 can be written");
    };
    let home = cgroup.home();
    let daemon = home.start();
    let (client, pid) = (home.client(), home.path().join("pid"));
    let mut ready = home.signal("ready");
    let look = format!("cat /proc/self/cgroup > {}; sleep 600", ready.path.display());
    let script = format!("{} {look}", escape("trap \"\" TERM;", &pid));
    let job = by_hand("slow", with(shell(&script), json!({"kill_grace": 0.1})));
    client.add(&job).await.unwrap();
    let run = client.run("slow").await.unwrap();
    let mut line = ready.next().await;
    while !line.starts_with("0::") {
        line = ready.next().await;
    }
    assert!(line.contains("/commands-"), "{line}");
    client.cancel(text(&run, "id"), None).await.unwrap();
    let run = support::ended(&client, text(&run, "id")).await;
    assert_eq!(run["state"], "cancelled", "{run}");
    assert!(!lives(&read_pid(&pid)), "it has escaped");
    assert!(daemon.stop().success());
    assert!(cgroup.inner().is_empty(), "nothing is left");
}

#[tokio::test]
async fn processes_left_in_a_cgroup_are_reported_with_the_run_and_ended_with_it() {
    let Some(cgroup) = Cgroup::new() else {
        return left_out("no cgroup of version 2 can be written");
    };
    let home = cgroup.home();
    let daemon = home.start();
    let (client, pid) = (home.client(), home.path().join("pid"));
    let leaver = shell(&format!("{} exit 3", escape("", &pid)));
    client.add(&by_hand("leaver", leaver)).await.unwrap();
    let (run, output) = run_and_read(&client, "leaver").await;
    let end = (text(&run, "state"), &run["exit_code"]);
    assert_eq!(end, ("failed", &json!(3)), "the end of the command itself counts");
    assert_eq!(output, "punctual: ending 1 process that the command has left behind: sleep\n");
    assert!(!lives(&read_pid(&pid)), "it lives on");
    // What soon ends by itself may do so.
    let script = "(setsid sh -c 'sleep 0.1; echo last words') & exit 0";
    client.add(&by_hand("hasty", shell(script))).await.unwrap();
    let (run, output) = run_and_read(&client, "hasty").await;
    assert_eq!((text(&run, "state"), &*output), ("succeeded", "last words\n"));
    // What does not end when asked to is killed, also if it hides in a cgroup of its own.
    let own = format!("{}$(sed -n s/^0:://p /proc/self/cgroup)", Cgroup::mount().unwrap());
    let hide = format!("mkdir {own}/inner && echo $$ > {own}/inner/cgroup.procs;");
    let script = format!("{hide} {} true", escape("trap \"\" TERM;", &pid));
    let stubborn = with(shell(&script), json!({"kill_grace": 0.1}));
    client.add(&by_hand("stubborn", stubborn)).await.unwrap();
    let (run, output) = run_and_read(&client, "stubborn").await;
    assert_eq!(text(&run, "state"), "succeeded", "{run} {output}");
    assert!(output.contains("ending 1 process"), "{output}");
    assert!(!lives(&read_pid(&pid)), "it lives on");
    assert!(daemon.stop().success());
    assert!(cgroup.inner().is_empty(), "nothing is left");
}

#[tokio::test]
async fn one_process_starts_command_after_command_in_its_cgroup_and_is_replaced_when_it_dies() {
    let Some(cgroup) = Cgroup::new() else {
        return left_out("no cgroup of version 2 can be written");
    };
    let home = cgroup.home();
    let daemon = home.start();
    let client = home.client();
    client.add(&by_hand("parent", shell("echo $PPID"))).await.unwrap();
    let (_, first) = run_and_read(&client, "parent").await;
    assert!(cgroup.processes().contains(&first.trim().to_owned()), "it is not the daemon: {first}");
    for _ in 0..5 {
        assert_eq!(run_and_read(&client, "parent").await.1, first, "it is the same");
    }
    client.add(&by_hand("killer", shell("kill -9 $PPID; sleep 600"))).await.unwrap();
    let (run, _) = run_and_read(&client, "killer").await;
    let expected = "the command could not be waited for: the launcher has ended: \
        ended by signal 9 (SIGKILL)";
    assert_eq!((text(&run, "state"), text(&run, "error")), ("failed", expected));
    let (run, second) = run_and_read(&client, "parent").await;
    assert!(text(&run, "state") == "succeeded" && second != first, "{run} {second}");
    // All that wait for commands.
    let waiting = cgroup.processes();
    for pid in &waiting {
        assert!(Command::new("kill").args(["-9", pid]).status().unwrap().success());
    }
    while cgroup.processes().iter().any(|pid| waiting.contains(pid)) {
        tokio::task::yield_now().await;
    }
    let (run, third) = run_and_read(&client, "parent").await;
    assert!(text(&run, "state") == "succeeded" && third != second, "{run} {third}");
    assert!(daemon.stop().success());
    assert!(cgroup.inner().is_empty(), "nothing is left");
}

#[tokio::test]
async fn a_process_that_a_command_has_spoilt_starts_no_other_commands() {
    let Some(cgroup) = Cgroup::new() else {
        return left_out("no cgroup of version 2 can be written");
    };
    let home = cgroup.home();
    let _daemon = home.start();
    let client = home.client();
    let own = format!("{}$(sed -n s/^0:://p /proc/self/cgroup)", Cgroup::mount().unwrap());
    let spoilers = [
        "prlimit --pid $PPID --nofile=3:3".to_owned(),
        format!("for to in ../main ..; do echo $PPID > {own}/../$to/cgroup.procs && exit 0; done"),
    ];
    client.add(&by_hand("after", shell("cat /proc/self/cgroup"))).await.unwrap();
    for (number, spoiler) in spoilers.iter().enumerate() {
        let id = number.to_string();
        client.add(&by_hand(&id, shell(spoiler))).await.unwrap();
        let (run, output) = run_and_read(&client, &id).await;
        assert_eq!(text(&run, "state"), "succeeded", "{output}");
        let (run, output) = run_and_read(&client, "after").await;
        assert!(text(&run, "state") == "succeeded" && output.contains("/commands-"), "{output}");
    }
}

#[tokio::test]
async fn a_daemon_that_is_killed_takes_the_processes_in_the_cgroups_of_its_commands_with_it() {
    let Some(cgroup) = Cgroup::new() else {
        return left_out("no cgroup of version 2 can be written");
    };
    let home = cgroup.home();
    let daemon = home.start();
    let (client, mut ready) = (home.client(), home.signal("ready"));
    let pid = home.path().join("pid");
    let script = format!("{} echo > {}; sleep 600", escape("", &pid), ready.path.display());
    let mut job = by_hand("long", shell(&script));
    job["on_crash"] = json!("lose");
    client.add(&job).await.unwrap();
    client.run("long").await.unwrap();
    ready.next().await;
    assert!(lives(&read_pid(&pid)));
    daemon.kill();
    while lives(&read_pid(&pid)) || !cgroup.processes().is_empty() {
        tokio::task::yield_now().await;
    }
    // The next daemon removes the cgroups.
    let daemon = home.start();
    let runs = client.runs("job=long").await.unwrap();
    assert_eq!(text(&runs["runs"][0], "state"), "lost", "{runs}");
    assert!(daemon.stop().success());
    assert!(cgroup.inner().is_empty(), "nothing is left");
}

#[tokio::test]
async fn a_limit_that_no_controller_enforces_is_refused_by_its_field() {
    let home = Home::new("");
    let _daemon = home.start_in(&[("PUNCTUAL_CGROUP", "0")]);
    for (field, limit) in [("total_memory", 8_388_608), ("processes", 10), ("cores", 2)] {
        let task = with(shell("true"), json!({"limits": {field: limit}}));
        let refused = home.client().add(&by_hand("limited", task)).await.unwrap_err().to_string();
        assert!(
            refused.contains(&format!("task.limits.{field}: cannot be enforced here")),
            "{refused}"
        );
    }
}
