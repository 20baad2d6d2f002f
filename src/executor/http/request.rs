//! From a call, as it was given, to the request that is sent: its secrets are read now, and told so that they can be
//! hidden.

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Body, Client, Method, Request, Url};
use serde_json::Value;

use super::client::{Clients, Target, Unsent, Way, innermost};
use crate::clock::rfc3339;
use crate::executor::{Assignment, notice};
use crate::job::{HttpBody, HttpCall, parse_url};
use crate::secret::Text;

/// Bytes of a part of a secret URL that is hidden by itself too: a shorter one is no secret, and stands in many texts.
const HIDDEN_BYTES: usize = 8;

/// A request, and the client that sends it.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) client: Client,
    pub(super) request: Request,
    pub(super) target: Target,
    pub(super) way: Way,
}

/// Reads the secrets, adds them to `found`, and builds the request. It may block.
pub(super) fn prepare(
    call: &HttpCall,
    assignment: &Assignment,
    clients: &Clients,
    found: &mut Vec<String>,
) -> Result<Prepared, Unsent> {
    let url = url(call.url(), found)?;
    let (body, content_type) = body(call, assignment, found)?;
    let method = Method::from_bytes(call.method(body.is_some()).as_bytes());
    let method = method.map_err(|_| Unsent::Failed("the method is not one".to_owned()))?;
    let way = Way {
        connect_timeout: call.connect_timeout(),
        redirects: call.redirects(),
        stays: call.has_secrets(),
    };
    let target = Target::of(&url, call.url().plain().is_none());
    let client = clients.get(way)?;
    let built = client.request(method, url).build();
    let mut request = built.map_err(|error| format!("no request: {}", innermost(&error)))?;
    // A secret URL may hold a user and a password, which have become a header.
    hide_credentials(request.headers().get(AUTHORIZATION), found);
    request.headers_mut().extend(headers(call, assignment, content_type, found)?);
    *request.body_mut() = body.map(Body::from);
    Ok(Prepared { client, request, target, way })
}

fn read(text: &Text, found: &mut Vec<String>) -> Result<String, String> {
    text.read(found).map_err(|error| error.to_string())
}

/// Reads a URL. Of a secret one, what a server may repeat is secret too.
pub(in crate::executor) fn url(text: &Text, found: &mut Vec<String>) -> Result<Url, String> {
    let url = parse_url(&read(text, found)?).map_err(|why| format!("the URL {why}"))?;
    if text.plain().is_none() {
        let parts = [
            Some(url.as_str()),
            Some(url.path()),
            Some(url.path().trim_matches('/')),
            url.query(),
            url.password(),
        ];
        let parts = parts.into_iter().flatten().filter(|part| part.len() >= HIDDEN_BYTES);
        found.extend(parts.map(str::to_owned));
    }
    Ok(url)
}

/// What is sent, and its type: what was given, else what happened to the run that this one tells of.
fn body(
    call: &HttpCall,
    assignment: &Assignment,
    found: &mut Vec<String>,
) -> Result<(Option<String>, &'static str), String> {
    let json = "application/json";
    Ok(match (call.content(), &assignment.event) {
        (HttpBody::Json(value), _) => (Some(value.text().to_owned()), json),
        (HttpBody::Text(text), _) => (Some(read(text, found)?), "text/plain; charset=utf-8"),
        (HttpBody::None, Some(facts)) => (Some(with_text(facts)), json),
        (HttpBody::None, None) => (None, json),
    })
}

/// The facts with the report as `text`, which is what the webhooks of chat programs show.
fn with_text(facts: &Value) -> String {
    let mut facts = facts.clone();
    let text = notice::report(&facts);
    if let Value::Object(map) = &mut facts {
        map.insert("text".to_owned(), text.into());
    }
    facts.to_string()
}

/// The headers that tell of the run, and those that were given, which count where they are of the same name.
fn headers(
    call: &HttpCall,
    assignment: &Assignment,
    content_type: &'static str,
    found: &mut Vec<String>,
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
    // An id may have letters that are not ASCII; a header has bytes.
    let job_id = HeaderValue::from_bytes(assignment.job_id.as_str().as_bytes());
    headers.insert("punctual-job-id", job_id.map_err(|_| "the job's id fits into no header")?);
    if call.content() != HttpBody::None || assignment.event.is_some() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    for (name, text) in call.headers() {
        let value = read(text, found)?;
        let parsed = HeaderName::from_bytes(name.as_bytes());
        let parsed = parsed.map_err(|_| format!("{name} is not a header's name"))?;
        let mut header = value_of(name, &value)?;
        header.set_sensitive(text.plain().is_none());
        if parsed == AUTHORIZATION && text.plain().is_none() {
            hide_credentials(Some(&header), found);
        }
        headers.insert(parsed, header);
    }
    Ok(headers)
}

/// A server may repeat credentials without the word before them.
fn hide_credentials(header: Option<&HeaderValue>, found: &mut Vec<String>) {
    let value = header.map(|value| String::from_utf8_lossy(value.as_bytes()));
    let credentials = value.as_deref().and_then(|value| value.split_once(' '));
    found.extend(credentials.map(|(_, credentials)| credentials.to_owned()));
}

fn value_of(name: &str, value: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(value).map_err(|_| format!("the value of the header {name} is not one"))
}
