//! A call over HTTP on the command line.
#![expect(clippy::doc_markdown, reason = "these comments are the help text, which is not Markdown")]

use clap::Args;

/// What is called, and how.
#[derive(Debug, Default, Args)]
#[group(conflicts_with_all = ["builtin", "command"])]
pub struct CallArguments {
    /// Call a URL; a secret one is given as env:VARIABLE, file:PATH or credential:NAME
    #[arg(long = "http", value_name = "URL", help_heading = "What", conflicts_with_all = ["env", "cwd"])]
    pub url: Option<String>,
    /// Method of the call [default: GET, or POST if it sends something]
    #[arg(long, value_name = "METHOD", help_heading = "What", requires = "url")]
    pub method: Option<String>,
    /// Header of the call
    #[arg(long = "header", value_name = "NAME: VALUE", help_heading = "What", requires = "url")]
    pub headers: Vec<String>,
    /// Header whose value is read for each run from where it is kept, such as Authorization=file:/etc/token
    #[arg(
        long = "secret-header",
        value_name = "NAME=env:VARIABLE|file:PATH|credential:NAME",
        help_heading = "What",
        requires = "url"
    )]
    pub secret_headers: Vec<String>,
    /// Text that the call sends
    #[arg(
        long,
        value_name = "TEXT",
        help_heading = "What",
        requires = "url",
        conflicts_with = "json_body"
    )]
    pub body: Option<String>,
    /// JSON that the call sends
    #[arg(long, value_name = "JSON", help_heading = "What", requires = "url")]
    pub json_body: Option<String>,
    /// Status of an answer that is a success; can be repeated [default: any 2xx]
    #[arg(long, value_name = "STATUS", help_heading = "What", requires = "url")]
    pub expect: Vec<u16>,
    /// Redirects that are followed [default: 0]
    #[arg(long, value_name = "N", help_heading = "What", requires = "url")]
    pub redirects: Option<u8>,
    /// Time until the call has a connection [default: 10s]
    #[arg(long, value_name = "DURATION", help_heading = "What", requires = "url")]
    pub connect_timeout: Option<String>,
    /// Time until the call has its whole answer [default: 60s]
    #[arg(long, value_name = "DURATION", help_heading = "What", requires = "url")]
    pub answer_timeout: Option<String>,
}
