//! From what was typed to the policies of a job.

use serde_json::{Map, Value, json};

use super::arguments::PolicyArguments;
use super::{CliError, duration, value};

/// The policies that were given, by their keys.
pub(super) fn policies(given: &PolicyArguments) -> Result<Map<String, Value>, CliError> {
    let hook =
        |option, text: &Option<String>| text.as_deref().map(|text| task(option, text)).transpose();
    let optional = [
        ("timeout", duration::given("--timeout", given.timeout.as_deref())?),
        ("retry", retry(given)?),
        ("priority", given.priority.map(Value::from)),
        ("on_failure", hook("--on-failure", &given.on_failure)?),
        ("on_failure_once", given.on_failure_once.then_some(Value::Bool(true))),
        ("on_recovery", hook("--on-recovery", &given.on_recovery)?),
        ("on_success", hook("--on-success", &given.on_success)?),
        ("on_missed", hook("--on-missed", &given.on_missed)?),
        ("heartbeat", given.heartbeat.clone().map(Value::from)),
        ("on_finish", given.on_finish.clone().map(Value::from)),
    ];
    let given = optional.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Ok(given.collect())
}

fn retry(given: &PolicyArguments) -> Result<Option<Value>, CliError> {
    let Some(max_attempts) = given.max_attempts else { return Ok(None) };
    let optional = [
        ("max_attempts", Some(json!(max_attempts))),
        ("delay", duration::given("--retry-delay", given.retry_delay.as_deref())?),
        ("backoff", given.retry_backoff.map(Value::from)),
        ("max_delay", duration::given("--retry-max-delay", given.retry_max_delay.as_deref())?),
    ];
    let given = optional.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Ok(Some(Value::Object(given.collect())))
}

/// A task in its JSON form, or a line for the shell.
fn task(option: &str, text: &str) -> Result<Value, CliError> {
    if !text.trim_start().starts_with('{') {
        return Ok(json!({"type": "command", "shell": text}));
    }
    value::json(option, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_becomes_the_keys_of_a_job() {
        let given = PolicyArguments {
            timeout: Some("1h".to_owned()),
            max_attempts: Some(3),
            retry_delay: Some("500ms".to_owned()),
            priority: Some(-2),
            on_failure: Some("mail -s failed ops".to_owned()),
            on_success: Some(r#"{"type": "builtin", "name": "noop"}"#.to_owned()),
            ..PolicyArguments::default()
        };
        assert_eq!(
            Value::Object(policies(&given).unwrap()),
            json!({
                "timeout": 3600,
                "retry": {"max_attempts": 3, "delay": 0.5},
                "priority": -2,
                "on_failure": {"type": "command", "shell": "mail -s failed ops"},
                "on_success": {"type": "builtin", "name": "noop"},
            })
        );
        let bad = PolicyArguments { on_missed: Some("{x".to_owned()), ..given };
        assert!(policies(&bad).is_err());
    }
}
