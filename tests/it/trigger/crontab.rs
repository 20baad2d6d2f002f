//! Crontab expressions by tables, and against another crate that reads them.

use chrono::{TimeZone, Utc};
use proptest::prelude::*;
use punctual::trigger::Trigger;
use punctual::zone::Zone;
use serde_json::{Value, json};

use super::{at, cases, check, parse, refused};

fn crontab(expression: &str) -> Value {
    json!({"type": "crontab", "expression": expression, "timezone": "UTC"})
}

#[test]
fn an_expression_means_what_crontab_5_says() {
    // 2026-01-01 is a Thursday.
    let from = "2026-01-01T00:00:00Z";
    let cases: [(&str, [&str; 3]); 17] = [
        ("30 8 * * *", ["01-01 08:30:00", "01-02 08:30:00", "01-03 08:30:00"]),
        ("*/20 8-9 * * mon-fri", ["01-01 08:00:00", "01-01 08:20:00", "01-01 08:40:00"]),
        ("0 0 * * 0", ["01-04 00:00:00", "01-11 00:00:00", "01-18 00:00:00"]),
        ("0 0 * * 7", ["01-04 00:00:00", "01-11 00:00:00", "01-18 00:00:00"]),
        ("0 0 * * Sunday", ["01-04 00:00:00", "01-11 00:00:00", "01-18 00:00:00"]),
        ("0 0 * * 5-7", ["01-02 00:00:00", "01-03 00:00:00", "01-04 00:00:00"]),
        ("0 0 * * fri-mon", ["01-02 00:00:00", "01-03 00:00:00", "01-04 00:00:00"]),
        ("0 0 * * 0-7/2", ["01-01 00:00:00", "01-03 00:00:00", "01-04 00:00:00"]),
        ("0 22-2 * * *", ["01-01 00:00:00", "01-01 01:00:00", "01-01 02:00:00"]),
        ("0 22-2/3 * * *", ["01-01 01:00:00", "01-01 22:00:00", "01-02 01:00:00"]),
        ("0 0 1 nov-feb *", ["01-01 00:00:00", "02-01 00:00:00", "11-01 00:00:00"]),
        // Of a day and a weekday that are both restricted, one is enough; a star is no restriction, with a step or not.
        ("0 0 13 * fri", ["01-02 00:00:00", "01-09 00:00:00", "01-13 00:00:00"]),
        ("0 0 */2 * fri", ["01-09 00:00:00", "01-23 00:00:00", "02-13 00:00:00"]),
        ("5/15 0 1 1 *", ["01-01 00:05:00", "01-01 00:20:00", "01-01 00:35:00"]),
        ("10 0 0 * * *", ["01-01 00:00:10", "01-02 00:00:10", "01-03 00:00:10"]),
        ("@weekly", ["01-04 00:00:00", "01-11 00:00:00", "01-18 00:00:00"]),
        (" @hourly ", ["01-01 00:00:00", "01-01 01:00:00", "01-01 02:00:00"]),
    ];
    for (expression, expect) in cases {
        let expect = expect.map(|time| format!("2026-{time}+00:00"));
        check(crontab(expression), from, &expect.each_ref().map(String::as_str));
    }
    check(
        crontab("0 0 12 29 2 ? 2027-2100/3"),
        from,
        &["2036-02-29 12:00:00+00:00", "2048-02-29 12:00:00+00:00", "2060-02-29 12:00:00+00:00"],
    );
    let steps = [
        ("*/60 0 * * *", "0 0 * * *"),
        ("0 */24 * * *", "0 0 * * *"),
        ("0 0 * * */7", "0 0 * * 0"),
        ("0 0 * * 0-07", "0 0 * * *"),
        ("5-5/1 0 * * *", "5 0 * * *"),
        ("0 0 0 1 1 * 2090/5", "0 0 0 1 1 * 2090-9999/5"),
    ];
    for (one, other) in steps {
        let (one, other) = (parse(&crontab(one)), parse(&crontab(other)));
        let mut from = at("2026-01-01T00:00:00Z");
        for _ in 0..9 {
            let next = one.next_after(from);
            assert_eq!(next, other.next_after(from), "{} {}", one.describe(), other.describe());
            from = next.unwrap();
        }
    }
    // A star has no last year, though the crate's is 2100.
    check(crontab("0 0 1 1 *"), "2150-01-01T00:00:01Z", &["2151-01-01 00:00:00+00:00"]);
}

fn crontab_in(zone: &str, expression: &str) -> Value {
    json!({"type": "crontab", "expression": expression, "timezone": zone})
}

