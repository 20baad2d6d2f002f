//! Hints on what to write in place of a value or a step that people often get wrong. A hint is appended to an error
//! message, so it begins with `; `; it is empty if the mistake is not a known one.

/// What a step that is larger than its range would do, and what to write instead.
pub(super) fn for_step(unit: &str, first: u32, step: u32, is_whole_range: bool) -> String {
    let interval = match unit {
        "second" | "minute" | "hour" if is_whole_range => {
            let letter = unit.get(..1).unwrap_or_default();
            format!(", or an interval for every {step} {unit}s (--every {step}{letter})")
        }
        _ => String::new(),
    };
    format!("; only {first} would match: write {first}{interval}")
}

/// What to write instead of a value that other cron programs accept.
pub(super) fn for_value(text: &str) -> &'static str {
    let is = |letter: char| text.len() <= 4 && text.to_uppercase().contains(letter);
    if text.contains('#') || (is('L') && !text.eq_ignore_ascii_case("jul")) || is('W') {
        "; L, W and # are not of crontab(5): use a cron trigger, such as --cron 'day=last' or --cron 'day=\"3rd fri\"'"
    } else if text.eq_ignore_ascii_case("H") {
        "; H is not of crontab(5): write a number, and spread jobs by a jitter (--jitter 10m)"
    } else {
        ""
    }
}

/// What to write instead of the text of a field of a `cron` trigger.
pub(super) fn for_field(name: &str, min: u32, max: u32, text: &str) -> String {
    if text.split_whitespace().count() >= 5 {
        return "; a crontab expression is a trigger of type crontab (--crontab)".to_owned();
    }
    let step = text.trim().strip_prefix("*/").and_then(|step| step.parse().ok());
    match (name, step) {
        (_, Some(step)) if step > max - min => for_step(name, min, step, true),
        ("day_of_week", _) if text.trim() == "7" => {
            "; 0 is Monday, and Sunday is 6 or sun".to_owned()
        }
        _ => String::new(),
    }
}
