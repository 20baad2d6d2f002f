//! One request to the daemon and its answer, over a connection of its own.

use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ETAG, IF_MATCH};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use super::denied;
use super::error::ClientError;

/// The time limit for one call, apart from the time for which it asks the daemon to wait.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// The most bytes of an answer that are read: a page of 1,000 jobs has far fewer.
const ANSWER_LIMIT_BYTES: usize = 64 * 1024 * 1024;
/// The hint of an error where a person starts the daemon.
const STARTED_BY_HAND: &str = "is `punctual serve` running? ";
/// The hint of an error where systemd starts it.
const STARTED_BY_SYSTEMD: &str = "see `systemctl status punctual`; ";

/// Where a daemon listens, and what the error says if it does not answer.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    pub(super) socket: PathBuf,
    /// The users that the daemon may run as. None: any.
    pub(super) users: Option<Vec<u32>>,
    /// Where else there is no socket, as the end of a sentence.
    elsewhere: String,
    /// How to find out why the daemon does not answer.
    help: &'static str,
}

impl Endpoint {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { socket, users: None, elsewhere: String::new(), help: STARTED_BY_HAND }
    }

    pub(super) fn set_not_found(&mut self, elsewhere: &impl std::fmt::Display, is_service: bool) {
        self.elsewhere = format!(", nor at {elsewhere}");
        self.help = if is_service { STARTED_BY_SYSTEMD } else { STARTED_BY_HAND };
    }

    /// Sends a request and reads its whole answer, within `limit`. With `if_match`, the request is meant for this version
    /// only. Also returns the version of what is answered, if it has one.
    pub(super) async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        if_match: Option<&str>,
        limit: Duration,
    ) -> Result<(Value, Option<String>), ClientError> {
        let exchange = async {
            let (response, connection) = self.send(method, path, body, if_match).await?;
            let etag = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok());
            let etag = etag.map(str::to_owned);
            Ok((connection.read(response).await?, etag))
        };
        tokio::time::timeout(limit, exchange)
            .await
            .unwrap_or_else(|_| Err(self.unreachable("no answer in time")))
    }

    /// Sends a request, and returns when the head of the answer has come.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        if_match: Option<&str>,
    ) -> Result<(Response<Incoming>, ClientConnection), ClientError> {
        let stream = UnixStream::connect(&self.socket).await;
        let stream = stream.map_err(|error| self.not_connected(&error))?;
        let user = stream.peer_cred().map_err(|error| self.unreachable(error))?.uid();
        if self.users.as_ref().is_some_and(|users| !users.contains(&user)) {
            let why =
                format!("it runs as user {user}, neither as root nor as you, and was not chosen");
            return Err(self.unreachable(why));
        }
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.unreachable(error))?;
        let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "punctual")
            .header("content-type", "application/json");
        if let Some(etag) = if_match {
            request = request.header(IF_MATCH, etag);
        }
        let request = request
            .body(Full::new(bytes))
            .map_err(|error| ClientError::Unreadable(error.to_string()))?;
        let mut connection = ClientConnection(Some(Box::pin(connection)));
        let response = connection.during(sender.send_request(request)).await;
        Ok((response.map_err(|error| self.unreachable(error))?, connection))
    }

    fn not_connected(&self, error: &std::io::Error) -> ClientError {
        if error.kind() != std::io::ErrorKind::PermissionDenied {
            return self.unreachable(error);
        }
        ClientError::Denied { socket: self.socket.clone(), advice: denied::advice(&self.socket) }
    }

    pub(super) fn unreachable(&self, reason: impl std::fmt::Display) -> ClientError {
        let reason = format!("{reason}{}", self.elsewhere);
        ClientError::Unreachable { socket: self.socket.clone(), reason, help: self.help }
    }
}

/// The connection of a call. It makes progress only while [`Self::during`] polls it. None when it has ended.
pub(super) struct ClientConnection(Option<Driver>);

/// The future that moves the bytes of a connection.
type Driver = Pin<Box<dyn Future<Output = Result<(), hyper::Error>> + Send>>;

impl std::fmt::Debug for ClientConnection {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ClientConnection").field("open", &self.0.is_some()).finish()
    }
}

impl ClientConnection {
    /// Does work that needs the connection. If the connection fails, the work says so.
    pub(super) async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        while let Some(driver) = &mut self.0 {
            tokio::select! {
                biased;
                done = &mut work => return done,
                _ = driver => self.0 = None,
            }
        }
        work.await
    }

    /// Reads the whole body of an answer.
    pub(super) async fn read(mut self, response: Response<Incoming>) -> Result<Value, ClientError> {
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_LIMIT_BYTES);
        let body = self.during(body.collect()).await;
        let body = body.map_err(|error| ClientError::Unreadable(error.to_string()))?;
        read_answer(status, &body.to_bytes())
    }
}

fn read_answer(status: StatusCode, body: &[u8]) -> Result<Value, ClientError> {
    let value = if body.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(body).map_err(|error| ClientError::Unreadable(error.to_string()))?
    };
    if status.is_success() {
        return Ok(value);
    }
    let text = |key: &str| {
        value.pointer(&format!("/error/{key}")).and_then(Value::as_str).map(str::to_owned)
    };
    Err(ClientError::Refused {
        status: status.as_u16(),
        code: text("code").unwrap_or_else(|| status.as_str().to_owned()),
        message: text("message").unwrap_or_else(|| format!("refused with {status}")),
        field: text("field"),
    })
}