#[test]
fn a_fixed_minute_and_hour_shift_in_a_gap_and_happen_once_in_a_fold() {
    let berlin = |expression: &str| crontab_in("Europe/Berlin", expression);
    let spring = "2027-03-28T00:00:00Z";
    check(
        berlin("30 2 * * *"),
        spring,
        &["2027-03-28 03:00:00+02:00", "2027-03-29 02:30:00+02:00"],
    );
    check(
        berlin("0,30 0-3 * * *"),
        spring,
        &[
            "2027-03-28 01:00:00+01:00",
            "2027-03-28 01:30:00+01:00",
            "2027-03-28 03:00:00+02:00",
            "2027-03-28 03:30:00+02:00",
        ],
    );
    let beirut = crontab_in("Asia/Beirut", "@daily");
    check(
        beirut,
        "2026-03-28T12:00:00Z",
        &["2026-03-29 01:00:00+03:00", "2026-03-30 00:00:00+03:00"],
    );
    let new_york = |expression: &str| crontab_in("America/New_York", expression);
    check(
        new_york("1 1 * * *"),
        "2018-11-04T04:00:00Z",
        &["2018-11-04 01:01:00-04:00", "2018-11-05 01:01:00-05:00"],
    );
    check(
        new_york("30 1 * * sun"),
        "2018-11-04T04:00:00Z",
        &["2018-11-04 01:30:00-04:00", "2018-11-11 01:30:00-05:00"],
    );
    // A star elsewhere than in the minute and the hour makes no difference, and a range of every hour is fixed.
    check(new_york("0 30 1 * * *"), "2018-11-04T05:31:00Z", &["2018-11-05 01:30:00-05:00"]);
    check(
        new_york("30 0-23 * * *"),
        "2018-11-04T04:31:00Z",
        &["2018-11-04 01:30:00-04:00", "2018-11-04 02:30:00-05:00"],
    );
}

#[test]
fn a_star_in_minute_or_hour_skips_a_gap_and_happens_in_both_passes_of_a_fold() {
    check(
        crontab_in("Europe/Berlin", "30 * * * *"),
        "2027-03-28T00:00:00Z",
        &["2027-03-28 01:30:00+01:00", "2027-03-28 03:30:00+02:00"],
    );
    check(
        crontab_in("Europe/London", "5 * * * *"),
        "2027-03-28T00:00:00Z",
        &["2027-03-28 00:05:00+00:00", "2027-03-28 02:05:00+01:00"],
    );
    let passes =
        ["2018-11-04 01:30:00-04:00", "2018-11-04 01:30:00-05:00", "2018-11-04 02:30:00-05:00"];
    check(crontab_in("America/New_York", "30 * * * *"), "2018-11-04T05:00:00Z", &passes);
    check(
        crontab_in("Europe/Berlin", "*/15 2 * * *"),
        "2027-03-28T00:00:00Z",
        &["2027-03-29 02:00:00+02:00"],
    );
    check(
        crontab_in("Australia/Lord_Howe", "@hourly"),
        "2026-10-03T15:00:00Z",
        &["2026-10-04 03:00:00+11:00", "2026-10-04 04:00:00+11:00"],
    );
}

#[test]
fn a_change_of_more_than_three_hours_shifts_nothing() {
    // The whole of December 30 is left out, and in the south the clock is set by seven hours and by three.
    let apia = crontab_in("Pacific/Apia", "0 12 * * *");
    check(
        apia,
        "2011-12-29T12:00:00Z",
        &["2011-12-29 12:00:00-10:00", "2011-12-31 12:00:00+14:00"],
    );
    let casey = crontab_in("Antarctica/Casey", "30 3 * * *");
    check(
        casey,
        "2018-03-10T00:00:00Z",
        &["2018-03-11 03:30:00+11:00", "2018-03-12 03:30:00+08:00"],
    );
    let mut vostok = crontab_in("Antarctica/Vostok", "0 22 * * *");
    let twice = ["1994-01-31 22:00:00+07:00", "1994-01-31 22:00:00+00:00"];
    check(vostok.clone(), "1994-01-31T12:00:00Z", &twice);
    vostok["dst_fold"] = "first".into();
    check(vostok, "1994-01-31T12:00:00Z", &[twice[0], "1994-02-01 22:00:00+00:00"]);
}

#[test]
fn explicit_dst_options_override_the_rule_of_cron() {
    let mut fixed = crontab_in("Europe/Berlin", "30 2 * * *");
    fixed["dst_gap"] = "skip".into();
    check(fixed.clone(), "2026-03-29T00:00:00Z", &["2026-03-30 02:30:00+02:00"]);
    fixed["dst_fold"] = "both".into();
    let autumn = "2026-10-25T00:00:00Z";
    check(fixed, autumn, &["2026-10-25 02:30:00+02:00", "2026-10-25 02:30:00+01:00"]);
    let mut star = crontab_in("Europe/Berlin", "30 * * * *");
    star["dst_gap"] = "shift".into();
    star["dst_fold"] = "first".into();
    check(
        star.clone(),
        "2026-03-29T00:30:00Z",
        &["2026-03-29 01:30:00+01:00", "2026-03-29 03:00:00+02:00", "2026-03-29 03:30:00+02:00"],
    );
    check(star, autumn, &["2026-10-25 02:30:00+02:00", "2026-10-25 03:30:00+01:00"]);
    let mut apia = crontab_in("Pacific/Apia", "0 12 * * *");
    apia["dst_gap"] = "shift".into();
    check(apia, "2011-12-30T08:00:00Z", &["2011-12-31 00:00:00+14:00"]);
}

