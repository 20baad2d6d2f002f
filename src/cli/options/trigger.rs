//! When a job is due: exactly one kind of trigger, and what applies to all kinds. The struct is the JSON of the trigger.
#![expect(clippy::doc_markdown, reason = "these comments are the help text, which is not Markdown")]

use clap::{ArgGroup, Args};
use serde::Serialize;
use serde_json::{Map, Number, Value};

use super::values::{self, number_or_text, seconds};
use crate::cli::error::CliError;
use crate::zone::Zone;

/// The trigger. Each kind is read into its JSON form by a reader of its own. An option that was not given is skipped, since
/// null would replace what --trigger says, and what --trigger says is passed on unchanged.
#[derive(Debug, Clone, Default, Args, Serialize)]
#[command(group = ArgGroup::new("when").args(["cron", "crontab", "every", "calendar", "at", "trigger"]))]
pub struct TriggerOptions {
    /// Calendar fields: year month day week day_of_week hour minute second
    #[arg(long, value_name = "FIELDS", value_parser = cron)]
    #[serde(flatten)]
    cron: Option<TriggerJson>,
    /// A crontab expression, such as '*/5 8-18 * * mon-fri', or @daily; 0 and 7 are Sunday
    #[arg(long, value_name = "EXPRESSION", value_parser = crontab)]
    #[serde(flatten)]
    crontab: Option<TriggerJson>,
    /// A fixed interval, such as 10s, 90min, 1h 30m, 2d; a number without a unit is seconds
    #[arg(long, value_name = "DURATION", value_parser = interval)]
    #[serde(flatten)]
    every: Option<TriggerJson>,
    /// Calendar steps from --start on, and a time of day: years months weeks days hour minute second
    #[arg(long, value_name = "STEPS", value_parser = calendar)]
    #[serde(flatten)]
    calendar: Option<TriggerJson>,
    /// Once: '2026-12-06 16:30', 2026-12-06T16:30Z, 16:30, 'tomorrow 10:00', +30m from now, or now
    #[arg(long, value_name = "TIME", value_parser = date, allow_hyphen_values = true)]
    #[serde(flatten)]
    at: Option<TriggerJson>,
    /// A trigger in its JSON form
    #[arg(long, value_name = "JSON", value_parser = any)]
    #[serde(flatten)]
    trigger: Option<TriggerJson>,
    /// Time zone: a name such as Europe/Berlin, an offset such as +05:30, or UTC
    #[arg(long, value_name = "ZONE", allow_hyphen_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    timezone: Option<String>,
    /// Earliest time (inclusive); of an interval, the time from which it counts
    #[arg(long = "start", value_name = "TIME", allow_hyphen_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    start_date: Option<String>,
    /// Latest time (inclusive); a date without a time is that whole day
    #[arg(long = "end", value_name = "TIME", allow_hyphen_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    end_date: Option<String>,
    /// Delay each occurrence by up to this long
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    #[serde(skip_serializing_if = "Option::is_none")]
    jitter: Option<Number>,
    /// A local time that the clock skips in spring: skip it, or shift it to the end of the gap [default: skip;
    /// of --crontab as cron(8): shift a fixed minute and hour]
    #[arg(long, value_name = "RULE", value_parser = ["skip", "shift"])]
    #[serde(skip_serializing_if = "Option::is_none")]
    dst_gap: Option<String>,
    /// A local time that the clock shows twice in autumn: both, or the first only [default: both;
    /// of --calendar first; of --crontab as cron(8): the first of a fixed minute and hour]
    #[arg(long, value_name = "RULE", value_parser = ["both", "first"])]
    #[serde(skip_serializing_if = "Option::is_none")]
    dst_fold: Option<String>,
}

/// A trigger of one kind, with the keys of that kind.
type TriggerJson = Map<String, Value>;

impl TriggerOptions {
    /// Refuses options without a kind of trigger.
    pub(super) fn check(&self) -> Result<(), CliError> {
        if !self.has_kind() {
            let why = "say when: --cron, --crontab, --every, --calendar, --at or --trigger";
            return Err(CliError::Usage(why.to_owned()));
        }
        Ok(())
    }

    /// Whether a kind of trigger is given, and not only what applies to all kinds.
    pub(crate) fn has_kind(&self) -> bool {
        let kinds =
            [&self.cron, &self.crontab, &self.every, &self.calendar, &self.at, &self.trigger];
        kinds.into_iter().any(Option::is_some)
    }

    /// The JSON form of the trigger.
    pub(crate) fn to_json(&self) -> Result<Value, CliError> {
        self.check()?;
        self.members()
    }

    /// The keys that are given, which may be a part of a trigger.
    pub(super) fn members(&self) -> Result<Value, CliError> {
        serde_json::to_value(self).map_err(|error| CliError::Usage(error.to_string()))
    }

