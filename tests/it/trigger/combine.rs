//! `and` and `or` by tables.

use serde_json::{Value, json};

use super::{at, check, parse, refused, times};

fn cron(fields: &Value) -> Value {
    let mut spec = json!({"type": "cron"});
    spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    spec
}

fn interval(hours: u32, start: &str) -> Value {
    json!({"type": "interval", "hours": hours, "start_date": start})
}

fn combined(word: &str, triggers: &[Value]) -> Value {
    json!({"type": word, "triggers": triggers})
}

#[test]
fn or_fires_with_each_of_its_members_and_moves_none_of_their_grids() {
    let start = "2026-01-01 00:00:00";
    let once = json!({"type": "date", "run_date": "2026-01-01 07:30:00"});
    let spec = combined("or", &[interval(4, start), interval(6, start), once]);
    let expect = ["00:00", "04:00", "06:00", "07:30", "08:00", "12:00", "16:00"];
    let expect = expect.map(|time| format!("2026-01-01 {time}:00+00:00"));
    check(spec.clone(), "2025-01-01T00:00:00Z", &expect.each_ref().map(String::as_str));
    let span = parse(&spec).occurrences(at("2026-01-01T00:00:00Z"), at("2026-01-02T00:00:00Z"));
    assert_eq!(span.unwrap().count, 10, "0 and 12 and 24 o'clock count once");
}

#[test]
fn or_ends_with_its_last_member() {
    let mut first = interval(1, "2026-01-01");
    first["end_date"] = "2026-01-01 02:00:00".into();
    let once = json!({"type": "date", "run_date": "2026-02-01"});
    let spec = combined("or", &[first, once]);
    assert_eq!(times(&spec, "2020-01-01T00:00:00Z", 9).len(), 4);
    assert_eq!(parse(&spec).end(), Some(at("2026-02-01T00:00:00Z")));
}

#[test]
fn and_fires_where_all_of_its_members_do() {
    let workdays = cron(&json!({"day_of_week": "mon-fri"}));
    let spec = combined("and", &[workdays.clone(), interval(96, "2024-05-13")]);
    check(
        spec,
        "2024-05-01T00:00:00Z",
        &[
            "2024-05-13 00:00:00+00:00",
            "2024-05-17 00:00:00+00:00",
            "2024-05-21 00:00:00+00:00",
            "2024-05-29 00:00:00+00:00",
        ],
    );
    let monthly = json!({"type": "calendarinterval", "months": 1, "start_date": "2024-01-01"});
    let spec = combined("and", &[monthly, workdays]);
    check(
        spec,
        "2024-05-01T00:00:00Z",
        &["2024-05-01 00:00:00+00:00", "2024-07-01 00:00:00+00:00", "2024-08-01 00:00:00+00:00"],
    );
    // What hangs APScheduler: children that differ after a first agreement.
    let nightly = cron(&json!({"hour": 2}));
    let weekend = cron(&json!({"day_of_week": "sat,sun", "hour": 2}));
    check(
        combined("and", &[nightly, weekend]),
        "2026-01-01T00:00:00Z",
        &["2026-01-03 02:00:00+00:00", "2026-01-04 02:00:00+00:00", "2026-01-10 02:00:00+00:00"],
    );
}

#[test]
fn members_of_an_and_agree_within_a_threshold_and_exactly_where_they_can() {
    let dates = |threshold: Value| {
        json!({"type": "and", "threshold": threshold, "triggers": [
            {"type": "date", "run_date": "2026-05-16 14:17:30.25"}, {"type": "date", "run_date": "2026-05-16 14:17:31.25"}]})
    };
    check(dates(json!(1)), "2026-01-01T00:00:00Z", &["2026-05-16 14:17:30.250+00:00"]);
    for apart in [Value::Null, json!(0), json!(0.5)] {
        refused(dates(apart), "", "never fire");
    }
    // Fractions of a second are forgiven, whole seconds are not.
    let every_second = cron(&json!({"second": "*"}));
    let at_three = cron(&json!({"hour": 3}));
    check(
        combined("and", &[every_second, at_three.clone()]),
        "2026-01-01T00:00:00Z",
        &["2026-01-01 03:00:00+00:00", "2026-01-02 03:00:00+00:00"],
    );
    let off_by_a_bit = interval(1, "2026-01-01 00:00:00.3");
    check(
        combined("and", &[off_by_a_bit, at_three]),
        "2026-01-01T00:00:00Z",
        &["2026-01-01 03:00:00+00:00", "2026-01-02 03:00:00+00:00"],
    );
}