#[test]
fn a_member_of_a_union_or_an_intersection_keeps_the_rule_of_cron() {
    let member = || crontab_in("Europe/Berlin", "30 2 * * *");
    for word in ["or", "and"] {
        let spec = json!({"type": word, "triggers": [member(), member()]});
        let expect = ["2027-03-28 01:00:00+00:00", "2027-03-29 00:30:00+00:00"];
        check(spec.clone(), "2027-03-28T00:00:00Z", &expect);
        let once = ["2026-10-25 00:30:00+00:00", "2026-10-26 01:30:00+00:00"];
        check(spec, "2026-10-25T00:00:00Z", &once);
    }
}

#[test]
fn a_fault_is_pointed_at() {
    let cases = [
        ("", "has 0 fields"),
        ("* * * *", "has 4 fields"),
        ("* * * * * * * *", "has 8 fields"),
        ("0 25 * * *", "unknown \"25\" (hour is 0 to 23), at column 3"),
        ("0  0 1,,2 * *", "an item is missing, at column 8"),
        ("0 0 * foo *", "unknown \"foo\" (month is 1 to 12, or jan to dec), at column 7"),
        ("0 0 * * 8", "unknown \"8\" (weekday is 0 to 7, or sun to sat), at column 9"),
        ("0 0 * * mon-frx", "unknown \"frx\""),
        (
            "*/61 * * * *",
            "the step 61 is not between 1 and 60, the values of its range, at column 3",
        ),
        ("0 0 * * 7/2", "the step 2 is not between 1 and 1"),
        ("0 0 * * +5", "unknown \"+5\""),
        ("+5 0 * * *", "unknown \"+5\""),
        ("*/0 * * * *", "the step 0"),
        ("*/x * * * *", "\"x\" is not a step"),
        ("0 0 L * *", "unknown \"L\""),
        ("0 0 * * fri#2", "unknown \"fri#2\""),
        ("0 0 15W * *", "unknown \"15W\""),
        ("0 0 * * 1 2101", "unknown \"*\""),
        ("0 0 0 1 1 * 1969", "unknown \"1969\" (year is 1970 to 9999), at column 13"),
        ("0 0 0 1 1 * 2030-2028", "goes backwards"),
        ("@reboot", "unknown nickname"),
        ("@", "unknown nickname"),
    ];
    for (expression, message) in cases {
        if expression == "0 0 * * 1 2101" {
            // Six fields begin with the second, so the weekday is the last.
            refused(crontab(expression), "expression", "unknown \"2101\" (weekday");
            continue;
        }
        refused(crontab(expression), "expression", message);
    }
    refused(json!({"type": "crontab"}), "expression", "missing");
    refused(json!({"type": "crontab", "expression": 5}), "expression", "must be text");
    refused(json!({"type": "crontab", "expresion": "@daily"}), "expresion", "unknown key");
    refused(crontab("0 0 30 2 *"), "", "never fire: no date matches");
}

/// Where a command belongs.
const COMMAND: &str =
    "a command is given after -- on the command line, and in \"task\" in JSON and TOML";

