//! Triggers by tables, the search against a brute-force walk, and hostile input.

mod apscheduler;
mod calendar;
mod combine;
mod crontab;
mod dst;
mod hostile;
mod likeness;
mod walk;
mod zone;

use proptest::test_runner::Config as ProptestConfig;
use punctual::clock::Timestamp;
use punctual::trigger::Trigger;
use punctual::zone::Zone;
use serde_json::{Value, json};

/// How many cases a property is tried with; `PROPTEST_CASES=n` tries as many of each.
fn cases(default: u32) -> ProptestConfig {
    let wanted = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    let cases = wanted.unwrap_or(default);
    ProptestConfig { failure_persistence: None, cases, ..ProptestConfig::default() }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap_or_else(|_| panic!("{text}"))
}

fn parse(spec: &Value) -> Trigger {
    Trigger::parse(spec, &Zone::utc(), at("2026-01-01T00:00:00Z"))
        .unwrap_or_else(|invalid| panic!("{spec}: {invalid}"))
}

/// The next times from `from` on, as the zone's wall clock shows them, with its offset.
fn times(spec: &Value, from: &str, count: usize) -> Vec<String> {
    let trigger = parse(spec);
    let mut next = trigger.next_from(at(from));
    let mut times = Vec::new();
    while let Some(at) = next.filter(|_| times.len() < count) {
        times.push(trigger.zone().to_fixed(at).format("%Y-%m-%d %H:%M:%S%.f%:z").to_string());
        next = trigger.next_after(at);
    }
    times
}

fn check(spec: Value, from: &str, expect: &[&str]) {
    assert_eq!(times(&spec, from, expect.len()), expect, "{spec} from {from}");
}

fn refused(spec: Value, field: &str, message: &str) {
    let parsed = Trigger::parse(&spec, &Zone::utc(), at("2026-01-01T00:00:00Z"));
    let invalid = parsed.map(|trigger| trigger.spec().clone()).expect_err("it has to be refused");
    assert_eq!(invalid.field, field, "{spec}: {invalid}");
    assert!(invalid.message.contains(message), "{spec}: {invalid}");
}

#[test]
fn cron_fields_that_are_not_given_follow_the_finest_one_that_is() {
    let from = "2026-01-01T00:00:01Z";
    check(
        json!({"type": "cron", "hour": 5}),
        from,
        &["2026-01-01 05:00:00+00:00", "2026-01-02 05:00:00+00:00"],
    );
    check(
        json!({"type": "cron", "minute": 20}),
        from,
        &["2026-01-01 00:20:00+00:00", "2026-01-01 01:20:00+00:00"],
    );
    check(json!({"type": "cron", "day_of_week": "mon"}), from, &["2026-01-05 00:00:00+00:00"]);
    check(
        json!({"type": "cron", "month": 3}),
        from,
        &["2026-03-01 00:00:00+00:00", "2027-03-01 00:00:00+00:00"],
    );
    check(
        json!({"type": "cron", "week": 10}),
        from,
        &["2026-03-02 00:00:00+00:00", "2026-03-03 00:00:00+00:00"],
    );
    check(json!({"type": "cron", "year": 2027}), from, &["2027-01-01 00:00:00+00:00"]);
    assert_eq!(times(&json!({"type": "cron", "year": 2027}), from, 5).len(), 1);
}

