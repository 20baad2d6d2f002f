//! The flags of an HTTP call. The struct is the JSON of the task, without its type.
#![expect(clippy::doc_markdown, reason = "these comments are the help text, which is not Markdown")]

use clap::Args;
use serde::ser::Error;
use serde::{Serialize, Serializer};
use serde_json::{Number, Value};

use super::values::{json, name_source, object, seconds, secret_source};

/// The URL to call, and how. Each part is a struct of its own without parts, because clap makes no group of a struct that
/// has some.
#[derive(Debug, Default, Args, Serialize)]
#[command(next_help_heading = "What")]
pub(super) struct HttpOptions {
    #[command(flatten)]
    #[serde(flatten)]
    call: CallOptions,
    #[command(flatten)]
    headers: HeaderOptions,
}

impl HttpOptions {
    pub(super) fn is_given(&self) -> bool {
        self.call.url.is_some()
    }
}

#[derive(Debug, Default, Args, Serialize)]
#[group(conflicts_with_all = ["builtin", "ProcessOptions", "EnvironmentOptions", "LimitOptions"])]
struct CallOptions {
    /// Call a URL; a secret one is given as env:VARIABLE, file:PATH or credential:NAME
    #[arg(long = "http", value_name = "URL", value_parser = plain_or_secret)]
    url: Option<Value>,
    /// HTTP method [default: GET, or POST if there is a body]
    #[arg(long, value_name = "METHOD", requires = "url")]
    method: Option<String>,
    /// Text to send as the body
    #[arg(long, value_name = "TEXT", requires = "url", conflicts_with = "json_body")]
    body: Option<String>,
    /// JSON to send as the body
    #[arg(long, value_name = "JSON", requires = "url", value_parser = json)]
    #[serde(rename = "json", skip_serializing_if = "Option::is_none")]
    json_body: Option<Value>,
    /// Response status that means success; can be given again [default: any 2xx]
    #[arg(long, value_name = "STATUS", requires = "url")]
    expect: Vec<u16>,
    /// Maximum number of redirects to follow [default: 0]
    #[arg(long, value_name = "N", requires = "url")]
    redirects: Option<u8>,
    /// Time limit for connecting [default: 10s]
    #[arg(long, value_name = "DURATION", requires = "url", value_parser = seconds)]
    connect_timeout: Option<Number>,
    /// Time limit for the whole response [default: 60s]
    #[arg(long, value_name = "DURATION", requires = "url", value_parser = seconds)]
    #[serde(rename = "timeout")]
    answer_timeout: Option<Number>,
}

/// The headers of a call. As JSON they are one object.
#[derive(Debug, Default, Args)]
#[group(conflicts_with_all = ["builtin", "command"])]
struct HeaderOptions {
    /// Header to send; can be given again
    #[arg(long = "header", value_name = "NAME: VALUE", requires = "url", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Header whose value is secret: read for each run from its source, such as Authorization=file:/etc/token
    #[arg(
        long = "secret-header",
        value_name = "NAME=env:VARIABLE|file:PATH|credential:NAME",
        requires = "url"
    )]
    secret_headers: Vec<String>,
}

impl Serialize for HeaderOptions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let plain =
            self.headers.iter().map(|(name, value)| Ok((name.clone(), value.as_str().into())));
        let secret = self.secret_headers.iter().map(|text| name_source("--secret-header", text));
        let headers = object("header", plain.chain(secret));
        headers.map_err(S::Error::custom)?.serialize(serializer)
    }
}

#[expect(clippy::unnecessary_wraps, reason = "clap takes a reader that can fail")]
fn plain_or_secret(text: &str) -> Result<Value, String> {
    Ok(secret_source(text).unwrap_or_else(|| text.into()))
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("it must have the form 'NAME: VALUE'")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}
