//! The task `http`: the request and its URL, which responses are a success, and the time limits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ::http::{HeaderName, HeaderValue, Method};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Number, Value};
use url::Url;

use super::TaskType;
use crate::invalid::{self, Invalid};
use crate::job::{Json, seconds};
use crate::secret::Text;

/// The most bytes of a URL.
const URL_BYTES_MAX: usize = 8 * 1024;
/// The most bytes of a body.
const BODY_BYTES_MAX: usize = 256 * 1024;
/// The most headers of a call.
const HEADERS_MAX: usize = 64;
/// The most bytes of a header's value.
const HEADER_BYTES_MAX: usize = 8 * 1024;
/// The most redirects that can be allowed.
const REDIRECTS_MAX: u8 = 20;
/// The longest time limit, in seconds: a day.
const SECONDS_MAX: f64 = 86_400.0;
// The time limits where none are given, in seconds: for connecting, and for the whole response.
const CONNECT_SECONDS: f64 = 10.0;
const TOTAL_SECONDS: f64 = 60.0;
/// The 4xx statuses after which a retry may help: too slow, too early, too many.
const PASSING: [u16; 3] = [408, 425, 429];
/// Headers that the HTTP client sets: they say how a message is transferred.
const CARRIER_HEADERS: [&str; 9] = [
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// The prefix of the headers that describe the run.
const OWN_HEADERS: &str = "punctual-";

/// A call over HTTP, with only the fields that were given: so it is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpCall {
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    url: Text,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, Text>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    json: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expect: Option<Vec<u16>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_timeout: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redirects: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    no_retry: Option<Vec<u16>>,
}

/// Reads a body. Null is a body, too.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(deserializer).map(Some)
}

/// What a call sends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum HttpBody<'a> {
    /// Nothing.
    None,
    /// JSON.
    Json(&'a Json),
    /// A text.
    Text(&'a Text),
}

impl HttpCall {
    /// Reads the JSON form, without its type.
    pub(super) fn parse(keys: Map<String, Value>) -> Result<Self, Invalid> {
        let call: Self = invalid::read(Value::Object(keys))?;
        call.check_method()?;
        check_url("url", &call.url, "the header Authorization")?;
        call.check_headers()?;
        call.check_content()?;
        call.check_statuses()?;
        for (field, given) in
            [("connect_timeout", &call.connect_timeout), ("timeout", &call.timeout)]
        {
            if let Some(given) = given.as_ref().and_then(Number::as_f64) {
                seconds::parse(field, given, SECONDS_MAX)?;
            }
        }
        if call.redirects > Some(REDIRECTS_MAX) {
            let message = format!("must be between 0 and {REDIRECTS_MAX}");
            return Err(Invalid::new("redirects", message));
        }
        Ok(call)
    }

    fn check_method(&self) -> Result<(), Invalid> {
        let is_method = |name: &String| {
            Method::from_bytes(name.as_bytes()).is_ok_and(|method| method != Method::CONNECT)
                && !name.contains(|letter: char| letter.is_ascii_lowercase())
        };
        if self.method.as_ref().is_none_or(is_method) {
            return Ok(());
        }
        Err(Invalid::new("method", "must be a method in capitals, such as POST"))
    }

    fn check_headers(&self) -> Result<(), Invalid> {
        if self.headers.len() > HEADERS_MAX {
            return Err(Invalid::new("headers", format!("at most {HEADERS_MAX} headers")));
        }
        let mut names = BTreeSet::new();
        for (name, value) in &self.headers {
            let refuse = |why: String| Err(Invalid::new(name, why).within("headers"));
            let lower = name.to_ascii_lowercase();
            if HeaderName::from_bytes(name.as_bytes()).is_err() {
                return refuse("is not a header's name".to_owned());
            }
            if CARRIER_HEADERS.contains(&lower.as_str()) || lower.starts_with(OWN_HEADERS) {
                return refuse("is set by Punctual itself".to_owned());
            }
            if value.plain().is_some_and(|value| !is_header_value(value)) {
                return refuse(format!(
                    "must be at most {HEADER_BYTES_MAX} bytes without line breaks or other control characters"
                ));
            }
            if !names.insert(lower) {
                return refuse("is given twice".to_owned());
            }
        }
        Ok(())
    }

    fn check_content(&self) -> Result<(), Invalid> {
        let (field, bytes) = match (&self.json, &self.body) {
            (Some(_), Some(_)) => {
                return Err(Invalid::new("body", "cannot be given together with \"json\""));
            }
            (Some(json), None) => ("json", json.bytes()),
            (None, Some(body)) => ("body", body.plain().map_or(0, str::len)),
            (None, None) => return Ok(()),
        };
        if bytes <= BODY_BYTES_MAX {
            return Ok(());
        }
        Err(Invalid::new(field, format!("has {bytes} bytes, of at most {BODY_BYTES_MAX}")))
    }

    fn check_statuses(&self) -> Result<(), Invalid> {
        let refuse = |field: &str, why: &str| Err(Invalid::new(field, why));
        for (field, statuses) in [("expect", &self.expect), ("no_retry", &self.no_retry)] {
            let mut statuses = statuses.iter().flatten();
            if !statuses.all(|status| (100..=599).contains(status)) {
                return refuse(field, "a status is a number from 100 to 599");
            }
        }
        if self.expect.as_ref().is_some_and(Vec::is_empty) {
            return refuse("expect", "must have at least one status");
        }
        Ok(())
    }

    /// The method; where none is given, it depends on whether the call sends a body.
    pub fn method(&self, has_content: bool) -> &str {
        self.method.as_deref().unwrap_or(if has_content { "POST" } else { "GET" })
    }

    pub fn url(&self) -> &Text {
        &self.url
    }

    pub fn headers(&self) -> impl Iterator<Item = (&str, &Text)> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// What the call sends.
    pub fn content(&self) -> HttpBody<'_> {
        match (&self.json, &self.body) {
            (Some(json), _) => HttpBody::Json(json),
            (None, Some(body)) => HttpBody::Text(body),
            (None, None) => HttpBody::None,
        }
    }

    /// Whether anything that is sent is secret.
    pub fn has_secrets(&self) -> bool {
        self.secret_field().is_some()
    }

    /// Whether a response with this status is a success.
    pub fn expects(&self, status: u16) -> bool {
        self.expect.as_ref().map_or((200..300).contains(&status), |given| given.contains(&status))
    }

    /// The statuses that are a success, in words.
    pub fn expected(&self) -> String {
        let Some(expect) = &self.expect else { return "2xx".to_owned() };
        expect.iter().map(u16::to_string).collect::<Vec<_>>().join(" or ")
    }

    /// Whether a retry is pointless after this status, because the answer would be the same.
    pub fn is_permanent(&self, status: u16) -> bool {
        let is_mistake = (400..500).contains(&status) && !PASSING.contains(&status);
        self.no_retry.as_ref().map_or(is_mistake, |given| given.contains(&status))
    }

    /// The time limit for connecting.
    pub fn connect_timeout(&self) -> Duration {
        duration(self.connect_timeout.as_ref(), CONNECT_SECONDS)
    }

    /// The time limit for the whole call.
    pub fn timeout(&self) -> Duration {
        duration(self.timeout.as_ref(), TOTAL_SECONDS)
    }

    /// The most redirects that are followed.
    pub fn redirects(&self) -> usize {
        self.redirects.unwrap_or(0).into()
    }
}

