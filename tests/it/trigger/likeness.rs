//! Two spellings of one trigger are one trigger.

use punctual::trigger::Trigger;
use punctual::zone::Zone;
use serde_json::{Value, json};

use super::at;

/// Compiles a definition of another moment each time.
fn defined(spec: &Value, second: i64) -> Trigger {
    let anchor = at("2026-01-01T00:00:00Z") + chrono::TimeDelta::seconds(second);
    Trigger::parse(spec, &Zone::parse("Europe/Berlin").unwrap(), anchor).unwrap()
}

fn are_alike(one: &Value, other: &Value) -> bool {
    let (one, other) = (defined(one, 0), defined(other, 7));
    assert_eq!(one.has_same_occurrences(&other), other.has_same_occurrences(&one));
    one.has_same_occurrences(&other)
}

fn cron(fields: Value) -> Value {
    let mut spec = fields;
    spec["type"] = "cron".into();
    spec
}

#[test]
fn triggers_that_mean_the_same_are_equal_whatever_their_spelling() {
    let crontab = |expression: &str| json!({"type": "crontab", "expression": expression});
    let interval = |key: &str, count: Value| json!({"type": "interval", key: count});
    let same = [
        (cron(json!({"hour": 8})), cron(json!({"hour": "8"}))),
        (cron(json!({"hour": 8})), cron(json!({"hour": "8", "minute": 0, "second": "0"}))),
        (cron(json!({"hour": "6,18"})), cron(json!({"hour": "18, 6"}))),
        (cron(json!({"day_of_week": "mon-fri"})), cron(json!({"day_of_week": "0-4"}))),
        (cron(json!({"year": "2027,2028"})), cron(json!({"year": "2027-2028"}))),
        (
            cron(json!({"hour": 8, "timezone": null})),
            cron(json!({"hour": 8, "timezone": "Europe/Berlin"})),
        ),
        (cron(json!({"hour": 8, "dst_gap": "skip"})), cron(json!({"hour": 8}))),
        (
            cron(json!({"hour": 8, "timezone": "UTC"})),
            cron(json!({"hour": 8, "timezone": "+00:00"})),
        ),
        (
            cron(json!({"hour": 8, "end_date": "2027-01-31"})),
            cron(json!({"hour": 8, "end_date": "2027-01-31 23:59:59.999999"})),
        ),
        (cron(json!({"hour": 8, "jitter": 5})), cron(json!({"hour": 8, "jitter": 5.0}))),
        (crontab("0 8 * * *"), crontab(" 00  8 * JAN-dec * ")),
        (crontab("@daily"), crontab("0 0 * * *")),
        (crontab("0 8 * * 0"), crontab("0 8 * * sun")),
        (crontab("30 * * * *"), cron(json!({"minute": 30}))),
        (interval("seconds", json!(3)), interval("seconds", json!(3.0))),
        (interval("minutes", json!(60)), interval("hours", json!(1))),
        (
            interval("seconds", json!(3600)),
            json!({"type": "interval", "minutes": 30, "hours": 0.5}),
        ),
        (
            json!({"type": "interval", "days": 1, "start_date": "2026-01-01"}),
            json!({"type": "interval", "days": 1, "start_date": "2025-12-31T23:00:00Z"}),
        ),
        (
            json!({"type": "date", "run_date": "2027-01-01"}),
            json!({"type": "date", "run_date": "2026-12-31T23:00:00Z", "timezone": "UTC"}),
        ),
        (json!({"type": "date"}), json!({"type": "date", "run_date": null})),
        (
            json!({"type": "calendarinterval", "years": 1, "weeks": 1}),
            json!({"type": "calendarinterval", "months": 12, "days": 7, "hour": 0}),
        ),
        (
            json!({"type": "or", "triggers": [crontab("0 8 * * *"), interval("hours", json!(1))]}),
            json!({"type": "or", "triggers": [interval("minutes", json!(60)), crontab("0 8 * * *")]}),
        ),
        (
            json!({"type": "and", "triggers": [cron(json!({"hour": 8})), cron(json!({"day": "last", "hour": 8}))]}),
            json!({"type": "and", "triggers": [cron(json!({"day": "last", "hour": 8})), cron(json!({"hour": "8"}))]}),
        ),
    ];
    for (one, other) in same {
        assert!(are_alike(&one, &other), "{one} and {other}");
    }
}

#[test]
fn triggers_that_mean_different_things_are_different() {
    let spaced = |first: u32, second: u32| {
        let at = |second: u32| cron(json!({"minute": 0, "second": second}));
        json!({"type": "and", "threshold": 10, "triggers": [at(first), at(second)]})
    };
    let different = [
        (cron(json!({"hour": 8})), cron(json!({"hour": 9}))),
        (cron(json!({"hour": 8})), cron(json!({"hour": 8, "jitter": 1}))),
        (cron(json!({"hour": 8})), cron(json!({"hour": 8, "timezone": "Europe/London"}))),
        (cron(json!({"hour": 8})), cron(json!({"hour": 8, "start_date": "2026-01-01"}))),
        (cron(json!({"hour": 8})), cron(json!({"hour": 8, "dst_fold": "first"}))),
        (cron(json!({"hour": 8})), json!({"type": "crontab", "expression": "0 8 * * *"})),
        (
            json!({"type": "crontab", "expression": "0 * * * *"}),
            json!({"type": "crontab", "expression": "0 0-23 * * *"}),
        ),
        (json!({"type": "interval", "days": 1}), json!({"type": "calendarinterval", "days": 1})),
        (
            json!({"type": "interval", "days": 1}),
            json!({"type": "interval", "days": 1, "start_date": "2026-01-02"}),
        ),
        (json!({"type": "date"}), json!({"type": "date", "run_date": "2026-01-01T00:00:00Z"})),
        (
            json!({"type": "or", "triggers": [cron(json!({"hour": 8}))]}),
            json!({"type": "or", "triggers": [cron(json!({"hour": 8})), cron(json!({"hour": 9}))]}),
        ),
        // Of two agreements that are equally close the one counts that begins with the first of the list.
        (spaced(0, 5), spaced(5, 0)),
    ];
    for (one, other) in different {
        assert!(!are_alike(&one, &other), "{one} and {other}");
    }
}

#[test]
fn the_clock_of_a_one_shot_does_not_move_it_and_is_part_of_its_meaning() {
    let berlin = defined(&json!({"type": "date", "run_date": "2027-01-01T00:00:00Z"}), 0);
    let tokyo =
        json!({"type": "date", "run_date": "2027-01-01T00:00:00Z", "timezone": "Asia/Tokyo"});
    assert!(
        berlin.has_same_occurrences(&defined(&tokyo, 0))
            && !berlin.is_equivalent(&defined(&tokyo, 0))
    );
}
