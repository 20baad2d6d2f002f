//! `preview`: when a trigger will fire, for people, scripts and programs that send many questions.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::{cells, text};
use support::{Home, PATIENCE};

/// Answers to a batch, line by line.
fn batch(home: &Home, input: &[u8]) -> Vec<Value> {
    let output = home.run_with_input(&["preview", "--batch"], input);
    assert!(output.status.success() && output.stderr.is_empty());
    let answers = String::from_utf8(output.stdout).unwrap();
    answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_preview_is_a_table_in_the_triggers_zone() {
    let home = Home::new("");
    let cron = ["preview", "--cron", "day=\"3rd fri\" hour=0-3 month=6-8,11-12"];
    let more = ["--count", "3", "--timezone", "Asia/Shanghai", "--after", "2026-11-20T00:00:00Z"];
    let table = home.ok(&[&cron[..], &more[..]].concat());
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0], "cron month=6-8,11-12 day=\"3rd fri\" hour=0-3");
    assert_eq!(cells(lines[1]), ["LOCAL TIME", "ZONE", "FROM NOW"]);
    let times: Vec<Vec<&str>> = lines[2..].iter().map(|line| cells(line)[..3].to_vec()).collect();
    let zone = "Asia/Shanghai +08:00";
    assert_eq!(
        times,
        [
            ["Fri", "2026-12-18 00:00:00", zone],
            ["Fri", "2026-12-18 01:00:00", zone],
            ["Fri", "2026-12-18 02:00:00", zone]
        ]
    );
}

#[test]
fn an_interval_is_described_in_its_own_units() {
    let home = Home::new("");
    for (typed, said) in
        [("0.5", "500ms"), ("1.5s", "1s500ms"), ("90min", "1h30m"), ("0.0005", "500µs")]
    {
        let table = home.ok(&["preview", "--every", typed, "--count", "1"]);
        assert_eq!(table.lines().next(), Some(format!("every {said}").as_str()), "{typed}");
    }
}

/// The rows of a preview in Berlin, without the wait from now.
fn berlin(home: &Home, trigger: &[&str], after: &str, count: &str) -> Vec<String> {
    let more = ["--timezone", "Europe/Berlin", "--after", after, "--count", count];
    let table = home.ok(&[&["preview"], trigger, &more[..]].concat());
    let wait = |cell: &&str| !cell.starts_with("in ") || cell.contains("place");
    let row = |line: &str| cells(line).into_iter().filter(wait).collect::<Vec<_>>().join(" | ");
    table.lines().skip(1).map(row).collect()
}