#[test]
fn cron_expressions_mean_what_apscheduler_says() {
    let from = "2026-01-01T00:00:00Z";
    let cases: [(Value, &[&str]); 11] = [
        (json!({"day": "*/2"}), &["2026-01-01", "2026-01-03"]),
        (json!({"day": "3rd fri"}), &["2026-01-16", "2026-02-20", "2026-03-20"]),
        (json!({"day": "last"}), &["2026-01-31", "2026-02-28", "2026-03-31"]),
        (json!({"day": "last sun"}), &["2026-01-25", "2026-02-22"]),
        (json!({"day": "5th thu"}), &["2026-01-29", "2026-04-30"]),
        (json!({"day": "13", "day_of_week": "fri"}), &["2026-02-13", "2026-03-13", "2026-11-13"]),
        (
            json!({"month": "feb-apr,DEC", "day": 1}),
            &["2026-02-01", "2026-03-01", "2026-04-01", "2026-12-01"],
        ),
        (json!({"month": 2, "day": 29}), &["2028-02-29", "2032-02-29"]),
        (
            json!({"year": "1970/9,2026,2030-2040/5,2031,2033,1999,2050", "month": 1}),
            &[
                "2026-01-01",
                "2030-01-01",
                "2031-01-01",
                "2033-01-01",
                "2035-01-01",
                "2040-01-01",
                "2042-01-01",
            ],
        ),
        (json!({"day": "10-20/5"}), &["2026-01-10", "2026-01-15", "2026-01-20", "2026-02-10"]),
        (json!({"week": 53}), &["2026-12-28", "2026-12-29"]),
    ];
    for (fields, expect) in cases {
        let mut spec = fields;
        spec["type"] = "cron".into();
        let expect: Vec<String> =
            expect.iter().map(|date| format!("{date} 00:00:00+00:00")).collect();
        let expect: Vec<&str> = expect.iter().map(String::as_str).collect();
        check(spec, from, &expect);
    }
    check(
        json!({"type": "cron", "hour": "9-17/4", "minute": "*/30", "second": "5, 10"}),
        from,
        &["2026-01-01 09:00:05+00:00", "2026-01-01 09:00:10+00:00", "2026-01-01 09:30:05+00:00"],
    );
}

#[test]
fn ambiguous_fields_are_refused_with_their_column() {
    let cases = [
        (
            json!({"day": "3rd frx"}),
            "day",
            "unknown weekday \"frx\" (expected mon…sun), at column 5",
        ),
        (json!({"hour": "1, 24"}), "hour", "24 is out of range (hour is 0 to 23), at column 4"),
        (json!({"minute": "*/60"}), "minute", "the step 60"),
        (json!({"hour": "22-2"}), "hour", "goes backwards"),
        (json!({"day_of_week": "mon-fri/2"}), "day_of_week", "takes no step, at column 8"),
        (json!({"day_of_week": "fri#2"}), "day_of_week", "unknown weekday"),
        (json!({"day_of_week": "monday"}), "day_of_week", "unknown weekday"),
        (json!({"day_of_week": 7}), "day_of_week", "out of range"),
        (json!({"day": "last-2"}), "day", "unknown \"last-2\""),
        (json!({"day": "1st"}), "day", "a weekday is missing"),
        (json!({"day": "1st fri x"}), "day", "unexpected \"x\", at column 9"),
        (json!({"day": "1st  fri,  3rd   fri   x"}), "day", "unexpected \"x\", at column 24"),
        (json!({"day": "1 - 5"}), "day", "unexpected space, at column 2"),
        (json!({"hour": "1 - 5"}), "hour", "unexpected space, at column 2"),
        (
            json!({"day_of_week": "mon-5"}),
            "day_of_week",
            "names or of numbers, not of both, at column 5",
        ),
        (json!({"hour": ""}), "hour", "an item is missing"),
        (json!({"hour": "1,,2"}), "hour", "an item is missing, at column 3"),
        (json!({"hour": -1}), "hour", "whole number"),
        (json!({"hour": 1.5}), "hour", "whole number"),
        (json!({"hour": [3]}), "hour", "whole number"),
        (json!({}), "", "at least one of its fields"),
        (json!({"hours": 3}), "hours", "unknown key"),
        (json!({"hour": 3, "hours": 3}), "hours", "unknown key"),
        (json!({"month": 2, "day": 30}), "", "never fire"),
        (json!({"month": "jun", "week": 53}), "", "never fire"),
        (
            json!({"hour": 3, "timezone": "Asia/Shanghia"}),
            "timezone",
            "did you mean \"Asia/Shanghai\"",
        ),
        (
            json!({"hour": 3, "start_date": "2026-02-01", "end_date": "2026-01-01"}),
            "end_date",
            "before start_date",
        ),
        (json!({"hour": 3, "end_date": "yesterday"}), "end_date", "is not a time"),
        (json!({"hour": 3, "jitter": -1}), "jitter", "not negative"),
        (json!({"hour": 3, "dst_gap": "jump"}), "dst_gap", "unknown word"),
    ];
    for (mut spec, field, message) in cases {
        spec["type"] = "cron".into();
        refused(spec, field, message);
    }
    refused(json!({"hour": 3}), "type", "missing");
    refused(json!({"type": "interval"}), "", "more than zero");
    refused(json!({"type": "interval", "second": 3}), "second", "unknown key");
    refused(json!({"type": "interval", "seconds": -5}), "seconds", "not negative");
    refused(json!({"type": "interval", "weeks": 1e300}), "weeks", "thousand years");
    refused(json!({"type": "date", "run_date": "2026-13-01"}), "run_date", "is not a time");
    refused(json!({"type": "date", "hour": 3}), "hour", "unknown key");
}

