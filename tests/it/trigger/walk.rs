//! The searches against a brute-force walk: `matches` is asked of every instant of a window, and
//! `next_from`, `last_until` and `occurrences` have to find just those.

use chrono::TimeDelta;
use proptest::prelude::*;
use punctual::clock::Timestamp;
use punctual::trigger::Trigger;
use punctual::zone::Zone;
use serde_json::{Value, json};

use super::{at, cases, parse};

/// Zones with every kind of trouble: half-hour shifts, gaps at midnight, a day that never was, a summer time that
/// pauses for Ramadan, two hours at once, three and more hours at once, changes of the standard time, offsets with
/// seconds until 1972.
const ZONES: [&str; 18] = [
    "UTC",
    "+05:30",
    "Europe/Berlin",
    "Europe/Dublin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Beirut",
    "Asia/Gaza",
    "Asia/Pyongyang",
    "Pacific/Apia",
    "Pacific/Kwajalein",
    "Africa/Casablanca",
    "Africa/Monrovia",
    "America/Sao_Paulo",
    "America/Caracas",
    "Antarctica/Troll",
    "Antarctica/Casey",
    "Antarctica/Vostok",
];

/// Fails unless the searches find what a walk from `from` to `until` finds.
fn check_walk(trigger: &Trigger, from: Timestamp, until: Timestamp, step: TimeDelta) {
    let mut walked = Vec::new();
    let mut at = from;
    while at <= until {
        if trigger.matches(at) {
            walked.push(at);
        }
        at += step;
    }
    let say = || format!("{} in {} from {from}", trigger.spec(), trigger.zone().name());
    let mut searched = Vec::new();
    let mut next = trigger.next_from(from);
    while let Some(at) = next.filter(|at| *at <= until && searched.len() <= walked.len()) {
        searched.push(at);
        next = trigger.next_after(at);
    }
    assert_eq!(searched, walked, "forwards: {}", say());
    let mut backwards = Vec::new();
    let mut last = trigger.last_until(until);
    while let Some(at) = last.filter(|at| *at >= from && backwards.len() <= walked.len()) {
        backwards.push(at);
        last = trigger.last_until(at - TimeDelta::microseconds(1));
    }
    backwards.reverse();
    assert_eq!(backwards, walked, "backwards: {}", say());
    let span = trigger.occurrences(from, until);
    let found = span.map(|span| (span.first, span.last, span.count));
    let first_and_last = walked.first().copied().zip(walked.last().copied());
    let count = u64::try_from(walked.len()).unwrap();
    assert_eq!(found, first_and_last.map(|(first, last)| (first, last, count)), "span: {}", say());
}

/// Patterns that often match, so that a walk finds something.
fn dense_cron(second: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let minutes = ["*", "*/15", "30", "0,59", "5-20/5"];
    let hours = ["*", "0-3", "23,0,1,2", "*/5", "1-3"];
    let days = ["*", "last", "*/2", "last sun,1st sun,last fri", "1-7"];
    let rules = [
        ("skip", "both"),
        ("shift", "both"),
        ("skip", "first"),
        ("shift", "first"),
        ("cron(8)", "cron(8)"),
        ("cron(8)", "first"),
    ];
    let pick = prop::sample::select::<&str>;
    let fields =
        (pick(second.to_vec()), pick(minutes.to_vec()), pick(hours.to_vec()), pick(days.to_vec()));
    (fields, prop::sample::select(rules.to_vec()), prop::sample::select(&ZONES[..])).prop_map(
        |((second, minute, hour, day), (gap, fold), zone)| {
            if gap == "cron(8)" {
                let day = if day.contains("last") { "*" } else { day };
                let fold = Some(fold).filter(|fold| *fold != gap);
                let expression = format!("{second} {minute} {hour} {day} * *");
                return json!({"type": "crontab", "expression": expression, "timezone": zone, "dst_fold": fold});
            }
            json!({"type": "cron", "day": day, "hour": hour, "minute": minute, "second": second, "timezone": zone,
                "dst_gap": gap, "dst_fold": fold})
        },
    )
}

/// An instant near a change of the zone's clock, where there is one, between 1990 and 2037.
fn near_a_change(zone: &str, seed: i64, offset_seconds: i64) -> Timestamp {
    let zone = Zone::parse(zone).unwrap();
    let base = Timestamp::from_timestamp(631_152_000 + seed, 0).unwrap();
    zone.transition_after(base).unwrap_or(base) + TimeDelta::seconds(offset_seconds)
}