#[test]
fn a_preview_marks_what_the_clock_skips_and_what_it_shows_twice() {
    let home = Home::new("");
    let spring = "2100-03-27T12:00:00Z";
    assert_eq!(
        berlin(&home, &["--cron", "hour=2 minute=0,30"], spring, "1"),
        [
            "LOCAL TIME | ZONE | FROM NOW | DST",
            "Sun | 2100-03-28 02:00:00 | Europe/Berlin | skipped (and 1 more): the clock goes from 02:00:00 to 03:00:00",
            "Mon | 2100-03-29 02:00:00 | Europe/Berlin +02:00",
        ]
    );
    let shifted = "Sun | 2100-03-28 03:00:00 | Europe/Berlin +02:00 | in place of 02:30:00, which the clock skips";
    assert_eq!(berlin(&home, &["--crontab", "30 2 * * *"], spring, "1")[1..], [shifted]);
    let calendar = ["--calendar", "days=1 hour=2 minute=30", "--start", "2100-01-01"];
    assert_eq!(
        berlin(&home, &calendar, spring, "1")[1..],
        [
            "Sun | 2100-03-28 02:30:00 | Europe/Berlin | skipped: the clock goes from 02:00:00 to 03:00:00",
            "Mon | 2100-03-29 02:30:00 | Europe/Berlin +02:00",
        ]
    );
    assert_eq!(
        berlin(&home, &["--cron", "hour=2"], "2100-10-30T12:00:00Z", "3"),
        [
            "LOCAL TIME | ZONE | FROM NOW | DST",
            "Sun | 2100-10-31 02:00:00 | Europe/Berlin +02:00 | first of two",
            "Sun | 2100-10-31 02:00:00 | Europe/Berlin +01:00 | second of two",
            "Mon | 2100-11-01 02:00:00 | Europe/Berlin +01:00",
        ]
    );
    // At the end of a gap it matches by itself: nothing is there in place of another.
    assert_eq!(
        berlin(&home, &["--crontab", "*/20 2,3 * * *"], spring, "2")[1..],
        [
            "Sun | 2100-03-28 02:00:00 | Europe/Berlin | skipped (and 2 more): the clock goes from 02:00:00 to 03:00:00",
            "Sun | 2100-03-28 03:00:00 | Europe/Berlin +02:00",
            "Sun | 2100-03-28 03:20:00 | Europe/Berlin +02:00",
        ]
    );
    // What is skipped shows though nothing comes after it.
    let ended = ["--cron", "hour=2 minute=30", "--end", "2100-03-28 12:00:00"];
    let skipped = "Sun | 2100-03-28 02:30:00 | Europe/Berlin | skipped: the clock goes from 02:00:00 to 03:00:00";
    assert_eq!(berlin(&home, &ended, spring, "3")[1..], [skipped, "it does not fire any more"]);
    // The clock is that of the member.
    let of_two = "{\"type\":\"or\",\"timezone\":\"UTC\",\"triggers\":[{\"type\":\"cron\",\"hour\":12},\
        {\"type\":\"cron\",\"hour\":2,\"minute\":30,\"timezone\":\"Europe/Berlin\"}]}";
    let table = home.ok(&["preview", "--trigger", of_two, "--after", spring, "--count", "1"]);
    assert!(table.contains("2100-03-28 02:30:00  Europe/Berlin"), "{table}");
    let quiet = berlin(&home, &["--cron", "hour=2"], "2100-06-01T12:00:00Z", "2");
    assert_eq!(quiet[0], "LOCAL TIME | ZONE | FROM NOW", "no mark, no column");
}

#[test]
fn a_preview_shows_how_late_jitter_may_make_it() {
    let home = Home::new("");
    let jittered =
        ["preview", "--cron", "hour=0 minute=0,30", "--timezone", "UTC", "--jitter", "45min"];
    let more = ["--after", "2100-01-01 12:00", "--end", "2100-01-02 00:40", "--count", "3"];
    let table = home.ok(&[&jittered[..], &more].concat());
    let rows: Vec<Vec<&str>> = table.lines().skip(1).map(cells).collect();
    assert_eq!(rows[0], ["LOCAL TIME", "ZONE", "FROM NOW", "LATEST, BY JITTER"]);
    // It ends before the next occurrence, and at the trigger's end.
    assert_eq!(rows[1][4], "2100-01-02 00:29:59.999999");
    assert_eq!(rows[2][4], "2100-01-02 00:40:00");
    assert_eq!(
        home.json(&[&jittered[..], &more].concat())["latest"],
        json!(["2100-01-02T00:29:59.999999+00:00", "2100-01-02T00:40:00+00:00"])
    );
}

#[test]
fn a_preview_begins_now_in_the_daemons_zone_and_names_it() {
    let mut home = Home::new("[scheduler]\ntimezone = \"Asia/Tokyo\"\n");
    home.set("TZ", "America/New_York");
    let daily = ["preview", "--cron", "hour=9", "--start", "2020-01-01", "--count", "1"];
    let alone = home.ok(&daily);
    assert!(alone.contains(" America/New_York -0") && !alone.contains("2020-"), "{alone}");
    assert!(alone.contains("times are in America/New_York, this machine's zone"), "{alone}");
    let daemon = home.start();
    let beside = home.ok(&daily);
    assert!(beside.contains(" Asia/Tokyo +09:00") && beside.contains("  in "), "{beside}");
    assert!(beside.ends_with("times are in Asia/Tokyo, the daemon's zone\n"), "{beside}");
    let question = br#"{"op":"preview","trigger":{"type":"cron","hour":9},"after":"2100-01-01T00:00:00Z","count":1}"#;
    assert_eq!(batch(&home, question), [json!({"times": ["2100-01-02T09:00:00+09:00"]})]);
    // A zone that is named is what counts, and a daemon that does not answer is none.
    assert!(!home.ok(&[&daily[..], &["--timezone", "UTC"]].concat()).contains("times are in"));
    daemon.kill();
    assert!(home.ok(&daily).contains("this machine's zone"));
}

