//! A faulty `jobs.toml` is refused with one line that names the key, before anything is changed.

use std::path::Path;

use support::Home;

/// A job that is in order, up to its last line.
const JOB: &str = "[[jobs]]\nid = \"a\"\ntrigger = { type = \"cron\", hour = 3 }\n\
                   task = { type = \"builtin\", name = \"noop\" }\n";

/// A job with this trigger.
fn with_trigger(trigger: &str) -> String {
    format!(
        "[[jobs]]\nid = \"a\"\ntask = {{ type = \"builtin\", name = \"noop\" }}\ntrigger = {{ {trigger} }}\n"
    )
}

/// A job with this task.
fn with_task(task: &str) -> String {
    format!(
        "[[jobs]]\nid = \"a\"\ntrigger = {{ type = \"cron\", hour = 3 }}\ntask = {{ {task} }}\n"
    )
}

/// The job that is in order, and one more line.
fn with(line: &str) -> String {
    format!("{JOB}{line}\n")
}

/// Asserts that `serve` and `check` refuse the file in the same way: exit code 2, and one line that begins with the
/// place and has `said`.
fn refused(text: &str, place: &str, said: &str) {
    let demo = &["serve", "--config", "jobs.toml", "--demo"];
    refused_by(&[&["serve"], &["check"], demo], text, place, said);
}

/// Asserts that `check` refuses the file for one of its jobs. A start goes on without that job.
fn refused_job(text: &str, place: &str, said: &str) {
    refused_by(&[&["check"]], text, place, said);
}

fn refused_by(verbs: &[&[&str]], text: &str, place: &str, said: &str) {
    let home = Home::new(text);
    for verb in verbs {
        let (code, complaint) = home.fails(verb);
        assert_eq!(code, 2, "{verb:?}: {complaint}\n{text}");
        let line = complaint.strip_suffix('\n').unwrap();
        let at = format!("punctual: jobs.toml:{place}: ");
        assert!(line.starts_with(&at) && !line.contains('\n'), "{verb:?}: {line}\n{text}");
        let rest = line.strip_prefix(&at).unwrap();
        assert!(rest.contains(said), "{verb:?}: {line}\n{text}");
    }
    let left: Vec<_> =
        std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["jobs.toml"], "no store, no socket");
}

#[test]
fn a_file_that_is_no_file_or_too_large_is_refused_and_not_waited_for() {
    let home = Home::new("");
    let path = home.path().join("jobs.toml");
    std::fs::File::create(&path).unwrap().set_len(4 << 30).unwrap();
    let refused = |said: &str| {
        for verb in [&["serve"][..], &["check"]] {
            let (code, complaint) = home.fails(verb);
            assert_eq!(code, 2, "{verb:?}: {complaint}");
            assert!(complaint.starts_with("punctual: jobs.toml: cannot be read: "), "{complaint}");
            assert!(complaint.contains(said), "{complaint}");
        }
    };
    refused("more than");
    std::fs::remove_file(&path).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
    refused("not a regular file");
}

#[test]
fn a_fault_of_the_stores_url_quotes_no_part_of_it() {
    for url in ["\"postgres://me@host/db?sslmode=WrongPwBBB222\"", "{ env = \"STORE_URL\" }"] {
        let mut home = Home::new(&format!("[store]\nurl = {url}\n"));
        home.set("STORE_URL", "postgres://me@host/db?sslmode=WrongPwBBB222");
        let (code, complaint) = home.fails(&["serve"]);
        assert_eq!(code, 2, "{complaint}");
        assert!(complaint.starts_with("punctual: jobs.toml:2:1: store.url: "), "{complaint}");
        assert!(!complaint.contains("Wrong"), "{complaint}");
    }
}

#[test]
fn a_heartbeat_holds_no_password() {
    let job = with("heartbeat = \"https://user:password@example.org/x\"");
    refused_job(&job, "5:1", "must not hold a user or a password");
}

#[test]
fn invalid_toml_is_refused_with_its_position() {
    refused("a = 1\nb = = 2\n", "2:5", "not TOML");
    refused("[scheduler\n", "1:11", "not TOML");
    refused("[scheduler]\ndrain_seconds = 1\ndrain_seconds = 2\n", "3:1", "not TOML");
    refused("[store]\nurl = \"sqlite://x\n", "2:18", "not TOML");
    refused("[store]\n[store]\n", "2:2", "not TOML");
    refused(
        "[scheduler]\ndrain_seconds = 99999999999999999999\n",
        "2:1",
        "scheduler.drain_seconds",
    );
    refused_job(
        &with_trigger("type = \"interval\", seconds = inf"),
        "4:32",
        "jobs[0].trigger.seconds",
    );
}

