//! `punctual log-level`: shows and changes the filter of the daemon's log.

use serde_json::{Value, json};

use super::arguments::LogLevelArguments;
use super::console::Console;
use super::error::CliError;
use super::times::{instant, relative};
use crate::client::Client;
use crate::clock::Timestamp;
use crate::printable::escaped;

pub(super) async fn run(
    client: &Client,
    arguments: &LogLevelArguments,
    output: &Console,
    now: Timestamp,
) -> Result<(), CliError> {
    let answer = match &arguments.filter {
        Some(filter) => {
            client.set_log_filter(&json!({"filter": filter, "for": arguments.time})).await?
        }
        None if arguments.reset => client.reset_log_filter().await?,
        None => client.log_filter().await?,
    };
    output.show(&answer, |answer| view(answer, now))
}

/// The filter, the previous one, and when the one of the daemon's start applies again.
fn view(answer: &Value, now: Timestamp) -> String {
    let text = |key: &str| escaped(answer.get(key).and_then(Value::as_str).unwrap_or_default());
    let (filter, start) = (text("filter"), text("start_filter"));
    let mut lines = vec![format!("log level: {filter}")];
    if answer.get("previous").is_some() {
        lines.push(format!("before:    {}", text("previous")));
    }
    if filter != start {
        let until = instant(answer, "until").map_or_else(
            || "after a restart, or punctual log-level --reset".to_owned(),
            |until| relative(until, now),
        );
        lines.push(format!("{until}: {start}"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_shown_with_what_held_before_and_what_follows() {
        let now: Timestamp = "2026-11-29T12:00:00Z".parse().unwrap();
        let answer = json!({"filter": "debug", "previous": "warn", "start_filter": "info",
            "until": "2026-11-29T12:10:00Z"});
        assert_eq!(view(&answer, now), "log level: debug\nbefore:    warn\nin 10m 0s: info");
        let answer = json!({"filter": "debug\u{1b}", "start_filter": "info", "until": null});
        let expected =
            "log level: debug\\u{1b}\nafter a restart, or punctual log-level --reset: info";
        assert_eq!(view(&answer, now), expected);
        let answer = json!({"filter": "info", "start_filter": "info", "until": null});
        assert_eq!(view(&answer, now), "log level: info");
    }
}