/// How far apart the instants of a walk are: a minute, unless the zone's offset has seconds, as Monrovia's until 1972,
/// which puts matches between the minutes of UTC.
fn step(zone: &Zone, at: &[Timestamp]) -> TimeDelta {
    let between = at.iter().any(|at| zone.offset_seconds(*at) % 60 != 0);
    TimeDelta::seconds(if between { 1 } else { 60 })
}

/// Every change of a zone's clock from 1970 to the end of 2037.
fn changes(zone: &Zone) -> Vec<Timestamp> {
    let next = |at: &Timestamp| zone.transition_after(*at);
    std::iter::successors(next(&Timestamp::default()), next)
        .take_while(|change| *change < at("2038-01-01T00:00:00Z"))
        .collect()
}

#[test]
fn around_every_change_of_a_clock_the_search_agrees_with_a_walk() {
    let patterns = [
        json!({"type": "cron", "minute": "*/10"}),
        json!({"type": "cron", "hour": "0-3", "minute": "0,30", "dst_gap": "shift"}),
        json!({"type": "cron", "hour": 2, "minute": 30, "dst_gap": "shift", "dst_fold": "first"}),
        json!({"type": "cron", "hour": 0}),
        json!({"type": "crontab", "expression": "15 0-3 * * *"}),
        json!({"type": "crontab", "expression": "0,30 0-3 * * *"}),
        json!({"type": "crontab", "expression": "*/20 2 * * *"}),
        json!({"type": "crontab", "expression": "30 * * * *"}),
        json!({"type": "crontab", "expression": "@daily", "dst_gap": "skip"}),
        json!({"type": "calendarinterval", "days": 1, "hour": 0, "minute": 30, "start_date": "1970-01-01", "dst_gap": "shift", "dst_fold": "both"}),
    ];
    let mut seen = 0;
    for name in ZONES {
        let zone = Zone::parse(name).unwrap();
        for change in changes(&zone) {
            seen += 1;
            let minute = |at: Timestamp| at - TimeDelta::seconds(at.timestamp().rem_euclid(60));
            let from = minute(change - TimeDelta::minutes(200));
            for spec in &patterns {
                let trigger = Trigger::parse(spec, &zone, from).unwrap();
                check_walk(
                    &trigger,
                    from,
                    from + TimeDelta::minutes(400),
                    step(&zone, &[from, change]),
                );
            }
        }
    }
    assert!(seen > 900, "{seen} changes");
}