#[test]
fn a_trigger_that_never_fires_has_no_times_and_is_not_valid() {
    let home = Home::new("");
    let never = json!({"type": "cron", "month": 2, "day": 30});
    let preview = json!({"op": "preview", "trigger": never, "after": null, "count": 3});
    let validate = json!({"op": "validate", "trigger": never});
    let answers = batch(&home, format!("{preview}\n{validate}\n").as_bytes());
    assert_eq!(answers[0], json!({"times": []}));
    assert_eq!(
        answers[1],
        json!({"error": "cron: it can never fire: no date matches all the fields"})
    );
}

#[test]
fn all_agree_on_a_trigger_that_has_no_occurrence_left() {
    let over = "it can never fire again: its last occurrence was 2020-01-02 03:00:00 +00:00";
    let home = Home::new(
        "[scheduler]\ntimezone = \"UTC\"\n[[jobs]]\nid = \"old\"\ntask = { type = \"builtin\", name = \"noop\" }\n\
        trigger = { type = \"cron\", hour = 3, end_date = \"2020-01-02\" }\n",
    );
    let cron = ["--cron", "hour=3", "--end", "2020-01-02", "--timezone", "UTC"];
    let (code, complaint) = home.fails(&[&["preview"], &cron[..]].concat());
    assert_eq!((code, complaint), (2, format!("punctual: {over}\n")));
    let trigger = json!({"type": "cron", "hour": 3, "end_date": "2020-01-02", "timezone": "UTC"});
    let answers =
        batch(&home, json!({"op": "validate", "trigger": trigger}).to_string().as_bytes());
    assert_eq!(answers, [json!({"error": format!("cron: {over}")})]);
    // A file that was right yesterday stays right.
    let checked = home.json(&["check"]);
    assert_eq!(checked["warnings"], json!([{"job": "old", "warning": over}]));
    assert!(home.ok(&["check"]).contains(&format!("warning: old will be finished: {over}")));
    let daemon = home.start();
    let task = ["--builtin", "noop"];
    let (code, complaint) = home.fails(&[&["add", "x"], &cron[..], &task[..]].concat());
    assert_eq!((code, complaint), (1, format!("punctual: trigger: {over}\n")));
    assert_eq!(home.json(&["show", "old"])["state"], "finished");
    // What it did then can be looked at.
    let then = ["--after", "2020-01-01T00:00:00Z"];
    let times = home.json(&[&["preview"], &cron[..], &then[..]].concat());
    assert_eq!(times["times"].as_array().unwrap().len(), 2);
    // A pattern of past years, a union of what is over, and steps that ended are the same.
    let others = [
        json!({"type": "crontab", "expression": "0 0 0 1 1 * 2020", "timezone": "UTC"}),
        json!({"type": "or", "triggers": [trigger, trigger]}),
        json!({"type": "calendarinterval", "days": 1, "start_date": "2019-01-01", "end_date": "2020-01-01"}),
        json!({"type": "interval", "days": 1, "start_date": "2019-01-01", "end_date": "2020-01-01"}),
    ];
    for other in others {
        let text = other.to_string();
        let (_, previewed) = home.fails(&["preview", "--trigger", &text]);
        let (_, refused) = home.fails(&["add", "x", "--trigger", &text, "--builtin", "noop"]);
        assert!(previewed.contains("it can never fire again: its last"), "{previewed}");
        assert_eq!(refused, previewed.replace("punctual: ", "punctual: trigger: "));
    }
    drop(daemon);
}

