//! The report of a hook as text: the subject and the body of a mail. The report is the JSON value that a hook gets as its
//! `event`.

use std::fmt::Write;

use serde_json::Value;

use crate::printable::{escaped, shortened};

/// Characters of a subject.
const SUBJECT_CHARS: usize = 150;

/// What happened in one line: `[web1] job backup failed: exit code 1`.
pub(super) fn subject(facts: &Value) -> String {
    let (host, job) = (text(facts, "/host"), text(facts, "/job/id"));
    let what = match text(facts, "/event").as_str() {
        "recovery" => "runs again".to_owned(),
        "missed" => "missed its time".to_owned(),
        "success" => "succeeded".to_owned(),
        _ => {
            let state = text(facts, "/run/state").replace('_', " ");
            let error = text(facts, "/run/error");
            if error.is_empty() { state } else { format!("{state}: {error}") }
        }
    };
    let subject = format!("[{host}] job {job} {what}");
    shortened(&escaped(&subject), SUBJECT_CHARS).into_owned()
}

/// The report: job, host, times, how the run ended, and the end of its output.
pub(super) fn report(facts: &Value) -> String {
    let mut report = format!("{}\n\n", subject(facts));
    let run = text(facts, "/run/id");
    let lines = [
        ("Job", text(facts, "/job/id")),
        ("Name", text(facts, "/job/name")),
        ("Description", text(facts, "/job/description")),
        ("Host", text(facts, "/host")),
        ("State", text(facts, "/run/state").replace('_', " ")),
        ("Error", text(facts, "/run/error")),
        ("Exit code", text(facts, "/run/exit_code")),
        ("Signal", text(facts, "/run/signal")),
        ("Reason", text(facts, "/run/reason")),
        ("Scheduled", text(facts, "/run/scheduled_at")),
        ("Last missed", text(facts, "/run/last_scheduled_at")),
        ("Occurrences", text(facts, "/run/count")),
        ("Started", text(facts, "/run/started_at")),
        ("Finished", text(facts, "/run/finished_at")),
        ("Took", text(facts, "/run/wall_time")),
        ("Attempt", text(facts, "/run/attempt")),
        ("Run", run.clone()),
    ];
    let is_missed = text(facts, "/event") == "missed";
    for (name, value) in lines {
        let is_shown = match name {
            "Occurrences" => is_missed,
            "Attempt" => !is_missed,
            _ => !value.is_empty(),
        };
        if is_shown {
            let unit = if name == "Took" { " s" } else { "" };
            // Writing to a `String` cannot fail.
            _ = writeln!(report, "{:<12} {}{unit}", format!("{name}:"), escaped(&value));
        }
    }
    let output = text(facts, "/output");
    if !output.is_empty() {
        report.push_str("\nThe end of its output:\n\n");
        for line in output.lines() {
            // A tab is kept. Other control characters, which a terminal could obey, are escaped.
            let parts: Vec<_> = line.split('\t').map(escaped).collect();
            report.push_str(&parts.join("\t"));
            report.push('\n');
        }
    }
    if !is_missed {
        _ = write!(report, "\nAll that is kept of it: punctual logs {run}\n");
    }
    report
}

/// A member of the report as text; empty if it is null or missing.
pub(super) fn text(facts: &Value, pointer: &str) -> String {
    match facts.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn facts() -> Value {
        json!({
            "event": "failure", "host": "web1",
            "job": {"id": "backup", "name": null, "tags": [], "description": "every night"},
            "run": {
                "id": "r1", "state": "failed", "error": "exit code 1", "exit_code": 1, "attempt": 2,
                "scheduled_at": "2026-11-29T03:00:00.000000Z", "wall_time": 1.5, "count": 1,
            },
            "output": "tar: no space\n\u{1b}[2Jleft\ton device\n",
        })
    }

    #[test]
    fn a_report_says_what_happened_where_and_when_and_ends_with_the_output() {
        assert_eq!(
            report(&facts()),
            "[web1] job backup failed: exit code 1\n\n\
             Job:         backup\nDescription: every night\nHost:        web1\nState:       failed\n\
             Error:       exit code 1\nExit code:   1\nScheduled:   2026-11-29T03:00:00.000000Z\n\
             Took:        1.5 s\nAttempt:     2\nRun:         r1\n\n\
             The end of its output:\n\ntar: no space\n\\u{1b}[2Jleft\ton device\n\n\
             All that is kept of it: punctual logs r1\n"
        );
    }

    #[test]
    fn a_subject_is_one_line_of_bounded_length() {
        let mut facts = facts();
        facts["run"]["error"] = json!(format!("a\r\nBcc: x@y.org{}", "x".repeat(500)));
        let subject = subject(&facts);
        assert!(!subject.contains(['\r', '\n']), "{subject}");
        assert_eq!(subject.chars().count(), SUBJECT_CHARS + 1);
    }

    #[test]
    fn a_report_of_missed_occurrences_counts_them() {
        let facts = json!({
            "event": "missed", "host": "web1", "job": {"id": "a"},
            "run": {"id": "r1", "state": "skipped", "reason": "missed", "count": 5, "attempt": 1},
            "output": "",
        });
        let report = report(&facts);
        assert!(report.starts_with("[web1] job a missed its time\n"), "{report}");
        assert!(report.contains("Occurrences: 5\n") && !report.contains("Attempt"), "{report}");
    }
}
