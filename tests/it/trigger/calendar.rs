//! `calendarinterval` by tables.

use serde_json::json;

use super::{at, check, parse, refused, times};

#[test]
fn months_keep_the_day_and_pass_over_those_that_lack_it() {
    let spec =
        json!({"type": "calendarinterval", "months": 1, "hour": 3, "start_date": "2026-01-31"});
    check(
        spec,
        "2020-01-01T00:00:00Z",
        &["2026-01-31 03:00:00+00:00", "2026-03-31 03:00:00+00:00", "2026-05-31 03:00:00+00:00"],
    );
    let leap = json!({"type": "calendarinterval", "years": 1, "start_date": "2024-02-29"});
    check(
        leap,
        "2024-03-01T00:00:00Z",
        &["2028-02-29 00:00:00+00:00", "2032-02-29 00:00:00+00:00"],
    );
}

#[test]
fn days_are_added_to_what_months_give() {
    let spec =
        json!({"type": "calendarinterval", "months": 1, "days": 1, "start_date": "2026-01-31"});
    check(
        spec,
        "2026-02-01T00:00:00Z",
        &["2026-04-01 00:00:00+00:00", "2026-05-02 00:00:00+00:00", "2026-06-03 00:00:00+00:00"],
    );
    let weeks = json!({"type": "calendarinterval", "weeks": 2, "days": 1, "hour": 23, "minute": 59, "second": 58,
        "start_date": "2026-01-01", "end_date": "2026-01-16"});
    assert_eq!(
        times(&weeks, "2020-01-01T00:00:00Z", 9),
        ["2026-01-01 23:59:58+00:00", "2026-01-16 23:59:58+00:00"],
        "the end date is included"
    );
}

#[test]
fn a_day_whose_time_the_clock_skips_is_passed_over_and_a_doubled_one_comes_once() {
    let nuuk = json!({"type": "calendarinterval", "days": 1, "hour": 23, "minute": 30, "start_date": "2024-03-29", "timezone": "America/Nuuk"});
    check(
        nuuk,
        "2024-03-30T12:00:00Z",
        &["2024-03-31 23:30:00-01:00", "2024-04-01 23:30:00-01:00"],
    );
    let berlin = |rest: &str| {
        json!({"type": "calendarinterval", "days": 1, "hour": 2, "minute": 30, "start_date": "2026-01-01",
            "timezone": "Europe/Berlin", "dst_gap": if rest == "shift" { "shift" } else { "skip" },
            "dst_fold": if rest == "both" { "both" } else { "first" }})
    };
    check(
        berlin(""),
        "2026-03-28T12:00:00Z",
        &["2026-03-30 02:30:00+02:00", "2026-03-31 02:30:00+02:00"],
    );
    check(berlin("shift"), "2026-03-28T12:00:00Z", &["2026-03-29 03:00:00+02:00"]);
    let autumn = "2026-10-24T12:00:00Z";
    check(berlin(""), autumn, &["2026-10-25 02:30:00+02:00", "2026-10-26 02:30:00+01:00"]);
    check(berlin("both"), autumn, &["2026-10-25 02:30:00+02:00", "2026-10-25 02:30:00+01:00"]);
}

#[test]
fn a_day_that_the_zone_left_out_is_shifted_to_one_that_counts_once() {
    let apia = |gap: &str| {
        parse(
            &json!({"type": "calendarinterval", "days": 1, "start_date": "2011-12-28", "timezone": "Pacific/Apia", "dst_gap": gap}),
        )
    };
    let (from, to) = (at("2011-12-28T00:00:00Z"), at("2012-01-02T12:00:00Z"));
    let count = |gap: &str| apia(gap).occurrences(from, to).unwrap().count;
    assert_eq!((count("skip"), count("shift")), (6, 6), "28, 29, 31, 1, 2 and 3");
}

