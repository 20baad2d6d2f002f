//! A file with some faulty jobs: the daemon starts with the others, and every view names the faulty ones.

use std::fmt::Write as _;

use serde_json::{Value, json};

use support::{Home, text};

/// A job with this id that is in order, and is due at this hour on the first day of 2100.
fn good(id: &str, hour: u32) -> String {
    format!(
        "[[jobs]]\nid = \"{id}\"\ntrigger = {{ type = \"cron\", year = 2100, hour = {hour} }}\n\
         task = {{ type = \"builtin\", name = \"noop\" }}\n"
    )
}

/// One job for each way in which a job can be wrong, as the lines that differ from a job in order, and the field.
const FAULTS: [(&str, &str, &str); 14] = [
    ("unknown-key", "colour = 1", "colour"),
    ("bad-trigger", "trigger = { type = \"cron\", hour = 99 }", "trigger.hour"),
    ("never", "trigger = { type = \"cron\", month = 2, day = 30 }", "trigger"),
    ("infinite", "trigger = { type = \"interval\", seconds = inf }", "trigger.seconds"),
    ("huge", "max_instances = 99999999999999999999", "max_instances"),
    ("no-builtin", "task = { type = \"builtin\", name = \"nope\" }", "task.name"),
    ("no-executor", "executor = \"nope\"", "executor"),
    ("bad-policy", "coalesce = \"some\"", "coalesce"),
    ("bad-type", "tags = \"one\"", "tags"),
    ("bad-hook", "on_failure = { type = \"builtin\", name = \"nope\" }", "on_failure.name"),
    ("bad-secret", "heartbeat = { vault = \"x\" }", "heartbeat"),
    ("password", "heartbeat = \"https://me:secret@example.org/\"", "heartbeat"),
    ("replaces", "replace_existing = true", "replace_existing"),
    ("no-task", "task = {}", "task.type"),
];

fn faulty() -> String {
    let mut file = good("good", 1);
    for (id, line, _) in FAULTS {
        let mut lines = vec![format!("id = \"{id}\"")];
        let (key, _) = line.split_once(" = ").unwrap();
        let others = [
            ("trigger", "trigger = { type = \"cron\", hour = 3 }"),
            ("task", "task = { type = \"builtin\", name = \"noop\" }"),
        ];
        lines.extend(
            others.iter().filter(|(other, _)| *other != key).map(|(_, text)| (*text).to_owned()),
        );
        lines.push(line.to_owned());
        writeln!(file, "[[jobs]]\n{}", lines.join("\n")).unwrap();
    }
    // No id, one that another job has, and one that cannot be an id.
    file += &good("", 2).replace("id = \"\"\n", "");
    file += &good("good", 2);
    file += &good("a\\u0007b", 2);
    file
}