#[test]
fn an_unknown_key_is_refused_at_every_level() {
    refused("\n[shceduler]\n", "2:2", "shceduler");
    refused("[scheduler]\ncolour = 1\n", "2:1", "scheduler.colour");
    refused(
        "[scheduler]\njob_defaults = { colour = 1 }\n",
        "2:18",
        "scheduler.job_defaults.colour",
    );
    refused("[store]\npath = \"x\"\n", "2:1", "store.path");
    refused(
        "[executors.default]\ntype = \"threadpool\"\ncolour = 1\n",
        "3:1",
        "executors.default.colour",
    );
    refused("[control]\nport = 1\n", "2:1", "control.port");
    refused("[toutiao]\nport = 1\n", "2:1", "toutiao.port");
    refused("[toutiao]\nredis = { url = \"redis://h\", db = 1 }\n", "2:30", "toutiao.redis.db");
    refused("[toutiao.keys]\nuser_fans = \"x\"\n", "2:1", "toutiao.keys.user_fans");
    refused_job(&with("colour = 1"), "5:1", "jobs[0].colour");
    refused_job(
        &with_trigger("type = \"cron\", hour = 3, colour = 1"),
        "4:38",
        "jobs[0].trigger.colour",
    );
    refused_job(
        &with_trigger("type = \"interval\", hours = 3, colour = 1"),
        "4:43",
        "jobs[0].trigger.colour",
    );
    refused_job(
        &with_task("type = \"builtin\", name = \"noop\", colour = 1"),
        "4:43",
        "jobs[0].task.colour",
    );
    refused_job(
        &with_task("type = \"command\", argv = [\"true\"], colour = 1"),
        "4:45",
        "jobs[0].task.colour",
    );
}

#[test]
fn a_bad_setting_is_refused_at_its_key() {
    refused("[scheduler]\ntimezone = \"Mars/Base\"\n", "2:1", "scheduler.timezone");
    refused("[scheduler]\ndrain_seconds = -1\n", "2:1", "scheduler.drain_seconds");
    refused("[scheduler]\ndrain_seconds = 3601\n", "2:1", "scheduler.drain_seconds");
    for wrong in ["0", "-1", "1001", "1.5", "\"3\"", "true", "4294967297"] {
        let given = format!("[scheduler]\nmax_crashes = {wrong}\n");
        refused(&given, "2:1", "scheduler.max_crashes");
    }
    refused("[scheduler]\ndrain_seconds = \"30\"\n", "2:1", "scheduler.drain_seconds");
    refused(
        "[scheduler]\njob_defaults = { max_instances = 0 }\n",
        "2:18",
        "job_defaults.max_instances",
    );
    refused(
        "[scheduler]\njob_defaults = { coalesce = \"some\" }\n",
        "2:18",
        "job_defaults.coalesce",
    );
    refused("[store]\nurl = \"redis://h/x\"\n", "2:1", "store.url");
    let days = ["runs_days", "errors_days", "output_days"];
    let counts = ["runs_per_job", "errors_per_job", "hooks_per_job", "skipped_per_job"];
    for key in days.into_iter().chain(counts) {
        let field = format!("retention.{key}");
        for bad in ["0", "-1", "\"30\"", "2000000000", "1.5"] {
            refused(&format!("[retention]\n{key} = {bad}\n"), "2:1", &field);
        }
    }
    refused("[retention]\ninterval_seconds = 0\n", "2:1", "retention.interval_seconds");
    refused("[retention]\nrun_days = 1\n", "2:1", "retention.run_days");
    for key in ["finished_jobs_seconds", "max_finished_jobs", "max_runs", "max_bytes"] {
        refused(&format!("[retention]\n{key} = 0\n"), "2:1", &format!("retention.{key}"));
    }
    refused("[executors.x]\ntype = \"fibers\"\n", "2:1", "executors.x.type");
    refused("\n[executors.x]\nmax_workers = 1\n", "2:12", "executors.x");
    refused(
        "[executors.x]\ntype = \"threadpool\"\nmax_workers = 0\n",
        "3:1",
        "executors.x.max_workers",
    );
    for mode in ["0999", "rw", "1777", ""] {
        refused(&format!("[control]\nmode = \"{mode}\"\n"), "2:1", "control.mode");
    }
    refused("[control]\nmode = 660\n", "2:1", "control.mode");
}

