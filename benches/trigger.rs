//! How fast triggers answer: `cargo bench --bench trigger`.
//!
//! Goals: at least a million next times a second of an ordinary calendar trigger, and less than a
//! millisecond for one that is impossible or very sparse.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]

use chrono::TimeDelta;
use divan::{Bencher, black_box};
use punctual::clock::Timestamp;
use punctual::trigger::Trigger;
use punctual::zone::Zone;
use serde_json::{Value, json};

fn main() {
    divan::main();
}

fn start() -> Timestamp {
    Timestamp::from_timestamp_secs(1_800_000_000).unwrap()
}

fn spec(name: &str) -> Value {
    match name {
        "every minute" => json!({"type": "cron", "minute": "*"}),
        "every 5 s, UTC" => json!({"type": "cron", "second": "*/5", "timezone": "UTC"}),
        "daily at 3" => json!({"type": "cron", "hour": 3}),
        "office hours" => {
            json!({"type": "crontab", "expression": "*/5 8-18 * * mon-fri"})
        }
        "third Friday" => json!({"type": "cron", "day": "3rd fri", "hour": "0-3"}),
        "last day of a quarter" => json!({"type": "cron", "month": "*/3", "day": "last"}),
        "ISO week 10" => json!({"type": "cron", "week": 10, "hour": 12}),
        "interval of 10 s" => json!({"type": "interval", "seconds": 10}),
        "monthly" => {
            json!({"type": "calendarinterval", "months": 1, "hour": 6, "start_date": "2020-01-31"})
        }
        "or of two" => {
            json!({"type": "or", "triggers": [spec("daily at 3"), spec("interval of 10 s")]})
        }
        "and of two" => {
            json!({"type": "and", "triggers": [spec("daily at 3"), spec("third Friday")]})
        }
        _ => unreachable!("{name}"),
    }
}

fn parse(spec: &Value) -> Trigger {
    Trigger::parse(spec, &Zone::parse("Europe/Berlin").unwrap(), start()).unwrap()
}

/// One `next_after` per iteration, each from the one before, over all the year's changes of the clock.
#[divan::bench(args = [
    "every minute", "every 5 s, UTC", "daily at 3", "office hours", "third Friday", "last day of a quarter",
    "ISO week 10", "interval of 10 s", "monthly", "or of two", "and of two",
])]
fn next_after(bencher: Bencher<'_, '_>, name: &str) {
    let trigger = parse(&spec(name));
    let begin = start();
    let until = begin + TimeDelta::days(3650);
    let mut at = begin;
    bencher.counter(divan::counter::ItemsCount::new(1_u32)).bench_local(|| {
        at = trigger.next_after(black_box(at)).filter(|next| *next < until).unwrap_or(begin);
        at
    });
}

/// Specs that match never or hardly ever, from text to answer.
#[divan::bench(args = ["Feb 30", "Feb 29, a Monday, week 9", "Jun in week 53", "a gap every year", "year 9999"])]
fn sparse(bencher: Bencher<'_, '_>, name: &str) {
    let fields = match name {
        "Feb 30" => json!({"type": "cron", "month": 2, "day": 30}),
        "Feb 29, a Monday, week 9" => {
            json!({"type": "cron", "month": 2, "day": 29, "day_of_week": "mon", "week": 9})
        }
        "Jun in week 53" => json!({"type": "cron", "month": 6, "week": 53, "second": "*"}),
        "a gap every year" => {
            json!({"type": "cron", "month": 3, "day": "last sun", "hour": 2, "minute": 30})
        }
        _ => json!({"type": "cron", "year": 9999, "month": 12, "day": 31}),
    };
    let zone = Zone::parse("Europe/Berlin").unwrap();
    bencher.bench_local(|| Trigger::parse(black_box(&fields), &zone, start()).is_ok());
}

/// What a trigger missed in ten years.
#[divan::bench(args = ["interval of 1 s", "cron, every second", "daily at 3", "monthly"])]
fn ten_years_of_occurrences(bencher: Bencher<'_, '_>, name: &str) {
    let trigger = match name {
        "interval of 1 s" => parse(&json!({"type": "interval", "seconds": 1})),
        "cron, every second" => parse(&json!({"type": "cron", "second": "*"})),
        _ => parse(&spec(name)),
    };
    let until = start() + TimeDelta::days(3650);
    bencher.bench_local(|| trigger.occurrences(black_box(start()), until));
}

/// From JSON to a trigger.
#[divan::bench(args = ["daily at 3", "third Friday", "office hours", "interval of 10 s"])]
fn parse_json(bencher: Bencher<'_, '_>, name: &str) {
    let (spec, zone) = (spec(name), Zone::parse("Europe/Berlin").unwrap());
    bencher.bench_local(|| Trigger::parse(black_box(&spec), &zone, start()).is_ok());
}
