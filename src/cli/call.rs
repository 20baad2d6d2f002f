//! From what was typed to the JSON of a call over HTTP.

use serde_json::{Map, Value, json};

use super::arguments::CallArguments;
use super::{CliError, duration, value};

/// The task that calls this URL.
pub(super) fn task(url: &str, given: &CallArguments) -> Result<Value, CliError> {
    let headers = headers(given)?;
    let optional = [
        ("method", given.method.clone().map(Value::from)),
        ("headers", (!headers.is_empty()).then(|| headers.into())),
        ("body", given.body.clone().map(Value::from)),
        ("json", given.json_body.as_deref().map(json_body).transpose()?),
        ("expect", (!given.expect.is_empty()).then(|| json!(given.expect))),
        ("redirects", given.redirects.map(Value::from)),
        (
            "connect_timeout",
            duration::given("--connect-timeout", given.connect_timeout.as_deref())?,
        ),
        ("timeout", duration::given("--answer-timeout", given.answer_timeout.as_deref())?),
    ];
    let url = secret(url).unwrap_or_else(|| json!(url));
    let mut task = Map::from_iter([("type".to_owned(), json!("http")), ("url".to_owned(), url)]);
    task.extend(optional.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
    Ok(Value::Object(task))
}

fn json_body(text: &str) -> Result<Value, CliError> {
    value::json("--json-body", text)
}

fn headers(given: &CallArguments) -> Result<Map<String, Value>, CliError> {
    let plain = given.headers.iter().map(|text| header(text));
    let secret = given.secret_headers.iter().map(|text| secret_header(text));
    let mut headers = Map::new();
    for header in plain.chain(secret) {
        let (name, value) = header?;
        if headers.insert(name.clone(), value).is_some() {
            return Err(CliError::Usage(format!("the header {name} is given twice")));
        }
    }
    Ok(headers)
}

fn header(text: &str) -> Result<(String, Value), CliError> {
    let (name, value) = text
        .split_once(':')
        .ok_or_else(|| CliError::Usage(format!("--header takes 'NAME: VALUE', not \"{text}\"")))?;
    Ok((name.trim().to_owned(), json!(value.trim())))
}

fn secret_header(text: &str) -> Result<(String, Value), CliError> {
    let given = text.split_once('=').and_then(|(name, place)| Some((name, secret(place)?)));
    // What was typed may be the secret itself, so it is not repeated.
    let (name, place) = given.ok_or_else(|| {
        CliError::Usage(
            "--secret-header takes NAME=env:VARIABLE, NAME=file:PATH or NAME=credential:NAME"
                .to_owned(),
        )
    })?;
    Ok((name.trim().to_owned(), place))
}

/// Where a secret is kept, if that is what the text says.
fn secret(text: &str) -> Option<Value> {
    let (kind, place) = text.split_once(':')?;
    let is_kind = ["env", "file", "credential"].contains(&kind);
    is_kind.then(|| Map::from_iter([(kind.to_owned(), json!(place))]).into())
}