#[test]
fn an_impossible_pattern_is_refused_without_a_search_through_all_ages() {
    // Two thousand refusals: were each a walk to the year 9999, this would take minutes.
    for _ in 0..1000 {
        refused(json!({"type": "cron", "month": 2, "day": 30}), "", "never fire");
        refused(json!({"type": "cron", "month": 2, "day": 29, "week": 20}), "", "never fire");
    }
}

#[test]
fn an_interval_keeps_to_the_grid_of_its_start() {
    let spec = json!({"type": "interval", "minutes": 7, "start_date": "2026-01-01 00:01:00"});
    check(
        spec.clone(),
        "2025-01-01T00:00:00Z",
        &["2026-01-01 00:01:00+00:00", "2026-01-01 00:08:00+00:00"],
    );
    check(
        spec,
        "2026-01-01T00:08:00Z",
        &["2026-01-01 00:08:00+00:00", "2026-01-01 00:15:00+00:00"],
    );
    // Without a start the first occurrence is one interval after the definition.
    check(
        json!({"type": "interval", "seconds": 1.5}),
        "2020-01-01T00:00:00Z",
        &["2026-01-01 00:00:01.500+00:00", "2026-01-01 00:00:03+00:00"],
    );
    let ended = json!({"type": "interval", "hours": 1, "start_date": "2026-01-01", "end_date": "2026-01-01 02:00:00"});
    assert_eq!(times(&ended, "2020-01-01T00:00:00Z", 10).len(), 3, "the end is included");
    let third = parse(&json!({"type": "interval", "seconds": 1, "start_date": "2016-01-01"}));
    let span = third.occurrences(at("2016-01-01T00:00:00Z"), at("2026-01-01T00:00:00Z")).unwrap();
    assert_eq!((span.count, span.last), (315_619_201, at("2026-01-01T00:00:00Z")));
}