#[tokio::test]
async fn a_start_goes_on_without_the_faulty_jobs_and_everything_names_them() {
    let home = Home::new(&faulty());
    let daemon = home.start();
    let client = home.client();
    assert_eq!(text(&client.job("good").await.unwrap(), "state"), "active");
    assert_eq!(client.job("good").await.unwrap()["trigger"]["hour"], 1, "the first one has the id");
    let first_nameless = FAULTS.len() + 1;
    let named = FAULTS.iter().enumerate().map(|(number, (id, _, field))| {
        ((*id).to_owned(), format!("jobs[{}].{field}: ", number + 1))
    });
    let nameless = (0..3).map(|more| {
        let number = first_nameless + more;
        (format!("jobs[{number}]"), format!("jobs[{number}].id: "))
    });
    let all: Vec<(String, String)> = named.chain(nameless).collect();
    let listed = home.ok(&["list"]);
    for (_, said) in &all {
        home.log_with(said);
    }
    let log = home.log_with("");
    let status = client.status().await.unwrap();
    let (code, checked) = home.fails(&["check"]);
    for (number, (id, said)) in all.iter().enumerate() {
        let job = client.job(id).await.unwrap();
        assert_eq!((text(&job, "state"), text(&job, "origin")), ("broken", "file"), "{job}");
        let reason = text(&job, "reason");
        let place = reason.strip_prefix("jobs.toml:").unwrap_or_else(|| panic!("{reason}"));
        assert!(place.starts_with(|first: char| first.is_ascii_digit()), "{reason}");
        assert!(reason.contains(said), "{reason} has no {said}");
        assert!(
            !job.to_string().contains("me:secret"),
            "what must not be shown is not kept: {job}"
        );
        assert_eq!(listed.lines().filter(|line| line.starts_with(&format!("{id} "))).count(), 1);
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(said)).collect();
        assert!(matches!(lines.as_slice(), [line] if line.contains("ERROR")), "{lines:?}");
        assert_eq!(status["declared"]["faults"][number], json!({"job": id, "error": reason}));
        assert_eq!(checked.lines().nth(number), Some(&*format!("punctual: {reason}")));
    }
    assert_eq!((code, checked.lines().count()), (2, all.len()));
    let path = home.path().canonicalize().unwrap().join("jobs.toml");
    let declared = &status["declared"];
    assert_eq!(
        (&declared["jobs"], &declared["faulty"]),
        (&json!(all.len() + 1), &json!(all.len()))
    );
    assert_eq!((&declared["file"], &declared["source"]), (&json!(path), &json!(path)));
    assert_eq!(status["jobs"], json!({"active": 1, "broken": all.len()}));
    let answered = home.run(&["status"]);
    assert_eq!(answered.status.code(), Some(1), "a monitor is told, too");
    let shown = String::from_utf8(answered.stdout).unwrap();
    assert!(shown.contains("faulty") && shown.contains("bad-trigger: jobs.toml:"), "{shown}");
    assert!(home.ok(&["show", "bad-trigger"]).contains("jobs[2].trigger.hour"));
    let refused = home.fails(&["remove", "bad-trigger"]);
    assert!(refused.1.contains("declared in a file"), "{refused:?}");

    let (code, said) = home.fails(&["reload"]);
    assert!(code == 1 && said.contains("jobs[1].colour") && said.contains("and 16 more"), "{said}");
    home.write_config(&(good("good", 1) + &good("bad-trigger", 9)));
    let done = home.json(&["reload"]);
    assert_eq!((&done["changed"], &done["unchanged"]), (&json!(["bad-trigger"]), &json!(1)));
    assert_eq!(client.jobs("").await.unwrap()["jobs"].as_array().unwrap().len(), 2);
    let status = client.status().await.unwrap();
    assert_eq!(
        (&status["declared"]["faulty"], &status["jobs"]),
        (&json!(0), &json!({"active": 2}))
    );
    assert!(daemon.stop().success());
}

#[tokio::test]
async fn a_job_that_a_start_finds_faulty_keeps_its_definition_and_goes_on_when_it_is_mended() {
    let home = Home::new(&(good("kept", 3) + &good("other", 4)));
    assert!(home.start().stop().success());
    let next = |job: &Value| text(job, "next_run_time").to_owned();
    home.write_config(&(good("kept", 3) + "retry = 3\n" + &good("other", 4)));
    let daemon = home.start();
    let client = home.client();
    let kept = client.job("kept").await.unwrap();
    assert_eq!((text(&kept, "state"), &kept["trigger"]["hour"]), ("broken", &json!(3)));
    assert!(text(&kept, "reason").starts_with("jobs.toml:5:1: jobs[0].retry: "), "{kept}");
    let other = client.job("other").await.unwrap();
    assert_eq!(text(&other, "state"), "active");
    // It is not known which job this was: nothing is removed.
    assert!(daemon.stop().success());
    home.write_config(&(good("kept", 3).replace("id = ", "name = ") + &good("other", 4)));
    let daemon = home.start();
    assert_eq!(
        text(&client.job("kept").await.unwrap(), "state"),
        "broken",
        "as the start before left it"
    );
    home.log_with("WARN the file declares no jobs any more, or one without an id");
    home.write_config(&(good("kept", 3) + &good("other", 4)));
    home.ok(&["reload"]);
    let mended = client.job("kept").await.unwrap();
    assert_eq!(text(&mended, "state"), "active");
    assert_eq!(mended["created_at"], kept["created_at"]);
    assert!(next(&mended) < next(&other), "{mended}");
    assert!(
        client.job("jobs[0]").await.unwrap_err().is_not_found(),
        "what stood for the one without an id"
    );
    assert!(daemon.stop().success());
}