#[test]
fn in_every_zone_of_the_world_the_search_agrees_with_a_walk() {
    let spec = json!({"type": "cron", "hour": "0-4,22,23", "minute": "*/15", "dst_gap": "shift"});
    let mut seen = 0;
    for (number, name) in chrono_tz::TZ_VARIANTS.iter().enumerate() {
        // A system's tz database may leave out the names of old.
        let Ok(zone) = Zone::parse(name.name()) else { continue };
        seen += 1;
        let trigger = Trigger::parse(&spec, &zone, Timestamp::default()).unwrap();
        let changes = changes(&zone);
        for change in changes.iter().skip(number % 7).step_by(changes.len() / 4 + 1) {
            let before = *change - TimeDelta::seconds(1);
            let step = step(&zone, &[before, *change]);
            let from = *change - TimeDelta::minutes(150);
            let minute = from - TimeDelta::seconds(from.timestamp().rem_euclid(60));
            check_walk(&trigger, minute, minute + TimeDelta::minutes(300), step);
        }
    }
    assert!(seen > 400, "{seen} zones");
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn the_search_agrees_with_a_walk_second_by_second(
        spec in dense_cron(&["*/7", "0", "59", "1-50/3"]), seed in 0_i64..1_400_000_000, offset in -9000_i64..3600,
    ) {
        let from = near_a_change(spec["timezone"].as_str().unwrap(), seed, offset);
        check_walk(&parse(&spec), from, from + TimeDelta::hours(4), TimeDelta::seconds(1));
    }

    #[test]
    fn a_span_counts_what_a_walk_over_occurrences_counts(
        day in prop_oneof![Just("*"), Just("last"), Just("2nd tue,last fri"), Just("13")],
        weekday in prop_oneof![Just("*"), Just("mon-fri"), Just("fri")],
        week in prop_oneof![Just("*"), Just("1,10-20,53")],
        hours in 0_u32..24, days in 1_i64..900, seed in 0_i64..1_400_000_000, zone in prop::sample::select(&ZONES[..]),
    ) {
        let trigger = parse(&json!({"type": "cron", "day": day, "day_of_week": weekday, "week": week, "hour": hours, "minute": "0,30", "timezone": zone}));
        let from = near_a_change(zone, seed, 0);
        let until = from + TimeDelta::days(days);
        let (mut count, mut last, mut next) = (0, None, trigger.next_from(from));
        while let Some(at) = next.filter(|at| *at <= until) {
            (count, last) = (count + 1, Some(at));
            next = trigger.next_after(at);
        }
        let span = trigger.occurrences(from, until);
        prop_assert_eq!((span.map_or(0, |span| span.count), span.map(|span| span.last)), (count, last));
        prop_assert_eq!(trigger.last_until(until).filter(|last| *last >= from), last);
    }

    #[test]
    fn a_union_and_an_intersection_are_what_a_walk_says(
        one in dense_cron(&["0"]), other in dense_cron(&["0"]), minutes in 1_i64..90, days in 1_u32..3,
        seed in 0_i64..1_400_000_000, offset in -900_i64..60, word in prop_oneof![Just("and"), Just("or")],
    ) {
        let from = near_a_change(one["timezone"].as_str().unwrap(), seed, 0);
        let from = from - TimeDelta::seconds(from.timestamp().rem_euclid(60)) + TimeDelta::minutes(offset);
        let started = (from - TimeDelta::days(9)).to_rfc3339();
        let interval = json!({"type": "interval", "minutes": minutes, "start_date": started});
        let calendar = json!({"type": "calendarinterval", "days": days, "hour": 2, "minute": 30, "start_date": started,
            "timezone": one["timezone"], "dst_fold": "both", "dst_gap": one["dst_gap"]});
        let members = if word == "and" { vec![one, other] } else { vec![one, other, interval, calendar] };
        let Ok(trigger) = Trigger::parse(&json!({"type": word, "triggers": members}), &Zone::utc(), from) else {
            // Two patterns may have nothing in common.
            return Ok(());
        };
        let parts: Vec<Trigger> = members.iter().map(|spec| Trigger::parse(spec, &Zone::utc(), from).unwrap()).collect();
        let mut at = from;
        while at < from + TimeDelta::days(1) {
            let matching = parts.iter().filter(|part| part.matches(at)).count();
            let expected = if word == "and" { matching == parts.len() } else { matching > 0 };
            prop_assert_eq!(trigger.matches(at), expected, "{} at {}", trigger.spec(), at);
            at += TimeDelta::minutes(1);
        }
        check_walk(&trigger, from, from + TimeDelta::days(1), TimeDelta::minutes(1));
    }

    #[test]
    fn calendar_steps_agree_with_a_walk_from_the_start(
        months in 0_u32..30, days in 0_u32..40, start_day in 0_i64..20_000, hour in 0_u32..24, zone in prop::sample::select(&ZONES[..]),
    ) {
        prop_assume!(months + days > 0);
        let start = chrono::NaiveDate::default() + TimeDelta::days(start_day);
        let trigger = parse(&json!({"type": "calendarinterval", "months": months, "days": days, "hour": hour,
            "start_date": start.to_string(), "timezone": zone}));
        let mut walked = Vec::new();
        let mut at = trigger.first();
        while let Some(found) = at.filter(|_| walked.len() < 40) {
            walked.push(found);
            at = trigger.next_after(found);
        }
        for pair in walked.windows(2) {
            prop_assert!(trigger.matches(pair[0]) && trigger.matches(pair[1]));
            prop_assert_eq!(trigger.last_until(pair[1] - TimeDelta::seconds(1)), Some(pair[0]));
            prop_assert_eq!(trigger.next_from(pair[0] + TimeDelta::seconds(1)), Some(pair[1]));
        }
        if let Some((first, last)) = walked.first().zip(walked.last()) {
            let span = trigger.occurrences(*first, *last).unwrap();
            prop_assert_eq!((span.first, span.last, span.count), (*first, *last, u64::try_from(walked.len()).unwrap()));
        }
    }

    #[test]
    fn a_spec_that_was_read_reads_the_same_again(one in dense_cron(&["0"]), other in dense_cron(&["0"])) {
        for spec in [one.clone(), json!({"type": "or", "triggers": [one, other], "timezone": "Asia/Tokyo"})] {
            let trigger = parse(&spec);
            let again = Trigger::parse(trigger.spec(), &Zone::parse("Asia/Tokyo").unwrap(), at("2026-01-01T00:00:00Z")).unwrap();
            prop_assert_eq!(again.spec(), trigger.spec());
            prop_assert_eq!(again.first(), trigger.first());
        }
    }
}