#[test]
fn a_bare_date_as_the_end_includes_that_whole_day() {
    let count = |mut spec: Value, zone: &str, end: &str| {
        spec["timezone"] = zone.into();
        spec["start_date"] = "2026-03-27".into();
        spec["end_date"] = end.into();
        let trigger = parse(&spec);
        let times = times(&spec, "2026-01-01T00:00:00Z", 999);
        let all = trigger.occurrences(at("2026-01-01T00:00:00Z"), at("2027-01-01T00:00:00Z"));
        assert_eq!(all.map(|span| span.count), u64::try_from(times.len()).ok(), "{spec}");
        assert_eq!(trigger.last_until(at("2027-01-01T00:00:00Z")), all.map(|span| span.last));
        times.len()
    };
    let hourly = [
        json!({"type": "cron", "minute": 0}),
        json!({"type": "crontab", "expression": "0 * * * *"}),
        json!({"type": "interval", "hours": 1}),
    ];
    for spec in hourly {
        assert_eq!(count(spec.clone(), "UTC", "2026-03-28"), 48, "{spec}");
        assert_eq!(count(spec.clone(), "UTC", "2026-03-28 00:00:00"), 25, "{spec}");
        // Of 23 hours in Berlin; a day ends where the next one begins, also in a gap at midnight.
        assert_eq!(count(spec.clone(), "Europe/Berlin", "2026-03-29"), 24 + 24 + 23, "{spec}");
        assert_eq!(count(spec.clone(), "Asia/Beirut", "2026-03-28"), 48, "{spec}");
        assert_eq!(count(spec, "Asia/Beirut", "2026-03-29"), 48 + 23);
    }
    let daily = json!({"type": "calendarinterval", "days": 1, "hour": 23});
    assert_eq!(count(daily, "UTC", "2026-03-28"), 2);
    let of_both = |kind: &str| {
        json!({"type": kind, "triggers": [
            {"type": "cron", "hour": 23, "start_date": "2026-03-01", "end_date": "2026-03-28"},
            {"type": "cron", "hour": "23", "end_date": "2026-03-28"},
        ]})
    };
    for kind in ["or", "and"] {
        assert_eq!(times(&of_both(kind), "2026-03-27T00:00:00Z", 9).len(), 2, "{kind}");
    }
    let day = json!({"type": "cron", "hour": 12, "start_date": "2026-03-28 06:00:00", "end_date": "2026-03-28"});
    assert_eq!(times(&day, "2026-01-01T00:00:00Z", 9).len(), 1);
}

#[test]
fn the_calendar_ends_with_the_year_9999_in_every_zone() {
    let hourly = |zone: &str| json!({"type": "interval", "hours": 1, "start_date": "2000-01-01", "timezone": zone});
    for (zone, expect) in [("UTC", 24), ("+18:00", 6), ("-18:00", 24)] {
        assert_eq!(times(&hourly(zone), "9999-12-31T00:00:00Z", 99).len(), expect, "{zone}");
    }
    let date = |text: &str| json!({"type": "date", "run_date": text});
    for beyond in ["9999-12-31 23:59:59-18:00", "0001-01-01 00:00:00+18:00", "0000-01-01"] {
        refused(date(beyond), "run_date", "is not a time");
    }
    assert!(parse(&date("9999-12-31 23:59:59")).first().is_some());
    for offset in ["++5:30", "+05:+3", "+5:30", "05:30", "localtime", "posixrules", "Factory"] {
        refused(json!({"type": "cron", "hour": 3, "timezone": offset}), "timezone", "zone");
    }
    refused(date("2026-11-06T16:30:05++8:00"), "run_date", "is not a time");
}

#[test]
fn times_are_read_as_they_are_written() {
    let date = |text: &str, zone: &str| {
        parse(&json!({"type": "date", "run_date": text, "timezone": zone})).first().unwrap()
    };
    let cases = [
        ("2026-11-06", "UTC", "2026-11-06T00:00:00Z"),
        ("2026-11-06 16:30:05", "Asia/Shanghai", "2026-11-06T08:30:05Z"),
        ("2026-1-6T6:3:5.5", "UTC", "2026-01-06T06:03:05.5Z"),
        ("2026-11-06T16:30:05.123456Z", "Asia/Shanghai", "2026-11-06T16:30:05.123456Z"),
        ("2026-11-06 16:30:05+05:30", "UTC", "2026-11-06T11:00:05Z"),
        ("2026-03-29 03:30:00", "Europe/Helsinki", "2026-03-29T01:30:00Z"),
        ("2026-10-25 03:30:00", "Europe/Helsinki", "2026-10-25T00:30:00Z"),
        ("2026-11-06 16:30:05", "+05:30", "2026-11-06T11:00:05Z"),
        ("2026-11-06 16:30:05", "asia/shanghai", "2026-11-06T08:30:05Z"),
    ];
    for (text, zone, instant) in cases {
        assert_eq!(date(text, zone), at(instant), "{text} in {zone}");
    }
}