#[test]
fn members_that_never_agree_are_refused_and_so_is_nonsense() {
    let two_apart = [
        json!({"type": "interval", "seconds": 4, "start_date": "2026-01-01 00:00:00"}),
        json!({"type": "interval", "seconds": 4, "start_date": "2026-01-01 00:00:02"}),
    ];
    refused(combined("and", &two_apart), "triggers", "never agree");
    let days = [cron(&json!({"day_of_week": "mon"})), cron(&json!({"day_of_week": "tue"}))];
    refused(combined("and", &days), "triggers", "never agree");
    // They agree at first, and then not for 49 million seconds.
    let seldom = [
        json!({"type": "interval", "seconds": 7001, "start_date": "2026-01-01 00:00:00"}),
        json!({"type": "interval", "seconds": 7003, "start_date": "2026-01-01 00:00:00"}),
    ];
    refused(combined("and", &seldom), "triggers", "too seldom");
    refused(combined("or", &[]), "triggers", "1 to 16");
    refused(combined("or", &vec![interval(1, "2026-01-01"); 17]), "triggers", "1 to 16");
    refused(json!({"type": "or"}), "triggers", "must be a list");
    refused(json!({"type": "or", "trigers": []}), "trigers", "unknown key");
    refused(combined("or", &[cron(&json!({"hour": 25}))]), "triggers[0].hour", "out of range");
    let inner = combined("and", &[interval(1, "2026-01-01")]);
    refused(combined("and", &[inner]), "triggers[0].type", "inside an and");
    let nested = (0..4).fold(interval(1, "2026-01-01"), |inner, _| combined("or", &[inner]));
    refused(nested, "triggers[0].triggers[0].triggers[0].type", "more than 3");
    let mut jittery = interval(1, "2026-01-01");
    jittery["jitter"] = 5.into();
    refused(combined("and", &[jittery]), "triggers[0].jitter", "give it to the and");
    refused(
        json!({"type": "or", "threshold": 1, "triggers": [interval(1, "2026-01-01")]}),
        "threshold",
        "unknown key",
    );
}

#[test]
fn the_zone_of_the_whole_holds_for_members_that_name_none() {
    let own = json!({"type": "cron", "hour": 3, "timezone": "UTC"});
    let spec = json!({"type": "or", "timezone": "Asia/Tokyo", "triggers": [{"type": "cron", "hour": 3}, own]});
    let trigger = parse(&spec);
    assert_eq!(trigger.next_from(at("2026-01-01T00:00:00Z")), Some(at("2026-01-01T03:00:00Z")));
    assert_eq!(trigger.next_from(at("2026-01-01T04:00:00Z")), Some(at("2026-01-01T18:00:00Z")));
    assert_eq!(trigger.spec()["triggers"][0]["timezone"], "Asia/Tokyo");
    assert_eq!(trigger.describe(), "or(cron hour=3, cron hour=3)");
}

#[test]
fn a_member_of_an_or_keeps_its_jitter() {
    let mut jittery = interval(2, "2026-01-01");
    jittery["jitter"] = 60.into();
    let trigger = parse(&combined("or", &[jittery, interval(3, "2026-01-01")]));
    let seconds = |time: &str| trigger.jitter_at(at(time)).num_seconds();
    assert_eq!((seconds("2026-01-01T02:00:00Z"), seconds("2026-01-01T03:00:00Z")), (60, 0));
    assert_eq!(trigger.jitter().num_seconds(), 60);
}