#[test]
fn a_preview_in_json_has_the_offset_of_each_time() {
    let home = Home::new("");
    let arguments = ["preview", "--cron", "month=3,11 day=1", "--timezone", "America/New_York"];
    let more = ["--after", "2026-10-01T00:00:00Z", "--count", "2"];
    assert_eq!(
        home.json(&[&arguments[..], &more[..]].concat()),
        json!({"times": ["2026-11-01T00:00:00-04:00", "2027-03-01T00:00:00-05:00"]})
    );
    let once = home.json(&["preview", "--at", "2026-11-06 16:30:05", "--timezone", "UTC"]);
    assert_eq!(once, json!({"times": ["2026-11-06T16:30:05+00:00"]}));
    let local = [
        "preview",
        "--cron",
        "hour=9",
        "--timezone",
        "Asia/Tokyo",
        "--after",
        "2026-10-01 09:00:00",
        "--count",
        "1",
    ];
    assert_eq!(home.json(&local), json!({"times": ["2026-10-02T09:00:00+09:00"]}));
    let over = ["preview", "--at", "2020-01-01", "--after", "2021-01-01T00:00:00Z"];
    assert_eq!(home.json(&over), json!({"times": []}));
    assert!(home.ok(&over).contains("does not fire any more"));
}

#[test]
fn a_preview_that_cannot_be_is_one_line_of_error() {
    let home = Home::new("");
    let cases: [(&[&str], &str); 13] = [
        (&["preview"], "say when"),
        (&["preview", "--cron", "colour=3"], "cron.colour"),
        (&["preview", "--cron", "hour=25"], "cron.hour"),
        (&["preview", "--cron", "hour=3 colour=3"], "cron.colour"),
        (&["preview", "--cron", "month=2 day=30"], "never fire"),
        (
            &["preview", "--cron", "day=\"3rd frx\""],
            "cron.day: \"3rd frx\": unknown weekday \"frx\" (expected mon…sun), at column 5",
        ),
        (
            &["preview", "--crontab", "0 25 * * *"],
            "crontab.expression: \"0 25 * * *\": unknown \"25\"",
        ),
        (&["preview", "--calendar", "months=x"], "calendarinterval.months"),
        (
            &[
                "preview",
                "--trigger",
                "{\"type\":\"or\",\"triggers\":[{\"type\":\"cron\",\"hour\":99}]}",
            ],
            "or.triggers[0].hour",
        ),
        (&["preview", "--every", "1h", "--timezone", "Mars/Base"], "timezone"),
        (&["preview", "--every", "1h", "--after", "noon"], "--after: \"noon\" is not a time"),
        (&["preview", "--every", "1h", "--count", "0"], "--count"),
        (&["preview", "--every", "1h", "--count", "10001"], "--count"),
    ];
    for (arguments, said) in cases {
        let (got, complaint) = home.fails(arguments);
        assert_eq!((got, complaint.lines().count()), (2, 1), "{arguments:?}: {complaint}");
        assert!(complaint.contains(said), "{arguments:?}: {complaint}");
    }
    assert_eq!(home.fails(&["preview", "--batch", "--every", "1h"]).0, 2);
}

#[test]
fn a_batch_has_one_answer_for_each_line() {
    let home = Home::new("");
    let questions = [
        json!({"op": "preview", "trigger": {"type": "cron", "hour": 3, "timezone": "UTC"}, "after": "2026-01-01T03:00:00Z", "count": 1}),
        json!({"op": "preview", "trigger": {"type": "cron", "hour": 3, "timezone": "UTC"}, "after": "2026-01-01T03:00:00Z", "inclusive": true, "count": 1}),
        json!({"op": "validate", "trigger": {"type": "interval", "hours": 1}}),
        json!({"op": "validate", "trigger": {"type": "interval", "hours": -1}}),
    ];
    let lines: Vec<String> = questions.iter().map(ToString::to_string).collect();
    // Blank lines are no questions, and the last line need not end.
    let answers = batch(&home, lines.join("\r\n\n").as_bytes());
    assert_eq!(
        answers[..2],
        [
            json!({"times": ["2026-01-02T03:00:00+00:00"]}),
            json!({"times": ["2026-01-01T03:00:00+00:00"]})
        ]
    );
    assert_eq!((answers.len(), &answers[2]), (4, &json!({"ok": true})));
    assert!(text(&answers[3], "error").starts_with("interval.hours"), "{}", answers[3]);
}

