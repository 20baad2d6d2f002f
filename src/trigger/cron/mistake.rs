//! What people write where an expression is expected, such as a whole line of a crontab, and what to write instead.

use super::crontab;
use super::fields::FIELD_NAMES;
use crate::duration::parse_duration;
use crate::invalid::quoted;
use crate::zone::Zone;

/// Where a command belongs.
const COMMAND: &str =
    "a command is given after -- on the command line, and in \"task\" in JSON and TOML";

/// What to write instead of a crontab expression that cannot be read, if the mistake is a known one. The text is that
/// of the expression, without spaces around it.
pub(super) fn of_expression(text: &str) -> Option<String> {
    if text.lines().count() > 1 {
        return Some("these are several lines, and an expression is one".to_owned());
    }
    if text.starts_with('#') {
        return Some("this is a comment, and no expression".to_owned());
    }
    if text.starts_with('@') {
        of_nickname(text)
    } else {
        of_assignment(text).or_else(|| of_line(text))
    }
}

/// `@hourly command`, `@every 1h30m` and nicknames of other programs.
fn of_nickname(text: &str) -> Option<String> {
    let (nickname, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim();
    match nickname.to_lowercase().as_str() {
        "@every" => {
            let every = rest.split_whitespace().next().unwrap_or_default();
            let duration = parse_duration(every).ok().filter(|_| !every.is_empty());
            let (every, seconds) =
                duration.map_or(("1h30m", 5400), |duration| (every, duration.num_seconds()));
            Some(format!(
                "that is an interval: --every {every} on the command line, and {{\"type\": \"interval\", \"seconds\": {seconds}}} in JSON"
            ))
        }
        "@every_minute" | "@minutely" => Some("write * * * * *".to_owned()),
        "@reboot" => Some(
            "unknown nickname: a job is due at times, so start what belongs to a boot by a systemd unit".to_owned(),
        ),
        _ if !rest.is_empty() && crontab::read(nickname).is_ok() => Some(format!(
            "the schedule is {}, and {} is not part of it: {COMMAND}",
            quoted(nickname),
            quoted(rest)
        )),
        _ => None,
    }
}

/// `NAME=value`, alone or before an expression.
fn of_assignment(text: &str) -> Option<String> {
    let (name, value) = text.split_once('=')?;
    let name = name.trim();
    let is_name = name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
        && !name.starts_with(|letter: char| letter.is_ascii_digit());
    if !is_name || name.is_empty() {
        return None;
    }
    if FIELD_NAMES.contains(&name) {
        return Some(format!(
            "these are fields of a cron trigger: --cron '{text}' on the command line, and {{\"type\": \"cron\", \"{name}\": …}} in JSON"
        ));
    }
    if !matches!(name, "CRON_TZ" | "TZ") {
        let why = "this sets a variable, and is no schedule";
        return Some(format!(
            "{why}: a command's variables are given by --env, and in \"env\" in JSON and TOML"
        ));
    }
    let (zone, rest) = value.trim().split_once(char::is_whitespace).unwrap_or((value.trim(), ""));
    let zone = zone.trim_matches(['"', '\'']);
    let rest = rest.trim();
    let rest = if rest.is_empty() {
        String::new()
    } else {
        format!(", and the expression is {}", quoted(rest))
    };
    Some(format!("{}{rest}", zone_apart(zone)))
}

fn zone_apart(zone: &str) -> String {
    format!(
        "the time zone is given apart: --timezone {zone}, and \"timezone\": \"{zone}\" in JSON and TOML"
    )
}

/// An expression and what does not belong to it: a zone, or a user and a command.
fn of_line(text: &str) -> Option<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    for (count, name) in [(7, "seven"), (6, "six"), (5, "five")] {
        let Some((schedule, rest)) = words.split_at_checked(count) else { continue };
        let schedule = schedule.join(" ");
        let ([first, more @ ..], Ok(_)) = (rest, crontab::read(&schedule)) else { continue };
        if first.chars().all(|letter| letter.is_ascii_digit() || "*?,/-".contains(letter)) {
            // One field too many, rather than a command.
            return None;
        }
        if more.is_empty() && Zone::parse(first).is_ok() {
            return Some(zone_apart(first));
        }
        let user = if !more.is_empty() && is_user_name(first) {
            format!("; a user, as /etc/crontab has it, by --user {first}, and \"user\"")
        } else {
            String::new()
        };
        return Some(format!(
            "the first {name} words are the schedule, {}, and {} is not part of it: {COMMAND}{user}",
            quoted(&schedule),
            quoted(&rest.join(" "))
        ));
    }
    // What follows is a command for certain, so the fault is in the five fields before it.
    let (schedule, rest) = words.split_at_checked(5)?;
    let is_command = |word: &&str| word.starts_with(['/', '~', '$', '.']);
    rest.iter().take(2).any(is_command).then(|| crontab::read(&schedule.join(" ")).err()).flatten()
}

fn is_user_name(word: &str) -> bool {
    word.starts_with(|letter: char| letter.is_ascii_lowercase() || letter == '_')
        && word.chars().all(|letter| {
            letter.is_ascii_lowercase() || letter.is_ascii_digit() || "_-".contains(letter)
        })
}

/// What a step that is larger than its range would do, and what to write for what was meant.
pub(super) fn of_step(unit: &str, first: u32, step: u32, is_whole_range: bool) -> String {
    let interval = match unit {
        "second" | "minute" | "hour" if is_whole_range => {
            let letter = unit.get(..1).unwrap_or_default();
            format!(", or an interval for every {step} {unit}s (--every {step}{letter})")
        }
        _ => String::new(),
    };
    format!("; only {first} would match: write {first}{interval}")
}

/// What to write instead of a value that other programs know.
pub(super) fn of_value(text: &str) -> &'static str {
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
pub(super) fn of_field(name: &str, min: u32, max: u32, text: &str) -> String {
    if text.split_whitespace().count() >= 5 {
        return "; a crontab expression is a trigger of type crontab (--crontab)".to_owned();
    }
    let step = text.trim().strip_prefix("*/").and_then(|step| step.parse().ok());
    match (name, step) {
        (_, Some(step)) if step > max - min => of_step(name, min, step, true),
        ("day_of_week", _) if text.trim() == "7" => {
            "; 0 is Monday, and Sunday is 6 or sun".to_owned()
        }
        _ => String::new(),
    }
}