    /// The zone that the trigger names, if it names one.
    pub(crate) fn zone(&self) -> Result<Option<Zone>, CliError> {
        let in_json = || self.trigger.as_ref()?.get("timezone")?.as_str();
        let name = self.timezone.as_deref().or_else(in_json);
        let zone = name.map(Zone::parse).transpose();
        zone.map_err(|invalid| CliError::Usage(invalid.to_string()))
    }

    /// The times that were given, each with its option.
    pub(crate) fn times_mut(&mut self) -> impl Iterator<Item = (&'static str, &mut String)> {
        let at = self.at.as_mut().and_then(|at| match at.get_mut("run_date") {
            Some(Value::String(time)) => Some(time),
            _ => None,
        });
        let times = [
            ("--at", at),
            ("--start", self.start_date.as_mut()),
            ("--end", self.end_date.as_mut()),
        ];
        times.into_iter().filter_map(|(option, time)| Some((option, time?)))
    }
}

fn trigger(kind: &str, keys: impl IntoIterator<Item = (String, Value)>) -> TriggerJson {
    std::iter::once(("type".to_owned(), kind.into())).chain(keys).collect()
}

fn cron(text: &str) -> Result<TriggerJson, String> {
    let is_crontab = text.trim_start().starts_with('@') || !text.contains('=');
    let hint = if is_crontab { "; a crontab expression is given by --crontab" } else { "" };
    keys("cron", text, |value| Ok(value.into())).map_err(|why| why + hint)
}

fn calendar(text: &str) -> Result<TriggerJson, String> {
    keys("calendarinterval", text, number_or_text)
}

#[expect(clippy::unnecessary_wraps, reason = "clap takes a reader that can fail")]
fn crontab(text: &str) -> Result<TriggerJson, String> {
    Ok(trigger("crontab", [("expression".to_owned(), text.into())]))
}

fn interval(text: &str) -> Result<TriggerJson, String> {
    Ok(trigger("interval", [("seconds".to_owned(), seconds(text)?.into())]))
}

#[expect(clippy::unnecessary_wraps, reason = "clap takes a reader that can fail")]
fn date(text: &str) -> Result<TriggerJson, String> {
    Ok(trigger("date", [("run_date".to_owned(), text.into())]))
}

fn any(text: &str) -> Result<TriggerJson, String> {
    match values::json(text)? {
        Value::Object(trigger) => Ok(trigger),
        _ => Err("it must be a JSON object".to_owned()),
    }
}

/// Reads `hour=3 day="3rd fri"`: names and values, quoted where a value has spaces.
fn keys(
    kind: &str,
    text: &str,
    read: impl Fn(&str) -> Result<Value, String>,
) -> Result<TriggerJson, String> {
    let mut map = trigger(kind, []);
    let mut rest = text.trim();
    while !rest.is_empty() {
        let refuse = || format!("it takes NAME=VALUE, such as 'hour=3 minute=30', not \"{rest}\"");
        let (name, tail) = rest.split_once('=').ok_or_else(refuse)?;
        let quote = tail.chars().next().filter(|first| matches!(first, '"' | '\''));
        let (value, tail) = match quote {
            Some(quote) => {
                tail.get(1..).and_then(|tail| tail.split_once(quote)).ok_or_else(refuse)?
            }
            None => tail.split_once(char::is_whitespace).unwrap_or((tail, "")),
        };
        let name = name.trim();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(refuse());
        }
        if map.insert(name.to_owned(), read(value)?).is_some() {
            return Err(format!("{name} is given twice"));
        }
        rest = tail.trim_start();
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_option_replaces_a_key_of_the_json_only_if_it_is_given() {
        let json = any(r#"{"type": "interval", "days": 1, "end_date": "2020-01-01", "jitter": 5}"#);
        let options = TriggerOptions {
            trigger: Some(json.unwrap()),
            jitter: Some(7.into()),
            ..TriggerOptions::default()
        };
        assert_eq!(
            options.to_json().unwrap(),
            json!({"type": "interval", "days": 1, "end_date": "2020-01-01", "jitter": 7})
        );
    }

    #[test]
    fn the_json_of_a_trigger_is_passed_on_as_it_was_given() {
        let text = r#"{"type":"and","triggers":[],"jitter":null}"#;
        let options = TriggerOptions { trigger: any(text).ok(), ..TriggerOptions::default() };
        assert_eq!(options.to_json().unwrap().to_string(), text);
    }

    #[test]
    fn cron_fields_are_read_with_and_without_quotes() {
        let map = cron("day=\"3rd fri\" hour=0-3  month='6-8, 11'").unwrap();
        assert_eq!(
            Value::Object(map),
            json!({"type": "cron", "day": "3rd fri", "hour": "0-3", "month": "6-8, 11"})
        );
        for bad in ["hour", "hour 3", "hour=3 hour=4", "day=\"3rd", "=3", "type=x"] {
            assert!(cron(bad).is_err(), "{bad}");
        }
    }
}