#[test]
fn a_bad_job_is_refused_at_its_key() {
    refused_job(&with_trigger("type = \"cron\", hour = 99"), "4:28", "jobs[0].trigger.hour");
    refused_job(
        &with_trigger("type = \"cron\", day_of_week = \"mon-moon\""),
        "4:28",
        "trigger.day_of_week",
    );
    refused_job(&with_trigger("type = \"cron\", hour = \"*/0\""), "4:28", "jobs[0].trigger.hour");
    refused_job(&with_trigger("type = \"cron\""), "4:1", "jobs[0].trigger");
    refused_job(&with_trigger("type = \"cron\", month = 2, day = 30"), "4:1", "never fire");
    refused_job(&with_trigger("type = \"moon\""), "4:13", "jobs[0].trigger.type");
    refused_job(&with_trigger("hour = 3"), "4:1", "jobs[0].trigger");
    refused_job(
        &with_trigger("type = \"interval\", seconds = -5"),
        "4:32",
        "jobs[0].trigger.seconds",
    );
    refused_job(&with_trigger("type = \"interval\", seconds = 0"), "4:1", "jobs[0].trigger");
    refused_job(
        &with_trigger("type = \"date\", run_date = \"soon\""),
        "4:28",
        "jobs[0].trigger.run_date",
    );
    refused_job(
        &with_trigger("type = \"cron\", hour = 3, timezone = \"Mars/Base\""),
        "4:38",
        "trigger.timezone",
    );
    refused_job(&with_task("type = \"builtin\", name = \"nope\""), "4:28", "jobs[0].task.name");
    refused_job(
        &with_task("type = \"builtin\", name = \"sleep\", args = { seconds = -1 }"),
        "4:53",
        "task.args.seconds",
    );
    refused_job(&with_task("type = \"command\", argv = []"), "4:28", "jobs[0].task.argv");
    refused_job(
        &with_task("type = \"command\", argv = [\"true\", 1]"),
        "4:44",
        "jobs[0].task.argv[1]",
    );
    refused_job(
        &with_task("type = \"command\", argv = [\"true\"], report = \"json\""),
        "4:45",
        "jobs[0].task.report: applies to hooks only",
    );
    refused_job(&with_task("type = \"script\""), "4:10", "jobs[0].task.type");
    refused_job(&with("executor = \"nope\""), "5:1", "jobs[0].executor");
    refused_job(&with("misfire_grace_time = -1"), "5:1", "jobs[0].misfire_grace_time");
    refused_job(&with("coalesce = \"some\""), "5:1", "jobs[0].coalesce");
    refused_job(&with("max_instances = 0"), "5:1", "jobs[0].max_instances");
    refused_job(&with("max_runs = 0"), "5:1", "jobs[0].max_runs");
    refused_job(&with("on_crash = \"cry\""), "5:1", "jobs[0].on_crash");
    refused_job(&with("replace_existing = true"), "5:1", "jobs[0].replace_existing");
    refused_job(&with("tags = \"one\""), "5:1", "jobs[0].tags");
    refused_job(&JOB.replace("id = \"a\"\n", ""), "1:1", "jobs[0].id");
    refused_job(&JOB.replace("\"a\"", "\"\""), "2:1", "jobs[0].id");
    refused_job(&format!("{JOB}\n{JOB}"), "7:1", "jobs[1].id: \"a\" is the id of jobs[0] already");
}

#[test]
fn a_bad_value_of_the_application_is_refused_at_its_key() {
    refused("[toutiao]\nlisten = \"8000\"\n", "2:1", "toutiao.listen");
    refused("[toutiao]\nlisten = \"127.0.0.1:70000\"\n", "2:1", "toutiao.listen");
    refused("[toutiao]\nlisten = 8000\n", "2:1", "toutiao.listen");
    refused("[toutiao]\ndatabase_url = \"mysql://h/x\"\n", "2:1", "toutiao.database_url");
    refused("[toutiao]\norder_minutes = 0\n", "2:1", "toutiao.order_minutes");
    refused("[toutiao]\norder_minutes = -1\n", "2:1", "toutiao.order_minutes");
    refused("[toutiao]\nworker_id = 1024\n", "2:1", "toutiao.worker_id");
    refused("[toutiao]\nredis = { url = \"http://h\" }\n", "2:11", "toutiao.redis.url");
    refused("[toutiao]\nredis = {}\n", "2:1", "toutiao.redis");
    refused("[toutiao.keys]\nuser_liked = \"\"\n", "2:1", "toutiao.keys.user_liked");
    refused("toutiao = 1\n", "1:1", "toutiao");
}