/// Mistakes, and what their errors say.
const MISTAKES: [(&str, &[&str]); 26] = [
    (
        "00 09 * * *\t/opt/mbse/bin/adm/maint",
        &[
            "the first five words are the schedule, \"00 09 * * *\", and \"/opt/mbse/bin/adm/maint\"",
            COMMAND,
        ],
    ),
    (
        "15 14 1 * *     $HOME/bin/monthly",
        &["the schedule, \"15 14 1 * *\",", "\"$HOME/bin/monthly\"", COMMAND],
    ),
    (
        "  00 */3    15-25/2 May 1-5   user   somecommand",
        &[
            "\"00 */3 15-25/2 May 1-5\"",
            "\"user somecommand\"",
            COMMAND,
            "by --user user, and \"user\"",
        ],
    ),
    (
        "0 0 9 * * * echo",
        &["the first six words are the schedule, \"0 0 9 * * *\", and \"echo\"", COMMAND],
    ),
    ("61 9 * * * /bin/true", &["unknown \"61\" (minute is 0 to 59), at column 1"]),
    ("@hourly ~/bin/duck.sh", &["the schedule is \"@hourly\", and \"~/bin/duck.sh\"", COMMAND]),
    ("@Daily root run-parts /etc/cron.daily", &["the schedule is \"@Daily\"", COMMAND]),
    (
        "CRON_TZ=Asia/Tokyo 0 9 * * *",
        &["--timezone Asia/Tokyo", "\"timezone\"", "the expression is \"0 9 * * *\""],
    ),
    ("TZ=\"Asia/Tokyo\"", &["--timezone Asia/Tokyo"]),
    (
        "0 18 * * * America/New_York",
        &["--timezone America/New_York", "\"timezone\": \"America/New_York\""],
    ),
    ("0 18 * * * UTC", &["--timezone UTC"]),
    ("@every 1h30m", &["--every 1h30m", "\"seconds\": 5400"]),
    ("@every", &["--every 1h30m"]),
    ("@minutely", &["write * * * * *"]),
    ("@reboot", &["unknown nickname", "systemd"]),
    (
        "*/90 * * * *",
        &[
            "at column 3; only 0 would match: write 0, or an interval for every 90 minutes (--every 90m)",
        ],
    ),
    (
        "0 */36 * * *",
        &["only 0 would match: write 0, or an interval for every 36 hours (--every 36h)"],
    ),
    ("41-59/24 * * * *", &["the step 24 is not between 1 and 19", "only 41 would match: write 41"]),
    ("0 0 */40 * *", &["only 1 would match: write 1"]),
    ("MAILTO=fbopen", &["this sets a variable, and is no schedule", "--env"]),
    ("PATH = /usr/bin:/bin", &["this sets a variable"]),
    ("hour=3 minute=30", &["--cron 'hour=3 minute=30'", "\"type\": \"cron\""]),
    ("# m h dom mon dow command", &["a comment"]),
    ("0 9 * * *\n0 18 * * *", &["several lines"]),
    ("0 0 L * *", &["unknown \"L\"", "--cron 'day=last'"]),
    ("H H * * *", &["H is not of crontab(5)", "--jitter"]),
];

#[test]
fn a_common_mistake_is_answered_with_what_to_write_instead() {
    for (expression, parts) in MISTAKES {
        for part in parts {
            refused(crontab(expression), "expression", part);
        }
    }
    // A name of a month is a name, and what is understood is not explained.
    assert!(
        Trigger::parse(&crontab("0 0 1 jul *"), &Zone::utc(), at("2026-01-01T00:00:00Z")).is_ok()
    );
    let cron = |field: &str, text: &str| json!({"type": "cron", field: text});
    refused(
        cron("minute", "*/90"),
        "minute",
        "write 0, or an interval for every 90 minutes (--every 90m)",
    );
    refused(cron("minute", "*/5 * * * *"), "minute", "a trigger of type crontab (--crontab)");
    refused(cron("day_of_week", "7"), "day_of_week", "Sunday is 6 or sun");
}

/// A field of a crontab expression, in forms that both readers know and take alike: the other crate counts a star with
/// a step as a restriction of the day or the weekday, which crontab(5) does not.
fn field(min: u32, max: u32, star_step: u32) -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("*".to_owned()),
        2 => (min..=max).prop_map(|value| value.to_string()),
        1 => (min..=max, min..=max).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        star_step => (2..(max - min)).prop_map(|step| format!("*/{step}")),
        1 => prop::collection::vec(min..=max, 2..5)
            .prop_map(|values| values.iter().map(u32::to_string).collect::<Vec<_>>().join(",")),
    ]
}

proptest! {
    #![proptest_config(cases(1000))]

    #[test]
    fn another_crate_reads_the_same(
        minute in field(0, 59, 1), hour in field(0, 23, 1), day in field(1, 31, 0), month in field(1, 12, 1), weekday in field(0, 6, 0),
        second in 0_i64..2_000_000_000,
    ) {
        let expression = format!("{minute} {hour} {day} {month} {weekday}");
        let ours = Trigger::compile(&crontab(&expression), &Zone::utc(), at("2026-01-01T00:00:00Z")).unwrap();
        let theirs: croner::Cron = expression.parse().unwrap();
        let from = Utc.timestamp_opt(second, 0).unwrap();
        let expected: Vec<_> = theirs.iter_after(from).take(5).collect();
        let mut found = Vec::new();
        let mut next = ours.next_after(from);
        while let Some(at) = next.filter(|_| found.len() < expected.len()) {
            found.push(at);
            next = ours.next_after(at);
        }
        prop_assert_eq!(found, expected, "{}", expression);
    }
}

#[test]
fn an_expression_is_described_as_it_was_given() {
    assert_eq!(
        parse(&crontab("*/5 8-18 * * mon-fri")).describe(),
        "crontab \"*/5 8-18 * * mon-fri\""
    );
}
