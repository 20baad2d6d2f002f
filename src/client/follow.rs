//! An answer that goes on: the output of a run, line by line, for as long as the run takes.

use std::collections::VecDeque;

use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::Incoming;
use serde_json::Value;

use super::connection::{CALL_TIMEOUT, ClientConnection, Endpoint};
use super::error::ClientError;

/// The most bytes of one line: a line of an output has far fewer.
const LINE_LIMIT_BYTES: usize = 1024 * 1024;

/// The output of a run, as it is written.
#[derive(Debug)]
pub struct OutputFollower {
    endpoint: Endpoint,
    connection: ClientConnection,
    body: Incoming,
    /// The beginning of a line whose rest has not come yet.
    partial: Vec<u8>,
    /// Lines that the caller has not asked for yet.
    complete: VecDeque<Vec<u8>>,
}

impl OutputFollower {
    /// Asks for the output at this path.
    pub(super) async fn open(endpoint: Endpoint, path: &str) -> Result<Self, ClientError> {
        let (response, connection) =
            tokio::time::timeout(CALL_TIMEOUT, endpoint.send(Method::GET, path, None, None))
                .await
                .unwrap_or_else(|_| Err(endpoint.unreachable("no answer in time")))?;
        let status = response.status();
        if !status.is_success() {
            connection.read(response).await?;
            return Err(ClientError::Unreadable(format!("{status} says nothing")));
        }
        let (partial, complete) = (Vec::new(), VecDeque::new());
        Ok(Self { endpoint, connection, body: response.into_body(), partial, complete })
    }

    /// The next line. None: there are no more. Only a line with a `state` is the end of the run.
    pub async fn next(&mut self) -> Result<Option<Value>, ClientError> {
        loop {
            if let Some(line) = self.complete.pop_front() {
                let value = serde_json::from_slice(&line);
                return value.map_err(|error| ClientError::Unreadable(error.to_string()));
            }
            let Some(frame) = self.connection.during(self.body.frame()).await else {
                return Ok(None);
            };
            let frame = frame.map_err(|error| self.endpoint.unreachable(error))?;
            if let Ok(bytes) = frame.into_data() {
                self.take(&bytes)?;
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.complete.push_back(std::mem::take(&mut self.partial));
            } else if self.partial.len() > LINE_LIMIT_BYTES {
                let message = format!("a line has more than {LINE_LIMIT_BYTES} bytes");
                return Err(ClientError::Unreadable(message));
            }
        }
        Ok(())
    }
}
