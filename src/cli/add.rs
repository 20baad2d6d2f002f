//! From what was typed to the JSON of a job or a trigger.

use serde_json::{Map, Value, json};

use super::arguments::{AddArguments, TriggerArguments};
use super::time_context::TimeContext;
use super::{CliError, call, command, duration, policy, value};

/// The definition of a job.
pub(super) fn definition(given: &AddArguments, present: &TimeContext) -> Result<Value, CliError> {
    let mut job = Map::new();
    let mut set = |key: &str, value: Value| job.insert(key.to_owned(), value);
    set("id", json!(given.id));
    set("trigger", trigger(&given.when, present)?);
    set("task", task(given)?);
    let grace = duration::given("--misfire-grace-time", given.misfire_grace_time.as_deref())?;
    let next_run_time = present.time("--next-run-time", given.next_run_time.as_deref())?;
    let optional = [
        ("next_run_time", next_run_time),
        ("executor", given.executor.clone().map(Value::from)),
        ("misfire_grace_time", grace),
        ("coalesce", given.coalesce.clone().map(Value::from)),
        ("max_instances", given.max_instances.map(Value::from)),
        ("overlap", given.overlap.clone().map(Value::from)),
        ("max_runs", given.max_runs.map(Value::from)),
        ("on_crash", given.on_crash.clone().map(Value::from)),
        ("paused", given.paused.then_some(Value::Bool(true))),
        ("replace_existing", given.replace.then_some(Value::Bool(true))),
        ("name", given.name.clone().map(Value::from)),
        ("tags", (!given.tags.is_empty()).then(|| json!(given.tags))),
        ("description", given.description.clone().map(Value::from)),
    ];
    for (key, value) in optional {
        if let Some(value) = value {
            set(key, value);
        }
    }
    job.extend(policy::policies(&given.policy)?);
    Ok(Value::Object(job))
}

/// A trigger in its JSON form.
pub(super) fn trigger(given: &TriggerArguments, present: &TimeContext) -> Result<Value, CliError> {
    let Value::Object(mut trigger) = when(given, present)? else {
        return Err(CliError::Usage("--trigger must be a JSON object".to_owned()));
    };
    let options = [
        ("timezone", given.timezone.clone().map(Value::from)),
        ("start_date", present.time("--start", given.start.as_deref())?),
        ("end_date", present.time("--end", given.end.as_deref())?),
        ("jitter", duration::given("--jitter", given.jitter.as_deref())?),
        ("dst_gap", given.dst_gap.clone().map(Value::from)),
        ("dst_fold", given.dst_fold.clone().map(Value::from)),
    ];
    trigger.extend(options.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
    Ok(Value::Object(trigger))
}

/// The type of trigger that was given, with its own keys.
fn when(given: &TriggerArguments, present: &TimeContext) -> Result<Value, CliError> {
    if let Some(fields) = &given.cron {
        return Ok(keys("--cron", "cron", fields, |value| json!(value))?.into());
    }
    if let Some(expression) = &given.crontab {
        return Ok(json!({"type": "crontab", "expression": expression}));
    }
    if let Some(seconds) = duration::given("--every", given.every.as_deref())? {
        return Ok(json!({"type": "interval", "seconds": seconds}));
    }
    if let Some(steps) = &given.calendar {
        let number = |value: &str| value.parse::<u64>().map_or_else(|_| json!(value), Value::from);
        return Ok(keys("--calendar", "calendarinterval", steps, number)?.into());
    }
    if let Some(at) = present.time("--at", given.at.as_deref())? {
        return Ok(json!({"type": "date", "run_date": at}));
    }
    if let Some(text) = &given.trigger {
        return value::json("--trigger", text);
    }
    Err(CliError::Usage(
        "say when: --cron, --crontab, --every, --calendar, --at or --trigger".to_owned(),
    ))
}

/// Reads `hour=3 day="3rd fri"`: names and values, quoted where a value has spaces.
fn keys(
    option: &str,
    kind: &str,
    text: &str,
    read: impl Fn(&str) -> Value,
) -> Result<Map<String, Value>, CliError> {
    let mut map = Map::from_iter([("type".to_owned(), json!(kind))]);
    let mut rest = text.trim();
    while !rest.is_empty() {
        let usage = || {
            let is_crontab = text.trim_start().starts_with('@') || !text.contains('=');
            let is_crontab = is_crontab && kind == "cron";
            let instead =
                if is_crontab { "; a crontab expression is given by --crontab" } else { "" };
            CliError::Usage(format!(
                "{option} takes NAME=VALUE, such as 'hour=3 minute=30', not \"{rest}\"{instead}"
            ))
        };
        let (name, tail) = rest.split_once('=').ok_or_else(usage)?;
        let quote = tail.chars().next().filter(|first| matches!(first, '"' | '\''));
        let (value, tail) = match quote {
            Some(quote) => {
                tail.get(1..).and_then(|tail| tail.split_once(quote)).ok_or_else(usage)?
            }
            None => tail.split_once(char::is_whitespace).unwrap_or((tail, "")),
        };
        let name = name.trim();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(usage());
        }
        if map.insert(name.to_owned(), read(value)).is_some() {
            return Err(CliError::Usage(format!("{option} has {name} twice")));
        }
        rest = tail.trim_start();
    }
    Ok(map)
}

fn task(given: &AddArguments) -> Result<Value, CliError> {
    if let Some(name) = &given.builtin {
        let args = pairs("--arg", &given.args, |text| value::json_or_text("--arg", text))?;
        return Ok(json!({"type": "builtin", "name": name, "args": args}));
    }
    if let Some(url) = &given.call.url {
        return call::task(url, &given.call);
    }
    command::task(&given.command, &given.options)
}

/// Reads `NAME=VALUE`, as often as it was given.
pub(super) fn pairs(
    option: &str,
    given: &[String],
    read: impl Fn(&str) -> Result<Value, CliError>,
) -> Result<Map<String, Value>, CliError> {
    let mut map = Map::new();
    for text in given {
        let (name, value) = text
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| CliError::Usage(format!("{option} takes NAME=VALUE, not \"{text}\"")))?;
        if map.insert(name.to_owned(), read(value)?).is_some() {
            return Err(CliError::Usage(format!("{option} has {name} twice")));
        }
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cron_fields_are_read_with_and_without_quotes() {
        let cron = |text: &str| keys("--cron", "cron", text, |value| json!(value));
        let map = cron("day=\"3rd fri\" hour=0-3  month='6-8, 11'").unwrap();
        assert_eq!(
            Value::Object(map),
            json!({"type": "cron", "day": "3rd fri", "hour": "0-3", "month": "6-8, 11"})
        );
        for bad in ["hour", "hour 3", "hour=3 hour=4", "day=\"3rd", "=3", "type=x"] {
            assert!(cron(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_value_is_json_where_it_can_be() {
        let given =
            ["a=1".to_owned(), "b=x y".to_owned(), "c={\"d\":null}".to_owned(), "e=a=b".to_owned()];
        let read =
            |given: &[String]| pairs("--arg", given, |text| value::json_or_text("--arg", text));
        let map = read(&given).unwrap();
        assert_eq!(Value::Object(map), json!({"a": 1, "b": "x y", "c": {"d": null}, "e": "a=b"}));
        for bad in [
            ["a=1", "a=2"],
            ["a=1", "b=123456789012345678901234567890"],
            ["a=1", "b={\"c\":1,\"c\":2}"],
        ] {
            assert!(read(&bad.map(str::to_owned)).is_err(), "{bad:?}");
        }
    }
}