#[test]
fn a_start_on_a_day_that_the_zone_left_out_keeps_its_phase() {
    let kwajalein = json!({"type": "calendarinterval", "days": 16, "start_date": "1993-08-21", "timezone": "Pacific/Kwajalein"});
    check(
        kwajalein,
        "1993-08-01T00:00:00Z",
        &["1993-09-06 00:00:00+12:00", "1993-09-22 00:00:00+12:00"],
    );
    // Written with an offset it is an instant, and its date is the zone's.
    let tokyo = |hour: u32| {
        json!({"type": "calendarinterval", "days": 1, "hour": hour,
        "start_date": "2026-01-01T20:00:00Z", "timezone": "Asia/Tokyo"})
    };
    assert_eq!(parse(&tokyo(5)).first(), Some(at("2026-01-01T20:00:00Z")));
    assert_eq!(parse(&tokyo(4)).first(), Some(at("2026-01-02T19:00:00Z")));
}

#[test]
fn a_time_of_day_in_its_start_and_end_counts() {
    let daily = |bounds: serde_json::Value| {
        let mut spec = json!({"type": "calendarinterval", "days": 1, "hour": 9});
        spec.as_object_mut().unwrap().extend(bounds.as_object().unwrap().clone());
        times(&spec, "2020-01-01T00:00:00Z", 9)
    };
    let day = |day: u32| format!("2026-12-{day:02} 09:00:00+00:00");
    let to_the_third = |end: &str| daily(json!({"start_date": "2026-12-01", "end_date": end}));
    assert_eq!(to_the_third("2026-12-03"), [day(1), day(2), day(3)]);
    assert_eq!(to_the_third("2026-12-03 09:00:00"), [day(1), day(2), day(3)]);
    assert_eq!(to_the_third("2026-12-03 08:00:00"), [day(1), day(2)]);
    assert_eq!(to_the_third("2026-12-03 00:00:00"), [day(1), day(2)]);
    let from_the_first =
        |start: &str| daily(json!({"start_date": start, "end_date": "2026-12-03"}));
    assert_eq!(from_the_first("2026-12-01 09:00:00"), [day(1), day(2), day(3)]);
    assert_eq!(from_the_first("2026-12-01 09:00:01"), [day(2), day(3)]);
    // The series counts from the start's date all the same.
    let monthly =
        json!({"type": "calendarinterval", "months": 1, "start_date": "2027-01-31 06:00:00"});
    let from = "2020-01-01T00:00:00Z";
    check(monthly, from, &["2027-03-31 00:00:00+00:00", "2027-05-31 00:00:00+00:00"]);
}

#[test]
fn without_a_start_it_starts_today_and_never_in_the_past() {
    // The definition is at midnight of 2026-01-01 in UTC, when it is 19:00 of the day before in New York.
    let spec = |hour: u32| json!({"type": "calendarinterval", "days": 1, "hour": hour, "timezone": "America/New_York"});
    assert_eq!(parse(&spec(20)).first(), Some(at("2026-01-01T01:00:00Z")));
    assert_eq!(parse(&spec(18)).first(), Some(at("2026-01-01T23:00:00Z")));
    let past = json!({"type": "calendarinterval", "days": 1, "start_date": "2020-01-01"});
    assert_eq!(parse(&past).first(), Some(at("2020-01-01T00:00:00Z")), "its own start");
}

#[test]
fn an_impossible_calendar_interval_is_refused() {
    let cases = [
        (json!({}), "", "at least one day"),
        (json!({"hour": 3}), "", "at least one day"),
        (json!({"month": 1}), "month", "unknown key"),
        (json!({"months": -1}), "months", "whole number from 0"),
        (json!({"months": 1.5}), "months", "whole number from 0"),
        (json!({"months": 99_999_999}), "months", "whole number from 0"),
        (json!({"days": 1, "hour": 24}), "hour", "0 to 23"),
        (json!({"days": 1, "start_date": "2026-01-32"}), "start_date", "is not a time"),
        (
            json!({"days": 1, "start_date": "2026-01-02", "end_date": "2026-01-01"}),
            "end_date",
            "before",
        ),
    ];
    for (mut spec, field, message) in cases {
        spec["type"] = "calendarinterval".into();
        refused(spec, field, message);
    }
}
