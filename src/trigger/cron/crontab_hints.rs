//! Hints for texts that people write where a crontab expression is expected, such as a whole line of a crontab.

use super::crontab;
use super::fields::FIELD_NAMES;
use crate::duration::parse_duration;
use crate::invalid::quoted;
use crate::zone::Zone;

/// Says where a command belongs.
const COMMAND: &str =
    "a command is given after -- on the command line, and in \"task\" in JSON and TOML";

/// What to write instead of a text that is not a crontab expression, if the mistake is a known one. The text has no
/// spaces around it.
pub(super) fn hint(text: &str) -> Option<String> {
    if text.lines().count() > 1 {
        return Some("these are several lines, and an expression is one".to_owned());
    }
    if text.starts_with('#') {
        return Some("this is a comment, and no expression".to_owned());
    }
    if text.starts_with('@') {
        for_nickname(text)
    } else {
        for_assignment(text).or_else(|| for_line(text))
    }
}

/// `@hourly command`, `@every 1h30m` and nicknames of other programs.
fn for_nickname(text: &str) -> Option<String> {
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
        _ if !rest.is_empty() && crontab::parse(nickname).is_ok() => Some(format!(
            "the schedule is {}, and {} is not part of it: {COMMAND}",
            quoted(nickname),
            quoted(rest)
        )),
        _ => None,
    }
}

/// `NAME=value`, alone or before an expression.
fn for_assignment(text: &str) -> Option<String> {
    let (name, value) = text.split_once('=')?;
    let name = name.trim();
    let is_variable = name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
        && !name.starts_with(|letter: char| letter.is_ascii_digit());
    if !is_variable || name.is_empty() {
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
    Some(format!("{}{rest}", separate_zone(zone)))
}

fn separate_zone(zone: &str) -> String {
    format!(
        "the time zone is given apart: --timezone {zone}, and \"timezone\": \"{zone}\" in JSON and TOML"
    )
}

/// An expression that is followed by a zone, or by a user and a command.
fn for_line(text: &str) -> Option<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    for (count, name) in [(7, "seven"), (6, "six"), (5, "five")] {
        let Some((schedule, rest)) = words.split_at_checked(count) else { continue };
        let schedule = schedule.join(" ");
        let ([first, more @ ..], Ok(_)) = (rest, crontab::parse(&schedule)) else { continue };
        if first.chars().all(|letter| letter.is_ascii_digit() || "*?,/-".contains(letter)) {
            // This is one field too many rather than a command.
            return None;
        }
        if more.is_empty() && Zone::parse(first).is_ok() {
            return Some(separate_zone(first));
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
    // The sixth or seventh word is certainly a command, so the error is in the five fields before it.
    let (schedule, rest) = words.split_at_checked(5)?;
    let is_command = |word: &&str| word.starts_with(['/', '~', '$', '.']);
    rest.iter().take(2).any(is_command).then(|| crontab::parse(&schedule.join(" ")).err()).flatten()
}

fn is_user_name(word: &str) -> bool {
    word.starts_with(|letter: char| letter.is_ascii_lowercase() || letter == '_')
        && word.chars().all(|letter| {
            letter.is_ascii_lowercase() || letter.is_ascii_digit() || "_-".contains(letter)
        })
}