impl TaskType for HttpCall {
    /// The method and the URL; of a secret URL, its source.
    fn describe(&self) -> String {
        let url = match self.url.plain() {
            Some(url) => url.to_owned(),
            None => serde_json::to_string(&self.url).unwrap_or_default(),
        };
        format!("{} {url}", self.method(self.content() != HttpBody::None))
    }

    fn secret_variables(&self) -> Vec<&str> {
        let texts = self.headers.values().chain(&self.body).chain([&self.url]);
        texts.filter_map(Text::variable).collect()
    }

    fn secret_field(&self) -> Option<String> {
        let is_secret = |text: &Text| text.plain().is_none();
        let header = self.headers.iter().find(|(_, text)| is_secret(text));
        let header = header.map(|(name, _)| format!("headers.{name}"));
        let body = || self.body.as_ref().filter(|text| is_secret(text)).map(|_| "body".to_owned());
        let url = || is_secret(&self.url).then(|| "url".to_owned());
        header.or_else(body).or_else(url)
    }
}

fn duration(given: Option<&Number>, default: f64) -> Duration {
    let seconds = given.and_then(Number::as_f64).unwrap_or(default);
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

fn is_header_value(value: &str) -> bool {
    value.len() <= HEADER_BYTES_MAX && HeaderValue::from_str(value).is_ok()
}

/// Refuses a URL that cannot be called, or that shows a user or a password. A secret URL is not checked. `instead` is what
/// to give as a secret.
pub(in crate::job) fn check_url(field: &str, url: &Text, instead: &str) -> Result<(), Invalid> {
    let Some(text) = url.plain() else { return Ok(()) };
    let url = parse_url(text).map_err(|why| Invalid::new(field, why))?;
    if url.username().is_empty() && url.password().is_none() {
        return Ok(());
    }
    let why = format!(
        "must not hold a user or a password, which everyone could see; give {instead} as a secret"
    );
    Err(Invalid::new(field, why))
}

/// Reads a URL of http or https. The error does not repeat the URL, which may be secret.
pub fn parse_url(text: &str) -> Result<Url, &'static str> {
    if text.len() > URL_BYTES_MAX {
        return Err("is too long for a URL");
    }
    // `Url::parse` accepts more than one would expect: it drops spaces, and takes other schemes.
    let has_space = text.contains(|letter: char| letter.is_whitespace() || letter.is_control());
    let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    let is_http = matches!(scheme.as_deref(), Some("http" | "https"));
    if has_space || !is_http {
        return Err("must be a URL of http or https, such as https://example.org/path");
    }
    let url =
        Url::parse(text).map_err(|_| "must be a URL with a host and, if any, a valid port")?;
    if url.port() == Some(0) { Err("must not have the port 0") } else { Ok(url) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(value: Value) -> Result<HttpCall, Invalid> {
        let Value::Object(keys) = value else { unreachable!() };
        HttpCall::parse(keys)
    }

    fn with(field: &str, value: &Value) -> Value {
        let mut call = json!({"url": "https://example.org/x"});
        call[field] = value.clone();
        call
    }

    #[test]
    fn a_call_is_shown_exactly_as_it_was_given() {
        let cases = [
            json!({"url": "http://[::1]:8080/a?b=c#d"}),
            json!({"url": {"env": "URL"}, "method": "PATCH", "json": null}),
            json!({
                "url": "https://münchen.example/", "headers": {"X-A": "b", "Authorization": {"file": "/run/x"}},
                "body": {"credential": "body"}, "expect": [200, 404], "connect_timeout": 0.5, "timeout": 10,
                "redirects": 3, "no_retry": [],
            }),
        ];
        for case in cases {
            let call = parse(case.clone()).unwrap();
            assert_eq!(serde_json::to_value(call).unwrap(), case);
        }
    }

    #[test]
    fn a_bad_call_is_refused_by_its_field_and_its_url_is_not_told() {
        let long = "x".repeat(BODY_BYTES_MAX + 1);
        let many: BTreeMap<String, &str> = (0..65).map(|n| (format!("X-{n}"), "")).collect();
        let cases = [
            ("url", json!("ftp://hunter2"), "url"),
            ("url", json!("https://"), "url"),
            ("url", json!("http:hunter2"), "url"),
            ("url", json!("https://hunter2/a b"), "url"),
            ("url", json!(" https://hunter2"), "url"),
            ("url", json!("https://hunter2:99999"), "url"),
            ("url", json!("https://hunter2:0"), "url"),
            ("url", json!("https://me:hunter2@example.org"), "url"),
            ("url", json!("https://hunter2@example.org"), "url"),
            ("url", json!(format!("https://hunter2/{long}")), "url"),
            ("url", json!({"vault": "x"}), "url"),
            ("method", json!("post"), "method"),
            ("method", json!("GET IT"), "method"),
            ("method", json!("CONNECT"), "method"),
            ("headers", json!({"a b": ""}), "headers.a b"),
            ("headers", json!({"X": "a\r\nEvil: b"}), "headers.X"),
            ("headers", json!({"X": 1}), "headers.X"),
            ("headers", json!({"X-A": "", "x-a": ""}), "headers.x-a"),
            ("headers", json!({"Content-Length": "5"}), "headers.Content-Length"),
            ("headers", json!({"Punctual-Run-Id": "5"}), "headers.Punctual-Run-Id"),
            ("headers", json!(many), "headers"),
            ("body", json!(long), "body"),
            ("json", json!([long]), "json"),
            ("expect", json!([200, 99]), "expect"),
            ("expect", json!([]), "expect"),
            ("expect", json!(["2xx"]), "expect[0]"),
            ("no_retry", json!([600]), "no_retry"),
            ("timeout", json!(0), "timeout"),
            ("timeout", json!(1e6), "timeout"),
            ("connect_timeout", json!(-1), "connect_timeout"),
            ("redirects", json!(21), "redirects"),
            ("redirects", json!(-1), "redirects"),
            ("follow", json!(true), "follow"),
        ];
        for (field, value, named) in cases {
            let error = parse(with(field, &value)).unwrap_err();
            assert_eq!(error.field, named, "{value}");
            assert!(!error.message.contains("hunter2"), "{error}");
        }
        let both = json!({"url": "http://x", "json": null, "body": ""});
        assert_eq!(parse(both).unwrap_err().field, "body");
        assert_eq!(parse(json!({})).unwrap_err().message, "missing field `url`");
    }

    #[test]
    fn what_is_not_given_has_a_sensible_value() {
        let call = parse(json!({"url": "http://x"})).unwrap();
        assert_eq!((call.method(false), call.method(true), call.redirects()), ("GET", "POST", 0));
        let limits = (call.connect_timeout(), call.timeout());
        assert_eq!(limits, (Duration::from_secs(10), Duration::from_mins(1)));
        let statuses = [199, 200, 204, 299, 300];
        assert_eq!(statuses.map(|status| call.expects(status)), [false, true, true, true, false]);
        let permanent: Vec<u16> = (100..600).filter(|status| call.is_permanent(*status)).collect();
        assert_eq!(permanent.len(), 97);
        assert!([400, 404, 499].iter().all(|status| permanent.contains(status)));
        assert!(!PASSING.iter().any(|status| permanent.contains(status)));
        let call = parse(with("no_retry", &json!([503]))).unwrap();
        assert!(call.is_permanent(503) && !call.is_permanent(404));
    }

    #[test]
    fn a_call_is_described_without_its_secrets() {
        let plain = parse(with("json", &json!({}))).unwrap();
        assert_eq!(
            (plain.describe().as_str(), plain.has_secrets()),
            ("POST https://example.org/x", false)
        );
        let secret = parse(json!({"url": {"env": "HOOK"}})).unwrap();
        assert_eq!(
            (secret.describe().as_str(), secret.has_secrets()),
            ("GET {\"env\":\"HOOK\"}", true)
        );
    }
}
