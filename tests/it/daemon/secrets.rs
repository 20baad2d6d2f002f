//! Secrets of the configuration: read where they are, and seen nowhere.

use serde_json::json;
use support::servers::postgres::PostgresServer;
use support::{Home, program, run_to_end, text};

const SECRET: &str = "swordfish";

/// What the processes of a group of a daemon were started with.
fn command_lines() -> String {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| {
        let folder = process.path();
        let executable = std::fs::read_link(folder.join("exe")).ok()?;
        let is_ours = executable.as_path() == std::path::Path::new(program());
        is_ours.then(|| std::fs::read_to_string(folder.join("cmdline")).ok()).flatten()
    });
    lines.collect()
}

/// Which files of a folder contain the secret, apart from these.
fn found_in(home: &Home, except: &[&str]) -> Vec<String> {
    let files = std::fs::read_dir(home.path()).unwrap().flatten();
    let files = files.filter(|file| file.file_type().unwrap().is_file());
    let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
    let has_it = |name: &String| {
        let bytes = std::fs::read(home.path().join(name)).unwrap();
        bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes())
    };
    names.filter(|name| !except.contains(&name.as_str())).filter(has_it).collect()
}

#[tokio::test]
async fn a_secret_is_used_and_seen_nowhere() {
    let home = Home::new("");
    let Some(server) = PostgresServer::shared() else { return };
    let redis = home.path().join("redis-url");
    std::fs::write(&redis, format!("redis://me:{SECRET}@127.0.0.1:1/\n")).unwrap();
    let config = format!(
        "[store]\nurl = {{ env = \"TEST_STORE_URL\" }}\n[toutiao.redis]\nurl = {{ file = \"{}\" }}\n",
        redis.display()
    );
    home.write_config(&config);
    let url = server.database("secrets").replacen('@', &format!(":{SECRET}@"), 1);
    let _daemon = home.start_in(&[("TEST_STORE_URL", &url)]);
    let client = home.client();
    let status = client.status().await.unwrap();
    assert!(text(&status, "store").starts_with("postgres://postgres:…@127.0.0.1"), "{status}");

    // Neither the output of a command nor its error shows it.
    let job = |id: &str, executor: &str, task| {
        json!({"id": id, "executor": executor, "task": task,
            "trigger": {"type": "date", "run_date": "2100-01-01"}})
    };
    let print =
        json!({"type": "command", "argv": ["/bin/sh", "-c", "env; cat /proc/$PPID/cmdline"]});
    client.add(&job("print", "processpool", print)).await.unwrap();
    let fix = json!({"type": "builtin", "name": "toutiao.fix_statistics"});
    client.add(&job("thread", "default", fix.clone())).await.unwrap();
    client.add(&job("worker", "processpool", fix)).await.unwrap();
    let mut said = status.to_string() + &command_lines();
    for id in ["print", "thread", "worker"] {
        let run = run_to_end(&client, id).await;
        assert_eq!(text(&run, "state"), if id == "print" { "succeeded" } else { "failed" });
        said += &run.to_string();
        said += &client.output(text(&run, "id")).await.unwrap().to_string();
        said += &home.ok(&["show", id]);
    }
    said += &command_lines();
    assert!(said.contains("PUNCTUAL_RUN_ID") && said.contains("worker"), "{said}");
    assert!(!said.contains(SECRET) && !said.contains("TEST_STORE_URL"), "{said}");
    let mut check = home.command(&["check"]);
    let checked = check.env("TEST_STORE_URL", &url).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
    assert!(!format!("{checked:?}").contains(SECRET), "{checked:?}");
    assert_eq!(found_in(&home, &["redis-url"]), [""; 0]);
}

