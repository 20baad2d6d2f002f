//! Triggers by tables, and the search against a brute-force walk.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    reason = "helpers of tests: short to call, and they may end a test"
)]

use chrono::TimeDelta;
use proptest::prelude::*;
use punctual::clock::Timestamp;
use punctual::trigger::Trigger;
use punctual::zone::Zone;
use serde_json::{Value, json};

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
    let cases: [(Value, &[&str]); 10] = [
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
fn what_could_be_misread_is_refused_and_pointed_at() {
    let cases = [
        (
            json!({"day": "3rd frx"}),
            "day",
            "unknown weekday \"frx\" (expected mon…sun), at column 5",
        ),
        (json!({"hour": "1, 24"}), "hour", "24 is out of range (hour is 0 to 23), at column 4"),
        (json!({"minute": "*/60"}), "minute", "the step 60"),
        (json!({"hour": "22-2"}), "hour", "goes backwards"),
        (json!({"day_of_week": "mon-fri/2"}), "day_of_week", "unknown weekday \"fri/2\""),
        (json!({"day_of_week": "fri#2"}), "day_of_week", "unknown weekday"),
        (json!({"day_of_week": "monday"}), "day_of_week", "unknown weekday"),
        (json!({"day_of_week": 7}), "day_of_week", "out of range"),
        (json!({"day": "last-2"}), "day", "unknown \"last-2\""),
        (json!({"day": "1st"}), "day", "a weekday is missing"),
        (json!({"day": "1st fri x"}), "day", "unexpected \"x\", at column 9"),
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
fn a_reading_that_the_clock_skips_does_not_exist_unless_it_is_shifted() {
    let helsinki = |rest: Value| {
        let mut spec = json!({"type": "cron", "timezone": "Europe/Helsinki"});
        spec.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        spec
    };
    let from = "2026-03-28T00:00:00Z";
    check(
        helsinki(json!({"hour": 3, "minute": 30})),
        from,
        &["2026-03-28 03:30:00+02:00", "2026-03-30 03:30:00+03:00"],
    );
    check(
        helsinki(json!({"hour": 3, "minute": 30, "dst_gap": "shift"})),
        from,
        &["2026-03-28 03:30:00+02:00", "2026-03-29 04:00:00+03:00", "2026-03-30 03:30:00+03:00"],
    );
    check(
        helsinki(json!({"hour": "3-5"})),
        "2026-03-28T21:00:00Z",
        &["2026-03-29 04:00:00+03:00", "2026-03-29 05:00:00+03:00"],
    );
    // Midnight of the day after a change is there every year.
    let berlin = json!({"type": "cron", "hour": 0, "timezone": "Europe/Berlin"});
    check(
        berlin,
        "2026-03-28T12:00:00Z",
        &["2026-03-29 00:00:00+01:00", "2026-03-30 00:00:00+02:00", "2026-03-31 00:00:00+02:00"],
    );
    // A gap at midnight, half an hour wide, and a day that never was.
    let beirut = json!({"type": "cron", "hour": 0, "timezone": "Asia/Beirut"});
    check(beirut, "2026-03-28T12:00:00Z", &["2026-03-30 00:00:00+03:00"]);
    let howe = json!({"type": "cron", "minute": 15, "timezone": "Australia/Lord_Howe"});
    check(
        howe,
        "2026-10-03T14:30:00Z",
        &["2026-10-04 01:15:00+10:30", "2026-10-04 03:15:00+11:00"],
    );
    let apia = json!({"type": "cron", "hour": 12, "timezone": "Pacific/Apia"});
    check(
        apia,
        "2011-12-29T12:00:00Z",
        &["2011-12-29 12:00:00-10:00", "2011-12-31 12:00:00+14:00"],
    );
}

#[test]
fn a_reading_that_the_clock_shows_twice_happens_twice_unless_only_the_first_is_wanted() {
    let new_york = |fold: &str| json!({"type": "cron", "minute": "*/30", "timezone": "America/New_York", "dst_fold": fold});
    let from = "2026-11-01T05:00:00Z";
    check(
        new_york("both"),
        from,
        &[
            "2026-11-01 01:00:00-04:00",
            "2026-11-01 01:30:00-04:00",
            "2026-11-01 01:00:00-05:00",
            "2026-11-01 01:30:00-05:00",
            "2026-11-01 02:00:00-05:00",
        ],
    );
    check(
        new_york("first"),
        from,
        &["2026-11-01 01:00:00-04:00", "2026-11-01 01:30:00-04:00", "2026-11-01 02:00:00-05:00"],
    );
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

const ZONES: [&str; 10] = [
    "UTC",
    "+05:30",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Beirut",
    "Pacific/Apia",
    "Africa/Casablanca",
    "America/Sao_Paulo",
    "Antarctica/Troll",
];

/// Patterns that often match, so that a walk second by second finds something.
fn dense_cron() -> impl Strategy<Value = Value> {
    let seconds = prop_oneof![Just("*/7"), Just("0"), Just("59"), Just("1-50/3")];
    let minutes = prop_oneof![Just("*"), Just("*/15"), Just("30"), Just("0,59")];
    let hours = prop_oneof![Just("*"), Just("0-3"), Just("23,0,1,2"), Just("*/5")];
    let days = prop_oneof![Just("*"), Just("last"), Just("*/2"), Just("last sun,1st sun,last fri")];
    let words = prop_oneof![
        Just(("skip", "both")),
        Just(("shift", "both")),
        Just(("skip", "first")),
        Just(("shift", "first"))
    ];
    (seconds, minutes, hours, days, words, prop::sample::select(&ZONES[..])).prop_map(|(second, minute, hour, day, (gap, fold), zone)| {
        json!({"type": "cron", "day": day, "hour": hour, "minute": minute, "second": second, "timezone": zone,
            "dst_gap": gap, "dst_fold": fold})
    })
}

/// An instant a few hours around a change of the zone's clock, where there is one, between 1990 and 2037.
fn near_a_change(zone: &str, seed: i64, offset_seconds: i64) -> Timestamp {
    let zone = Zone::parse(zone).unwrap();
    let base = Timestamp::from_timestamp(631_152_000 + seed, 0).unwrap();
    zone.transition_after(base).unwrap_or(base) + TimeDelta::seconds(offset_seconds)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn the_search_agrees_with_a_walk_second_by_second(
        spec in dense_cron(), seed in 0_i64..1_400_000_000, offset in -9000_i64..3600,
    ) {
        let trigger = parse(&spec);
        let from = near_a_change(spec["timezone"].as_str().unwrap(), seed, offset);
        let steps = 4 * 3600_i64;
        let walked: Vec<Timestamp> =
            (0..=steps).map(|second| from + TimeDelta::seconds(second)).filter(|at| trigger.matches(*at)).collect();
        let until = from + TimeDelta::seconds(steps);
        let mut searched = Vec::new();
        let mut next = trigger.next_from(from);
        while let Some(at) = next.filter(|at| *at <= until) {
            searched.push(at);
            next = trigger.next_after(at);
        }
        let difference = searched.iter().zip(&walked).position(|(searched, walked)| searched != walked);
        prop_assert_eq!((difference, searched.len()), (None, walked.len()), "{} from {}", spec, from);
        let span = trigger.occurrences(from, until);
        prop_assert_eq!(span.map(|span| (span.first, span.last)), walked.first().copied().zip(walked.last().copied()), "{} from {}", spec, from);
        prop_assert_eq!(span.map_or(0, |span| span.count), u64::try_from(walked.len()).unwrap(), "{} from {}", spec, from);
    }

    #[test]
    fn a_span_counts_what_a_walk_over_occurrences_counts(
        day in prop_oneof![Just("*"), Just("last"), Just("2nd tue,last fri"), Just("13")],
        weekday in prop_oneof![Just("*"), Just("mon-fri"), Just("fri")],
        hours in 0_u32..24, days in 1_i64..900, seed in 0_i64..1_400_000_000, zone in prop::sample::select(&ZONES[..]),
    ) {
        let trigger = parse(&json!({"type": "cron", "day": day, "day_of_week": weekday, "hour": format!("{hours}"), "minute": "0,30", "timezone": zone}));
        let from = near_a_change(zone, seed, 0);
        let until = from + TimeDelta::days(days);
        let (mut count, mut last, mut next) = (0, None, trigger.next_from(from));
        while let Some(at) = next.filter(|at| *at <= until) {
            (count, last) = (count + 1, Some(at));
            next = trigger.next_after(at);
        }
        let span = trigger.occurrences(from, until);
        prop_assert_eq!((span.map_or(0, |span| span.count), span.map(|span| span.last)), (count, last));
    }

    #[test]
    fn no_text_makes_the_parser_panic(field in "[a-z_]{1,12}", text in "[ -~…é]{0,40}", date in "[0-9: TZ+.-]{0,30}") {
        let anchor = at("2026-01-01T00:00:00Z");
        for spec in [
            json!({"type": "cron", "day": text}),
            json!({"type": "cron", "day_of_week": text, "hour": text}),
            json!({"type": "cron", field: text}),
            json!({"type": "date", "run_date": date, "timezone": text}),
            json!({"type": "interval", "seconds": 1, "start_date": date}),
        ] {
            // Whether it is understood does not matter here.
            drop(Trigger::parse(&spec, &Zone::utc(), anchor));
        }
    }

    #[test]
    fn a_spec_that_was_read_reads_the_same_again(spec in dense_cron()) {
        let trigger = parse(&spec);
        let again = Trigger::parse(trigger.spec(), &Zone::parse("Asia/Tokyo").unwrap(), at("2026-01-01T00:00:00Z")).unwrap();
        prop_assert_eq!(again.spec(), trigger.spec());
        prop_assert_eq!(again.first(), trigger.first());
    }
}