#[test]
fn a_fault_of_the_policies_of_all_jobs_is_no_fault_of_each() {
    let defaults =
        "[scheduler]\njob_defaults = { on_failure = { type = \"builtin\", name = \"nope\" } }\n";
    let home = Home::new(&(defaults.to_owned() + &good("a", 1)));
    for verb in ["serve", "check"] {
        let (code, said) = home.fails(&[verb]);
        let place =
            "punctual: jobs.toml:2:51: scheduler.job_defaults.on_failure.name: unknown builtin";
        assert!(code == 2 && said.starts_with(place), "{verb}: {said}");
    }
}

#[tokio::test]
async fn a_moved_file_is_told_whose_jobs_it_declares_until_it_names_its_source() {
    let home = Home::new(&good("a", 1));
    assert!(home.start().stop().success());
    let old = home.path().join("jobs.toml");
    let moved = home.path().join("moved.toml");
    std::fs::rename(&old, &moved).unwrap();
    let moved_to = moved.display().to_string();
    let rename = "for word; do shift; test \"$word\" != jobs.toml || word=moved.toml; set -- \"$@\" \"$word\"; done; exec \"$@\"";
    let home = home.starting_by(rename);
    let daemon = home.start();
    let client = home.client();
    let job = client.job("a").await.unwrap();
    assert_eq!(
        (text(&job, "state"), text(&job, "source")),
        ("active", &*old.display().to_string())
    );
    let status = client.status().await.unwrap();
    assert_eq!(status["health"]["reasons"][0]["reason"], "conflict", "a monitor is told");
    assert_eq!(home.run(&["status"]).status.code(), Some(1));
    let fault = status["declared"]["faults"][0].clone();
    assert!(text(&fault, "error").contains(&*old.display().to_string()), "{fault}");
    home.log_with("ERROR another file declares the job");
    let (code, said) = home.fails(&["reload"]);
    assert!(code == 1 && said.contains("job \"a\" is declared by another file"), "{said}");
    let (code, said) = home.fails(&["check", &moved_to]);
    assert!(code == 1 && said.contains("job \"a\" is declared by another file"), "{said}");
    let source = format!("[scheduler]\nsource = \"{}\"\n", old.display());
    std::fs::write(&moved, source + &good("a", 2)).unwrap();
    assert!(home.ok(&["check", &moved_to]).contains("changed: a"));
    // A file that is not there yet is checked as if it were the daemon's.
    std::fs::write(home.path().join("new.toml"), good("b", 2)).unwrap();
    let checked = home.ok(&["check", "new.toml"]);
    assert!(checked.contains("added: b") && !checked.contains("removed"), "{checked}");
    assert_eq!(home.json(&["reload"])["changed"], json!(["a"]));
    assert_eq!(client.status().await.unwrap()["health"]["state"], "well");
    assert!(home.fails(&["remove", "a"]).1.contains("declared in a file"));
    assert!(daemon.stop().success());
}

#[test]
fn the_removal_of_a_job_that_another_file_declares_says_that_it_may_come_back() {
    let home = Home::new(&(good("a", 1) + &good("b", 1)));
    assert!(home.start().stop().success());
    home.write_config("[scheduler]\nsource = \"other\"\n");
    let daemon = home.start();
    let source = home.path().canonicalize().unwrap().join("jobs.toml").display().to_string();
    let output = home.run(&["remove", "a"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success());
    assert!(said.starts_with(&format!("punctual: a was declared by {source}; ")), "{said}");
    assert_eq!(text(&home.json(&["remove", "b"]), "source"), source);
    home.ok(&["add", "c", "--every", "1h", "--builtin", "noop"]);
    let output = home.run(&["remove", "c"]);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "nobody declares it");
    assert!(daemon.stop().success());
    let log = std::fs::read_to_string(home.log()).unwrap();
    let warned = log.lines().filter(|line| line.contains("WARN a job that another file declares"));
    assert_eq!(warned.count(), 2, "{log}");
}

#[test]
fn a_broken_job_without_a_zone_of_its_own_is_shown_in_that_of_the_daemon() {
    let zone = "[scheduler]\ntimezone = \"Asia/Shanghai\"\n";
    let never = good("never", 1).replace("hour = 1", "month = 2, day = 30");
    let home = Home::new(&(zone.to_owned() + &never));
    let daemon = home.start();
    let shown = home.ok(&["show", "never"]);
    let created = shown.lines().find(|line| line.starts_with("created ")).unwrap();
    assert!(created.ends_with(" +08:00 Asia/Shanghai"), "{shown}");
    assert!(daemon.stop().success());
}