#[test]
fn a_secret_that_cannot_be_read_is_a_fault_at_its_key() {
    let faults = [
        (
            "[store]\nurl = { env = \"NOT_THERE\" }\n",
            "2:1",
            "store.url: the secret in the environment variable NOT_THERE",
        ),
        (
            "[store]\nurl = { file = \"/not/there\" }\n",
            "2:1",
            "store.url: the secret in the file /not/there",
        ),
        (
            "\n[store]\nurl = { credential = \"x\" }\n",
            "3:1",
            "store.url: the secret in the credential x",
        ),
        (
            "[toutiao]\nredis = { url = { env = \"NOT_THERE\" } }\n",
            "2:11",
            "toutiao.redis.url: the secret",
        ),
        (
            "[toutiao]\ndatabase_url = { file = \"/not/there\" }\n",
            "2:1",
            "toutiao.database_url: the secret",
        ),
        ("[store]\nurl = { vault = \"x\" }\n", "2:1", "store.url: expected a text, or { env ="),
        ("[store]\nurl = 1\n", "2:1", "store.url: expected a text"),
    ];
    for (config, place, said) in faults {
        let home = Home::new(config);
        let is_elsewhere = config.contains("env") || config.contains("credential");
        let verbs = if is_elsewhere { &["serve"][..] } else { &["serve", "check"] };
        for &verb in verbs {
            let (code, complaint) = home.fails(&[verb]);
            let line = format!("punctual: jobs.toml:{place}: {said}");
            assert!(code == 2 && complaint.starts_with(&line), "{verb}: {complaint}");
        }
    }
}

#[test]
fn secrets_that_only_the_service_has_are_noted_by_check_and_required_by_migrate() {
    let mut home = Home::new(
        "[store]\nurl = { credential = \"store-url\" }\n\
         [mail]\nusername = \"me\"\npassword = { env = \"NOT_THERE\" }\n\
         [toutiao]\nredis = { url = { credential = \"redis\" } }\n",
    );
    let check = home.run(&["check"]);
    let notes = String::from_utf8(check.stderr).unwrap();
    assert_eq!(check.status.code(), Some(0), "{notes}");
    for note in [
        "punctual: store.url: only the service has the credential store-url, so it was not checked",
        "punctual: mail.password: only the service has the environment variable NOT_THERE, so it was",
        "punctual: toutiao.redis.url: only the service has the credential redis, so the table [toutiao] was",
    ] {
        assert!(notes.contains(note), "{notes}");
    }
    let (code, complaint) = home.fails(&["migrate", "--check"]);
    assert!(code == 2 && complaint.contains("--url-file or PUNCTUAL_MIGRATE_URL"), "{complaint}");

    // What is there is checked, and so is all that needs no secret.
    home.set("NOT_THERE", "password");
    let check = home.run(&["check"]);
    assert!(!String::from_utf8(check.stderr).unwrap().contains("mail.password"));
    home.write_config("[store]\nurl = { credential = \"../x\" }\n");
    let (code, complaint) = home.fails(&["check"]);
    assert!(
        code == 2 && complaint.contains("its name must not have a slash or begin with a dot"),
        "{complaint}"
    );
}

#[test]
fn a_secret_that_does_not_fit_is_not_quoted() {
    let home = Home::new("");
    let file = home.path().join("secret");
    std::fs::write(&file, SECRET).unwrap();
    for (table, key) in [
        ("store", "url"),
        ("toutiao", "listen"),
        ("toutiao", "order_minutes"),
        ("toutiao", "database_url"),
    ] {
        home.write_config(&format!("[{table}]\n{key} = {{ file = \"{}\" }}\n", file.display()));
        let (code, complaint) = home.fails(&["check"]);
        assert!(
            code == 2 && complaint.contains(&format!("jobs.toml:2:1: {table}.{key}: ")),
            "{complaint}"
        );
        assert!(!complaint.contains(SECRET), "{complaint}");
    }
}

#[tokio::test]
async fn credentials_come_from_the_service_manager_and_a_new_one_takes_a_restart() {
    let home = Home::new("[store]\nurl = { credential = \"store-url\" }\n");
    let credentials = home.path().join("credentials");
    std::fs::create_dir(&credentials).unwrap();
    std::fs::write(credentials.join("store-url"), "sqlite://one.db\n").unwrap();
    let folder = credentials.display().to_string();
    let _daemon = home.start_in(&[("CREDENTIALS_DIRECTORY", &folder)]);
    assert!(home.path().join("one.db").exists());
    assert_eq!(home.json(&["reload"])["restart_needed"], json!([]));
    std::fs::write(credentials.join("store-url"), "sqlite://other.db\n").unwrap();
    assert_eq!(home.json(&["reload"])["restart_needed"], json!(["store"]));
    std::fs::remove_file(credentials.join("store-url")).unwrap();
    let (code, complaint) = home.fails(&["reload"]);
    assert!(code == 1 && complaint.contains("jobs.toml:2:1: store.url: "), "{complaint}");
    let status = home.client().status().await.unwrap();
    assert_eq!((text(&status, "state"), &status["ready"]), ("running", &json!(true)));
    assert!(!home.path().join("other.db").exists());
}