#[test]
fn a_hostile_line_is_an_error_for_that_line_only() {
    let home = Home::new("");
    let good = "{\"op\":\"validate\",\"trigger\":{\"type\":\"cron\",\"hour\":3}}";
    let cron = |fields: &str| {
        format!("{{\"op\":\"preview\",\"trigger\":{{\"type\":\"cron\",{fields}}}}}").into_bytes()
    };
    let with = |more: &str| {
        format!("{{\"op\":\"preview\",\"trigger\":{{\"type\":\"cron\",\"hour\":3}},{more}}}")
            .into_bytes()
    };
    let hostile: Vec<Vec<u8>> = vec![
        b"garbage".to_vec(),
        b"[]".to_vec(),
        b"null".to_vec(),
        b"\xff\xfe\x00".to_vec(),
        b"{\"op\":\"remove\",\"trigger\":{}}".to_vec(),
        b"{\"op\":\"validate\"}".to_vec(),
        b"{\"op\":[1],\"trigger\":{}}".to_vec(),
        cron("\"hour\":\"0-99999999999999999999\""),
        cron("\"hour\":\"*/0\""),
        cron("\"second\":1e300"),
        cron("\"year\":[]"),
        with("\"count\":-1"),
        with("\"count\":10001"),
        with("\"count\":99999999999999999999999"),
        with("\"after\":\"soon\""),
        with("\"after\":\"+262142-12-31T20:00:00Z\""),
        with("\"after\":\"-262143-01-01T00:00:00Z\""),
        b"{\"op\":\"validate\",\"trigger\":{\"type\":\"cron\",\"hour\":3},\"colour\":1}".to_vec(),
        with("\"colour\":\"red\""),
        b"[".repeat(200_000),
        b"{\"a\":".repeat(10_000),
        // Longer than any line that is read whole.
        [b"{\"op\":\"", "x".repeat(3_000_000).as_bytes(), b"\"}"].concat(),
    ];
    for line in hostile {
        let input = [&line[..], b"\n", good.as_bytes(), b"\n"].concat();
        let shown = String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned();
        let answers = batch(&home, &input);
        assert_eq!(answers.len(), 2, "{shown}");
        let error = text(&answers[0], "error");
        assert!(!error.is_empty() && error.len() < 500, "{shown}: {error}");
        assert_eq!(answers[1], json!({"ok": true}), "{shown}");
    }
}

#[tokio::test]
async fn a_batch_answers_at_once_and_ends_when_nobody_reads() {
    let home = Home::new("");
    let mut command = tokio::process::Command::from(home.command(&["preview", "--batch"]));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut answers = tokio::io::BufReader::new(child.stdout.take().unwrap());
    let question = b"{\"op\":\"validate\",\"trigger\":{\"type\":\"cron\",\"hour\":3}}\n";
    for _ in 0..3 {
        stdin.write_all(question).await.unwrap();
        let mut answer = String::new();
        let read = tokio::io::AsyncBufReadExt::read_line(&mut answers, &mut answer);
        tokio::time::timeout(PATIENCE, read).await.expect("it answers each line").unwrap();
        assert_eq!(answer, "{\"ok\":true}\n");
    }
    drop(answers);
    // The questions do not end, but the answers are no longer read.
    let ended = async {
        while stdin.write_all(question).await.is_ok() {}
        child.wait().await.unwrap()
    };
    let ended = tokio::time::timeout(PATIENCE, ended).await.expect("it ends");
    assert!(ended.success());
}
