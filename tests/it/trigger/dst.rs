//! What happens to local times that the clock skips, or shows twice.

use serde_json::{Value, json};

use super::check;

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
