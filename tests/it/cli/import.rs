//! `import --crontab`: a crontab becomes jobs, and what cannot is named with its line.

use serde_json::{Value, json};
use support::{Home, ended, text};

const CRONTAB: &str = "\
# m h dom mon dow command
SHELL=/bin/sh
MAILTO=ops@example.org
GREETING=\"hello there\"

17 3 * * * /usr/bin/backup --all > /dev/null
0 4 * * mon-fri echo \"$GREETING\" \"$(cat)\"%from%cron
CRON_TZ=Asia/Tokyo
@daily /usr/bin/rotate 100\\%
";

fn write(home: &Home, text: &str) {
    std::fs::write(home.path().join("tab"), text).unwrap();
}

fn lines(answer: &Value, key: &str) -> Vec<u64> {
    answer[key].as_array().unwrap().iter().map(|line| line["line"].as_u64().unwrap()).collect()
}

fn changes(answer: &Value) -> Vec<&str> {
    answer["jobs"].as_array().unwrap().iter().map(|job| text(job, "change")).collect()
}

#[tokio::test]
async fn a_crontab_is_imported_once_and_runs_as_cron_ran_it() {
    let mut home = Home::new("");
    home.set("TZ", "Europe/Berlin");
    let _daemon = home.start();
    let client = home.client();
    write(&home, CRONTAB);
    let dry = home.json(&["import", "--crontab", "tab", "--dry-run"]);
    assert_eq!(client.jobs("limit=10").await.unwrap()["jobs"], json!([]), "nothing was added");
    assert_eq!((changes(&dry), lines(&dry, "jobs")), (vec!["new"; 3], vec![6, 7, 9]));
    assert_eq!((lines(&dry, "notes"), lines(&dry, "faults")), (vec![3], vec![]));
    for job in dry["jobs"].as_array().unwrap() {
        assert!(job["next"].is_string() && job["next"] == job["cron_next"], "{job}");
    }

    let imported = home.json(&["import", "--crontab", "tab"]);
    let results: Vec<&Value> =
        imported["jobs"].as_array().unwrap().iter().map(|job| &job["result"]["status"]).collect();
    assert_eq!(results, ["added"; 3]);
    let ids: Vec<&str> =
        imported["jobs"].as_array().unwrap().iter().map(|job| text(job, "id")).collect();
    let backup = client.job(ids[0]).await.unwrap();
    assert_eq!(backup["trigger"]["timezone"], "Europe/Berlin");
    assert_eq!(backup["task"]["shell"], "/usr/bin/backup --all > /dev/null");
    assert_eq!(backup["on_failure"], json!({"type": "mail", "to": ["ops@example.org"]}));
    assert_eq!(backup["next_run_time"], dry["jobs"][0]["next"]);
    let rotate = client.job(ids[2]).await.unwrap();
    assert_eq!(rotate["trigger"]["timezone"], "Asia/Tokyo");
    assert_eq!(rotate["task"]["shell"], "/usr/bin/rotate 100%");
    let run = client.run(ids[1]).await.unwrap();
    let run = ended(&client, text(&run, "id")).await;
    assert_eq!(text(&run, "state"), "succeeded");
    let output = client.output(text(&run, "id")).await.unwrap();
    assert_eq!(text(&output, "output"), "hello there from\ncron\n");

    // A second time nothing changes, not even a revision.
    let before = client.job(ids[0]).await.unwrap();
    assert_eq!(changes(&home.json(&["import", "--crontab", "tab"])), ["unchanged"; 3]);
    assert_eq!(client.job(ids[0]).await.unwrap(), before);
    // A line that moves and gets another time is the same job.
    write(&home, &CRONTAB.replace("17 3", "\n18 3"));
    let again = home.json(&["import", "--crontab", "tab"]);
    assert_eq!(changes(&again), ["changed", "unchanged", "unchanged"]);
    let changed = client.job(ids[0]).await.unwrap();
    assert_eq!(changed["trigger"]["expression"], "18 3 * * *");
    assert_eq!(client.jobs("tag=crontab").await.unwrap()["jobs"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn people_see_both_times_and_what_differs_from_cron() {
    let home = Home::new("");
    let _daemon = home.start();
    write(&home, CRONTAB);
    let output = home.run(&["import", "--crontab", "tab", "--dry-run"]);
    assert!(output.status.success());
    let shown = String::from_utf8(output.stdout).unwrap();
    let heading = shown.lines().next().unwrap();
    for column in ["LINE", "JOB", "CHANGE", "CRON NEXT", "NEXT"] {
        assert!(heading.contains(column), "{shown}");
    }
    assert!(shown.contains("cron:backup-") && shown.contains("03:17:00"), "{shown}");
    assert!(shown.ends_with("3 would be new, 0 changed, 0 unchanged\n"), "{shown}");
    let notes = String::from_utf8(output.stderr).unwrap();
    assert!(notes.starts_with("punctual: line 3: MAILTO: cron mails all output;"), "{notes}");
    let output = home.run(&["import", "--crontab", "tab"]);
    let notes = String::from_utf8(output.stderr).unwrap();
    assert!(notes.contains("cron still has these lines"), "{notes}");
}

#[tokio::test]
async fn a_line_that_cannot_be_translated_is_named_and_nothing_is_imported() {
    let home = Home::new("");
    let _daemon = home.start();
    let client = home.client();
    write(
        &home,
        "0 3 * * * good\n@reboot bad\n61 * * * * bad\n* * *\nCRON_TZ=Nowhere\n0 4 * * * bad\n",
    );
    let import = ["import", "--crontab", "tab", "--json"];
    let output = home.run(&import);
    assert_eq!(output.status.code(), Some(1));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(lines(&answer, "faults"), [2, 3, 4, 6], "{answer}");
    assert_eq!(client.jobs("limit=10").await.unwrap()["jobs"], json!([]));
    let (code, complaint) = home.fails(&["import", "--crontab", "tab"]);
    assert_eq!(code, 1);
    assert!(complaint.contains("line 2 is not imported: @reboot has no equivalent"), "{complaint}");
    assert!(complaint.contains("line 3 is not imported: expression:"), "{complaint}");
    assert!(complaint.contains("nothing was imported; --partial"), "{complaint}");
    let answer = home.json(&["import", "--crontab", "tab", "--partial"]);
    assert_eq!(changes(&answer), ["new"]);
    assert_eq!(client.jobs("limit=10").await.unwrap()["jobs"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_the_daemon_refuses_is_shown_with_its_reason() {
    let home = Home::new("");
    let _daemon = home.start();
    write(&home, "0 3 * * * no-such-user-of-this-machine /bin/x\n0 4 * * * root\n");
    let import = ["import", "--crontab", "tab", "--system", "--partial"];
    let output = home.run(&import);
    assert_eq!(output.status.code(), Some(1));
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(
        shown.contains("refused: ") && shown.contains("no-such-user-of-this-machine"),
        "{shown}"
    );
    let notes = String::from_utf8(output.stderr).unwrap();
    assert!(notes.contains("line 2 is not imported: expected a time, a user and a command"));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let home = Home::new("");
    let _daemon = home.start();
    let (code, complaint) = home.fails(&["import", "--crontab", "missing"]);
    assert_eq!(code, 2);
    assert!(complaint.contains("missing: No such file or directory"), "{complaint}");
    std::fs::write(home.path().join("tab"), b"0 3 * * * \xff\n").unwrap();
    assert!(home.fails(&["import", "--crontab", "tab"]).1.contains("is not UTF-8 text"));
    write(&home, &"#".repeat(1024 * 1024 + 1));
    assert!(home.fails(&["import", "--crontab", "tab"]).1.contains("is larger than"));
    let input = home.run_with_input(&["import", "--crontab", "-"], b"@daily x\n");
    assert!(input.status.success() && String::from_utf8_lossy(&input.stdout).contains("cron:x-"));
    write(&home, "# nothing\n");
    assert!(home.ok(&["import", "--crontab", "tab"]).contains("no jobs that can be imported"));
}
