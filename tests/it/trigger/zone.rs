//! How time zones are written, and how unknown ones are refused.

use punctual::zone::Zone;
use serde_json::json;

use super::{check, parse};

#[test]
fn a_zone_is_a_place_an_offset_or_posix_rules() {
    let noon = |zone: &str| json!({"type": "cron", "hour": 12, "timezone": zone});
    let from = "2026-03-28T00:00:00Z";
    let changing = ["2026-03-28 12:00:00+01:00", "2026-03-29 12:00:00+02:00"];
    check(noon("Europe/Berlin"), from, &changing);
    check(noon("CET-1CEST,M3.5.0,M10.5.0/3"), from, &changing);
    check(noon("+05:30"), from, &["2026-03-28 12:00:00+05:30"]);
    check(noon("<+03>-3"), from, &["2026-03-28 12:00:00+03:00"]);
    check(noon("UTC"), from, &["2026-03-28 12:00:00+00:00"]);
    // What is stored reads the same again.
    for zone in ["CET-1CEST,M3.5.0,M10.5.0/3", "<-02>2<-01>,M3.5.0/-1,M10.5.0/0", "<LMT>-0:53:28"] {
        let trigger = parse(&noon(zone));
        let again = parse(trigger.spec());
        assert_eq!((again.spec(), again.zone().name()), (trigger.spec(), zone));
        assert!(again.zone().has_rules_of(trigger.zone()), "{zone}");
    }
    assert_eq!(parse(&noon("<+03>-3")).spec()["timezone"], "+03:00");
}

#[test]
fn zones_of_several_names_have_the_same_rules() {
    let zone = |name: &str| Zone::parse(name).unwrap();
    let same = [
        ("UTC", "Etc/UTC"),
        ("UTC", "+00:00"),
        ("Asia/Kolkata", "Asia/Calcutta"),
        ("America/New_York", "US/Eastern"),
        ("Etc/GMT-3", "+03:00"),
    ];
    for (one, other) in same {
        assert!(zone(one).has_rules_of(&zone(other)), "{one} and {other}");
    }
    for (one, other) in
        [("UTC", "Europe/London"), ("Europe/Berlin", "Europe/London"), ("+01:00", "+02:00")]
    {
        assert!(!zone(one).has_rules_of(&zone(other)), "{one} and {other}");
    }
}

#[test]
fn an_unknown_zone_is_answered_with_a_suggestion() {
    let cases = [
        ("PST", "PST is an abbreviation: name a place, such as America/Los_Angeles"),
        ("CST", "CST is an abbreviation: name a place, such as America/Chicago"),
        ("EDT", "EDT is an abbreviation: name a place, such as America/New_York"),
        ("IST", "IST is an abbreviation: name a place, such as Asia/Kolkata"),
        ("cest", "cest is an abbreviation: name a place, such as Europe/Berlin"),
        ("XYZT", "XYZT is an abbreviation: name a place, such as"),
        ("Z", "write UTC"),
        ("+5", "write +05:00"),
        ("-3", "write -03:00"),
        ("+05", "write +05:00"),
        ("+530", "write +05:30"),
        ("+0530", "write +05:30"),
        ("-0330", "write -03:30"),
        ("+5:30", "write +05:30"),
        ("05:30", "write +05:30"),
        ("UTC+3", "write +03:00"),
        ("UTC-3", "write -03:00"),
        ("utc+05:30", "write +05:30"),
        ("GMT+3", "write +03:00"),
        ("UTC +3", "write +03:00"),
        ("local", "leave the time zone out"),
        ("", "cannot be empty: leave it out"),
        (" ", "cannot be empty: leave it out"),
        ("\"Europe/Rome\"", "write Europe/Rome"),
        ("Europe/Rome ", "write Europe/Rome"),
        ("Berlin", "did you mean \"Europe/Berlin\"?"),
        ("new york", "did you mean \"America/New_York\"?"),
        ("rome", "did you mean \"Europe/Rome\"?"),
        ("Europe/Berln", "did you mean \"Europe/Berlin\"?"),
        ("Asia/Shanghia", "did you mean \"Asia/Shanghai\"?"),
        ("Bogus/Zone", "expected a name such as Europe/Berlin, an offset such as +05:30, or UTC"),
        ("Taiwan", "expected a name such as"),
        ("Atlantis", "expected a name such as"),
        ("+19:00", "expected a name such as"),
        ("+99", "expected a name such as"),
        ("CET-1CEST,M13.5.0,M10.5.0", "expected a name such as"),
    ];
    for (name, message) in cases {
        let refused = Zone::parse(name).unwrap_err();
        assert_eq!(refused.field, "timezone");
        assert!(refused.message.contains(message), "{name:?}: {refused}");
    }
}

#[test]
fn a_short_name_is_never_taken_for_a_similar_one() {
    for name in ["ESP", "cett", "Gb1", "rokk", "Perts", "Romee", "PST", "Z", "local", "+5"] {
        let refused = Zone::parse(name).unwrap_err();
        assert!(!refused.message.contains("did you mean"), "{name}: {refused}");
    }
}
