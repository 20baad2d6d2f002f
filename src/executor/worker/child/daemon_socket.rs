//! The worker's end of its socket.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::inbox::Inbox;
use crate::executor::worker::protocol::frame::encode;
use crate::executor::worker::protocol::message::WorkerMessage;

/// The socket, and what has been read from it. One thread at a time reads.
#[derive(Debug)]
pub(super) struct DaemonSocket {
    socket: UnixStream,
    inbox: Mutex<Inbox>,
}

impl DaemonSocket {
    /// Takes the socket from stdin, and replaces stdin by an empty file: a process that a builtin starts must neither
    /// read from the socket nor hold it open.
    pub(super) fn from_stdin() -> Result<Self> {
        let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        Ok(Self::new(socket.into()))
    }

    pub(super) fn new(socket: UnixStream) -> Self {
        Self { socket, inbox: Mutex::default() }
    }

    /// A second handle for a task. Until [`Self::set_blocking`] is called, the socket is non-blocking.
    pub(super) fn to_async(&self) -> Result<tokio::net::UnixStream> {
        let socket = self.socket.try_clone()?;
        socket.set_nonblocking(true)?;
        tokio::net::UnixStream::from_std(socket)
    }

    pub(super) fn set_blocking(&self) -> Result<()> {
        self.socket.set_nonblocking(false)
    }

    pub(super) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn send(&self, message: &WorkerMessage) -> Result<()> {
        (&self.socket).write_all(&encoded(message)?)
    }

    /// Waits until `take` finds what it looks for among the messages; `None` if the daemon is gone.
    pub(super) fn receive<T>(
        &self,
        take: impl Fn(&mut Inbox) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let mut inbox = self.inbox();
        loop {
            if let Some(taken) = take(&mut inbox)? {
                return Ok(Some(taken));
            }
            match (&self.socket).read(inbox.frames.space()) {
                Ok(0) => return Ok(None),
                Ok(count) => inbox.frames.fill(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A message as the bytes that are sent.
pub(super) fn encoded(message: &WorkerMessage) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    encode(message, &mut bytes).map_err(Error::other)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_worker_receives_calls_until_its_daemon_is_gone_or_sends_garbage() {
        let mut call = Vec::new();
        let message = json!({"call": {
            "run_id": "a", "job_id": "job", "attempt": 1, "scheduled_at": null, "name": "noop",
            "args": {}, "event": null,
        }});
        encode(&message, &mut call).unwrap();
        let half = &call[..call.len() / 2];
        let cases: [(Vec<u8>, &str); 6] = [
            (vec![], "gone"),
            (half.to_vec(), "gone"),
            (call.clone(), "a gone"),
            ([&*call, half].concat(), "a gone"),
            ([&*call, &call].concat(), "a a gone"),
            ([&*call, b"\0\0\0\x07garbage"].concat(), "a error"),
        ];
        for (bytes, expected) in cases {
            let (mut daemon, worker) = UnixStream::pair().unwrap();
            let socket = DaemonSocket::new(worker);
            daemon.write_all(&bytes).unwrap();
            drop(daemon);
            let mut received = Vec::new();
            let end = loop {
                match socket.receive(Inbox::next_call) {
                    Ok(Some(call)) => received.push(call.run_id.into_owned()),
                    Ok(None) => break "gone",
                    Err(_) => break "error",
                }
            };
            received.push(end.to_owned());
            assert_eq!(received.join(" "), expected);
        }
    }
}