#[test]
fn a_machine_zone_that_is_not_understood_is_refused_unless_the_file_names_one() {
    let mut home = Home::new("");
    home.set("TZ", "Bogus/Zone");
    let said = "scheduler.timezone: is not given, and the machine's zone is not known: \
        TZ: unknown time zone \"Bogus/Zone\"";
    for arguments in [&["check"][..], &["serve"]] {
        let (code, complaint) = home.fails(arguments);
        assert!(code == 2 && complaint.contains(said), "{arguments:?}: {code} {complaint}");
    }
    // Without a daemon a preview is in the machine's zone. What a daemon answers never is.
    for arguments in [&["preview", "--every", "1h"][..], &["preview", "--batch"]] {
        let (code, complaint) = home.fails(arguments);
        assert!(
            code == 2 && complaint.contains("TZ: unknown"),
            "{arguments:?}: {code} {complaint}"
        );
    }
    home.ok(&["preview", "--every", "1h", "--timezone", "UTC"]);
    home.write_config("[scheduler]\ntimezone = \"Europe/Berlin\"");
    home.ok(&["check", "--json"]);
    home.set("TZDIR", "/nowhere");
    let (_, complaint) = home.fails(&["check"]);
    assert!(complaint.contains("TZDIR: \"/nowhere\" is not a folder"), "{complaint}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let home = Home::new("");
    std::fs::remove_file(home.path().join("jobs.toml")).unwrap();
    for verb in [&["serve"][..], &["check"], &["serve", "--config", "else.toml", "--demo"]] {
        let (code, complaint) = home.fails(verb);
        assert_eq!((code, complaint.lines().count()), (2, 1), "{verb:?}: {complaint}");
        let file = if verb.contains(&"else.toml") { "else.toml" } else { "jobs.toml" };
        assert!(
            complaint.starts_with(&format!("punctual: {file}: cannot be read: ")),
            "{complaint}"
        );
    }
    std::fs::write(home.path().join("jobs.toml"), b"\xff\xfe").unwrap();
    let (code, complaint) = home.fails(&["check"]);
    assert_eq!((code, complaint.lines().count()), (2, 1), "{complaint}");
}

#[test]
fn the_file_of_the_repository_declares_no_job_and_opens_no_port() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs.toml");
    let text = std::fs::read_to_string(file).unwrap();
    let home = Home::new(&text);
    assert!(home.ok(&["check"]).starts_with("jobs.toml is valid: 0 jobs\n"));
    let daemon = home.start();
    assert_eq!(home.json(&["list"])["jobs"], serde_json::json!([]));
    let listening = std::fs::read_to_string(format!("/proc/{}/net/tcp", daemon.pid())).unwrap();
    let own = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap();
    // A file may be closed after the folder was read.
    let own = own.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    let own: Vec<String> = own.map(|target| target.display().to_string()).collect();
    for line in listening.lines().skip(1) {
        let inode = line.split_whitespace().nth(9).unwrap();
        assert!(!own.contains(&format!("socket:[{inode}]")), "it listens: {line}");
    }
    // The example in it can be used as it stands.
    let is_example = |line: &&str| line.starts_with('#') && !line.starts_with("# ");
    let example = text.lines().filter(is_example).filter_map(|line| line.strip_prefix('#'));
    home.write_config(&example.flat_map(|line| [line, "\n"]).collect::<String>());
    assert!(home.ok(&["check"]).starts_with("jobs.toml is valid: 1 job\n"));
}

#[test]
fn the_defaults_in_the_comments_of_jobs_toml_are_right() {
    for file in ["jobs.toml", "src/daemon/demo.toml"] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        commented_keys_show_defaults(&std::fs::read_to_string(file).unwrap());
    }
}

/// Takes every key that is commented out at its word.
fn commented_keys_show_defaults(text: &str) {
    let lines = text.lines().map(|line| match line.strip_prefix("# ") {
        Some(key) if key.split_once(" = ").is_some_and(|(name, _)| !name.contains(' ')) => key,
        _ => line,
    });
    let all: String = lines.flat_map(|line| [line, "\n"]).collect();
    let read = |text: &str| punctual::config::Config::parse(Path::new("jobs.toml"), text).unwrap();
    let (given, spelled) = (read(text), read(&all));
    assert_eq!(given.drain_limit, spelled.drain_limit);
    assert_eq!(given.store_url, spelled.store_url);
    assert_eq!(given.socket_mode, spelled.socket_mode);
    assert_eq!(given.executors, spelled.executors);
    let home = Home::new(&all);
    home.ok(&["check"]);
}
