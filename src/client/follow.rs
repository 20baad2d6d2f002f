//! Answers that go on: what a run writes, line by line, for as long as it takes.

use std::collections::VecDeque;
use std::pin::Pin;

use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::Incoming;
use serde_json::Value;

use super::{CALL_TIMEOUT, Client, ClientError, path_with, read_body, run_path};

/// Bytes of one line of such an answer, at most: a line of an output is far below it.
const LINE_LIMIT_BYTES: usize = 1024 * 1024;

/// The connection of a call. It only makes progress while it is polled; none when it has ended.
pub(super) struct ClientConnection(pub(super) Option<Driving>);

/// What has to be polled.
pub(super) type Driving = Pin<Box<dyn Future<Output = Result<(), hyper::Error>> + Send>>;

impl std::fmt::Debug for ClientConnection {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Connection").field("open", &self.0.is_some()).finish()
    }
}

impl ClientConnection {
    /// Does something that needs the connection. How that has ended is told by what needed it.
    pub(super) async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        while let Some(driving) = &mut self.0 {
            tokio::select! {
                biased;
                done = &mut work => return done,
                _ = driving => self.0 = None,
            }
        }
        work.await
    }
}

/// What a run writes, as it comes.
#[derive(Debug)]
pub struct OutputFollower {
    client: Client,
    connection: ClientConnection,
    body: Incoming,
    /// The beginning of a line.
    begun: Vec<u8>,
    /// Lines that nobody has asked for yet.
    waiting: VecDeque<Vec<u8>>,
}

impl Client {
    /// Follows a run to its end, from its present attempt on; `query` as in `attempt=1`. There is no limit to the time.
    pub async fn follow(&self, id: &str, query: &str) -> Result<OutputFollower, ClientError> {
        let path = path_with(&format!("{}/output", run_path(id)), &format!("follow&{query}"));
        let beginning = self.begin(Method::GET, &path, None);
        let (response, mut connection) = tokio::time::timeout(CALL_TIMEOUT, beginning)
            .await
            .unwrap_or_else(|_| Err(self.unreachable("no answer in time")))?;
        if response.status().is_success() {
            let (begun, waiting) = (Vec::new(), VecDeque::new());
            return Ok(OutputFollower {
                client: self.clone(),
                connection,
                body: response.into_body(),
                begun,
                waiting,
            });
        }
        let status = response.status();
        let refused = connection.during(read_body(response)).await;
        let refused = refused.map_err(|error| ClientError::Unreadable(error.to_string()))?;
        super::read_answer(status, &refused)?;
        Err(ClientError::Unreadable(format!("{status} says nothing")))
    }
}

impl OutputFollower {
    /// The next line; none if there are no more. Only a line with a `state` is the end of the run.
    pub async fn next(&mut self) -> Result<Option<Value>, ClientError> {
        loop {
            if let Some(line) = self.waiting.pop_front() {
                let value = serde_json::from_slice(&line);
                return value.map_err(|error| ClientError::Unreadable(error.to_string()));
            }
            let Some(frame) = self.connection.during(self.body.frame()).await else {
                return Ok(None);
            };
            let frame = frame.map_err(|error| self.client.unreachable(error))?;
            if let Ok(bytes) = frame.into_data() {
                self.take(&bytes)?;
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.begun.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.waiting.push_back(std::mem::take(&mut self.begun));
            } else if self.begun.len() > LINE_LIMIT_BYTES {
                let message = format!("a line has more than {LINE_LIMIT_BYTES} bytes");
                return Err(ClientError::Unreadable(message));
            }
        }
        Ok(())
    }
}
