//! Builds the request of an HTTP call. The secrets of the call are read here, and returned so that the run's output can
//! mask them.

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Body, Client, Method, Request, Url};
use serde_json::Value;

use super::client::{ClientOptions, Clients, SendError, TargetName, innermost};
use crate::clock::rfc3339;
use crate::executor::assignment::Assignment;
use crate::executor::hook_report;
use crate::job::{HttpBody, HttpCall, parse_url};
use crate::secret::Text;

/// Bytes that a part of a secret URL needs to be masked by itself too: a shorter one occurs in many texts by chance.
const MASKED_BYTES: usize = 8;

/// A request and the client that sends it.
#[derive(Debug)]
pub(super) struct PreparedRequest {
    pub(super) client: Client,
    pub(super) request: Request,
    pub(super) target: TargetName,
    pub(super) options: ClientOptions,
}

/// Reads the secrets, adds them to `secrets`, and builds the request. May block.
pub(super) fn prepare(
    call: &HttpCall,
    assignment: &Assignment,
    clients: &Clients,
    secrets: &mut Vec<String>,
) -> Result<PreparedRequest, SendError> {
    let url = url(call.url(), secrets)?;
    let (body, content_type) = body(call, assignment, secrets)?;
    let method = Method::from_bytes(call.method(body.is_some()).as_bytes());
    let method =
        method.map_err(|_| SendError::Failed("the HTTP method is not valid".to_owned()))?;
    let options = ClientOptions {
        connect_timeout: call.connect_timeout(),
        redirects: call.redirects(),
        same_server: call.has_secrets(),
    };
    let target = TargetName::of(&url, call.url().plain().is_none());
    let client = clients.get(options)?;
    let built = client.request(method, url).build();
    let mut request =
        built.map_err(|error| format!("the request could not be built: {}", innermost(&error)))?;
    // The user and password of a secret URL have become a header.
    collect_credentials(request.headers().get(AUTHORIZATION), secrets);
    request.headers_mut().extend(headers(call, assignment, content_type, secrets)?);
    *request.body_mut() = body.map(Body::from);
    Ok(PreparedRequest { client, request, target, options })
}

fn read(text: &Text, secrets: &mut Vec<String>) -> Result<String, String> {
    text.read(secrets).map_err(|error| error.to_string())
}

/// Reads a URL. The parts of a secret URL that a server may repeat are secrets too.
pub(crate) fn url(text: &Text, secrets: &mut Vec<String>) -> Result<Url, String> {
    let url = parse_url(&read(text, secrets)?).map_err(|why| format!("the URL {why}"))?;
    if text.plain().is_none() {
        let parts = [
            Some(url.as_str()),
            Some(url.path()),
            Some(url.path().trim_matches('/')),
            url.query(),
            url.password(),
        ];
        let parts = parts.into_iter().flatten().filter(|part| part.len() >= MASKED_BYTES);
        secrets.extend(parts.map(str::to_owned));
    }
    Ok(url)
}

/// The body and its content type: what the job says, or the report of the run for which this run is a hook.
fn body(
    call: &HttpCall,
    assignment: &Assignment,
    secrets: &mut Vec<String>,
) -> Result<(Option<String>, &'static str), String> {
    let json = "application/json";
    Ok(match (call.content(), &assignment.event) {
        (HttpBody::Json(value), _) => (Some(value.text().to_owned()), json),
        (HttpBody::Text(text), _) => (Some(read(text, secrets)?), "text/plain; charset=utf-8"),
        (HttpBody::None, Some(facts)) => (Some(with_text(facts)), json),
        (HttpBody::None, None) => (None, json),
    })
}

/// The report of a run with a member `text`, which the webhooks of chat programs show.
fn with_text(facts: &Value) -> String {
    let mut facts = facts.clone();
    let text = hook_report::report(&facts);
    if let Value::Object(map) = &mut facts {
        map.insert("text".to_owned(), text.into());
    }
    facts.to_string()
}

/// The headers that describe the run, and those of the job, which replace a header of the same name.
fn headers(
    call: &HttpCall,
    assignment: &Assignment,
    content_type: &'static str,
    secrets: &mut Vec<String>,
) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    let run_id = &*assignment.run_id.0;
    let (attempt, scheduled_at) = (assignment.attempt.to_string(), assignment.scheduled_at);
    let traceparent = assignment.traceparent();
    let mut own = vec![
        ("punctual-run-id", run_id),
        ("punctual-attempt", &attempt),
        ("traceparent", &traceparent),
        ("idempotency-key", run_id),
    ];
    let scheduled_at = scheduled_at.map(rfc3339);
    own.extend(scheduled_at.as_deref().map(|at| ("punctual-scheduled-at", at)));
    for (name, value) in own {
        headers.insert(HeaderName::from_static(name), value_of(name, value)?);
    }
    // An id may contain letters that are not ASCII, which `from_bytes` allows.
    let job_id = HeaderValue::from_bytes(assignment.job_id.as_str().as_bytes());
    headers
        .insert("punctual-job-id", job_id.map_err(|_| "the job's id cannot be sent in a header")?);
    if call.content() != HttpBody::None || assignment.event.is_some() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    for (name, text) in call.headers() {
        let value = read(text, secrets)?;
        let parsed = HeaderName::from_bytes(name.as_bytes());
        let parsed = parsed.map_err(|_| format!("{name} is not a header's name"))?;
        let mut header = value_of(name, &value)?;
        header.set_sensitive(text.plain().is_none());
        if parsed == AUTHORIZATION && text.plain().is_none() {
            collect_credentials(Some(&header), secrets);
        }
        headers.insert(parsed, header);
    }
    Ok(headers)
}

/// Adds the credentials of a header without the scheme before them, since a server may repeat them so.
fn collect_credentials(header: Option<&HeaderValue>, secrets: &mut Vec<String>) {
    let value = header.map(|value| String::from_utf8_lossy(value.as_bytes()));
    let credentials = value.as_deref().and_then(|value| value.split_once(' '));
    secrets.extend(credentials.map(|(_, credentials)| credentials.to_owned()));
}

fn value_of(name: &str, value: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(value).map_err(|_| {
        format!("the value of the header {name} has characters that a header cannot have")
    })
}
