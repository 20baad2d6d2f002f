//! No input makes the parser panic, hang, or take memory without bound.

use proptest::prelude::*;
use punctual::preview::batch_line;
use punctual::trigger::Trigger;
use punctual::zone::Zone;
use serde_json::{Map, Value, json};

use super::{at, cases};

const KEYS: [&str; 36] = [
    "type",
    "timezone",
    "jitter",
    "start_date",
    "end_date",
    "run_date",
    "expression",
    "triggers",
    "threshold",
    "dst_gap",
    "dst_fold",
    "year",
    "month",
    "day",
    "week",
    "day_of_week",
    "hour",
    "minute",
    "second",
    "years",
    "months",
    "weeks",
    "days",
    "hours",
    "minutes",
    "seconds",
    "microseconds",
    "count",
    "after",
    "inclusive",
    "op",
    "trigger",
    "Hour",
    "",
    "\u{0}",
    "é",
];
const TYPES: [&str; 8] =
    ["cron", "crontab", "interval", "date", "calendarinterval", "and", "or", "moon"];

/// Text that is made of the pieces of expressions, so that it gets far into the parser.
fn pieces() -> impl Strategy<Value = String> {
    let pieces = [
        "*",
        "/",
        "-",
        ",",
        " ",
        "0",
        "1",
        "5",
        "7",
        "23",
        "31",
        "53",
        "59",
        "60",
        "9999",
        "99999999999999999999",
        "mon",
        "fri",
        "sun",
        "jan",
        "dec",
        "1st",
        "5th",
        "last",
        "@daily",
        "@",
        "?",
        "L",
        "W",
        "#",
        ".",
        ":",
        "T",
        "Z",
        "+",
        "2026-03-29",
        "02:30:00",
        "é",
        "İ",
        "ß",
        "\u{0}",
        "\u{2003}",
        "Europe/Berlin",
        "+05:30",
        "null",
        "1e400",
    ];
    prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..12).prop_map(|all| all.concat())
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        5 => pieces().prop_map(Value::from),
        2 => any::<String>().prop_map(Value::from),
        2 => any::<i64>().prop_map(Value::from),
        2 => any::<f64>().prop_map(Value::from),
        2 => (0_u32..70).prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            trigger_of(inner),
        ]
    })
}

fn trigger_of(inner: impl Strategy<Value = Value> + 'static) -> impl Strategy<Value = Value> {
    let keys = prop::collection::vec((prop::sample::select(KEYS.to_vec()), inner), 0..5);
    (prop::sample::select(TYPES.to_vec()), keys).prop_map(|(kind, keys)| {
        let mut map = Map::from_iter([("type".to_owned(), Value::from(kind))]);
        map.extend(keys.into_iter().map(|(key, value)| (key.to_owned(), value)));
        Value::Object(map)
    })
}

/// Whatever it says, the error is one line that does not repeat an input without end.
fn check_bounded(error: &str) -> Result<(), TestCaseError> {
    prop_assert!(!error.is_empty() && error.chars().count() < 1500, "{}", error);
    Ok(())
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn any_json_is_a_trigger_or_one_error(spec in trigger_of(value())) {
        let now = at("2026-03-28T22:00:00Z");
        match Trigger::parse(&spec, &Zone::parse("Europe/Berlin").unwrap(), now) {
            Ok(trigger) => {
                // What was accepted answers every question.
                let next = trigger.next_from(now);
                prop_assert!(next.is_none_or(|next| next >= now && trigger.matches(next)), "{}", spec);
                let last = trigger.last_until(now);
                prop_assert!(last.is_none_or(|last| last <= now && trigger.matches(last)), "{}", spec);
                prop_assert!(!trigger.describe().is_empty());
                let span = trigger.occurrences(now, now + chrono::TimeDelta::days(3));
                prop_assert!(span.is_none_or(|span| span.count > 0 && span.first <= span.last));
            }
            Err(invalid) => check_bounded(&invalid.to_string())?,
        }
    }

    #[test]
    fn any_bytes_are_one_answer(bytes in prop::collection::vec(any::<u8>(), 0..200), text in pieces(), key in prop::sample::select(KEYS.to_vec())) {
        let now = at("2026-03-28T22:00:00Z");
        let asked = json!({"op": "preview", "trigger": {"type": "cron", key: text}, "count": 3}).to_string();
        for line in [String::from_utf8_lossy(&bytes).into_owned(), asked] {
            let answer = batch_line(&line, &Zone::utc(), now);
            prop_assert!(answer.get("times").is_some() || answer.get("error").is_some(), "{}", answer);
        }
    }
}

#[test]
fn huge_input_is_refused_with_a_short_message() {
    let (zone, now) = (Zone::utc(), at("2026-01-01T00:00:00Z"));
    let long = "1,".repeat(100_000);
    let wide: Vec<Value> = vec![json!({"type": "cron", "hour": 3}); 10_000];
    let cases = [
        json!({"type": "cron", "hour": long}),
        json!({"type": "cron", "day": "3rd fri ".repeat(50_000)}),
        json!({"type": "crontab", "expression": format!("{long} * * * *")}),
        json!({"type": "crontab", "expression": "* ".repeat(100_000)}),
        json!({"type": "or", "triggers": wide}),
        json!({"type": "x".repeat(500_000)}),
        json!({"type": "cron", "hour": 3, "timezone": "Z".repeat(500_000)}),
        json!({"type": "date", "run_date": "9".repeat(500_000)}),
        json!({"type": "cron", "z".repeat(500_000): 1}),
        json!({"type": "cron", "hour": vec![1; 100_000]}),
    ];
    for spec in cases {
        let error = Trigger::parse(&spec, &zone, now).map(drop).unwrap_err().to_string();
        assert!(error.len() < 3200, "{} bytes: {error:.200}", error.len());
    }
}