#[test]
fn counting_a_dense_union_over_ten_years_is_bounded() {
    // Were each occurrence looked at, these 600 million would take minutes.
    let second = |start: &str| json!({"type": "interval", "seconds": 1, "start_date": start});
    let trigger = parse(&combined("or", &[second("2020-01-01"), second("2020-01-01 00:00:00.5")]));
    let span = trigger.occurrences(at("2020-01-01T00:00:00Z"), at("2030-01-01T00:00:00Z")).unwrap();
    assert_eq!(span.last, at("2030-01-01T00:00:00Z"));
    assert_eq!(span.count, 631_238_401);
    let every = cron(&json!({"second": "*"}));
    let trigger = parse(&combined("and", &[every, second("2020-01-01")]));
    let span = trigger.occurrences(at("2020-01-01T00:00:00Z"), at("2030-01-01T00:00:00Z")).unwrap();
    assert_eq!((span.first, span.last), (at("2020-01-01T00:00:00Z"), at("2030-01-01T00:00:00Z")));
    assert!(span.count >= 1000, "{}", span.count);
}

#[test]
fn an_occurrence_makes_an_and_fire_once_where_members_are_off_by_a_fraction() {
    let midnight = cron(&json!({"hour": 0}));
    let half_seconds =
        json!({"type": "interval", "seconds": 0.5, "start_date": "2026-01-01 00:00:00.25"});
    let spec = combined("and", &[midnight.clone(), half_seconds.clone()]);
    check(
        spec,
        "2026-01-01T12:00:00Z",
        &["2026-01-02 00:00:00+00:00", "2026-01-03 00:00:00+00:00", "2026-01-04 00:00:00+00:00"],
    );
    // The member that is named first decides between equal agreements.
    let spec = combined("and", &[half_seconds, midnight]);
    check(
        spec,
        "2026-01-01T12:00:00Z",
        &["2026-01-01 23:59:59.750+00:00", "2026-01-02 23:59:59.750+00:00"],
    );
    let seconds = |start: &str| json!({"type": "interval", "seconds": 1, "start_date": start});
    let spec = combined("and", &[seconds("2026-01-01"), seconds("2026-01-01 00:00:00.5")]);
    check(
        spec.clone(),
        "2026-01-01T00:00:00Z",
        &["2026-01-01 00:00:00+00:00", "2026-01-01 00:00:01+00:00", "2026-01-01 00:00:02+00:00"],
    );
    let trigger = parse(&spec);
    assert_eq!(trigger.last_until(at("2026-01-01T00:00:05.7Z")), Some(at("2026-01-01T00:00:05Z")));
}

#[test]
fn members_that_are_dense_or_far_apart_in_a_wide_threshold_are_found_to_agree() {
    let at_three = cron(&json!({"hour": 3}));
    let expect = ["2026-01-01 03:00:00+00:00", "2026-01-02 03:00:00+00:00"];
    for micros in [1, 10, 50] {
        let dense = json!({"type": "interval", "microseconds": micros, "start_date": "2026-01-01"});
        check(combined("and", &[dense, at_three.clone()]), "2026-01-01T00:00:00Z", &expect);
    }
    for threshold in [3600, 10_800] {
        let every_second = cron(&json!({"second": "*"}));
        let spec =
            json!({"type": "and", "threshold": threshold, "triggers": [every_second, at_three]});
        check(spec, "2026-01-01T00:00:00Z", &expect);
    }
}

#[test]
fn an_expensive_trigger_is_answered_in_time_or_refused() {
    // Each of these took seconds or minutes while only leaps were counted, and not what a leap costs.
    let mixed = json!({"type": "calendarinterval", "months": 1, "days": 1, "start_date": "0001-01-01", "hour": 1});
    let far = json!({"type": "interval", "days": 1, "start_date": "5000-01-01 02:00:00"});
    refused(combined("and", &[mixed.clone(), far.clone()]), "triggers", "never agree");
    let many = vec![cron(&json!({"second": "*/4"})); 16];
    let nested = vec![combined("or", &many); 16];
    refused(combined("or", &nested), "triggers", "256 triggers in all, of at most 32");
    let fine = json!({"type": "interval", "microseconds": 200, "start_date": "2026-01-01"});
    let trigger = parse(&combined("and", &[fine, cron(&json!({"second": "*"}))]));
    let span = trigger.occurrences(at("2026-01-01T00:00:00Z"), at("2026-01-01T06:00:00Z")).unwrap();
    assert_eq!(span.last, at("2026-01-01T06:00:00Z"));
    let trigger = parse(&mixed);
    assert_eq!(times(&mixed, "9990-01-01T00:00:00Z", 1000).len(), 114);
    assert!(trigger.matches(trigger.last_until(at("9999-12-30T00:00:00Z")).unwrap()));
}
