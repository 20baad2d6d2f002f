//! A client of the control socket that decides every byte it sends, and when.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::PATIENCE;

/// A connection.
pub struct Raw {
    stream: BufReader<UnixStream>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of a refusal, which has to be the documented JSON.
    pub fn code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        let code = self.json().pointer("/error/code").and_then(Value::as_str).map(str::to_owned);
        code.unwrap_or_else(|| panic!("no error: {self:?}"))
    }
}

impl Raw {
    pub fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    /// Sends bytes; false if the other side does not take them any more.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.get_mut().write_all(bytes.as_ref()).is_ok()
    }

    /// Says that nothing more will be sent.
    pub fn half_close(&self) {
        self.stream.get_ref().shutdown(Shutdown::Write).unwrap();
    }

    /// Reads the status of the next answer, and nothing else of it.
    pub fn status(&mut self) -> Option<u16> {
        let mut start = [0; 12];
        self.stream.get_mut().read_exact(&mut start).ok()?;
        String::from_utf8_lossy(&start).split(' ').nth(1)?.parse().ok()
    }

    /// Reads the next answer, which has a length; none if the connection has ended.
    pub fn answer(&mut self) -> Option<Answer> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end().to_owned();
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        let status = lines.first()?.split(' ').nth(1)?.parse().unwrap();
        let headers = lines.iter().skip(1).map(|line| line.split_once(':').unwrap());
        let headers: Vec<_> = headers
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut answer = Answer { status, headers, body: Vec::new() };
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        answer.body = vec![0; length];
        self.stream.read_exact(&mut answer.body).ok()?;
        Some(answer)
    }

    /// Sends a request completely, as ordinary clients do, and reads its answer.
    pub fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> Option<Answer> {
        self.send_request(method, path, body).then(|| self.answer())?
    }

    /// The same, also if the server takes no more of it: a head that is no HTTP is refused, and the connection closed,
    /// before the body has arrived.
    pub fn ask_anyway(&mut self, method: &str, path: &str, body: &[u8]) -> Option<Answer> {
        self.send_request(method, path, body);
        self.answer()
    }

    fn send_request(&mut self, method: &str, path: &str, body: &[u8]) -> bool {
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
        self.send(head) && self.send(body)
    }

    /// Waits until the other side ends the connection. False if it sends something before.
    pub fn is_closed(&mut self) -> bool {
        self.is_closed_within(PATIENCE)
    }

    /// The same, for this time only.
    pub fn is_closed_within(&mut self, limit: Duration) -> bool {
        self.stream.get_ref().set_read_timeout(Some(limit)).unwrap();
        let read = self.stream.read(&mut [0]);
        self.stream.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
        match read {
            Ok(count) => count == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}
